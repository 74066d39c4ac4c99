//! Fragments: the later ones follow the first.

use super::Who::{A, Afar, B, C};
use super::{Act, CLOSED_SERVER, Passage, Story, Who, packet, story};
use crate::frame::{Extension, Payload, TCP, UDP};
use dataplane_ebpf::abi::Reason;

/// SCTP.
const SCTP: u8 = 132;

pub fn stories() -> Vec<Story> {
    [in_order(), out_of_order(), hostile()].concat()
}

/// The first fragment of a datagram to this port, with this identification.
fn first(from: Who, to: Who, port: u16, identification: u32) -> Passage {
    packet(from, to, Payload::udp(40_000, port, &[7; 40])).behind(&[Extension::fragment(
        0,
        true,
        identification,
    )])
}

/// A later one.
fn later(from: Who, to: Who, identification: u32) -> Passage {
    packet(from, to, Payload::raw(UDP, [7; 16])).behind(&[Extension::fragment(48, false, identification)])
}

const SENT: [&str; 3] = [
    "A A > B fragments 0 2304 < B: seen (A)",
    "A A > B udp 40000 5000 < B: seen (A)",
    "B B > A udp 5000 40000 < A: answers (A)",
];

fn in_order() -> Vec<Story> {
    vec![
        story("fragments in order", [first(A, B, 5000, 9).into(), later(A, B, 9).into()], &SENT),
        story(
            "a second datagram of the flow",
            [
                first(A, B, 5000, 8).into(),
                later(A, B, 8).into(),
                first(A, B, 5000, 9).into(),
                later(A, B, 9).into(),
            ],
            &["A A > B fragments 0 2048 < B: seen (A)", SENT[0], SENT[1], SENT[2]],
        ),
        story(
            "a packet that is its only fragment",
            [
                packet(A, B, Payload::udp(40_000, 5000, b"x"))
                    .behind(&[Extension::fragment(0, false, 9)])
                    .into(),
                packet(A, B, Payload::udp(40_000, 22, b"x"))
                    .behind(&[Extension::fragment(0, false, 9)])
                    .dropped(Reason::Policy)
                    .into(),
                later(A, B, 9).dropped(Reason::FragmentVerdict).into(),
            ],
            &[SENT[1], SENT[2]],
        ),
        story(
            "fragments from afar",
            [
                first(Afar, B, 5000, 9).into(),
                later(Afar, B, 9).into(),
                later(Afar, B, 10).dropped(Reason::FragmentVerdict).into(),
            ],
            &[
                "- Afar > B fragments 0 2304 < B: seen (B)",
                "- Afar > B udp 40000 5000 < B: seen (B)",
                "B B > Afar udp 5000 40000 < -: answers (B)",
            ],
        ),
        story(
            "fragments that the kernel delivers",
            [
                later(Afar, B, 9).by_kernel().dropped(Reason::FragmentVerdict).into(),
                first(Afar, B, 5000, 9).by_kernel().into(),
                later(Afar, B, 9).by_kernel().into(),
            ],
            &[
                "- Afar > B fragments 0 2304 < B: seen (B)",
                "- Afar > B udp 40000 5000 < B: seen (B)",
                "B B > Afar udp 5000 40000 < -: answers (B)",
            ],
        ),
    ]
}

fn out_of_order() -> Vec<Story> {
    vec![
        story(
            "a later fragment before the first",
            [
                later(A, B, 9).dropped(Reason::FragmentVerdict).into(),
                first(A, B, 5000, 9).into(),
                later(A, B, 9).into(),
            ],
            &SENT,
        ),
        story(
            "a fragment that comes too late",
            [
                first(A, B, 5000, 9).into(),
                Act::Wait(62),
                later(A, B, 9).dropped(Reason::FragmentVerdict).into(),
            ],
            &SENT,
        ),
    ]
}

fn hostile() -> Vec<Story> {
    vec![
        story(
            "fragments of what may not pass",
            [
                first(A, B, 22, 9).dropped(Reason::Policy).into(),
                later(A, B, 9).dropped(Reason::FragmentVerdict).into(),
            ],
            &[],
        ),
        story(
            "fragments of somebody else's packet",
            [
                first(A, B, 5000, 9).into(),
                later(A, B, 10).dropped(Reason::FragmentVerdict).into(),
                later(A, C, 9).dropped(Reason::FragmentVerdict).into(),
                later(Afar, B, 9).dropped(Reason::FragmentVerdict).into(),
                later(Afar, B, 9)
                    .by_xdp()
                    .with(|ip| ip.source = A.address())
                    .dropped(Reason::SourceAddress)
                    .into(),
                later(B, A, 9).dropped(Reason::FragmentVerdict).into(),
            ],
            &SENT,
        ),
        story(
            "fragments of what is no longer allowed",
            [
                first(A, B, 5000, 9).into(),
                Act::Policy(CLOSED_SERVER),
                Act::Wait(3),
                later(A, B, 9).dropped(Reason::FragmentVerdict).into(),
            ],
            &SENT,
        ),
        story(
            "fragments to an address that is another VM's now",
            [first(A, B, 5000, 9).into(), Act::Move, later(A, B, 9).dropped(Reason::FragmentVerdict).into()],
            &SENT,
        ),
        story(
            "a first fragment without its ports that the kernel delivers (RFC 7112)",
            [
                packet(Afar, B, Payload::raw(TCP, [0, 80, 0, 80, 0, 0, 0, 0]))
                    .behind(&[Extension::fragment(0, true, 9)])
                    .by_kernel()
                    .dropped(Reason::FragmentChain)
                    .into(),
                packet(Afar, B, Payload::raw(SCTP, []))
                    .behind(&[Extension::fragment(0, true, 9)])
                    .by_kernel()
                    .dropped(Reason::FragmentChain)
                    .into(),
            ],
            &[],
        ),
        story(
            "a second first fragment with other ports (RFC 5722)",
            [
                first(A, B, 5000, 9).into(),
                first(A, B, 22, 9).dropped(Reason::Policy).into(),
                later(A, B, 9).into(),
            ],
            &SENT,
        ),
    ]
}
