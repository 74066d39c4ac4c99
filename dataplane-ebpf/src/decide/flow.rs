//! Flows: the first packet is judged by policy, and those after it by what was found then, in both directions.
//!
//! A flow is two entries, one for the packets of each direction, so that every packet costs one lookup. It is judged again
//! when policy has changed since: the first packet after the change costs what a new flow's does, and is dropped if the
//! flow is no longer allowed. Times are Calico's (`felix/bpf/conntrack/timeouts`), and a flow that is not seen for so
//! long is a new one. TCP is followed as far as policy needs: which side began it, whether both sides took part, and
//! whether it ends. A flow also remembers where its packets go ([`way`](super::way)).

mod lifetime;
mod question;
mod quota;
#[cfg(test)]
mod tests;

pub use lifetime::{is_over, is_settled, tcp};
pub use question::{Party, Question, question_flags};

use super::event::Told;
use super::policy::{Decision, Subject};
use super::question::{DHCP6, DNS};
use crate::abi::{ChainPair, Flow, FlowKey, Reason, RingPlace, Way, event_kinds, flow_flags};
use crate::wire::{icmp6, protocol};
use core::hint::cold_path;
use lifetime::{begins_anew, establishes, may_begin};

/// What flows are looked up and kept in.
pub trait Flows {
    /// A flow.
    fn flow(&self, key: &FlowKey) -> Option<&Flow>;

    /// Seconds of the clock of [`Flow::seen`].
    fn now(&self) -> u32;

    /// Generation of the policy that counts now.
    fn generation(&self) -> u64;

    /// The chains of an endpoint, by its TAP.
    fn chains(&self, ifindex: u32) -> Option<ChainPair>;

    /// Changes an entry, if it is still there.
    fn update(&self, key: &FlowKey, change: Change);

    /// Adds an entry, or replaces it; `false` when there is no room.
    fn insert(&self, key: &FlowKey, flow: &Flow) -> bool;

    /// Removes an entry.
    fn remove(&self, key: &FlowKey);

    /// The place in an endpoint's ring that comes next; `None` when it has no quota.
    fn next_place(&self, owner: u32) -> Option<u32>;

    /// The flow that took a place.
    fn at_place(&self, place: &RingPlace) -> Option<&FlowKey>;

    /// Gives a place to a flow; `false` when there is no room.
    fn take_place(&self, place: &RingPlace, key: &FlowKey) -> bool;

    /// A place for an entry and a key that is not on the stack.
    fn with_scratch<R>(&self, otherwise: R, act: impl FnOnce(&mut Flow, &mut FlowKey) -> R) -> R;

    /// Counts a flow that is not remembered because its endpoint's quota is used up.
    fn count_pressure(&self, owner: u32);

    /// VMs may talk to the host as far as their own policy allows.
    fn host_is_open(&self) -> bool;

    /// What the host itself sends to VMs is judged by their own policy.
    fn host_is_judged(&self) -> bool;

    /// Counts that a rule decided.
    fn count_rule(&self, counter: u32);

    /// Tells people what became of a packet, if they want to know: in the kernel a function of its own.
    fn tell(&self, question: &Question, told: Told);

    /// [`known`](fn@known): this and those below are functions of their own in the kernel, called one after the other, so
    /// that their stacks do not add up.
    fn known(&self, question: &Question, asked: bool) -> u32;

    /// [`begin`].
    fn begin(&self, question: &Question);

    /// [`begin_fragments`].
    fn begin_fragments(&self, question: &Question);

    /// [`policy::evaluate`](super::policy::evaluate) of the packet's [`Question::subject`].
    fn evaluate(&self, chain: u32, question: &Question, answer: bool) -> Decision;
}

/// A change of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// New [`Flow::seen`].
    pub seen: u32,
    /// New [`Flow::generation`].
    pub generation: u64,
    /// Flags that are added.
    pub flags: u32,
    /// Flags that are taken away before.
    pub without: u32,
    /// New [`Flow::way`], if it is some.
    pub way: Way,
}

/// Whether a packet may pass. What is remembered of flows is asked first, then policy.
#[inline(always)]
pub fn judge<T: Flows>(tables: &T, question: &Question) -> Result<(), Reason> {
    match tables.known(question, false) {
        known::PASSES => {}
        found if found >= known::REFUSED => {
            cold_path();
            return Err(refuse(tables, question, reason(found - known::REFUSED)));
        }
        found => {
            cold_path();
            ask(tables, question, found == known::AGAIN_ANSWER)?;
            match found {
                known::NEW => tables.begin(question),
                known::AGAIN | known::AGAIN_ANSWER => {
                    tables.known(question, true);
                }
                _ => {}
            }
        }
    }
    // An error's key is that of another packet; errors are too short to be cut (RFC 4443 section 2.4).
    if question.flags & (question_flags::FIRST_FRAGMENT | question_flags::ERROR)
        == question_flags::FIRST_FRAGMENT
    {
        cold_path();
        tables.begin_fragments(question);
    }
    Ok(())
}

/// Tells people of a packet that no step of policy is to blame for.
#[inline(always)]
fn refuse<T: Flows>(tables: &T, question: &Question, reason: Reason) -> Reason {
    tables.tell(question, Told::refused(reason));
    reason
}

/// What [`known`](fn@known) finds.
pub mod known {
    /// A flow that is allowed.
    pub const PASSES: u32 = 0;
    /// Nothing: it may begin a flow.
    pub const NEW: u32 = 1;
    /// Policy has changed since the flow was allowed; it is in the direction of the first packet.
    pub const AGAIN: u32 = 2;
    /// The same; it is in the direction of the answers.
    pub const AGAIN_ANSWER: u32 = 3;
    /// It is asked about each time.
    pub const ONCE: u32 = 4;
    /// This, plus the number of the reason: it may not pass.
    pub const REFUSED: u32 = 16;
}

/// A number that is none means as much as one that is: it does not pass.
#[inline(always)]
fn reason(number: u32) -> Reason {
    Reason::from_number(number).unwrap_or(Reason::Policy)
}

/// What is remembered of a packet's flow: one of [`known`](mod@known). `asked`: policy has just allowed it again.
#[inline(always)]
pub fn known<T: Flows>(tables: &T, question: &Question, asked: bool) -> u32 {
    let now = tables.now();
    // Whoever sends an error is on the way to whom the packet was for. And a flow is one with whoever had the address when
    // it was judged: with another it is a new one.
    let other = if question.flags & question_flags::ERROR == 0 { question.to } else { question.from };
    let flow = tables
        .flow(&question.key)
        .filter(|flow| !is_over(flow, question.key.protocol, now) && flow.reverse_zone == other.zone());
    const SPECIAL: u32 = question_flags::NO_FLOW | question_flags::ERROR | question_flags::LATER_FRAGMENT;
    if question.flags & SPECIAL != 0 {
        cold_path();
        let belongs = flow.is_some_and(|flow| {
            question.flags & question_flags::LATER_FRAGMENT == 0
                || flow.generation == tables.generation()
                || now.wrapping_sub(flow.seen).cast_signed() <= REST_OF_FRAGMENTS
        });
        return special(question, belongs);
    }
    match flow {
        Some(flow) if !begins_anew(flow, question) => {
            let free = flow.flags & flow_flags::HOST != 0 && !tables.host_is_judged();
            if !asked && flow.generation != tables.generation() && !free {
                cold_path();
                let answers = flow.flags & flow_flags::REPLY != 0;
                return if answers { known::AGAIN_ANSWER } else { known::AGAIN };
            }
            keep(tables, question, flow, now);
            known::PASSES
        }
        _ if !may_begin(question) => known::REFUSED + Reason::NoFlow as u32,
        _ => known::NEW,
    }
}

/// How many seconds after the first fragment the others pass although policy has changed: those that were on their way.
/// They cannot be judged again, as they do not show what they are part of.
const REST_OF_FRAGMENTS: i32 = 1;

/// What is no packet of a flow, but perhaps belongs to one.
#[inline(always)]
fn special(question: &Question, belongs: bool) -> u32 {
    if question.flags & question_flags::NO_FLOW != 0 {
        known::ONCE
    } else if belongs {
        known::PASSES
    } else if question.flags & question_flags::ERROR != 0 {
        known::REFUSED + Reason::UnrelatedError as u32
    } else {
        known::REFUSED + Reason::FragmentVerdict as u32
    }
}

/// Asks policy: the sender's, then the receiver's; of the first packet of the flow, if this is an answer.
#[inline(always)]
fn ask<T: Flows>(tables: &T, question: &Question, answer: bool) -> Result<(), Reason> {
    let (from, to) = if answer { (&question.to, &question.from) } else { (&question.from, &question.to) };
    if from.is_host() && (!tables.host_is_judged() || every_vm_needs(&question.subject(answer))) {
        return Ok(());
    }
    if from.is_endpoint() {
        if to.is_host() && !tables.host_is_open() {
            return Err(refuse(tables, question, Reason::HostClosed));
        }
        let Some(chains) = tables.chains(from.ifindex) else {
            return Err(refuse(tables, question, Reason::Policy));
        };
        allows(tables, chains.egress, question, answer)?;
    }
    if to.is_endpoint() {
        let Some(chains) = tables.chains(to.ifindex) else {
            return Err(refuse(tables, question, Reason::Policy));
        };
        allows(tables, chains.ingress, question, answer)?;
    }
    Ok(())
}

/// What the host may say to VMs whatever policy says, the other side of what they may say to it
/// ([`question`](super::question)): multicast listeners, discovery, DHCPv6, DNS. Errors of its own are not asked about.
#[inline(always)]
fn every_vm_needs(subject: &Subject<'_>) -> bool {
    let kind = (subject.destination_port >> 8) as u8;
    match subject.protocol {
        protocol::ICMP6 => matches!(
            kind,
            icmp6::MLD_QUERY
                | icmp6::MLD_REPORT
                | icmp6::MLD_DONE
                | icmp6::MLD2_REPORT
                | icmp6::ROUTER_ADVERTISEMENT
                | icmp6::NEIGHBOUR_SOLICITATION
                | icmp6::NEIGHBOUR_ADVERTISEMENT
        ),
        protocol::UDP => {
            subject.source_port == DNS || (subject.destination_port, subject.source_port) == DHCP6
        }
        _ => false,
    }
}

#[inline(always)]
fn allows<T: Flows>(tables: &T, chain: u32, question: &Question, answer: bool) -> Result<(), Reason> {
    let decision = tables.evaluate(chain, question, answer);
    tables.count_rule(decision.counter);
    if let Some(step) = decision.logged {
        cold_path();
        tables.tell(question, Told::of_step(event_kinds::LOGGED, chain, step, answer));
    }
    let kind = if decision.allowed { event_kinds::ALLOWED } else { event_kinds::DENIED };
    tables.tell(question, Told::of_step(kind, chain, decision.step, answer));
    if decision.allowed { Ok(()) } else { Err(Reason::Policy) }
}

/// Remembers a flow that policy has allowed.
#[inline(always)]
pub fn begin<T: Flows>(tables: &T, question: &Question) {
    let remembered = tables.with_scratch(
        false,
        #[inline(always)]
        |flow, reverse| {
            question.flow(tables, flow);
            quota::remember(tables, &question.key, flow, reverse)
                && quota::remember_answers(tables, &question.key, flow, reverse)
        },
    );
    if !remembered {
        tables.count_pressure(question.payer());
    }
}

/// Remembers that the fragments that follow a first one may pass.
#[inline(always)]
pub fn begin_fragments<T: Flows>(tables: &T, question: &Question) {
    let key = question.fragment_key();
    let remembered = tables.with_scratch(
        false,
        #[inline(always)]
        |flow, reverse| {
            question.flow(tables, flow);
            quota::remember(tables, &key, flow, reverse)
        },
    );
    if !remembered {
        tables.count_pressure(question.payer());
    }
}

/// Keeps a flow alive, and notes what the packet says about it. Writes only what is new: entries are shared by CPUs.
///
/// A connection that one side broke off goes on when anybody sends in it afterwards: whoever forges a RST, and does not see
/// the sequence numbers, must not be the one to end it. An end that was meant shows by another RST, which is the answer
/// of a host to what belongs to no connection of its own.
#[inline(always)]
fn keep<T: Flows>(tables: &T, question: &Question, flow: &Flow, now: u32) {
    let generation = tables.generation();
    let is_tcp = question.key.protocol == u32::from(protocol::TCP);
    let (mut flags, mut of_other, mut without) = (flow_flags::SEEN, 0, 0);
    if is_tcp && question.tcp_flags & tcp::RST != 0 {
        flags |= flow_flags::RESET;
        of_other |= flow_flags::RESET;
    } else if flow.flags & flow_flags::RESET != 0 {
        without = flow_flags::RESET;
    }
    if is_tcp && question.tcp_flags & tcp::FIN != 0 {
        flags |= flow_flags::ENDED;
        of_other |= flow_flags::OTHER_ENDED;
    }
    if !is_settled(flow, &question.key) || flow.flags & flags != flags {
        cold_path();
        let reverse = question.key.reverse(flow.reverse_zone);
        let other = tables.flow(&reverse).map_or(0, |other| other.flags);
        if establishes(question, flow, other) {
            flags |= flow_flags::ESTABLISHED;
            of_other |= flow_flags::ESTABLISHED;
        }
        if of_other != 0 || without != 0 {
            let change = Change { seen: now, generation, flags: of_other, without, way: Way::NONE };
            tables.update(&reverse, change);
        }
    }
    let way = question.way();
    let news = way.is_some() && flow.way != way;
    if flow.seen != now
        || flow.generation != generation
        || flow.flags & flags != flags
        || without != 0
        || news
    {
        tables.update(&question.key, Change { seen: now, generation, flags, without, way });
    }
}
