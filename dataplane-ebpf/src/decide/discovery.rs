//! Neighbour discovery from a VM (RFC 4861): solicitations for its router, and for addresses it believes to be on-link
//! while we route to them, are answered; what is invalid or claims what is not the VM's is dropped.

use super::answer::{NeighbourAnswer, RouterAnswer};
use super::guard::{Packet, is_gateway};
use super::{Tables, Verdict};
use crate::abi::{Address, Endpoint, Reason, owner_flags};
use crate::wire::{
    Checksum, Frame, Headers, L4_OFFSET, MAX_OPTION_UNITS, NeighbourMessage, OPTION_UNIT, Options,
    advertisement_flags, icmp6, protocol, pseudo_header,
};

/// Hop limit of every discovery message: proof that no router has forwarded it (RFC 4861 section 11.2).
const HOP_LIMIT: u8 = 255;
/// Bytes of a router solicitation without options.
const ROUTER_SOLICITATION_LEN: usize = 8;

/// A router solicitation without options.
type RouterSolicitation = [u8; ROUTER_SOLICITATION_LEN];

/// Decides about a discovery message that passed the guard.
#[inline(always)]
pub fn decide<'t, F: Frame, T: Tables>(
    frame: &F,
    headers: &Headers,
    tables: &'t T,
    ifindex: u32,
    endpoint: &Endpoint,
    packet: &Packet,
) -> Verdict<'t> {
    let Some(solicitation) = frame.view::<RouterSolicitation>(L4_OFFSET) else {
        return Verdict::Drop(Reason::NdInvalid);
    };
    let [kind, code, checksum @ ..] = *solicitation;
    if headers.ip.hop_limit != HOP_LIMIT || code != 0 {
        return Verdict::Drop(Reason::NdInvalid);
    }
    let pseudo = pseudo_header(packet.source, packet.destination, packet.payload_len, protocol::ICMP6);
    // A checksum that is still to be completed: only the kernel knows whether it may be trusted.
    if pseudo.fold() == u16::from_ne_bytes([checksum[0], checksum[1]]) {
        return Verdict::Pass;
    }
    let mut sum = pseudo.add_word(u64::from_ne_bytes(*solicitation));
    let mut fixed = ROUTER_SOLICITATION_LEN;
    let mut target = Address::UNSPECIFIED;
    let mut flags = 0;
    if kind != icmp6::ROUTER_SOLICITATION {
        if packet.payload_len < size_of::<NeighbourMessage>() {
            return Verdict::Drop(Reason::NdInvalid);
        }
        let Some(message) = frame.view::<NeighbourMessage>(L4_OFFSET) else {
            return Verdict::Drop(Reason::NdInvalid);
        };
        fixed = size_of::<NeighbourMessage>();
        target = message.target();
        flags = message.flags[0];
        sum = sum.add_address(target);
        if target.is_multicast() {
            return Verdict::Drop(Reason::NdInvalid);
        }
    }
    let options = match options(frame, packet, fixed, sum) {
        Ok(options) => options,
        Err(verdict) => return verdict,
    };
    if !addressed_to_us(packet, tables, endpoint, target) {
        return Verdict::Drop(Reason::NdInvalid);
    }
    match kind {
        icmp6::ROUTER_SOLICITATION => router_solicitation(tables, ifindex, endpoint, packet, &options),
        icmp6::NEIGHBOUR_SOLICITATION => {
            neighbour_solicitation(tables, ifindex, endpoint, packet, &options, target)
        }
        _ => neighbour_advertisement(tables, ifindex, endpoint, packet, &options, target, flags),
    }
}

/// Reads the options and checks the checksum over everything.
#[inline(always)]
fn options<'t, F: Frame>(
    frame: &F,
    packet: &Packet,
    fixed: usize,
    sum: Checksum,
) -> Result<Options, Verdict<'t>> {
    let bytes = packet.payload_len.wrapping_sub(fixed);
    if !bytes.is_multiple_of(OPTION_UNIT) || packet.payload_len < fixed {
        return Err(Verdict::Drop(Reason::NdInvalid));
    }
    let units = bytes / OPTION_UNIT;
    if units > MAX_OPTION_UNITS {
        return Err(Verdict::Pass);
    }
    match Options::read(frame, L4_OFFSET + fixed, units, sum) {
        Some(options) if options.sum.is_valid() => Ok(options),
        _ => Err(Verdict::Drop(Reason::NdInvalid)),
    }
}

/// Discovery is between the VM and its router; it is never forwarded.
#[inline(always)]
fn addressed_to_us<T: Tables>(packet: &Packet, tables: &T, endpoint: &Endpoint, target: Address) -> bool {
    let destination = &packet.destination;
    destination.is_multicast()
        || *destination == endpoint.gateway
        || *destination == target
        || tables.owner(destination).is_some_and(is_gateway)
}

/// RFC 4861 section 6.1.1, and an answer by section 6.2.6.
#[inline(always)]
fn router_solicitation<'t, T: Tables>(
    tables: &'t T,
    ifindex: u32,
    endpoint: &Endpoint,
    packet: &Packet,
    options: &Options,
) -> Verdict<'t> {
    if let Err(reason) = source_option(packet, endpoint, options) {
        return Verdict::Drop(reason);
    }
    let Some(advertisement) = tables.advertisement(ifindex) else {
        return Verdict::Pass;
    };
    // An answer for which XDP has no room is TC's, which asks again.
    if !tables.may_answer(ifindex, endpoint) {
        return Verdict::Drop(Reason::RateLimited);
    }
    let destination = if packet.source.is_unspecified() {
        if !tables.may_multicast(ifindex) {
            return Verdict::Drop(Reason::RateLimited);
        }
        Address::ALL_NODES
    } else {
        packet.source
    };
    Verdict::AnswerRouter(RouterAnswer { advertisement, destination })
}

/// RFC 4861 section 7.1.1, and an answer by section 7.2.4.
#[inline(always)]
fn neighbour_solicitation<'t, T: Tables>(
    tables: &'t T,
    ifindex: u32,
    endpoint: &Endpoint,
    packet: &Packet,
    options: &Options,
    target: Address,
) -> Verdict<'t> {
    if let Err(reason) = source_option(packet, endpoint, options) {
        return Verdict::Drop(reason);
    }
    if packet.source.is_unspecified() && !packet.destination.is_solicited_node() {
        return Verdict::Drop(Reason::NdInvalid);
    }
    let override_flag = if target == endpoint.gateway {
        advertisement_flags::OVERRIDE
    } else {
        match tables.owner(&target) {
            Some(owner) if is_gateway(owner) => advertisement_flags::OVERRIDE,
            // The VM's own address: an answer would break its duplicate address detection.
            Some(owner) if owner.ifindex == ifindex => return Verdict::Pass,
            // A guest that believes in an on-link prefix: we are a proxy, which does not override (RFC 4861 7.2.8).
            Some(owner) if owner.flags & owner_flags::REACHABLE != 0 => 0,
            _ => return Verdict::Pass,
        }
    };
    if !tables.may_answer(ifindex, endpoint) {
        return Verdict::Drop(Reason::RateLimited);
    }
    // A multicast answer is not solicited (RFC 4861 section 7.2.4); Linux discards one that says so.
    let (destination, solicited) = if packet.source.is_unspecified() {
        (Address::ALL_NODES, 0)
    } else {
        (packet.source, advertisement_flags::SOLICITED)
    };
    // Without the router flag Linux takes the VM's default route away (RFC 4861 section 7.2.5).
    let flags = advertisement_flags::ROUTER | solicited | override_flag;
    Verdict::AnswerNeighbour(NeighbourAnswer { target, destination, flags })
}

/// The VM may tell of its own addresses (RFC 4861 section 7.1.2); the kernel takes it as a hint.
#[inline(always)]
fn neighbour_advertisement<'t, T: Tables>(
    tables: &'t T,
    ifindex: u32,
    endpoint: &Endpoint,
    packet: &Packet,
    options: &Options,
    target: Address,
    flags: u8,
) -> Verdict<'t> {
    if packet.destination.is_multicast() && flags & advertisement_flags::SOLICITED != 0 {
        return Verdict::Drop(Reason::NdInvalid);
    }
    let own = if target.is_link_local() {
        target != endpoint.gateway
    } else {
        tables.owner(&target).is_some_and(|owner| !is_gateway(owner) && owner.ifindex == ifindex)
    };
    if !own || options.target_mac.is_some_and(|mac| mac != endpoint.mac) {
        return Verdict::Drop(Reason::NdSpoof);
    }
    Verdict::Pass
}

/// The source link-layer address of a solicitation: the VM's, and none from `::` (RFC 4861 sections 6.1.1 and 7.1.1).
#[inline(always)]
fn source_option(packet: &Packet, endpoint: &Endpoint, options: &Options) -> Result<(), Reason> {
    match options.source_mac {
        Some(_) if packet.source.is_unspecified() => Err(Reason::NdInvalid),
        Some(mac) if mac != endpoint.mac => Err(Reason::NdSpoof),
        _ => Ok(()),
    }
}
