//! Packets to other VMs of the host: what is sent on by which hook, and what is left to the kernel.

use super::Case;
use super::world::{VM_A, VM_B, VM_C, VM_D, Vm, from_a};
use crate::frame::{Checksum, Ipv6, Payload};
use dataplane_ebpf::host::MemoryFrame;

pub fn cases() -> Vec<Case> {
    [plain(), limits(), offloads()].concat()
}

fn to_b() -> Ipv6 {
    from_a(VM_B.address)
}

fn plain() -> Vec<Case> {
    vec![
        Case::forward("UDP", to_b().carrying(Payload::udp(4000, 5000, b"hello")), &VM_B),
        Case::forward("UDP of no bytes", to_b().carrying(Payload::udp(4000, 5000, b"")), &VM_B),
        Case::forward(
            "UDP of every length digit",
            to_b().carrying(Payload::udp(4000, 5000, &[0xa5; 1023])),
            &VM_B,
        ),
        Case::forward("UDP as long as fits", to_b().carrying(Payload::udp(4000, 5000, &[0x5a; 1452])), &VM_B),
        Case::forward("TCP", to_b().carrying(Payload::tcp(4000, 5000, 0x18, b"hello")), &VM_B),
        Case::forward("ICMPv6 echo", to_b().carrying(Payload::echo_request(1, 2, b"ping")), &VM_B),
        Case::forward("to a second address", from_a(VM_B.second).carrying(Payload::udp(1, 2, b"x")), &VM_B),
        Case::forward(
            "from a second address",
            Ipv6 { source: VM_A.second, ..to_b() }.carrying(Payload::udp(1, 2, b"x")),
            &VM_B,
        ),
        Case::forward(
            "traffic class and flow label stay",
            Ipv6 { traffic_class: 0xb8, flow_label: 0xabcde, ..to_b() }.carrying(Payload::udp(1, 2, b"x")),
            &VM_B,
        ),
        Case::forward(
            "hop limit 2",
            Ipv6 { hop_limit: 2, ..to_b() }.carrying(Payload::udp(1, 2, b"x")),
            &VM_B,
        ),
        Case::forward(
            "DHCPv6 ports of a client to another VM",
            to_b().carrying(Payload::udp(546, 547, &[1, 0, 0, 1])),
            &VM_B,
        ),
    ]
}

fn limits() -> Vec<Case> {
    let length = |to: &Vm, len: usize| from_a(to.address).carrying(Payload::udp(1, 2, &vec![7; len - 48]));
    vec![
        Case::pass("hop limit 1", Ipv6 { hop_limit: 1, ..to_b() }.carrying(Payload::udp(1, 2, b"x"))),
        Case::pass("hop limit 0", Ipv6 { hop_limit: 0, ..to_b() }.carrying(Payload::udp(1, 2, b"x"))),
        Case::pass("to a TAP that is down", from_a(VM_D.address).carrying(Payload::udp(1, 2, b"x"))),
        Case::forward("exactly the MTU", length(&VM_C, 1280), &VM_C),
        Case::pass("one byte over the MTU", length(&VM_C, 1281)),
        Case::pass("40 bytes over the MTU", length(&VM_C, 1320)),
        Case::pass(
            "padding is for the kernel to cut off",
            Ipv6 { padding: vec![0; 6], ..to_b() }.carrying(Payload::udp(1, 2, b"x")),
        ),
    ]
}

fn offloads() -> Vec<Case> {
    let partial = |payload: Payload| Ipv6 { checksum: Checksum::Partial, ..to_b() }.carrying(payload);
    let gso = |to: &Vm, payload: Payload, gso_size: usize| {
        let frame = Ipv6 { checksum: Checksum::Partial, ..from_a(to.address) }.carrying(payload);
        MemoryFrame { gso_size, ..frame.into() }
    };
    let tcp = || Payload::tcp(1, 2, 0x10, &[3; 2900]);
    let mut without_length = to_b().carrying(Payload::tcp(1, 2, 0x10, b"data"));
    let open = pseudo_sum_of_length_zero(&without_length.bytes).to_be_bytes();
    without_length.bytes[70..72].copy_from_slice(&open);
    let inner_open = {
        // A tunnel: the outer checksum counts the inner one as complete, which it is not.
        let mut frame = to_b().carrying(Payload::udp(4789, 4789, &[0x11; 64]));
        frame.bytes[100] ^= 0xff;
        frame
    };
    let mut no_checksum = to_b().carrying(Payload::udp(4789, 4789, b"tunnel"));
    no_checksum.bytes[60..62].fill(0);
    vec![
        Case::forward("TCP with a partial checksum", partial(Payload::tcp(1, 2, 0x10, b"data")), &VM_B)
            .by_tc(),
        Case::forward("UDP with a partial checksum", partial(Payload::udp(1, 2, b"data")), &VM_B).by_tc(),
        Case::forward("ICMPv6 with a partial checksum", partial(Payload::echo_request(1, 1, b"x")), &VM_B)
            .by_tc(),
        Case::forward("TCP with a pseudo-header of length 0 (LSO)", without_length, &VM_B).by_tc(),
        Case::forward("UDP whose sum is not right", inner_open, &VM_B).by_tc(),
        Case::forward("UDP without a checksum (RFC 6935)", no_checksum, &VM_B).by_tc(),
        Case::forward("TCP segments to be cut, each fits", gso(&VM_B, tcp(), 1440), &VM_B).by_tc(),
        Case::pass("TCP segments to be cut, one byte too long", gso(&VM_B, tcp(), 1441)),
        Case::forward(
            "UDP segments to be cut, each fits",
            gso(&VM_B, Payload::udp(1, 2, &[1; 2900]), 1452),
            &VM_B,
        )
        .by_tc(),
        Case::pass(
            "UDP segments to be cut, one byte too long",
            gso(&VM_B, Payload::udp(1, 2, &[1; 2900]), 1453),
        ),
        Case::pass("segments for the smaller MTU", gso(&VM_C, tcp(), 1440)),
    ]
}

/// What some stacks leave in the checksum field of a TCP segment to be cut: the sum of addresses and protocol.
fn pseudo_sum_of_length_zero(frame: &[u8]) -> u16 {
    let words = frame[22..54].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum::<u32>() + 6;
    let folded = (sum >> 16) + (sum & 0xffff);
    ((folded >> 16) + (folded & 0xffff)) as u16
}
