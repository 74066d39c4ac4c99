//! What the loaded programs tell of packets: denials with the step that denied, what rules log, samples of what is allowed,
//! what the guard drops; nothing while nobody listens, and of a flood only a little.

use crate::runs::{HOOKS, Question, in_kernel_with};
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuValues, RingBuf};
use dataplane_ebpf::abi::{
    Chain, ChainPair, EVENTS_PER_SECOND, EndpointPolicy, Event, EventBudget, EventControl, NO_STEP, Reason,
    Step, StepKey, Steps, event_flags, event_kinds, names, step_actions,
};
use dataplane_ebpf::decide::{Action, Hook};
use dataplane_ebpf::host::MemoryTables;
use serval_tests::cases::{self, VM_A, VM_B, from_a};
use serval_tests::frame::Payload;
use serval_tests::program::{At, INGRESS, Origin, Programs};

const ALLOWS: u32 = 1;
const LOGS_AND_DENIES: u32 = 2;

/// Chains of one or two steps that match everything, for A's egress and B's ingress.
fn govern(programs: &mut Programs, b: u32, egress: u32, ingress: u32) {
    let chain = |steps: u64| {
        let all = Steps { summary: steps, ..Steps::default() };
        Chain { source: all, destination: all, service: all, source_port: all, ..Chain::default() }
    };
    let mut chains: HashMap<_, u32, Chain> = programs.map(names::CHAINS);
    chains.insert(ALLOWS, chain(1), 0).expect("a chain");
    chains.insert(LOGS_AND_DENIES, chain(3), 0).expect("a chain");
    let mut steps: HashMap<_, StepKey, Step> = programs.map(names::STEPS);
    for (chain, step, action) in [
        (ALLOWS, 0, step_actions::ALLOW),
        (LOGS_AND_DENIES, 0, step_actions::LOG),
        (LOGS_AND_DENIES, 1, step_actions::DENY),
    ] {
        steps
            .insert(StepKey { chain, step }, Step { action, next: step + 1, counter: chain }, 0)
            .expect("a step");
    }
    let mut policies: HashMap<_, u32, EndpointPolicy> = programs.map(names::POLICIES);
    let mut set = |ifindex, pair| {
        policies
            .insert(ifindex, EndpointPolicy { generation: 0, after: pair, before: pair }, 0)
            .expect("a policy");
    };
    set(INGRESS, ChainPair { ingress: ALLOWS, egress });
    set(b, ChainPair { ingress, egress: ALLOWS });
}

fn listen(programs: &mut Programs, control: EventControl) {
    let mut map: Array<_, EventControl> = programs.map(names::EVENT_CONTROL);
    map.set(0, control, 0).expect("control");
}

/// What was told since the last call.
fn told(programs: &mut Programs) -> Vec<Event> {
    let mut ring: RingBuf<&mut MapData> = match programs.map_mut(names::EVENTS) {
        Some(map) => map.try_into().unwrap_or_else(|error: MapError| panic!("{error}")),
        None => panic!("no map of events"),
    };
    let mut told = Vec::new();
    while let Some(bytes) = ring.next() {
        told.push(Event::from_record(&bytes).expect("an event"));
    }
    told
}

fn udp(port: u16) -> Question {
    let packet = from_a(VM_B.address).carrying(Payload::udp(40_000, port, b"?"));
    Question { origin: Origin::Vm, frame: packet.into(), multicast_spent: false }
}

const ALL: EventControl = EventControl { kinds: u32::MAX, one_in: 1 };

#[test]
fn events_say_what_became_of_packets_and_why() {
    in_kernel_with(Programs::load_policed, |programs: &mut Programs, tables: &MemoryTables| {
        let b = tables.addresses[&VM_B.address.into()].ifindex;
        let run = |programs: &mut Programs, question: &Question| {
            let action = programs.run(question.origin, Hook::Tc, &question.frame).action;
            (action, told(programs))
        };

        govern(programs, b, LOGS_AND_DENIES, ALLOWS);
        assert_eq!(run(programs, &udp(80)), (Action::Drop, vec![]), "nobody listens");

        listen(programs, ALL);
        let (action, events) = run(programs, &udp(80));
        let kinds: Vec<_> = events.iter().map(|event| (event.kind, event.chain, event.step)).collect();
        assert_eq!(action, Action::Drop);
        assert_eq!(
            kinds,
            [(event_kinds::LOGGED, LOGS_AND_DENIES, 0), (event_kinds::DENIED, LOGS_AND_DENIES, 1)]
        );
        let Event { key, reason, from_ifindex, from_slot, to_ifindex, to_slot, service, flags, .. } =
            events[1];
        assert_eq!((from_ifindex, from_slot, to_ifindex, to_slot), (INGRESS, VM_A.slot, b, VM_B.slot));
        assert_eq!((key.source_port, key.destination_port, service, flags), (40_000, 80, 80, 0));
        assert_eq!(key.destination.octets(), VM_B.address.octets());
        assert_eq!(Reason::from_number(reason), Some(Reason::Policy));

        govern(programs, b, ALLOWS, ALLOWS);
        let (action, events) = run(programs, &udp(81));
        let places: Vec<_> = events.iter().map(|event| (event.kind, event.chain)).collect();
        assert_eq!(action, Action::Redirect(0));
        assert_eq!(places, [(event_kinds::ALLOWED, ALLOWS); 2], "both directions");

        // TCP that begins nothing: no step is to blame.
        let stray = from_a(VM_B.address).carrying(Payload::tcp(1, 2, 4, b""));
        let stray = Question { frame: stray.into(), ..udp(0) };
        let (action, events) = run(programs, &stray);
        assert_eq!(action, Action::Drop);
        assert_eq!((events[0].step, Reason::from_number(events[0].reason)), (NO_STEP, Some(Reason::NoFlow)));

        let mut spoofed = udp(80);
        spoofed.frame.bytes[6..12].copy_from_slice(&VM_B.mac);
        let (_, events) = run(programs, &spoofed);
        assert_eq!((events.len(), events[0].kind), (1, event_kinds::DROPPED));
        assert_eq!(Reason::from_number(events[0].reason), Some(Reason::SourceMac));

        // By XDP, and only of the sort that is asked for.
        govern(programs, b, LOGS_AND_DENIES, ALLOWS);
        listen(programs, EventControl { kinds: 1 << event_kinds::LOGGED, one_in: 0 });
        let question = udp(82);
        assert_eq!(programs.run(question.origin, Hook::Xdp, &question.frame).action, Action::Drop);
        let events = told(programs);
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!((events[0].kind, events[0].flags), (event_kinds::LOGGED, event_flags::XDP));
    });
}

/// But for tagged frames, in which the hook does not look for addresses.
#[test]
fn whatever_the_guard_drops_is_told() {
    in_kernel_with(Programs::load_policed, |programs: &mut Programs, tables: &MemoryTables| {
        let b = tables.addresses[&VM_B.address.into()].ifindex;
        govern(programs, b, ALLOWS, ALLOWS);
        listen(programs, ALL);
        let cpus = aya::util::nr_cpus().expect("number of CPUs");
        for case in cases::all() {
            programs.set_multicast_spent(case.multicast_spent);
            for hook in HOOKS {
                let expected = case.expected(hook);
                let Some((&(slot, label), _)) = expected.counted.first_key_value() else { continue };
                if expected.action != Action::Drop || label == Reason::Vlan.label() {
                    continue;
                }
                let mut budgets: PerCpuArray<_, EventBudget> = programs.map(names::EVENT_BUDGETS);
                let full =
                    PerCpuValues::try_from(vec![EventBudget::default(); cpus]).expect("a value per CPU");
                budgets.set(slot, full, 0).expect("a budget");
                programs.run(case.origin, hook, &case.frame);
                let events = told(programs);
                let seen: Vec<_> = events
                    .iter()
                    .map(|event| (event.kind, Reason::from_number(event.reason).map(Reason::label)))
                    .collect();
                assert_eq!(seen, [(event_kinds::DROPPED, Some(label))], "{} by {hook:?}", case.name);
                let counted_to = match case.origin {
                    Origin::Vm => events[0].from_slot,
                    Origin::Uplink => events[0].to_slot,
                };
                assert_eq!(counted_to, slot, "{} by {hook:?}", case.name);
            }
        }
        let at = At::Out { ifindex: INGRESS, received_on: b };
        let mut cut = udp(80).frame;
        cut.bytes.truncate(60);
        assert_eq!(programs.run_at(at, &cut).action, Action::Drop);
        let events = told(programs);
        assert_eq!(events.len(), 1, "what the kernel delivers: {events:?}");
        assert_eq!(Reason::from_number(events[0].reason), Some(Reason::Malformed));
    });
}

#[test]
fn a_flood_is_told_of_only_a_little() {
    in_kernel_with(Programs::load_policed, |programs: &mut Programs, tables: &MemoryTables| {
        let b = tables.addresses[&VM_B.address.into()].ifindex;
        govern(programs, b, LOGS_AND_DENIES, ALLOWS);
        listen(programs, EventControl { kinds: 1 << event_kinds::DENIED, one_in: 0 });
        let mut seen = 0;
        let began = std::time::Instant::now();
        for port in 0..2_000 {
            programs.run(Origin::Vm, Hook::Tc, &udp(port).frame);
            seen += told(programs).len();
        }
        let cpus = aya::util::nr_cpus().expect("number of CPUs") as u64;
        let most = (began.elapsed().as_secs() + 2) * cpus * u64::from(EVENTS_PER_SECOND);
        println!("{seen} of 2000 denials were told, at most {most}");
        assert!(seen >= 1 && seen as u64 <= most && seen < 2_000, "{seen} of 2000, at most {most}");
    });
}
