//! What policy means, as plainly as it can be said: straight from the resources, rule by rule, packet by packet. Slow, and
//! sharing no code with what is to be fast, so that tests can hold the one against the other. Semantics are Calico's
//! (Felix' `calc/policy_sorter.go` and `rules/endpoints.go`).

use super::{Direction, Origin, Tunnel, Tunnels};
use crate::resource::policy::{Action, DEFAULT_TIER, Entity, Policy, Port, Protocol, Rule};
use crate::resource::selector::{NAMESPACE, NAMESPACE_LABELS, SERVICE_ACCOUNT_LABELS};
use crate::resource::{Resources, Selector, WorkloadEndpoint};
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

/// A packet, as far as policy looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
    /// Protocol of the upper layer.
    pub protocol: Protocol,
    /// Source port, of protocols that have ports.
    pub source_port: u16,
    /// Destination port, of protocols that have ports.
    pub destination_port: u16,
    /// Type and code, of ICMPv6.
    pub icmp: (u8, u8),
}

/// What becomes of the first packet of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// It may pass in this direction.
    pub allowed: bool,
    /// What decided.
    pub origin: Origin,
    /// The rules that log it.
    pub logged: Vec<Origin>,
}

/// Asks the policy of `endpoint` about a packet that goes in this direction, where VMs may send these tunnels.
pub fn evaluate(
    resources: &Resources,
    tunnels: Tunnels,
    endpoint: &WorkloadEndpoint,
    direction: Direction,
    packet: &Packet,
) -> Outcome {
    let mut logged = Vec::new();
    if direction == Direction::Egress {
        let tunnel = match packet {
            Packet { protocol: Protocol::UDP, destination_port: 4789, .. } if !tunnels.vxlan => {
                Some(Tunnel::Vxlan)
            }
            Packet { protocol: Protocol(4), .. } if !tunnels.ipip => Some(Tunnel::Ipip),
            _ => None,
        };
        if let Some(tunnel) = tunnel {
            return Outcome { allowed: false, origin: Origin::Tunnel(tunnel), logged };
        }
    }
    for tier in tier_names(resources) {
        let policies = policies_of_tier(resources, &tier, endpoint, direction);
        if policies.is_empty() {
            continue;
        }
        let rules = policies.iter().flat_map(|policy| {
            let rules = rules_of(policy, direction).unwrap_or_default();
            rules.iter().enumerate().map(|(number, rule)| (*policy, number, rule))
        });
        let mut decided = None;
        for (policy, number, rule) in rules {
            if !matches(resources, endpoint, direction, rule, packet) {
                continue;
            }
            let origin = Origin::Rule { tier: tier.clone(), policy: policy.name.clone(), rule: number };
            match rule.action {
                // A rule is one, in however many ways it matches.
                Action::Log => logged.push(origin),
                action => {
                    decided = Some((action, origin));
                    break;
                }
            }
        }
        match decided {
            Some((Action::Allow, origin)) => return Outcome { allowed: true, origin, logged },
            Some((Action::Deny, origin)) => return Outcome { allowed: false, origin, logged },
            Some(_) => {}
            None if resources.tiers.get(&tier).is_some_and(|tier| tier.passes) => {}
            None => return Outcome { allowed: false, origin: Origin::TierDefault { tier }, logged },
        }
    }
    'profiles: for profile in endpoint.profiles.iter().filter_map(|name| resources.profiles.get(name)) {
        let rules = match direction {
            Direction::Ingress => &profile.ingress,
            Direction::Egress => &profile.egress,
        };
        for (number, rule) in rules.iter().enumerate() {
            if !matches(resources, endpoint, direction, rule, packet) {
                continue;
            }
            let origin = Origin::Profile { profile: profile.name.clone(), rule: number };
            match rule.action {
                Action::Allow => return Outcome { allowed: true, origin, logged },
                Action::Deny => return Outcome { allowed: false, origin, logged },
                Action::Log => logged.push(origin),
                Action::Pass => break 'profiles,
            }
        }
    }
    Outcome { allowed: false, origin: Origin::NoProfile, logged }
}

/// Names of all tiers, in order.
fn tier_names(resources: &Resources) -> Vec<String> {
    let mut names: Vec<String> = resources.policies.values().map(|policy| policy.tier.clone()).collect();
    names.sort();
    names.dedup();
    // (unknown, order, name)
    names.sort_by(|a, b| {
        let key = |name: &str| {
            let defined = resources.tiers.get(name).map(|tier| tier.order.0.unwrap_or(f64::INFINITY));
            let order = defined.or((name == DEFAULT_TIER).then_some(1e6));
            (order.is_none(), order.unwrap_or(f64::INFINITY))
        };
        let ((a_unknown, a_order), (b_unknown, b_order)) = (key(a), key(b));
        a_unknown.cmp(&b_unknown).then(a_order.total_cmp(&b_order)).then(a.cmp(b))
    });
    names
}

/// The policies of a tier that govern this direction of this endpoint, in order. A tier where they are none is skipped.
fn policies_of_tier<'a>(
    resources: &'a Resources,
    tier: &str,
    endpoint: &WorkloadEndpoint,
    direction: Direction,
) -> Vec<&'a Policy> {
    let labels = labels(resources, endpoint);
    let mut policies: Vec<&Policy> = resources
        .policies
        .values()
        .filter(|policy| policy.tier == tier && policy.selector.matches(&labels))
        .filter(|policy| rules_of(policy, direction).is_some())
        .collect();
    let text = |policy: &Policy| {
        let (namespace, kind) = match &policy.name.namespace {
            Some(namespace) => (namespace.as_str(), "NetworkPolicy"),
            None => ("", "GlobalNetworkPolicy"),
        };
        format!("{}/{namespace}/{kind}", policy.name.name.trim_start_matches("default."))
    };
    policies.sort_by(|a, b| {
        let order = |policy: &Policy| policy.order.0.unwrap_or(f64::INFINITY);
        order(a).total_cmp(&order(b)).then_with(|| text(a).cmp(&text(b)))
    });
    policies
}

fn rules_of(policy: &Policy, direction: Direction) -> Option<&[Rule]> {
    match direction {
        Direction::Ingress => policy.ingress.as_deref(),
        Direction::Egress => policy.egress.as_deref(),
    }
}

fn matches(
    resources: &Resources,
    endpoint: &WorkloadEndpoint,
    direction: Direction,
    rule: &Rule,
    packet: &Packet,
) -> bool {
    let icmp = packet.protocol == Protocol::ICMP6;
    let (kind, code) = packet.icmp;
    // Names of ports at our end are ours; at the other end, those of whoever has the address there.
    let (source_is_ours, destination_is_ours) = match direction {
        Direction::Ingress => (None, Some(endpoint)),
        Direction::Egress => (Some(endpoint), None),
    };
    rule.ipv6
        && rule.protocol.is_none_or(|protocol| protocol == packet.protocol)
        && rule.not_protocol.is_none_or(|protocol| protocol != packet.protocol)
        && rule.icmp.is_none_or(|wanted| icmp && wanted.matches(kind, code))
        && rule.not_icmp.is_none_or(|unwanted| !(icmp && unwanted.matches(kind, code)))
        && end_matches(
            resources,
            &rule.source,
            packet.source,
            packet.source_port,
            packet.protocol,
            source_is_ours,
        )
        && end_matches(
            resources,
            &rule.destination,
            packet.destination,
            packet.destination_port,
            packet.protocol,
            destination_is_ours,
        )
}

fn end_matches(
    resources: &Resources,
    entity: &Entity,
    address: Ipv6Addr,
    port: u16,
    protocol: Protocol,
    ours: Option<&WorkloadEndpoint>,
) -> bool {
    let port_is = |ports: &[Port]| {
        protocol.has_ports()
            && ports.iter().any(|wanted| match wanted {
                Port::Range(range) => range.contains(port),
                Port::Named(name) => match ours {
                    Some(endpoint) => calls(endpoint, name, protocol, port),
                    None => resources.endpoints.values().any(|other| {
                        other.all_addresses().any(|own| own.get() == address)
                            && calls(other, name, protocol, port)
                    }),
                },
            })
    };
    entity.nets.as_ref().is_none_or(|nets| nets.iter().any(|net| net.contains(&address)))
        && !entity.not_nets.iter().any(|net| net.contains(&address))
        && entity.selector.as_ref().is_none_or(|selector| chooses(resources, selector, address))
        && !entity.not_selector.as_ref().is_some_and(|selector| chooses(resources, selector, address))
        && (entity.ports.is_empty() || port_is(&entity.ports))
        && !port_is(&entity.not_ports)
}

fn calls(endpoint: &WorkloadEndpoint, name: &str, protocol: Protocol, port: u16) -> bool {
    endpoint.ports.iter().any(|own| own.name == name && own.protocol == protocol && own.port == port)
}

/// Whether the address is that of an endpoint or network set that the selector chooses.
fn chooses(resources: &Resources, selector: &Selector, address: Ipv6Addr) -> bool {
    let endpoint = resources.endpoints.values().any(|endpoint| {
        endpoint.all_addresses().any(|own| own.get() == address)
            && selector.matches(&labels(resources, endpoint))
    });
    endpoint
        || resources.network_sets.values().any(|set| {
            let mut labels = set.labels.clone();
            labels
                .extend(set.name.namespace.iter().map(|namespace| (NAMESPACE.to_owned(), namespace.clone())));
            set.nets.iter().any(|net| net.contains(&address)) && selector.matches(&labels)
        })
}

fn labels(resources: &Resources, endpoint: &WorkloadEndpoint) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for profile in endpoint.profiles.iter().rev().filter_map(|name| resources.profiles.get(name)) {
        labels.extend(profile.labels.clone());
    }
    for (label, value) in &endpoint.labels {
        if !label.starts_with(NAMESPACE_LABELS) && !label.starts_with(SERVICE_ACCOUNT_LABELS) {
            labels.insert(label.clone(), value.clone());
        }
    }
    labels.insert(NAMESPACE.to_owned(), endpoint.name.namespace.clone());
    labels
}
