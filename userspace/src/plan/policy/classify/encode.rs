//! Chains as the maps have them.

use super::super::chain::StepAction;
use super::{ChainTables, Peers, Service, Services, Vector};
use dataplane_ebpf::abi::{
    self, End, PeerKey, SERVICE_PROTOCOL_BITS, ServiceKey, StepKey, Steps, VECTOR_WORDS, chain_flags,
    step_actions,
};
use std::collections::{BTreeMap, BTreeSet};

/// The entries of one chain in every map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainEntries {
    /// Its value in `CHAINS`.
    pub chain: abi::Chain,
    /// Entries of `PEERS`.
    pub peers: BTreeMap<PeerKey, Steps>,
    /// Entries of `SERVICES`: keys with the length of their prefix in bits.
    pub services: BTreeMap<(ServiceKey, u32), Steps>,
    /// Entries of `STEPS`.
    pub steps: BTreeMap<StepKey, abi::Step>,
}

/// Numbers of the vectors of long chains, each kept once.
#[derive(Debug, Default)]
pub struct Vectors {
    numbers: BTreeMap<Vector, u32>,
    taken: BTreeSet<u32>,
    next: u32,
}

impl Vectors {
    /// All vectors with their numbers: entries of `VECTORS`.
    pub fn entries(&self) -> impl Iterator<Item = (u32, abi::Vector)> {
        self.numbers.iter().map(|(vector, number)| {
            (*number, abi::Vector { words: std::array::from_fn::<_, VECTOR_WORDS, _>(|i| vector.word(i)) })
        })
    }

    /// Numbers that somebody else has, and that are not to be given until [`keep`](Self::keep).
    pub fn reserve(&mut self, numbers: impl IntoIterator<Item = u32>) {
        self.taken.extend(numbers);
    }

    /// Keeps these numbers, and takes all others back.
    pub fn keep(&mut self, numbers: &BTreeSet<u32>) {
        self.numbers.retain(|_, number| numbers.contains(number));
        self.taken = self.numbers.values().copied().collect();
    }

    fn number(&mut self, vector: &Vector) -> u32 {
        if let Some(number) = self.numbers.get(vector) {
            return *number;
        }
        // Far more than any map holds.
        while !self.taken.insert(self.next) {
            self.next = self.next.wrapping_add(1);
        }
        self.numbers.insert(vector.clone(), self.next);
        self.next
    }
}

impl ChainTables {
    /// The entries of this chain under `number`; `counter` says where a step is counted.
    pub fn entries(
        &self,
        number: u32,
        vectors: &mut Vectors,
        counter: impl Fn(usize) -> u32,
    ) -> ChainEntries {
        let long = self.chain.steps.len() > 64;
        let mut steps = |vector: &Vector| {
            if long {
                Steps { summary: vector.summary(), vector: vectors.number(vector), _reserved: 0 }
            } else {
                Steps { summary: vector.word(0), ..Steps::default() }
            }
        };
        let mut flags = if long { chain_flags::LONG } else { 0 };
        let mut asks = |any: bool, flag| flags |= if any { flag } else { 0 };
        asks(!self.source.by_identity.is_empty(), chain_flags::SOURCE);
        asks(!self.destination.by_identity.is_empty(), chain_flags::DESTINATION);
        asks(!self.service.by_service.is_empty(), chain_flags::SERVICE);
        asks(!self.source_port.by_service.is_empty(), chain_flags::SOURCE_PORT);
        let chain = abi::Chain {
            source: steps(&self.source.otherwise),
            destination: steps(&self.destination.otherwise),
            service: steps(&self.service.otherwise),
            source_port: steps(&self.source_port.otherwise),
            flags,
            _reserved: 0,
        };
        let mut peers = BTreeMap::new();
        let mut services = BTreeMap::new();
        let ends = [
            (End::Source, &self.source, &self.source_port),
            (End::Destination, &self.destination, &self.service),
        ];
        for (end, Peers { by_identity, .. }, Services { by_service, .. }) in ends {
            for (identity, vector) in by_identity {
                peers.insert(PeerKey::new(number, end, identity.0), steps(vector));
            }
            for (&Service { protocol, port, length }, vector) in by_service {
                let key = ServiceKey::new(number, end, protocol.0, port);
                services.insert((key, SERVICE_PROTOCOL_BITS + u32::from(length)), steps(vector));
            }
        }
        let numbered = (0u32..).zip(self.chain.steps.iter().enumerate());
        let steps = numbered.map(|(step, (index, of))| {
            let (action, next) = match of.action {
                StepAction::Allow => (step_actions::ALLOW, 0),
                StepAction::Deny => (step_actions::DENY, 0),
                StepAction::GoTo(to) => (step_actions::GO_TO, u32::try_from(to).unwrap_or(u32::MAX)),
                StepAction::Log(to) => (step_actions::LOG, u32::try_from(to).unwrap_or(u32::MAX)),
            };
            (StepKey { chain: number, step }, abi::Step { action, next, counter: counter(index) })
        });
        ChainEntries { chain, peers, services, steps: steps.collect() }
    }
}
