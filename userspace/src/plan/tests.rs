use super::*;
use crate::resource::Subnet;
use proptest::prelude::*;
use std::collections::BTreeSet;

const SETTINGS: Settings<'static> = Settings { node: "compute-1", tap_prefix: "tap" };

fn name(name: &str) -> EndpointName {
    EndpointName { namespace: "default".into(), name: name.into() }
}

fn address(text: &str) -> HostAddress {
    HostAddress::new(text.parse().unwrap()).unwrap()
}

fn endpoint(of: &str, tap: &str, addresses: &[&str]) -> WorkloadEndpoint {
    WorkloadEndpoint {
        name: name(of),
        node: "compute-1".into(),
        interface: tap.parse().unwrap(),
        mac: "fa:16:3e:00:00:01".parse().unwrap(),
        addresses: addresses.iter().map(|text| address(text)).collect(),
        allowed_pairs: vec![],
        gateway: None,
        labels: BTreeMap::new(),
        profiles: vec![],
        ports: vec![],
        network_id: None,
        fqdn: None,
    }
}

fn subnet(name: &str, cidr: &str) -> Subnet {
    Subnet {
        name: name.into(),
        cidr: cidr.parse().unwrap(),
        network_id: None,
        dns_servers: vec![],
        search_domains: vec![],
        ntp_servers: vec![],
        valid_lifetime: Subnet::VALID_LIFETIME,
        router_lifetime: Subnet::ROUTER_LIFETIME,
    }
}

fn tap(ifindex: u32) -> LinkFacts {
    LinkFacts {
        ifindex,
        mac: Some("fe:16:3e:00:00:01".parse().unwrap()),
        mtu: 1500,
        admin_up: true,
        carrier: true,
        tap: true,
    }
}

fn facts(links: &[(&str, LinkFacts)]) -> HostFacts {
    HostFacts { links: links.iter().map(|(name, link)| ((*name).to_owned(), link.clone())).collect() }
}

fn resources(endpoints: &[WorkloadEndpoint], subnets: &[Subnet]) -> Resources {
    Resources {
        endpoints: endpoints.iter().map(|e| (e.name.clone(), e.clone())).collect(),
        subnets: subnets.iter().map(|s| (s.name.clone(), s.clone())).collect(),
        ..Resources::default()
    }
}

fn attached<'a>(plan: &'a Plan, of: &str) -> &'a Attached {
    match &plan.endpoints[&name(of)] {
        EndpointPlan::Attached(attached) => attached,
        other => panic!("{of} is {other:?}"),
    }
}

fn reason<'a>(plan: &'a Plan, of: &str) -> &'a str {
    match &plan.endpoints[&name(of)] {
        EndpointPlan::Rejected { reason, .. } => reason,
        other => panic!("{of} is {other:?}"),
    }
}

#[test]
fn attaches_to_the_tap_that_is_there() {
    let mut a = endpoint("a", "tap1", &["2001:db8::10", "2001:db8::11"]);
    a.allowed_pairs = vec![address("2001:db8::beef")];
    a.gateway = Some(address("2001:db8::1"));
    a.fqdn = Some("web1.example".into());
    let plan = plan(&resources(&[a], &[]), &facts(&[("tap1", tap(7))]), SETTINGS);
    let a = attached(&plan, "a");
    assert_eq!(a.ifindex, 7);
    assert_eq!(a.gateway, "fe80::fc16:3eff:fe00:1".parse::<Ipv6Addr>().unwrap());
    assert_eq!(a.gateways, [address("2001:db8::1")]);
    assert_eq!(a.leased, [address("2001:db8::10"), address("2001:db8::11")]);
    assert_eq!(a.addresses, [address("2001:db8::10"), address("2001:db8::11"), address("2001:db8::beef")]);
    assert_eq!(a.network.fqdn.as_deref(), Some("web1.example"));
    assert_eq!((a.network.valid_lifetime, a.network.router_lifetime), (86_400, 9_000));
    assert!(plan.blocked.is_empty() && plan.conflicts.is_empty());
}

#[test]
fn an_endpoint_without_ipv6_is_attached_and_guarded() {
    let plan = plan(&resources(&[endpoint("a", "tap1", &[])], &[]), &facts(&[("tap1", tap(7))]), SETTINGS);
    assert!(attached(&plan, "a").addresses.is_empty());
}

#[test]
fn waits_for_a_tap_and_ignores_other_nodes() {
    let a = endpoint("a", "tap1", &["2001:db8::10"]);
    let mut migrating = endpoint("b", "tap1", &["2001:db8::10"]);
    migrating.node = "compute-2".into();
    let plan = plan(&resources(&[a, migrating], &[]), &facts(&[]), SETTINGS);
    assert!(matches!(plan.endpoints[&name("a")], EndpointPlan::Pending { .. }));
    assert_eq!(plan.endpoints.len(), 1);
    assert!(plan.conflicts.is_empty());
}

#[test]
fn blocks_taps_that_nobody_has() {
    let a = endpoint("a", "tap1", &["2001:db8::10"]);
    let b = endpoint("b", "vm2", &["2001:db8::10"]);
    let eth = LinkFacts { tap: false, ..tap(4) };
    let links = [
        ("tap1", tap(1)),
        ("vm2", tap(2)),
        ("tap3", tap(3)),
        ("tapeth", eth),
        ("vm5", tap(5)),
        ("lo", tap(6)),
    ];
    let plan = plan(&resources(&[a, b], &[]), &facts(&links), SETTINGS);
    assert_eq!(plan.blocked, BTreeMap::from([(2, "vm2".parse().unwrap()), (3, "tap3".parse().unwrap())]));
}

#[test]
fn refuses_interfaces_that_cannot_carry_an_endpoint() {
    let cases = [
        (LinkFacts { tap: false, ..tap(1) }, "no TAP"),
        (LinkFacts { mac: None, ..tap(1) }, "no unicast MAC"),
        (LinkFacts { mac: Some("fa:16:3e:00:00:01".parse().unwrap()), ..tap(1) }, "MAC address of the VM"),
        (LinkFacts { mtu: 1279, ..tap(1) }, "MTU 1279"),
    ];
    for (link, expected) in cases {
        let is_tap = link.tap;
        let plan = plan(&resources(&[endpoint("a", "tap1", &[])], &[]), &facts(&[("tap1", link)]), SETTINGS);
        assert!(reason(&plan, "a").contains(expected), "{}", reason(&plan, "a"));
        assert_eq!(plan.blocked.contains_key(&1), is_tap, "{expected}");
    }
}

#[test]
fn first_by_name_keeps_address_and_tap() {
    let a = endpoint("a", "tap1", &["2001:db8::10"]);
    let same_address = endpoint("b", "tap2", &["2001:db8::11", "2001:db8::10"]);
    let same_tap = endpoint("c", "tap1", &["2001:db8::12"]);
    // What a rejected endpoint wanted is free for the next.
    let d = endpoint("d", "tap2", &["2001:db8::11"]);
    let links = facts(&[("tap1", tap(1)), ("tap2", tap(2))]);
    let plan = plan(&resources(&[a, same_address, same_tap, d], &[]), &links, SETTINGS);
    assert_eq!(attached(&plan, "a").ifindex, 1);
    assert_eq!(
        reason(&plan, "b"),
        "address 2001:db8::10 is also that of a, which keeps it; give one of them another address"
    );
    assert!(reason(&plan, "c").starts_with("TAP tap1 is also that of a"));
    assert_eq!(attached(&plan, "d").ifindex, 2);
    let fields: Vec<_> = plan.conflicts.iter().map(|c| (c.loser.to_string(), c.field)).collect();
    assert_eq!(
        fields,
        [
            ("WorkloadEndpoint b".to_owned(), "spec.ipNetworks"),
            ("WorkloadEndpoint c".to_owned(), "spec.interfaceName")
        ]
    );
}

#[test]
fn a_conflict_does_not_wait_for_the_tap() {
    let a = endpoint("a", "tap1", &["2001:db8::10"]);
    let b = endpoint("b", "tap2", &["2001:db8::10"]);
    let plan = plan(&resources(&[a, b], &[]), &facts(&[("tap2", tap(2))]), SETTINGS);
    assert!(matches!(plan.endpoints[&name("a")], EndpointPlan::Pending { .. }));
    assert!(reason(&plan, "b").contains("2001:db8::10"));
}

#[test]
fn nobody_takes_the_address_of_a_router() {
    let mut own = endpoint("a", "tap1", &["2001:db8::10"]);
    own.gateway = Some(address("2001:db8::10"));
    let mut b = endpoint("b", "tap2", &["2001:db8::11"]);
    b.gateway = Some(address("2001:db8::1"));
    b.allowed_pairs = vec![address("2001:db8::1"), address("2001:db8::12")];
    let c = endpoint("c", "tap3", &["2001:db8::1"]);
    let links = facts(&[("tap1", tap(1)), ("tap2", tap(2)), ("tap3", tap(3))]);
    let plan = plan(&resources(&[own, b, c], &[]), &links, SETTINGS);
    assert!(reason(&plan, "a").contains("its own ipv6Gateway"));
    assert_eq!(attached(&plan, "b").addresses, [address("2001:db8::11"), address("2001:db8::12")]);
    assert!(reason(&plan, "c").contains("b's ipv6Gateway"));
    let pairs: Vec<_> = plan.conflicts.iter().filter(|c| c.field == "spec.allowedIps").collect();
    assert_eq!(pairs.len(), 1);
    assert_eq!(pairs[0].severity, Severity::Note);
}

#[test]
fn a_pair_takes_nothing_from_another_vm() {
    let mut a = endpoint("a", "tap1", &["2001:db8::10"]);
    a.allowed_pairs = vec![address("2001:db8::11"), address("2001:db8::aa")];
    let mut b = endpoint("b", "tap2", &["2001:db8::11"]);
    b.allowed_pairs = vec![address("2001:db8::aa"), address("2001:db8::bb")];
    let links = facts(&[("tap1", tap(1)), ("tap2", tap(2))]);
    let plan = plan(&resources(&[a, b], &[]), &links, SETTINGS);
    assert_eq!(attached(&plan, "a").addresses, [address("2001:db8::10"), address("2001:db8::aa")]);
    assert_eq!(attached(&plan, "b").addresses, [address("2001:db8::11"), address("2001:db8::bb")]);
    assert_eq!(plan.conflicts.len(), 2);
}

#[test]
fn settings_come_from_the_subnets_of_the_addresses() {
    let mut one = subnet("one", "2001:db8:0:1::/64");
    one.dns_servers = vec!["2001:db8::53".parse().unwrap()];
    one.search_domains = vec!["one.example".into()];
    one.valid_lifetime = 600;
    let mut two = subnet("two", "2001:db8:0:2::/64");
    two.dns_servers = vec!["2001:db8::54".parse().unwrap(), "2001:db8::53".parse().unwrap()];
    two.router_lifetime = 1800;
    let a = endpoint("a", "tap1", &["2001:db8:0:2::1", "2001:db8:0:1::1"]);
    let b = endpoint("b", "tap2", &["2001:db8:0:3::1"]);
    let links = facts(&[("tap1", tap(1)), ("tap2", tap(2))]);
    let plan = plan(&resources(&[a, b], &[one, two]), &links, SETTINGS);
    let network = &attached(&plan, "a").network;
    let dns: Vec<_> = network.dns_servers.iter().map(ToString::to_string).collect();
    assert_eq!(dns, ["2001:db8::54", "2001:db8::53"]);
    assert_eq!(network.search_domains, ["one.example"]);
    assert_eq!((network.valid_lifetime, network.router_lifetime), (600, 1800));
    assert!(attached(&plan, "b").network.dns_servers.is_empty());
}

#[test]
fn overlapping_subnets_need_a_network() {
    let mut first = subnet("a", "2001:db8::/48");
    first.search_domains = vec!["first.example".into()];
    let mut second = subnet("b", "2001:db8:0:1::/64");
    second.search_domains = vec!["second.example".into()];
    let mut vm = endpoint("a", "tap1", &["2001:db8:0:1::1"]);
    vm.network_id = Some("net-2".into());
    let links = facts(&[("tap1", tap(1))]);

    let overlapping = plan(&resources(&[vm.clone()], &[first.clone(), second.clone()]), &links, SETTINGS);
    assert_eq!(attached(&overlapping, "a").network.search_domains, ["first.example"]);
    assert_eq!(overlapping.conflicts[0].loser, ResourceId::Subnet("b".into()));
    assert_eq!(overlapping.conflicts[0].field, "spec.cidr");

    first.network_id = Some("net-1".into());
    second.network_id = Some("net-2".into());
    let told_apart = plan(&resources(&[vm], &[first, second]), &links, SETTINGS);
    assert_eq!(attached(&told_apart, "a").network.search_domains, ["second.example"]);
    assert!(told_apart.conflicts.is_empty());
}

/// Few names and addresses, so that they clash often.
fn any_endpoint() -> impl Strategy<Value = WorkloadEndpoint> {
    let some_address = || (0u16..8).prop_map(|n| address(&format!("2001:db8::{n:x}1")));
    let addresses = || prop::collection::vec(some_address(), 0..3);
    (0u8..12, 0u8..6, addresses(), addresses(), prop::option::weighted(0.2, some_address()), any::<bool>())
        .prop_map(|(id, tap, addresses, allowed_pairs, gateway, here)| WorkloadEndpoint {
            node: if here { "compute-1" } else { "compute-2" }.into(),
            addresses,
            allowed_pairs,
            gateway,
            ..endpoint(&format!("vm{id:02}"), &format!("tap{tap}"), &[])
        })
}

fn any_facts() -> impl Strategy<Value = HostFacts> {
    prop::collection::btree_set(0u32..8, 0..8).prop_map(|taps| HostFacts {
        links: taps.into_iter().map(|n| (format!("tap{n}"), tap(n + 10))).collect(),
    })
}

proptest! {
    #[test]
    fn nothing_has_two_owners(
        endpoints in prop::collection::vec(any_endpoint(), 0..10),
        facts in any_facts(),
    ) {
        let plan = plan(&resources(&endpoints, &[]), &facts, SETTINGS);
        let mut ifindexes = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        let gateways: BTreeSet<_> = plan.attached().flat_map(|(_, a)| a.gateways.clone()).collect();
        for (_, attached) in plan.attached() {
            prop_assert!(ifindexes.insert(attached.ifindex));
            prop_assert!(attached.addresses.starts_with(&attached.leased));
            let own: BTreeSet<_> = attached.addresses.iter().copied().collect();
            for address in own {
                prop_assert!(addresses.insert(address), "{address} twice");
                prop_assert!(!gateways.contains(&address), "{address} is a gateway");
            }
        }
        // Every TAP with our prefix is either somebody's or blocked.
        let blocked: BTreeSet<_> = plan.blocked.keys().copied().collect();
        prop_assert!(ifindexes.is_disjoint(&blocked));
        ifindexes.extend(blocked);
        prop_assert_eq!(ifindexes, facts.links.values().map(|link| link.ifindex).collect());
    }

    /// What comes later by name changes nothing for those before it, unless it names a router.
    #[test]
    fn a_newcomer_takes_nothing(
        endpoints in prop::collection::vec(any_endpoint(), 0..10),
        newcomer in any_endpoint(),
        facts in any_facts(),
    ) {
        let mut newcomer = newcomer;
        newcomer.name = name("zz");
        newcomer.gateway = None;
        newcomer.allowed_pairs.clear();
        let mut endpoints = endpoints;
        for endpoint in &mut endpoints {
            endpoint.allowed_pairs.clear();
        }
        let before = plan(&resources(&endpoints, &[]), &facts, SETTINGS);
        endpoints.push(newcomer);
        let mut after = plan(&resources(&endpoints, &[]), &facts, SETTINGS);
        after.endpoints.remove(&name("zz"));
        prop_assert_eq!(before.endpoints, after.endpoints);
    }
}
