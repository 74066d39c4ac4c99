//! The short way: a packet of a flow that is known, allowed and has been sent on before needs one lookup, that of its flow.
//!
//! What the long way found of an earlier packet with the same [`FlowKey`] is remembered there ([`Way`](crate::abi::Way)) as
//! long as nothing it depends on has changed: that its addresses and ports are legal where it comes in, whom it is for,
//! and how it gets there. What differs from packet to packet is looked at here. Whatever is not plain goes the long way,
//! which alone says what becomes of packets: this one says the same, or nothing.

use super::flow::{self, Change, Flows, Question, tcp};
use super::guard::Packet;
use super::{Action, Hook, Tables, forward, offload, pass, send_on, uplink};
use crate::abi::{Exit, FlowKey, Link, SLOT_UNCONFIGURED, ZONE_OUTSIDE, exit_flags};
use crate::wire::{
    Chain, EthernetHeader, Fragment, Frame, Headers, L4_OFFSET, TcpHeader, UdpHeader, ethertype, protocol,
};
use core::hint::cold_path;

/// What becomes of a frame that the VM behind `ifindex` sent, if that is known; edited and counted.
#[inline(always)]
pub fn from_vm<F: Frame, T: Tables>(frame: &mut F, tables: &T, ifindex: u32, hook: Hook) -> Option<Action> {
    // The endpoint is not asked for: its flows are, which remember what it said.
    let (exit, slot) = known(frame, tables, ifindex, hook, |ethernet, link| {
        *link = Link::new(ethernet.macs(), 0);
        true
    });
    if exit.is_some() {
        return Some(send_on(frame, tables, slot, &exit, hook));
    }
    if exit.flags & exit_flags::NOT_BY_XDP != 0 { Some(pass(tables, slot, hook)) } else { None }
}

/// What becomes of a frame that came in on an uplink, if that is known; edited and counted.
#[inline(always)]
pub fn from_uplink<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    ifindex: u32,
    hook: Hook,
) -> Option<Action> {
    if hook == Hook::Xdp && uplink::is_for_gro(frame, tables, ifindex) {
        return Some(Action::Pass);
    }
    let (exit, _) = known(frame, tables, ZONE_OUTSIDE, hook, |ethernet, link| {
        *link = Link::NONE;
        tables.uplink(ifindex).is_some_and(|uplink| ethernet.destination() == uplink.mac)
    });
    if exit.is_some() {
        return Some(uplink::deliver_on(frame, tables, &exit, hook));
    }
    // Not ours to count.
    if exit.flags & exit_flags::NOT_BY_XDP != 0 { Some(Action::Pass) } else { None }
}

/// The way of a packet that came in at `zone`, and the counter slot of the VM that sends it: [`Exit::NONE`] if it has to go the
/// long way, [`Exit::NOT_BY_XDP`] if that would only end in handing it on. `is_ours` writes the link and says whether it may
/// be.
#[inline(always)]
fn known<F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    zone: u32,
    hook: Hook,
    is_ours: impl FnOnce(&EthernetHeader, &mut Link) -> bool,
) -> (Exit, u32) {
    const LONG: (Exit, u32) = (Exit::NONE, SLOT_UNCONFIGURED);
    let Some(flows) = tables.flows() else { return LONG };
    tables.with_question(
        LONG,
        #[inline(always)]
        |question| {
            if !write_key(frame, zone, question, is_ours) {
                return LONG;
            }
            let key = &question.key;
            let Some(flow) = flows.flow(key) else { return LONG };
            let now = flows.now();
            if flow.generation != flows.generation()
                || !flow::is_settled(flow, key)
                || flow::is_over(flow, key.protocol, now)
                || !flow.way.of(key, question.epoch, &mut question.link, &mut question.exit)
                || !question.exit.is_some()
            {
                return LONG;
            }
            let slot = question.link.slot();
            let is_seen = flow.seen == now;
            let Some(packet) = packet(frame, key) else { return LONG };
            let fits = forward::fits(frame, &packet, question.exit.mtu as usize);
            match hook {
                // Nothing is noted of what is handed on: TC is to judge it.
                Hook::Xdp
                    if !fits
                        || question.exit.flags & exit_flags::XDP == 0
                        || !offload::is_complete(frame, &packet) =>
                {
                    return (Exit::NOT_BY_XDP, slot);
                }
                Hook::Tc if !fits => return LONG,
                _ => {}
            }
            if !is_seen {
                cold_path();
                let (seen, generation) = (flows.now(), flows.generation());
                flows.update(key, Change { seen, generation, ..Change::default() });
            }
            (question.exit, slot)
        },
    )
}

/// Writes the key of a packet's flow, if the packet is plain and may come from where it does. In the kernel that is not on the
/// stack, of which the long way leaves little, as little as what could be kept of the packet meanwhile.
#[inline(always)]
fn write_key<F: Frame>(
    frame: &F,
    zone: u32,
    question: &mut Question,
    is_ours: impl FnOnce(&EthernetHeader, &mut Link) -> bool,
) -> bool {
    let Some(headers) = frame.view::<Headers>(0) else { return false };
    let payload_len = headers.ip.payload_len.get() as usize;
    if headers.ethernet.ethertype.get() != ethertype::IPV6
        || headers.ip.version() != 6
        || headers.ip.hop_limit <= 1
        || L4_OFFSET + payload_len != frame.len()
        || frame.is_tagged()
    {
        cold_path();
        return false;
    }
    let ports = match headers.ip.next_header {
        protocol::TCP if payload_len >= size_of::<TcpHeader>() => {
            let Some(tcp) = frame.view::<TcpHeader>(L4_OFFSET) else { return false };
            // What begins or ends a connection changes its flow.
            if u32::from(tcp.flags) & (tcp::SYN | tcp::FIN | tcp::RST) != 0 {
                return false;
            }
            tcp.ports
        }
        protocol::UDP if payload_len >= size_of::<UdpHeader>() => {
            let Some(udp) = frame.view::<UdpHeader>(L4_OFFSET) else { return false };
            [udp.source_port, udp.destination_port]
        }
        _ => return false,
    };
    question.key = FlowKey {
        source: headers.ip.source(),
        destination: headers.ip.destination(),
        source_port: ports[0].get(),
        destination_port: ports[1].get(),
        protocol: u32::from(headers.ip.next_header),
        zone,
        _reserved: 0,
    };
    is_ours(&headers.ethernet, &mut question.link)
}

/// The packet whose key was written.
#[inline(always)]
fn packet<F: Frame>(frame: &F, key: &FlowKey) -> Option<Packet> {
    let headers = frame.view::<Headers>(0)?;
    let chain = Chain {
        protocol: key.protocol as u8,
        offset: L4_OFFSET,
        fragment: Fragment::Whole,
        hop_by_hop: false,
        identification: 0,
    };
    Some(Packet {
        source: key.source,
        destination: key.destination,
        payload_len: headers.ip.payload_len.get() as usize,
        chain,
        padded: false,
        discovery: false,
    })
}

/// Writes the link of a packet that may pass, for the next ones of its flow; `false` when there is no room for it.
#[inline(always)]
pub(super) fn write_link<F: Frame>(frame: &F, question: &mut Question) -> bool {
    // What the question knows need not be kept on the stack.
    if !question.from.is_endpoint() {
        return true;
    }
    let Some(ethernet) = frame.view::<EthernetHeader>(0) else { return false };
    let Ok(slot) = u16::try_from(question.from.slot) else { return false };
    question.link = Link::new(ethernet.macs(), slot);
    true
}

/// Whether [`known`] would look at a packet like this: the way of another need not be that of all with the same key.
#[inline(always)]
pub(super) fn is_plain(packet: &Packet) -> bool {
    matches!(packet.chain.protocol, protocol::TCP | protocol::UDP)
        && packet.chain.offset == L4_OFFSET
        && matches!(packet.chain.fragment, Fragment::Whole)
}
