//! Policy and flows in the maps of the loaded programs.

use super::Programs;
use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, PerCpuArray, PerCpuValues};
use dataplane_ebpf::abi::{
    Address, Chain, EndpointPolicy, Flow, FlowKey, FlowQuota, GENERATION_OF_POLICY, Identity, PeerKey,
    RingPlace, SERVICE_PROTOCOL_BITS, Step, StepKey, Steps, Vector, names,
};
use dataplane_ebpf::host::MemoryPolicies;
use std::collections::BTreeMap;
use std::path::Path;

impl Programs {
    /// Loads the object into the kernel, with policy.
    pub fn load_policed(object: &Path) -> Self {
        Self::load_with(object, &[(names::POLICED, 1)])
    }

    /// The same, and one of `names::HOST_IS_OPEN` and `names::HOST_IS_JUDGED` is true.
    pub fn load_policed_and(object: &Path, global: &'static str) -> Self {
        Self::load_with(object, &[(names::POLICED, 1), (global, 1)])
    }

    /// Makes the maps of policy what `policies` has, and gives each of `slots` its quota. Flows stay.
    pub fn fill_policies(&mut self, policies: &MemoryPolicies, slots: u32) {
        let generation = policies.generation.get();
        let endpoints = policies.endpoints.iter().map(|(ifindex, chains)| {
            (*ifindex, EndpointPolicy { generation, after: *chains, ..EndpointPolicy::default() })
        });
        self.replace::<u32, EndpointPolicy>(names::POLICIES, endpoints);
        self.replace::<u32, Chain>(names::CHAINS, entries(&policies.chains));
        let (hosts, prefixes): (Vec<_>, Vec<_>) =
            entries(&policies.identities).partition(|((_, length), _)| *length == 128);
        self.replace::<Address, Identity>(
            names::HOST_IDENTITIES,
            hosts.into_iter().map(|((address, _), identity)| (address, identity)),
        );
        let prefixes = prefixes.into_iter();
        self.replace_prefixes::<[u8; 16], Identity>(
            names::IDENTITIES,
            prefixes.map(|((address, length), identity)| (u32::from(length), address.octets(), identity)),
        );
        self.replace::<PeerKey, Steps>(names::PEERS, entries(&policies.peers));
        let services = entries(&policies.services);
        self.replace_prefixes::<[u8; 8], Steps>(
            names::SERVICES,
            services.map(|((key, length), steps)| {
                assert!(length >= SERVICE_PROTOCOL_BITS, "a service has a protocol");
                (length, key.0, steps)
            }),
        );
        self.replace::<u32, Vector>(names::VECTORS, entries(&policies.vectors));
        self.replace::<StepKey, Step>(names::STEPS, entries(&policies.steps));
        let mut quotas: Array<_, FlowQuota> = self.map(names::FLOW_QUOTAS);
        for slot in 0..slots {
            let hand = quotas.get(&slot, 0).expect("slot").hand;
            quotas.set(slot, FlowQuota { places: policies.quota, hand, pressure: 0 }, 0).expect("slot");
        }
        let mut now: Array<_, u64> = self.map(names::GENERATION);
        now.set(GENERATION_OF_POLICY, generation, 0).expect("the generation");
    }

    /// Forgets all flows, and which places come next.
    pub fn clear_flows(&mut self, slots: u32) {
        self.replace::<FlowKey, Flow>(names::FLOWS, []);
        self.replace::<RingPlace, FlowKey>(names::FLOW_RINGS, []);
        let mut quotas: Array<_, FlowQuota> = self.map(names::FLOW_QUOTAS);
        for slot in 0..slots {
            let places = quotas.get(&slot, 0).expect("slot").places;
            quotas.set(slot, FlowQuota { places, ..FlowQuota::default() }, 0).expect("slot");
        }
    }

    /// All flows.
    pub fn flows(&mut self) -> BTreeMap<FlowKey, Flow> {
        let flows: HashMap<_, FlowKey, Flow> = self.map(names::FLOWS);
        flows.iter().map(|entry| entry.expect("a flow")).collect()
    }

    /// Makes all flows as old as if `seconds` had gone by.
    pub fn age_flows(&mut self, seconds: u32) {
        let mut flows: HashMap<_, FlowKey, Flow> = self.map(names::FLOWS);
        let all: Vec<_> = flows.iter().map(|entry| entry.expect("a flow")).collect();
        for (key, flow) in all {
            let older = Flow { seen: flow.seen.wrapping_sub(seconds), ..flow };
            flows.insert(key, older, 0).expect("the flow is there");
        }
    }

    /// Flows that found no place, by slot.
    pub fn pressure(&mut self, slots: u32) -> BTreeMap<u32, u64> {
        let quotas: Array<_, FlowQuota> = self.map(names::FLOW_QUOTAS);
        let pressure = (0..slots).map(|slot| (slot, quotas.get(&slot, 0).expect("slot").pressure));
        pressure.filter(|(_, flows)| *flows > 0).collect()
    }

    /// How often the steps with counters below `counters` decided.
    pub fn rules(&mut self, counters: u32) -> BTreeMap<u32, u64> {
        let rules: PerCpuArray<_, u64> = self.map(names::RULE_COUNTERS);
        let counts = (0..counters)
            .map(|rule| (rule, rules.get(&rule, 0).expect("rule").iter().sum::<u64>()))
            .filter(|(_, count)| *count > 0);
        counts.collect()
    }

    /// Sets the counters below `counters` to zero.
    pub fn clear_rules(&mut self, counters: u32) {
        let cpus = aya::util::nr_cpus().expect("number of CPUs");
        let mut rules: PerCpuArray<_, u64> = self.map(names::RULE_COUNTERS);
        for rule in 0..counters {
            let zero = PerCpuValues::try_from(vec![0; cpus]).expect("a value per CPU");
            rules.set(rule, zero, 0).expect("rule");
        }
    }

    /// Makes these the only entries of a map.
    pub(super) fn replace<K: Pod, V: Pod>(&mut self, name: &str, entries: impl IntoIterator<Item = (K, V)>) {
        let mut map: HashMap<_, K, V> = self.map(name);
        let old: Vec<K> = map.keys().map(|key| key.expect("a key")).collect();
        for key in old {
            map.remove(&key).expect("the key is there");
        }
        for (key, value) in entries {
            map.insert(key, value, 0).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
    }

    fn replace_prefixes<K: Pod, V: Pod>(
        &mut self,
        name: &str,
        entries: impl IntoIterator<Item = (u32, K, V)>,
    ) {
        let mut map: LpmTrie<_, K, V> = self.map(name);
        let old: Vec<Key<K>> = map.keys().map(|key| key.expect("a prefix")).collect();
        for key in old {
            map.remove(&key).expect("the prefix is there");
        }
        for (length, key, value) in entries {
            map.insert(&Key::new(length, key), value, 0).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
    }
}

fn entries<K: Copy, V: Copy>(map: &BTreeMap<K, V>) -> impl Iterator<Item = (K, V)> {
    map.iter().map(|(key, value)| (*key, *value))
}
