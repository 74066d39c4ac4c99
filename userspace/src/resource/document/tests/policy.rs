//! Policies, tiers, profiles and network sets: what good ones become, and what Calico would refuse.

use super::*;
use crate::resource::policy::{Action, IcmpMatch, Policy, Port, PortRange, Protocol, ScopedName};

const POLICY: &str = "\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: { name: web, namespace: shop }
spec:
  tier: security
  order: 12.5
  selector: role == 'web'
  types: [Ingress]
  ingress:
    - action: Allow
      protocol: TCP
      source: { selector: role == 'lb', nets: ['2001:db8::/32', 192.0.2.0/24], notNets: ['2001:db8:1::/48'] }
      destination: { ports: [80, '8000:8080', metrics] }
    - action: Log
";

fn resource(text: &str) -> Resource {
    let documents = yaml(text);
    assert!(!documents[0].problems.iter().any(Problem::is_error), "{documents:?}");
    match &documents[0].content {
        Content::Resource(resource) => resource.as_ref().clone(),
        other => panic!("{other:?}"),
    }
}

fn policy(text: &str) -> Policy {
    match resource(text) {
        Resource::Policy(policy) => policy,
        other => panic!("{other:?}"),
    }
}

/// A policy with this one rule.
fn with_rule(rule: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{ name: p }}\nspec:\n  ingress: [{rule}]\n"
    )
}

/// What is wrong with a rule.
fn refused(rule: &str) -> String {
    let documents = yaml(with_rule(rule));
    assert_eq!(documents[0].content, Content::Refused, "{rule}");
    problems(&documents).join("\n")
}

#[test]
fn a_good_policy_is_read_whole() {
    let policy = policy(POLICY);
    assert_eq!(policy.name.to_string(), "shop/web");
    assert_eq!((policy.tier.as_str(), policy.order.0), ("security", Some(12.5)));
    assert_eq!(policy.selector.to_string(), "(projectcalico.org/namespace == 'shop' && role == 'web')");
    assert_eq!(policy.egress, None);
    let [allow, log] = policy.ingress.as_deref().unwrap() else { panic!("{policy:?}") };
    assert_eq!((allow.action, allow.ipv6, allow.protocol), (Action::Allow, true, Some(Protocol::TCP)));
    assert_eq!(
        allow.source.selector.as_ref().unwrap().to_string(),
        "(projectcalico.org/namespace == 'shop' && role == 'lb')"
    );
    assert_eq!(allow.source.nets, Some(vec!["2001:db8::/32".parse().unwrap()]));
    assert_eq!(allow.source.not_nets, ["2001:db8:1::/48".parse().unwrap()]);
    let range = |first, last| Port::Range(PortRange::new(first, last).unwrap());
    assert_eq!(
        allow.destination.ports,
        [range(80, 80), range(8000, 8080), Port::Named("metrics".to_owned())]
    );
    assert_eq!(log.action, Action::Log);
}

#[test]
fn without_types_both_directions_are_governed() {
    let policy = policy(&POLICY.replace("  types: [Ingress]\n", ""));
    assert_eq!(policy.egress, Some(vec![]));
}

#[test]
fn neutron_writes_protocols_in_three_ways() {
    for written in ["6", "'6'", "TCP", "tcp"] {
        let policy = policy(&with_rule(&format!("{{action: Allow, protocol: {written}}}")));
        assert_eq!(policy.ingress.unwrap()[0].protocol, Some(Protocol::TCP), "{written}");
    }
}

#[test]
fn rules_of_ipv4_are_kept_and_never_match() {
    for rule in ["{action: Allow, ipVersion: 4}", "{action: Allow, protocol: ICMP, icmp: {type: 8}}"] {
        assert!(!policy(&with_rule(rule)).ingress.unwrap()[0].ipv6, "{rule}");
    }
    let only_ipv4 = policy(&with_rule("{action: Allow, source: {nets: [192.0.2.0/24]}}"));
    assert_eq!(only_ipv4.ingress.unwrap()[0].source.nets, Some(vec![]));
}

#[test]
fn icmp_types_and_codes() {
    let policy =
        policy(&with_rule("{action: Deny, protocol: ICMPv6, icmp: {type: 1, code: 4}, notICMP: {type: 3}}"));
    let rule = &policy.ingress.unwrap()[0];
    assert_eq!(rule.icmp, Some(IcmpMatch { kind: Some(1), code: Some(4) }));
    assert_eq!(rule.not_icmp, Some(IcmpMatch { kind: Some(3), code: None }));
}

#[test]
fn namespaces_become_conditions_on_labels() {
    let selector = |rule: &str| {
        let rule = &policy(&with_rule(rule)).ingress.unwrap()[0];
        rule.source.selector.as_ref().unwrap().to_string()
    };
    assert_eq!(selector("{action: Allow, source: {selector: a == 'b'}}"), "a == 'b'");
    assert_eq!(
        selector("{action: Allow, source: {namespaceSelector: all()}}"),
        "has(projectcalico.org/namespace)"
    );
    assert_eq!(
        selector("{action: Allow, source: {namespaceSelector: global(), selector: has(x)}}"),
        "(!(has(projectcalico.org/namespace)) && has(x))"
    );
    assert_eq!(
        selector("{action: Allow, source: {namespaceSelector: \"env == 'dev'\"}}"),
        "pcns.env == 'dev'"
    );
    assert_eq!(
        selector("{action: Allow, source: {serviceAccounts: {names: [web]}}}"),
        "projectcalico.org/serviceaccount in {'web'}"
    );
}

#[test]
fn what_calico_would_refuse_is_refused_with_its_consequence() {
    let missing = "Calico would treat the whole policy as missing";
    for (rule, what) in [
        ("{action: Permit}", "`Permit` is none of Allow, Deny, Pass, Log"),
        (
            "{action: Allow, protocol: 58, destination: {ports: [128]}}",
            "needs `protocol: TCP`, UDP or SCTP beside it",
        ),
        (
            "{action: Allow, protocol: TCP, destination: {ports: ['9:8']}}",
            "the range 9:8 is the wrong way round",
        ),
        ("{action: Allow, protocol: TCP, icmp: {type: 1}}", "needs `protocol: ICMPv6` beside it"),
        ("{action: Allow, protocol: ICMPv6, icmp: {code: 1}}", "needs a `type` beside it"),
        ("{action: Allow, ipVersion: 4, protocol: ICMPv6}", "not a protocol of this ipVersion"),
        ("{action: Allow, protocol: SMTP}", "`SMTP` is no protocol"),
        ("{action: Allow, source: {nets: [2001:db8::/129]}}", "`2001:db8::/129` is no prefix"),
        ("{action: Allow, ipVersion: 5}", "there are 4 and 6"),
    ] {
        let message = refused(rule);
        assert!(message.contains(what) && message.contains(missing), "{rule}: {message}");
    }
    assert!(refused("{action: Allow, http: {methods: [GET]}}").contains("need a proxy"));
    assert!(refused("{action: Allow, source: {services: {name: a}}}").contains("services are unknown"));
    assert!(refused("{action: Allow, source: {selector: 'a = b'}}").contains("selector, column"));
    assert!(refused("{action: Allow, colour: red}").contains("unknown key"));
}

#[test]
fn a_policy_of_host_endpoints_is_valid_and_not_used() {
    let text = with_rule("{action: Allow}").replace("spec:\n", "spec:\n  preDNAT: true\n");
    let documents = yaml(text);
    assert_eq!(documents[0].content, Content::Unused);
    assert!(problems(&documents)[0].contains("host endpoints only"));
}

#[test]
fn tiers_profiles_and_network_sets() {
    let head = |kind: &str, spec: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{ name: x, labels: {{ a: b }} }}\nspec: {spec}\n"
        )
    };
    match resource(&head("Tier", "{order: 10, defaultAction: Pass}")) {
        Resource::Tier(tier) => assert_eq!((tier.order.0, tier.passes), (Some(10.0), true)),
        other => panic!("{other:?}"),
    }
    match resource(&head("Profile", "{ingress: [{action: Allow}], labelsToApply: {pcns.env: dev}}")) {
        Resource::Profile(profile) => {
            assert_eq!((profile.ingress.len(), profile.egress.len()), (1, 0));
            assert_eq!(profile.labels["pcns.env"], "dev");
        }
        other => panic!("{other:?}"),
    }
    for (kind, namespace) in [("NetworkSet", Some("default".to_owned())), ("GlobalNetworkSet", None)] {
        match resource(&head(kind, "{nets: ['2001:db8::/64', '2001:db8:1::7', 10.0.0.0/8]}")) {
            Resource::NetworkSet(set) => {
                assert_eq!(set.name, ScopedName { namespace, name: "x".to_owned() });
                assert_eq!(set.nets.len(), 2);
                assert_eq!(set.labels["a"], "b");
            }
            other => panic!("{other:?}"),
        }
    }
    let wrong = yaml(head("Tier", "{defaultAction: Allow}"));
    assert!(problems(&wrong)[0].contains("`Allow` is none of Deny, Pass"));
}
