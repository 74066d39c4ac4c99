//! What wins where both speak, which sessions come of it, and that both ends of a session agree on any set of hosts.

use super::*;
use crate::config::Config;
use crate::resource::document::{self, Content, Format};
use proptest::prelude::*;
use std::path::Path;

fn config(text: &str) -> BirdConfig {
    let text = format!("[bird]\n{text}");
    Config::parse(Path::new("f"), text.as_bytes()).unwrap().bird.unwrap()
}

fn resources(yaml: &str) -> Resources {
    let mut resources = Resources::default();
    for document in document::parse(Path::new("f"), Format::Yaml, yaml.as_bytes()).unwrap() {
        match document.content {
            Content::Resource(resource) => resources.insert(*resource),
            _ => panic!("{:?}", document.problems),
        }
    }
    resources
}

fn calico(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {spec}\n"
    )
}

fn node(name: &str, labels: &str, bgp: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{ name: {name}, labels: {{ {labels} }} }}\nspec: {{ bgp: {{ {bgp} }} }}\n"
    )
}

fn planned(config: &BirdConfig, node: &str, resources: &Resources) -> BirdPlan {
    plan(config, Host { node, tap_prefix: "tap" }, resources)
}

/// Protocol, neighbour and AS of every session.
fn sessions(plan: &BirdPlan) -> Vec<String> {
    let show = |session: &Session| {
        let passive = if session.passive { " passive" } else { "" };
        let client = if session.reflector_client { " client" } else { "" };
        format!("{} {} {}{passive}{client}", session.protocol, session.neighbour, session.remote_as)
    };
    plan.sessions.iter().map(show).collect()
}

fn three_hosts() -> String {
    (1..=3).map(|i| node(&format!("n{i}"), "", &format!("ipv6Address: '2001:db8::{i}/64'"))).collect()
}

#[test]
fn an_empty_section_and_no_resources_make_a_host_without_sessions() {
    let plan = planned(&BirdConfig::default(), "n1", &Resources::default());
    assert_eq!(plan.sessions, []);
    assert_eq!((plan.as_number.get(), plan.port, plan.router_id), (64_512, 179, BgpId::of_name("n1")));
    assert_eq!((plan.notes, plan.conflicts), (Vec::new(), Vec::new()));
}

#[test]
fn the_mesh_is_every_other_node_with_an_address() {
    let resources = resources(
        &(three_hosts() + &node("v4", "", "ipv4Address: 192.0.2.1/24") + &calico("Node", "bare", "{}")),
    );
    let plan = planned(&BirdConfig::default(), "n2", &resources);
    assert_eq!(sessions(&plan), ["mesh_n1 2001:db8::1 64512", "mesh_n3 2001:db8::3 64512 passive"]);
    assert_eq!(plan.sessions[0].source.unwrap().to_string(), "2001:db8::2");
    let off = config("mesh.enabled = false");
    assert_eq!(planned(&off, "n2", &resources).sessions, []);
}

#[test]
fn a_node_that_the_others_do_not_know_is_told() {
    let resources = resources(&three_hosts());
    let plan = planned(&BirdConfig::default(), "n4", &resources);
    assert_eq!(plan.sessions.len(), 3);
    assert!(plan.sessions.iter().all(|session| session.source.is_none() && !session.passive));
    assert_eq!(
        plan.notes,
        ["Node n4 with spec.bgp.ipv6Address is missing: other hosts have no session with this one"]
    );
}

#[test]
fn resources_win_where_both_speak() {
    let config = config(
        "as = 65001\nport = 1790\nmesh.enabled = false\nmesh.password_file = '/p'\ncluster_id = '192.0.2.9'\n\
         communities = [{ prefix = '2001:db8::/32', communities = ['1:1'] }, { prefix = 'fd00::/8', communities = ['1:3', '1:2'] }]",
    );
    let own = "asNumber: '1.10', ipv4Address: 192.0.2.1/24, ipv6Address: '2001:db8::1'";
    let all = calico(
        "BGPConfiguration",
        "default",
        "{ asNumber: 65002, nodeToNodeMeshEnabled: true, listenPort: 1791, nodeMeshMaxRestartTime: 1m30s,
           nodeMeshPassword: { secretKeyRef: { name: bgp, key: mesh } },
           communities: [{ name: red, value: '2:1' }],
           prefixAdvertisements: [{ cidr: '2001:db8::/32', communities: [red, '2:2:2'] }, { cidr: 10.0.0.0/8, communities: [red] }] }",
    );
    let of_n2 = calico("BGPConfiguration", "node.n2", "{ asNumber: 65003, listenPort: 1792 }");
    let resources =
        resources(&(node("n1", "", own) + &node("n2", "", "ipv6Address: '2001:db8::2'") + &all + &of_n2));
    let plan = planned(&config, "n1", &resources);
    assert_eq!(plan.as_number.get(), 65_546);
    assert_eq!((plan.port, plan.router_id.to_string().as_str()), (1791, "192.0.2.1"));
    // The cluster id is a thing that the Node does not speak of.
    assert_eq!(plan.cluster_id, Some("192.0.2.9".parse().unwrap()));
    assert_eq!(plan.sessions, []);
    let marks: Vec<_> =
        plan.communities.iter().map(|(net, all)| (net.to_string(), all.len(), all[0].to_string())).collect();
    assert_eq!(
        marks,
        [("2001:db8::/32".to_owned(), 2, "2:1".to_owned()), ("fd00::/8".to_owned(), 2, "1:2".to_owned())]
    );

    let plan = planned(&BirdConfig { cluster_id: None, ..config }, "n1", &resources);
    let [session] = &plan.sessions[..] else { panic!("{:?}", plan.sessions) };
    assert_eq!((session.remote_as.get(), session.port, session.restart_time), (65_003, 1792, Some(90)));
    assert_eq!(session.password.as_deref(), Some(Path::new("/etc/serval/secrets/bgp/mesh")));
    assert_eq!(session.side, Side::Inside);
}

#[test]
fn reflectors_leave_the_mesh_and_one_peer_resource_joins_them_with_all() {
    let hosts = three_hosts()
        + &node("rr1", "rr: 'true'", "ipv6Address: '2001:db8::11', routeReflectorClusterID: 192.0.2.250")
        + &node("rr2", "rr: 'true'", "ipv6Address: '2001:db8::12', routeReflectorClusterID: 192.0.2.250")
        + &calico("BGPConfiguration", "default", "{ nodeToNodeMeshEnabled: false }")
        + &calico("BGPPeer", "reflectors", "{ nodeSelector: all(), peerSelector: rr == 'true' }");
    let resources = resources(&hosts);
    let of = |node| sessions(&planned(&BirdConfig::default(), node, &resources));
    assert_eq!(
        of("n1"),
        ["peer_reflectors_rr1 2001:db8::11 64512 passive", "peer_reflectors_rr2 2001:db8::12 64512 passive"]
    );
    assert_eq!(
        of("rr1"),
        [
            "peer_reflectors_n1 2001:db8::1 64512 client",
            "peer_reflectors_n2 2001:db8::2 64512 passive client",
            "peer_reflectors_n3 2001:db8::3 64512 passive client",
            "peer_reflectors_rr2 2001:db8::12 64512 passive",
        ]
    );
}

#[test]
fn a_router_is_configured_by_both_and_the_resource_counts() {
    let config = config(
        "peers = [
           { name = 'tor', address = '2001:db8::fe', as = 65100, bfd = true, accept = ['::/0'], hold = 9, password_file = '/p' },
           { name = 'other', address = '2001:db8::fd', as = 65100 },
           { name = 'own', address = 'fe80::1', interface = 'eth0', as = 65100 },
         ]",
    );
    let resources = resources(
        &(node("n1", "rack: a", "ipv6Address: '2001:db8::1'")
            + &calico(
                "BGPPeer",
                "tor",
                "{ nodeSelector: rack == 'a', peerIP: '[2001:db8::ff]:1179', asNumber: 65200, ttlSecurity: 1 }",
            )
            + &calico(
                "BGPPeer",
                "tor2",
                "{ peerIP: '2001:db8::fd', asNumber: 65200, sourceAddress: None, localASNumber: 65000 }",
            )
            + &calico("BGPPeer", "not-here", "{ node: n2, peerIP: '2001:db8::fb', asNumber: 65200 }")),
    );
    let plan = planned(&config, "n1", &resources);
    assert_eq!(
        sessions(&plan),
        ["peer_own fe80::1 65100", "peer_tor 2001:db8::ff 65200", "peer_tor2 2001:db8::fd 65200"]
    );
    let tor = &plan.sessions[1];
    assert_eq!((tor.port, tor.bfd, tor.hold, tor.ttl_security), (1179, Bfd::On, 9, true));
    assert_eq!((tor.reach, tor.side), (Reach::Multihop(Some(1)), Side::Outside));
    assert_eq!((tor.accept.len(), tor.password.as_deref()), (1, Some(Path::new("/p"))));
    let tor2 = &plan.sessions[2];
    assert_eq!((tor2.source, tor2.local_as.get()), (None, 65_000));
    assert_eq!(
        plan.notes,
        ["peer `other` of the configuration has the address of BGPPeer tor2, which counts"]
    );
}

#[test]
fn configured_peers_are_near_outside_and_anywhere_inside() {
    let config = config(
        "address = '2001:db8::1'\npeers = [
           { name = 'outside', address = '2001:db8::fe', as = 65100 },
           { name = 'far', address = '2001:db8:1::fe', as = 65100, multihop = 2 },
           { name = 'inside', address = '2001:db8:2::fe', reflector_client = true },
         ]",
    );
    let plan = planned(&config, "n1", &Resources::default());
    let show = |s: &Session| (s.name.clone(), s.reach, s.side, s.source.is_some(), s.reflector_client);
    assert_eq!(
        plan.sessions.iter().map(show).collect::<Vec<_>>(),
        [
            ("far".to_owned(), Reach::Multihop(Some(2)), Side::Outside, true, false),
            ("inside".to_owned(), Reach::Multihop(None), Side::Inside, true, false),
            ("outside".to_owned(), Reach::Direct, Side::Outside, false, false),
        ]
    );
    assert_eq!(plan.notes.len(), 1, "{:?}", plan.notes);
    let reflector = BirdConfig { cluster_id: Some("192.0.2.1".parse().unwrap()), ..config };
    assert!(planned(&reflector, "n1", &Resources::default()).sessions[1].reflector_client);
}

#[test]
fn what_two_nodes_cannot_both_have_is_a_conflict() {
    let resources = resources(
        &(node("n1", "", "ipv6Address: '2001:db8::1', ipv4Address: 192.0.2.1")
            + &node("n2", "", "ipv6Address: '2001:db8::2', ipv4Address: 192.0.2.1")
            + &node("n3", "", "ipv6Address: '2001:db8::2'")),
    );
    let plan = planned(&BirdConfig::default(), "n1", &resources);
    assert_eq!(sessions(&plan), ["mesh_n2 2001:db8::2 64512 passive"]);
    let messages: Vec<_> = plan.conflicts.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        [
            "Node n2: spec.bgp.ipv4Address: BGP identifier 192.0.2.1 is also that of Node n1, and they will refuse each other; give them different ipv4Addresses",
            "Node n3: spec.bgp.ipv6Address: it is also that of Node n2, which keeps it; give one of them another address",
        ]
    );
}

/// Hosts with any mix of AS, cluster and label, and any mix of peer resources between them.
fn clusters() -> impl Strategy<Value = (Vec<String>, String)> {
    let host = (0..3_u8, 0..3_u8, prop::sample::select(vec!["a", "b"]));
    let selector = prop::sample::select(vec!["all()", "rack == 'a'", "rack == 'b'", "has(rr)"]);
    let peer = (selector.clone(), selector, prop::bool::ANY);
    (prop::collection::vec(host, 1..7), prop::collection::vec(peer, 0..3), prop::bool::ANY).prop_map(
        |(hosts, peers, mesh)| {
            let mut text =
                calico("BGPConfiguration", "default", &format!("{{ nodeToNodeMeshEnabled: {mesh} }}"));
            let mut names = Vec::new();
            for (i, (system, cluster, rack)) in hosts.into_iter().enumerate() {
                let name = format!("host-{i}");
                let mut bgp = format!("ipv6Address: '2001:db8::{i}f'");
                if system > 0 {
                    bgp += &format!(", asNumber: {}", 65_000 + u32::from(system));
                }
                let mut labels = format!("rack: {rack}");
                if cluster > 0 {
                    bgp += &format!(", routeReflectorClusterID: 192.0.2.{cluster}");
                    labels += ", rr: ''";
                }
                text += &node(&name, &labels, &bgp);
                names.push(name);
            }
            for (i, (hosts, remote, reverse)) in peers.into_iter().enumerate() {
                // Without the reverse, symmetry is the operator's to see to.
                let hosts = if reverse { hosts } else { remote };
                let reverse = if reverse { "Auto" } else { "Manual" };
                let spec = format!(
                    "{{ nodeSelector: \"{hosts}\", peerSelector: \"{remote}\", reversePeering: {reverse} }}"
                );
                text += &calico("BGPPeer", &format!("peer-{i}"), &spec);
            }
            (names, text)
        },
    )
}

proptest! {
    #[test]
    fn both_ends_make_the_same_session_of_the_same_resources((names, text) in clusters()) {
        let resources = resources(&text);
        let config = BirdConfig::default();
        let plans: Vec<BirdPlan> = names.iter().map(|name| planned(&config, name, &resources)).collect();
        for (here, plan) in names.iter().zip(&plans) {
            for session in &plan.sessions {
                let there = plans.iter().find(|other| {
                    other.sessions.iter().any(|back| {
                        back.source.map(HostAddress::get) == Some(session.neighbour)
                            && Some(back.neighbour) == session.source.map(HostAddress::get)
                            && back.remote_as == session.local_as
                            && back.local_as == session.remote_as
                            && back.passive != session.passive
                            && !(back.reflector_client && session.reflector_client && !session.internal())
                    })
                });
                prop_assert!(there.is_some(), "{here}: {session:?}\n{text}");
            }
            let mut neighbours: Vec<_> = plan.sessions.iter().map(|session| session.neighbour).collect();
            neighbours.sort();
            neighbours.dedup();
            prop_assert_eq!(neighbours.len(), plan.sessions.len());
        }
    }
}
