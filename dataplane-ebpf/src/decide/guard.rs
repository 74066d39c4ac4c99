//! Who may send this: the VM uses its own MAC and addresses, its packets are what they claim to be, and it plays neither
//! router nor DHCPv6 server. Enforced on every IPv6 frame from a VM before anything else looks at it.

use super::Tables;
use crate::abi::{Address, Endpoint, Owner, Reason, owner_flags};
use crate::wire::{
    Chain, ChainError, Fragment, Frame, Headers, Icmp6Header, L4_OFFSET, TcpHeader, UdpHeader, icmp6,
    protocol, walk,
};
use core::hint::cold_path;

/// UDP port of DHCPv6 clients.
const DHCP6_CLIENT: u16 = 546;
/// UDP port of DHCPv6 servers and relays.
const DHCP6_SERVER: u16 = 547;
/// Bytes of an ICMPv6 message without its body.
const ICMP6_LEN: usize = 8;
/// Bytes of SCTP's common header (RFC 9260 section 3).
const SCTP_LEN: usize = 12;

/// A packet that the VM may send.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Bytes after the fixed IPv6 header.
    pub payload_len: usize,
    /// Where the upper layer is.
    pub chain: Chain,
    /// Bytes follow the packet in its frame.
    pub padded: bool,
    /// It is a router solicitation, neighbour solicitation or neighbour advertisement.
    pub discovery: bool,
}

/// Reads a packet as far as it is needed and checks everything that this module enforces.
#[inline(always)]
pub fn inspect<F: Frame, T: Tables>(
    frame: &F,
    headers: &Headers,
    tables: &T,
    ifindex: u32,
    endpoint: &Endpoint,
) -> Result<Packet, Reason> {
    if headers.ethernet.source() != endpoint.mac {
        return Err(Reason::SourceMac);
    }
    let payload_len = headers.ip.payload_len.get() as usize;
    let end = L4_OFFSET + payload_len;
    if headers.ip.version() != 6 || end > frame.len() {
        return Err(Reason::Malformed);
    }
    // Payload length 0 with something behind it is a jumbogram (RFC 2675), which no TAP carries.
    if payload_len == 0 && headers.ip.next_header != protocol::NONE {
        return Err(Reason::Malformed);
    }
    let chain = chain(frame, headers, end)?;
    let mut packet = Packet {
        source: headers.ip.source(),
        destination: headers.ip.destination(),
        payload_len,
        chain,
        padded: end < frame.len(),
        discovery: false,
    };
    // Only a first fragment has the headers; without it, later ones are never put together (RFC 8200 section 4.5).
    let may_be_unspecified = if matches!(chain.fragment, Fragment::Later) {
        false
    } else {
        packet.discovery = upper_layer(frame, headers, &chain, end)?;
        let kind = icmp6_kind(frame, &chain);
        matches!(
            kind,
            Some(
                icmp6::NEIGHBOUR_SOLICITATION
                    | icmp6::ROUTER_SOLICITATION
                    | icmp6::MLD_REPORT
                    | icmp6::MLD_DONE
                    | icmp6::MLD2_REPORT
            )
        )
    };
    source(&packet, tables, ifindex, endpoint, may_be_unspecified)?;
    Ok(packet)
}

/// Follows the header chain of a packet that ends at `end`, and refuses what RFC 8200 and RFC 5095 do.
#[inline(always)]
pub fn chain<F: Frame>(frame: &F, headers: &Headers, end: usize) -> Result<Chain, Reason> {
    walk(frame, headers.ip.next_header, L4_OFFSET, end).map_err(|error| match error {
        ChainError::Truncated => Reason::Malformed,
        ChainError::TruncatedFragment | ChainError::NestedFragment => Reason::FragmentChain,
        ChainError::Illegal => Reason::HeaderChain,
        ChainError::RoutingType0 => Reason::RoutingHeader,
    })
}

/// The upper-layer header is there as far as it is known how long that is.
#[inline(always)]
pub fn has_upper_layer(chain: &Chain, end: usize) -> bool {
    let least = match chain.protocol {
        protocol::TCP => size_of::<TcpHeader>(),
        protocol::UDP | protocol::UDP_LITE => size_of::<UdpHeader>(),
        protocol::ICMP6 => ICMP6_LEN,
        protocol::SCTP => SCTP_LEN,
        _ => return true,
    };
    chain.offset + least <= end
}

/// Checks that the upper-layer header is there and is not that of a router or DHCPv6 server. `true`: neighbour
/// discovery that a host may send.
#[inline(always)]
fn upper_layer<F: Frame>(frame: &F, headers: &Headers, chain: &Chain, end: usize) -> Result<bool, Reason> {
    let cut_short = match chain.fragment {
        Fragment::Whole | Fragment::Atomic => Reason::Malformed,
        Fragment::First | Fragment::Later => Reason::FragmentChain,
    };
    if !has_upper_layer(chain, end) {
        return Err(cut_short);
    }
    if chain.protocol == protocol::UDP {
        let udp = header::<UdpHeader, F>(frame, chain).ok_or(cut_short)?;
        // RFC 7610: server and relay messages come from port 547; no client sends from there or to port 546.
        if udp.source_port.get() == DHCP6_SERVER || udp.destination_port.get() == DHCP6_CLIENT {
            return Err(Reason::Dhcp6Server);
        }
    }
    match icmp6_kind(frame, chain) {
        Some(icmp6::ROUTER_ADVERTISEMENT) => Err(Reason::RouterAdvertisement),
        Some(icmp6::REDIRECT) => Err(Reason::Redirect),
        Some(icmp6::ROUTER_SOLICITATION | icmp6::NEIGHBOUR_SOLICITATION | icmp6::NEIGHBOUR_ADVERTISEMENT) => {
            // Behind extension headers it could get past whoever looks only at the first header; RFC 6980 forbids
            // fragments, and nothing sends the rest.
            if headers.ip.next_header == protocol::ICMP6 { Ok(true) } else { Err(Reason::NdHidden) }
        }
        _ => Ok(false),
    }
}

/// The ICMPv6 type, if it is ICMPv6.
#[inline(always)]
fn icmp6_kind<F: Frame>(frame: &F, chain: &Chain) -> Option<u8> {
    if chain.protocol != protocol::ICMP6 {
        return None;
    }
    header::<Icmp6Header, F>(frame, chain).map(|icmp| icmp.kind)
}

/// The upper-layer header: a cheap view in the common place, a copy anywhere else.
#[inline(always)]
pub fn header<H, F: Frame>(frame: &F, chain: &Chain) -> Option<H>
where
    H: Copy
        + zerocopy::FromBytes
        + zerocopy::IntoBytes
        + zerocopy::Immutable
        + zerocopy::KnownLayout
        + zerocopy::Unaligned,
{
    if chain.offset == L4_OFFSET {
        return frame.view::<H>(L4_OFFSET).copied();
    }
    cold_path();
    frame.load(chain.offset)
}

/// Checks the source address.
#[inline(always)]
fn source<T: Tables>(
    packet: &Packet,
    tables: &T,
    ifindex: u32,
    endpoint: &Endpoint,
    may_be_unspecified: bool,
) -> Result<(), Reason> {
    let source = &packet.source;
    if source.is_link_local() {
        // Any link-local address is the VM's to choose (RFC 7217, RFC 8981), except its router's.
        return if *source == endpoint.gateway { Err(Reason::GatewaySpoof) } else { Ok(()) };
    }
    if source.is_unspecified() {
        let legal = may_be_unspecified && packet.destination.is_multicast();
        return if legal { Ok(()) } else { Err(Reason::SourceAddress) };
    }
    if *source == endpoint.address {
        return Ok(());
    }
    match tables.owner(source) {
        Some(owner) if is_gateway(owner) => Err(Reason::GatewaySpoof),
        Some(owner) if owner.ifindex == ifindex => Ok(()),
        _ => Err(Reason::SourceAddress),
    }
}

/// The address is a router's, not an endpoint's.
#[inline(always)]
pub fn is_gateway(owner: &Owner) -> bool {
    owner.flags & owner_flags::GATEWAY != 0
}
