//! Flows: the first packet is judged by policy, and those after it by what was found then, in both directions.
//!
//! A flow is two entries, one for the packets of each direction, so that every packet costs one lookup. It is judged again
//! when policy has changed since: the first packet after the change costs what a new flow's does, and is dropped if the
//! flow is no longer allowed. Times are Calico's (`felix/bpf/conntrack/timeouts`), and a flow that is not seen for so
//! long is a new one. TCP is followed as far as policy needs: which side began it, whether both sides took part, and
//! whether it ends.

mod quota;
#[cfg(test)]
mod tests;

use super::event::Told;
use super::policy::{Decision, Subject};
use crate::abi::{ChainPair, Flow, FlowKey, Reason, RingPlace, ZONE_OUTSIDE, event_kinds, flow_flags};
use crate::wire::{icmp6, protocol};
use core::hint::cold_path;

/// Flags of TCP (RFC 9293 section 3.1).
pub mod tcp {
    /// The sender has no more data.
    pub const FIN: u32 = 1;
    /// A connection begins.
    pub const SYN: u32 = 2;
    /// A connection is no more.
    pub const RST: u32 = 4;
    /// The acknowledgement number counts.
    pub const ACK: u32 = 16;
}

/// What flows are looked up and kept in.
pub trait Flows {
    /// A flow.
    fn flow(&self, key: &FlowKey) -> Option<&Flow>;

    /// Seconds of a clock that counts from the start of the host.
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

    /// Counts a flow that is not remembered because its endpoint's quota is used up.
    fn count_pressure(&self, owner: u32);

    /// VMs may talk to the host as far as their own policy allows.
    fn host_is_open(&self) -> bool;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// New [`Flow::seen`].
    pub seen: u32,
    /// New [`Flow::generation`].
    pub generation: u64,
    /// Flags that are added.
    pub flags: u32,
}

/// One end of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Party {
    /// Its TAP, if it is a VM of this host.
    pub(super) ifindex: u32,
    /// Its counter slot, if it is a VM of this host; else one of the two below.
    pub(super) slot: u32,
}

impl Party {
    /// This host.
    pub const HOST: Self = Self { ifindex: ZONE_OUTSIDE, slot: 0 };
    /// Somebody else.
    pub const OUTSIDE: Self = Self { ifindex: ZONE_OUTSIDE, slot: 1 };

    /// A VM of this host.
    #[inline(always)]
    pub fn endpoint(ifindex: u32, slot: u32) -> Self {
        Self { ifindex, slot }
    }

    /// Whether it is a VM of this host.
    #[inline(always)]
    pub fn is_endpoint(&self) -> bool {
        self.ifindex != ZONE_OUTSIDE
    }

    /// Whether it is this host.
    #[inline(always)]
    pub fn is_host(&self) -> bool {
        !self.is_endpoint() && self.slot == Self::HOST.slot
    }

    /// Where its packets come in.
    #[inline(always)]
    pub fn zone(&self) -> u32 {
        self.ifindex
    }
}

/// A packet that is to be judged. Plain memory without padding, as it is handed to a function of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Question {
    /// Its flow.
    pub key: FlowKey,
    /// Who sends it.
    pub from: Party,
    /// Whom it is for.
    pub to: Party,
    /// Destination port, or ICMPv6 type and code.
    pub service: u32,
    /// Flags, of TCP.
    pub tcp_flags: u32,
    /// [`question_flags`].
    pub flags: u32,
    /// Identification of the packet's fragments, if it is one.
    pub fragment: u32,
    /// In the kernel, the generation of policy by which it is judged from beginning to end: a flow that one allowed must
    /// not be remembered as allowed by the next.
    pub generation: u64,
}

const _: () = assert!(size_of::<Question>() == 88);

/// Bits of [`Question::flags`].
pub mod question_flags {
    /// It is no flow: ICMPv6 other than echo and errors. Answers need a right of their own.
    pub const NO_FLOW: u32 = 1;
    /// It is an ICMPv6 error, and the key is that of the packet that it is about, where that came in.
    pub const ERROR: u32 = 2;
    /// It is the first of several fragments.
    pub const FIRST_FRAGMENT: u32 = 4;
    /// It is a later fragment, and the key is that of all fragments of its packet.
    pub const LATER_FRAGMENT: u32 = 8;
    /// XDP asks.
    pub const XDP: u32 = 16;
    /// It is on its way out to a VM, and the kernel has forwarded it.
    pub const OUT: u32 = 32;
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
            if !asked && flow.generation != tables.generation() && flow.flags & flow_flags::HOST == 0 {
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
    if from.is_host() {
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
    let mut flow = question.flow(tables);
    if !quota::remember(tables, &question.key, &mut flow)
        || !quota::remember_answers(tables, &question.key, &mut flow)
    {
        tables.count_pressure(flow.owner);
    }
}

/// Remembers that the fragments that follow a first one may pass.
#[inline(always)]
pub fn begin_fragments<T: Flows>(tables: &T, question: &Question) {
    let mut flow = question.flow(tables);
    if !quota::remember(tables, &question.fragment_key(), &mut flow) {
        tables.count_pressure(flow.owner);
    }
}

impl Question {
    /// What policy looks at: this packet; or, if it is an answer, the first one of its flow.
    #[inline(always)]
    pub fn subject(&self, answer: bool) -> Subject<'_> {
        let key = &self.key;
        let is_icmp = key.protocol == u32::from(protocol::ICMP6);
        if answer {
            Subject {
                source: &key.destination,
                destination: &key.source,
                protocol: key.protocol as u8,
                source_port: if is_icmp { 0 } else { key.destination_port },
                destination_port: if is_icmp { ECHO_REQUEST } else { key.source_port },
            }
        } else {
            Subject {
                source: &key.source,
                destination: &key.destination,
                protocol: key.protocol as u8,
                source_port: if is_icmp { 0 } else { key.source_port },
                destination_port: self.service as u16,
            }
        }
    }

    /// Its type, if it is an ICMPv6 message.
    #[inline(always)]
    fn icmp_type(&self) -> u32 {
        self.service >> 8
    }

    /// The flow that begins with this packet.
    #[inline(always)]
    fn flow<T: Flows>(&self, tables: &T) -> Flow {
        let host = if self.from.is_host() { flow_flags::HOST } else { 0 };
        Flow {
            generation: tables.generation(),
            seen: tables.now(),
            owner: if self.from.is_endpoint() { self.from.slot } else { self.to.slot },
            flags: flow_flags::SEEN | host,
            reverse_zone: self.to.zone(),
            place: 0,
            _reserved: 0,
        }
    }

    /// The key of all fragments of this packet.
    #[inline(always)]
    pub(super) fn fragment_key(&self) -> FlowKey {
        FlowKey {
            source_port: self.fragment as u16,
            destination_port: (self.fragment >> 16) as u16,
            protocol: u32::from(protocol::FRAGMENT),
            ..self.key
        }
    }
}

/// Type and code of an ICMPv6 echo request (RFC 4443 section 4.1) as one number.
const ECHO_REQUEST: u16 = 128 << 8;

/// Keeps a flow alive, and notes what the packet says about it. Writes only what is new: entries are shared by CPUs.
#[inline(always)]
fn keep<T: Flows>(tables: &T, question: &Question, flow: &Flow, now: u32) {
    let generation = tables.generation();
    let mut flags = flow_flags::SEEN;
    let ends =
        question.key.protocol == u32::from(protocol::TCP) && question.tcp_flags & (tcp::FIN | tcp::RST) != 0;
    if ends {
        flags |= flow_flags::CLOSING;
    }
    if flow.flags & flow_flags::ESTABLISHED == 0 || flow.flags & flags != flags {
        cold_path();
        let reverse = question.key.reverse(flow.reverse_zone);
        let other = tables.flow(&reverse).map_or(0, |other| other.flags);
        if establishes(question, flow, other) {
            flags |= flow_flags::ESTABLISHED;
        }
        let both = flags & !flow_flags::SEEN;
        if both != 0 {
            tables.update(&reverse, Change { seen: now, generation, flags: both });
        }
    }
    if flow.seen != now || flow.generation != generation || flow.flags & flags != flags {
        tables.update(&question.key, Change { seen: now, generation, flags });
    }
}

/// Whether with this packet both sides have taken part.
#[inline(always)]
fn establishes(question: &Question, flow: &Flow, other: u32) -> bool {
    if question.key.protocol != u32::from(protocol::TCP) {
        return flow.flags & flow_flags::REPLY != 0 && other & flow_flags::SEEN != 0;
    }
    // The third packet of the handshake: whoever only sends SYN never holds an established flow.
    flow.flags & flow_flags::REPLY == 0
        && other & flow_flags::SEEN != 0
        && question.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::ACK
}

/// Whether the packet begins another flow between the same ports: whoever answers has no right to it by the flow, and
/// whoever began a connection is judged again when the old one has ended.
#[inline(always)]
fn begins_anew(flow: &Flow, question: &Question) -> bool {
    match question.key.protocol as u8 {
        protocol::TCP => {
            question.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
                && flow.flags & (flow_flags::REPLY | flow_flags::CLOSING) != 0
        }
        protocol::ICMP6 => {
            question.icmp_type() == u32::from(icmp6::ECHO_REQUEST) && flow.flags & flow_flags::REPLY != 0
        }
        _ => false,
    }
}

/// Whether the packet may be the first of a flow. Of TCP: a SYN; or data, when the flow was forgotten (as netfilter's
/// `nf_conntrack_tcp_loose`). An echo reply never is: the request that it would let back in is nobody's answer.
#[inline(always)]
fn may_begin(question: &Question) -> bool {
    match question.key.protocol as u8 {
        protocol::TCP => {
            let flags = question.tcp_flags & (tcp::SYN | tcp::ACK | tcp::FIN | tcp::RST);
            matches!(flags, tcp::SYN | tcp::ACK)
        }
        protocol::ICMP6 => question.icmp_type() != u32::from(icmp6::ECHO_REPLY),
        _ => true,
    }
}

/// Whether a flow has not been seen for longer than it may be silent.
#[inline(always)]
pub fn is_over(flow: &Flow, of: u32, now: u32) -> bool {
    // Another CPU may have seen it in a second that this one has not reached yet.
    now.wrapping_sub(flow.seen).cast_signed() > patience(of, flow.flags)
}

/// How many seconds a flow may be silent.
#[inline(always)]
fn patience(of: u32, flags: u32) -> i32 {
    let established = flags & flow_flags::ESTABLISHED != 0;
    if of == u32::from(protocol::TCP) {
        if flags & flow_flags::CLOSING != 0 {
            30
        } else if established {
            3600
        } else {
            20
        }
    } else if of == u32::from(protocol::UDP) {
        60
    } else if of == u32::from(protocol::ICMP6) {
        5
    } else if of == u32::from(protocol::FRAGMENT) {
        // As long as a receiver waits for the rest (RFC 8200 section 4.5).
        60
    } else {
        600
    }
}
