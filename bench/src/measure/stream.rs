//! What is written into one TAP, and what must come out of another just so.

use crate::bare::{Variants, Varies};
use crate::carrier::{Carrier, Far, Hook, Setting};
use crate::destinations::{self, Destinations, next_hop_mac};
use crate::flows::{self, Flows};
use serval_tests::cloud;
use serval_tests::frame::{Checksum, Frame, GATEWAY_MAC, Ipv6, Mac, Payload};
use serval_tests::tap::{Offloads, VnetHeader};
use std::net::Ipv6Addr;

/// Bytes of the virtio-net header.
pub const HEADER: usize = 12;
/// Bytes of Ethernet and IPv6 header.
const L3_LEN: usize = 54;
/// Bytes of a UDP header.
const UDP_LEN: usize = 8;
/// Bytes of a TCP header.
const TCP_LEN: usize = 20;
/// Longest TCP payload of one segment with an MTU of 1500.
const SEGMENT: usize = 1440;
const HOP_LIMIT: u8 = 64;
/// Ports of sender and receiver.
pub const PORTS: [u16; 2] = [20_000, 20_001];
/// The TCP flag.
const ACK: u8 = 0x10;
/// The TCP flag.
pub const SYN: u8 = 0x02;

/// What kind of frame crosses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UDP with a whole checksum, of this length in bytes.
    Datagram(usize),
    /// TCP with a partial checksum, of this length in bytes, to be cut into segments by a device that the guest does not
    /// have: as any Linux guest sends bulk data.
    Segments(usize),
    /// TCP without data, with these flags: how a connection begins.
    Handshake(u8),
}

impl Kind {
    /// Bytes of a frame.
    pub const fn length(self) -> usize {
        match self {
            Self::Datagram(length) | Self::Segments(length) => length,
            Self::Handshake(_) => L3_LEN + TCP_LEN,
        }
    }

    /// Frames that a TAP holds for its reader: enough that none is lost when the reader is late for a moment.
    pub const fn queue(self) -> usize {
        match self {
            Self::Datagram(_) | Self::Handshake(_) => 8192,
            Self::Segments(_) => 512,
        }
    }

    /// Who must send it on: XDP cannot do so with frames to be cut.
    pub const fn hook(self) -> Hook {
        match self {
            Self::Datagram(_) | Self::Handshake(_) => Hook::First,
            Self::Segments(_) => Hook::Tc,
        }
    }

    /// What the reader of a TAP must be able to take.
    pub fn offloads(self) -> Offloads {
        match self {
            Self::Datagram(_) | Self::Handshake(_) => Offloads::NONE,
            Self::Segments(_) => Offloads::TCP,
        }
    }

    /// The virtio-net header that it is written with.
    fn header(self) -> VnetHeader {
        let Self::Segments(_) = self else { return VnetHeader::default() };
        VnetHeader {
            flags: VnetHeader::NEEDS_CSUM,
            gso_type: VnetHeader::GSO_TCPV6,
            hdr_len: (L3_LEN + TCP_LEN) as u16,
            gso_size: SEGMENT as u16,
            csum_start: L3_LEN as u16,
            csum_offset: 16,
        }
    }
}

/// Who sends to whom, and how the frame changes on its way.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// MAC of the VM that sends.
    pub source_mac: Mac,
    /// Its address.
    pub source: Ipv6Addr,
    /// MAC that the frame arrives with.
    pub destination_mac: Mac,
    /// Where it is sent to.
    pub destination: Ipv6Addr,
    /// Ports of sender and receiver.
    pub ports: [u16; 2],
    /// Routers on the way.
    pub routers: u8,
    /// The VMs are on one link: nothing on the way has a MAC.
    pub bridged: bool,
    /// What is sent in place of one and the same frame.
    pub spread: Spread,
}

/// How frames differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Not at all.
    None,
    /// In where they go, and whether a router sends each on to a next hop of its own.
    Destinations(Destinations, bool),
    /// In their ports.
    Flows(Flows),
}

impl Way {
    /// Between the ends of a namespace.
    pub fn across(carrier: Carrier, setting: &Setting) -> Self {
        let [near, far] = setting.ends();
        let routers = u8::from(carrier.routes());
        let (destination, spread) = match setting.far {
            Far::Endpoint | Far::Crowd | Far::Arrival => (far.address, Spread::None),
            Far::Endpoints(to) => (destinations::address(0), Spread::Destinations(to, false)),
            Far::Uplink(to) => (destinations::address(0), Spread::Destinations(to, routers > 0)),
        };
        Self {
            source_mac: near.mac,
            source: near.address,
            destination_mac: far.mac,
            destination,
            ports: PORTS,
            routers,
            bridged: carrier == Carrier::Bridge,
            spread,
        }
    }

    /// From one VM of a cloud to another, by so many routers.
    pub fn between([from, to]: [u8; 2], routers: u8) -> Self {
        Self {
            source_mac: cloud::mac(from),
            source: cloud::address(from),
            destination_mac: cloud::mac(to),
            destination: cloud::address(to),
            ports: PORTS,
            routers,
            bridged: false,
            spread: Spread::None,
        }
    }

    /// The same with many flows.
    pub fn with_flows(self, flows: Flows) -> Self {
        Self { ports: flows::pair(0), spread: Spread::Flows(flows), ..self }
    }

    /// How frames that the kernel makes differ.
    pub fn varies(&self) -> Varies {
        Varies::at_random(match self.spread {
            Spread::None => Variants::One,
            Spread::Destinations(destinations, _) => Variants::Destinations(destinations),
            Spread::Flows(flows) => Variants::Flows(flows),
        })
    }

    /// The way of the answers.
    pub fn back(&self) -> Self {
        let [near, far] = self.ports;
        Self {
            source_mac: self.destination_mac,
            source: self.destination,
            destination_mac: self.source_mac,
            destination: self.source,
            ports: [far, near],
            ..*self
        }
    }
}

/// Which end of a wire sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The one whose frames are measured.
    Near,
    /// The other.
    Far,
}

/// A frame of a flow's beginning.
pub struct First {
    /// Who sends it.
    pub from: From,
    /// By which of its TAP's queues.
    pub queue: usize,
    /// The frame.
    pub stream: Stream,
}

/// How a flow begins that both sides take part in: until then, nobody calls it established. Nothing when frames differ.
pub fn opening(kind: Kind, way: &Way) -> Vec<First> {
    if way.spread == Spread::None { begins(kind, way, 0) } else { Vec::new() }
}

/// The same for flows that have a queue each.
pub fn opening_by_queue(kind: Kind, way: &Way, queues: usize) -> Vec<First> {
    (0..queues)
        .flat_map(|queue| begins(kind, &Way { ports: flows::pair(queue as u32), ..*way }, queue))
        .collect()
}

fn begins(kind: Kind, way: &Way, queue: usize) -> Vec<First> {
    let near = |kind| First { from: From::Near, queue, stream: Stream::new(kind, way) };
    let far = |kind| First { from: From::Far, queue, stream: Stream::new(kind, &way.back()) };
    match kind {
        Kind::Datagram(_) => vec![near(kind), far(kind)],
        Kind::Segments(_) | Kind::Handshake(_) => {
            vec![near(Kind::Handshake(SYN)), far(Kind::Handshake(SYN | ACK)), near(Kind::Handshake(ACK))]
        }
    }
}

/// A frame as it is sent and as it arrives.
pub struct Stream {
    /// What is written, with its virtio-net header.
    pub sent: Vec<u8>,
    /// What must arrive, from the Ethernet header on.
    pub expected: Vec<u8>,
    spread: Spread,
}

impl Stream {
    /// Frames of a kind on their way.
    pub fn new(kind: Kind, way: &Way) -> Self {
        let mut sent = kind.header().to_bytes().to_vec();
        let [near_mac, far_mac] = match way.bridged {
            true => [way.destination_mac, way.source_mac],
            false => [GATEWAY_MAC; 2],
        };
        sent.extend(frame(way.source_mac, near_mac, HOP_LIMIT, kind, way));
        let expected = frame(far_mac, way.destination_mac, HOP_LIMIT - way.routers, kind, way);
        Self { sent, expected, spread: way.spread }
    }

    /// Frames like this one, of which nobody says how they arrive.
    pub fn one_way(frame: &Frame, spread: Spread) -> Self {
        let sent = [&frame.header.to_bytes()[..], &frame.bytes].concat();
        Self { sent, expected: Vec::new(), spread }
    }

    /// The frame that is sent, from the Ethernet header on.
    pub fn frame(&self) -> &[u8] {
        &self.sent[HEADER..]
    }

    /// Makes of a frame that was sent the next one to be sent.
    pub fn advance(&self, sent: &mut [u8], random: u32) {
        match self.spread {
            Spread::None => {}
            Spread::Destinations(to, _) => destinations::redirect(&mut sent[HEADER..], to.choose(random)),
            Spread::Flows(among) => flows::move_to(&mut sent[HEADER..], among.choose(random)),
        }
    }

    /// Whether what was read is what must arrive, byte for byte. `expected` is a copy of ours to work on.
    pub fn accepts(&self, expected: &mut [u8], read: &[u8]) -> bool {
        match self.spread {
            Spread::None => {}
            Spread::Destinations(to, routed) => {
                let Some(number) = destinations::number(read) else { return false };
                destinations::redirect(expected, number);
                if routed {
                    expected[..6].copy_from_slice(&next_hop_mac(to.next_hop(number)));
                }
            }
            Spread::Flows(_) => {
                let Some(ports) = flows::ports_of(read) else { return false };
                flows::move_to(expected, ports);
            }
        }
        read == expected
    }
}

fn frame(source_mac: Mac, destination_mac: Mac, hop_limit: u8, kind: Kind, way: &Way) -> Vec<u8> {
    let ports = u32::from(way.ports[0]) << 16 | u32::from(way.ports[1]);
    let headers = Ipv6 {
        source: way.source,
        destination: way.destination,
        hop_limit,
        ..Ipv6::new(source_mac, destination_mac)
    };
    let data = |upper: usize| vec![0x5e; kind.length().saturating_sub(L3_LEN + upper)];
    match kind {
        Kind::Datagram(_) => {
            let mut data = data(UDP_LEN);
            if let Spread::Flows(_) = way.spread {
                data[..4].copy_from_slice(&(!ports).to_be_bytes());
            }
            headers.carrying(Payload::udp(way.ports[0], way.ports[1], &data)).bytes
        }
        Kind::Segments(_) => {
            let headers = Ipv6 { checksum: Checksum::Partial, ..headers };
            headers.carrying(Payload::tcp(way.ports[0], way.ports[1], ACK, &data(TCP_LEN))).bytes
        }
        Kind::Handshake(flags) => {
            headers.carrying(Payload::tcp(way.ports[0], way.ports[1], flags, &[])).bytes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destinations::Width;
    use serval_tests::frame::checksum_holds;

    #[test]
    fn datagrams_have_the_length_asked_for_and_a_whole_checksum() {
        for length in [62, 78, 1400] {
            let stream = Stream::new(Kind::Datagram(length), &Way::across(Carrier::Kernel, &Setting::USUAL));
            assert_eq!(stream.frame().len(), length);
            assert!(checksum_holds(stream.frame()) && checksum_holds(&stream.expected));
        }
    }

    #[test]
    fn frames_to_be_cut_have_a_partial_checksum() {
        let stream = Stream::new(Kind::Segments(60_000), &Way::across(Carrier::Kernel, &Setting::USUAL));
        assert_eq!(stream.frame().len(), 60_000);
        assert!(!checksum_holds(stream.frame()));
    }

    #[test]
    fn a_frame_must_arrive_by_the_next_hop_of_its_destination() {
        let destinations = Destinations::new(1000, Width::Host);
        let setting = Setting { far: Far::Uplink(destinations), ..Setting::USUAL };
        let stream = Stream::new(Kind::Datagram(78), &Way::across(Carrier::Kernel, &setting));
        let mut sent = stream.sent.clone();
        stream.advance(&mut sent, 0x8765_4321);
        assert!(checksum_holds(&sent[HEADER..]));
        let number = destinations.choose(0x8765_4321);
        let mut arrives = stream.expected.clone();
        destinations::redirect(&mut arrives, number);
        arrives[..6].copy_from_slice(&next_hop_mac(destinations.next_hop(number)));
        let mut scratch = stream.expected.clone();
        assert!(stream.accepts(&mut scratch, &arrives));
        for at in [5, 21, NUMBER, 77] {
            let mut other = arrives.clone();
            other[at] ^= 1;
            assert!(!stream.accepts(&mut scratch, &other), "byte {at}");
        }
        assert!(!stream.accepts(&mut scratch, &arrives[..70]));
    }

    const NUMBER: usize = destinations::NUMBER_AT;
}
