//! What is written, by example. What it means to packets is shown by the tests with real ones.

use super::*;
use crate::config::LimitsConfig;
use crate::plan::policy::{Tunnels, policies};
use crate::plan::{HostFacts, LinkFacts, plan};
use crate::resource::Resources;
use crate::resource::document::{Content, Format, parse};
use std::path::Path;

const NODE: &str = "compute-1";

/// What is written for these documents on a host with these TAPs.
fn written_with(documents: &str, taps: &[&str], policed: bool, host_is_open: bool) -> String {
    let mut resources = Resources::default();
    for document in parse(Path::new("test.yaml"), Format::Yaml, documents.as_bytes()).unwrap() {
        match document.content {
            Content::Resource(resource) => resources.insert(*resource),
            other => panic!("{other:?}: {:?}", document.problems),
        }
    }
    let link = |ifindex| LinkFacts {
        ifindex,
        mac: Some("00:61:fe:ed:ca:fe".parse().unwrap()),
        mtu: 1500,
        admin_up: true,
        carrier: true,
        tap: true,
    };
    let facts = HostFacts { links: (1..).zip(taps).map(|(i, name)| ((*name).to_owned(), link(i))).collect() };
    let settings = crate::plan::Settings { node: NODE, tap_prefix: "tap" };
    let plan = plan(&resources, &facts, settings);
    let limits = LimitsConfig::default();
    let settings = Settings { tap_prefix: "tap", host_is_open, host_is_judged: false, limits: &limits };
    let policies = policed.then(|| policies(&resources, NODE, Tunnels::default()));
    ruleset(policies.as_ref(), &plan, settings).text(Generation(7))
}

fn written(documents: &str, taps: &[&str], host_is_open: bool) -> String {
    written_with(documents, taps, true, host_is_open)
}

fn endpoint(tap: &str, n: u8) -> String {
    format!(
        "{{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {{name: vm{n}, namespace: default}}, \
         spec: {{node: {NODE}, interfaceName: \"{tap}\", mac: \"fa:16:3e:00:00:0{n}\", \
         ipNetworks: [\"2001:db8::{n}/128\"], ipv6Gateway: \"2001:db8::ff\"}}}}\n---\n"
    )
}

fn global(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {{name: {name}}}, spec: {spec}}}\n---\n"
    )
}

/// The lines of a block, without indentation.
fn block<'a>(text: &'a str, head: &str) -> Vec<&'a str> {
    let (_, rest) =
        text.split_once(&format!("\t{head} {{\n")).unwrap_or_else(|| panic!("no {head} in {text}"));
    let (inner, _) = rest.split_once("\t}\n").unwrap();
    inner.lines().map(str::trim).collect()
}

#[test]
fn endpoints_are_found_by_their_taps() {
    let text = written(&(endpoint("tap1", 1) + &endpoint("tap2", 2)), &["tap1", "tap2", "tap3"], false);
    assert_eq!(block(&text, "set endpoints"), ["type ifname", "elements = { \"tap1\", \"tap2\" }"]);
    assert_eq!(
        block(&text, "set gateways")[1],
        "elements = { \"tap1\" . 2001:db8::ff, \"tap1\" . fe80::261:feff:feed:cafe, \
         \"tap2\" . 2001:db8::ff, \"tap2\" . fe80::261:feff:feed:cafe }"
    );
    // Nobody has a policy, so both share the chains that deny all.
    let shared =
        |number| format!("elements = {{ \"tap1\" : jump policy_{number}, \"tap2\" : jump policy_{number} }}");
    assert_eq!(block(&text, "map ingress")[1], shared(0));
    assert_eq!(block(&text, "map egress")[1], shared(1));
    assert_eq!(
        block(&text, "chain policy_0"),
        ["counter drop comment \"no policy or profile allows it\"", "drop"]
    );
    assert_eq!(block(&text, "set here"), ["type ipv6_addr", "elements = { 2001:db8::1, 2001:db8::2 }"]);
    let closed = "iif { 3 } counter drop comment \"TAP without endpoint\"";
    assert!(block(&text, "chain guard").contains(&closed), "{text}");
}

#[test]
fn each_tap_has_a_share_of_the_host() {
    let text = written(&(endpoint("tap1", 1) + &endpoint("tap2", 2)), &["tap1", "tap2"], false);
    assert_eq!(
        block(&text, "set link_locals_1"),
        ["type ipv6_addr", "size 8", "flags dynamic,timeout", "timeout 60s"]
    );
    assert_eq!(block(&text, "chain link_locals_of_1")[0], "update @link_locals_1 { ip6 saddr } return");
    assert_eq!(
        block(&text, "map link_locals")[1],
        "elements = { \"tap1\" : jump link_locals_of_0, \"tap2\" : jump link_locals_of_1 }"
    );
    assert_eq!(
        block(&text, "chain link_scope"),
        [
            "ip6 saddr fe80::/10 iifname vmap @link_locals",
            "icmpv6 type { 133, 135 } goto solicitation",
            "add @packets_for_host { iifname limit rate over 200/second burst 500 packets } \
             counter drop comment \"limit of packets_for_host\"",
            "accept",
        ]
    );
    assert_eq!(block(&text, "set packets_for_host"), ["type ifname", "size 2", "flags dynamic"]);
}

#[test]
fn the_host_is_closed_or_asks_policy() {
    let closed = written(&endpoint("tap1", 1), &["tap1"], false);
    assert_eq!(block(&closed, "chain to_host").last(), Some(&"counter drop comment \"host closed\""));
    let open = written(&endpoint("tap1", 1), &["tap1"], true);
    assert!(block(&open, "chain to_host").contains(&"goto ask"));
}

#[test]
fn without_policy_there_are_guard_and_limits() {
    let text = written_with(&endpoint("tap1", 1), &["tap1", "tap2"], false, false);
    assert_eq!(block(&text, "set sources")[1], "elements = { \"tap1\" . 2001:db8::1 }");
    assert_eq!(block(&text, "chain from_vm").last(), Some(&"accept"));
    assert_eq!(block(&text, "chain to_vm").last(), Some(&"accept"));
    assert!(block(&text, "chain link_scope").len() > 1);
    for chain in ["judge", "ask", "to_host", "policy_0"] {
        assert!(!text.contains(&format!("chain {chain} {{")), "{chain} in {text}");
    }
}

#[test]
fn rules_are_written_for_packets_and_for_their_answers() {
    let policy = global(
        "web",
        "{egress: [{action: Log, protocol: TCP}, {action: Allow, protocol: TCP, source: {ports: [7]}, \
         destination: {nets: [\"2001:db8:1::/64\"], ports: [80, 81, \"443:500\"]}}, \
         {action: Deny, protocol: ICMPv6, icmp: {type: 128}}, {action: Allow, protocol: ICMPv6, \
         notICMP: {type: 130, code: 1}}]}",
    );
    let text = written(&(endpoint("tap1", 1) + &policy), &["tap1"], false);
    let origin = |rule| format!("tier default, policy web, rule {rule}");
    assert_eq!(
        block(&text, "set addresses_0"),
        ["type ipv6_addr", "flags interval", "elements = { 2001:db8:1::/64 }"]
    );
    let log = "meta l4proto 6 limit rate 10/second burst 20 packets log prefix \"serval: ";
    assert_eq!(
        block(&text, "chain policy_1"),
        [
            "meta l4proto 17 th dport { 4789 } counter drop comment \"VXLAN from a VM\"".to_owned(),
            "meta l4proto 4 counter drop comment \"IP in IP from a VM\"".to_owned(),
            format!("{log}{} \" level info", origin(0)),
            format!(
                "meta l4proto 6 th sport {{ 7 }} ip6 daddr @addresses_0 th dport {{ 80-81, 443-500 }} \
                 counter return comment \"{}\"",
                origin(1)
            ),
            format!("meta l4proto 58 @th,0,8 0x80 counter drop comment \"{}\"", origin(2)),
            format!("meta l4proto 58 @th,0,16 != 0x8201 counter return comment \"{}\"", origin(3)),
            "counter drop comment \"end of tier default\"".to_owned(),
            "drop".to_owned(),
        ]
    );
    assert_eq!(
        block(&text, "chain policy_1_answer")[3..6],
        [
            format!(
                "meta l4proto 6 th dport {{ 7 }} ip6 saddr @addresses_0 th sport {{ 80-81, 443-500 }} \
                 counter return comment \"{}\"",
                origin(1)
            ),
            // What is answered is an echo request.
            format!("meta l4proto 58 counter drop comment \"{}\"", origin(2)),
            format!("meta l4proto 58 counter return comment \"{}\"", origin(3)),
        ]
    );
}

#[test]
fn tiers_that_pass_are_parts() {
    let tier = "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: first}, \
                spec: {order: 1, defaultAction: Pass}}\n---\n";
    let first = global(
        "first.a",
        "{tier: first, ingress: [{action: Deny, source: {nets: [\"2001:db8:bad::/48\"]}}]}",
    );
    let second = global("b", "{ingress: [{action: Allow, source: {nets: [\"::/0\"]}}]}");
    let text = written(&[endpoint("tap1", 1).as_str(), tier, &first, &second].concat(), &["tap1"], false);
    assert_eq!(
        block(&text, "chain policy_0"),
        [
            "jump policy_0_part_0",
            "meta mark & 0x800000 == 0 return",
            "meta mark set meta mark & 0xff7fffff",
            "jump policy_0_part_1",
        ]
    );
    let pass = "meta mark set meta mark | 0x800000 return";
    assert_eq!(
        block(&text, "chain policy_0_part_0"),
        [
            "ip6 saddr @addresses_0 counter drop comment \"tier first, policy first.a, rule 0\"".to_owned(),
            format!("counter {pass} comment \"end of tier first\""),
            pass.to_owned(),
        ]
    );
    let allowed = "counter return comment \"tier default, policy b, rule 0\"";
    assert_eq!(block(&text, "chain policy_0_part_1"), [allowed, "drop"]);
}

#[test]
fn a_name_that_cannot_be_written_is_closed() {
    let text = written(&(endpoint("tap\\\"", 1) + &endpoint("tap2", 2)), &["tap\"", "tap2"], false);
    assert_eq!(block(&text, "set endpoints")[1], "elements = { \"tap2\" }");
    assert!(block(&text, "chain guard").contains(&"iif { 1 } counter drop comment \"TAP without endpoint\""));
}

#[test]
fn generations_follow_each_other() {
    let first = Generation::at(1_800_000_000, None);
    let second = Generation::at(1_800_000_000, Some(first));
    assert_ne!(first, second);
    assert_ne!(Generation::at(1_800_000_001, Some(second)), second);
    assert_ne!(first.mark(), 0);
    assert_eq!(first.mark() & !GENERATION_MASK, 0);
    let text = written(&endpoint("tap1", 1), &[], false);
    assert_eq!(Generation::of_listing(&text), Some(Generation(7)));
    assert_eq!(Generation::of_listing("table ip6 serval {\n}\n"), None);
}
