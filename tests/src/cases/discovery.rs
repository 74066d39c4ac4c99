//! Neighbour and router solicitations: who gets which answer, byte for byte.

use super::Case;
use super::world::{
    ALL_NODES, ALL_ROUTERS, ELSEWHERE, GATEWAY, GATEWAY_GLOBAL, VM_A, VM_B, VM_D, advertisement,
    advertisement_to, discovery, link_local_a,
};
use crate::frame::{
    Checksum, DESTINATION_OPTIONS, Extension, Frame, GATEWAY_MAC, Ipv6, Payload, multicast_mac, nonce,
    solicited_node, source_link_layer, target_link_layer,
};
use dataplane_ebpf::abi::{Counter, Reason};
use std::net::Ipv6Addr;

/// R, S and O of a neighbour advertisement.
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

pub fn cases() -> Vec<Case> {
    [answered(), proxied(), not_answered(), invalid(), advertisements(), routers()].concat()
}

/// Our answer to `asker`, built from the RFC.
fn answer(target: Ipv6Addr, asker: Ipv6Addr, flags: u8) -> Frame {
    let mac = if asker.is_multicast() { multicast_mac(asker) } else { VM_A.mac };
    Ipv6 { source: target, destination: asker, hop_limit: 255, ..Ipv6::new(GATEWAY_MAC, mac) }
        .carrying(Payload::neighbour_advertisement(flags, target, &[target_link_layer(GATEWAY_MAC)]))
}

fn solicitation(source: Ipv6Addr, target: Ipv6Addr, options: &[Vec<u8>]) -> Frame {
    discovery(source, solicited_node(target)).carrying(Payload::neighbour_solicitation(target, options))
}

fn own_mac() -> Vec<u8> {
    source_link_layer(VM_A.mac)
}

fn case(name: &'static str, question: Frame, answer: Frame) -> Case {
    Case::reply(name, question, answer, Counter::AnsweredNs)
}

fn answered() -> Vec<Case> {
    let me = link_local_a();
    let unicast = |options: &[Vec<u8>]| {
        discovery(me, GATEWAY).carrying(Payload::neighbour_solicitation(GATEWAY, options))
    };
    let padded = Ipv6 { padding: vec![0; 20], ..discovery(me, GATEWAY) }
        .carrying(Payload::neighbour_solicitation(GATEWAY, &[own_mac()]));
    let all_flags = ROUTER | SOLICITED | OVERRIDE;
    let ours = || answer(GATEWAY, me, all_flags);
    let full_of_options: Vec<_> = std::iter::once(own_mac()).chain((0..15).map(|n| nonce([n; 6]))).collect();
    vec![
        case("who is the router", solicitation(me, GATEWAY, &[own_mac()]), ours()),
        case("is the router still there (NUD)", unicast(&[own_mac()]), ours()),
        case("NUD without an option: the answer is longer", unicast(&[]), ours()),
        case("with a nonce: the answer is shorter", unicast(&[own_mac(), nonce([1, 2, 3, 4, 5, 6])]), ours()),
        case(
            "an unknown option first",
            unicast(&[vec![200, 2, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]]),
            ours(),
        ),
        case("with 16 units of options", unicast(&full_of_options), ours()),
        case("padding is no payload", padded, ours()),
        case(
            "from the global address (RFC 4861 7.2.2)",
            solicitation(VM_A.address, GATEWAY, &[own_mac()]),
            answer(GATEWAY, VM_A.address, all_flags),
        ),
        case(
            "for the configured gateway address",
            solicitation(me, GATEWAY_GLOBAL, &[own_mac()]),
            answer(GATEWAY_GLOBAL, me, all_flags),
        ),
        case(
            "the VM tries to take the router's address (DAD)",
            solicitation(Ipv6Addr::UNSPECIFIED, GATEWAY, &[]),
            answer(GATEWAY, ALL_NODES, ROUTER | OVERRIDE),
        ),
        case(
            "DAD for the router's address with a nonce (RFC 7527)",
            solicitation(Ipv6Addr::UNSPECIFIED, GATEWAY, &[nonce([1; 6])]),
            answer(GATEWAY, ALL_NODES, ROUTER | OVERRIDE),
        ),
        case(
            "DAD for the configured gateway address",
            solicitation(Ipv6Addr::UNSPECIFIED, GATEWAY_GLOBAL, &[]),
            answer(GATEWAY_GLOBAL, ALL_NODES, ROUTER | OVERRIDE),
        ),
    ]
}

fn proxied() -> Vec<Case> {
    let me = link_local_a();
    vec![
        case(
            "a neighbour on a prefix that the guest believes on-link",
            solicitation(VM_A.address, VM_B.address, &[own_mac()]),
            answer(VM_B.address, VM_A.address, ROUTER | SOLICITED),
        ),
        case(
            "NUD of a neighbour, unicast to it",
            discovery(VM_A.address, VM_B.address)
                .carrying(Payload::neighbour_solicitation(VM_B.address, &[own_mac()])),
            answer(VM_B.address, VM_A.address, ROUTER | SOLICITED),
        ),
        case(
            "DAD for an address that another VM has",
            solicitation(Ipv6Addr::UNSPECIFIED, VM_B.address, &[]),
            answer(VM_B.address, ALL_NODES, ROUTER),
        ),
        Case::pass("a neighbour whose TAP is down", solicitation(me, VM_D.address, &[own_mac()])),
    ]
}

fn not_answered() -> Vec<Case> {
    let me = link_local_a();
    vec![
        Case::pass("DAD for its own address", solicitation(Ipv6Addr::UNSPECIFIED, VM_A.address, &[])),
        Case::pass("DAD for its own second address", solicitation(Ipv6Addr::UNSPECIFIED, VM_A.second, &[])),
        Case::pass("DAD for its own link-local address", solicitation(Ipv6Addr::UNSPECIFIED, me, &[])),
        Case::pass("its own address, not DAD", solicitation(me, VM_A.address, &[own_mac()])),
        Case::pass("an address of nobody", solicitation(me, ELSEWHERE, &[own_mac()])),
        Case::pass(
            "more options than are followed",
            discovery(me, GATEWAY)
                .carrying(Payload::neighbour_solicitation(GATEWAY, &vec![nonce([1; 6]); 17])),
        ),
        Case::pass(
            "a checksum still to be completed",
            Ipv6 { checksum: Checksum::Partial, ..discovery(me, GATEWAY) }
                .carrying(Payload::neighbour_solicitation(GATEWAY, &[own_mac()])),
        ),
    ]
}

fn invalid() -> Vec<Case> {
    let me = link_local_a();
    let ask = || Payload::neighbour_solicitation(GATEWAY, &[own_mac()]);
    let with = |payload: Payload| discovery(me, GATEWAY).carrying(payload);
    let drop = |name, frame: Frame| Case::drop(name, frame, Reason::NdInvalid);
    let body = |target: Ipv6Addr| [[0; 4].as_slice(), &target.octets()].concat();
    vec![
        drop("hop limit 254", Ipv6 { hop_limit: 254, ..discovery(me, GATEWAY) }.carrying(ask())),
        drop("code 1", with(Payload::icmpv6(135, 1, &body(GATEWAY)))),
        drop("cut short", with(Payload::icmpv6(135, 0, &body(GATEWAY)[..16]))),
        drop("half an option", with(Payload::icmpv6(135, 0, &[body(GATEWAY), vec![1, 1, 0, 0]].concat()))),
        drop(
            "option of length 0",
            with(Payload::neighbour_solicitation(GATEWAY, &[vec![1, 0, 0, 0, 0, 0, 0, 0]])),
        ),
        drop(
            "option beyond the end",
            with(Payload::neighbour_solicitation(GATEWAY, &[vec![14, 3, 0, 0, 0, 0, 0, 0]])),
        ),
        drop(
            "wrong checksum",
            Ipv6 { checksum: Checksum::Wrong(0x1234), ..discovery(me, GATEWAY) }.carrying(ask()),
        ),
        drop("multicast target", with(Payload::neighbour_solicitation(ALL_NODES, &[own_mac()]))),
        drop(
            "DAD with a source link-layer address",
            solicitation(Ipv6Addr::UNSPECIFIED, GATEWAY, &[own_mac()]),
        ),
        drop(
            "DAD to all nodes",
            discovery(Ipv6Addr::UNSPECIFIED, ALL_NODES)
                .carrying(Payload::neighbour_solicitation(GATEWAY, &[])),
        ),
        drop("to somebody who is not asked for", discovery(me, VM_B.address).carrying(ask())),
        Case::drop(
            "another VM's link-layer address",
            with(Payload::neighbour_solicitation(GATEWAY, &[source_link_layer(VM_B.mac)])),
            Reason::NdSpoof,
        ),
        Case::drop(
            "behind destination options",
            Ipv6 { extensions: vec![Extension::padding(DESTINATION_OPTIONS)], ..discovery(me, GATEWAY) }
                .carrying(ask()),
            Reason::NdHidden,
        ),
    ]
}

fn advertisements() -> Vec<Case> {
    let me = link_local_a();
    let tell =
        |flags, target, mac| Payload::neighbour_advertisement(flags, target, &[target_link_layer(mac)]);
    let to_all = |payload: Payload| discovery(me, ALL_NODES).carrying(payload);
    let to_router = |payload: Payload| discovery(me, GATEWAY).carrying(payload);
    vec![
        Case::pass(
            "its own address to the router",
            to_router(tell(SOLICITED | OVERRIDE, VM_A.address, VM_A.mac)),
        ),
        Case::pass("its own link-local address to all", to_all(tell(OVERRIDE, me, VM_A.mac))),
        Case::pass(
            "its own address without an option",
            to_router(Payload::neighbour_advertisement(SOLICITED, VM_A.address, &[])),
        ),
        Case::drop(
            "NA for another VM's address",
            to_all(tell(OVERRIDE, VM_B.address, VM_A.mac)),
            Reason::NdSpoof,
        ),
        Case::drop("NA for nobody's address", to_all(tell(OVERRIDE, ELSEWHERE, VM_A.mac)), Reason::NdSpoof),
        Case::drop(
            "the router's link-local address",
            to_all(tell(OVERRIDE, GATEWAY, VM_A.mac)),
            Reason::NdSpoof,
        ),
        Case::drop(
            "the router's other address",
            to_all(tell(OVERRIDE, GATEWAY_GLOBAL, VM_A.mac)),
            Reason::NdSpoof,
        ),
        Case::drop("another's MAC", to_all(tell(OVERRIDE, VM_A.address, VM_B.mac)), Reason::NdSpoof),
        Case::drop(
            "solicited to all nodes",
            to_all(tell(SOLICITED, VM_A.address, VM_A.mac)),
            Reason::NdInvalid,
        ),
        Case::drop(
            "to another VM",
            discovery(me, VM_B.address).carrying(tell(0, me, VM_A.mac)),
            Reason::NdInvalid,
        ),
    ]
}

fn routers() -> Vec<Case> {
    let me = link_local_a();
    let ask = |source, options: &[Vec<u8>]| {
        discovery(source, ALL_ROUTERS).carrying(Payload::router_solicitation(options))
    };
    let case = |name, question, answer| Case::reply(name, question, answer, Counter::AnsweredRs);
    let ours = || advertisement_to(me, VM_A.mac);
    let drop = |name, frame: Frame| Case::drop(name, frame, Reason::NdInvalid);
    let mut again =
        Case::drop("from :: again within 3 s", ask(Ipv6Addr::UNSPECIFIED, &[]), Reason::RateLimited);
    again.multicast_spent = true;
    vec![
        case("router solicitation", ask(me, &[own_mac()]), ours()),
        case("RS without an option (optimistic DAD, RFC 4429)", ask(me, &[]), ours()),
        case(
            "from the global address",
            ask(VM_A.address, &[own_mac()]),
            advertisement_to(VM_A.address, VM_A.mac),
        ),
        case("from ::", ask(Ipv6Addr::UNSPECIFIED, &[]), advertisement()),
        case("with more options", ask(me, &[own_mac(), nonce([5; 6]), nonce([6; 6]), nonce([7; 6])]), ours()),
        case(
            "unicast to the router",
            discovery(me, GATEWAY).carrying(Payload::router_solicitation(&[own_mac()])),
            ours(),
        ),
        again,
        drop("from :: with a link-layer address", ask(Ipv6Addr::UNSPECIFIED, &[own_mac()])),
        drop(
            "RS with hop limit 1",
            Ipv6 { hop_limit: 1, ..discovery(me, ALL_ROUTERS) }.carrying(Payload::router_solicitation(&[])),
        ),
        drop("RS with code 1", discovery(me, ALL_ROUTERS).carrying(Payload::icmpv6(133, 1, &[0; 4]))),
        drop("RS with half an option", discovery(me, ALL_ROUTERS).carrying(Payload::icmpv6(133, 0, &[0; 8]))),
        drop(
            "RS with a wrong checksum",
            Ipv6 { checksum: Checksum::Wrong(1), ..discovery(me, ALL_ROUTERS) }
                .carrying(Payload::router_solicitation(&[])),
        ),
        drop("RS to another VM", discovery(me, VM_B.address).carrying(Payload::router_solicitation(&[]))),
        Case::drop(
            "RS with another VM's link-layer address",
            ask(me, &[source_link_layer(VM_B.mac)]),
            Reason::NdSpoof,
        ),
    ]
}
