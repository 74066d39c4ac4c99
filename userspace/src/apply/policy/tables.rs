//! Policy as the maps have it, under numbers that stay the same while what they stand for does: a rule that changes touches
//! the chains that it is in, and a member that joins or leaves a set touches one address. Pure.

use super::numbers::Numbers;
use crate::apply::fastpath::RULE_COUNTERS;
use crate::plan::policy::classify::{Classifier, Vectors};
use crate::plan::policy::{Chain, Direction, Origin, Policies, SetId, SetName, Step};
use crate::resource::EndpointName;
use dataplane_ebpf::abi::{self, ChainPair, NOBODY, PeerKey, ServiceKey, StepKey, Steps};
use ipnet::Ipv6Net;
use std::collections::{BTreeMap, BTreeSet};

/// What the maps have to hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// Who is who.
    pub identities: BTreeMap<Ipv6Net, u32>,
    /// `CHAINS`.
    pub chains: BTreeMap<u32, abi::Chain>,
    /// `PEERS`.
    pub peers: BTreeMap<PeerKey, Steps>,
    /// `SERVICES`, with the length of the prefix.
    pub services: BTreeMap<(ServiceKey, u32), Steps>,
    /// `STEPS`.
    pub steps: BTreeMap<StepKey, abi::Step>,
    /// `VECTORS`.
    pub vectors: BTreeMap<u32, abi::Vector>,
    /// The chains of every endpoint.
    pub endpoints: BTreeMap<EndpointName, ChainPair>,
}

/// What numbers stand for.
#[derive(Debug)]
pub struct Numbering {
    sets: Numbers<SetName>,
    identities: Numbers<BTreeSet<SetId>>,
    chains: Numbers<(Direction, Chain)>,
    counters: Numbers<(Direction, Origin)>,
    vectors: Vectors,
}

/// Numbers that are in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Of identities.
    pub identities: BTreeSet<u32>,
    /// Of chains.
    pub chains: BTreeSet<u32>,
    /// Of vectors.
    pub vectors: BTreeSet<u32>,
}

/// More things than there are numbers.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy has too many different {0}")]
pub struct TooMany(&'static str);

impl Default for Numbering {
    fn default() -> Self {
        Self {
            sets: Numbers::new(0, u32::MAX),
            identities: Numbers::new(NOBODY + 1, u32::MAX),
            // A table of `PEERS` is a chain's number times two, and more.
            chains: Numbers::new(0, u32::MAX / 2),
            // The first counts what is missing.
            counters: Numbers::new(1, RULE_COUNTERS),
            vectors: Vectors::default(),
        }
    }
}

impl Numbering {
    /// Numbers that somebody else has used, and that are not to be used before [`keep`](Self::keep).
    pub fn reserve(&mut self, used: &Used) {
        self.identities.reserve(used.identities.iter().copied());
        self.chains.reserve(used.chains.iter().copied());
        self.vectors.reserve(used.vectors.iter().copied());
    }

    /// Keeps what `tables` use, and takes all other numbers back.
    pub fn keep(&mut self, tables: &Tables) {
        let used = tables.used();
        self.identities.keep(&used.identities);
        self.chains.keep(&used.chains);
        self.vectors.keep(&used.vectors);
        self.counters.keep(&tables.steps.values().map(|step| step.counter).collect());
        let sets = |step: &Step| {
            let ends = [&step.matching.source, &step.matching.destination];
            ends.into_iter()
                .flat_map(|end| end.within.iter().chain(&end.outside))
                .copied()
                .collect::<Vec<_>>()
        };
        let chains = self.chains.iter().flat_map(|((_, chain), _)| chain.steps.iter().flat_map(sets));
        let identities = self.identities.iter().flat_map(|(sets, _)| sets.iter().copied());
        self.sets.keep(&chains.chain(identities).map(|set| set.0).collect());
    }

    /// The tables of these policies, and the counters that have come into use.
    pub fn tables(&mut self, policies: &Policies) -> Result<(Tables, Vec<u32>), TooMany> {
        let sets = policies.sets.iter().map(|(id, _)| self.set(policies.sets.name(id)));
        let sets: Vec<SetId> = sets.collect::<Result<_, _>>()?;
        let (classifier, of) = Classifier::new(policies);
        let mut tables = Tables::default();

        let mut identities = vec![NOBODY];
        for (_, members) in classifier.identities.iter() {
            let members = members.iter().map(|set| sets[set.0 as usize]).collect();
            identities.push(self.identities.number(&members).ok_or(TooMany("kinds of peers"))?.0);
        }
        for (net, identity) in classifier.identities.prefixes() {
            tables.identities.insert(net, identities[identity.0 as usize]);
        }

        let mut fresh = Vec::new();
        // A chain of both directions is two: they are counted apart.
        let mut numbers: BTreeMap<(Direction, u32), u32> = BTreeMap::new();
        for (name, (ingress, egress)) in policies.endpoints.keys().zip(of) {
            let mut pair = [0; 2];
            for (number, (direction, id)) in
                pair.iter_mut().zip([(Direction::Ingress, ingress), (Direction::Egress, egress)])
            {
                if let Some(known) = numbers.get(&(direction, id.0)) {
                    *number = *known;
                    continue;
                }
                let of = &classifier.chains[id.0 as usize];
                let chain = renumbered(&of.chain, &sets);
                *number = self.chains.number(&(direction, chain)).ok_or(TooMany("lists of rules"))?.0;
                numbers.insert((direction, id.0), *number);
                let counters = of.chain.steps.iter().map(|step| self.counter(direction, step, &mut fresh));
                let counters: Vec<u32> = counters.collect();
                let entries = of.entries(*number, &mut self.vectors, |step| counters[step]);
                tables.chains.insert(*number, entries.chain);
                tables.peers.extend(entries.peers.into_iter().map(|(key, steps)| {
                    (PeerKey { identity: identities[key.identity as usize], ..key }, steps)
                }));
                tables.services.extend(entries.services);
                tables.steps.extend(entries.steps);
            }
            tables.endpoints.insert(name.clone(), ChainPair { ingress: pair[0], egress: pair[1] });
        }
        let used = tables.vectors_used();
        tables.vectors = self.vectors.entries().filter(|(number, _)| used.contains(number)).collect();
        Ok((tables, fresh))
    }

    /// The chain of a number, and which way its packets go.
    pub fn chain(&self, number: u32) -> Option<&(Direction, Chain)> {
        self.chains.content(number)
    }

    /// What is counted where.
    pub fn counters(&self) -> impl Iterator<Item = (&(Direction, Origin), u32)> {
        self.counters.iter()
    }

    fn set(&mut self, name: &SetName) -> Result<SetId, TooMany> {
        self.sets.number(name).map(|(number, _)| SetId(number)).ok_or(TooMany("sets of addresses"))
    }

    /// Where a step is counted. When all counters are taken, it is counted with what is missing.
    fn counter(&mut self, direction: Direction, step: &Step, fresh: &mut Vec<u32>) -> u32 {
        let Some((number, new)) = self.counters.number(&(direction, step.origin.clone())) else { return 0 };
        if new {
            fresh.push(number);
        }
        number
    }
}

impl Tables {
    /// The numbers in use.
    pub fn used(&self) -> Used {
        Used {
            identities: self.identities.values().copied().collect(),
            chains: self.chains.keys().copied().collect(),
            vectors: self.vectors_used(),
        }
    }

    fn vectors_used(&self) -> BTreeSet<u32> {
        let long: BTreeMap<u32, &abi::Chain> = self
            .chains
            .iter()
            .filter(|(_, chain)| chain.flags & abi::chain_flags::LONG != 0)
            .map(|(number, chain)| (*number, chain))
            .collect();
        let own = long.values().flat_map(|c| [c.source, c.destination, c.service, c.source_port]);
        let peers = self.peers.iter().filter(|(key, _)| long.contains_key(&(key.table / 2)));
        let services = self.services.iter().filter(|((key, _), _)| long.contains_key(&key.chain()));
        own.chain(peers.map(|(_, steps)| *steps))
            .chain(services.map(|(_, steps)| *steps))
            .map(|steps| steps.vector)
            .collect()
    }
}

/// The chain with other numbers of sets.
fn renumbered(chain: &Chain, sets: &[SetId]) -> Chain {
    let mut chain = chain.clone();
    for step in &mut chain.steps {
        for end in [&mut step.matching.source, &mut step.matching.destination] {
            for set in end.within.iter_mut().chain(&mut end.outside) {
                *set = sets[set.0 as usize];
            }
        }
    }
    chain
}
