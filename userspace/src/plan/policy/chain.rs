//! What an endpoint's packets of one direction are asked: one list of steps, first match wins. Tiers, `Pass` and what
//! happens where nothing matches are steps like any other, so the list ends in a step that everything matches.

use super::labels::Labelled;
use super::order::TierPolicies;
use super::{Direction, SetId, SetName, Sets, Tunnel, Tunnels};
use crate::resource::policy::{
    Action, Entity, IcmpMatch, Port, PortRange, Profile, Protocol, Rule, ScopedName,
};
use crate::resource::{Selector, WorkloadEndpoint};
use ipnet::Ipv6Net;
use std::collections::{BTreeMap, BTreeSet};

/// The steps of a direction of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chain {
    /// Asked in order.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Step {
    /// What it matches.
    pub matching: Match,
    /// What happens then.
    pub action: StepAction,
    /// Where it comes from.
    pub origin: Origin,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepAction {
    /// The packet may pass in this direction.
    Allow,
    /// It is dropped.
    Deny,
    /// The step of this number is next: a later one.
    GoTo(usize),
    /// It is logged, and the step of this number is next: a later one.
    Log(usize),
}

/// Where a step comes from, for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// What VMs may not send whatever policy says.
    Tunnel(Tunnel),
    /// A rule of a policy.
    Rule {
        /// The tier.
        tier: String,
        /// The policy.
        policy: ScopedName,
        /// The rule's place in the document, from 0.
        rule: usize,
    },
    /// No policy of a tier decided.
    TierDefault {
        /// The tier.
        tier: String,
    },
    /// A rule of a profile.
    Profile {
        /// The profile.
        profile: String,
        /// The rule's place in the document, from 0.
        rule: usize,
    },
    /// No policy and no profile allowed it.
    NoProfile,
}

/// What a step matches: packets that meet every condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Match {
    /// This protocol.
    pub protocol: Option<Protocol>,
    /// Not this protocol.
    pub not_protocol: Option<Protocol>,
    /// ICMPv6 like this.
    pub icmp: Option<IcmpMatch>,
    /// Not ICMPv6 like this.
    pub not_icmp: Option<IcmpMatch>,
    /// From there.
    pub source: EndMatch,
    /// To there.
    pub destination: EndMatch,
}

/// What is asked of one end of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndMatch {
    /// The address is in every one of these.
    pub within: Vec<SetId>,
    /// The address is in none of these.
    pub outside: Vec<SetId>,
    /// The port is in one of these, unless there are none.
    pub ports: Vec<PortRange>,
    /// The port is in none of these.
    pub not_ports: Vec<PortRange>,
}

impl Chain {
    /// The chain that lets nothing pass.
    pub fn closed() -> Self {
        let step = Step { matching: Match::default(), action: StepAction::Deny, origin: Origin::NoProfile };
        Self { steps: vec![step] }
    }
}

/// Makes chains that share their sets.
pub(super) struct Builder<'a> {
    labelled: &'a Labelled<'a>,
    tunnels: Tunnels,
    sets: Sets,
}

impl<'a> Builder<'a> {
    pub fn new(labelled: &'a Labelled<'a>, tunnels: Tunnels) -> Self {
        Self { labelled, tunnels, sets: Sets::default() }
    }

    /// All sets that chains speak of.
    pub fn into_sets(self) -> Sets {
        self.sets
    }

    /// The chain of one direction of an endpoint.
    pub fn chain(
        &mut self,
        endpoint: &WorkloadEndpoint,
        direction: Direction,
        tiers: &[TierPolicies<'_>],
        profiles: &[&Profile],
    ) -> Chain {
        let mut steps = Vec::new();
        if direction == Direction::Egress {
            steps.extend(self.tunnels.denied().map(|tunnel| Step {
                matching: tunnel.matching(),
                action: StepAction::Deny,
                origin: Origin::Tunnel(tunnel),
            }));
        }
        // A tier without a policy of this direction is as if it were not there.
        let governs =
            |tier: &&TierPolicies<'_>| tier.policies.iter().any(|policy| policy.rules(direction).is_some());
        for tier in tiers.iter().filter(governs) {
            let first = steps.len();
            for policy in &tier.policies {
                for (number, rule) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
                    let origin = Origin::Rule {
                        tier: tier.name.to_owned(),
                        policy: policy.name.clone(),
                        rule: number,
                    };
                    self.rule(endpoint, direction, rule, &origin, &mut steps);
                }
            }
            let action = if tier.passes { StepAction::GoTo(0) } else { StepAction::Deny };
            let origin = Origin::TierDefault { tier: tier.name.to_owned() };
            steps.push(Step { matching: Match::default(), action, origin });
            let next = steps.len();
            for step in &mut steps[first..] {
                if let StepAction::GoTo(to) = &mut step.action {
                    *to = next;
                }
            }
        }
        let first = steps.len();
        for profile in profiles {
            let rules = match direction {
                Direction::Ingress => &profile.ingress,
                Direction::Egress => &profile.egress,
            };
            for (number, rule) in rules.iter().enumerate() {
                let origin = Origin::Profile { profile: profile.name.clone(), rule: number };
                self.rule(endpoint, direction, rule, &origin, &mut steps);
            }
        }
        // After the profiles there is nothing to pass on to.
        let last = steps.len();
        for step in &mut steps[first..] {
            if let StepAction::GoTo(to) = &mut step.action {
                *to = last;
            }
        }
        steps.push(Step { matching: Match::default(), action: StepAction::Deny, origin: Origin::NoProfile });
        Chain { steps }
    }

    /// Adds the steps of a rule: one, or several where names of ports mean something else for each endpoint.
    fn rule(
        &mut self,
        endpoint: &WorkloadEndpoint,
        direction: Direction,
        rule: &Rule,
        origin: &Origin,
        steps: &mut Vec<Step>,
    ) {
        let can_match = |end: &Entity| end.nets.as_ref().is_none_or(|nets| !nets.is_empty());
        if !rule.ipv6 || !can_match(&rule.source) || !can_match(&rule.destination) {
            return;
        }
        let (ours, theirs) = match direction {
            Direction::Ingress => (&rule.destination, &rule.source),
            Direction::Egress => (&rule.source, &rule.destination),
        };
        // Whose ports the names are: ours are known, theirs depend on who they are.
        let Some(ours) = self.our_end(ours, endpoint, rule.protocol) else { return };
        for theirs in self.their_ends(theirs, rule.protocol) {
            let (source, destination) = match direction {
                Direction::Ingress => (theirs, ours.clone()),
                Direction::Egress => (ours.clone(), theirs),
            };
            let matching = Match {
                protocol: rule.protocol,
                not_protocol: rule.not_protocol,
                icmp: rule.icmp,
                not_icmp: rule.not_icmp,
                source,
                destination,
            };
            let action = match rule.action {
                Action::Allow => StepAction::Allow,
                Action::Deny => StepAction::Deny,
                // Where to is known when the tier is complete.
                Action::Pass => StepAction::GoTo(0),
                Action::Log => StepAction::Log(steps.len() + 1),
            };
            steps.push(Step { matching, action, origin: origin.clone() });
        }
    }

    /// The addresses of an end.
    fn addresses(&mut self, entity: &Entity) -> EndMatch {
        let mut end = EndMatch::default();
        if let Some(nets) = &entity.nets {
            end.within.push(self.sets.nets(nets.iter().copied().collect()));
        }
        if let Some(selector) = &entity.selector {
            end.within.push(self.selected(selector));
        }
        if !entity.not_nets.is_empty() {
            end.outside.push(self.sets.nets(entity.not_nets.iter().copied().collect()));
        }
        if let Some(selector) = &entity.not_selector {
            end.outside.push(self.selected(selector));
        }
        end
    }

    fn selected(&mut self, selector: &Selector) -> SetId {
        let labelled = self.labelled;
        self.sets.intern(SetName::Selected(selector.clone()), || labelled.chosen(selector))
    }

    /// Our end; `None` when no port can match.
    fn our_end(
        &mut self,
        entity: &Entity,
        endpoint: &WorkloadEndpoint,
        protocol: Option<Protocol>,
    ) -> Option<EndMatch> {
        let mut end = self.addresses(entity);
        let resolve = |ports: &[Port]| {
            let mut ranges = numbers(ports);
            for name in names(ports) {
                ranges.extend(named(endpoint, name, protocol));
            }
            ranges
        };
        end.ports = resolve(&entity.ports);
        end.not_ports = resolve(&entity.not_ports);
        (entity.ports.is_empty() || !end.ports.is_empty()).then_some(end)
    }

    /// Their end, once for all who mean the same ports by the names in it.
    fn their_ends(&mut self, entity: &Entity, protocol: Option<Protocol>) -> Vec<EndMatch> {
        let end = self.addresses(entity);
        let (wanted, unwanted) = (numbers(&entity.ports), numbers(&entity.not_ports));
        let called = [&entity.ports, &entity.not_ports].map(|ports| names(ports).map(str::to_owned));
        let called = <(Vec<_>, Vec<_>)>::from(called.map(Iterator::collect));
        if called.0.is_empty() && called.1.is_empty() {
            return vec![EndMatch { ports: wanted, not_ports: unwanted, ..end }];
        }
        // All with a port of such a name, by what they mean by it.
        let mut groups: BTreeMap<(Vec<PortRange>, Vec<PortRange>), BTreeSet<Ipv6Net>> = BTreeMap::new();
        let mut all = BTreeSet::new();
        for other in self.labelled.endpoints() {
            let mean = |ports: &[Port]| -> Vec<PortRange> {
                names(ports).flat_map(|name| named(other, name, protocol)).collect()
            };
            let meaning = (mean(&entity.ports), mean(&entity.not_ports));
            if meaning.0.is_empty() && meaning.1.is_empty() {
                continue;
            }
            let addresses: Vec<_> =
                other.all_addresses().map(|address| Ipv6Net::from(address.get())).collect();
            all.extend(addresses.iter().copied());
            groups.entry(meaning).or_default().extend(addresses);
        }
        let whoever = |meaning| SetName::Named { protocol, names: called.clone(), meaning };
        let mut ends = Vec::new();
        for ((ports, not_ports), addresses) in groups {
            let mut end = end.clone();
            let name = whoever(Some((ports.clone(), not_ports.clone())));
            end.within.push(self.sets.intern(name, || addresses));
            end.ports = wanted.iter().copied().chain(ports).collect();
            end.not_ports = unwanted.iter().copied().chain(not_ports).collect();
            if entity.ports.is_empty() || !end.ports.is_empty() {
                ends.push(end);
            }
        }
        if entity.ports.is_empty() || !wanted.is_empty() {
            let mut others = end;
            others.outside.push(self.sets.intern(whoever(None), || all));
            (others.ports, others.not_ports) = (wanted, unwanted);
            ends.push(others);
        }
        ends
    }
}

fn numbers(ports: &[Port]) -> Vec<PortRange> {
    let number = |port: &Port| if let Port::Range(range) = port { Some(*range) } else { None };
    ports.iter().filter_map(number).collect()
}

fn names(ports: &[Port]) -> impl Iterator<Item = &str> {
    ports.iter().filter_map(|port| if let Port::Named(name) = port { Some(name.as_str()) } else { None })
}

/// The ports that an endpoint calls by that name.
fn named<'a>(
    endpoint: &'a WorkloadEndpoint,
    name: &'a str,
    protocol: Option<Protocol>,
) -> impl Iterator<Item = PortRange> + 'a {
    let ours = move |port: &&crate::resource::NamedPort| port.name == name && Some(port.protocol) == protocol;
    endpoint.ports.iter().filter(ours).filter_map(|port| PortRange::new(port.port, port.port))
}
