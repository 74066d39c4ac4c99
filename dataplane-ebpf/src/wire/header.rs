//! Ethernet, IPv6 and the first bytes of what follows.

use crate::abi::{Address, Mac};
use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

/// Bytes of an Ethernet header.
pub const ETHERNET_LEN: usize = 14;
/// Bytes of the fixed IPv6 header.
pub const IPV6_LEN: usize = 40;
/// Where layer 4 begins when there is no extension header.
pub const L4_OFFSET: usize = ETHERNET_LEN + IPV6_LEN;

/// EtherType values.
pub mod ethertype {
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// Customer VLAN tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// Service VLAN tag (IEEE 802.1ad).
    pub const SERVICE_VLAN: u16 = 0x88a8;
    /// The service tag of equipment older than 802.1ad.
    pub const OLD_SERVICE_VLAN: u16 = 0x9100;
}

/// Next header values.
pub mod protocol {
    /// Hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// Routing header.
    pub const ROUTING: u8 = 43;
    /// Fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Encapsulating security payload.
    pub const ESP: u8 = 50;
    /// Authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMPv6.
    pub const ICMP6: u8 = 58;
    /// No next header.
    pub const NONE: u8 = 59;
    /// Destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
    /// Mobility header.
    pub const MOBILITY: u8 = 135;
    /// Host identity protocol.
    pub const HIP: u8 = 139;
    /// Shim6.
    pub const SHIM6: u8 = 140;
}

/// ICMPv6 types.
pub mod icmp6 {
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Multicast listener query.
    pub const MLD_QUERY: u8 = 130;
    /// Multicast listener report, version 1.
    pub const MLD_REPORT: u8 = 131;
    /// Multicast listener done, version 1.
    pub const MLD_DONE: u8 = 132;
    /// Router solicitation.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Redirect.
    pub const REDIRECT: u8 = 137;
    /// Multicast listener report, version 2.
    pub const MLD2_REPORT: u8 = 143;
}

/// An Ethernet header.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct EthernetHeader {
    /// Destination MAC.
    pub destination: [u8; 6],
    /// Source MAC.
    pub source: [u8; 6],
    /// [`ethertype`].
    pub ethertype: U16,
}

impl EthernetHeader {
    /// Both MACs as numbers, destination and source, the first byte lowest.
    #[inline(always)]
    pub fn macs(&self) -> [u64; 2] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..]: [u8; 14] = transmute!(*self);
        let (low, high) = (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u32::from_le_bytes([i, j, k, l]));
        [low << 16 >> 16, low >> 48 | u64::from(high) << 16]
    }

    /// Destination MAC.
    #[inline(always)]
    pub fn destination(&self) -> Mac {
        Mac::new(self.destination)
    }

    /// Source MAC.
    #[inline(always)]
    pub fn source(&self) -> Mac {
        Mac::new(self.source)
    }
}

/// The fixed IPv6 header (RFC 8200 section 3).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct Ipv6Header {
    /// Version, traffic class and flow label.
    pub version_class_flow: [u8; 4],
    /// Bytes after this header.
    pub payload_len: U16,
    /// [`protocol`] of what follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
}

impl Ipv6Header {
    /// The version field, 6 in an IPv6 packet.
    #[inline(always)]
    pub fn version(&self) -> u8 {
        self.version_class_flow[0] >> 4
    }

    /// Source address.
    #[inline(always)]
    pub fn source(&self) -> Address {
        Address::new(self.source)
    }

    /// Destination address.
    #[inline(always)]
    pub fn destination(&self) -> Address {
        Address::new(self.destination)
    }
}

/// Ethernet and IPv6 header in one view: one bounds check for both.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct Headers {
    /// Ethernet header.
    pub ethernet: EthernetHeader,
    /// IPv6 header.
    pub ip: Ipv6Header,
}

const _: () = assert!(size_of::<Headers>() == L4_OFFSET);

/// The part of a TCP header that is looked at (RFC 9293 section 3.1).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct TcpHeader {
    /// Source and destination port.
    pub ports: [U16; 2],
    /// Sequence and acknowledgement number.
    pub numbers: [u8; 8],
    /// Header length in 32-bit words, in the upper four bits.
    pub data_offset: u8,
    /// Flags.
    pub flags: u8,
    /// Window.
    pub window: U16,
    /// Checksum, as stored.
    pub checksum: [u8; 2],
    /// Urgent pointer.
    pub urgent: U16,
}

/// A UDP header.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct UdpHeader {
    /// Source port.
    pub source_port: U16,
    /// Destination port.
    pub destination_port: U16,
    /// Bytes of header and payload.
    pub length: U16,
    /// Checksum, as stored.
    pub checksum: [u8; 2],
}

/// The first four bytes of every ICMPv6 message (RFC 4443 section 2.1).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct Icmp6Header {
    /// [`icmp6`] type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum, as stored.
    pub checksum: [u8; 2],
}
