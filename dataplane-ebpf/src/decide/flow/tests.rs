//! Flows by example: who may answer whom, for how long, and what a flood does.

use super::*;
use crate::abi::{Address, Chain, ChainPair, Exit, Link, Step, StepKey, Steps, step_actions};
use crate::host::MemoryPolicies;

const OPEN: u32 = 0;
const CLOSED: u32 = 1;

/// A VM whose policy lets it out and nobody in, and one the other way round.
const CLIENT: Party = Party { ifindex: 11, slot: 1 };
const SERVER: Party = Party { ifindex: 12, slot: 2 };
const SHUT: Party = Party { ifindex: 13, slot: 3 };

fn tables() -> MemoryPolicies {
    let mut tables = MemoryPolicies { quota: 64, ..MemoryPolicies::default() };
    for (number, action) in [(OPEN, step_actions::ALLOW), (CLOSED, step_actions::DENY)] {
        let all = Steps { summary: 1, ..Steps::default() };
        let chain =
            Chain { source: all, destination: all, service: all, source_port: all, ..Chain::default() };
        tables.chains.insert(number, chain);
        tables.steps.insert(StepKey { chain: number, step: 0 }, Step { action, next: 0, counter: number });
    }
    for (ifindex, ingress, egress) in [(11, CLOSED, OPEN), (12, OPEN, CLOSED), (13, CLOSED, CLOSED)] {
        tables.endpoints.insert(ifindex, ChainPair { ingress, egress });
    }
    tables
}

/// A TCP packet with these flags; a port of 0 makes it UDP.
fn packet(from: Party, to: Party, ports: (u16, u16), tcp_flags: u32) -> Question {
    let address = |party: Party| {
        let last = if party.is_endpoint() { party.slot as u8 } else { 0xf0 + party.slot as u8 };
        Address::new([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last])
    };
    let protocol = if tcp_flags == 0 { protocol::UDP } else { protocol::TCP };
    Question {
        key: FlowKey {
            source: address(from),
            destination: address(to),
            source_port: ports.0,
            destination_port: ports.1,
            protocol: u32::from(protocol),
            zone: from.zone(),
            _reserved: 0,
        },
        from,
        to,
        service: u32::from(ports.1),
        tcp_flags,
        flags: 0,
        fragment: 0,
        generation: 0,
        epoch: 0,
        link: Link::NONE,
        exit: Exit::NONE,
    }
}

const OUT: (u16, u16) = (40_000, 80);
const BACK: (u16, u16) = (80, 40_000);

#[track_caller]
fn passes(tables: &MemoryPolicies, question: &Question) {
    assert_eq!(judge(tables, question), Ok(()));
}

#[track_caller]
fn dropped(tables: &MemoryPolicies, question: &Question, reason: Reason) {
    assert_eq!(judge(tables, question), Err(reason));
}

#[test]
fn answers_pass_and_nothing_else() {
    let tables = tables();
    dropped(&tables, &packet(SERVER, CLIENT, BACK, tcp::ACK), Reason::Policy);
    passes(&tables, &packet(CLIENT, SERVER, OUT, tcp::SYN));
    passes(&tables, &packet(SERVER, CLIENT, BACK, tcp::SYN | tcp::ACK));
    passes(&tables, &packet(CLIENT, SERVER, OUT, tcp::ACK));
    passes(&tables, &packet(SERVER, CLIENT, BACK, tcp::ACK));
    dropped(&tables, &packet(SERVER, CLIENT, (81, 40_000), tcp::SYN), Reason::Policy);
    // A connection of its own needs a right of its own, whatever the ports.
    dropped(&tables, &packet(SERVER, CLIENT, BACK, tcp::SYN), Reason::Policy);
    passes(&tables, &packet(SERVER, CLIENT, BACK, tcp::ACK));
}

#[test]
fn both_ends_are_asked() {
    let tables = tables();
    dropped(&tables, &packet(CLIENT, SHUT, OUT, tcp::SYN), Reason::Policy);
    dropped(&tables, &packet(SHUT, SERVER, OUT, tcp::SYN), Reason::Policy);
    passes(&tables, &packet(CLIENT, Party::OUTSIDE, OUT, 0));
    passes(&tables, &packet(Party::OUTSIDE, SERVER, OUT, 0));
    dropped(&tables, &packet(Party::OUTSIDE, SHUT, OUT, 0), Reason::Policy);
}

#[test]
fn the_host_may_and_is_closed() {
    let mut tables = tables();
    dropped(&tables, &packet(CLIENT, Party::HOST, OUT, tcp::SYN), Reason::HostClosed);
    tables.host_is_open = true;
    passes(&tables, &packet(CLIENT, Party::HOST, OUT, tcp::SYN));
    passes(&tables, &packet(Party::HOST, SHUT, OUT, tcp::SYN));
    passes(&tables, &packet(SHUT, Party::HOST, BACK, tcp::SYN | tcp::ACK));
    // Also after a change of policy: it was never asked.
    tables.generation.set(1);
    passes(&tables, &packet(SHUT, Party::HOST, BACK, tcp::ACK));
}

#[test]
fn a_host_that_is_judged_is_asked_again() {
    let mut tables = tables();
    // It began before anybody asked.
    passes(&tables, &packet(Party::HOST, SHUT, OUT, 0));
    tables.host_is_judged = true;
    tables.generation.set(1);
    dropped(&tables, &packet(SHUT, Party::HOST, BACK, 0), Reason::Policy);
    dropped(&tables, &packet(Party::HOST, SHUT, OUT, 0), Reason::Policy);
    passes(&tables, &packet(Party::HOST, SERVER, OUT, tcp::SYN));
    passes(&tables, &packet(SERVER, Party::HOST, BACK, tcp::SYN | tcp::ACK));
    // A DNS server on the host answers.
    passes(&tables, &packet(Party::HOST, SHUT, (53, 40_000), 0));
    dropped(&tables, &packet(Party::HOST, SHUT, (54, 40_000), 0), Reason::Policy);
}

#[test]
fn what_belongs_to_no_connection_is_dropped() {
    let tables = tables();
    for flags in [tcp::SYN | tcp::ACK, tcp::RST, tcp::FIN, tcp::SYN | tcp::FIN] {
        dropped(&tables, &packet(CLIENT, SERVER, OUT, flags), Reason::NoFlow);
    }
    passes(&tables, &packet(CLIENT, SERVER, OUT, tcp::ACK));
}

#[test]
fn a_flow_that_is_no_longer_allowed_ends_with_the_next_packet() {
    let mut tables = tables();
    passes(&tables, &packet(CLIENT, SERVER, OUT, 0));
    passes(&tables, &packet(SERVER, CLIENT, BACK, 0));
    // Unrelated: it lives on.
    tables.generation.set(1);
    passes(&tables, &packet(SERVER, CLIENT, BACK, 0));
    passes(&tables, &packet(CLIENT, SERVER, OUT, 0));
    tables.endpoints.insert(11, ChainPair { ingress: CLOSED, egress: CLOSED });
    tables.generation.set(2);
    dropped(&tables, &packet(SERVER, CLIENT, BACK, 0), Reason::Policy);
    dropped(&tables, &packet(CLIENT, SERVER, OUT, 0), Reason::Policy);
}

#[test]
fn silence_ends_flows() {
    let tables = tables();
    passes(&tables, &packet(CLIENT, SERVER, OUT, 0));
    tables.now.set(60);
    passes(&tables, &packet(SERVER, CLIENT, BACK, 0));
    tables.now.set(121);
    dropped(&tables, &packet(SERVER, CLIENT, BACK, 0), Reason::Policy);
    passes(&tables, &packet(CLIENT, SERVER, OUT, tcp::SYN));
    tables.now.set(142);
    dropped(&tables, &packet(SERVER, CLIENT, BACK, tcp::SYN | tcp::ACK), Reason::NoFlow);
}

#[test]
fn a_connection_may_follow_one_that_ended() {
    let tables = tables();
    for flags in [tcp::SYN, tcp::ACK, tcp::FIN | tcp::ACK, tcp::SYN] {
        passes(&tables, &packet(CLIENT, SERVER, OUT, flags));
    }
    passes(&tables, &packet(SERVER, CLIENT, BACK, tcp::SYN | tcp::ACK));
}

#[test]
fn a_flood_takes_its_own_endpoints_places_and_spares_what_lives() {
    let tables = tables();
    let establish = |ports: (u16, u16)| {
        passes(&tables, &packet(CLIENT, SERVER, ports, tcp::SYN));
        passes(&tables, &packet(SERVER, CLIENT, (ports.1, ports.0), tcp::SYN | tcp::ACK));
        passes(&tables, &packet(CLIENT, SERVER, ports, tcp::ACK));
    };
    for port in 1..=8 {
        establish((port, 80));
    }
    passes(&tables, &packet(Party::OUTSIDE, SERVER, (7, 7), 0));
    for port in 1000..2000 {
        passes(&tables, &packet(CLIENT, SERVER, (port, 80), tcp::SYN));
    }
    assert!(tables.flows.borrow().len() <= 2 * 64 + 2);
    for port in 1..=8 {
        passes(&tables, &packet(SERVER, CLIENT, (80, port), tcp::ACK));
    }
    passes(&tables, &packet(SERVER, Party::OUTSIDE, (7, 7), 0));
    // With nothing but live flows there is no place for more, which is counted.
    for port in 100..200 {
        establish((port, 81));
        if *tables.pressure.borrow().get(&1).unwrap_or(&0) > 0 {
            return;
        }
    }
    panic!("100 connections found room in 64 places");
}
