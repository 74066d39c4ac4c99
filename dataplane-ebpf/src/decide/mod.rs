//! The decision, pure: what becomes of a frame that a VM sends, in the order a packet meets it.
//!
//! [`guard`] (may the VM send this) -> [`discovery`] (is it a solicitation for us) -> [`forward`] and [`route`] (where
//! does it go) -> [`flow`] and [`policy`] (may it) -> [`answer`] or [`forward::edit`] (the bytes). What comes from other
//! hosts begins at [`uplink`], what the kernel delivers at [`out`]. What belongs to a flow that is known goes by [`way`] instead. A frame is edited only when
//! nothing can stop it any more, so whatever is handed on to the kernel is untouched.
//!
//! What is marked as a cold path is not on the way of a packet that is forwarded, whose code shall lie together.

pub mod answer;
pub mod discovery;
pub mod event;
pub mod flow;
pub mod forward;
pub mod guard;
pub mod limit;
pub mod offload;
mod out;
pub mod policy;
pub mod question;
pub mod route;
#[cfg(test)]
mod tests;
pub mod uplink;
pub mod way;

use crate::abi::{
    Address, Advertisement, Counter, Endpoint, Exit, NextHopGroup, Owner, Reason, Route, SLOT_UNCONFIGURED,
    Uplink, endpoint_flags,
};
use crate::wire::{EthernetHeader, Frame, Headers, ethertype};
use core::hint::cold_path;
use flow::{Flows, Party, Question};
pub use out::to_vm;
pub use uplink::{from_uplink, from_uplink_at_length};

/// What the decision looks up and counts. The one implementation for the kernel is on BPF maps.
pub trait Tables {
    /// The endpoint behind a TAP.
    fn endpoint(&self, ifindex: u32) -> Option<&Endpoint>;

    /// Who has an address.
    fn owner(&self, address: &Address) -> Option<&Owner>;

    /// The router advertisement for the endpoint behind a TAP.
    fn advertisement(&self, ifindex: u32) -> Option<&Advertisement>;

    /// The /128 route to an address.
    fn host_route(&self, address: &Address) -> Option<&Route>;

    /// The route of the longest prefix that has an address.
    fn route(&self, address: &Address) -> Option<&Route>;

    /// The next hops of a group.
    fn next_hops(&self, group: u32) -> Option<&NextHopGroup>;

    /// The uplink with an ifindex.
    fn uplink(&self, ifindex: u32) -> Option<&Uplink>;

    /// Takes the right to send one multicast answer to that TAP now (RFC 4861 section 6.2.6: one in 3 s).
    fn may_multicast(&self, ifindex: u32) -> bool;

    /// Takes the right to answer the endpoint behind a TAP once more; see [`limit`].
    fn may_answer(&self, ifindex: u32, endpoint: &Endpoint) -> bool;

    /// Takes the right to hand the host one more packet that the endpoint behind a TAP sends from `source`.
    fn may_hand_over(&self, ifindex: u32, endpoint: &Endpoint, source: &Address) -> Result<(), Reason>;

    /// Takes the right to have the kernel look for a neighbour for one packet of the endpoint behind a TAP.
    fn may_resolve(&self, ifindex: u32, endpoint: &Endpoint) -> bool;

    /// Chooses the device that a frame leaves by which `hook` redirects; `false` when XDP cannot send there, and TC is to
    /// try. TC is not told: the kernel drops the frame when the device is gone.
    fn choose_device(&self, ifindex: u32, hook: Hook) -> bool;

    /// Policy counts. Without it all packets pass that the guard lets pass.
    fn is_policed(&self) -> bool;

    /// The flows, if policy counts.
    fn flows(&self) -> Option<&impl Flows>;

    /// What `act` does with a question, in which nothing means anything but generation and epoch. Those are read before
    /// anything is looked up for this packet: what is found is never older than they say. Where it is written is not on
    /// the stack, of which a program in the kernel has little. `otherwise` when there is no such place.
    fn with_question<R>(&self, otherwise: R, act: impl FnOnce(&mut Question) -> R) -> R;

    /// [`flow::judge`] of the question that `fill` writes, if it says that there is one.
    fn judge(&self, fill: impl FnOnce(&mut Question) -> Result<bool, Reason>) -> Result<(), Reason>;

    /// Tells people of a packet that the guard dropped, if they want to know; `fill` writes what is known of it.
    fn tell_drop(&self, reason: Reason, fill: impl FnOnce(&mut Question));

    /// IPv6 frames of an interface without an endpoint pass instead of being dropped.
    fn pass_unconfigured(&self) -> bool;

    /// Adds 1 to a value of `COUNTERS`; `index` is `Counter::index` or `Reason::index`.
    fn count(&self, slot: u32, index: usize);
}

/// Which hook asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// XDP: sees the bytes only, not what the virtio-net header says about them.
    Xdp,
    /// TC: has the socket buffer with its offload state.
    Tc,
}

/// What the hook does with the frame, which is edited accordingly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Hand it on, untouched: from XDP to TC, from TC to the kernel.
    Pass,
    /// Drop it.
    Drop,
    /// Send it back to the VM.
    Reply,
    /// Send it out of the device with this ifindex.
    Redirect(u32),
}

/// What is decided, before anything is edited.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'t> {
    /// Hand it on.
    Pass,
    /// Drop it.
    Drop(Reason),
    /// Answer a neighbour solicitation.
    AnswerNeighbour(answer::NeighbourAnswer),
    /// Answer a router solicitation.
    AnswerRouter(answer::RouterAnswer<'t>),
    /// Send it on.
    Forward(Exit),
}

/// Decides about, edits and counts a frame that the VM behind `ifindex` sent.
#[inline(always)]
pub fn from_vm<F: Frame, T: Tables>(frame: &mut F, tables: &T, ifindex: u32, hook: Hook) -> Action {
    way::from_vm(frame, tables, ifindex, hook)
        .unwrap_or_else(|| from_vm_at_length(frame, tables, ifindex, hook))
}

/// The same for a frame that [`way::from_vm`] does not know of: the long way.
#[inline(always)]
pub fn from_vm_at_length<F: Frame, T: Tables>(frame: &mut F, tables: &T, ifindex: u32, hook: Hook) -> Action {
    match classify(frame) {
        Class::Ipv6 => {}
        Class::Tagged if hook == Hook::Tc => {
            cold_path();
            let slot = tables.endpoint(ifindex).map_or(SLOT_UNCONFIGURED, |endpoint| endpoint.slot);
            return drop(tables, slot, Reason::Vlan);
        }
        // The kernel takes an outer tag off before TC sees the frame: only there it is clear what is inside.
        Class::Tagged | Class::Other => {
            cold_path();
            let slot = tables.endpoint(ifindex).map_or(SLOT_UNCONFIGURED, |endpoint| endpoint.slot);
            return pass(tables, slot, hook);
        }
    }
    let Some(endpoint) = tables.endpoint(ifindex) else {
        cold_path();
        if tables.pass_unconfigured() {
            return pass(tables, SLOT_UNCONFIGURED, hook);
        }
        return drop(tables, SLOT_UNCONFIGURED, Reason::Unconfigured);
    };
    match decide(frame, tables, ifindex, endpoint, hook) {
        Verdict::Pass => pass(tables, endpoint.slot, hook),
        Verdict::Drop(reason) => {
            cold_path();
            event::tell_drop(frame, tables, Party::endpoint(ifindex, endpoint.slot), Party::OUTSIDE, reason);
            drop(tables, endpoint.slot, reason)
        }
        Verdict::AnswerNeighbour(answer) => {
            cold_path();
            if !answer::write_neighbour(frame, endpoint, &answer) {
                return pass(tables, endpoint.slot, hook);
            }
            tables.count(endpoint.slot, Counter::AnsweredNs.index());
            Action::Reply
        }
        Verdict::AnswerRouter(answer) => {
            cold_path();
            if !answer::write_router(frame, endpoint, &answer) {
                return pass(tables, endpoint.slot, hook);
            }
            tables.count(endpoint.slot, Counter::AnsweredRs.index());
            Action::Reply
        }
        Verdict::Forward(exit) => send_on(frame, tables, endpoint.slot, &exit, hook),
    }
}

/// Sends a frame of the VM with this counter slot on.
#[inline(always)]
fn send_on<F: Frame, T: Tables>(frame: &mut F, tables: &T, slot: u32, exit: &Exit, hook: Hook) -> Action {
    if !leave(frame, tables, exit, hook) {
        return pass(tables, slot, hook);
    }
    let forwarded = match hook {
        Hook::Xdp => Counter::ForwardedXdp,
        Hook::Tc => Counter::ForwardedTc,
    };
    tables.count(slot, forwarded.index());
    Action::Redirect(exit.ifindex)
}

/// Makes a frame what leaves by `exit`, and counts it to the VM there; `false` when it cannot, and leaves it unedited.
#[inline(always)]
fn leave<F: Frame, T: Tables>(frame: &mut F, tables: &T, exit: &Exit, hook: Hook) -> bool {
    if !tables.choose_device(exit.ifindex, hook) || !forward::edit(frame, exit) {
        return false;
    }
    let delivered = match hook {
        Hook::Xdp => Counter::DeliveredXdp,
        Hook::Tc => Counter::DeliveredTc,
    };
    if exit.slot != SLOT_UNCONFIGURED {
        tables.count(exit.slot, delivered.index());
    }
    true
}

/// Decides about an IPv6 frame of a configured endpoint; edits nothing.
#[inline(always)]
pub fn decide<'t, F: Frame, T: Tables>(
    frame: &F,
    tables: &'t T,
    ifindex: u32,
    endpoint: &Endpoint,
    hook: Hook,
) -> Verdict<'t> {
    if endpoint.flags & endpoint_flags::ADMIN_UP == 0 {
        cold_path();
        return Verdict::Drop(Reason::AdminDown);
    }
    let Some(headers) = frame.view::<Headers>(0) else {
        return Verdict::Drop(Reason::Malformed);
    };
    let packet = match guard::inspect(frame, headers, tables, ifindex, endpoint) {
        Ok(packet) => packet,
        Err(reason) => {
            cold_path();
            return Verdict::Drop(reason);
        }
    };
    if packet.discovery {
        cold_path();
        return match discovery::decide(frame, headers, tables, ifindex, endpoint, &packet) {
            Verdict::Pass => hand_over(frame, tables, ifindex, endpoint, &packet, Party::HOST, hook),
            verdict => verdict,
        };
    }
    let destination = match forward::decide(frame, headers, tables, ifindex, endpoint, &packet, hook) {
        Ok(destination) => destination,
        Err(reason) => {
            cold_path();
            return Verdict::Drop(reason);
        }
    };
    // What XDP hands on is judged at TC.
    let judged = if hook == Hook::Xdp && !destination.exit.is_some() {
        Ok(())
    } else {
        let from = Party::endpoint(ifindex, endpoint.slot);
        judge(frame, tables, &packet, from, destination.to, &destination.exit, Place::In(hook))
    };
    match judged {
        Err(reason) => {
            cold_path();
            Verdict::Drop(reason)
        }
        Ok(()) if destination.exit.is_some() => Verdict::Forward(destination.exit),
        Ok(()) => hand_over(frame, tables, ifindex, endpoint, &packet, destination.to, hook),
    }
}

/// Hands a packet on, as far as its VM may: what is the host's own, and what makes the kernel look for a neighbour. XDP
/// hands it to TC, which asks.
#[inline(always)]
fn hand_over<'t, F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    ifindex: u32,
    endpoint: &Endpoint,
    packet: &guard::Packet,
    to: Party,
    hook: Hook,
) -> Verdict<'t> {
    if hook == Hook::Xdp {
        return Verdict::Pass;
    }
    cold_path();
    if limit::is_link_scope(packet) {
        return match tables.may_hand_over(ifindex, endpoint, &packet.source) {
            Ok(()) => Verdict::Pass,
            Err(reason) => Verdict::Drop(reason),
        };
    }
    // VMs are neighbours for good.
    if !to.is_host()
        && !to.is_endpoint()
        && frame.needs_neighbour(ifindex, packet.source.words(), packet.destination.words())
        && !tables.may_resolve(ifindex, endpoint)
    {
        return Verdict::Drop(Reason::NeighbourLimited);
    }
    Verdict::Pass
}

/// Where policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Where the packet came in.
    In(Hook),
    /// Where the kernel sends it out to a VM.
    Out,
}

/// Asks policy about a packet, if it counts.
#[inline(always)]
fn judge<F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    packet: &guard::Packet,
    from: Party,
    to: Party,
    exit: &Exit,
    place: Place,
) -> Result<(), Reason> {
    if !tables.is_policed() {
        return Ok(());
    }
    tables.judge(
        #[inline(always)]
        |question| {
            let asked = question::about(frame, packet, from, to, question);
            if exit.is_some() && way::is_plain(packet) && way::write_link(frame, question) {
                question.exit = *exit;
            }
            question.flags |= match place {
                Place::In(Hook::Xdp) => flow::question_flags::XDP,
                Place::In(Hook::Tc) => 0,
                Place::Out => flow::question_flags::OUT,
            };
            asked
        },
    )
}

/// Counts a frame that is handed on.
#[inline(always)]
fn pass<T: Tables>(tables: &T, slot: u32, hook: Hook) -> Action {
    let counter = match hook {
        Hook::Xdp => Counter::Deferred,
        Hook::Tc => Counter::Passed,
    };
    tables.count(slot, counter.index());
    Action::Pass
}

/// Counts a frame that is dropped.
#[inline(always)]
fn drop<T: Tables>(tables: &T, slot: u32, reason: Reason) -> Action {
    tables.count(slot, reason.index());
    Action::Drop
}

/// What a frame claims to be by its EtherType.
enum Class {
    Ipv6,
    Tagged,
    Other,
}

#[inline(always)]
fn classify<F: Frame>(frame: &F) -> Class {
    let Some(ethernet) = frame.view::<EthernetHeader>(0) else {
        return Class::Other;
    };
    match ethernet.ethertype.get() {
        ethertype::VLAN | ethertype::SERVICE_VLAN | ethertype::OLD_SERVICE_VLAN => Class::Tagged,
        // With a priority tag (VLAN 0) the frame is what is inside.
        _ if frame.vlan_id() != 0 => Class::Tagged,
        ethertype::IPV6 => Class::Ipv6,
        _ => Class::Other,
    }
}
