//! The case table on the host build of the decision and on the loaded programs: verdict, exact bytes and all counters.
//! Then the same for frames that nobody thought of: both must agree.

use dataplane_ebpf::abi::Reason;
use dataplane_ebpf::decide::{Action, Hook, from_vm};
use dataplane_ebpf::host::{MemoryFrame, MemoryTables};
use serval_tests::cases::{self, Case, Devices, Expected, World};
use serval_tests::netns::Namespace;
use serval_tests::program::{INGRESS, Outcome, Programs, object};
use std::collections::BTreeSet;

const SLOTS: u32 = 8;
const HOOKS: [Hook; 2] = [Hook::Xdp, Hook::Tc];

#[test]
fn host_build_passes_the_case_table() {
    let tables = World::tables(Devices { b: 2, c: 3 });
    let failed: Vec<_> = cases::all()
        .iter()
        .flat_map(|case| {
            HOOKS.map(|hook| differs(case, hook, on_host(&tables, hook, &case.frame, case.multicast_spent)))
        })
        .flatten()
        .collect();
    assert!(failed.is_empty(), "{} differ:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn loaded_programs_pass_the_case_table() {
    in_kernel(|programs, _| {
        let failed: Vec<_> = cases::all()
            .iter()
            .flat_map(|case| {
                HOOKS.map(|hook| {
                    differs(case, hook, on_kernel(programs, hook, &case.frame, case.multicast_spent))
                })
            })
            .flatten()
            .collect();
        assert!(failed.is_empty(), "{} differ:\n{}", failed.len(), failed.join("\n"));
    });
}

#[test]
fn every_drop_reason_has_a_case() {
    let seen: BTreeSet<_> = cases::all()
        .iter()
        .flat_map(|case| case.tc.counted.keys().map(|(_, label)| *label).collect::<Vec<_>>())
        .collect();
    // Those need another state of the tables; `states_without_an_endpoint` has them.
    let elsewhere = [Reason::Unconfigured, Reason::AdminDown, Reason::NoDevice].map(Reason::label);
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
    let twice: Vec<_> =
        cases::all().iter().map(|case| case.name).filter(|name| !seen.insert(*name)).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[test]
fn host_and_kernel_agree_on_any_frame() {
    in_kernel(|programs, tables| {
        let cases = cases::all();
        let mut random = Random(0x0005_e7a1_0001);
        for round in 0..20_000 {
            let case = &cases[random.below(cases.len())];
            let mut frame = case.frame.clone();
            mutate(&mut frame, &mut random);
            for hook in HOOKS {
                let host = on_host(tables, hook, &frame, false);
                let kernel = on_kernel(programs, hook, &frame, false);
                assert_eq!(
                    comparable(hook, &host),
                    comparable(hook, &kernel),
                    "round {round}, {hook:?}, from case {:?}:\n{:02x?}",
                    case.name,
                    frame.bytes
                );
            }
        }
    });
}

#[test]
fn states_without_an_endpoint() {
    let frame = cases::all().into_iter().find(|case| case.name == "UDP").expect("case").frame;
    let mut down = World::tables(Devices { b: 2, c: 3 });
    down.endpoints.get_mut(&INGRESS).expect("endpoint").flags = 0;
    let mut unconfigured = World::tables(Devices { b: 2, c: 3 });
    unconfigured.endpoints.clear();
    let mut vanished = World::tables(Devices { b: 2, c: 3 });
    vanished.devices.clear();
    for hook in HOOKS {
        for (tables, slot, reason) in [
            (&down, 1, Reason::AdminDown),
            (&unconfigured, 0, Reason::Unconfigured),
            (&vanished, 1, Reason::NoDevice),
        ] {
            let seen = on_host(tables, hook, &frame, false);
            assert_eq!(seen.outcome.action, Action::Drop, "{hook:?} {reason:?}");
            assert_eq!(seen.counted, [((slot, reason.label()), 1)].into(), "{hook:?}");
        }
        let ipv4 =
            MemoryFrame { bytes: [&[0; 12][..], &[8, 0], &[0x45; 20]].concat(), ..MemoryFrame::default() };
        let seen = on_host(&unconfigured, hook, &ipv4, false);
        assert_eq!(seen.outcome.action, Action::Pass, "IPv4 is the kernel's");
    }
}

#[test]
fn the_verifier_has_room() {
    in_kernel(|programs, _| {
        for (name, instructions) in programs.verified_instructions() {
            println!("{name}: {instructions} instructions verified");
            // The kernel gives up at 1,000,000; growth is noticed long before.
            assert!(instructions < 250_000, "{name}: {instructions}");
        }
    });
}

/// What a hook did, and what it counted.
#[derive(Clone, Debug)]
struct Seen {
    outcome: Outcome,
    counted: std::collections::BTreeMap<(u32, &'static str), u64>,
}

fn on_host(tables: &MemoryTables, hook: Hook, frame: &MemoryFrame, multicast_spent: bool) -> Seen {
    tables.counters.borrow_mut().clear();
    tables.multicast_spent.borrow_mut().clear();
    if multicast_spent {
        tables.multicast_spent.borrow_mut().insert(INGRESS);
    }
    let mut frame = frame.clone();
    if hook == Hook::Xdp {
        // XDP is not told of segmentation.
        frame.gso_size = 0;
    }
    let action = from_vm(&mut frame, tables, INGRESS, hook);
    Seen { outcome: Outcome { action, bytes: frame.bytes }, counted: tables.counted() }
}

fn on_kernel(programs: &mut Programs, hook: Hook, frame: &MemoryFrame, multicast_spent: bool) -> Seen {
    programs.clear_counters(SLOTS);
    programs.set_multicast_spent(multicast_spent);
    let outcome = programs.run(hook, frame);
    Seen { outcome, counted: programs.counted(SLOTS) }
}

/// Runs `test` with the loaded programs and the tables that fill their maps, in a namespace with the receivers' devices.
fn in_kernel(test: impl FnOnce(&mut Programs, &MemoryTables) + Send) {
    if let Some(reason) = serval_tests::unavailable() {
        eprintln!("skipped: {reason}");
        return;
    }
    let Some(object) = object() else {
        eprintln!("skipped: no BPF object; `cargo xtask test` builds it");
        return;
    };
    let namespace = Namespace::new("decision").expect("a namespace");
    namespace
        .enter(|| {
            let devices = serval_tests::program::veth_pair("serval-b", "serval-c");
            let tables = World::tables(Devices { b: devices.0, c: devices.1 });
            let mut programs = Programs::load(&object);
            programs.fill(&tables);
            test(&mut programs, &tables);
            Ok(())
        })
        .expect("the namespace is entered");
}

/// What differs from what the table says, as text.
fn differs(case: &Case, hook: Hook, seen: Seen) -> Option<String> {
    let expected = case.expected(hook);
    let action = visible(hook, seen.outcome.action);
    let got = Expected {
        action,
        bytes: expected.bytes.is_some().then(|| seen.outcome.bytes.clone()),
        counted: seen.counted.clone(),
    };
    let expected = Expected { action: visible(hook, expected.action), ..expected.clone() };
    (got != expected).then(|| {
        format!(
            "{:?} by {hook:?}:\n  wanted {:?} {:?}\n  got    {:?} {:?}\n  bytes {:02x?}\n    vs  {:02x?}",
            case.name, expected.action, expected.counted, got.action, got.counted, expected.bytes, got.bytes
        )
    })
}

/// The answer as a test run shows it: not which device a redirect is for, and for TC a reply is a redirect, too.
fn visible(hook: Hook, action: Action) -> Action {
    match action {
        Action::Redirect(_) => Action::Redirect(0),
        Action::Reply if hook == Hook::Tc => Action::Redirect(0),
        other => other,
    }
}

fn comparable(hook: Hook, seen: &Seen) -> (String, Option<&[u8]>, String) {
    let action = visible(hook, seen.outcome.action);
    let bytes = (action != Action::Drop).then_some(&*seen.outcome.bytes);
    (format!("{action:?}"), bytes, format!("{:?}", seen.counted))
}

/// A few random changes of the kind that parsers get wrong.
fn mutate(frame: &mut MemoryFrame, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let len = frame.bytes.len();
        match random.below(6) {
            0 => {
                let at = random.below(len.min(90));
                frame.bytes[at] ^= 1 << random.below(8);
            }
            1 => {
                let at = random.below(len.min(90));
                frame.bytes[at] = random.below(256) as u8;
            }
            2 if len > 60 => frame.bytes.truncate(54 + random.below(len - 54)),
            3 => frame.bytes.extend((0..random.below(40)).map(|n| n as u8)),
            4 => {
                let headers = [0, 6, 17, 43, 44, 50, 51, 58, 59, 60, 135, 139, 140, 253];
                frame.bytes[20] = headers[random.below(headers.len())];
            }
            _ => {
                let length = (frame.bytes.len() - 54) as u16;
                frame.bytes[18..20].copy_from_slice(&length.to_be_bytes());
            }
        }
    }
}

/// xorshift64*: the same frames in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}
