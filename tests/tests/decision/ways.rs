//! The way that a flow remembers: it is taken as long as its epoch lasts and no longer; and with it or without, the same
//! becomes of every packet, whatever changes.

use crate::any_frame::{forget, in_one_second, mutate, seeds};
use crate::runs::{HOOKS, NOWHERE, Random, SLOTS, Seen, comparable, in_namespace, on_host_at};
use dataplane_ebpf::abi::{
    self, Address, Event, EventControl, Flow, FlowKey, next_hop_flags, owner_flags, uplink_flags,
};
use dataplane_ebpf::decide::{Hook, way};
use dataplane_ebpf::host::{MemoryFrame, MemoryTables};
use serval_tests::cases::policy::{self, AFAR, CLOSED_SERVER, LOUD_NEIGHBOUR, POLICIES};
use serval_tests::cases::{Devices, HOPS, UPLINK_MAC, VM_A, VM_B, VM_C, from_a};
use serval_tests::frame::{GATEWAY_MAC, Ipv6, Mac, Payload};
use serval_tests::program::{At, INGRESS, Origin, Programs};
use std::collections::BTreeMap;

const NEW_MAC: Mac = [2, 0, 0, 0, 0xee, 1];

/// What hosts and programs hold, with policy.
fn tables(devices: Devices) -> MemoryTables {
    let mut tables = policy::tables(devices);
    tables.policies.as_mut().expect("policy").quota = 16;
    tables
}

/// Packets between VMs, to other hosts and from there.
fn journeys() -> [(At, MemoryFrame); 3] {
    let to = |destination, port| from_a(destination).carrying(Payload::udp(40_000, port, b"hello")).into();
    let headers = Ipv6 { source: AFAR, destination: VM_B.address, ..Ipv6::new(HOPS[0].mac, UPLINK_MAC) };
    let from_afar = headers.carrying(Payload::udp(40_000, 5000, b"hello")).into();
    let at = |origin| At::In(origin, Hook::Tc, INGRESS);
    [
        (at(Origin::Vm), to(VM_B.address, 5000)),
        (at(Origin::Vm), to(AFAR, 53)),
        (at(Origin::Uplink), from_afar),
    ]
}

fn by(at: At, hook: Hook) -> At {
    match at {
        At::In(origin, _, ifindex) => At::In(origin, hook, ifindex),
        out => out,
    }
}

/// Gives VM B and every next hop another MAC.
fn change_macs(tables: &mut MemoryTables) {
    let mac = abi::Mac::new(NEW_MAC);
    tables.addresses.get_mut(&Address::from(VM_B.address)).expect("VM B").mac = mac;
    tables.next_hops.values_mut().flat_map(|group| &mut group.hops).for_each(|hop| hop.mac = mac);
}

fn receiver(seen: &Seen) -> Mac {
    seen.outcome.bytes[..6].try_into().expect("a frame")
}

/// `run` is one of both builds, which `change` has put right before.
fn a_way_lasts_for_an_epoch(
    mut run: impl FnMut(&MemoryTables, bool, At, &MemoryFrame) -> Seen,
    devices: Devices,
) {
    let mut tables = tables(devices);
    let goes = |run: &mut dyn FnMut(&MemoryTables, bool, At, &MemoryFrame) -> Seen, tables: &MemoryTables| {
        let mut refill = true;
        let mut went = Vec::new();
        for (at, frame) in journeys() {
            for hook in HOOKS {
                went.push(receiver(&run(tables, std::mem::take(&mut refill), by(at, hook), &frame)));
            }
        }
        went
    };
    let first = goes(&mut run, &tables);
    change_macs(&mut tables);
    assert_eq!(goes(&mut run, &tables), first, "what is remembered is not asked for again");
    assert!(!first.contains(&NEW_MAC));
    tables.epoch += 1;
    assert_eq!(goes(&mut run, &tables), [NEW_MAC; 6], "after the change is told");
    tables.epoch = 0;
    tables.addresses.get_mut(&Address::from(VM_B.address)).expect("VM B").mac = abi::Mac::new(VM_B.mac);
    assert_eq!(goes(&mut run, &tables)[..2], [VM_B.mac; 2], "in no epoch nothing is remembered");
}

#[test]
fn on_the_host_a_way_lasts_for_an_epoch() {
    a_way_lasts_for_an_epoch(|tables, _, at, frame| on_host_at(tables, at, frame), NOWHERE);
}

#[test]
fn in_the_kernel_a_way_lasts_for_an_epoch() {
    in_namespace(|object, devices| {
        let mut programs = Programs::load_policed(object);
        programs.fill_policies(tables(devices).policies.as_ref().expect("policy"), SLOTS);
        let run = |tables: &MemoryTables, refill, at, frame: &MemoryFrame| {
            if refill {
                programs.fill(tables);
            }
            Seen { outcome: programs.run_at(at, frame), counted: BTreeMap::new() }
        };
        a_way_lasts_for_an_epoch(run, devices);
    });
}

/// A packet of another flow, or of another link, never takes it, whatever it has in common.
#[test]
fn a_way_is_that_of_one_flow() {
    let key = FlowKey {
        source: VM_A.address.into(),
        destination: VM_B.address.into(),
        source_port: 1,
        destination_port: 2,
        protocol: 17,
        zone: 3,
        ..FlowKey::default()
    };
    let exit = abi::Exit { ifindex: 7, slot: 2, mtu: 1500, ..abi::Exit::NONE };
    let (source, destination) = (VM_A.mac, GATEWAY_MAC);
    let number = |mac: Mac| mac.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let link = |source, destination, slot| abi::Link::new([number(destination), number(source)], slot);
    let from_a = link(source, destination, 1);
    let way = abi::Way::new(exit, from_a, &key, 9);
    let takes = |key: &FlowKey, epoch, source, destination| {
        let (mut link, mut found) = (link(source, destination, 0), abi::Exit::NONE);
        let taken = way.of(key, epoch, &mut link, &mut found);
        assert!(!taken || (link, found) == (from_a, exit));
        taken
    };
    assert!(takes(&key, 9, source, destination));
    let others = [
        FlowKey { source: VM_C.address.into(), ..key },
        FlowKey { destination: VM_C.address.into(), ..key },
        FlowKey { source_port: 2, ..key },
        FlowKey { source_port: 2, destination_port: 1, ..key },
        FlowKey { protocol: 6, ..key },
        FlowKey { zone: 4, ..key },
        key.reverse(3),
    ];
    for other in others {
        assert!(!takes(&other, 9, source, destination), "{other:?}");
    }
    assert!(!takes(&key, 10, source, destination));
    for (from, to) in
        [(VM_B.mac, destination), (source, VM_B.mac), (destination, source), ([0; 6], destination)]
    {
        assert!(!takes(&key, 9, from, to), "{from:02x?} {to:02x?}");
    }
}

/// Rounds of random frames, between which something changes.
const ROUNDS: usize = 400;
const FRAMES: usize = 40;

/// The host build with and without ways, and the programs with them.
struct Arms<'a> {
    devices: Devices,
    short: MemoryTables,
    long: MemoryTables,
    programs: &'a mut Programs,
    short_ways: usize,
}

impl Arms<'_> {
    fn forget(&mut self) {
        for tables in [&self.short, &self.long] {
            forget(self.programs, tables.policies.as_ref().expect("policy"));
        }
    }

    /// Shows one frame to all.
    fn show(&mut self, at: At, frame: &MemoryFrame) {
        let Some((short, kernel)) = in_one_second(self.programs, &self.short, at, frame) else {
            return self.forget();
        };
        let policies = |tables: &MemoryTables| tables.policies.clone().expect("policy");
        self.long.policies.as_ref().expect("policy").now.set(policies(&self.short).now.get());
        self.long.multicast_spent.borrow_mut().clear();
        let long = on_host_at(&self.long, at, frame);
        let mut again = frame.clone();
        let by_way = match at {
            At::In(Origin::Vm, hook, ifindex) => way::from_vm(&mut again, &self.short, ifindex, hook),
            At::In(Origin::Uplink, hook, ifindex) => way::from_uplink(&mut again, &self.short, ifindex, hook),
            At::Out { .. } => None,
        };
        self.short_ways += usize::from(by_way.is_some());
        let what = |seen| comparable(at.hook(), seen);
        assert_eq!(what(&short), what(&long), "{at:?}:\n{:02x?}", frame.bytes);
        assert_eq!(what(&short), what(&kernel), "{at:?}:\n{:02x?}", frame.bytes);
        assert_eq!(told(&self.short), told(&self.long), "{at:?}:\n{:02x?}", frame.bytes);
    }

    /// What is remembered, but for ways.
    fn compare_flows(&mut self) {
        let flows = |tables: &MemoryTables| tables.policies.as_ref().expect("policy").flows.borrow().clone();
        assert_eq!(self.programs.flows(), flows(&self.short));
        let without = |(key, flow): (FlowKey, Flow)| (key, Flow { way: abi::Way::NONE, ..flow });
        let all = |tables| flows(tables).into_iter().map(without).collect::<BTreeMap<_, _>>();
        assert_eq!(all(&self.short), all(&self.long));
    }

    /// Changes something, for all.
    fn change(&mut self, random: &mut Random) {
        let what = random.below(12);
        match what {
            0 => {
                let documents = [POLICIES, CLOSED_SERVER, LOUD_NEIGHBOUR][random.below(3)];
                return self.change_policy(documents);
            }
            1 => return self.wait([1, 6, 25, 70][random.below(4)]),
            _ => {}
        }
        // Mostly as it should be, or hardly anything would pass.
        let coin = random.below(4) == 0;
        for tables in [&mut self.short, &mut self.long] {
            change_forwarding(tables, what, coin);
        }
        self.short.epoch += 1;
        self.programs.fill(&self.short);
    }

    fn change_policy(&mut self, documents: &str) {
        for tables in [&mut self.short, &mut self.long] {
            let next = policy::compile(documents, self.devices);
            let now = tables.policies.as_mut().expect("policy");
            now.generation.set(now.generation.get() + 1);
            (now.endpoints, now.chains, now.identities) = (next.endpoints, next.chains, next.identities);
            (now.peers, now.services) = (next.peers, next.services);
            (now.vectors, now.steps) = (next.vectors, next.steps);
        }
        self.programs.fill_policies(self.short.policies.as_ref().expect("policy"), SLOTS);
    }

    fn wait(&mut self, seconds: u32) {
        for tables in [&self.short, &self.long] {
            let flows = &tables.policies.as_ref().expect("policy").flows;
            flows.borrow_mut().values_mut().for_each(|flow| flow.seen = flow.seen.wrapping_sub(seconds));
        }
        self.programs.age_flows(seconds);
    }
}

fn change_forwarding(tables: &mut MemoryTables, what: usize, coin: bool) {
    let of_b = Address::from(VM_B.address);
    let owner_of_c = tables.addresses[&Address::from(VM_C.second)];
    let second_of_b = tables.addresses[&Address::from(VM_B.second)];
    let b = tables.addresses.get_mut(&of_b).expect("VM B");
    let pick = |one, other| if coin { one } else { other };
    match what {
        2 => *b = if coin { owner_of_c } else { second_of_b },
        3 => b.mac = abi::Mac::new(pick(NEW_MAC, VM_B.mac)),
        4 => b.mtu = if coin { 50 } else { VM_B.mtu },
        5 => b.flags = if coin { 0 } else { owner_flags::REACHABLE },
        6 => tables.endpoints.get_mut(&INGRESS).expect("VM A").flags = u32::from(!coin),
        7 => {
            let address = if coin { VM_A.second } else { VM_A.address };
            tables.endpoints.get_mut(&INGRESS).expect("VM A").address = address.into();
            let ifindex = if coin { u32::MAX } else { INGRESS };
            tables.addresses.get_mut(&Address::from(VM_A.address)).expect("VM A").ifindex = ifindex;
        }
        8 => {
            let flags = if coin { 0 } else { next_hop_flags::RESOLVED | next_hop_flags::XDP };
            tables.next_hops.values_mut().for_each(|group| group.hops[0].flags = flags);
        }
        9 => {
            let mac = abi::Mac::new(pick(NEW_MAC, HOPS[0].mac));
            tables.next_hops.values_mut().for_each(|group| group.hops[0].mac = mac);
            tables.next_hops.values_mut().for_each(|group| group.hops[0].flags ^= next_hop_flags::XDP);
        }
        10 => {
            let mac = abi::Mac::new(pick(NEW_MAC, UPLINK_MAC));
            tables.uplinks.values_mut().for_each(|uplink| uplink.mac = mac);
        }
        _ => tables.uplinks.values_mut().for_each(|uplink| uplink.flags ^= uplink_flags::STEERED),
    }
}

/// Packets of flows that last, and where they are seen.
fn conversations(devices: Devices) -> Vec<(Vec<At>, MemoryFrame)> {
    let places = |origin, ifindex| HOOKS.map(|hook| At::In(origin, hook, ifindex)).to_vec();
    let (a, b) = (places(Origin::Vm, INGRESS), places(Origin::Vm, devices.b));
    let afar = places(Origin::Uplink, INGRESS);
    let frame = |source, destination, macs: (Mac, Mac), payload: Payload| {
        Ipv6 { source, destination, ..Ipv6::new(macs.0, macs.1) }.carrying(payload).into()
    };
    let (to_a, to_b) = ((VM_B.mac, GATEWAY_MAC), (VM_A.mac, GATEWAY_MAC));
    let in_there = (HOPS[0].mac, UPLINK_MAC);
    let udp = |source, destination| Payload::udp(source, destination, b"hello");
    let tcp = |source, destination| Payload::tcp(source, destination, 16, b"hello");
    let [of_a, of_b] = [VM_A.address, VM_B.address];
    vec![
        (a.clone(), frame(of_a, of_b, to_b, udp(40_000, 5000))),
        (b.clone(), frame(of_b, of_a, to_a, udp(5000, 40_000))),
        (a.clone(), frame(of_a, of_b, to_b, tcp(40_000, 80))),
        (b.clone(), frame(of_b, of_a, to_a, tcp(80, 40_000))),
        (a.clone(), frame(of_a, AFAR, to_b, tcp(40_000, 443))),
        (afar.clone(), frame(AFAR, of_a, in_there, tcp(443, 40_000))),
        (afar, frame(AFAR, of_b, in_there, udp(40_000, 5000))),
        (b, frame(of_b, AFAR, to_a, udp(5000, 40_000))),
    ]
}

/// What was told since the last call.
fn told(tables: &MemoryTables) -> [Vec<Event>; 2] {
    let policies = tables.policies.as_ref().expect("policy");
    [&policies.events, &tables.drops].map(|events| {
        // Nobody is told too often.
        events.budgets.borrow_mut().clear();
        events.told.take()
    })
}

#[test]
fn the_same_becomes_of_packets_with_and_without_ways() {
    in_namespace(|object, devices| {
        let mut programs = Programs::load_policed(object);
        let short = tables(devices);
        for events in [&short.drops, &short.policies.as_ref().expect("policy").events] {
            events.control.set(EventControl { kinds: u32::MAX, one_in: 1 });
        }
        programs.fill(&short);
        programs.fill_policies(short.policies.as_ref().expect("policy"), SLOTS);
        let long = MemoryTables { epoch: 0, ..short.clone() };
        let mut arms = Arms { devices, short, long, programs: &mut programs, short_ways: 0 };
        arms.forget();
        let (plain, seeds) = (conversations(devices), seeds(devices));
        let mut random = Random(0x0005_e7a1_0004);
        for _ in 0..ROUNDS {
            // A few again and again, so that ways are known, and changes meet them.
            let mut some: Vec<_> = (0..3).map(|_| &plain[random.below(plain.len())]).collect();
            some.push(&seeds[random.below(seeds.len())]);
            for _ in 0..FRAMES {
                let (places, frame) = some[random.below(some.len())];
                let mut frame = frame.clone();
                if random.below(4) == 0 {
                    mutate(&mut frame, &mut random);
                }
                for at in places {
                    arms.show(*at, &frame);
                }
                if random.below(FRAMES / 2) == 0 {
                    arms.change(&mut random);
                }
            }
            arms.compare_flows();
        }
        println!("{} frames went the short way", arms.short_ways);
        assert!(arms.short_ways > 4 * ROUNDS, "hardly any way was known");
    });
}
