//! What the ledger asks for, step by step.

use super::*;
use crate::plan::{EndpointPlan, NetworkSettings};
use crate::resource::{EndpointName, HostAddress};
use proptest::prelude::*;

/// An endpoint on `tap{ifindex}`.
pub fn attached(ifindex: u32, addresses: &[&str]) -> Attached {
    let addresses: Vec<_> =
        addresses.iter().map(|text| HostAddress::new(text.parse().unwrap()).unwrap()).collect();
    Attached {
        interface: format!("tap{ifindex}").parse().unwrap(),
        ifindex,
        admin_up: true,
        carrier: true,
        mtu: 1500,
        mac: "fa:16:3e:00:00:01".parse().unwrap(),
        gateway_mac: "fe:16:3e:00:00:01".parse().unwrap(),
        gateway: "fe80::1".parse().unwrap(),
        gateways: vec![],
        leased: addresses.clone(),
        addresses,
        network: NetworkSettings::default(),
    }
}

fn plan(endpoints: &[Attached], blocked: &[u32]) -> Plan {
    let name = |n: u32| EndpointName { namespace: "default".into(), name: format!("vm{n:03}") };
    Plan {
        endpoints: endpoints.iter().map(|a| (name(a.ifindex), EndpointPlan::Attached(a.clone()))).collect(),
        blocked: blocked.iter().map(|&n| (n, format!("tap{n}").parse().unwrap())).collect(),
        conflicts: vec![],
    }
}

fn failed(message: &str) -> Result<(), Failure> {
    Err(message.to_owned().into())
}

fn make(attached: &Attached) -> Step {
    Step::Make(attached.ifindex, Role::Attached(Box::new(attached.clone())))
}

/// The most urgent step.
fn next(ledger: &Ledger<()>, plan: &Plan, now: Instant) -> Option<Step> {
    ledger.steps(plan, now).into_iter().next()
}

/// Takes steps, all successful, until there is none.
fn settle(ledger: &mut Ledger<()>, plan: &Plan, now: Instant) -> Vec<Step> {
    let mut steps = Vec::new();
    while let Some(step) = next(ledger, plan, now) {
        match step.clone() {
            Step::Remove(ifindex, _) => ledger.removed(ifindex, Ok(()), now),
            Step::Make(ifindex, role) => ledger.made(ifindex, role, (), Ok(()), now),
        }
        steps.push(step);
        assert!(steps.len() < 100, "{steps:?}");
    }
    steps
}

#[test]
fn takes_away_then_closes_then_opens() {
    let now = Instant::now();
    let mut ledger = Ledger::default();
    let (a, b) = (attached(1, &["2001:db8::1"]), attached(2, &["2001:db8::2"]));
    settle(&mut ledger, &plan(&[a.clone(), b], &[]), now);
    let c = attached(4, &["2001:db8::2"]);
    let steps = settle(&mut ledger, &plan(&[a, c.clone()], &[3]), now);
    let tap = |n: u32| -> InterfaceName { format!("tap{n}").parse().unwrap() };
    assert_eq!(steps, [Step::Remove(2, tap(2)), Step::Make(3, Role::Blocked(tap(3))), make(&c)]);
}

#[test]
fn touches_only_what_changed() {
    let now = Instant::now();
    let mut ledger = Ledger::default();
    let (a, b) = (attached(1, &["2001:db8::1"]), attached(2, &["2001:db8::2"]));
    settle(&mut ledger, &plan(&[a.clone(), b.clone()], &[]), now);
    let b = Attached { mtu: 9000, ..b };
    assert_eq!(settle(&mut ledger, &plan(&[a.clone(), b.clone()], &[]), now), [make(&b)]);
    assert_eq!(settle(&mut ledger, &plan(&[a, b], &[]), now), []);
}

#[test]
fn an_address_is_given_up_before_it_is_taken() {
    let now = Instant::now();
    let mut ledger = Ledger::default();
    settle(&mut ledger, &plan(&[attached(1, &[]), attached(2, &["2001:db8::1"])], &[]), now);
    let (a, b) = (attached(1, &["2001:db8::1"]), attached(2, &[]));
    assert_eq!(settle(&mut ledger, &plan(&[a.clone(), b.clone()], &[]), now), [make(&b), make(&a)]);
}

#[test]
fn a_failure_pauses_and_a_change_ends_the_pause() {
    let mut now = Instant::now();
    let mut ledger: Ledger<()> = Ledger::default();
    let a = attached(1, &["2001:db8::1"]);
    let wanted = plan(std::slice::from_ref(&a), &[]);
    let role = || Role::Attached(Box::new(a.clone()));
    let mut pauses = Vec::new();
    for _ in 0..12 {
        assert_eq!(next(&ledger, &wanted, now), Some(make(&a)));
        ledger.made(1, role(), (), failed("no"), now);
        assert_eq!(next(&ledger, &wanted, now), None);
        pauses.push(ledger.wake().unwrap() - now);
        now = ledger.wake().unwrap();
    }
    assert_eq!(pauses[..3], [100, 200, 400].map(Duration::from_millis));
    assert_eq!(*pauses.last().unwrap(), LONGEST_PAUSE);
    ledger.made(1, role(), (), failed("no"), now);
    let changed = Attached { mtu: 1400, ..a.clone() };
    assert_eq!(next(&ledger, &plan(std::slice::from_ref(&changed), &[]), now), Some(make(&changed)));
    ledger.made(1, role(), (), Ok(()), now);
    assert_eq!(ledger.wake(), None);
    assert_eq!(next(&ledger, &wanted, now), None);
}

#[test]
fn a_tap_that_is_vanishing_is_no_news() {
    let now = Instant::now();
    let mut ledger: Ledger<()> = Ledger::default();
    let mut news = |passes| {
        let failure = Failure { message: "it".into(), passes };
        ledger.made(1, Role::Attached(Box::new(attached(1, &[]))), (), Err(failure), now);
        ledger.get(1).and_then(|entry| entry.fault.as_ref()).is_some_and(Fault::is_news)
    };
    assert_eq!([true, true, true].map(&mut news), [false; 3]);
    assert_eq!([false, true, false, true, false].map(&mut news), [false, false, true, false, false]);
}

#[test]
fn what_is_given_up_makes_room_at_once() {
    let now = Instant::now();
    let (a, b) = (attached(1, &[]), attached(2, &[]));
    let blocked = || Role::Blocked(a.interface.clone());
    for (blocks, gone) in
        [(&[][..], Step::Remove(1, a.interface.clone())), (&[1][..], Step::Make(1, blocked()))]
    {
        let mut ledger: Ledger<()> = Ledger::default();
        settle(&mut ledger, &plan(std::slice::from_ref(&a), &[]), now);
        ledger.made(2, Role::Attached(Box::new(b.clone())), (), failed("no room"), now);
        let wanted = plan(std::slice::from_ref(&b), blocks);
        assert_eq!(settle(&mut ledger, &wanted, now), [gone, make(&b)]);
    }
}

#[test]
fn a_removal_that_fails_is_tried_again() {
    let now = Instant::now();
    let mut ledger: Ledger<()> = Ledger::default();
    settle(&mut ledger, &plan(&[attached(1, &[])], &[]), now);
    ledger.removed(1, failed("busy"), now);
    assert_eq!(next(&ledger, &Plan::default(), now), None);
    assert_eq!(settle(&mut ledger, &Plan::default(), now + FIRST_PAUSE).len(), 1);
    assert!(ledger.get(1).is_none());
}

#[test]
fn a_touched_tap_is_looked_at_at_once() {
    let now = Instant::now();
    let mut ledger = Ledger::default();
    let (a, b) = (attached(1, &[]), attached(2, &[]));
    let wanted = plan(&[a.clone(), b.clone()], &[]);
    settle(&mut ledger, &wanted, now);
    ledger.audit();
    ledger.touch(&BTreeSet::from([2, 7]));
    assert!(!ledger.is_audit(2, &Role::Attached(Box::new(b.clone()))));
    assert_eq!(settle(&mut ledger, &wanted, now), [make(&b), make(&a)]);
    ledger.made(2, Role::Attached(Box::new(b.clone())), (), failed("no"), now);
    assert_eq!(next(&ledger, &wanted, now), None);
    ledger.touch(&BTreeSet::from([2]));
    assert_eq!(next(&ledger, &wanted, now), Some(make(&b)));
}

#[test]
fn an_audit_looks_at_everything_once_and_last() {
    let now = Instant::now();
    let mut ledger = Ledger::default();
    let (a, b) = (attached(1, &[]), attached(2, &[]));
    settle(&mut ledger, &plan(std::slice::from_ref(&a), &[3]), now);
    ledger.audit();
    assert!(ledger.is_audit(1, &Role::Attached(Box::new(a.clone()))));
    let steps = settle(&mut ledger, &plan(&[a.clone(), b.clone()], &[3]), now);
    assert_eq!(steps, [Step::Make(3, Role::Blocked("tap3".parse().unwrap())), make(&b), make(&a)]);
}

/// A plan over few TAPs, so that the same ones change their role often.
fn any_plan() -> impl Strategy<Value = Plan> {
    let tap = prop_oneof![Just(None), Just(Some(None)), (0u16..4).prop_map(|n| Some(Some(n)))];
    prop::collection::vec(tap, 5).prop_map(|taps| {
        let taps = || taps.iter().zip(1u32..);
        let endpoints: Vec<_> = taps()
            .filter_map(|(tap, ifindex)| Some(attached(ifindex, &[&format!("2001:db8::{:x}", (*tap)?? + 1)])))
            .collect();
        let blocked: Vec<_> =
            taps().filter(|(tap, _)| matches!(tap, Some(None))).map(|(_, ifindex)| ifindex).collect();
        plan(&endpoints, &blocked)
    })
}

proptest! {
    /// Whatever was planned and failed before: as soon as things work, every TAP is what the last plan says, and
    /// nothing remains to be done.
    #[test]
    fn converges(
        plans in prop::collection::vec(any_plan(), 1..6),
        outcomes in prop::collection::vec(any::<bool>(), 0..40),
    ) {
        let mut now = Instant::now();
        let mut ledger: Ledger<()> = Ledger::default();
        let mut outcomes = outcomes.into_iter();
        for plan in &plans {
            for works in outcomes.by_ref().take(8) {
                let Some(step) = next(&ledger, plan, now) else { break };
                let result = if works { Ok(()) } else { failed("no") };
                match step {
                    Step::Remove(ifindex, _) => ledger.removed(ifindex, result, now),
                    Step::Make(ifindex, role) => ledger.made(ifindex, role, (), result, now),
                }
                now += Duration::from_millis(70);
            }
        }
        let last = &plans[plans.len() - 1];
        settle(&mut ledger, last, now);
        while let Some(wake) = ledger.wake() {
            now = wake;
            settle(&mut ledger, last, now);
        }
        let made: Vec<_> = ledger.attached().map(|(_, attached)| attached.clone()).collect();
        let wanted: Vec<_> = last.attached().map(|(_, attached)| attached.clone()).collect();
        prop_assert_eq!(made, wanted);
        for ifindex in 1..=5 {
            let blocked = ledger.get(ifindex).is_some_and(|entry| matches!(entry.role, Role::Blocked(_)));
            prop_assert_eq!(blocked, last.blocked.contains_key(&ifindex));
        }
        prop_assert_eq!(next(&ledger, last, now + LONGEST_PAUSE), None);
    }
}
