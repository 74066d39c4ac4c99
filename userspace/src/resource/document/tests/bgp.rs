//! Node, BGPConfiguration and BGPPeer: what good ones become, and every refusal.

use super::*;
use crate::resource::{BgpConfiguration, BgpPeer, Hosts, NextHop, Node, Remote};

const NODE: &str = "\
apiVersion: projectcalico.org/v3
kind: Node
metadata:
  name: compute-1
  labels: { rack: a }
spec:
  bgp: { asNumber: 64513, ipv4Address: 192.0.2.1/24, ipv6Address: '2001:db8::1/64', routeReflectorClusterID: 192.0.2.250 }
  orchRefs: [{ nodeName: compute-1, orchestrator: openstack }]
";

const SETTINGS: &str = "\
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: { name: default }
spec:
  asNumber: '64513'
  nodeToNodeMeshEnabled: false
  listenPort: 1790
  nodeMeshMaxRestartTime: 2m
  nodeMeshPassword: { secretKeyRef: { name: bgp, key: mesh } }
  communities: [{ name: red, value: '64512:1' }]
  prefixAdvertisements: [{ cidr: '2001:db8::/32', communities: [red, '64512:2:3'] }, { cidr: 10.0.0.0/8, communities: [red] }]
";

const PEER: &str = "\
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: { name: tor }
spec:
  nodeSelector: rack == 'a'
  peerIP: '[2001:db8::ff]:1790'
  asNumber: 65000
  keepOriginalNextHop: true
  ttlSecurity: 1
  maxRestartTime: 30s
";

fn only(text: &str) -> Resource {
    let documents = yaml(text);
    assert_eq!(problems(&documents), [""; 0]);
    match &documents[0].content {
        Content::Resource(resource) => resource.as_ref().clone(),
        other => panic!("{other:?}"),
    }
}

fn node(text: &str) -> Node {
    let Resource::Node(node) = only(text) else { panic!("{text}") };
    node
}

fn settings(text: &str) -> BgpConfiguration {
    let Resource::BgpConfiguration(settings) = only(text) else { panic!("{text}") };
    settings
}

fn peer(text: &str) -> BgpPeer {
    let Resource::BgpPeer(peer) = only(text) else { panic!("{text}") };
    peer
}

#[test]
fn a_node_is_read_whole() {
    let node = node(NODE);
    assert_eq!((node.name.as_str(), node.labels["rack"].as_str()), ("compute-1", "a"));
    let bgp = node.bgp.unwrap();
    assert_eq!(bgp.as_number.unwrap().get(), 64_513);
    assert_eq!(bgp.ipv4.unwrap().to_string(), "192.0.2.1");
    assert_eq!(bgp.ipv6.unwrap().to_string(), "2001:db8::1");
    assert_eq!(bgp.cluster_id.unwrap().to_string(), "192.0.2.250");
}

#[test]
fn a_node_may_say_nothing() {
    let bare = "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: { name: n }\n";
    assert_eq!(node(bare).bgp, None);
    assert_eq!(node(&format!("{bare}spec: {{}}\nstatus: {{ podCIDRs: [] }}\n")).bgp, None);
}

#[test]
fn settings_are_read_whole_and_names_of_communities_resolved() {
    let settings = settings(SETTINGS);
    assert_eq!(settings.as_number.unwrap().get(), 64_513);
    assert_eq!(
        (settings.mesh, settings.listen_port, settings.mesh_restart_time),
        (Some(false), Some(1790), Some(120))
    );
    assert_eq!(settings.mesh_password.unwrap().key, "mesh");
    assert_eq!(settings.communities.len(), 1, "IPv4 is no matter of ours");
    let all: Vec<_> = settings.communities[0].1.iter().map(ToString::to_string).collect();
    assert_eq!(all, ["64512:1", "64512:2:3"]);
}

#[test]
fn a_peer_is_a_router_or_hosts() {
    let router = peer(PEER);
    assert!(matches!(&router.hosts, Hosts::Chosen(selector) if selector.to_string() == "rack == 'a'"));
    let Remote::Router { address, port, as_number } = router.remote else { panic!("{router:?}") };
    assert_eq!((address.to_string().as_str(), port, as_number.get()), ("2001:db8::ff", Some(1790), 65_000));
    assert_eq!(
        (router.next_hop, router.ttl_security, router.restart_time),
        (NextHop::Keep, Some(1), Some(30))
    );
    assert!(router.source_is_node && router.reverse);

    let hosts = peer(
        &PEER
            .replace("nodeSelector: rack == 'a'", "node: compute-1\n  nodeSelector: ''")
            .replace(
                "peerIP: '[2001:db8::ff]:1790'\n  asNumber: 65000",
                "peerSelector: has(rr)\n  asNumber: 0",
            )
            .replace("ttlSecurity: 1", "reversePeering: Manual\n  nextHopMode: Self\n  sourceAddress: None"),
    );
    assert!(matches!(&hosts.hosts, Hosts::One(name) if name == "compute-1"));
    assert!(matches!(&hosts.remote, Remote::Hosts(selector) if selector.to_string() == "has(rr)"));
    assert_eq!((hosts.next_hop, hosts.source_is_node, hosts.reverse), (NextHop::Own, false, false));
    let all = peer(
        &PEER.replace("  nodeSelector: rack == 'a'\n", "").replace("[2001:db8::ff]:1790", "2001:db8::ff"),
    );
    assert!(matches!(all.remote, Remote::Router { port: None, .. }));
    assert_eq!(all.hosts, Hosts::All);
}

#[test]
fn ipv4_is_no_matter_of_ours() {
    let text = PEER.replace("'[2001:db8::ff]:1790'", "192.0.2.1");
    assert_eq!(
        problems(&yaml(&text)),
        ["f:6:11: note: BGPPeer tor: spec.peerIP: an IPv4 peer; IPv4 is left to others"]
    );
}

#[test]
fn a_mistake_says_where_and_what_is_right() {
    for (text, from, to, expected) in [
        (
            NODE,
            "64513",
            "0",
            "f:7:20: Node compute-1: spec.bgp.asNumber: AS 0 is reserved; private ones are 64512 to 65534",
        ),
        (NODE, "64513", "[]", "f:7:20: Node compute-1: spec.bgp.asNumber: expected a text, found a list"),
        (
            NODE,
            "192.0.2.1/24",
            "192.0.2.1/33",
            "f:7:40: Node compute-1: spec.bgp.ipv4Address: `192.0.2.1/33` is no such address; write one like 192.0.2.1/24",
        ),
        (
            NODE,
            "2001:db8::1/64",
            "fe80::1",
            "f:7:67: Node compute-1: spec.bgp.ipv6Address: `fe80::1` is a link-local address, which is not routed; give a global or unique local unicast address",
        ),
        (
            NODE,
            "192.0.2.250",
            "'::1'",
            "f:7:110: Node compute-1: spec.bgp.routeReflectorClusterID: `::1` is no BGP identifier; write one like 192.0.2.1",
        ),
        (NODE, "orchRefs", "orchrefs", "f:8:3: Node compute-1: spec.orchrefs: unknown key;"),
        (
            SETTINGS,
            "false",
            "'no'",
            "f:6:26: BGPConfiguration default: spec.nodeToNodeMeshEnabled: expected true or false, found the text `no`",
        ),
        (
            SETTINGS,
            "1790",
            "70000",
            "f:7:15: BGPConfiguration default: spec.listenPort: expected a whole number from 1 to 65535, found the number 70000",
        ),
        (
            SETTINGS,
            "2m",
            "2",
            "f:8:27: BGPConfiguration default: spec.nodeMeshMaxRestartTime: expected a text in quotes, found the number 2",
        ),
        (
            SETTINGS,
            "2m",
            "2h",
            "f:8:27: BGPConfiguration default: spec.nodeMeshMaxRestartTime: `2h` is no duration of 1 to 4095 seconds; write one like 120s or 1m30s",
        ),
        (
            SETTINGS,
            "name: bgp",
            "name: ..",
            "f:9:45: BGPConfiguration default: spec.nodeMeshPassword.secretKeyRef.name: `..` begins with a dot; a secret's name and key do not",
        ),
        (
            SETTINGS,
            "[red, ",
            "[blue, ",
            "f:11:65: BGPConfiguration default: spec.prefixAdvertisements[0].communities[0]: `blue` is neither the name of one of spec.communities nor a community like 64512:100",
        ),
        (
            PEER,
            "rack == 'a'",
            "rack = 'a'",
            "f:5:17: BGPPeer tor: spec.nodeSelector: selector, column 6: expected `==`, `!=`,",
        ),
        (
            PEER,
            "  nodeSelector",
            "  node: n1\n  nodeSelector",
            "f:6:17: BGPPeer tor: spec.nodeSelector: cannot stand beside `node`; remove one of them",
        ),
        (
            PEER,
            "  peerIP",
            "  peerSelector: all()\n  peerIP",
            "f:6:17: BGPPeer tor: spec.peerSelector: cannot stand beside `peerIP`; remove one of them",
        ),
        (
            PEER,
            "  asNumber: 65000\n",
            "",
            "f:6:11: BGPPeer tor: spec.peerIP: needs the AS of the peer beside it; give `asNumber`",
        ),
        (
            PEER,
            "  peerIP: '[2001:db8::ff]:1790'\n",
            "",
            "f:5:3: BGPPeer tor: spec.peerIP: missing; it is required",
        ),
        (
            PEER,
            "'[2001:db8::ff]:1790'",
            "tor.example",
            "f:6:11: BGPPeer tor: spec.peerIP: `tor.example` is no address; write one like 2001:db8::1 or [2001:db8::1]:1790",
        ),
        (
            PEER,
            "'[2001:db8::ff]:1790'",
            "'fe80::1'",
            "f:6:11: BGPPeer tor: spec.peerIP: `fe80::1` is link-local and needs an interface; put this peer into [bird] of the configuration",
        ),
        (
            PEER,
            "ttlSecurity: 1",
            "nextHopMode: Me",
            "f:9:16: BGPPeer tor: spec.nextHopMode: `Me` is none of Auto, Self, Keep",
        ),
        (
            PEER,
            "ttlSecurity: 1",
            "localWorkloadSelector: all()",
            "f:9:26: BGPPeer tor: spec.localWorkloadSelector: sessions with VMs are not supported",
        ),
        (
            PEER,
            "ttlSecurity: 1",
            "filters: [f]",
            "f:9:12: note: BGPPeer tor: spec.filters: not used: what is announced and accepted is decided in [bird] of the configuration",
        ),
    ] {
        let found = faults(text, from, to);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{to}: {found:#?}\n{expected}");
    }
}
