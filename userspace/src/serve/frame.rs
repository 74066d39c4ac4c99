//! Frames to a VM, built whole: Ethernet, IPv6, ICMPv6 or UDP, checksums. Pure.

use crate::plan::Attached;
use crate::resource::MacAddress;
use std::net::Ipv6Addr;

/// Bytes before the IPv6 payload: Ethernet and IPv6 header.
pub const HEADERS: usize = ETHERNET + IPV6;
/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Bytes of the fixed IPv6 header.
pub const IPV6: usize = 40;
/// Bytes of a UDP header.
pub const UDP: usize = 8;
/// What every IPv6 link carries (RFC 8200 section 5).
pub const MINIMUM_MTU: usize = 1280;

const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const NEXT_HEADER_UDP: u8 = 17;
const NEXT_HEADER_ICMPV6: u8 = 58;
/// Neighbour discovery wants 255 (RFC 4861 section 6.1.2), and a reply that never leaves the link can have it as well.
const HOP_LIMIT: u8 = 255;

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Ethernet destination.
    pub mac: [u8; 6],
    /// IPv6 destination.
    pub address: Ipv6Addr,
}

impl Destination {
    /// All nodes of the link (RFC 4291 section 2.7.1, RFC 2464 section 7).
    pub const ALL_NODES: Self =
        Self { mac: [0x33, 0x33, 0, 0, 0, 1], address: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1) };

    /// One address of a VM.
    pub fn vm(mac: MacAddress, address: Ipv6Addr) -> Self {
        Self { mac: mac.octets(), address }
    }
}

/// An ICMPv6 message from the endpoint's gateway; its checksum, bytes 2 and 3 of `message`, is filled in.
pub fn icmpv6(endpoint: &Attached, to: Destination, message: &[u8]) -> Vec<u8> {
    let mut frame = headers(endpoint, to, NEXT_HEADER_ICMPV6, message.len());
    frame.extend_from_slice(message);
    put_checksum(&mut frame, NEXT_HEADER_ICMPV6, 2);
    frame
}

/// A UDP datagram from the endpoint's gateway.
pub fn udp(endpoint: &Attached, to: Destination, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let (source, destination) = ports;
    let length = UDP + payload.len();
    let mut frame = headers(endpoint, to, NEXT_HEADER_UDP, length);
    frame.extend_from_slice(&source.to_be_bytes());
    frame.extend_from_slice(&destination.to_be_bytes());
    frame.extend_from_slice(&wire_length(length).to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(payload);
    put_checksum(&mut frame, NEXT_HEADER_UDP, 6);
    frame
}

fn headers(endpoint: &Attached, to: Destination, next_header: u8, payload: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADERS + payload);
    frame.extend_from_slice(&to.mac);
    frame.extend_from_slice(&endpoint.gateway_mac.octets());
    frame.extend_from_slice(&ETHERTYPE_IPV6);
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&wire_length(payload).to_be_bytes());
    frame.extend_from_slice(&[next_header, HOP_LIMIT]);
    frame.extend_from_slice(&endpoint.gateway.octets());
    frame.extend_from_slice(&to.address.octets());
    frame
}

/// A length field. Callers keep their payloads under the MTU of a link, which is far below what the field can say.
fn wire_length(length: usize) -> u16 {
    debug_assert!(length <= usize::from(u16::MAX));
    length as u16
}

/// Writes the checksum of the upper-layer packet at `offset` of it; the field must be zero.
fn put_checksum(frame: &mut [u8], next_header: u8, offset: usize) {
    let payload = &frame[HEADERS..];
    // The pseudo-header (RFC 8200 section 8.1): source and destination, which end the IPv6 header, length, next header.
    let sum =
        sum(&frame[ETHERNET + 8..HEADERS]) + sum(payload) + payload.len() as u64 + u64::from(next_header);
    let checksum = match !fold(sum) {
        // It would mean "no checksum" (RFC 8200 section 8.1).
        0 if next_header == NEXT_HEADER_UDP => 0xffff,
        checksum => checksum,
    };
    frame[HEADERS + offset..HEADERS + offset + 2].copy_from_slice(&checksum.to_be_bytes());
}

fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::serve::fixture;
    use proptest::prelude::*;

    /// The one's complement sum over pseudo-header and payload, which a right checksum makes 0xffff: RFC 1071 done the
    /// slow way, byte by byte.
    pub(crate) fn verify_sum(frame: &[u8]) -> u16 {
        let mut bytes = frame[22..54].to_vec();
        bytes.extend_from_slice(&[0, 0, frame[18], frame[19], 0, 0, 0, frame[20]]);
        bytes.extend_from_slice(&frame[54..]);
        let mut sum = 0u32;
        for (i, byte) in bytes.iter().enumerate() {
            sum += u32::from(*byte) << if i % 2 == 0 { 8 } else { 0 };
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        sum as u16
    }

    #[test]
    fn a_datagram_to_the_byte() {
        let endpoint = fixture::endpoint();
        let to = Destination::vm(endpoint.mac, "fe80::1".parse().unwrap());
        let frame = udp(&endpoint, to, (547, 546), b"abc");
        #[rustfmt::skip]
        let expected = [
            0xfa, 0x16, 0x3e, 0, 0, 1,  0xfe, 0x16, 0x3e, 0, 0, 1,  0x86, 0xdd,
            0x60, 0, 0, 0,  0, 11, 17, 255,
            0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0xfc, 0x16, 0x3e, 0xff, 0xfe, 0, 0, 1,
            0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            2, 0x23,  2, 0x22,  0, 11,  0xff, 0xff,
            b'a', b'b', b'c',
        ];
        assert_eq!(frame[..60], expected[..60]);
        assert_eq!(frame[62..], expected[62..]);
        assert_eq!(verify_sum(&frame), 0xffff);
    }

    #[test]
    fn a_zero_udp_checksum_is_sent_as_ffff() {
        let endpoint = fixture::endpoint();
        let to = Destination::vm(endpoint.mac, "fe80::1".parse().unwrap());
        let plain = udp(&endpoint, to, (547, 546), &[0, 0]);
        // A payload that is what the checksum was makes the checksum of the whole zero.
        let frame = udp(&endpoint, to, (547, 546), &plain[60..62]);
        assert_eq!(frame[60..62], [0xff, 0xff]);
        assert_eq!(verify_sum(&frame), 0xffff);
    }

    proptest! {
        #[test]
        fn checksums_verify(payload in proptest::collection::vec(any::<u8>(), 0..1500), to: [u8; 16]) {
            let endpoint = fixture::endpoint();
            let to = Destination::vm(endpoint.mac, to.into());
            prop_assert_eq!(verify_sum(&udp(&endpoint, to, (547, 546), &payload)), 0xffff);
        }
    }
}
