//! The bytes of our answers: a neighbour advertisement made here, a router advertisement that userspace rendered.

use crate::abi::{Address, Advertisement, Endpoint, Mac};
use crate::wire::{
    Checksum, Frame, Headers, IPV6_LEN, Icmp6Header, L4_OFFSET, NeighbourAdvertisementFrame, ethertype,
    icmp6, protocol, pseudo_header,
};
use core::hint::black_box;
use zerocopy::network_endian::U16;

/// Payload of our neighbour advertisement: the message and one option.
const NEIGHBOUR_PAYLOAD: usize = size_of::<NeighbourAdvertisementFrame>() - L4_OFFSET;

/// A neighbour advertisement to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourAnswer {
    /// The solicited address, which is also the source.
    pub target: Address,
    /// Who asked, or all nodes.
    pub destination: Address,
    /// [`advertisement_flags`](crate::wire::advertisement_flags).
    pub flags: u8,
}

/// A router advertisement to be sent.
#[derive(Clone, Copy)]
pub struct RouterAnswer<'t> {
    /// What userspace rendered.
    pub advertisement: &'t Advertisement,
    /// Who asked, or all nodes.
    pub destination: Address,
}

impl core::fmt::Debug for RouterAnswer<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RouterAnswer").field("destination", &self.destination).finish_non_exhaustive()
    }
}

/// Turns a solicitation into its answer; `false` leaves the frame unedited.
#[inline(always)]
pub fn write_neighbour<F: Frame>(frame: &mut F, endpoint: &Endpoint, answer: &NeighbourAnswer) -> bool {
    let (target, destination) = (answer.target, answer.destination);
    let mac = endpoint.gateway_mac.octets();
    let [kind, units] = NeighbourAdvertisementFrame::OPTION;
    let [a, b, c, d, e, f] = mac;
    let sum = pseudo_header(target, destination, NEIGHBOUR_PAYLOAD, protocol::ICMP6)
        .add_field([icmp6::NEIGHBOUR_ADVERTISEMENT, 0])
        .add_field([answer.flags, 0])
        .add_address(target)
        .add_word(u64::from_ne_bytes([kind, units, a, b, c, d, e, f]));
    if !frame.resize(size_of::<NeighbourAdvertisementFrame>()) {
        return false;
    }
    let Some(reply) = frame.view_mut::<NeighbourAdvertisementFrame>(0) else {
        return false;
    };
    // Field by field into the frame: on the BPF stack such a structure would be written with misaligned stores.
    reply.ethernet.destination = destination_mac(endpoint, destination).octets();
    reply.ethernet.source = mac;
    reply.ethernet.ethertype = U16::new(ethertype::IPV6);
    reply.ip.version_class_flow = [0x60, 0, 0, 0];
    reply.ip.payload_len = U16::new(NEIGHBOUR_PAYLOAD as u16);
    reply.ip.next_header = protocol::ICMP6;
    reply.ip.hop_limit = 255;
    reply.ip.source = target.octets();
    reply.ip.destination = destination.octets();
    reply.message.icmp = Icmp6Header { kind: icmp6::NEIGHBOUR_ADVERTISEMENT, code: 0, checksum: sum.field() };
    reply.message.flags = [answer.flags, 0, 0, 0];
    reply.message.target = target.octets();
    reply.option = [kind, units];
    reply.target_mac = mac;
    true
}

/// Turns a solicitation into the rendered advertisement; `false` leaves the frame unedited.
#[inline(always)]
pub fn write_router<F: Frame>(frame: &mut F, endpoint: &Endpoint, answer: &RouterAnswer<'_>) -> bool {
    let advertisement = answer.advertisement;
    // Opaque, so that the verifier sees the bounds checked on the very register that is the length.
    let len = black_box(advertisement.len as usize);
    if len < L4_OFFSET + size_of::<Icmp6Header>() {
        return false;
    }
    let Some(bytes) = advertisement.frame.get(..len) else {
        return false;
    };
    if !frame.resize(len) || !frame.store(bytes) {
        return false;
    }
    if answer.destination == Address::ALL_NODES {
        return true;
    }
    if let Some(headers) = frame.view_mut::<Headers>(0) {
        headers.ethernet.destination = endpoint.mac.octets();
        headers.ip.destination = answer.destination.octets();
    }
    if let Some(icmp) = frame.view_mut::<Icmp6Header>(L4_OFFSET) {
        // The new sum from the old one (RFC 1624): only the destination in the pseudo-header differs.
        let old = Checksum::default().add_sum(u32::from(!u16::from_ne_bytes(icmp.checksum)));
        icmp.checksum = old.remove_address(Address::ALL_NODES).add_address(answer.destination).field();
    }
    true
}

/// A multicast answer goes to the multicast MAC of its group (RFC 2464 section 7).
#[inline(always)]
fn destination_mac(endpoint: &Endpoint, destination: Address) -> Mac {
    if destination.is_multicast() { Mac::ALL_NODES } else { endpoint.mac }
}

const _: () = assert!(IPV6_LEN + NEIGHBOUR_PAYLOAD == 72);
