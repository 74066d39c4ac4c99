//! Network policy, from what documents say to what a packet is measured by. Pure.
//!
//! [`labels`]: who is chosen by a selector -> [`chain`]: what an endpoint's packets are asked, in order, one list a
//! direction -> [`classify`]: the same as tables of bit vectors, so that a packet is not asked rule by rule -> [`memory`]: these tables without a kernel.
//! [`reference`] says once more, as plainly as possible and straight from the resources, what the outcome has to be; tests
//! hold everything else against it.

#[cfg(any(test, feature = "arbitrary"))]
pub mod arbitrary;
pub mod chain;
pub mod classify;
mod labels;
pub mod memory;
mod order;
pub mod reference;
mod sets;

#[cfg(test)]
pub(crate) mod tests;

pub use chain::{Chain, Origin, Step, StepAction};
pub use sets::{SetId, SetName, Sets};

use crate::resource::{EndpointName, Resources, ScopedName};
use labels::Labelled;
use std::collections::BTreeMap;

/// Which way a packet goes, seen from the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the VM.
    Ingress,
    /// From the VM.
    Egress,
}

/// The policy of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// The lists of every endpoint of this node.
    pub endpoints: BTreeMap<EndpointName, EndpointPolicy>,
    /// The sets of addresses that they speak of.
    pub sets: Sets,
}

/// What an endpoint's packets are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// Packets to the VM.
    pub ingress: Chain,
    /// Packets from the VM.
    pub egress: Chain,
    /// The policies that are about it, in order.
    pub applied: Vec<ScopedName>,
}

/// Says for every endpoint of `node` what its packets are asked.
pub fn policies(resources: &Resources, node: &str) -> Policies {
    let labelled = Labelled::new(resources);
    let tiers = order::tiers(resources);
    let mut builder = chain::Builder::new(&labelled);
    let mut endpoints = BTreeMap::new();
    for endpoint in resources.endpoints.values().filter(|endpoint| endpoint.node == node) {
        let labels = labelled.of(&endpoint.name);
        let applied = order::applied(&tiers, labels);
        let profiles: Vec<_> =
            endpoint.profiles.iter().filter_map(|name| resources.profiles.get(name)).collect();
        let mut chain = |direction| builder.chain(endpoint, direction, &applied, &profiles);
        let (ingress, egress) = (chain(Direction::Ingress), chain(Direction::Egress));
        let policies = applied.iter().flat_map(|tier| &tier.policies);
        let policy =
            EndpointPolicy { ingress, egress, applied: policies.map(|policy| policy.name.clone()).collect() };
        endpoints.insert(endpoint.name.clone(), policy);
    }
    Policies { endpoints, sets: builder.into_sets() }
}
