//! From what the maps hold to what they have to hold, so that the hooks see all of a change or nothing: pure.
//!
//! What is new is written beside the old, under numbers of its own; values that are looked up by who somebody is have both,
//! and the generation from which on the new one counts. One write of the generation changes over. What was only the old
//! generation's goes later, when no program that began before it still runs.

use super::tables::Tables;
use dataplane_ebpf::abi::{
    self, ChainPair, EndpointPolicy, Identity, NOBODY, PeerKey, ServiceKey, StepKey, Steps,
};
use ipnet::Ipv6Net;
use std::collections::{BTreeMap, BTreeSet};

/// What the maps hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Present {
    /// `GENERATION`.
    pub generation: u64,
    /// `HOST_IDENTITIES` and `IDENTITIES`.
    pub identities: BTreeMap<Ipv6Net, Identity>,
    /// `POLICIES`.
    pub policies: BTreeMap<u32, EndpointPolicy>,
    /// `CHAINS`.
    pub chains: BTreeMap<u32, abi::Chain>,
    /// `PEERS`.
    pub peers: BTreeMap<PeerKey, Steps>,
    /// `SERVICES`.
    pub services: BTreeMap<(ServiceKey, u32), Steps>,
    /// `STEPS`.
    pub steps: BTreeMap<StepKey, abi::Step>,
    /// `VECTORS`.
    pub vectors: BTreeMap<u32, abi::Vector>,
}

/// What to write, in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// Of `VECTORS`.
    pub vectors: Vec<(u32, abi::Vector)>,
    /// Of `STEPS`.
    pub steps: Vec<(StepKey, abi::Step)>,
    /// Of `SERVICES`.
    pub services: Vec<((ServiceKey, u32), Steps)>,
    /// Of `PEERS`.
    pub peers: Vec<(PeerKey, Steps)>,
    /// Of `CHAINS`.
    pub chains: Vec<(u32, abi::Chain)>,
    /// Of `HOST_IDENTITIES` and `IDENTITIES`.
    pub identities: Vec<(Ipv6Net, Identity)>,
    /// Of `POLICIES`.
    pub policies: Vec<(u32, EndpointPolicy)>,
    /// Then this is `GENERATION`.
    pub generation: u64,
    /// What goes later.
    pub garbage: Garbage,
}

/// Entries that nobody needs any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Of `POLICIES`.
    pub policies: Vec<u32>,
    /// Of `HOST_IDENTITIES` and `IDENTITIES`.
    pub identities: Vec<Ipv6Net>,
    /// Of `CHAINS`.
    pub chains: Vec<u32>,
    /// Of `PEERS`.
    pub peers: Vec<PeerKey>,
    /// Of `SERVICES`.
    pub services: Vec<(ServiceKey, u32)>,
    /// Of `STEPS`.
    pub steps: Vec<StepKey>,
    /// Of `VECTORS`.
    pub vectors: Vec<u32>,
}

impl Update {
    /// What leads from `present` to `tables`, with the chains of the endpoints that are behind TAPs.
    pub fn new(present: &Present, tables: &Tables, endpoints: &BTreeMap<u32, ChainPair>) -> Self {
        // An earlier daemon may have ended before it changed over.
        let begun = present.identities.values().map(|identity| identity.generation);
        let begun = begun.chain(present.policies.values().map(|policy| policy.generation)).max();
        let generation = begun.unwrap_or(0).max(present.generation) + 1;
        let mut garbage = Garbage::default();
        let update = Self {
            vectors: differing(&present.vectors, &tables.vectors, &mut garbage.vectors),
            steps: differing(&present.steps, &tables.steps, &mut garbage.steps),
            services: differing(&present.services, &tables.services, &mut garbage.services),
            peers: differing(&present.peers, &tables.peers, &mut garbage.peers),
            chains: differing(&present.chains, &tables.chains, &mut garbage.chains),
            identities: identities(present, tables, generation, &mut garbage.identities),
            policies: policies(present, endpoints, generation, &mut garbage.policies),
            generation,
            garbage: Garbage::default(),
        };
        Self { garbage, ..update }
    }

    /// There is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.entries() == 0 && self.garbage == Garbage::default()
    }

    /// How many entries are written.
    pub fn entries(&self) -> usize {
        self.vectors.len()
            + self.steps.len()
            + self.services.len()
            + self.peers.len()
            + self.chains.len()
            + self.identities.len()
            + self.policies.len()
    }
}

impl Present {
    /// It was written.
    pub fn write(&mut self, update: &Update) {
        self.vectors.extend(update.vectors.iter().copied());
        self.steps.extend(update.steps.iter().copied());
        self.services.extend(update.services.iter().copied());
        self.peers.extend(update.peers.iter().copied());
        self.chains.extend(update.chains.iter().copied());
        self.identities.extend(update.identities.iter().copied());
        self.policies.extend(update.policies.iter().copied());
        self.generation = update.generation;
    }

    /// It was removed.
    pub fn remove(&mut self, garbage: &Garbage) {
        remove(&mut self.policies, &garbage.policies);
        remove(&mut self.identities, &garbage.identities);
        remove(&mut self.chains, &garbage.chains);
        remove(&mut self.peers, &garbage.peers);
        remove(&mut self.services, &garbage.services);
        remove(&mut self.steps, &garbage.steps);
        remove(&mut self.vectors, &garbage.vectors);
    }
}

fn remove<K: Ord, V>(from: &mut BTreeMap<K, V>, keys: &[K]) {
    for key in keys {
        from.remove(key);
    }
}

/// What has to be written, and, into `gone`, what is there and is not wanted.
fn differing<K: Ord + Copy, V: PartialEq + Copy>(
    present: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
    gone: &mut Vec<K>,
) -> Vec<(K, V)> {
    gone.extend(present.keys().filter(|key| !wanted.contains_key(key)));
    let differs = |(key, value): &(&K, &V)| present.get(key) != Some(value);
    wanted.iter().filter(differs).map(|(key, value)| (*key, *value)).collect()
}

/// Whoever changes is who they were until the generation changes, also by a prefix that comes or goes around them.
fn identities(
    present: &Present,
    tables: &Tables,
    generation: u64,
    gone: &mut Vec<Ipv6Net>,
) -> Vec<(Ipv6Net, Identity)> {
    let now = |net: &Ipv6Net| present.identities.get(net).map(|identity| identity.at(present.generation));
    let then = |net: &Ipv6Net| tables.identities.get(net).copied();
    gone.extend(present.identities.keys().filter(|net| !tables.identities.contains_key(net)));
    let nets: BTreeSet<&Ipv6Net> = present.identities.keys().chain(tables.identities.keys()).collect();
    let mut changed = Vec::new();
    for net in nets {
        let before = now(net).unwrap_or_else(|| around(net, &now));
        let after = then(net).unwrap_or_else(|| around(net, &then));
        let settled = |found: &Identity| found.generation <= present.generation && found.after == after;
        if !present.identities.get(net).is_some_and(settled) {
            changed.push((*net, Identity { generation, before, after }));
        }
    }
    changed
}

/// Who has the longest prefix around one.
fn around(net: &Ipv6Net, of: &dyn Fn(&Ipv6Net) -> Option<u32>) -> u32 {
    let shorter = (0..net.prefix_len()).rev().filter_map(|length| Ipv6Net::new(net.addr(), length).ok());
    shorter.map(|net| net.trunc()).find_map(|net| of(&net)).unwrap_or(NOBODY)
}

fn policies(
    present: &Present,
    endpoints: &BTreeMap<u32, ChainPair>,
    generation: u64,
    gone: &mut Vec<u32>,
) -> Vec<(u32, EndpointPolicy)> {
    gone.extend(present.policies.keys().filter(|ifindex| !endpoints.contains_key(ifindex)));
    let mut changed = Vec::new();
    for (&ifindex, &after) in endpoints {
        let found = present.policies.get(&ifindex);
        if found.is_some_and(|found| found.generation <= present.generation && found.after == after) {
            continue;
        }
        // Nobody is behind a new TAP yet.
        let before = found.map_or(after, |found| *found.at(present.generation));
        changed.push((ifindex, EndpointPolicy { generation, before, after }));
    }
    changed
}
