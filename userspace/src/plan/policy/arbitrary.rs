//! Random policies, endpoints and packets from a small world, so that they meet. For tests, also those of other crates.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use super::Tunnels;
use super::reference::Packet;
use super::tunnel::{IPIP, VXLAN_PORT};
use crate::resource::policy::{
    Action, Entity, IcmpMatch, NetworkSet, Order, Policy, Port, PortRange, Profile, Protocol, Rule,
    ScopedName, Tier,
};
use crate::resource::{
    EndpointName, HostAddress, NamedPort, Resource, Resources, Selector, WorkloadEndpoint,
};
use ipnet::Ipv6Net;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::ops::Range;

/// The node of most endpoints.
pub const NODE: &str = "here";

/// Addresses of this world: endpoint n has those of 2 n and 2 n + 1, and some are nobody's.
pub const ADDRESSES: u16 = 16;

/// The address of a number. Its endpoint's TAP is `tap` and the endpoint's number.
pub fn address(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, number / 4, 0, 0, 0, number)
}

fn addresses() -> impl Strategy<Value = Ipv6Addr> {
    (0..ADDRESSES).prop_map(address)
}

fn nets() -> impl Strategy<Value = Ipv6Net> {
    (addresses(), select(vec![0u8, 32, 62, 63, 64, 126, 127, 128]))
        .prop_map(|(address, length)| Ipv6Net::new(address, length).unwrap().trunc())
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    let names = select(vec!["a", "b", "pcns.env"]).prop_map(str::to_owned);
    btree_map(names, select(vec!["x", "y"]).prop_map(str::to_owned), 0..3)
}

fn selectors() -> impl Strategy<Value = Selector> {
    select(vec![
        "all()",
        "a == 'x'",
        "has(b)",
        "!has(a)",
        "b != 'x'",
        "a in {'x', 'y'} && b == 'y'",
        "pcns.env == 'x'",
        "projectcalico.org/namespace == 'one'",
        "!has(projectcalico.org/namespace)",
    ])
    .prop_map(|text| text.parse().unwrap())
}

fn protocols() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::TCP, Protocol::UDP, Protocol::ICMP6, Protocol(50), IPIP])
}

fn port_numbers() -> impl Strategy<Value = u16> {
    select(vec![0u16, 1, 22, 79, 80, 81, 443, 1000, VXLAN_PORT, 32_768, 65_534, 65_535])
}

fn ports() -> impl Strategy<Value = Port> {
    prop_oneof![
        3 => (port_numbers(), port_numbers())
            .prop_map(|(a, b)| Port::Range(PortRange::new(a.min(b), a.max(b)).unwrap())),
        1 => select(vec!["web", "dns"]).prop_map(|name| Port::Named(name.to_owned())),
    ]
}

fn icmp() -> impl Strategy<Value = IcmpMatch> {
    option::of((select(vec![0u8, 1, 128, 254]), option::of(select(vec![0u8, 1, 255])))).prop_map(|wanted| {
        let (kind, code) = wanted.unzip();
        IcmpMatch { kind, code: code.flatten() }
    })
}

fn entities() -> impl Strategy<Value = Entity> {
    (
        option::weighted(0.3, vec(nets(), 0..3)),
        vec(nets(), 0..2),
        option::weighted(0.3, selectors()),
        option::weighted(0.2, selectors()),
        prop_oneof![2 => Just(vec![]), 1 => vec(ports(), 1..3)],
        prop_oneof![4 => Just(vec![]), 1 => vec(ports(), 1..3)],
    )
        .prop_map(|(nets, not_nets, selector, not_selector, ports, not_ports)| Entity {
            nets,
            not_nets,
            selector,
            not_selector,
            ports,
            not_ports,
        })
}

/// Rules as validation leaves them: ports and ICMPv6 types only with a protocol that has them.
fn rules() -> impl Strategy<Value = Rule> {
    (
        select(vec![Action::Allow, Action::Allow, Action::Deny, Action::Pass, Action::Log]),
        prop::bool::weighted(0.9),
        option::of(protocols()),
        option::weighted(0.2, protocols()),
        option::weighted(0.5, icmp()),
        option::weighted(0.3, icmp()),
        entities(),
        entities(),
    )
        .prop_map(
            |(action, ipv6, protocol, not_protocol, icmp, not_icmp, mut source, mut destination)| {
                if !protocol.is_some_and(Protocol::has_ports) {
                    for end in [&mut source, &mut destination] {
                        end.ports.clear();
                        end.not_ports.clear();
                    }
                }
                let is_icmp = protocol == Some(Protocol::ICMP6);
                Rule {
                    action,
                    ipv6,
                    protocol,
                    not_protocol,
                    icmp: icmp.filter(|_| is_icmp),
                    not_icmp: not_icmp.filter(|_| is_icmp),
                    source,
                    destination,
                }
            },
        )
}

fn policies(rules_each: Range<usize>) -> impl Strategy<Value = Policy> {
    (
        (option::of(select(vec!["one", "two"])), select(vec!["p", "q", "default.r", "s"])),
        select(vec!["default", "first", "second", "unknown"]),
        option::of(select(vec![-1.0, 0.0, 10.5])),
        selectors(),
        option::weighted(0.8, vec(rules(), rules_each.clone())),
        option::weighted(0.8, vec(rules(), rules_each)),
    )
        .prop_map(|((namespace, name), tier, order, selector, ingress, egress)| Policy {
            name: ScopedName { namespace: namespace.map(str::to_owned), name: name.to_owned() },
            tier: tier.to_owned(),
            order: Order(order),
            selector,
            ingress,
            egress,
        })
}

fn endpoints() -> impl Strategy<Value = Vec<WorkloadEndpoint>> {
    let named = (select(vec!["web", "dns"]), protocols(), select(vec![22u16, 80, 81]))
        .prop_map(|(name, protocol, port)| NamedPort { name: name.to_owned(), protocol, port });
    let endpoint = (
        select(vec!["one", "two", "default"]),
        select(vec![NODE, NODE, "elsewhere"]),
        labels(),
        subsequence(vec!["left", "right"], 0..=2),
        vec(named, 0..3),
    );
    vec(endpoint, 1..6).prop_map(|endpoints| {
        let numbered = (0u16..).zip(endpoints);
        let endpoint =
            |(number, (namespace, node, labels, profiles, ports)): (u16, (&str, &str, _, Vec<&str>, _))| {
                let own = |number| HostAddress::new(address(number)).unwrap();
                WorkloadEndpoint {
                    name: EndpointName { namespace: namespace.to_owned(), name: format!("vm{number}") },
                    node: node.to_owned(),
                    interface: format!("tap{number}").parse().unwrap(),
                    mac: "fa:16:3e:00:00:01".parse().unwrap(),
                    addresses: vec![own(2 * number)],
                    allowed_pairs: vec![own(2 * number + 1)],
                    gateway: None,
                    labels,
                    profiles: profiles.into_iter().map(str::to_owned).collect(),
                    ports,
                    network_id: None,
                    fqdn: None,
                }
            };
        numbered.map(endpoint).collect()
    })
}

/// Documents of all kinds.
pub fn worlds() -> impl Strategy<Value = Resources> {
    worlds_with(0..6)
}

/// The same, with so many rules in each direction of a policy.
pub fn worlds_with(rules_each: Range<usize>) -> impl Strategy<Value = Resources> {
    let tier = (option::of(select(vec![1.0, 2.0])), any::<bool>());
    let profile = || (vec(rules(), 0..3), vec(rules(), 0..3), labels());
    let set = (option::of(select(vec!["one", "two"])), vec(nets(), 0..4), labels());
    (
        vec(policies(rules_each), 0..8),
        endpoints(),
        (tier.clone(), tier),
        (profile(), profile()),
        vec(set, 0..3),
    )
        .prop_map(|(policies, endpoints, tiers, profiles, sets)| {
            let mut resources = Resources::default();
            for policy in policies {
                resources.insert(Resource::Policy(policy));
            }
            for endpoint in endpoints {
                resources.insert(Resource::WorkloadEndpoint(endpoint));
            }
            for (name, (order, passes)) in [("first", tiers.0), ("second", tiers.1)] {
                resources.insert(Resource::Tier(Tier { name: name.to_owned(), order: Order(order), passes }));
            }
            for (name, (ingress, egress, labels)) in [("left", profiles.0), ("right", profiles.1)] {
                resources.insert(Resource::Profile(Profile {
                    name: name.to_owned(),
                    ingress,
                    egress,
                    labels,
                }));
            }
            for (number, (namespace, nets, labels)) in sets.into_iter().enumerate() {
                let name =
                    ScopedName { namespace: namespace.map(str::to_owned), name: format!("set{number}") };
                resources.insert(Resource::NetworkSet(NetworkSet { name, nets, labels }));
            }
            resources
        })
}

/// What VMs may send.
pub fn tunnels() -> impl Strategy<Value = Tunnels> {
    any::<(bool, bool)>().prop_map(|(vxlan, ipip)| Tunnels { vxlan, ipip })
}

/// Packets between addresses of this world; one in four is of a kind that VMs may not send unless they are told to.
pub fn packets() -> impl Strategy<Value = Packet> {
    let tunnel = prop_oneof![
        6 => Just(None),
        1 => Just(Some((Protocol::UDP, VXLAN_PORT))),
        1 => Just(Some((IPIP, 0))),
    ];
    let kinds = (select(vec![0u8, 1, 2, 128, 254]), select(vec![0u8, 1, 2, 255]));
    let services = (protocols(), port_numbers(), tunnel)
        .prop_map(|(protocol, port, tunnel)| tunnel.unwrap_or((protocol, port)));
    (addresses(), addresses(), services, port_numbers(), kinds).prop_map(
        |(source, destination, (protocol, destination_port), source_port, icmp)| Packet {
            source,
            destination,
            protocol,
            source_port,
            destination_port,
            icmp,
        },
    )
}
