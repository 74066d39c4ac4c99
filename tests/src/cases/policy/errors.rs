//! ICMPv6 errors: those about a packet that was sent pass, whoever is on its way; forged ones do not.

use super::Who::{A, Afar, B, C};
use super::{Passage, Story, Who, packet, story};
use crate::frame::{Extension, Frame, Ipv6, Payload};
use dataplane_ebpf::abi::Reason;
use std::net::Ipv6Addr;

/// A router on the way, whose errors count as well.
const ROUTER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 1, 0, 0, 0, 1);

pub fn stories() -> Vec<Story> {
    [related(), forged()].concat()
}

fn headers(from: Who, to: Who) -> Ipv6 {
    Ipv6 { source: from.address(), destination: to.address(), ..Ipv6::new([0; 6], [0; 6]) }
}

/// An error about a packet: Port Unreachable, and as much of the packet as fits.
fn about(from: Who, to: Who, frame: &Frame) -> Passage {
    let quoted = &frame.bytes[14..frame.bytes.len().min(14 + 80)];
    packet(from, to, Payload::icmpv6(1, 4, &[&[0; 4], quoted].concat()))
}

fn datagram() -> Payload {
    Payload::udp(40_000, 5000, b"hello")
}

fn sent(to: Who) -> Passage {
    packet(A, to, datagram())
}

const TO_B: [&str; 2] = ["A A > B udp 40000 5000 < B: seen (A)", "B B > A udp 5000 40000 < A: answers (A)"];
const TO_AFAR: [&str; 2] =
    ["- Afar > A udp 5000 40000 < A: answers (A)", "A A > Afar udp 40000 5000 < -: seen (A)"];

fn related() -> Vec<Story> {
    let fragment = Ipv6 { extensions: vec![Extension::fragment(0, true, 9)], ..headers(A, B) };
    let tcp = Payload::tcp(40_000, 80, 2, b"");
    let echo = Payload::echo_request(7, 1, b"ping");
    vec![
        story(
            "an error about a datagram",
            [sent(B).into(), about(B, A, &headers(A, B).carrying(datagram())).into()],
            &TO_B,
        ),
        story(
            "an error about a connection",
            [packet(A, B, tcp.clone()).into(), about(B, A, &headers(A, B).carrying(tcp)).into()],
            &["A A > B tcp 40000 80 < B: seen (A)", "B B > A tcp 80 40000 < A: answers (A)"],
        ),
        story(
            "an error about an echo",
            [packet(A, B, echo.clone()).into(), about(B, A, &headers(A, B).carrying(echo)).into()],
            &["A A > B echo 7 7 < B: seen (A)", "B B > A echo 7 7 < A: answers (A)"],
        ),
        story(
            "an error about an answer",
            [
                sent(B).into(),
                packet(B, A, Payload::udp(5000, 40_000, b"x")).into(),
                about(A, B, &headers(B, A).carrying(Payload::udp(5000, 40_000, b"x"))).into(),
            ],
            &[
                "A A > B udp 40000 5000 < B: seen established (A)",
                "B B > A udp 5000 40000 < A: answers seen established (A)",
            ],
        ),
        story(
            "an error about a first fragment",
            [sent(B).into(), about(B, A, &fragment.carrying(datagram())).into()],
            &TO_B,
        ),
        story(
            "an error from afar, and of a router on the way",
            [
                sent(Afar).into(),
                about(Afar, A, &headers(A, Afar).carrying(datagram())).into(),
                about(Afar, A, &headers(A, Afar).carrying(datagram())).with(|ip| ip.source = ROUTER).into(),
                about(Afar, A, &headers(A, Afar).carrying(datagram())).by_kernel().into(),
            ],
            &TO_AFAR,
        ),
    ]
}

fn forged() -> Vec<Story> {
    let quote = |from: Who, to: Who, payload: Payload| headers(from, to).carrying(payload);
    let forged = |name, error: Passage| {
        story(name, [sent(B).into(), error.dropped(Reason::UnrelatedError).into()], &TO_B)
    };
    let later = Ipv6 { extensions: vec![Extension::fragment(48, false, 9)], ..headers(A, B) };
    vec![
        story(
            "an error about nothing",
            [
                about(B, A, &quote(A, B, datagram())).dropped(Reason::UnrelatedError).into(),
                about(Afar, A, &quote(A, Afar, datagram())).dropped(Reason::UnrelatedError).into(),
                about(Afar, A, &quote(A, Afar, datagram()))
                    .by_kernel()
                    .dropped(Reason::UnrelatedError)
                    .into(),
                packet(A, B, Payload::icmpv6(1, 4, &[0; 4])).dropped(Reason::UnrelatedError).into(),
                packet(A, B, Payload::icmpv6(1, 4, &[0; 50])).dropped(Reason::UnrelatedError).into(),
            ],
            &[],
        ),
        forged("an error about another port", about(B, A, &quote(A, B, Payload::udp(40_000, 5001, b"x")))),
        forged(
            "an error about another protocol",
            about(B, A, &quote(A, B, Payload::tcp(40_000, 5000, 2, b""))),
        ),
        forged("an error about what somebody else sent", about(B, A, &quote(B, A, datagram()))),
        forged("an error to somebody else", about(A, C, &quote(A, B, datagram()))),
        forged("an error of another VM", about(C, A, &quote(A, B, datagram()))),
        forged("an error from afar about what did not leave", about(Afar, A, &quote(A, B, datagram()))),
        story(
            "an error about what is no flow",
            [
                packet(A, B, Payload::echo_request(0, 1, b"ping")).into(),
                about(B, A, &quote(A, B, Payload::icmpv6(200, 0, &[0; 8])))
                    .dropped(Reason::UnrelatedError)
                    .into(),
            ],
            &["A A > B echo 0 0 < B: seen (A)", "B B > A echo 0 0 < A: answers (A)"],
        ),
        story(
            "an error that is a first fragment opens nothing",
            [
                sent(B).into(),
                about(B, A, &quote(A, B, datagram())).behind(&[Extension::fragment(0, true, 9)]).into(),
                packet(A, B, Payload::raw(17, [7; 16]))
                    .behind(&[Extension::fragment(48, false, 9)])
                    .dropped(Reason::FragmentVerdict)
                    .into(),
            ],
            &TO_B,
        ),
        forged("an error about a later fragment", about(B, A, &later.carrying(Payload::raw(17, [7; 16])))),
    ]
}
