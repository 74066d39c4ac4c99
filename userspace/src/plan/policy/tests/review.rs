//! What a change touches: by example, and never nothing where a verdict changes.

use super::super::arbitrary::{self, packets, worlds};
use super::super::review::{ChainChange, MemberChange, SetSource, review};
use super::examples::{NODE, endpoint, global, resources};
use super::*;
use crate::resource::ScopedName;
use proptest::collection::vec;
use proptest::prelude::*;

/// The names of the endpoints that are touched, and how.
fn touched(before: &str, after: &str) -> BTreeMap<String, Vec<(Direction, ChainChange)>> {
    let compile = |text: &str| policies(&resources(text), NODE, Tunnels::default());
    let touched = review(&compile(before), &compile(after));
    touched.into_iter().map(|(name, changes)| (name.name, changes)).collect()
}

fn rule(policy: &str, rule: usize) -> Origin {
    let policy = ScopedName { namespace: None, name: policy.to_owned() };
    Origin::Rule { tier: "default".into(), policy, rule }
}

/// Endpoints `web` and `db`, each with a policy of its own.
fn world(web: &str) -> String {
    endpoint("web", 1, "role: web")
        + &endpoint("db", 2, "role: db")
        + &global("db", "{selector: role == 'db', ingress: [{action: Allow, protocol: TCP}]}")
        + &global("web", &format!("{{selector: role == 'web', ingress: [{web}]}}"))
}

const HTTP: &str = "{action: Allow, protocol: TCP, destination: {ports: [80]}}";
const TLS: &str = "{action: Allow, protocol: TCP, destination: {ports: [443]}}";
const LB: &str = "{action: Allow, source: {selector: role == 'lb'}}";

#[test]
fn nothing_changed_touches_nothing() {
    assert_eq!(touched(&world(HTTP), &world(HTTP)), BTreeMap::new());
}

#[test]
fn a_rule_touches_whom_its_policy_selects_and_nobody_else() {
    let touched = touched(&world(TLS), &world(&format!("{HTTP}, {TLS}")));
    let [(name, changes)] = &touched.into_iter().collect::<Vec<_>>()[..] else { panic!("not one") };
    let [(Direction::Ingress, change)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(name, "web");
    // The other rule is another by its number only.
    assert_eq!((&change.come[..], &change.go[..]), (&[rule("web", 0)][..], &[][..]));
    assert!(!change.reordered && change.members.is_empty());
}

#[test]
fn a_rule_that_changes_goes_and_comes() {
    let touched = touched(&world(HTTP), &world(TLS));
    let change = &touched["web"][0].1;
    assert_eq!((&change.come[..], &change.go[..]), (&[rule("web", 0)][..], &[rule("web", 0)][..]));
}

#[test]
fn another_order_is_a_change_and_other_numbers_are_none() {
    let one = touched(&world(&format!("{HTTP}, {TLS}")), &world(&format!("{TLS}, {HTTP}")));
    assert!(one["web"][0].1.reordered && one.len() == 1, "{one:?}");
    // A set in front of all others, and a rule that never matches in front of the others.
    let never = "{action: Deny, ipVersion: 4}";
    let with_sets = |first: &str| {
        global("a", &format!("{{selector: role == 'db', egress: [{first}]}}"))
            + &world(&format!("{LB}, {HTTP}"))
    };
    let other = touched(
        &with_sets("{action: Allow, destination: {nets: ['2001:db8:1::/64']}}"),
        &with_sets("{action: Allow, destination: {nets: ['2001:db8:1::/64']}, notProtocol: TCP}")
            .replace(LB, &format!("{never}, {LB}")),
    );
    assert_eq!(other.keys().collect::<Vec<_>>(), ["db"]);
}

#[test]
fn who_is_chosen_is_a_change_of_those_whose_rules_choose() {
    let joined = world(LB) + &endpoint("lb", 3, "role: lb");
    let touched = touched(&world(LB), &joined);
    let [(name, changes)] = &touched.into_iter().collect::<Vec<_>>()[..] else { panic!("not one") };
    let MemberChange { of, joined, left } = &changes[0].1.members[0];
    assert!(matches!(of, SetSource::Selector(_)), "{of:?}");
    assert_eq!((name.as_str(), *joined, *left), ("web", 1, 0));
    assert!(changes[0].1.come.is_empty() && changes[0].1.go.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn who_is_not_touched_is_judged_as_before(
        before in worlds(),
        after in worlds(),
        packets in vec(packets(), 1..24),
    ) {
        let compiled = |resources| policies(resources, arbitrary::NODE, Tunnels::default());
        let touched = review(&compiled(&before), &compiled(&after));
        let same = before.endpoints.values().filter(|endpoint| endpoint.node == arbitrary::NODE);
        for endpoint in same.filter(|endpoint| !touched.contains_key(&endpoint.name)) {
            let Some(then) = after.endpoints.get(&endpoint.name).filter(|then| then.node == arbitrary::NODE) else { continue };
            for packet in &packets {
                for direction in [Direction::Ingress, Direction::Egress] {
                    let now = reference::evaluate(&before, Tunnels::default(), endpoint, direction, packet).allowed;
                    let then = reference::evaluate(&after, Tunnels::default(), then, direction, packet).allowed;
                    prop_assert_eq!(now, then, "{} {:?} {:?}", endpoint.name, direction, packet);
                }
            }
        }
    }

    #[test]
    fn the_same_resources_touch_nobody(resources in worlds()) {
        let compiled = || policies(&resources, arbitrary::NODE, Tunnels::default());
        prop_assert_eq!(review(&compiled(), &compiled()), BTreeMap::new());
    }
}
