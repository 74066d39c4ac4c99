//! What each stage of the decision costs on this machine's CPU: `cargo bench -p dataplane-ebpf`. Tables are in plain
//! memory, so figures show changes of the code and not what maps cost; `cargo xtask bench` measures the programs.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dataplane_ebpf::abi::{
    Address, Chain, ChainPair, End, Endpoint, Mac, Owner, ServiceKey, Step, StepKey, Steps, VECTOR_WORDS,
    Vector, chain_flags, endpoint_flags, owner_flags, step_actions,
};
use dataplane_ebpf::decide::flow::{self, Party, Question};
use dataplane_ebpf::decide::guard::Packet;
use dataplane_ebpf::decide::policy::{self, Subject};
use dataplane_ebpf::decide::{Action, Hook, forward, from_vm, guard, question};
use dataplane_ebpf::host::{MemoryFrame, MemoryPolicies, MemoryTables};
use dataplane_ebpf::wire::{Frame, Headers, protocol, pseudo_header};
use std::hint::black_box;
use std::net::Ipv6Addr;

const TAPS: [u32; 2] = [7, 8];
const MACS: [[u8; 6]; 2] = [[0xfa, 0x16, 0x3e, 0, 0, 1], [0xfa, 0x16, 0x3e, 0, 0, 2]];
const ROUTER_MAC: [u8; 6] = [0, 0x61, 0xfe, 0xed, 0xca, 0xfe];
/// Frames of a batch. Tables in memory keep what they hand out, so each batch has new ones.
const BATCH: usize = 256;
/// The chain of every packet.
const CHAIN: u32 = 1;
/// Port of the first rule; that of others follows.
const FIRST_PORT: u16 = 1000;

criterion_group!(benches, stages, policies, whole);
criterion_main!(benches);

fn stages(criterion: &mut Criterion) {
    let (tables, frame) = (tables(), datagram(FIRST_PORT));
    let headers: &Headers = frame.view(0).expect("the frame has all headers");
    let endpoint = &tables.endpoints[&TAPS[0]];
    let packet = packet(&frame, &tables);
    criterion.bench_function("guard", |bencher| {
        bencher.iter(|| guard::inspect(black_box(&frame), headers, &tables, TAPS[0], endpoint));
    });
    let way = || forward::decide(black_box(&frame), headers, &tables, TAPS[0], endpoint, &packet, Hook::Xdp);
    criterion.bench_function("forward/decide", |bencher| bencher.iter(way));
    let exit = way().expect("the packet may be sent").exit;
    assert!(exit.is_some(), "the destination is an endpoint");
    let mut edited = frame.clone();
    criterion.bench_function("forward/edit", |bencher| {
        bencher.iter(|| forward::edit(black_box(&mut edited), &exit));
    });
}

fn policies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policy");
    for rules in [10, 1000] {
        let last = FIRST_PORT + rules - 1;
        let policies = self::policies_of(rules);
        let (source, destination) = (address(1), address(2));
        let subject = Subject {
            source: &source,
            destination: &destination,
            protocol: protocol::UDP,
            source_port: 1,
            destination_port: last,
        };
        assert!(policy::evaluate(&policies, CHAIN, &subject).allowed, "the last rule allows it");
        group.bench_function(format!("evaluate/{rules} rules"), |bencher| {
            bencher.iter(|| policy::evaluate(&policies, CHAIN, black_box(&subject)));
        });
        let question = known(&policies, last);
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function(format!("{BATCH} packets of a known flow/{rules} rules"), |bencher| {
            let judge = |policies: &mut MemoryPolicies| {
                for _ in 0..BATCH {
                    black_box(flow::judge(policies, black_box(&question)).is_ok());
                }
            };
            bencher.iter_batched_ref(|| policies.clone(), judge, BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn whole(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("from_vm");
    group.throughput(Throughput::Elements(BATCH as u64));
    let open = tables();
    let policies = policies_of(10);
    known(&policies, FIRST_PORT);
    let policed = MemoryTables { policies: Some(policies), epoch: 1, ..tables() };
    let cases = [
        ("a datagram without policy", &open, datagram(FIRST_PORT), Action::Redirect(TAPS[1])),
        ("a datagram of a known flow", &policed, datagram(FIRST_PORT), Action::Redirect(TAPS[1])),
        ("a neighbour solicitation", &open, solicitation(), Action::Reply),
    ];
    for (name, tables, frame, action) in cases {
        assert_eq!(from_vm(&mut frame.clone(), &tables.clone(), TAPS[0], Hook::Xdp), action, "{name}");
        group.bench_function(format!("{BATCH} times {name}"), |bencher| {
            let decide = |(tables, frames): &mut (MemoryTables, Vec<MemoryFrame>)| {
                for frame in frames {
                    black_box(from_vm(frame, tables, TAPS[0], Hook::Xdp));
                }
            };
            let setup = || (tables.clone(), vec![frame.clone(); BATCH]);
            bencher.iter_batched_ref(setup, decide, BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn address(last: u16) -> Address {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into()
}

fn gateway() -> Address {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0x261, 0xfeff, 0xfeed, 0xcafe).into()
}

/// Two endpoints.
fn tables() -> MemoryTables {
    let mut tables = MemoryTables::default();
    for (number, (tap, mac)) in (1..).zip(TAPS.into_iter().zip(MACS)) {
        let (slot, mac, gateway_mac) = (u32::from(number), Mac::new(mac), Mac::new(ROUTER_MAC));
        let address = address(number);
        let flags = endpoint_flags::ADMIN_UP;
        let endpoint = Endpoint { address, gateway: gateway(), mac, gateway_mac, mtu: 1500, slot, flags };
        tables.endpoints.insert(tap, endpoint);
        let flags = owner_flags::REACHABLE;
        tables.addresses.insert(address, Owner { ifindex: tap, mtu: 1500, slot, flags, mac, gateway_mac });
    }
    tables.devices.extend(TAPS);
    tables
}

/// A chain with so many rules, each of which allows another UDP port.
fn policies_of(rules: u16) -> MemoryPolicies {
    let pair = ChainPair { ingress: CHAIN, egress: CHAIN };
    let mut policies = MemoryPolicies { quota: 1024, ..MemoryPolicies::default() };
    policies.endpoints.extend(TAPS.map(|tap| (tap, pair)));
    let long = rules > 64;
    // Vector 0 has all steps; vector n those of word n - 1.
    let all = Steps { summary: u64::MAX, vector: 0, _reserved: 0 };
    policies.vectors.insert(0, Vector { words: [u64::MAX; VECTOR_WORDS] });
    for rule in 0..rules {
        let (word, bit) = (rule / 64, 1 << (rule % 64));
        let vector = 1 + u32::from(rule);
        let mut words = [0; VECTOR_WORDS];
        words[usize::from(word)] = bit;
        policies.vectors.insert(vector, Vector { words });
        let steps = Steps { summary: if long { 1 << word } else { bit }, vector, _reserved: 0 };
        let key = ServiceKey::new(CHAIN, End::Destination, protocol::UDP, FIRST_PORT + rule);
        policies.services.insert((key, 64), steps);
        let step = Step { action: step_actions::ALLOW, next: 0, counter: 0 };
        policies.steps.insert(StepKey { chain: CHAIN, step: u32::from(rule) }, step);
    }
    let flags = chain_flags::SERVICE | if long { chain_flags::LONG } else { 0 };
    let none = Steps::default();
    let chain =
        Chain { source: all, destination: all, service: none, source_port: all, flags, ..Chain::default() };
    policies.chains.insert(CHAIN, chain);
    policies
}

/// Begins the flow of a datagram to this port; the question about its next packet.
fn known(policies: &MemoryPolicies, port: u16) -> Question {
    let (frame, tables) = (datagram(port), tables());
    let [from, to] = [0, 1].map(|end| Party::endpoint(TAPS[end], end as u32 + 1));
    let mut question = Question::default();
    let asked = question::about(&frame, &packet(&frame, &tables), from, to, &mut question);
    assert_eq!(asked, Ok(true), "policy is about the packet");
    assert_eq!(flow::judge(policies, &question), Ok(()), "policy allows it");
    assert!(!policies.flows.borrow().is_empty(), "the flow is known");
    question
}

fn packet(frame: &MemoryFrame, tables: &MemoryTables) -> Packet {
    let headers: &Headers = frame.view(0).expect("the frame has all headers");
    guard::inspect(frame, headers, tables, TAPS[0], &tables.endpoints[&TAPS[0]])
        .expect("the guard lets it pass")
}

/// 78 bytes with a whole checksum, from the first endpoint to the second.
fn datagram(port: u16) -> MemoryFrame {
    let mut udp = vec![0x5e; 24];
    udp[..2].copy_from_slice(&20_000_u16.to_be_bytes());
    udp[2..4].copy_from_slice(&port.to_be_bytes());
    udp[4..6].copy_from_slice(&24_u16.to_be_bytes());
    frame(address(2), protocol::UDP, 64, udp, 6)
}

/// For the gateway.
fn solicitation() -> MemoryFrame {
    let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &gateway().octets(), &[1, 1], &MACS[0]].concat();
    frame(gateway(), protocol::ICMP6, 255, message, 2)
}

fn frame(to: Address, protocol: u8, hop_limit: u8, mut payload: Vec<u8>, checksum_at: usize) -> MemoryFrame {
    let (from, length) = (address(1), payload.len() as u16);
    payload[checksum_at..checksum_at + 2].fill(0);
    let words = payload.chunks_exact(2).map(|pair| u32::from(u16::from_ne_bytes([pair[0], pair[1]])));
    let checksum = pseudo_header(from, to, payload.len(), protocol).add_sum(words.sum()).field();
    payload[checksum_at..checksum_at + 2].copy_from_slice(&checksum);
    let [high, low] = length.to_be_bytes();
    let fixed = [0x60, 0, 0, 0, high, low, protocol, hop_limit];
    let (from, to) = (from.octets(), to.octets());
    let bytes = [&ROUTER_MAC[..], &MACS[0], &[0x86, 0xdd], &fixed, &from, &to, &payload].concat();
    MemoryFrame { bytes, ..MemoryFrame::default() }
}
