//! What comes from other hosts: packets for local endpoints go straight into their TAPs; the rest is the host's. Packets
//! to a VM that must not be on a wire are dropped, so that no form of them gets to the VM through the kernel, which
//! forwards without looking into them.
//!
//! Neighbour discovery needs no guard here: one hop takes the hop limit of 255 from it that makes it valid (RFC 4861
//! section 11.2).

use super::flow::Party;
use super::forward::to_owner;
use super::guard::{Packet, chain, has_upper_layer, is_gateway};
use super::{Hook, Place, Tables, judge, offload};
use crate::abi::{Address, Exit, Reason, owner_flags};
use crate::wire::{Fragment, Frame, Headers, L4_OFFSET, ethertype};
use core::hint::cold_path;

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
