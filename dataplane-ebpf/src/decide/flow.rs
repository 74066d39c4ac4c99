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

use super::policy::{Decision, Policies, Subject, evaluate};
use crate::abi::{ChainPair, Flow, FlowKey, Reason, RingPlace, ZONE_OUTSIDE, flow_flags};
use crate::wire::protocol;
use core::hint::cold_path;

/// Flags of TCP (RFC 9293 section 3.1).
pub mod tcp {
    /// The sender has no more data.
    pub const FIN: u8 = 1;
    /// A connection begins.
    pub const SYN: u8 = 2;
    /// A connection is no more.
    pub const RST: u8 = 4;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 16;
}

/// What flows are looked up and kept in.
pub trait Flows {
    /// A flow.
    fn flow(&self, key: &FlowKey) -> Option<Flow>;

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
    fn at_place(&self, place: &RingPlace) -> Option<FlowKey>;

    /// Gives a place to a flow; `false` when there is no room.
    fn take_place(&self, place: &RingPlace, key: &FlowKey) -> bool;

    /// Counts a flow that is not remembered because its endpoint's quota is used up.
    fn count_pressure(&self, owner: u32);

    /// Counts that a rule decided.
    fn count_rule(&self, counter: u32);

    /// Tells people of a denial, or of what a rule logs.
    fn tell(&self, subject: &Subject, decision: &Decision);
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// A VM of this host.
    Endpoint {
        /// Its TAP.
        ifindex: u32,
        /// Its counter slot.
        slot: u32,
    },
    /// This host.
    Host,
    /// Somebody else.
    Outside,
}

impl Party {
    /// Where its packets come in.
    #[inline(always)]
    fn zone(self) -> u32 {
        match self {
            Self::Endpoint { ifindex, .. } => ifindex,
            Self::Host | Self::Outside => ZONE_OUTSIDE,
        }
    }
}

/// A packet that is to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Who sends it.
    pub from: Party,
    /// Whom it is for.
    pub to: Party,
    /// What it is.
    pub subject: Subject,
    /// Its flow.
    pub key: FlowKey,
    /// Flags, of TCP.
    pub tcp_flags: u8,
    /// VMs may talk to the host as far as their own policy allows.
    pub host_is_open: bool,
}

/// Whether a packet may pass; [`Flows`] is told.
#[inline(always)]
pub fn judge<T: Policies + Flows>(tables: &T, question: &Question) -> Result<(), Reason> {
    let now = tables.now();
    let generation = tables.generation();
    if let Some(flow) = tables.flow(&question.key)
        && !is_over(&flow, question.key.protocol, now)
        && !begins_anew(&flow, question)
    {
        if flow.generation != generation {
            cold_path();
            if flow.flags & flow_flags::HOST == 0 {
                initiator(question, &flow).decide(tables)?;
            }
        }
        keep(tables, question, &flow, now, generation);
        return Ok(());
    }
    cold_path();
    if question.key.protocol == u32::from(protocol::TCP) && !may_begin(question.tcp_flags) {
        return Err(Reason::NoFlow);
    }
    question.decide(tables)?;
    begin(tables, question, now, generation);
    Ok(())
}

/// Whether an error about a packet of this key, which came in where the error is going, belongs to a flow.
#[inline(always)]
pub fn is_known<T: Flows>(tables: &T, key: &FlowKey) -> bool {
    tables.flow(key).is_some_and(|flow| !is_over(&flow, key.protocol, tables.now()))
}

impl Question {
    /// Asks policy: the sender's, then the receiver's.
    #[inline(always)]
    fn decide<T: Policies + Flows>(&self, tables: &T) -> Result<(), Reason> {
        if self.from == Party::Host {
            return Ok(());
        }
        if let Party::Endpoint { ifindex, .. } = self.from {
            if self.to == Party::Host && !self.host_is_open {
                return Err(Reason::HostClosed);
            }
            let chains = tables.chains(ifindex).ok_or(Reason::Policy)?;
            ask(tables, chains.egress, &self.subject)?;
        }
        if let Party::Endpoint { ifindex, .. } = self.to {
            let chains = tables.chains(ifindex).ok_or(Reason::Policy)?;
            ask(tables, chains.ingress, &self.subject)?;
        }
        Ok(())
    }
}

#[inline(always)]
fn ask<T: Policies + Flows>(tables: &T, chain: u32, subject: &Subject) -> Result<(), Reason> {
    let decision = evaluate(tables, chain, subject);
    tables.count_rule(decision.counter);
    if decision.logged.is_some() || !decision.allowed {
        cold_path();
        tables.tell(subject, &decision);
    }
    if decision.allowed { Ok(()) } else { Err(Reason::Policy) }
}

/// The question that the first packet of a known flow was.
#[inline(always)]
fn initiator(question: &Question, flow: &Flow) -> Question {
    if flow.flags & flow_flags::REPLY == 0 {
        return *question;
    }
    let subject = &question.subject;
    Question {
        from: question.to,
        to: question.from,
        subject: Subject {
            source: subject.destination,
            destination: subject.source,
            protocol: subject.protocol,
            source_port: subject.destination_port,
            destination_port: initiators_port(subject),
        },
        ..*question
    }
}

/// The destination port of whoever is answered; of an ICMPv6 echo, the request's type and code.
#[inline(always)]
fn initiators_port(subject: &Subject) -> u16 {
    if subject.protocol == protocol::ICMP6 { ECHO_REQUEST } else { subject.source_port }
}

/// Type and code of an ICMPv6 echo request (RFC 4443 section 4.1) as one number.
const ECHO_REQUEST: u16 = 128 << 8;

/// Keeps a flow alive, and notes what the packet says about it. Writes only what is new: entries are shared by CPUs.
#[inline(always)]
fn keep<T: Flows>(tables: &T, question: &Question, flow: &Flow, now: u32, generation: u64) {
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

/// Whether the packet begins another connection between the same ports: whoever answers has no right to it by the flow, and
/// whoever began it is judged again when the old one has ended.
#[inline(always)]
fn begins_anew(flow: &Flow, question: &Question) -> bool {
    question.key.protocol == u32::from(protocol::TCP)
        && question.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
        && flow.flags & (flow_flags::REPLY | flow_flags::CLOSING) != 0
}

/// Whether such a TCP packet may be the first of a flow: a SYN; or data, when the flow was forgotten (as netfilter's
/// `nf_conntrack_tcp_loose`).
#[inline(always)]
fn may_begin(flags: u8) -> bool {
    match flags & (tcp::SYN | tcp::ACK | tcp::FIN | tcp::RST) {
        tcp::SYN | tcp::ACK => true,
        _ => false,
    }
}

/// Remembers a flow that policy allows.
#[inline(always)]
fn begin<T: Flows>(tables: &T, question: &Question, now: u32, generation: u64) {
    let owner = match (question.from, question.to) {
        (Party::Endpoint { slot, .. }, _) | (_, Party::Endpoint { slot, .. }) => slot,
        _ => return,
    };
    let host = if question.from == Party::Host { flow_flags::HOST } else { 0 };
    let zone = question.to.zone();
    let flow = Flow {
        generation,
        seen: now,
        flags: flow_flags::SEEN | host,
        reverse_zone: zone,
        owner,
        place: 0,
        _reserved: 0,
    };
    let answers = Flow { flags: flow_flags::REPLY | host, reverse_zone: question.key.zone, ..flow };
    if !quota::remember(tables, &question.key, flow, answers, now) {
        tables.count_pressure(owner);
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
    } else {
        600
    }
}
