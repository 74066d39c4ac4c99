//! Chains as the hooks can follow them: so many steps in a chain, and so many on a packet's way.
//!
//! Steps that are passed over or log are on the way, one each ([`MOST_STEPS`]). Of those that log, the hooks tell only the
//! first. So where there are too many, a chain goes on after the first in a second half, which has none.

use super::chain::{Chain, Step, StepAction};
use super::classify::STEPS;
use dataplane_ebpf::decide::policy::MOST_STEPS;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Why the hooks cannot follow a chain, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLong {
    /// Too many steps.
    #[error("its policies have {steps} rules{}, and {} are possible; merge some of them", counted_twice(.halves), STEPS)]
    Steps {
        /// How many.
        steps: usize,
        /// The chain has two halves.
        halves: bool,
    },
    /// Too many tiers pass on.
    #[error("a packet may be passed on by {tiers} tiers, and {} are possible; use fewer", MOST_STEPS - 2)]
    Tiers {
        /// How many.
        tiers: usize,
    },
}

fn counted_twice(halves: &bool) -> &'static str {
    if *halves { " (counted twice, but for those that log, as these are many)" } else { "" }
}

/// The chain as the hooks follow it.
pub fn followed(chain: &Chain) -> Result<Cow<'_, Chain>, TooLong> {
    let tiers = tiers(chain);
    let logs = chain.steps.iter().filter(|step| matches!(step.action, StepAction::Log(_))).count();
    // The last step on the way decides.
    let halves = tiers + logs + 1 > MOST_STEPS;
    if tiers + logs.min(1) + 1 > MOST_STEPS {
        return Err(TooLong::Tiers { tiers });
    }
    let chain = if halves { Cow::Owned(halved(chain)) } else { Cow::Borrowed(chain) };
    match chain.steps.len() {
        steps if steps > STEPS => Err(TooLong::Steps { steps, halves }),
        _ => Ok(chain),
    }
}

/// How many steps a packet may at most be passed on by: one of each tier.
fn tiers(chain: &Chain) -> usize {
    let goes_to = |step: &Step| if let StepAction::GoTo(to) = step.action { Some(to) } else { None };
    chain.steps.iter().filter_map(goes_to).collect::<BTreeSet<_>>().len()
}

/// The chain, and once more without the steps that log, where a packet is that has been logged.
fn halved(chain: &Chain) -> Chain {
    // Where each step, or the one after it that does not log, is in the second half.
    let mut second = Vec::with_capacity(chain.steps.len() + 1);
    let mut next = chain.steps.len();
    for step in &chain.steps {
        second.push(next);
        next += usize::from(!matches!(step.action, StepAction::Log(_)));
    }
    second.push(next);
    let to_second = |action| match action {
        StepAction::GoTo(to) => StepAction::GoTo(second[to]),
        StepAction::Log(to) => StepAction::Log(second[to]),
        decides @ (StepAction::Allow | StepAction::Deny) => decides,
    };
    let logs = |step: &Step| matches!(step.action, StepAction::Log(_));
    let moved = |step: &Step| Step { action: to_second(step.action), ..step.clone() };
    let first = chain.steps.iter().map(|step| if logs(step) { moved(step) } else { step.clone() });
    let rest = chain.steps.iter().filter(|step| !logs(step)).map(moved);
    Chain { steps: first.chain(rest).collect() }
}
