//! Network policy, from what documents say to what a packet is measured by. Pure.
//!
//! [`labels`]: who is chosen by a selector -> [`chain`]: what an endpoint's packets are asked, in order, one list a
//! direction, first of all whether they are a [`tunnel`] -> [`follow`]: such that the hooks can follow it -> [`classify`]: the same as tables of bit vectors, so that a
//! packet is not asked rule by rule -> [`memory`]: these tables without a kernel. [`asked`]: rule by rule all the same.
//! [`reference`] says once more, as plainly as possible and straight from the resources, what the outcome has to be; tests
//! hold everything else against it.

#[cfg(any(test, feature = "arbitrary"))]
pub mod arbitrary;
mod asked;
pub mod chain;
pub mod classify;
mod follow;
mod labels;
pub mod lint;
pub mod memory;
mod order;
pub mod reference;
pub mod review;
mod sets;
pub mod tunnel;

#[cfg(test)]
pub(crate) mod tests;

pub use chain::{Chain, Origin, Step, StepAction};
pub use sets::{SetId, SetName, Sets};
pub use tunnel::{Tunnel, Tunnels};

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
    /// Why a direction is closed although they may say something else: what is asked is more than the hooks can follow.
    pub fault: Option<String>,
}

impl EndpointPolicy {
    /// With a chain that lets nothing pass in the place of one that the hooks cannot follow. It counts also where there are
    /// no hooks: what closes an endpoint must not depend on who judges.
    fn closed_where_too_long(mut self) -> Self {
        let mut faults = Vec::new();
        for (direction, chain) in [("to", &mut self.ingress), ("from", &mut self.egress)] {
            if let Err(fault) = follow::followed(chain) {
                faults.push(format!("no packet {direction} it may pass: {fault}"));
                *chain = Chain::closed();
            }
        }
        self.fault = (!faults.is_empty()).then(|| faults.join("; "));
        self
    }
}

/// Says for every endpoint of `node` what its packets are asked. `tunnels` are what policy is asked about, too.
pub fn policies(resources: &Resources, node: &str, tunnels: Tunnels) -> Policies {
    let labelled = Labelled::new(resources);
    let tiers = order::tiers(resources);
    let mut builder = chain::Builder::new(&labelled, tunnels);
    let mut endpoints = BTreeMap::new();
    for endpoint in resources.endpoints.values().filter(|endpoint| endpoint.node == node) {
        let labels = labelled.of(&endpoint.name);
        let applied = order::applied(&tiers, labels);
        let profiles: Vec<_> =
            endpoint.profiles.iter().filter_map(|name| resources.profiles.get(name)).collect();
        let mut chain = |direction| builder.chain(endpoint, direction, &applied, &profiles);
        let (ingress, egress) = (chain(Direction::Ingress), chain(Direction::Egress));
        let applied = applied.iter().flat_map(|tier| &tier.policies).map(|policy| policy.name.clone());
        let policy = EndpointPolicy { ingress, egress, applied: applied.collect(), fault: None };
        endpoints.insert(endpoint.name.clone(), policy.closed_where_too_long());
    }
    Policies { endpoints, sets: builder.into_sets() }
}
