//! What Calico's documents mean, by example.

use super::super::classify::STEPS;
use super::*;
use crate::resource::document::{Content, Format, parse};
use std::path::Path;

pub(super) const NODE: &str = "compute-1";

pub(super) fn resources(text: &str) -> Resources {
    let mut resources = Resources::default();
    for document in parse(Path::new("f"), Format::Yaml, text.as_bytes()).unwrap() {
        match document.content {
            Content::Resource(resource) => resources.insert(*resource),
            other => panic!("{other:?}: {:?}", document.problems),
        }
    }
    resources
}

pub(super) fn endpoint(name: &str, number: u16, labels: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {{ name: {name}, labels: {{ {labels} }} }}\n\
         spec: {{ node: {NODE}, interfaceName: tap{number}, mac: 'fa:16:3e:00:00:01', ipNetworks: ['2001:db8::{number:x}/128'] }}\n"
    )
}

pub(super) fn global(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{ name: {name} }}\nspec: {spec}\n"
    )
}

fn tcp(source: u16, destination: u16, port: u16) -> Packet {
    Packet {
        source: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, source),
        destination: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, destination),
        protocol: Protocol::TCP,
        source_port: 40_000,
        destination_port: port,
        icmp: (0, 0),
    }
}

/// Whether the packet may go to the endpoint of this name.
#[track_caller]
fn enters(text: &str, name: &str, packet: &Packet) -> bool {
    let resources = resources(text);
    let compiled = Compiled::new(&resources, NODE, Tunnels::default());
    let name = EndpointName { namespace: "default".to_owned(), name: name.to_owned() };
    asked(&resources, &compiled, &name, Direction::Ingress, packet).allowed
}

#[test]
fn an_endpoint_that_nothing_selects_is_closed() {
    let world = endpoint("a", 1, "") + &endpoint("b", 2, "");
    assert!(!enters(&world, "a", &tcp(2, 1, 80)));
}

#[test]
fn a_policy_opens_what_it_says_and_closes_the_rest() {
    let world = endpoint("a", 1, "role: web")
        + &endpoint("b", 2, "role: lb")
        + &endpoint("c", 3, "")
        + &global(
            "web",
            "{selector: role == 'web', ingress: [{action: Allow, protocol: TCP, source: {selector: role == 'lb'}, destination: {ports: [80]}}]}",
        );
    assert!(enters(&world, "a", &tcp(2, 1, 80)));
    assert!(!enters(&world, "a", &tcp(2, 1, 81)));
    assert!(!enters(&world, "a", &tcp(3, 1, 80)));
    assert!(!enters(&world, "b", &tcp(1, 2, 80)));
}

#[test]
fn tiers_are_asked_in_order_and_pass_goes_on() {
    let tiers =
        "---\napiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: { name: first }\nspec: { order: 1 }\n";
    let world = endpoint("a", 1, "")
        + &endpoint("b", 2, "")
        + tiers
        + &global(
            "first.gate",
            "{tier: first, ingress: [{action: Pass, protocol: TCP, destination: {ports: [80]}}, {action: Allow, protocol: TCP, destination: {ports: [22]}}]}",
        )
        + &global("all", "{ingress: [{action: Allow, source: {nets: ['2001:db8::2/128']}}]}");
    assert!(enters(&world, "a", &tcp(2, 1, 80)), "passed on and allowed by the default tier");
    assert!(!enters(&world, "a", &tcp(9, 1, 80)), "passed on and not allowed there");
    assert!(enters(&world, "a", &tcp(9, 1, 22)), "allowed by the first tier, others are not asked");
    assert!(!enters(&world, "a", &tcp(2, 1, 23)), "what no rule of a tier matches is denied");
    let passing = world.replace("{ order: 1 }", "{ order: 1, defaultAction: Pass }");
    assert!(enters(&passing, "a", &tcp(2, 1, 23)));
}

#[test]
fn profiles_are_asked_last_and_only_if_no_policy_governs() {
    let profile = "---\napiVersion: projectcalico.org/v3\nkind: Profile\nmetadata: { name: open }\nspec: { ingress: [{ action: Allow }] }\n";
    let open = |world: &str| world.replace("spec: { node", "spec: { profiles: [open], node");
    let world = open(&endpoint("a", 1, "")) + profile;
    assert!(enters(&world, "a", &tcp(2, 1, 80)));
    let egress_only = world.clone() + &global("out", "{types: [Egress], egress: []}");
    assert!(enters(&egress_only, "a", &tcp(2, 1, 80)));
    let governed = world + &global("in", "{types: [Ingress], ingress: []}");
    assert!(!enters(&governed, "a", &tcp(2, 1, 80)));
}

#[test]
fn a_port_by_name_is_whoevers_port_it_is() {
    let ports = "spec: { ports: [{ name: web, protocol: TCP, port: 8080 }], node";
    let world = endpoint("a", 1, "").replace("spec: { node", ports)
        + &global("web", "{ingress: [{action: Allow, protocol: TCP, destination: {ports: [web]}}]}");
    assert!(enters(&world, "a", &tcp(2, 1, 8080)));
    assert!(!enters(&world, "a", &tcp(2, 1, 80)));
}

#[test]
fn long_chains_find_the_same_step() {
    let rules: Vec<String> = (0..1000)
        .map(|i| format!("{{action: Allow, protocol: TCP, destination: {{ports: [{}]}}}}", 2000 + 7 * i))
        .collect();
    let world = endpoint("a", 1, "") + &global("many", &format!("{{ingress: [{}]}}", rules.join(", ")));
    let resources = resources(&world);
    let compiled = Compiled::new(&resources, NODE, Tunnels::default());
    let name = EndpointName { namespace: "default".to_owned(), name: "a".to_owned() };
    for (port, allowed) in
        [(2000, true), (2001, false), (2000 + 7 * 64, true), (2000 + 7 * 999, true), (9001, false)]
    {
        let outcome = asked(&resources, &compiled, &name, Direction::Ingress, &tcp(2, 1, port));
        assert_eq!(outcome.allowed, allowed, "port {port}");
    }
}

#[test]
fn rules_that_log_may_be_many() {
    let log = vec!["{action: Log, protocol: TCP}"; 40].join(", ");
    let world = endpoint("a", 1, "")
        + &global(
            "logs",
            &format!(
                "{{ingress: [{{action: Allow, protocol: UDP}}, {log}, {{action: Deny, destination: {{ports: [81]}}, protocol: TCP}}, {log}, {{action: Pass}}]}}"
            ),
        )
        + "---\napiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: { name: last }\nspec: { order: 2000000 }\n"
        + &global("last.all", &format!("{{tier: last, ingress: [{log}, {{action: Allow}}]}}"));
    assert!(enters(&world, "a", &tcp(9, 1, 80)));
    assert!(!enters(&world, "a", &tcp(9, 1, 81)));
    // The halves are as many steps as there may be, and then more.
    let ports = |count: usize| {
        let rules: Vec<String> = (0..count)
            .map(|i| format!("{{action: Allow, protocol: UDP, destination: {{ports: [{}]}}}}", i + 1))
            .collect();
        let (half, rest) = rules.split_at(count / 2);
        global("a", &format!("{{ingress: [{log}, {}]}}", half.join(", ")))
            + &global("b", &format!("{{ingress: [{}]}}", rest.join(", ")))
    };
    let world = |count| endpoint("a", 1, "") + &ports(count);
    let fault = |text: &str| {
        policies(&resources(text), NODE, Tunnels::default()).endpoints.into_values().next().unwrap().fault
    };
    // 40 that log, and twice the others, the end of the tier, and that of all.
    assert_eq!(fault(&world((STEPS - 40) / 2 - 2)), None);
    let fault = fault(&world((STEPS - 40) / 2 - 1)).unwrap();
    assert!(
        fault.contains("no packet to it may pass: its policies have 4098 rules (counted twice"),
        "{fault}"
    );
}

#[test]
fn what_the_hooks_cannot_follow_is_closed_and_said_so() {
    let tiers: String = (0..31)
        .map(|i| {
            format!("---\napiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {{ name: t{i} }}\nspec: {{ order: {i} }}\n")
                + &global(&format!("t{i}.pass"), &format!("{{tier: t{i}, egress: [{{action: Pass}}], ingress: [{{action: Allow}}]}}"))
        })
        .collect();
    let open = global("open", "{egress: [{action: Allow}]}");
    let resources = |tiers: &str| resources(&(endpoint("a", 1, "") + tiers + &open));
    let of = |resources: &Resources| {
        policies(resources, NODE, Tunnels::default()).endpoints.into_values().next().unwrap()
    };
    let fits =
        of(&resources(&tiers.replace("t30, egress: [{action: Pass}]", "t30, egress: [{action: Allow}]")));
    assert_eq!(fits.fault, None);
    let long = of(&resources(&(tiers.clone() + &tiers.replace("t1", "u1"))));
    assert_eq!(long.egress, Chain::closed());
    assert_ne!(long.ingress, Chain::closed());
    let fault = long.fault.unwrap();
    assert!(fault.contains("no packet from it may pass") && fault.contains("passed on by"), "{fault}");
}

#[test]
fn ten_thousand_members_are_few_identities() {
    let mut sets = Sets::default();
    let many = (0..10_000u16).map(|i| ipnet::Ipv6Net::from(Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, i)));
    let many = sets.nets(many.collect());
    let around = sets.nets(["2001:db8:7::/48".parse().unwrap()].into());
    let identities = classify::Identities::new(&sets);
    let found: Vec<_> = identities.iter().map(|(_, sets)| sets.iter().copied().collect::<Vec<_>>()).collect();
    assert_eq!(found, [vec![around], vec![many, around]]);
}

#[test]
fn no_policy_or_profile_lets_a_tunnel_out_unless_the_host_says_so() {
    let open = "---\napiVersion: projectcalico.org/v3\nkind: Profile\nmetadata: { name: open }\n\
                spec: { egress: [{action: Allow}], ingress: [{action: Allow}] }\n";
    let by_profile = endpoint("a", 1, "").replace("spec: {", "spec: { profiles: [open],") + open;
    let by_policy = endpoint("a", 1, "")
        + &global("logs", "{order: 1, egress: [{action: Log}]}")
        + &global("all", "{order: 2, ingress: [{action: Allow}], egress: [{action: Allow}]}");
    let datagram = |port| Packet { protocol: Protocol::UDP, ..tcp(1, 2, port) };
    let ipip = Packet { protocol: Protocol(4), ..tcp(1, 2, 0) };
    let (vxlan, both) = (Tunnels { vxlan: true, ..Tunnels::default() }, Tunnels { vxlan: true, ipip: true });
    for world in [by_profile, by_policy] {
        let resources = resources(&world);
        let name = EndpointName { namespace: "default".to_owned(), name: "a".to_owned() };
        let asked = |tunnels, direction, packet| {
            asked(&resources, &Compiled::new(&resources, NODE, tunnels), &name, direction, &packet)
        };
        let leaves = |tunnels, packet| asked(tunnels, Direction::Egress, packet);
        for (tunnel, packet) in [(Tunnel::Vxlan, datagram(4789)), (Tunnel::Ipip, ipip)] {
            let outcome = leaves(Tunnels::default(), packet);
            assert_eq!(outcome.origin, Origin::Tunnel(tunnel));
            assert!(!outcome.allowed && outcome.logged.is_empty(), "{outcome:?}");
            assert!(asked(Tunnels::default(), Direction::Ingress, packet).allowed);
            assert!(leaves(both, packet).allowed);
        }
        assert!(leaves(vxlan, datagram(4789)).allowed && !leaves(vxlan, ipip).allowed);
        // What only looks like it: another port or protocol, and the other end's port.
        let other = |protocol, source_port| Packet { protocol, source_port, ..tcp(1, 2, 53) };
        for packet in [
            datagram(4790),
            tcp(1, 2, 4789),
            other(Protocol::UDP, 4789),
            other(Protocol(41), 0),
            other(Protocol(47), 0),
        ] {
            assert!(leaves(Tunnels::default(), packet).allowed, "{packet:?}");
        }
    }
}
