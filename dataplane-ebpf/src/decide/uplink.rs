//! What comes from other hosts: packets for local endpoints go straight into their TAPs; the rest is the host's. Packets
//! to a VM that must not be on a wire are dropped, so that no form of them gets to the VM through the kernel, which
//! forwards without looking into them.
//!
//! Neighbour discovery needs no guard here: one hop takes the hop limit of 255 from it that makes it valid (RFC 4861
//! section 11.2).

use super::flow::{Party, tcp};
use super::forward::to_owner;
use super::guard::{Packet, chain, has_upper_layer, is_gateway};
use super::{Action, Hook, Place, Tables, drop, event, judge, leave, offload, way};
use crate::abi::{Address, Exit, Reason, owner_flags, uplink_flags};
use crate::wire::{Fragment, Frame, Headers, L4_OFFSET, TcpHeader, ethertype, protocol};
use core::hint::cold_path;

/// Decides about, edits and counts a frame that came in on an uplink.
#[inline(always)]
pub fn from_uplink<F: Frame, T: Tables>(frame: &mut F, tables: &T, ifindex: u32, hook: Hook) -> Action {
    way::from_uplink(frame, tables, ifindex, hook)
        .unwrap_or_else(|| from_uplink_at_length(frame, tables, ifindex, hook))
}

/// The same for a frame that [`way::from_uplink`] does not know of: the long way.
#[inline(always)]
pub fn from_uplink_at_length<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    ifindex: u32,
    hook: Hook,
) -> Action {
    match decide(frame, tables, ifindex, hook) {
        // Not ours to count.
        Arrival::Host => Action::Pass,
        Arrival::Drop { to, reason } => {
            cold_path();
            event::tell_drop(frame, tables, Party::OUTSIDE, to, reason);
            drop(tables, to.slot, reason)
        }
        Arrival::Deliver(exit) => deliver_on(frame, tables, &exit, hook),
    }
}

/// Sends a frame from another host on.
#[inline(always)]
pub(super) fn deliver_on<F: Frame, T: Tables>(frame: &mut F, tables: &T, exit: &Exit, hook: Hook) -> Action {
    // Not ours to count, if not.
    if leave(frame, tables, exit, hook) { Action::Redirect(exit.ifindex) } else { Action::Pass }
}

/// What becomes of a frame from another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is the host's.
    Host,
    /// It is dropped.
    Drop {
        /// The VM that it is for.
        to: Party,
        /// Why.
        reason: Reason,
    },
    /// It goes to a VM, this way.
    Deliver(Exit),
}

/// Decides about a frame that came in on an uplink; edits nothing.
#[inline(always)]
pub fn decide<F: Frame, T: Tables>(frame: &F, tables: &T, ifindex: u32, hook: Hook) -> Arrival {
    if hook == Hook::Xdp && is_for_gro(frame, tables, ifindex) {
        return Arrival::Host;
    }
    let Some(headers) = frame.view::<Headers>(0) else {
        return Arrival::Host;
    };
    if headers.ethernet.ethertype.get() != ethertype::IPV6 || headers.ip.version() != 6 || frame.is_tagged() {
        return Arrival::Host;
    }
    let owner = match tables.owner(&headers.ip.destination()) {
        Some(owner) if !is_gateway(owner) => owner,
        _ => return Arrival::Host,
    };
    let payload_len = headers.ip.payload_len.get() as usize;
    let end = L4_OFFSET + payload_len;
    // The kernel forwards what was sent to its own MAC, and drops what is cut short. A length of 0 is that of a
    // jumbogram (RFC 2675), which GRO makes of a long train of segments where an administrator lets it.
    if tables.uplink(ifindex).is_none_or(|uplink| headers.ethernet.destination() != uplink.mac)
        || payload_len == 0
        || end > frame.len()
    {
        return Arrival::Host;
    }
    let to = Party::endpoint(owner.ifindex, owner.slot);
    let chain = match chain(frame, headers, end) {
        Ok(chain) => chain,
        Err(reason) => {
            cold_path();
            return Arrival::Drop { to, reason };
        }
    };
    // RFC 7112: without the whole chain nobody on the way can tell what it is. Else the receiver is to judge.
    if matches!(chain.fragment, Fragment::First) && !has_upper_layer(&chain, end) {
        cold_path();
        return Arrival::Drop { to, reason: Reason::FragmentChain };
    }
    let source = headers.ip.source();
    if !is_sender(source) || is_here(tables, &source) {
        cold_path();
        return Arrival::Drop { to, reason: Reason::SourceAddress };
    }
    // The kernel tells a link-local sender that this is beyond its scope (RFC 4443 section 3.1), and another that its hop
    // limit is exceeded; it looks into hop-by-hop options; it cuts padding off.
    if source.is_link_local() || headers.ip.hop_limit <= 1 || chain.hop_by_hop || end != frame.len() {
        return Arrival::Host;
    }
    let packet = Packet {
        source,
        destination: headers.ip.destination(),
        payload_len,
        chain,
        padded: false,
        discovery: false,
    };
    let exit = to_owner(frame, &packet, owner);
    if !exit.is_some() || hook == Hook::Xdp && !offload::is_complete(frame, &packet) {
        return Arrival::Host;
    }
    match judge(frame, tables, &packet, Party::OUTSIDE, to, &exit, Place::In(hook)) {
        Ok(()) => Arrival::Deliver(exit),
        Err(reason) => {
            cold_path();
            Arrival::Drop { to, reason }
        }
    }
}

/// XDP leaves the frame to TC, which comes after GRO: TCP with data, which costs least in long trains, where there is such a
/// hook. So is what begins and ends a connection, as it must not overtake data that GRO still holds; acknowledgements may.
#[inline(always)]
pub fn is_for_gro<F: Frame, T: Tables>(frame: &F, tables: &T, ifindex: u32) -> bool {
    let Some(headers) = frame.view::<Headers>(0) else { return false };
    if headers.ip.next_header != protocol::TCP {
        return false;
    }
    let Some(header) = frame.view::<TcpHeader>(L4_OFFSET) else { return false };
    let header_len = usize::from(header.data_offset >> 4) * 4;
    (headers.ip.payload_len.get() as usize > header_len
        || u32::from(header.flags) & (tcp::SYN | tcp::FIN | tcp::RST) != 0)
        && tables.uplink(ifindex).is_some_and(|uplink| uplink.flags & uplink_flags::STEERED != 0)
}

/// The address is that of a VM that runs on this host, so that nobody else has it: whoever sends from it elsewhere wants that
/// VM's rights. Where its TAP is down it does not run here yet, or any more, and may still be on the host that it moves
/// from; once it is up, what it sent there before is late and lost, as it is to whoever it moves away from.
#[inline(always)]
pub fn is_here<T: Tables>(tables: &T, source: &Address) -> bool {
    tables.owner(source).is_some_and(|owner| !is_gateway(owner) && owner.flags & owner_flags::REACHABLE != 0)
}

/// The source of a packet may be this (RFC 4291 sections 2.5.2, 2.5.3, 2.7; RFC 4942 section 2.2 for IPv4-mapped ones).
#[inline(always)]
fn is_sender(source: Address) -> bool {
    !(source.is_multicast() || source.is_unspecified() || source.is_loopback() || source.is_v4_mapped())
}
