//! TCP and UDP: who may begin, who may answer, for how long, and what a change of policy does.

use super::Who::{A, Afar, B, C};
use super::{Act, CLOSED_SERVER, LOUD_NEIGHBOUR, Passage, Story, Who, packet, story};
use crate::frame::{DESTINATION_OPTIONS, Extension, Payload};
use dataplane_ebpf::abi::Reason;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

pub fn stories() -> Vec<Story> {
    [handshakes(), ends(), injections(), datagrams(), times(), changes(), floods()].concat()
}

fn tcp(from: Who, to: Who, flags: u8) -> Passage {
    let (source, destination) = if to == A { (80, 40_000) } else { (40_000, 80) };
    packet(from, to, Payload::tcp(source, destination, flags, b""))
}

/// A datagram of the service that VM B offers, or an answer to one.
fn udp(from: Who, to: Who) -> Passage {
    let (source, destination) = if to == A { (5000, 40_000) } else { (40_000, 5000) };
    packet(from, to, Payload::udp(source, destination, b"hello"))
}

fn handshake() -> Vec<Act> {
    vec![tcp(A, B, SYN).into(), tcp(B, A, SYN | ACK).into(), tcp(A, B, ACK).into()]
}

fn after_handshake(acts: impl IntoIterator<Item = Act>) -> Vec<Act> {
    handshake().into_iter().chain(acts).collect()
}

const RESET: [&str; 2] = [
    "A A > B tcp 40000 80 < B: seen established reset (A)",
    "B B > A tcp 80 40000 < A: answers seen established reset (A)",
];

const ESTABLISHED: [&str; 2] = [
    "A A > B tcp 40000 80 < B: seen established (A)",
    "B B > A tcp 80 40000 < A: answers seen established (A)",
];

fn handshakes() -> Vec<Story> {
    let closed = |name, from, to, reason| story(name, [tcp(from, to, SYN).dropped(reason).into()], &[]);
    vec![
        story("a connection", after_handshake([tcp(B, A, ACK).into(), tcp(A, B, ACK).into()]), &ESTABLISHED),
        story(
            "only who calls",
            [tcp(A, B, SYN).into(), tcp(B, A, SYN).dropped(Reason::Policy).into()],
            &["A A > B tcp 40000 80 < B: seen (A)", "B B > A tcp 80 40000 < A: answers (A)"],
        ),
        story(
            "who only sends SYN holds no established flow",
            [tcp(A, B, SYN).into(), tcp(B, A, SYN | ACK).into(), tcp(A, B, SYN).into()],
            &["A A > B tcp 40000 80 < B: seen (A)", "B B > A tcp 80 40000 < A: answers seen (A)"],
        ),
        closed("a caller who may not call", B, A, Reason::Policy),
        closed("a server that nobody may call", A, C, Reason::Policy),
        closed("a VM without policy may not call", C, B, Reason::Policy),
        story(
            "a port that is not offered",
            [packet(A, B, Payload::tcp(40_000, 81, SYN, b"")).dropped(Reason::Policy).into()],
            &[],
        ),
        story(
            "a connection to afar and back",
            [tcp(A, Afar, SYN).into(), tcp(Afar, A, SYN | ACK).into(), tcp(A, Afar, ACK).into()],
            &[
                "- Afar > A tcp 80 40000 < A: answers seen established (A)",
                "A A > Afar tcp 40000 80 < -: seen established (A)",
            ],
        ),
        story(
            "a connection from afar",
            [
                tcp(Afar, B, SYN).into(),
                packet(B, Afar, Payload::tcp(80, 40_000, SYN | ACK, b"")).into(),
                tcp(Afar, B, ACK).into(),
            ],
            &[
                "- Afar > B tcp 40000 80 < B: seen established (B)",
                "B B > Afar tcp 80 40000 < -: answers seen established (B)",
            ],
        ),
        closed("a call from afar to who takes none", Afar, A, Reason::Policy),
        story(
            "a connection that the kernel delivers",
            [
                tcp(Afar, B, SYN).by_kernel().into(),
                packet(B, Afar, Payload::tcp(80, 40_000, SYN | ACK, b"")).into(),
                tcp(A, B, SYN).by_kernel().into(),
                tcp(C, B, SYN).by_kernel().dropped(Reason::Policy).into(),
                tcp(Afar, A, SYN).by_kernel().dropped(Reason::Policy).into(),
            ],
            &[
                "- Afar > B tcp 40000 80 < B: seen (B)",
                "A A > B tcp 40000 80 < B: seen (A)",
                "B B > A tcp 80 40000 < A: answers (A)",
                "B B > Afar tcp 80 40000 < -: answers seen (B)",
            ],
        ),
        story(
            "a connection behind destination options",
            [
                tcp(A, B, SYN).behind(&[Extension::padding(DESTINATION_OPTIONS)]).into(),
                tcp(B, A, SYN | ACK).into(),
                tcp(A, C, SYN)
                    .behind(&[Extension::padding(DESTINATION_OPTIONS)])
                    .dropped(Reason::Policy)
                    .into(),
            ],
            &["A A > B tcp 40000 80 < B: seen (A)", "B B > A tcp 80 40000 < A: answers seen (A)"],
        ),
    ]
}

fn ends() -> Vec<Story> {
    let ended = [
        "A A > B tcp 40000 80 < B: seen established ended other-ended (A)",
        "B B > A tcp 80 40000 < A: answers seen established ended other-ended (A)",
    ];
    vec![
        story(
            "both sides end it",
            after_handshake([
                tcp(A, B, FIN | ACK).into(),
                tcp(B, A, FIN | ACK).into(),
                tcp(A, B, ACK).into(),
            ]),
            &ended,
        ),
        story("one side breaks it off", after_handshake([tcp(B, A, RST | ACK).into()]), &RESET),
        story(
            "a connection follows one that ended",
            after_handshake([
                tcp(B, A, RST | ACK).into(),
                tcp(A, B, SYN).into(),
                tcp(B, A, SYN | ACK).into(),
                tcp(A, B, ACK).into(),
            ]),
            &ESTABLISHED,
        ),
    ]
}

fn injections() -> Vec<Story> {
    let stray = |name, flags| story(name, [tcp(A, B, flags).dropped(Reason::NoFlow).into()], &[]);
    vec![
        stray("SYN and ACK of no connection", SYN | ACK),
        stray("RST of no connection", RST),
        stray("FIN of no connection", FIN | ACK),
        stray("no flags", 0),
        stray("SYN and FIN", SYN | FIN),
        stray("all flags", 0x3f),
        story(
            "data of a connection that was forgotten",
            [tcp(A, B, ACK).into(), tcp(B, A, ACK).into()],
            &["A A > B tcp 40000 80 < B: seen (A)", "B B > A tcp 80 40000 < A: answers seen (A)"],
        ),
        story(
            "nobody else sends in a flow",
            after_handshake([
                // From afar, and by another VM, in the name of VM B.
                tcp(Afar, A, ACK).with(|ip| ip.source = B.address()).dropped(Reason::SourceAddress).into(),
                tcp(Afar, A, RST)
                    .by_kernel()
                    .with(|ip| ip.source = B.address())
                    .dropped(Reason::SourceAddress)
                    .into(),
                tcp(C, A, ACK).with(|ip| ip.source = B.address()).dropped(Reason::SourceAddress).into(),
                tcp(C, A, RST).by_kernel().with(|ip| ip.source = B.address()).dropped(Reason::NoFlow).into(),
            ]),
            &ESTABLISHED,
        ),
        story(
            "SYN against an established connection",
            after_handshake([tcp(B, A, SYN).dropped(Reason::Policy).into(), tcp(B, A, ACK).into()]),
            &ESTABLISHED,
        ),
    ]
}

fn datagrams() -> Vec<Story> {
    vec![
        story(
            "datagrams and answers",
            [udp(A, B).into(), udp(B, A).into()],
            &[
                "A A > B udp 40000 5000 < B: seen established (A)",
                "B B > A udp 5000 40000 < A: answers seen established (A)",
            ],
        ),
        story("an answer that nobody asked for", [udp(B, A).dropped(Reason::Policy).into()], &[]),
        story(
            "another port answers",
            [
                udp(A, B).into(),
                packet(B, A, Payload::udp(5001, 40_000, b"x")).dropped(Reason::Policy).into(),
                packet(B, A, Payload::udp(5000, 40_001, b"x")).dropped(Reason::Policy).into(),
            ],
            &["A A > B udp 40000 5000 < B: seen (A)", "B B > A udp 5000 40000 < A: answers (A)"],
        ),
        story(
            "port 0",
            [
                packet(A, B, Payload::udp(0, 0, b"x")).dropped(Reason::Policy).into(),
                packet(A, Afar, Payload::udp(0, 0, b"x")).into(),
                packet(Afar, A, Payload::udp(0, 0, b"x")).into(),
            ],
            &[
                "- Afar > A udp 0 0 < A: answers seen established (A)",
                "A A > Afar udp 0 0 < -: seen established (A)",
            ],
        ),
        story(
            "to its own address, through the kernel",
            [packet(A, A, Payload::udp(1, 2, b"x")).by_tc().dropped(Reason::Policy).into()],
            &[],
        ),
    ]
}

fn times() -> Vec<Story> {
    vec![
        story(
            "silence ends a flow",
            [
                udp(A, B).into(),
                Act::Wait(50),
                udp(B, A).into(),
                Act::Wait(50),
                udp(B, A).into(),
                Act::Wait(62),
                udp(B, A).dropped(Reason::Policy).into(),
                udp(A, B).into(),
            ],
            &["A A > B udp 40000 5000 < B: seen (A)", "B B > A udp 5000 40000 < A: answers (A)"],
        ),
        story(
            "a handshake does not wait long",
            [tcp(A, B, SYN).into(), Act::Wait(22), tcp(B, A, SYN | ACK).dropped(Reason::NoFlow).into()],
            &["A A > B tcp 40000 80 < B: seen (A)", "B B > A tcp 80 40000 < A: answers (A)"],
        ),
        story(
            "a connection may be silent for an hour",
            after_handshake([Act::Wait(3500), tcp(B, A, ACK).into()]),
            &ESTABLISHED,
        ),
        story(
            "what ended does not last",
            after_handshake([
                tcp(A, B, RST).into(),
                Act::Wait(42),
                tcp(B, A, ACK).dropped(Reason::Policy).into(),
            ]),
            &RESET,
        ),
        story(
            "when both sides have ended it does not last",
            after_handshake([
                tcp(A, B, FIN | ACK).into(),
                tcp(B, A, FIN | ACK).into(),
                Act::Wait(32),
                tcp(B, A, ACK).dropped(Reason::Policy).into(),
            ]),
            &[
                "A A > B tcp 40000 80 < B: seen established ended other-ended (A)",
                "B B > A tcp 80 40000 < A: answers seen established ended other-ended (A)",
            ],
        ),
        story(
            "who has ended hears the other, after long silence as well",
            after_handshake([
                tcp(A, B, FIN | ACK).into(),
                Act::Wait(600),
                tcp(B, A, ACK).into(),
                tcp(A, B, ACK).into(),
            ]),
            &[
                "A A > B tcp 40000 80 < B: seen established ended (A)",
                "B B > A tcp 80 40000 < A: answers seen established other-ended (A)",
            ],
        ),
        story(
            "a forged RST does not end what goes on",
            after_handshake([
                tcp(B, A, RST).into(),
                Act::Wait(35),
                tcp(A, B, ACK).into(),
                Act::Wait(600),
                tcp(B, A, ACK).into(),
                tcp(A, B, ACK).into(),
            ]),
            &ESTABLISHED,
        ),
    ]
}

fn changes() -> Vec<Story> {
    vec![
        story(
            "a flow that is no longer allowed stops with the next packet",
            after_handshake([
                Act::Policy(CLOSED_SERVER),
                tcp(A, B, ACK).dropped(Reason::Policy).into(),
                tcp(B, A, ACK).dropped(Reason::Policy).into(),
                tcp(A, B, SYN).dropped(Reason::Policy).into(),
            ]),
            &ESTABLISHED,
        ),
        story(
            "an address that is another VM's now",
            after_handshake([Act::Move, tcp(A, B, ACK).dropped(Reason::Policy).into()]),
            &ESTABLISHED,
        ),
        story(
            "its answers stop as well",
            after_handshake([Act::Policy(CLOSED_SERVER), tcp(B, A, ACK).dropped(Reason::Policy).into()]),
            &ESTABLISHED,
        ),
        story(
            "a change that does not concern it",
            after_handshake([
                Act::Policy(LOUD_NEIGHBOUR),
                tcp(B, A, ACK).into(),
                tcp(A, B, ACK).into(),
                tcp(C, B, SYN).into(),
            ]),
            &[
                ESTABLISHED[0],
                ESTABLISHED[1],
                "B B > C tcp 80 40000 < C: answers (C)",
                "C C > B tcp 40000 80 < B: seen (C)",
            ],
        ),
    ]
}

/// The quota of these is four flows.
fn floods() -> Vec<Story> {
    let from = |port| packet(A, B, Payload::udp(port, 5000, b"x"));
    let established =
        |port| [from(port).into(), packet(B, A, Payload::udp(5000, port, b"x")).into()].into_iter();
    let mut spares = story(
        "a flood spares what lives",
        established(1).chain((2..12).map(|port| from(port).into())).collect::<Vec<_>>(),
        &[],
    );
    spares.quota = 4;
    spares.acts.push(packet(B, A, Payload::udp(5000, 1, b"x")).into());
    spares.flows = vec![
        "A A > B udp 1 5000 < B: seen established (A)",
        "A A > B udp 10 5000 < B: seen (A)",
        "A A > B udp 11 5000 < B: seen (A)",
        "A A > B udp 9 5000 < B: seen (A)",
        "B B > A udp 5000 1 < A: answers seen established (A)",
        "B B > A udp 5000 10 < A: answers (A)",
        "B B > A udp 5000 11 < A: answers (A)",
        "B B > A udp 5000 9 < A: answers (A)",
    ];
    vec![spares]
}
