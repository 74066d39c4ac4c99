//! Frames as tests want them: right by default, wrong where a test says so. Built from the RFCs alone, without the
//! code under test.
//!
//! ```
//! use serval_tests::frame::{Ipv6, Payload};
//! let frame = Ipv6 {
//!     source: "2001:db8::1".parse().unwrap(),
//!     destination: "2001:db8::2".parse().unwrap(),
//!     ..Ipv6::new([0xfa, 0x16, 0x3e, 0, 0, 1], [0, 0x61, 0xfe, 0xed, 0xca, 0xfe])
//! }
//! .carrying(Payload::udp(1000, 2000, b"hello"));
//! assert_eq!(frame.bytes.len(), 14 + 40 + 8 + 5);
//! ```

use crate::tap::VnetHeader;
use std::net::Ipv6Addr;

/// An Ethernet address, whatever it may be.
pub type Mac = [u8; 6];

/// The MAC that Calico gives every TAP.
pub const GATEWAY_MAC: Mac = [0x00, 0x61, 0xfe, 0xed, 0xca, 0xfe];

/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Hop-by-hop options, as an extension header's number.
pub const HOP_BY_HOP: u8 = 0;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// Routing header.
pub const ROUTING: u8 = 43;
/// Fragment header.
pub const FRAGMENT: u8 = 44;
/// ICMPv6.
pub const ICMPV6: u8 = 58;
/// Nothing follows.
pub const NO_NEXT_HEADER: u8 = 59;
/// Destination options.
pub const DESTINATION_OPTIONS: u8 = 60;

/// A frame and the virtio-net header to write it with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the guest's driver says of it.
    pub header: VnetHeader,
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
}

/// The headers in front of a payload.
#[derive(Clone, Debug)]
pub struct Ipv6 {
    /// Source MAC.
    pub source_mac: Mac,
    /// Destination MAC.
    pub destination_mac: Mac,
    /// EtherType.
    pub ethertype: u16,
    /// IP version, 6.
    pub version: u8,
    /// Traffic class.
    pub traffic_class: u8,
    /// Flow label.
    pub flow_label: u32,
    /// Payload length, when it is to differ from the truth.
    pub payload_length: Option<u16>,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
    /// Extension headers.
    pub extensions: Vec<Extension>,
    /// What stands in the payload's checksum field.
    pub checksum: Checksum,
    /// Bytes behind the packet, which do not belong to it.
    pub padding: Vec<u8>,
}

/// An extension header: its number, and its bytes after the next header field (so the first is its length).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its number.
    pub number: u8,
    /// Its bytes from the second on.
    pub rest: Vec<u8>,
}

/// What stands in a checksum field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The checksum.
    Full,
    /// The pseudo-header's sum, for the device to complete: `NEEDS_CSUM` in the virtio-net header.
    Partial,
    /// This.
    Wrong(u16),
}

/// What an IPv6 packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Its protocol number.
    pub protocol: u8,
    /// Its bytes, the checksum field zero.
    pub bytes: Vec<u8>,
    /// Where the checksum goes.
    pub checksum_at: Option<usize>,
}

impl Ipv6 {
    /// Headers with everything usual, addresses unspecified.
    pub fn new(source_mac: Mac, destination_mac: Mac) -> Self {
        Self {
            source_mac,
            destination_mac,
            ethertype: ETHERTYPE_IPV6,
            version: 6,
            traffic_class: 0,
            flow_label: 0,
            payload_length: None,
            hop_limit: 64,
            source: Ipv6Addr::UNSPECIFIED,
            destination: Ipv6Addr::UNSPECIFIED,
            extensions: Vec::new(),
            checksum: Checksum::Full,
            padding: Vec::new(),
        }
    }

    /// The frame with these headers and `payload`.
    pub fn carrying(&self, payload: Payload) -> Frame {
        let numbers: Vec<u8> = self.extensions.iter().map(|e| e.number).chain([payload.protocol]).collect();
        let mut packet = Vec::new();
        for (extension, next) in self.extensions.iter().zip(&numbers[1..]) {
            packet.push(*next);
            packet.extend(&extension.rest);
        }
        let start = packet.len();
        let (body, partial) = self.finish(payload);
        packet.extend(body);

        let mut bytes = Vec::with_capacity(54 + packet.len() + self.padding.len());
        bytes.extend(self.destination_mac);
        bytes.extend(self.source_mac);
        bytes.extend(self.ethertype.to_be_bytes());
        let first = u32::from(self.version) << 28
            | u32::from(self.traffic_class) << 20
            | (self.flow_label & 0xf_ffff);
        bytes.extend(first.to_be_bytes());
        let length = u16::try_from(packet.len()).unwrap_or(0);
        bytes.extend(self.payload_length.unwrap_or(length).to_be_bytes());
        bytes.push(numbers[0]);
        bytes.push(self.hop_limit);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(packet);
        bytes.extend(&self.padding);

        let header = partial.map_or_else(VnetHeader::default, |offset| VnetHeader {
            flags: VnetHeader::NEEDS_CSUM,
            csum_start: as_u16(54 + start),
            csum_offset: as_u16(offset),
            ..VnetHeader::default()
        });
        Frame { header, bytes }
    }

    /// The payload with its checksum field filled, and the offset of that when it is partial.
    fn finish(&self, payload: Payload) -> (Vec<u8>, Option<usize>) {
        let mut body = payload.bytes;
        let Some(at) = payload.checksum_at else { return (body, None) };
        let pseudo = pseudo_header(self.source, self.destination, payload.protocol, body.len());
        let sum = match self.checksum {
            Checksum::Partial => fold(add(0, &pseudo)),
            Checksum::Wrong(sum) => sum,
            Checksum::Full => match (!fold(add(add(0, &pseudo), &body)), payload.protocol) {
                (0, UDP) => 0xffff,
                (sum, _) => sum,
            },
        };
        body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        (body, (self.checksum == Checksum::Partial).then_some(at))
    }
}

impl Extension {
    /// Options (hop-by-hop or destination) padded with PadN to eight bytes.
    pub fn padding(number: u8) -> Self {
        Self { number, rest: vec![0, 1, 4, 0, 0, 0, 0] }
    }

    /// A fragment header; `offset` in bytes, a multiple of eight.
    pub fn fragment(offset: u16, more: bool, identification: u32) -> Self {
        let mut rest = vec![0];
        rest.extend(((offset & !7) | u16::from(more)).to_be_bytes());
        rest.extend(identification.to_be_bytes());
        Self { number: FRAGMENT, rest }
    }

    /// A routing header without addresses.
    pub fn routing(kind: u8, segments_left: u8) -> Self {
        Self { number: ROUTING, rest: vec![0, kind, segments_left, 0, 0, 0, 0] }
    }
}

impl Payload {
    /// Any bytes, without a checksum.
    pub fn raw(protocol: u8, bytes: impl Into<Vec<u8>>) -> Self {
        Self { protocol, bytes: bytes.into(), checksum_at: None }
    }

    /// A UDP datagram.
    pub fn udp(source: u16, destination: u16, data: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(8 + data.len());
        bytes.extend(source.to_be_bytes());
        bytes.extend(destination.to_be_bytes());
        bytes.extend(as_u16(8 + data.len()).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(data);
        Self { protocol: UDP, bytes, checksum_at: Some(6) }
    }

    /// A TCP segment without options: sequence number 1, acknowledgement 1, window 65535.
    pub fn tcp(source: u16, destination: u16, flags: u8, data: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(20 + data.len());
        bytes.extend(source.to_be_bytes());
        bytes.extend(destination.to_be_bytes());
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        bytes.extend(data);
        Self { protocol: TCP, bytes, checksum_at: Some(16) }
    }

    /// An ICMPv6 message: `body` follows the checksum.
    pub fn icmpv6(kind: u8, code: u8, body: &[u8]) -> Self {
        let mut bytes = vec![kind, code, 0, 0];
        bytes.extend(body);
        Self { protocol: ICMPV6, bytes, checksum_at: Some(2) }
    }

    /// An echo request (RFC 4443 section 4.1).
    pub fn echo_request(identifier: u16, sequence: u16, data: &[u8]) -> Self {
        Self::icmpv6(128, 0, &echo(identifier, sequence, data))
    }

    /// An echo reply.
    pub fn echo_reply(identifier: u16, sequence: u16, data: &[u8]) -> Self {
        Self::icmpv6(129, 0, &echo(identifier, sequence, data))
    }

    /// A router solicitation (RFC 4861 section 4.1) with `options`.
    pub fn router_solicitation(options: &[Vec<u8>]) -> Self {
        Self::icmpv6(133, 0, &[[0; 4].as_slice(), &options.concat()].concat())
    }

    /// A neighbour solicitation (section 4.3) with `options`.
    pub fn neighbour_solicitation(target: Ipv6Addr, options: &[Vec<u8>]) -> Self {
        Self::icmpv6(135, 0, &[[0; 4].as_slice(), &target.octets(), &options.concat()].concat())
    }

    /// A neighbour advertisement (section 4.4); `flags` is the byte with R, S and O on top.
    pub fn neighbour_advertisement(flags: u8, target: Ipv6Addr, options: &[Vec<u8>]) -> Self {
        Self::icmpv6(136, 0, &[[flags, 0, 0, 0].as_slice(), &target.octets(), &options.concat()].concat())
    }
}

/// Neighbour discovery option: source link-layer address (RFC 4861 section 4.6.1).
pub fn source_link_layer(mac: Mac) -> Vec<u8> {
    [[1, 1].as_slice(), &mac].concat()
}

/// Neighbour discovery option: target link-layer address.
pub fn target_link_layer(mac: Mac) -> Vec<u8> {
    [[2, 1].as_slice(), &mac].concat()
}

/// Neighbour discovery option: a nonce (RFC 3971 section 5.3.2, RFC 7527).
pub fn nonce(value: [u8; 6]) -> Vec<u8> {
    [[14, 1].as_slice(), &value].concat()
}

/// The solicited-node multicast address of `target` (RFC 4291 section 2.7.1).
pub fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The Ethernet multicast address of an IPv6 one (RFC 2464 section 7).
pub fn multicast_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// The link-local address made of a MAC (RFC 4291 appendix A).
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// A MAC as people write it.
pub fn mac_text(mac: Mac) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// Whether the upper-layer checksum of a frame without extension headers is right.
pub fn checksum_holds(frame: &[u8]) -> bool {
    let Some((source, destination)) = addresses(frame) else { return false };
    let length = usize::from(u16::from_be_bytes([frame[18], frame[19]]));
    let Some(body) = frame.get(54..54 + length) else { return false };
    fold(add(add(0, &pseudo_header(source, destination, frame[20], length)), body)) == 0xffff
}

/// Source and destination of an IPv6 frame.
pub fn addresses(frame: &[u8]) -> Option<(Ipv6Addr, Ipv6Addr)> {
    let address = |at: usize| -> Option<Ipv6Addr> {
        let octets: [u8; 16] = frame.get(at..at + 16)?.try_into().ok()?;
        Some(octets.into())
    };
    (frame.get(12..14)? == ETHERTYPE_IPV6.to_be_bytes()).then(|| Some((address(22)?, address(38)?)))?
}

/// Type of an ICMPv6 message that follows the fixed header.
pub fn icmpv6_type(frame: &[u8]) -> Option<u8> {
    addresses(frame)?;
    (frame.get(20) == Some(&ICMPV6)).then(|| frame.get(54).copied())?
}

fn echo(identifier: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
    [&identifier.to_be_bytes(), &sequence.to_be_bytes(), data].concat()
}

/// RFC 8200 section 8.1.
fn pseudo_header(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, length: usize) -> Vec<u8> {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let protocol = [0, 0, 0, protocol];
    [source.octets().as_slice(), &destination.octets(), &length.to_be_bytes(), &protocol].concat()
}

/// Adds `bytes` to a sum of 16-bit words (RFC 1071).
fn add(sum: u64, bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    sum + words.sum::<u64>()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    as_u16(usize::try_from(sum).unwrap_or(0))
}

/// Lengths and offsets here fit by construction; a test that builds a longer frame sets the field itself.
fn as_u16(value: usize) -> u16 {
    u16::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> Ipv6 {
        Ipv6 {
            source: "2001:db8::1".parse().unwrap(),
            destination: "2001:db8::2".parse().unwrap(),
            ..Ipv6::new([0xfa, 0x16, 0x3e, 0, 0, 1], GATEWAY_MAC)
        }
    }

    #[test]
    fn whole_checksums_hold_and_others_do_not() {
        for payload in
            [Payload::udp(1, 2, b"odd"), Payload::tcp(1, 2, 0x10, b"data"), Payload::echo_request(7, 1, b"x")]
        {
            let frame = headers().carrying(payload.clone());
            assert!(checksum_holds(&frame.bytes), "{payload:?}");
            let wrong = Ipv6 { checksum: Checksum::Wrong(0x1234), ..headers() }.carrying(payload.clone());
            assert!(!checksum_holds(&wrong.bytes), "{payload:?}");
        }
    }

    #[test]
    fn known_echo_request() {
        // Sum by hand: 2001+0db8+1 + 2001+0db8+2 + 8+3a + 8000+1+1 = dbb9; its complement is 2446.
        let frame = headers().carrying(Payload::echo_request(1, 1, b""));
        assert_eq!(frame.bytes[56..58], [0x24, 0x46]);
    }

    #[test]
    fn partial_checksum_is_completed_as_a_device_does() {
        let mut frame =
            Ipv6 { checksum: Checksum::Partial, ..headers() }.carrying(Payload::udp(1000, 2000, b"hello"));
        assert_eq!(frame.header.flags, VnetHeader::NEEDS_CSUM);
        let start = usize::from(frame.header.csum_start);
        let at = start + usize::from(frame.header.csum_offset);
        let sum = !fold(add(0, &frame.bytes[start..]));
        frame.bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(frame.bytes, headers().carrying(Payload::udp(1000, 2000, b"hello")).bytes);
    }

    #[test]
    fn extension_headers_are_chained() {
        let headers = Ipv6 {
            extensions: vec![Extension::padding(HOP_BY_HOP), Extension::fragment(8, true, 9)],
            ..headers()
        };
        let frame = headers.carrying(Payload::udp(1, 2, b""));
        assert_eq!(frame.bytes[20], HOP_BY_HOP);
        assert_eq!(frame.bytes[54], FRAGMENT);
        assert_eq!(frame.bytes[62..66], [UDP, 0, 0, 9]);
    }
}
