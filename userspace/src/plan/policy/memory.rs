//! The tables of policy in plain memory, for whoever asks them without a kernel.

use super::Policies;
use super::classify::{ChainId, Classifier, Vectors};
use crate::resource::EndpointName;
use dataplane_ebpf::abi::{Address, ChainPair, Identity};
use dataplane_ebpf::host::MemoryPolicies;

/// Everything that is asked of the endpoints whose TAP `ifindex` knows.
pub fn of(policies: &Policies, ifindex: impl Fn(&EndpointName) -> Option<u32>) -> MemoryPolicies {
    let (classifier, chains) = Classifier::new(policies);
    let mut tables = tables(&classifier);
    for (name, (ChainId(ingress), ChainId(egress))) in policies.endpoints.keys().zip(chains) {
        if let Some(ifindex) = ifindex(name) {
            tables.endpoints.insert(ifindex, ChainPair { ingress, egress });
        }
    }
    tables
}

/// The tables of all chains, under their places in the classifier. Every step has a counter of its own, from 1 on.
pub fn tables(classifier: &Classifier) -> MemoryPolicies {
    let mut tables = MemoryPolicies::default();
    let mut vectors = Vectors::default();
    let mut counters = 1;
    for (number, chain) in (0..).zip(&classifier.chains) {
        let entries = chain.entries(number, &mut vectors, |step| counters + u32::try_from(step).unwrap_or(0));
        counters += u32::try_from(entries.steps.len()).unwrap_or(0);
        tables.chains.insert(number, entries.chain);
        tables.peers.extend(entries.peers);
        tables.services.extend(entries.services);
        tables.steps.extend(entries.steps);
    }
    tables.vectors = vectors.entries().collect();
    for (net, id) in classifier.identities.prefixes() {
        let identity = Identity { generation: 0, before: 0, after: id.0 };
        tables.identities.insert((Address::new(net.network().octets()), net.prefix_len()), identity);
    }
    tables
}
