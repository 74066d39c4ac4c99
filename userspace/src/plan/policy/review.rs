//! What other resources would do to the policy of endpoints, for people, before they make the change.
//!
//! Two chains are the same when they ask the same of a packet in the same order, on behalf of the same policies. Numbers
//! do not count, neither a rule's place in its document nor a set's among the sets.

use super::chain::{EndMatch, Match, Origin, Step, StepAction};
use super::{Chain, Direction, Policies, SetId, SetName, Sets};
use crate::resource::policy::{IcmpMatch, PortRange, Protocol, ScopedName};
use crate::resource::{EndpointName, Selector};
use std::collections::{BTreeMap, BTreeSet};

/// What becomes of an endpoint's chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainChange {
    /// Rules that come, by their place in the new documents.
    pub come: Vec<Origin>,
    /// Rules that go, by their place in those of before. One that changes goes and comes.
    pub go: Vec<Origin>,
    /// Rules that stay are asked in another order.
    pub reordered: bool,
    /// Whom rules that stay are about.
    pub members: Vec<MemberChange>,
}

/// Who joins and leaves a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberChange {
    /// What the set consists of.
    pub of: SetSource,
    /// How many prefixes come.
    pub joined: usize,
    /// How many go.
    pub left: usize,
}

/// Sets whose members are not written in the rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetSource {
    /// Whoever this chooses.
    Selector(Selector),
    /// Endpoints with a port by one of these names.
    Ports(Vec<String>),
}

/// The endpoints of both whose verdicts may change, and by what: what is not here is asked what it was asked.
pub fn review(before: &Policies, after: &Policies) -> BTreeMap<EndpointName, Vec<(Direction, ChainChange)>> {
    let mut touched = BTreeMap::new();
    for (name, now) in &before.endpoints {
        let Some(then) = after.endpoints.get(name) else { continue };
        let directions = [
            (Direction::Ingress, &now.ingress, &then.ingress),
            (Direction::Egress, &now.egress, &then.egress),
        ];
        let changes: Vec<_> = directions
            .into_iter()
            .filter_map(|(direction, now, then)| {
                Some((direction, compare((now, &before.sets), (then, &after.sets))?))
            })
            .collect();
        if !changes.is_empty() {
            touched.insert(name.clone(), changes);
        }
    }
    touched
}

/// What a step asks and does, without numbers.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Asked<'a> {
    whose: Whose<'a>,
    action: Act,
    protocols: (Option<Protocol>, Option<Protocol>),
    icmp: (Option<IcmpMatch>, Option<IcmpMatch>),
    source: End<'a>,
    destination: End<'a>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Whose<'a> {
    Everybody,
    Policy(&'a str, &'a ScopedName),
    Tier(&'a str),
    Profile(&'a str),
    Nobody,
}

/// Where a step leads to is said by those that follow.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Allow,
    Deny,
    Pass,
    Log,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct End<'a> {
    within: Vec<&'a SetName>,
    outside: Vec<&'a SetName>,
    ports: &'a [PortRange],
    not_ports: &'a [PortRange],
}

impl<'a> Asked<'a> {
    fn of(step: &'a Step, sets: &'a Sets) -> Self {
        let Match { protocol, not_protocol, icmp, not_icmp, source, destination } = &step.matching;
        let names = |ids: &[SetId]| ids.iter().map(|id| sets.name(*id)).collect();
        let end = |end: &'a EndMatch| End {
            within: names(&end.within),
            outside: names(&end.outside),
            ports: &end.ports,
            not_ports: &end.not_ports,
        };
        Self {
            whose: match &step.origin {
                // Which tunnel it is, the protocol says.
                Origin::Tunnel(_) => Whose::Everybody,
                Origin::Rule { tier, policy, .. } => Whose::Policy(tier, policy),
                Origin::TierDefault { tier } => Whose::Tier(tier),
                Origin::Profile { profile, .. } => Whose::Profile(profile),
                Origin::NoProfile => Whose::Nobody,
            },
            action: match step.action {
                StepAction::Allow => Act::Allow,
                StepAction::Deny => Act::Deny,
                StepAction::GoTo(_) => Act::Pass,
                StepAction::Log(_) => Act::Log,
            },
            protocols: (*protocol, *not_protocol),
            icmp: (*icmp, *not_icmp),
            source: end(source),
            destination: end(destination),
        }
    }
}

fn compare((now, sets): (&Chain, &Sets), (then, new_sets): (&Chain, &Sets)) -> Option<ChainChange> {
    let asked: Vec<Asked<'_>> = now.steps.iter().map(|step| Asked::of(step, sets)).collect();
    let will_be: Vec<Asked<'_>> = then.steps.iter().map(|step| Asked::of(step, new_sets)).collect();
    let mut change =
        ChainChange { members: members((now, sets), (then, new_sets)), ..ChainChange::default() };
    if asked != will_be {
        change.come = surplus((then, &will_be), &asked);
        change.go = surplus((now, &asked), &will_be);
        change.reordered = change.come.is_empty() && change.go.is_empty();
    } else if change.members.is_empty() {
        return None;
    }
    Some(change)
}

/// Where those steps come from that `others` do not have, or not as often.
fn surplus((chain, asked): (&Chain, &[Asked<'_>]), others: &[Asked<'_>]) -> Vec<Origin> {
    let mut left: BTreeMap<&Asked<'_>, usize> = BTreeMap::new();
    others.iter().for_each(|other| *left.entry(other).or_default() += 1);
    let mut surplus: Vec<Origin> = Vec::new();
    for (step, asked) in chain.steps.iter().zip(asked) {
        match left.get_mut(asked) {
            Some(count) if *count > 0 => *count -= 1,
            // A rule may be several steps.
            _ if surplus.last() == Some(&step.origin) => {}
            _ => surplus.push(step.origin.clone()),
        }
    }
    surplus
}

/// Who joins and leaves the sets that both chains speak of.
fn members((now, sets): (&Chain, &Sets), (then, new_sets): (&Chain, &Sets)) -> Vec<MemberChange> {
    let new = used(then, new_sets);
    let of = |name: &SetName| match name {
        // Another set of prefixes is another set.
        SetName::Nets(_) => None,
        SetName::Selected(selector) => Some(SetSource::Selector(selector.clone())),
        SetName::Named { names: (wanted, unwanted), .. } => {
            Some(SetSource::Ports([wanted.clone(), unwanted.clone()].concat()))
        }
    };
    let changes: BTreeSet<MemberChange> = used(now, sets)
        .into_iter()
        .filter_map(|(name, id)| {
            let (before, after) = (sets.members(id), new_sets.members(*new.get(name)?));
            let (joined, left) = (after.difference(before).count(), before.difference(after).count());
            (joined + left > 0).then_some(MemberChange { of: of(name)?, joined, left })
        })
        .collect();
    changes.into_iter().collect()
}

/// The sets that a chain speaks of.
fn used<'a>(chain: &Chain, sets: &'a Sets) -> BTreeMap<&'a SetName, SetId> {
    let ends = chain.steps.iter().flat_map(|step| [&step.matching.source, &step.matching.destination]);
    let ids = ends.flat_map(|end| end.within.iter().chain(&end.outside));
    ids.map(|id| (sets.name(*id), *id)).collect()
}
