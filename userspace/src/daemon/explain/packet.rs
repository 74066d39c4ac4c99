//! The packet that is asked about, as a frame. Pure.

use dataplane_ebpf::wire::protocol;
use std::net::Ipv6Addr;

/// Ethernet and IPv6 headers.
const HEADERS: usize = 14 + 40;
/// Hop limit of what VMs send.
const HOP_LIMIT: u8 = 64;
/// TCP: a connection begins.
const SYN: u8 = 2;

/// What a packet carries, as far as policy looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    /// The first packet of a TCP connection.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// UDP, or what has its ports in the same place: UDP-Lite, SCTP.
    Ports {
        /// The protocol.
        protocol: u8,
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMPv6.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Identifier, of an echo.
        identifier: u16,
    },
    /// A protocol without ports.
    Other(u8),
}

/// The addresses that a frame has, of both layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// MAC of whoever sends the frame.
    pub source_mac: [u8; 6],
    /// MAC of whom the frame is for.
    pub destination_mac: [u8; 6],
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
}

/// The frame of a packet without data.
pub fn frame(ends: &Ends, upper: Upper) -> Vec<u8> {
    let (number, mut payload, checksum) = payload(upper);
    if let Some(at) = checksum {
        let sum = checksum_of(ends, number, &payload);
        payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let mut frame = Vec::with_capacity(HEADERS + payload.len());
    frame.extend(ends.destination_mac);
    frame.extend(ends.source_mac);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    // Payloads here are a few bytes long.
    frame.extend([0, payload.len() as u8, number, HOP_LIMIT]);
    frame.extend(ends.source.octets());
    frame.extend(ends.destination.octets());
    frame.extend(payload);
    frame
}

/// Source and destination of a frame's IPv6 packet.
pub fn addresses(frame: &[u8]) -> Option<(Ipv6Addr, Ipv6Addr)> {
    if frame.get(12..14)? != [0x86, 0xdd] {
        return None;
    }
    let address = |at: usize| {
        frame.get(at..).and_then(|rest| rest.first_chunk::<16>()).map(|octets| Ipv6Addr::from(*octets))
    };
    Some((address(22)?, address(38)?))
}

/// Protocol, bytes, and where the checksum goes.
fn payload(upper: Upper) -> (u8, Vec<u8>, Option<usize>) {
    let ports = |source: u16, destination: u16| [source.to_be_bytes(), destination.to_be_bytes()].concat();
    match upper {
        Upper::Tcp { source, destination } => {
            let mut tcp = ports(source, destination);
            // Sequence and acknowledgement numbers, five words of header, a window.
            tcp.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, SYN, 0xff, 0xff, 0, 0, 0, 0]);
            (protocol::TCP, tcp, Some(16))
        }
        Upper::Ports { protocol, source, destination } => {
            let mut udp = ports(source, destination);
            // Length and checksum; of SCTP, the verification tag.
            udp.extend([0, 8, 0, 0]);
            (protocol, udp, (protocol != protocol::SCTP).then_some(6))
        }
        Upper::Icmp { kind, code, identifier } => {
            let mut icmp = vec![kind, code, 0, 0];
            icmp.extend(identifier.to_be_bytes());
            icmp.extend([0, 1]);
            (protocol::ICMP6, icmp, Some(2))
        }
        Upper::Other(number) => (number, vec![0; 8], None),
    }
}

/// The checksum of an upper layer with its pseudo-header (RFC 8200 section 8.1).
fn checksum_of(ends: &Ends, number: u8, payload: &[u8]) -> u16 {
    let pseudo = [0, 0, 0, payload.len() as u8, 0, 0, 0, number];
    let bytes = [&ends.source.octets()[..], &ends.destination.octets(), &pseudo, payload].concat();
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !(sum as u16) {
        // UDP without one is not allowed (RFC 8200 section 8.1).
        0 if number == protocol::UDP => 0xffff,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> Ends {
        Ends {
            source_mac: [2, 0, 0, 0, 0, 1],
            destination_mac: [2, 0, 0, 0, 0, 2],
            source: "2001:db8::1".parse().unwrap(),
            destination: "2001:db8::2".parse().unwrap(),
        }
    }

    /// What the checksum of a correct packet comes to.
    fn holds(frame: &[u8]) -> bool {
        checksum_of(&ends(), frame[20], &frame[HEADERS..]) == 0
    }

    #[test]
    fn frames_are_what_the_words_say() {
        let tcp = frame(&ends(), Upper::Tcp { source: 40_000, destination: 80 });
        assert_eq!((tcp[20], tcp.len(), usize::from(tcp[19])), (6, HEADERS + 20, 20));
        assert_eq!(&tcp[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd]);
        assert_eq!(&tcp[HEADERS..HEADERS + 4], [0x9c, 0x40, 0, 80]);
        assert!(holds(&tcp));
        assert_eq!(addresses(&tcp), Some((ends().source, ends().destination)));
        assert_eq!(addresses(&tcp[..HEADERS - 1]), None);
        let echo = frame(&ends(), Upper::Icmp { kind: 128, code: 0, identifier: 7 });
        assert_eq!(&echo[HEADERS..HEADERS + 2], [128, 0]);
        assert!(holds(&echo));
        let udp = frame(&ends(), Upper::Ports { protocol: protocol::UDP, source: 1, destination: 53 });
        // The complement of a UDP checksum is never sent as zero.
        assert!(checksum_of(&ends(), udp[20], &udp[HEADERS..]) == 0xffff || holds(&udp));
        assert_eq!(frame(&ends(), Upper::Other(47))[20], 47);
    }
}
