//! Random policies, endpoints and packets: what the resources mean by the plain reference, what the tables say on the host,
//! and what the loaded programs do by XDP and by TC, must be the same; answers pass; and every step that decides is counted.

use crate::any_frame::forget;
use crate::runs::{HOOKS, SLOTS, comparable, in_namespace, on_host_at};
use dataplane_ebpf::abi::Address;
use dataplane_ebpf::decide::{Action, Hook};
use dataplane_ebpf::host::{MemoryFrame, MemoryTables};
use proptest::collection::vec;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serval::plan::policy::arbitrary::{NODE, packets, worlds_with};
use serval::plan::policy::reference::{self, Packet};
use serval::plan::policy::tunnel::IPIP;
use serval::plan::policy::{Direction, Tunnels, memory, policies};
use serval::resource::policy::Protocol;
use serval::resource::{Resources, WorkloadEndpoint};
use serval_tests::cases::policy::policed;
use serval_tests::cases::{Devices, HOPS, UPLINK_MAC, VM_A, VM_B, VM_C, World};
use serval_tests::frame::{GATEWAY_MAC, Ipv6, Mac, Payload};
use serval_tests::program::{At, INGRESS, Origin, Outcome, Programs};
use std::cell::{Cell, RefCell};
use std::net::Ipv6Addr;
use std::ops::Range;

/// Steps of a world whose counters are looked at: reading them costs a system call each.
const COUNTED: usize = 256;
/// A type of ICMPv6 message below this is an error, which no rule is asked about.
const INFORMATIONAL: u8 = 128;

/// A world whose first endpoints are the VMs of this host.
struct Stage<'a> {
    resources: &'a Resources,
    locals: Vec<(&'a WorkloadEndpoint, u32, Mac)>,
    tables: MemoryTables,
}

/// Where a packet comes from or goes.
#[derive(Clone, Copy)]
enum Place {
    Local(usize),
    Elsewhere,
}

impl<'a> Stage<'a> {
    fn new(resources: &'a Resources, devices: Devices) -> Self {
        let vms = [(&VM_A, INGRESS), (&VM_B, devices.b), (&VM_C, devices.c)];
        let here = resources.endpoints.values().filter(|endpoint| endpoint.node == NODE);
        let locals: Vec<_> =
            here.zip(vms).map(|(endpoint, (vm, ifindex))| (endpoint, ifindex, vm.mac)).collect();
        let mut tables = World::tables(devices);
        policed(&mut tables, devices);
        for ((endpoint, ..), (vm, _)) in locals.iter().zip(vms) {
            let owner = tables.addresses[&Address::from(vm.address)];
            for address in endpoint.all_addresses() {
                tables.addresses.insert(Address::from(address.get()), owner);
            }
        }
        let ifindex = |name: &_| locals.iter().find(|(local, ..)| local.name == *name).map(|local| local.1);
        let mut policies = memory::of(&policies(resources, NODE, Tunnels::default()), ifindex);
        policies.quota = 64;
        tables.policies = Some(policies);
        Self { resources, locals, tables }
    }

    fn place(&self, address: Ipv6Addr) -> Place {
        let has = |endpoint: &WorkloadEndpoint| endpoint.all_addresses().any(|own| own.get() == address);
        self.locals.iter().position(|(endpoint, ..)| has(endpoint)).map_or(Place::Elsewhere, Place::Local)
    }

    /// Where programs see what comes from there, and its MACs.
    fn entrance(&self, from: Place, hook: Hook) -> (At, Mac, Mac) {
        match from {
            Place::Local(number) => {
                let (_, ifindex, mac) = self.locals[number];
                (At::In(Origin::Vm, hook, ifindex), mac, GATEWAY_MAC)
            }
            Place::Elsewhere => (At::In(Origin::Uplink, hook, INGRESS), HOPS[0].mac, UPLINK_MAC),
        }
    }

    /// Whether the packet may pass by the reference; `None` if that is not for policy to say.
    fn allows(&self, packet: &Packet) -> Option<bool> {
        if packet.protocol == Protocol::ICMP6 && packet.icmp.0 < INFORMATIONAL {
            return None;
        }
        let (from, to) = (self.place(packet.source), self.place(packet.destination));
        let asked = match (from, to) {
            (Place::Elsewhere, Place::Elsewhere) => return None,
            (Place::Local(one), Place::Local(other)) if one == other => return None,
            _ => [(from, Direction::Egress), (to, Direction::Ingress)],
        };
        let mut allowed = true;
        for (place, direction) in asked {
            if let Place::Local(number) = place {
                let endpoint = self.locals[number].0;
                let outcome =
                    reference::evaluate(self.resources, Tunnels::default(), endpoint, direction, packet);
                allowed &= outcome.allowed;
            }
        }
        Some(allowed)
    }

    /// What host and programs do with a packet, which must be the same.
    fn run(&self, programs: &mut Programs, hook: Hook, packet: &Packet, payload: Payload) -> Action {
        let (at, source_mac, destination_mac) = self.entrance(self.place(packet.source), hook);
        let headers = Ipv6 {
            source: packet.source,
            destination: packet.destination,
            ..Ipv6::new(source_mac, destination_mac)
        };
        let frame = MemoryFrame::from(headers.carrying(payload));
        let host = on_host_at(&self.tables, at, &frame);
        programs.clear_counters(SLOTS);
        let Outcome { action, bytes } = programs.run_at(at, &frame);
        let kernel =
            crate::runs::Seen { outcome: Outcome { action, bytes }, counted: programs.counted(SLOTS) };
        assert_eq!(comparable(hook, &host), comparable(hook, &kernel), "{hook:?}: {packet:?}");
        kernel.outcome.action
    }

    fn ask(&self, programs: &mut Programs, packet: &Packet) -> Option<bool> {
        let allowed = self.allows(packet)?;
        for hook in HOOKS {
            let action = self.run(programs, hook, packet, first(packet));
            if hook == Hook::Xdp && packet.protocol == IPIP {
                // XDP does not know where its sums are.
                assert_eq!(action, Action::Pass, "{packet:?}");
                continue;
            }
            let passes = matches!(action, Action::Redirect(_));
            assert_eq!(passes, allowed, "{hook:?} says something else: {packet:?}");
            if !allowed {
                continue;
            }
            if let Some((answer, payload)) = answer(packet) {
                let action = self.run(programs, hook, &answer, payload);
                assert!(matches!(action, Action::Redirect(_)), "{hook:?} drops the answer: {packet:?}");
            }
            forget(programs, self.tables.policies.as_ref().expect("policy"));
        }
        Some(allowed)
    }
}

/// What begins a flow.
fn first(packet: &Packet) -> Payload {
    let (source, destination) = (packet.source_port, packet.destination_port);
    match packet.protocol {
        Protocol::TCP => Payload::tcp(source, destination, 2, b""),
        Protocol::UDP => Payload::udp(source, destination, b"hello"),
        Protocol::ICMP6 => Payload::icmpv6(packet.icmp.0, packet.icmp.1, &[0; 12]),
        other => Payload::raw(other.0, [7; 24]),
    }
}

/// What answers it, if anything belongs to the same flow.
fn answer(packet: &Packet) -> Option<(Packet, Payload)> {
    let (source, destination) = (packet.destination_port, packet.source_port);
    let payload = match packet.protocol {
        Protocol::TCP => Payload::tcp(source, destination, 0x12, b""),
        Protocol::UDP => Payload::udp(source, destination, b"hello"),
        Protocol::ICMP6 if packet.icmp.0 == 128 => Payload::icmpv6(129, 0, &[0; 12]),
        Protocol::ICMP6 => return None,
        other => Payload::raw(other.0, [7; 24]),
    };
    let back = Packet { source: packet.destination, destination: packet.source, ..*packet };
    Some((back, payload))
}

/// Shows `cases` worlds to the programs, the same in every run.
fn agree(
    programs: &mut Programs,
    devices: Devices,
    cases: u32,
    rules_each: Range<usize>,
    packets_each: usize,
) {
    let programs = RefCell::new(programs);
    let (asked, longest) = (Cell::new([0; 2]), Cell::new(0));
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let worlds = (worlds_with(rules_each.clone()), vec(packets(), packets_each));
    let result = runner.run(&worlds, |(resources, packets)| {
        let programs = &mut *programs.borrow_mut();
        let stage = Stage::new(&resources, devices);
        let policies = stage.tables.policies.as_ref().expect("policy");
        let counters = u32::try_from(policies.steps.len() + 1).expect("few steps");
        let counted = policies.steps.len() < COUNTED;
        programs.fill(&stage.tables);
        programs.fill_policies(policies, SLOTS);
        programs.clear_flows(SLOTS);
        if counted {
            programs.clear_rules(counters);
        }
        for packet in &packets {
            if let Some(allowed) = stage.ask(programs, packet) {
                let mut so_far = asked.get();
                so_far[usize::from(allowed)] += 1;
                asked.set(so_far);
            }
        }
        if counted {
            assert_eq!(programs.rules(counters), *policies.rules.borrow(), "steps are counted");
        }
        let steps = policies.steps.keys().map(|key| key.step + 1).max().unwrap_or(0);
        longest.set(longest.get().max(steps));
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    let [denied, allowed]: [usize; 2] = asked.get();
    println!(
        "{rules_each:?} rules: {denied} denied, {allowed} allowed, longest chain {} steps",
        longest.get()
    );
    assert!(denied > 0 && allowed > 0, "a test that only ever sees one outcome shows nothing");
    let rules = u32::try_from(rules_each.start).expect("few rules");
    assert!(longest.get() >= rules, "no chain is as long as a policy");
}

#[test]
fn programs_do_what_the_documents_say() {
    in_namespace(|object, devices| {
        let mut programs = Programs::load_policed(object);
        agree(&mut programs, devices, 400, 0..6, 24);
        // Longer than a word of steps, and than many words.
        agree(&mut programs, devices, 40, 20..60, 24);
        agree(&mut programs, devices, 8, 600..700, 60);
    });
}
