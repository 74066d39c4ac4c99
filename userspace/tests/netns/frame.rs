//! Frames that a guest or a router sends, and what the kernel sends back.

use super::Tap;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use serval::resource::MacAddress;
use std::io::{Read, Write};
use std::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const ICMPV6: u8 = 58;
const UDP: u8 = 17;

/// Frames to and from one TAP, as a VM sees them.
impl Tap {
    /// The VM sends. The kernel has decided about the frame when this returns: `tun_get_user` runs the whole receive
    /// path.
    pub fn send(&mut self, frame: &[u8]) {
        assert_eq!(self.file.write(frame).unwrap(), frame.len());
    }

    /// Waits until the VM has received something that `select` wants; fails when that takes seconds.
    pub fn expect<T>(&mut self, select: impl Fn(&[Vec<u8>]) -> Vec<T>) -> Vec<T> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let found = select(&self.received());
            if !found.is_empty() {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let mut readable = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            let events = nix::poll::poll(&mut readable, PollTimeout::try_from(left).unwrap()).unwrap();
            assert_ne!(events, 0, "{}: what was expected did not come", self.name);
        }
    }

    /// Everything that waits for the VM.
    pub fn received(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut frame = [0; 2048];
        loop {
            match self.file.read(&mut frame) {
                Ok(length) => frames.push(frame[..length].to_vec()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return frames,
                Err(error) => panic!("{}: {error}", self.name),
            }
        }
    }
}

/// A UDP datagram to port 9.
pub fn udp(from: (MacAddress, Ipv6Addr), to: (MacAddress, Ipv6Addr), hop_limit: u8) -> Vec<u8> {
    let datagram = [0x13, 0x88, 0, 9, 0, 12, 0, 0, b'p', b'i', b'n', b'g'];
    frame((from.0.octets(), from.1), (to.0.octets(), to.1), hop_limit, UDP, datagram.to_vec(), 6)
}

/// A router advertisement of one who wants to be the default router.
pub fn router_advertisement(from: (MacAddress, Ipv6Addr)) -> Vec<u8> {
    let message = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let all_nodes = ([0x33, 0x33, 0, 0, 0, 1], "ff02::1".parse().unwrap());
    frame((from.0.octets(), from.1), all_nodes, 255, ICMPV6, message, 2)
}

/// A solicitation for `target`, multicast to its solicited-node address (RFC 4861 section 4.3).
pub fn neighbour_solicitation(from: (MacAddress, Ipv6Addr), target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = ([0x33, 0x33, 0xff, a, b, c], {
        let mut octets = "ff02::1:ff00:0".parse::<Ipv6Addr>().unwrap().octets();
        octets[13..].copy_from_slice(&[a, b, c]);
        octets.into()
    });
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend([1, 1]);
    message.extend(from.0.octets());
    frame((from.0.octets(), from.1), group, 255, ICMPV6, message, 2)
}

fn frame(
    from: ([u8; 6], Ipv6Addr),
    to: ([u8; 6], Ipv6Addr),
    hop_limit: u8,
    protocol: u8,
    mut payload: Vec<u8>,
    checksum_at: usize,
) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut pseudo_header = [from.1.octets(), to.1.octets()].concat();
    pseudo_header.extend([length.to_be_bytes(), [0, protocol]].concat());
    let sum: u32 = pseudo_header
        .chunks(2)
        .chain(payload.chunks(2))
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    payload[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = [to.0, from.0].concat();
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([protocol, hop_limit]);
    frame.extend([from.1.octets(), to.1.octets()].concat());
    frame.extend(payload);
    frame
}

/// The fields of an IPv6 frame that tests look at.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub to_mac: [u8; 6],
    pub from_mac: [u8; 6],
    pub hop_limit: u8,
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub payload: Vec<u8>,
}

/// Those of `frames` that carry `protocol` directly, with a payload that begins with `start`.
pub fn select(frames: &[Vec<u8>], protocol: u8, start: &[u8]) -> Vec<Seen> {
    let address = |octets: &[u8]| Ipv6Addr::from(<[u8; 16]>::try_from(octets).unwrap());
    frames
        .iter()
        .filter(|frame| frame.len() > 54 && frame[12..14] == [0x86, 0xdd] && frame[20] == protocol)
        .filter(|frame| frame[54..].starts_with(start))
        .map(|frame| Seen {
            to_mac: frame[..6].try_into().unwrap(),
            from_mac: frame[6..12].try_into().unwrap(),
            hop_limit: frame[21],
            source: address(&frame[22..38]),
            destination: address(&frame[38..54]),
            payload: frame[54..].to_vec(),
        })
        .collect()
}

/// UDP datagrams of [`udp`].
pub fn datagrams(frames: &[Vec<u8>]) -> Vec<Seen> {
    select(frames, UDP, &[0x13, 0x88, 0, 9])
}

/// ICMPv6 messages of a type.
pub fn icmp(frames: &[Vec<u8>], kind: u8) -> Vec<Seen> {
    select(frames, ICMPV6, &[kind])
}
