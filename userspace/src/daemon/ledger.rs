//! What has been done to every TAP, and what is to be done next. Pure: time comes in as an argument.
//!
//! The daemon does one step at a time and asks again when something has changed in between, so that this is seen at once:
//! a thousand endpoints that wait for their hooks do not delay the removal of one.

use crate::plan::{Attached, Plan};
use crate::resource::InterfaceName;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// First pause after a failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What a TAP should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// An endpoint's. Boxed because the other is small.
    Attached(Box<Attached>),
    /// Nobody's: it forwards nothing.
    Blocked(InterfaceName),
}

impl Role {
    /// The TAP.
    pub fn interface(&self) -> &InterfaceName {
        match self {
            Self::Attached(attached) => &attached.interface,
            Self::Blocked(interface) => interface,
        }
    }

    /// Whether `next` leaves an address to others that this has.
    fn gives_up_an_address(&self, next: &Attached) -> bool {
        match self {
            Self::Attached(now) => now.addresses.iter().any(|address| !next.addresses.contains(address)),
            Self::Blocked(_) => false,
        }
    }
}

/// One thing to do to one TAP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is gone, or nobody's concern: take everything of ours away.
    Remove(u32, InterfaceName),
    /// Make it what it should be, or see that it still is.
    Make(u32, Role),
}

/// Why a step did not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For people.
    pub message: String,
    /// The TAP is on its way down or away, as TAPs are: the event that says so is under way.
    pub passes: bool,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { message, passes: false }
    }
}

/// What failed, and when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// For `status`.
    pub message: String,
    attempts: u32,
    /// How many of the attempts failed for something that does not pass by itself.
    lasting: u32,
    passes: bool,
    retry_at: Instant,
}

/// What was done to a TAP. `H` is what is known of its hooks.
#[derive(Clone, Debug)]
pub struct Entry<H> {
    /// What it was last made, successfully or not.
    pub role: Role,
    /// What did not work.
    pub fault: Option<Fault>,
    /// What is attached.
    pub hooks: H,
    /// Why it is to be looked at although nothing in the plan changed.
    due: Option<Due>,
}

/// Why a TAP is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The kernel said something of it: a TAP that went down and up again has lost its routes.
    Touched,
    /// Nothing was said; an audit wants to see whether all is as it was left.
    Audit,
}

/// What has been done to every TAP, by ifindex.
#[derive(Debug)]
pub struct Ledger<H> {
    entries: BTreeMap<u32, Entry<H>>,
}

impl<H> Default for Ledger<H> {
    fn default() -> Self {
        Self { entries: BTreeMap::new() }
    }
}

impl<H> Ledger<H> {
    /// What was done to a TAP.
    pub fn get(&self, ifindex: u32) -> Option<&Entry<H>> {
        self.entries.get(&ifindex)
    }

    /// All endpoints as they were last made, by ifindex.
    pub fn attached(&self) -> impl Iterator<Item = (u32, &Attached)> {
        self.entries.iter().filter_map(|(ifindex, entry)| match &entry.role {
            Role::Attached(attached) => Some((*ifindex, &**attached)),
            Role::Blocked(_) => None,
        })
    }

    /// Whether the TAP was made `role` before and an audit asks again: what has to be changed is drift then.
    pub fn is_audit(&self, ifindex: u32, role: &Role) -> bool {
        self.entries.get(&ifindex).is_some_and(|entry| {
            entry.fault.is_none() && entry.due == Some(Due::Audit) && entry.role == *role
        })
    }

    /// Has these TAPs looked at again, at once.
    pub fn touch(&mut self, taps: &BTreeSet<u32>) {
        for ifindex in taps {
            if let Some(entry) = self.entries.get_mut(ifindex) {
                entry.due = Some(Due::Touched);
            }
        }
    }

    /// Has every TAP looked at again.
    pub fn audit(&mut self) {
        for entry in self.entries.values_mut() {
            entry.due = entry.due.or(Some(Due::Audit));
        }
    }

    /// The hooks of a TAP, to be changed where nothing else of it does.
    pub fn hooks_of(&mut self, ifindex: u32) -> Option<&mut H> {
        self.entries.get_mut(&ifindex).map(|entry| &mut entry.hooks)
    }

    /// The hooks of every TAP, to be changed where all lose or gain them at once.
    pub fn hooks_mut(&mut self) -> impl Iterator<Item = &mut H> {
        self.entries.values_mut().map(|entry| &mut entry.hooks)
    }

    /// The steps towards `plan`, the most urgent first: what takes away, then what closes, then endpoints that leave an
    /// address to another one, then the other changes, and audits last. To take one changes the others' order in nothing.
    pub fn steps(&self, plan: &Plan, now: Instant) -> Vec<Step> {
        let steps = self.removals(plan, now).into_iter().chain(self.blocks(plan, now));
        steps.chain(self.attachments(plan, now)).collect()
    }

    /// When the next pause after a failure ends.
    pub fn wake(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.fault.as_ref()).map(|fault| fault.retry_at).min()
    }

    /// Notes that a TAP is rid of us, or why not.
    pub fn removed(&mut self, ifindex: u32, result: Result<(), Failure>, now: Instant) {
        match result {
            Ok(()) => {
                self.entries.remove(&ifindex);
                self.hurry(now);
            }
            Err(failure) => {
                if let Some(entry) = self.entries.get_mut(&ifindex) {
                    entry.fault = Some(Fault::after(entry.fault.as_ref(), failure, now));
                }
            }
        }
    }

    /// Notes that a TAP was made `role`, or what of it did not work.
    pub fn made(&mut self, ifindex: u32, role: Role, hooks: H, result: Result<(), Failure>, now: Instant) {
        let before = self.entries.remove(&ifindex);
        if result.is_ok() && before.as_ref().is_some_and(|entry| entry.role != role) {
            self.hurry(now);
        }
        let earlier = before.filter(|entry| entry.role == role).and_then(|entry| entry.fault);
        let fault = result.err().map(|failure| Fault::after(earlier.as_ref(), failure, now));
        self.entries.insert(ifindex, Entry { role, fault, hooks, due: None });
    }

    /// Something was given up, and may have been what others failed for: they need not wait.
    fn hurry(&mut self, now: Instant) {
        let faults = self.entries.values_mut().filter_map(|entry| entry.fault.as_mut());
        faults.for_each(|fault| fault.retry_at = now);
    }

    fn removals(&self, plan: &Plan, now: Instant) -> Vec<Step> {
        let wanted: BTreeSet<u32> = plan
            .attached()
            .map(|(_, attached)| attached.ifindex)
            .chain(plan.blocked.keys().copied())
            .collect();
        let gone = self.entries.iter().filter(|(ifindex, _)| !wanted.contains(ifindex));
        gone.filter(|(_, entry)| entry.may_be_tried(now))
            .map(|(ifindex, entry)| Step::Remove(*ifindex, entry.role.interface().clone()))
            .collect()
    }

    fn blocks(&self, plan: &Plan, now: Instant) -> impl Iterator<Item = Step> {
        plan.blocked.iter().filter_map(move |(ifindex, interface)| {
            let role = Role::Blocked(interface.clone());
            self.urgency(*ifindex, &role, now).map(|_| Step::Make(*ifindex, role))
        })
    }

    fn attachments(&self, plan: &Plan, now: Instant) -> Vec<Step> {
        let mut urgent: Vec<(Urgency, &Attached)> = Vec::new();
        for (_, attached) in plan.attached() {
            let urgency = match self.entries.get(&attached.ifindex).map(|entry| (entry, &entry.role)) {
                Some((entry, Role::Attached(now_is))) if **now_is == *attached => {
                    entry.urgency_unchanged(now)
                }
                Some((_, role)) if role.gives_up_an_address(attached) => Some(Urgency::GivesUp),
                _ => Some(Urgency::Changed),
            };
            urgent.extend(urgency.map(|urgency| (urgency, attached)));
        }
        urgent.sort_by_key(|(urgency, _)| *urgency);
        let make =
            |attached: &Attached| Step::Make(attached.ifindex, Role::Attached(Box::new(attached.clone())));
        urgent.into_iter().map(|(_, attached)| make(attached)).collect()
    }

    fn urgency(&self, ifindex: u32, role: &Role, now: Instant) -> Option<Urgency> {
        match self.entries.get(&ifindex) {
            Some(entry) if entry.role == *role => entry.urgency_unchanged(now),
            _ => Some(Urgency::Changed),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    GivesUp,
    Changed,
    Retry,
    Audit,
}

impl<H> Entry<H> {
    fn may_be_tried(&self, now: Instant) -> bool {
        self.fault.as_ref().is_none_or(|fault| fault.retry_at <= now)
    }

    fn urgency_unchanged(&self, now: Instant) -> Option<Urgency> {
        match (&self.fault, self.due) {
            (_, Some(Due::Touched)) => Some(Urgency::Changed),
            (Some(fault), _) => (fault.retry_at <= now).then_some(Urgency::Retry),
            (None, Some(Due::Audit)) => Some(Urgency::Audit),
            (None, None) => None,
        }
    }
}

impl Fault {
    fn after(earlier: Option<&Self>, failure: Failure, now: Instant) -> Self {
        let attempts = earlier.map_or(0, |fault| fault.attempts).saturating_add(1);
        let doublings = attempts.saturating_sub(1).min(16);
        let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
        let Failure { message, passes } = failure;
        let lasting = earlier.map_or(0, |fault| fault.lasting).saturating_add(u32::from(!passes));
        Self { message, attempts, lasting, passes, retry_at: now + pause }
    }

    /// Whether to tell the log: once, and when a second attempt has failed too, as what is found of a TAP that is about
    /// to vanish is not always recognised. What passes is never news, however often it is met.
    pub fn is_news(&self) -> bool {
        !self.passes && self.lasting == 2
    }
}

#[cfg(test)]
pub mod tests;
