//! What is neither TCP nor UDP: echo, other ICMPv6, SCTP, UDP-Lite, encrypted packets, headers before them.

use super::Who::{A, Afar, B};
use super::{Passage, Story, Who, packet, story};
use crate::frame::{DESTINATION_OPTIONS, Extension, NO_NEXT_HEADER, Payload};
use dataplane_ebpf::abi::Reason;

const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;
const ESP: u8 = 50;
const MOBILITY: u8 = 135;
const IPIP: u8 = 4;
const VXLAN_PORT: u16 = 4789;
/// The authentication header, as an extension header's number.
const AUTHENTICATION: u8 = 51;

pub fn stories() -> Vec<Story> {
    [echo(), other_icmp(), other_protocols(), tunnels()].concat()
}

fn request(from: Who, to: Who, identifier: u16) -> Passage {
    packet(from, to, Payload::echo_request(identifier, 1, b"ping"))
}

fn reply(from: Who, to: Who, identifier: u16) -> Passage {
    packet(from, to, Payload::echo_reply(identifier, 1, b"ping"))
}

/// Two ports and what follows.
fn ports(from: Who, to: Who, protocol: u8, source: u16, destination: u16) -> Passage {
    let bytes = [source.to_be_bytes().as_slice(), &destination.to_be_bytes(), &[0; 12]].concat();
    packet(from, to, Payload::raw(protocol, bytes))
}

const ASKED: [&str; 2] =
    ["A A > B echo 7 7 < B: seen established (A)", "B B > A echo 7 7 < A: answers seen established (A)"];

fn echo() -> Vec<Story> {
    vec![
        story("echo and reply", [request(A, B, 7).into(), reply(B, A, 7).into()], &ASKED),
        story(
            "a reply with another identifier",
            [request(A, B, 7).into(), reply(B, A, 8).dropped(Reason::NoFlow).into()],
            &["A A > B echo 7 7 < B: seen (A)", "B B > A echo 7 7 < A: answers (A)"],
        ),
        story(
            "who is asked may not ask",
            [request(A, B, 7).into(), reply(B, A, 7).into(), request(B, A, 7).dropped(Reason::Policy).into()],
            &ASKED,
        ),
        story("a reply that nobody asked for", [reply(A, B, 7).dropped(Reason::NoFlow).into()], &[]),
        story(
            "a reply that nobody asked for, to where everything may go",
            [
                reply(A, Afar, 7).dropped(Reason::NoFlow).into(),
                request(Afar, A, 7).dropped(Reason::Policy).into(),
            ],
            &[],
        ),
        story(
            "an echo that may not enter",
            [request(Afar, A, 7).dropped(Reason::Policy).into(), request(Afar, B, 7).into()],
            &["- Afar > B echo 7 7 < B: seen (B)", "B B > Afar echo 7 7 < -: answers (B)"],
        ),
    ]
}

fn other_icmp() -> Vec<Story> {
    let message = |from, to, kind, code| packet(from, to, Payload::icmpv6(kind, code, &[0; 12]));
    vec![story(
        "other messages need a right each",
        [
            message(A, B, 139, 0).into(),
            message(A, B, 139, 1).dropped(Reason::Policy).into(),
            message(B, A, 140, 0).dropped(Reason::Policy).into(),
            message(A, Afar, 200, 1).into(),
            message(Afar, A, 200, 1).dropped(Reason::Policy).into(),
            message(Afar, B, 139, 0).by_kernel().into(),
        ],
        &[],
    )]
}

fn other_protocols() -> Vec<Story> {
    let sealed = |from, to| packet(from, to, Payload::raw(ESP, [1; 24]));
    // Of no authenticated bytes: 12 bytes (RFC 4302 section 2.2), and 4 more for the multiple of eight.
    let authenticated =
        [Extension { number: AUTHENTICATION, rest: vec![2, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0] }];
    let mobility = [Extension { number: MOBILITY, rest: vec![0; 7] }];
    let options = [Extension::padding(DESTINATION_OPTIONS)];
    vec![
        story(
            "SCTP",
            [
                ports(A, B, SCTP, 1000, 9).into(),
                ports(A, B, SCTP, 1000, 10).dropped(Reason::Policy).into(),
                ports(B, A, SCTP, 9, 1000).into(),
                ports(B, A, SCTP, 9, 1001).dropped(Reason::Policy).into(),
            ],
            &[
                "A A > B sctp 1000 9 < B: seen established (A)",
                "B B > A sctp 9 1000 < A: answers seen established (A)",
            ],
        ),
        story(
            "UDP-Lite",
            [
                ports(A, B, UDP_LITE, 1000, 7).by_tc().into(),
                ports(B, A, UDP_LITE, 7, 1000).by_tc().into(),
                ports(B, A, UDP_LITE, 8, 1000).by_tc().dropped(Reason::Policy).into(),
            ],
            &[
                "A A > B udplite 1000 7 < B: seen established (A)",
                "B B > A udplite 7 1000 < A: answers seen established (A)",
            ],
        ),
        story(
            "encrypted packets",
            [sealed(A, B).into(), sealed(B, A).into(), sealed(B, Afar).dropped(Reason::Policy).into()],
            &[
                "A A > B other 0 0 < B: seen established (A)",
                "B B > A other 0 0 < A: answers seen established (A)",
            ],
        ),
        story(
            "what is behind an authentication header is what counts",
            [
                packet(A, B, Payload::udp(1, 5000, b"x")).behind(&authenticated).into(),
                packet(A, B, Payload::udp(1, 5001, b"x"))
                    .behind(&authenticated)
                    .dropped(Reason::Policy)
                    .into(),
            ],
            &["A A > B udp 1 5000 < B: seen (A)", "B B > A udp 5000 1 < A: answers (A)"],
        ),
        story(
            "a mobility header is a protocol",
            [
                packet(A, B, Payload::raw(NO_NEXT_HEADER, []))
                    .behind(&mobility)
                    .dropped(Reason::Policy)
                    .into(),
                packet(A, Afar, Payload::raw(NO_NEXT_HEADER, [])).behind(&mobility).into(),
            ],
            &["- Afar > A other 0 0 < A: answers (A)", "A A > Afar other 0 0 < -: seen (A)"],
        ),
        story(
            "ports behind options",
            [
                packet(A, B, Payload::udp(1, 5000, b"x")).behind(&options).into(),
                packet(A, B, Payload::udp(1, 22, b"x")).behind(&options).dropped(Reason::Policy).into(),
                packet(B, A, Payload::udp(5000, 1, b"x")).behind(&options).into(),
            ],
            &[
                "A A > B udp 1 5000 < B: seen established (A)",
                "B B > A udp 5000 1 < A: answers seen established (A)",
            ],
        ),
    ]
}

fn tunnels() -> Vec<Story> {
    let datagram = |from, to, source, destination| packet(from, to, Payload::udp(source, destination, b"x"));
    let options = [Extension::padding(DESTINATION_OPTIONS)];
    let first = [Extension::fragment(0, true, 7)];
    vec![
        story(
            "what could hide others may not leave a VM that may send everything",
            [
                datagram(A, Afar, 1, VXLAN_PORT).dropped(Reason::Policy).into(),
                datagram(A, B, 1, VXLAN_PORT).behind(&options).dropped(Reason::Policy).into(),
                datagram(A, Afar, 1, VXLAN_PORT).behind(&first).dropped(Reason::Policy).into(),
                packet(A, Afar, Payload::raw(IPIP, [0x45; 24])).by_tc().dropped(Reason::Policy).into(),
            ],
            &[],
        ),
        story(
            "an answer to where tunnels end is an answer",
            [datagram(Afar, B, VXLAN_PORT, 5000).into(), datagram(B, Afar, 5000, VXLAN_PORT).into()],
            &[
                "- Afar > B udp 4789 5000 < B: seen established (B)",
                "B B > Afar udp 5000 4789 < -: answers seen established (B)",
            ],
        ),
    ]
}
