//! Which of several next hops a flow takes: the same for all of its packets, in both builds, by the kernel's weights.

use crate::runs::{HOOKS, NOWHERE, Question, Random, in_kernel, on_host, on_kernel};
use dataplane_ebpf::abi::NextHopGroup;
use dataplane_ebpf::decide::{Action, Hook};
use dataplane_ebpf::host::MemoryTables;
use serval_tests::cases::{HOPS, World, from_a, group, way};
use serval_tests::frame::{Extension, Ipv6, Mac, Payload, UDP};
use serval_tests::program::{Origin, Programs};
use std::net::Ipv6Addr;

/// One packet of a flow from VM A to where the weighted group leads.
fn packet(host: u16, ports: (u16, u16)) -> Question {
    let [a, b, c, d, ..] = way(group::WEIGHTED).segments();
    let destination = Ipv6Addr::new(a, b, c, d, 0, 0, 0, host);
    ask(from_a(destination).carrying(Payload::udp(ports.0, ports.1, b"x")))
}

fn ask(frame: serval_tests::frame::Frame) -> Question {
    Question { origin: Origin::Vm, frame: frame.into(), multicast_spent: false }
}

/// The number of the next hop that a frame was sent to.
fn hop(bytes: &[u8]) -> usize {
    let mac: Mac = bytes[..6].try_into().expect("a frame");
    HOPS.iter().position(|hop| hop.mac == mac).unwrap_or_else(|| panic!("{mac:02x?} is no next hop"))
}

fn by_host(tables: &MemoryTables, hook: Hook, question: &Question) -> usize {
    let seen = on_host(tables, hook, question);
    assert!(matches!(seen.outcome.action, Action::Redirect(_)), "{:?}", seen.outcome);
    hop(&seen.outcome.bytes)
}

fn by_kernel(programs: &mut Programs, hook: Hook, question: &Question) -> usize {
    let seen = on_kernel(programs, hook, question);
    assert!(matches!(seen.outcome.action, Action::Redirect(_)), "{:?}", seen.outcome);
    hop(&seen.outcome.bytes)
}

#[test]
fn host_and_kernel_choose_the_same() {
    in_kernel(|programs, tables| {
        let mut random = Random(0x0ec3_0001);
        for _ in 0..2_000 {
            let question = packet(
                random.below(65_536) as u16,
                (random.below(65_536) as u16, 1 + random.below(500) as u16),
            );
            let host = by_host(tables, Hook::Tc, &question);
            for hook in HOOKS {
                assert_eq!(by_host(tables, hook, &question), host, "{question:?}");
                assert_eq!(by_kernel(programs, hook, &question), host, "{question:?}");
            }
        }
    });
}

#[test]
fn shares_are_as_the_weights_say() {
    const FLOWS: usize = 16_000;
    let tables = World::tables(NOWHERE);
    for (varied, flow) in [
        ("ports", (|n| packet(1, (1024 + n, 443))) as fn(u16) -> Question),
        ("addresses", |n| packet(n, (4000, 443))),
    ] {
        let mut shares = [0; 4];
        for n in 0..FLOWS {
            shares[by_host(&tables, Hook::Tc, &flow(n as u16))] += 1;
        }
        for (share, weight) in shares.into_iter().zip([1, 2, 1, 4]) {
            let expected = FLOWS * weight / 8;
            let off = usize::abs_diff(share, expected);
            assert!(off < expected / 10, "by {varied}: {shares:?}");
        }
    }
}

#[test]
fn a_flow_keeps_its_way() {
    let tables = World::tables(NOWHERE);
    for n in 0..500 {
        let [a, b, c, d, ..] = way(group::WEIGHTED).segments();
        let headers = from_a(Ipv6Addr::new(a, b, c, d, 0, 0, 0, n));
        // Neither length, flow label, traffic class nor hop limit belong to a flow.
        let short = ask(headers.carrying(Payload::udp(4000, 443, b"x")));
        let other = Ipv6 { hop_limit: 7, traffic_class: 0xb8, flow_label: u32::from(n), ..headers.clone() };
        let long = ask(other.carrying(Payload::udp(4000, 443, &[7; 700])));
        assert_eq!(by_host(&tables, Hook::Xdp, &short), by_host(&tables, Hook::Xdp, &long));
        // Only the first fragment has ports, and all of a packet have to go the same way.
        let fragment =
            |offset, more| Ipv6 { extensions: vec![Extension::fragment(offset, more, 9)], ..headers.clone() };
        let first = ask(fragment(0, true).carrying(Payload::udp(4000, 443, &[9; 40])));
        let later = ask(fragment(48, false).carrying(Payload::raw(UDP, [n as u8; 16])));
        assert_eq!(by_host(&tables, Hook::Tc, &first), by_host(&tables, Hook::Tc, &later));
    }
}

/// Gives the weighted group two next hops, of which the first takes flows up to `bound`.
fn split_at(tables: &mut MemoryTables, bound: u32) {
    let NextHopGroup { mut hops, .. } = tables.next_hops[&group::WEIGHTED];
    hops[0].upper_bound = bound;
    hops[1].upper_bound = u32::MAX;
    tables.next_hops.insert(group::WEIGHTED, NextHopGroup { count: 2, hops });
}

#[test]
fn an_upper_bound_is_the_last_that_takes_the_way() {
    in_kernel(|programs, tables| {
        let mut tables = tables.clone();
        for n in 1..20 {
            let question = packet(n, (4000 + n, 443));
            // The least bound with which the flow takes the first way is its hash.
            let (mut low, mut high) = (0, u32::MAX);
            while low < high {
                let middle = low + (high - low) / 2;
                split_at(&mut tables, middle);
                match by_host(&tables, Hook::Tc, &question) {
                    0 => high = middle,
                    _ => low = middle + 1,
                }
            }
            for (bound, expected) in [(low, 0), (low.wrapping_sub(1), 1)] {
                split_at(&mut tables, bound);
                programs.fill(&tables);
                for hook in HOOKS {
                    assert_eq!(by_kernel(programs, hook, &question), expected, "flow {n}, bound {bound}");
                    assert_eq!(by_host(&tables, hook, &question), expected, "flow {n}, bound {bound}");
                }
            }
        }
    });
}
