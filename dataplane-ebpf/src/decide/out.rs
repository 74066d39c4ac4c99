//! What the kernel delivers to a VM: forwarded, or the host's own. It is judged where it leaves, unless it was where it came
//! in; the frame is the kernel's and is not edited.

use super::flow::Party;
use super::{Action, Class, Place, Tables, classify, drop, event, guard, judge, uplink};
use crate::abi::{Counter, Endpoint, Exit, Reason};
use crate::wire::{Fragment, Frame, Headers, L4_OFFSET};
use core::hint::cold_path;

/// Decides about and counts a frame that the kernel delivers to the VM behind `ifindex`, having received it on
/// `received_on`, or made it itself if that is 0. It is judged here, unless it was `judged` where it came in.
#[inline(always)]
pub fn to_vm<F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    ifindex: u32,
    received_on: u32,
    judged: bool,
) -> Action {
    let Some(endpoint) = tables.endpoint(ifindex) else { return Action::Pass };
    match deliver(frame, tables, ifindex, endpoint, received_on, judged) {
        Ok(()) => {
            tables.count(endpoint.slot, Counter::DeliveredKernel.index());
            Action::Pass
        }
        Err(reason) => {
            cold_path();
            let (from, to) = (sender(tables, received_on), Party::endpoint(ifindex, endpoint.slot));
            event::tell_drop(frame, tables, from, to, reason);
            drop(tables, endpoint.slot, reason)
        }
    }
}

#[inline(always)]
fn deliver<F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    ifindex: u32,
    endpoint: &Endpoint,
    received_on: u32,
    judged: bool,
) -> Result<(), Reason> {
    if !tables.is_policed() || !matches!(classify(frame), Class::Ipv6) {
        return Ok(());
    }
    let Some(headers) = frame.view::<Headers>(0) else { return Err(Reason::Malformed) };
    // It was judged as one to whoever has the address; the kernel may know somebody else, by its routes or by translation.
    if judged && tables.owner(&headers.ip.destination()).is_some_and(|owner| owner.ifindex == ifindex) {
        return Ok(());
    }
    let end = match headers.ip.payload_len.get() {
        // A jumbogram, which the kernel makes segments of behind this hook.
        0 => frame.len(),
        payload_len => L4_OFFSET + payload_len as usize,
    };
    if end > frame.len() {
        return Err(Reason::Malformed);
    }
    // Before the headers are followed, so that the verifier need not look at this once for every way to end there.
    let from = sender(tables, received_on);
    if from == Party::OUTSIDE && uplink::is_here(tables, &headers.ip.source()) {
        return Err(Reason::SourceAddress);
    }
    let chain = guard::chain(frame, headers, end)?;
    // RFC 7112: without the whole chain nobody on the way can tell what it is.
    if matches!(chain.fragment, Fragment::First) && !guard::has_upper_layer(&chain, end) {
        return Err(Reason::FragmentChain);
    }
    let packet = guard::Packet {
        source: headers.ip.source(),
        destination: headers.ip.destination(),
        payload_len: end - L4_OFFSET,
        chain,
        padded: false,
        discovery: false,
    };
    let to = Party::endpoint(ifindex, endpoint.slot);
    judge(frame, tables, &packet, from, to, &Exit::NONE, Place::Out)
}

/// Who sent what the kernel received on `received_on`.
#[inline(always)]
fn sender<T: Tables>(tables: &T, received_on: u32) -> Party {
    match received_on {
        0 => Party::HOST,
        other => match tables.endpoint(other) {
            Some(sender) => Party::endpoint(other, sender.slot),
            None => Party::OUTSIDE,
        },
    }
}
