//! What is told of a packet. Never on the way of an established flow: only denials, what rules log, first packets of flows,
//! and what the guard drops can be told of.

use super::Tables;
use super::flow::{Party, Question, question_flags};
use crate::abi::{Event, EventBudget, EventControl, FlowKey, NO_STEP, Reason, event_flags, event_kinds};
use crate::wire::{Frame, Headers};

/// What became of a packet, as few words as fit into the arguments of a function of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// One of [`event_kinds`].
    kind: u32,
    /// Why it was dropped, if it was.
    reason: u32,
    /// The chain that decided.
    chain: u32,
    /// The step of it, or [`NO_STEP`].
    step: u32,
    /// It was asked about as an answer.
    answer: bool,
}

impl Told {
    /// A step of a chain decided, or logs.
    #[inline(always)]
    pub fn of_step(kind: u32, chain: u32, step: u32, answer: bool) -> Self {
        Self { kind, reason: Reason::Policy as u32, chain, step, answer }
    }

    /// No step was asked.
    #[inline(always)]
    pub fn refused(reason: Reason) -> Self {
        Self { kind: event_kinds::DENIED, reason: reason as u32, chain: 0, step: NO_STEP, answer: false }
    }

    /// The guard dropped it.
    #[inline(always)]
    pub fn dropped(reason: Reason) -> Self {
        Self { kind: event_kinds::DROPPED, ..Self::refused(reason) }
    }

    /// As two words: the rest, and the chain with its step.
    #[inline(always)]
    pub fn to_words(self) -> (u32, u64) {
        let what = self.kind | self.reason << 8 | u32::from(self.answer) << 16;
        (what, u64::from(self.chain) << 32 | u64::from(self.step))
    }

    /// The inverse.
    #[inline(always)]
    pub fn from_words(what: u32, place: u64) -> Self {
        Self {
            kind: what & 0xff,
            reason: what >> 8 & 0xff,
            chain: (place >> 32) as u32,
            step: place as u32,
            answer: what >> 16 != 0,
        }
    }
}

/// Where events go.
pub trait Sink {
    /// What is wanted.
    fn control(&self) -> Option<EventControl>;

    /// Nanoseconds of the clock that counts from the start of the host.
    fn time(&self) -> u64;

    /// Changes a budget, and says what `change` says; `None` without one.
    fn with_budget<R>(&self, slot: u32, change: impl FnOnce(&mut EventBudget) -> R) -> Option<R>;

    /// Room for an event that `fill` writes; `false` when there is none.
    fn write(&self, fill: impl FnOnce(&mut Event)) -> bool;
}

/// Tells of a packet, if somebody wants to know and its endpoint has not been told of too often.
#[inline(always)]
pub fn tell<S: Sink>(sink: &S, question: &Question, told: Told) {
    let Some(control) = sink.control() else { return };
    if !control.wants(told.kind, &question.key) {
        return;
    }
    // Whoever sends the packets pays, so that nobody is made to look silent.
    let slot = if question.from.is_endpoint() { question.from.slot } else { question.to.slot };
    let time = sink.time();
    let may = |budget: &mut EventBudget| {
        budget.take((time / 1_000_000_000) as u32).then(|| core::mem::take(&mut budget.suppressed))
    };
    let Some(Some(suppressed)) = sink.with_budget(slot, may) else { return };
    let written = sink.write(
        #[inline(always)]
        |event| fill(event, question, told, time, suppressed),
    );
    if !written {
        sink.with_budget(slot, |budget| {
            budget.lose();
            budget.suppressed = budget.suppressed.saturating_add(suppressed);
        });
    }
}

#[inline(always)]
fn fill(event: &mut Event, question: &Question, told: Told, time: u64, suppressed: u32) {
    let bit = |from: u32, to: u32| if question.flags & from != 0 { to } else { 0 };
    event.time = time;
    event.key = question.key;
    event.kind = told.kind;
    event.reason = told.reason;
    event.chain = told.chain;
    event.step = told.step;
    event.from_ifindex = question.from.ifindex;
    event.from_slot = question.from.slot;
    event.to_ifindex = question.to.ifindex;
    event.to_slot = question.to.slot;
    event.service = question.service;
    event.tcp_flags = question.tcp_flags;
    event.flags = bit(question_flags::XDP, event_flags::XDP)
        | bit(question_flags::OUT, event_flags::OUT)
        | bit(question_flags::ERROR, event_flags::ERROR)
        | if told.answer { event_flags::ANSWER } else { 0 };
    event.suppressed = suppressed;
}

/// Tells of a packet that the guard dropped; what policy drops is told where it is judged.
#[inline(always)]
pub(super) fn tell_drop<F: Frame, T: Tables>(frame: &F, tables: &T, from: Party, to: Party, reason: Reason) {
    if reason.is_judgement() {
        return;
    }
    let Some(headers) = frame.view::<Headers>(0) else { return };
    tables.tell_drop(
        reason,
        #[inline(always)]
        |question| {
            *question = Question {
                key: FlowKey {
                    source: headers.ip.source(),
                    destination: headers.ip.destination(),
                    protocol: u32::from(headers.ip.next_header),
                    zone: from.zone(),
                    ..FlowKey::default()
                },
                from,
                to,
                ..Question::default()
            };
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::MemoryEvents;

    fn question(from: Party) -> Question {
        Question { from, to: Party::endpoint(12, 2), service: 80, ..Question::default() }
    }

    #[test]
    fn words_carry_everything() {
        let all = [
            Told::of_step(event_kinds::LOGGED, 7, 4095, true),
            Told::of_step(event_kinds::ALLOWED, u32::MAX, 0, false),
            Told::refused(Reason::FragmentVerdict),
            Told::dropped(Reason::SourceMac),
        ];
        for told in all {
            let (what, place) = told.to_words();
            assert_eq!(Told::from_words(what, place), told);
        }
    }

    #[test]
    fn nobody_is_told_who_does_not_want_to_know() {
        let events = MemoryEvents::default();
        tell(&events, &question(Party::OUTSIDE), Told::refused(Reason::NoFlow));
        assert!(events.told.borrow().is_empty());
    }

    #[test]
    fn a_flood_is_paid_for_by_who_sends_it() {
        let events = MemoryEvents::default();
        events.control.set(EventControl { kinds: u32::MAX, one_in: 1 });
        let flood = question(Party::endpoint(11, 1));
        for _ in 0..100 {
            tell(&events, &flood, Told::of_step(event_kinds::DENIED, 3, 4, false));
        }
        tell(&events, &question(Party::OUTSIDE), Told::refused(Reason::NoFlow));
        let told = events.told.borrow();
        let of = |ifindex| told.iter().filter(|event| event.from_ifindex == ifindex).count();
        assert_eq!((of(11), of(0)), (crate::abi::EVENTS_PER_SECOND as usize, 1));
        assert_eq!((told[0].chain, told[0].step, told[0].service), (3, 4, 80));
    }
}
