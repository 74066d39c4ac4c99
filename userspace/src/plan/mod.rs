//! What this host should look like: pure functions from resources and host facts to a plan. No I/O, no clock.
//!
//! What two resources cannot both have is settled by name alone, whatever the host looks like at the moment: the same
//! resources give the same winners on every start, and `serval check` sees what the daemon will see.

pub mod bird;
mod claims;
mod host;
mod network;
pub mod nftables;
pub mod policy;
mod uplinks;

pub use host::{HostFacts, LinkFacts};
pub use uplinks::{Uplink, uplinks};

use crate::resource::{
    EndpointName, HostAddress, InterfaceName, MacAddress, ResourceId, Resources, Severity, Subnet,
    WorkloadEndpoint,
};
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;

/// Smallest MTU that carries IPv6 (RFC 8200 section 5); the kernel turns IPv6 off below it.
const IPV6_MIN_MTU: u32 = 1280;

/// What the plan needs of the host configuration.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// Our node: an endpoint is ours when `spec.node` is this.
    pub node: &'a str,
    /// A TAP whose name starts with this is a VM's, and is blocked as long as no endpoint has it.
    pub tap_prefix: &'a str,
}

/// What this host should look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Every endpoint of this node.
    pub endpoints: BTreeMap<EndpointName, EndpointPlan>,
    /// TAPs that forward nothing, by ifindex: those with our prefix that no endpoint claims, and those that only a
    /// rejected endpoint claims.
    pub blocked: BTreeMap<u32, InterfaceName>,
    /// Where resources contradict each other. What a conflict takes from an endpoint is already taken.
    pub conflicts: Vec<Conflict>,
}

impl Plan {
    /// The endpoints whose TAP is there, by ifindex.
    pub fn attached(&self) -> impl Iterator<Item = (&EndpointName, &Attached)> {
        self.endpoints.iter().filter_map(|(name, plan)| match plan {
            EndpointPlan::Attached(attached) => Some((name, attached)),
            EndpointPlan::Pending { .. } | EndpointPlan::Rejected { .. } => None,
        })
    }
}

/// Two resources that cannot both be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The one that gives way.
    pub loser: ResourceId,
    /// Its field that clashes.
    pub field: &'static str,
    /// What it clashes with, and what to do.
    pub message: String,
    /// An error costs the whole resource, a note only the entry that clashes.
    pub severity: Severity,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.loser, self.field, self.message)
    }
}

/// One endpoint and what can be done about it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointPlan {
    /// Its TAP is there.
    Attached(Attached),
    /// Its TAP is not there yet.
    Pending {
        /// The TAP we wait for.
        interface: InterfaceName,
        /// Its addresses, for `status`.
        addresses: Vec<HostAddress>,
    },
    /// It contradicts another resource, or its interface cannot carry it: it gets nothing.
    Rejected {
        /// Its TAP.
        interface: InterfaceName,
        /// Its addresses, for `status`.
        addresses: Vec<HostAddress>,
        /// What is wrong and what to do.
        reason: String,
    },
}

/// Everything that maps, kernel, DHCPv6 and router advertisements need to know of an endpoint whose TAP is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its TAP.
    pub interface: InterfaceName,
    /// The TAP's ifindex.
    pub ifindex: u32,
    /// The TAP is administratively up.
    pub admin_up: bool,
    /// The TAP's carrier is on: a VMM has it open.
    pub carrier: bool,
    /// MTU of the TAP in bytes.
    pub mtu: u32,
    /// MAC of the VM.
    pub mac: MacAddress,
    /// MAC of the TAP.
    pub gateway_mac: MacAddress,
    /// Link-local address of the TAP, the VM's default router: made from the TAP's MAC as the kernel does (EUI-64).
    pub gateway: Ipv6Addr,
    /// Further addresses of the router: the endpoint's `ipv6Gateway`.
    pub gateways: Vec<HostAddress>,
    /// What DHCPv6 leases, in order.
    pub leased: Vec<HostAddress>,
    /// All addresses it may use and is reached under: `leased` first, then allowed pairs.
    pub addresses: Vec<HostAddress>,
    /// What DHCPv6 and router advertisements say besides.
    pub network: NetworkSettings,
}

/// DHCPv6 and router advertisement settings of an endpoint, from its Subnet or the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSettings {
    /// Recursive DNS servers.
    pub dns_servers: Vec<Ipv6Addr>,
    /// DNS search list.
    pub search_domains: Vec<String>,
    /// NTP servers.
    pub ntp_servers: Vec<Ipv6Addr>,
    /// The VM's name, for the client FQDN option.
    pub fqdn: Option<String>,
    /// Valid and preferred lifetime of a lease in seconds; `u32::MAX` is forever.
    pub valid_lifetime: u32,
    /// Router lifetime in seconds.
    pub router_lifetime: u16,
}

/// Those of an endpoint without a Subnet.
impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            dns_servers: Vec::new(),
            search_domains: Vec::new(),
            ntp_servers: Vec::new(),
            fqdn: None,
            valid_lifetime: Subnet::VALID_LIFETIME,
            router_lifetime: Subnet::ROUTER_LIFETIME,
        }
    }
}

/// Plans this host.
pub fn plan(resources: &Resources, facts: &HostFacts, settings: Settings<'_>) -> Plan {
    let ours = || resources.endpoints.values().filter(|endpoint| endpoint.node == settings.node);
    let mut conflicts = Vec::new();
    let subnets = network::without_overlap(&resources.subnets, &mut conflicts);
    let outcomes = claims::settle(ours(), &mut conflicts);

    let endpoints: BTreeMap<_, _> = ours()
        .zip(outcomes)
        .map(|(endpoint, outcome)| {
            let planned = match outcome {
                claims::Outcome::Rejected(reason) => rejected(endpoint, reason),
                claims::Outcome::Granted(granted) => match facts.links.get(endpoint.interface.as_str()) {
                    None => EndpointPlan::Pending {
                        interface: endpoint.interface.clone(),
                        addresses: endpoint.addresses.iter().chain(&granted.pairs).copied().collect(),
                    },
                    Some(link) => attach(endpoint, granted, link, network::settings(endpoint, &subnets)),
                },
            };
            (endpoint.name.clone(), planned)
        })
        .collect();

    let blocked = blocked(&endpoints, facts, settings);
    Plan { endpoints, blocked, conflicts }
}

fn attach(
    endpoint: &WorkloadEndpoint,
    granted: claims::Granted,
    link: &LinkFacts,
    network: NetworkSettings,
) -> EndpointPlan {
    let interface = &endpoint.interface;
    if !link.tap {
        return rejected(
            endpoint,
            format!("interface {interface} is no TAP; give spec.interfaceName the VM's TAP"),
        );
    }
    let Some(gateway_mac) = link.mac else {
        return rejected(endpoint, format!("{interface} has no unicast MAC address; give the TAP one"));
    };
    if gateway_mac == endpoint.mac {
        // Both ends would make the same link-local address, and the VM would find its router to be itself.
        return rejected(
            endpoint,
            format!("{interface} has the MAC address of the VM, {gateway_mac}; give the TAP another one"),
        );
    }
    if link.mtu < IPV6_MIN_MTU {
        return rejected(
            endpoint,
            format!("{interface} has MTU {}, and IPv6 needs {IPV6_MIN_MTU}; raise the TAP's MTU", link.mtu),
        );
    }
    EndpointPlan::Attached(Attached {
        interface: interface.clone(),
        ifindex: link.ifindex,
        admin_up: link.admin_up,
        carrier: link.carrier,
        mtu: link.mtu,
        mac: endpoint.mac,
        gateway_mac,
        gateway: gateway_mac.link_local(),
        gateways: endpoint.gateway.into_iter().collect(),
        leased: endpoint.addresses.clone(),
        addresses: endpoint.addresses.iter().copied().chain(granted.pairs).collect(),
        network,
    })
}

fn rejected(endpoint: &WorkloadEndpoint, reason: String) -> EndpointPlan {
    EndpointPlan::Rejected {
        interface: endpoint.interface.clone(),
        addresses: endpoint.all_addresses().collect(),
        reason,
    }
}

/// The TAPs that nobody may use: nothing but a complete configuration opens one.
fn blocked(
    endpoints: &BTreeMap<EndpointName, EndpointPlan>,
    facts: &HostFacts,
    settings: Settings<'_>,
) -> BTreeMap<u32, InterfaceName> {
    let mut in_use = Vec::new();
    let mut refused = Vec::new();
    for planned in endpoints.values() {
        match planned {
            EndpointPlan::Attached(attached) => in_use.push(attached.interface.as_str()),
            EndpointPlan::Rejected { interface, .. } => refused.push(interface.as_str()),
            EndpointPlan::Pending { .. } => {}
        }
    }
    in_use.sort_unstable();
    let blocked = |name: &str, link: &LinkFacts| {
        link.tap
            && in_use.binary_search(&name).is_err()
            && (name.starts_with(settings.tap_prefix) || refused.contains(&name))
    };
    let links = facts.links.iter().filter(|(name, link)| blocked(name, link));
    links.filter_map(|(name, link)| Some((link.ifindex, name.parse().ok()?))).collect()
}

#[cfg(test)]
mod tests;
