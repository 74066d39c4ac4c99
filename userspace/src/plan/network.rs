//! Which Subnet speaks for an endpoint.

use super::{Conflict, NetworkSettings};
use crate::resource::{HostAddress, ResourceId, Severity, Subnet, WorkloadEndpoint};
use std::collections::BTreeMap;

/// The Subnets without those that overlap one that comes first by name. Two of different networks may overlap: the
/// endpoint's network tells them apart.
pub(super) fn without_overlap<'a>(
    subnets: &'a BTreeMap<String, Subnet>,
    conflicts: &mut Vec<Conflict>,
) -> Vec<&'a Subnet> {
    let mut kept: Vec<&Subnet> = Vec::new();
    for subnet in subnets.values() {
        match kept.iter().find(|first| overlap(first, subnet)) {
            None => kept.push(subnet),
            Some(first) => conflicts.push(Conflict {
                loser: ResourceId::Subnet(subnet.name.clone()),
                field: "spec.cidr",
                message: format!(
                    "{} overlaps {} of Subnet {}, which keeps it; make them disjoint or give both their networkId",
                    subnet.cidr, first.cidr, first.name
                ),
                severity: Severity::Error,
            }),
        }
    }
    kept
}

/// What the Subnets of the endpoint's addresses say. When its addresses lie in several, servers and domains of all are
/// given in the order of the addresses, and the shortest lifetime holds.
pub(super) fn settings(endpoint: &WorkloadEndpoint, subnets: &[&Subnet]) -> NetworkSettings {
    let mut found: Vec<&Subnet> = Vec::new();
    for &address in &endpoint.addresses {
        let subnet = subnets.iter().find(|subnet| speaks_for(subnet, endpoint, address));
        found.extend(subnet.filter(|subnet| found.iter().all(|known| known.name != subnet.name)));
    }
    let default = NetworkSettings::default();
    NetworkSettings {
        dns_servers: union(&found, |subnet| &subnet.dns_servers),
        search_domains: union(&found, |subnet| &subnet.search_domains),
        ntp_servers: union(&found, |subnet| &subnet.ntp_servers),
        fqdn: endpoint.fqdn.clone(),
        valid_lifetime: found.iter().map(|s| s.valid_lifetime).min().unwrap_or(default.valid_lifetime),
        router_lifetime: found.iter().map(|s| s.router_lifetime).min().unwrap_or(default.router_lifetime),
    }
}

fn overlap(a: &Subnet, b: &Subnet) -> bool {
    let prefixes = a.cidr.contains(&b.cidr) || b.cidr.contains(&a.cidr);
    prefixes && same_network(a.network_id.as_deref(), b.network_id.as_deref())
}

fn speaks_for(subnet: &Subnet, endpoint: &WorkloadEndpoint, address: HostAddress) -> bool {
    subnet.cidr.contains(&address.get())
        && same_network(subnet.network_id.as_deref(), endpoint.network_id.as_deref())
}

/// A network that is not named matches every network.
fn same_network(a: Option<&str>, b: Option<&str>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    }
}

fn union<T: Clone + PartialEq>(subnets: &[&Subnet], field: impl Fn(&Subnet) -> &Vec<T>) -> Vec<T> {
    let mut all = Vec::new();
    for item in subnets.iter().flat_map(|subnet| field(subnet)) {
        if !all.contains(item) {
            all.push(item.clone());
        }
    }
    all
}
