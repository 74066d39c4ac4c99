//! The case table, and states of the tables that need no table.

use crate::runs::{HOOKS, NOWHERE, Question, Seen, difference, in_namespace, on_host, on_kernel};
use dataplane_ebpf::abi::{Counter, Reason};
use dataplane_ebpf::decide::{Action, Hook};
use dataplane_ebpf::host::MemoryFrame;
use serval_tests::cases::policy::{self, Story};
use serval_tests::cases::{self, Case, World};
use serval_tests::program::{INGRESS, Programs};
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn host_build_passes_the_case_table() {
    let mut tables = World::tables(NOWHERE);
    passes(&cases::all(), |hook, case| on_host(&tables, hook, &case.into()));
    cases::steer(&mut tables);
    passes(&cases::steered(), |hook, case| on_host(&tables, hook, &case.into()));
}

#[test]
fn loaded_programs_pass_the_case_table() {
    in_namespace(|object, devices| {
        let mut programs = Programs::load(object);
        let mut tables = World::tables(devices);
        programs.fill(&tables);
        passes(&cases::all(), |hook, case| on_kernel(&mut programs, hook, &case.into()));
        cases::steer(&mut tables);
        programs.fill(&tables);
        passes(&cases::steered(), |hook, case| on_kernel(&mut programs, hook, &case.into()));
    });
}

/// What every hook makes of every case is as the table says.
#[track_caller]
fn passes(cases: &[Case], mut run: impl FnMut(Hook, &Case) -> Seen) {
    let failed: Vec<_> = cases
        .iter()
        .flat_map(|case| HOOKS.map(|hook| differs(case, hook, run(hook, case))))
        .flatten()
        .collect();
    assert!(failed.is_empty(), "{} differ:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn every_drop_reason_has_a_case() {
    let seen: BTreeSet<_> = cases::all()
        .iter()
        .flat_map(|case| {
            let labels = case.xdp.counted.keys().chain(case.tc.counted.keys());
            labels.map(|(_, label)| *label).collect::<Vec<_>>()
        })
        .chain(policy::stories().iter().flat_map(Story::reasons).map(Reason::label))
        .collect();
    // Those need another state of the tables; `states_without_an_endpoint` and `limits` have them.
    let elsewhere = [
        Reason::Unconfigured,
        Reason::AdminDown,
        Reason::HostLimited,
        Reason::LinkLocalLimited,
        Reason::NeighbourLimited,
    ]
    .map(Reason::label);
    let missing: Vec<_> = Reason::ALL
        .iter()
        .map(|reason| reason.label())
        .filter(|label| !seen.contains(label) && !elsewhere.contains(label))
        .collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn case_names_are_unique() {
    let mut seen = BTreeSet::new();
    let (cases, stories) = ([cases::all(), cases::steered()].concat(), policy::stories());
    let names = cases.iter().map(|case| case.name).chain(stories.iter().map(|story| story.name));
    let twice: Vec<_> = names.filter(|name| !seen.insert(*name)).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

/// The frame of a case.
fn question(name: &str) -> Question {
    (&cases::all().into_iter().find(|case| case.name == name).expect("case")).into()
}

#[test]
fn states_without_an_endpoint() {
    let udp = question("UDP");
    let mut down = World::tables(NOWHERE);
    down.endpoints.get_mut(&INGRESS).expect("endpoint").flags = 0;
    let mut unconfigured = World::tables(NOWHERE);
    unconfigured.endpoints.clear();
    for hook in HOOKS {
        for (tables, slot, reason) in
            [(&down, 1, Reason::AdminDown), (&unconfigured, 0, Reason::Unconfigured)]
        {
            let seen = on_host(tables, hook, &udp);
            assert_eq!(seen.outcome.action, Action::Drop, "{hook:?} {reason:?}");
            assert_eq!(seen.counted, [((slot, reason.label()), 1)].into(), "{hook:?}");
        }
        let bytes = [&[0; 12][..], &[8, 0], &[0x45; 20]].concat();
        let ipv4 = Question { frame: MemoryFrame { bytes, ..MemoryFrame::default() }, ..udp.clone() };
        let seen = on_host(&unconfigured, hook, &ipv4);
        assert_eq!(seen.outcome.action, Action::Pass, "IPv4 is the kernel's");
    }
}

#[test]
fn xdp_leaves_to_tc_what_it_has_no_device_for() {
    let mut untold = World::tables(NOWHERE);
    untold.devices.clear();
    let deferred = || [((1, Counter::Deferred.label()), 1)].into();
    for (name, counted) in [
        ("UDP", deferred()),
        ("by the default route", deferred()),
        // Frames of the host's are not counted.
        ("from afar: UDP", BTreeMap::new()),
    ] {
        let question = question(name);
        let seen = on_host(&untold, Hook::Xdp, &question);
        assert_eq!((seen.outcome.action, seen.outcome.bytes), (Action::Pass, question.frame.bytes), "{name}");
        assert_eq!(seen.counted, counted, "{name}");
        let by_tc = on_host(&untold, Hook::Tc, &self::question(name));
        assert!(matches!(by_tc.outcome.action, Action::Redirect(_)), "{name}: {:?}", by_tc.outcome.action);
    }
}

#[test]
fn states_without_routes_or_uplinks() {
    let mut alone = World::tables(NOWHERE);
    alone.routes.clear();
    alone.host_routes.clear();
    alone.uplinks.clear();
    for hook in HOOKS {
        for name in ["by the default route", "a /128 wins over a prefix", "from afar: UDP"] {
            let question = question(name);
            let seen = on_host(&alone, hook, &question);
            assert_eq!(seen.outcome.action, Action::Pass, "{name} by {hook:?}");
            assert_eq!(seen.outcome.bytes, question.frame.bytes, "{name} by {hook:?}");
        }
    }
}

/// A tag that the kernel has taken out of the bytes, of whatever VLAN.
#[test]
fn tagged_frames_from_afar_are_the_hosts() {
    let tables = World::tables(NOWHERE);
    for vlan in [0, 5] {
        let mut tagged = question("from afar: UDP");
        tagged.frame.vlan = Some(vlan);
        let seen = on_host(&tables, Hook::Tc, &tagged);
        assert_eq!((seen.outcome.action, seen.outcome.bytes), (Action::Pass, tagged.frame.bytes));
        assert!(seen.counted.is_empty(), "{:?}", seen.counted);
    }
}

/// What differs from what the table says, as text.
fn differs(case: &Case, hook: Hook, seen: Seen) -> Option<String> {
    difference(hook, case.expected(hook), &seen).map(|difference| format!("{:?} {difference}", case.name))
}
