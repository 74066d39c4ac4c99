//! Who gets a TAP or an address that two endpoints of this node want.
//!
//! The endpoint that is first by name keeps it (as Calico keeps the lowest id active and shadows the others); the other
//! gets nothing. Two exceptions protect a VM from its neighbours, because allowed pairs are what a tenant may write
//! himself: the address of a router is nobody else's, and a pair never takes away what is another VM's own. A refused
//! pair costs only the pair.
//!
//! Endpoints of other nodes are not looked at: during a migration a VM is on two nodes.

use super::Conflict;
use crate::resource::{EndpointName, HostAddress, InterfaceName, ResourceId, Severity, WorkloadEndpoint};
use std::collections::BTreeMap;

/// What became of an endpoint's claims.
pub(super) enum Outcome {
    /// It has its TAP and its addresses.
    Granted(Granted),
    /// It has nothing, and why.
    Rejected(String),
}

/// What an endpoint has beyond its TAP and its own addresses.
pub(super) struct Granted {
    /// Its allowed pairs, without those that are somebody else's.
    pub(super) pairs: Vec<HostAddress>,
}

#[derive(Default)]
struct Claims<'a> {
    gateways: BTreeMap<HostAddress, &'a EndpointName>,
    taps: BTreeMap<&'a InterfaceName, &'a EndpointName>,
    addresses: BTreeMap<HostAddress, &'a EndpointName>,
}

/// Settles the claims of `endpoints`, which come in the order of their names; one outcome each.
pub(super) fn settle<'a>(
    endpoints: impl Iterator<Item = &'a WorkloadEndpoint> + Clone,
    conflicts: &mut Vec<Conflict>,
) -> Vec<Outcome> {
    let mut claims = Claims::default();
    for endpoint in endpoints.clone() {
        if let Some(gateway) = endpoint.gateway {
            claims.gateways.entry(gateway).or_insert(&endpoint.name);
        }
    }
    let refusals: Vec<_> = endpoints.clone().map(|endpoint| claims.claim(endpoint)).collect();
    endpoints
        .zip(refusals)
        .map(|(endpoint, refusal)| match refusal {
            Some((field, message)) => {
                conflicts.push(conflict(endpoint, field, message.clone(), Severity::Error));
                Outcome::Rejected(message)
            }
            None => Outcome::Granted(Granted { pairs: claims.grant_pairs(endpoint, conflicts) }),
        })
        .collect()
}

impl<'a> Claims<'a> {
    /// Takes TAP and own addresses for `endpoint`, all or nothing; says which field is refused and why.
    fn claim(&mut self, endpoint: &'a WorkloadEndpoint) -> Option<(&'static str, String)> {
        let refusal = self.refuse_tap(endpoint).or_else(|| {
            let mut refused =
                endpoint.addresses.iter().filter_map(|&address| self.refuse_address(endpoint, address));
            refused.next().map(|message| ("spec.ipNetworks", message))
        });
        if refusal.is_none() {
            self.taps.insert(&endpoint.interface, &endpoint.name);
            self.addresses.extend(endpoint.addresses.iter().map(|&address| (address, &endpoint.name)));
        }
        refusal
    }

    fn refuse_tap(&self, endpoint: &WorkloadEndpoint) -> Option<(&'static str, String)> {
        let holder = self.taps.get(&endpoint.interface)?;
        let tap = &endpoint.interface;
        Some((
            "spec.interfaceName",
            format!("TAP {tap} is also that of {holder}, which keeps it; give one of them another TAP"),
        ))
    }

    fn refuse_address(&self, endpoint: &WorkloadEndpoint, address: HostAddress) -> Option<String> {
        if let Some(routed) = self.gateways.get(&address) {
            let whose = if *routed == &endpoint.name { "its own".to_owned() } else { format!("{routed}'s") };
            return Some(format!("address {address} is {whose} ipv6Gateway; give the VM another address"));
        }
        let holder = self.addresses.get(&address).filter(|holder| **holder != &endpoint.name)?;
        Some(format!(
            "address {address} is also that of {holder}, which keeps it; give one of them another address"
        ))
    }

    fn grant_pairs(
        &mut self,
        endpoint: &'a WorkloadEndpoint,
        conflicts: &mut Vec<Conflict>,
    ) -> Vec<HostAddress> {
        let mut granted = Vec::new();
        for &pair in &endpoint.allowed_pairs {
            if let Some(message) = self.refuse_address(endpoint, pair) {
                conflicts.push(conflict(endpoint, "spec.allowedIps", message, Severity::Note));
            } else if !endpoint.addresses.contains(&pair) && !granted.contains(&pair) {
                self.addresses.insert(pair, &endpoint.name);
                granted.push(pair);
            }
        }
        granted
    }
}

fn conflict(
    endpoint: &WorkloadEndpoint,
    field: &'static str,
    message: String,
    severity: Severity,
) -> Conflict {
    Conflict { loser: ResourceId::WorkloadEndpoint(endpoint.name.clone()), field, message, severity }
}
