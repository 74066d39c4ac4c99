//! Runs of single frames on the host build and on the loaded programs, and how what they did is compared.

use dataplane_ebpf::decide::{Action, Hook, from_uplink, from_vm, to_vm};
use dataplane_ebpf::host::{MemoryFrame, MemoryTables};
use serval_tests::cases::{Case, Devices, Expected, World};
use serval_tests::netns::Namespace;
use serval_tests::program::{At, INGRESS, Origin, Outcome, Programs, object, veth_pair};
use std::collections::BTreeMap;
use std::path::Path;

pub const HOOKS: [Hook; 2] = [Hook::Xdp, Hook::Tc];

/// Devices for tables that no kernel sees.
pub const NOWHERE: Devices = Devices { b: 2, c: 3, uplink: 4 };

/// Counter slots that cases use.
pub const SLOTS: u32 = 8;

/// What a hook did, and what it counted.
#[derive(Clone, Debug)]
pub struct Seen {
    pub outcome: Outcome,
    pub counted: BTreeMap<(u32, &'static str), u64>,
}

/// A frame and the state it meets.
#[derive(Clone, Debug)]
pub struct Question {
    pub origin: Origin,
    pub frame: MemoryFrame,
    pub multicast_spent: bool,
}

impl From<&Case> for Question {
    fn from(case: &Case) -> Self {
        Self { origin: case.origin, frame: case.frame.clone(), multicast_spent: case.multicast_spent }
    }
}

pub fn on_host(tables: &MemoryTables, hook: Hook, question: &Question) -> Seen {
    tables.counters.borrow_mut().clear();
    tables.multicast_spent.borrow_mut().clear();
    if question.multicast_spent {
        tables.multicast_spent.borrow_mut().insert(INGRESS);
    }
    on_host_at(tables, At::In(question.origin, hook, INGRESS), &question.frame)
}

/// What the program there does, by the host build.
pub fn on_host_at(tables: &MemoryTables, at: At, frame: &MemoryFrame) -> Seen {
    tables.counters.borrow_mut().clear();
    let mut frame = frame.clone();
    if at.hook() == Hook::Xdp {
        // XDP is not told of segmentation.
        frame.gso_size = 0;
    }
    let action = match at {
        At::In(Origin::Vm, hook, ifindex) => from_vm(&mut frame, tables, ifindex, hook),
        At::In(Origin::Uplink, hook, ifindex) => from_uplink(&mut frame, tables, ifindex, hook),
        At::Out { ifindex, received_on } => to_vm(&frame, tables, ifindex, received_on, false),
    };
    Seen { outcome: Outcome { action, bytes: frame.bytes }, counted: tables.counted() }
}

pub fn on_kernel(programs: &mut Programs, hook: Hook, question: &Question) -> Seen {
    programs.clear_counters(SLOTS);
    programs.set_multicast_spent(question.multicast_spent);
    let outcome = programs.run(question.origin, hook, &question.frame);
    Seen { outcome, counted: programs.counted(SLOTS) }
}

/// Runs `test` with the loaded programs and the tables that fill their maps, in a namespace with the receivers' devices.
pub fn in_kernel(test: impl FnOnce(&mut Programs, &MemoryTables) + Send) {
    in_kernel_with(Programs::load, test);
}

/// The same with programs that are loaded by `load`.
pub fn in_kernel_with(load: fn(&Path) -> Programs, test: impl FnOnce(&mut Programs, &MemoryTables) + Send) {
    in_namespace(|object, devices| {
        let tables = World::tables(devices);
        let mut programs = load(object);
        programs.fill(&tables);
        test(&mut programs, &tables);
    });
}

/// Runs `test` with the object in a namespace with the receivers' devices.
pub fn in_namespace(test: impl FnOnce(&Path, Devices) + Send) {
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
            let (b, c) = veth_pair("serval-b", "serval-c");
            let (uplink, _) = veth_pair("serval-up", "serval-router");
            test(&object, Devices { b, c, uplink });
            Ok(())
        })
        .expect("the namespace is entered");
}

/// The answer as a test run shows it: not which device a redirect is for, and for TC a reply is a redirect, too.
pub fn visible(hook: Hook, action: Action) -> Action {
    match action {
        Action::Redirect(_) => Action::Redirect(0),
        Action::Reply if hook == Hook::Tc => Action::Redirect(0),
        other => other,
    }
}

/// What differs from what must be, as text.
pub fn difference(hook: Hook, expected: &Expected, seen: &Seen) -> Option<String> {
    let got = Expected {
        action: visible(hook, seen.outcome.action),
        bytes: expected.bytes.is_some().then(|| seen.outcome.bytes.clone()),
        counted: seen.counted.clone(),
    };
    let expected = Expected { action: visible(hook, expected.action), ..expected.clone() };
    (got != expected).then(|| {
        format!(
            "by {hook:?}:\n  wanted {:?} {:?}\n  got    {:?} {:?}\n  bytes {:02x?}\n    vs  {:02x?}",
            expected.action, expected.counted, got.action, got.counted, expected.bytes, got.bytes
        )
    })
}

/// What both builds must have in common.
pub fn comparable(hook: Hook, seen: &Seen) -> (String, Option<&[u8]>, String) {
    let action = visible(hook, seen.outcome.action);
    let bytes = (action != Action::Drop).then_some(&*seen.outcome.bytes);
    (format!("{action:?}"), bytes, format!("{:?}", seen.counted))
}

/// xorshift64*: the same numbers in every run.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}
