//! The host: what every VM needs of it, and what is closed to them.

use super::Who::{A, Afar, B, C, Host};
use super::{Act, CLOSED_SERVER, Passage, Story, Who, packet, story};
use crate::cases::world::{ALL_ROUTERS, GATEWAY, link_local_a};
use crate::frame::{Extension, HOP_BY_HOP, Payload, multicast_mac};
use dataplane_ebpf::abi::Reason;
use std::net::Ipv6Addr;

/// `ff02::16`, all MLDv2-capable routers (RFC 3810).
const MLD_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// `ff02::1:2`, all DHCPv6 relays and servers (RFC 8415).
const DHCP6_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

pub fn stories() -> Vec<Story> {
    [always(), closed(), open(), from_the_host(), judged()].concat()
}

fn udp(from: Who, to: Who, source: u16, destination: u16) -> Passage {
    packet(from, to, Payload::udp(source, destination, b"hello"))
}

/// To a group of the link.
fn to_group(source: Ipv6Addr, group: Ipv6Addr, payload: Payload) -> Passage {
    packet(A, Host, payload).with(|ip| {
        (ip.source, ip.destination, ip.destination_mac) = (source, group, multicast_mac(group));
        ip.hop_limit = 1;
    })
}

fn always() -> Vec<Story> {
    let report = |source| {
        to_group(source, MLD_ROUTERS, Payload::icmpv6(143, 0, &[0; 4]))
            .behind(&[Extension { number: HOP_BY_HOP, rest: vec![0, 5, 2, 0, 0, 1, 0] }])
    };
    let dhcp6 = Payload::udp(546, 547, &[1, 0, 0, 1]);
    vec![story(
        "what every VM needs of its host",
        [
            to_group(link_local_a(), DHCP6_SERVERS, dhcp6.clone()).into(),
            packet(C, Host, dhcp6).into(),
            udp(C, Host, 40_000, 53).into(),
            udp(A, Host, 40_000, 53).with(|ip| ip.destination = GATEWAY).into(),
            report(link_local_a()).into(),
            report(Ipv6Addr::UNSPECIFIED).into(),
            to_group(link_local_a(), MLD_ROUTERS, Payload::icmpv6(131, 0, &[0; 20])).into(),
            to_group(link_local_a(), ALL_ROUTERS, Payload::icmpv6(132, 0, &[0; 20])).into(),
        ],
        &[],
    )]
}

fn closed() -> Vec<Story> {
    let tcp = || packet(A, Host, Payload::tcp(40_000, 22, 2, b""));
    vec![
        story(
            "the host is closed",
            [
                tcp().dropped(Reason::HostClosed).into(),
                tcp().with(|ip| ip.destination = GATEWAY).dropped(Reason::HostClosed).into(),
                packet(A, Host, Payload::echo_request(7, 1, b"ping")).dropped(Reason::HostClosed).into(),
                udp(A, Host, 40_000, 547).dropped(Reason::HostClosed).into(),
                udp(A, Host, 53, 40_000).dropped(Reason::HostClosed).into(),
                to_group(
                    link_local_a(),
                    "ff02::fb".parse().expect("a group"),
                    Payload::udp(5353, 5353, b"x"),
                )
                .dropped(Reason::HostClosed)
                .into(),
            ],
            &[],
        ),
        story(
            "what every VM needs is only of its host",
            [
                udp(C, B, 546, 547).dropped(Reason::Policy).into(),
                udp(C, Afar, 40_000, 53).dropped(Reason::Policy).into(),
                packet(C, Afar, Payload::icmpv6(143, 0, &[0; 4])).dropped(Reason::Policy).into(),
            ],
            &[],
        ),
    ]
}

fn open() -> Vec<Story> {
    let mut open = story(
        "an open host takes what the VM's own policy lets out",
        [
            udp(A, Host, 40_000, 123).into(),
            udp(Host, A, 123, 40_000).into(),
            udp(B, Host, 40_000, 123).dropped(Reason::Policy).into(),
        ],
        &[
            "A A > Host udp 40000 123 < H: seen established (A)",
            "H Host > A udp 123 40000 < A: answers seen established (A)",
        ],
    );
    open.host_is_open = true;
    vec![open]
}

fn from_the_host() -> Vec<Story> {
    vec![story(
        "the host may call whom it wants, and is answered",
        [
            udp(Host, C, 1000, 2000).into(),
            udp(C, Host, 2000, 1000).into(),
            Act::Policy(CLOSED_SERVER),
            udp(C, Host, 2000, 1000).into(),
            udp(C, Host, 2000, 1001).dropped(Reason::HostClosed).into(),
            packet(Host, C, Payload::icmpv6(1, 0, &[0; 52])).into(),
            packet(Host, C, Payload::icmpv6(135, 0, &[0; 20])).into(),
        ],
        &[
            "C C > Host udp 2000 1000 < H: answers seen established host (C)",
            "H Host > C udp 1000 2000 < C: seen established host (C)",
        ],
    )]
}

fn judged() -> Vec<Story> {
    let icmp = |kind, rest: &[u8]| packet(Host, C, Payload::icmpv6(kind, 0, rest));
    let mut stories = vec![
        story(
            "a host that is judged may call whom the VM's own policy lets in",
            [
                udp(Host, B, 1000, 5000).into(),
                udp(B, Host, 5000, 1000).into(),
                udp(Host, B, 1000, 5001).dropped(Reason::Policy).into(),
                udp(Host, C, 1000, 5000).dropped(Reason::Policy).into(),
                packet(Host, C, Payload::echo_request(7, 1, b"ping")).dropped(Reason::Policy).into(),
                Act::Policy(CLOSED_SERVER),
                udp(B, Host, 5000, 1000).dropped(Reason::Policy).into(),
                udp(Host, B, 1000, 5000).dropped(Reason::Policy).into(),
            ],
            &[
                "B B > Host udp 5000 1000 < H: answers seen established host (B)",
                "H Host > B udp 1000 5000 < B: seen established host (B)",
            ],
        ),
        story(
            "a host that is judged says what every VM needs",
            [
                icmp(134, &[0; 12]).into(),
                icmp(135, &[0; 20]).into(),
                icmp(136, &[0; 20]).into(),
                icmp(130, &[0; 24]).into(),
                icmp(143, &[0; 4]).into(),
                icmp(2, &[0; 52]).into(),
                icmp(137, &[0; 36]).dropped(Reason::Policy).into(),
                udp(Host, C, 547, 546).into(),
                udp(Host, C, 53, 40_000).into(),
                udp(Host, C, 547, 547).dropped(Reason::Policy).into(),
                udp(Afar, C, 53, 40_000).dropped(Reason::Policy).into(),
            ],
            &[
                "C C > Host udp 40000 53 < H: answers host (C)",
                "C C > Host udp 546 547 < H: answers host (C)",
                "H Host > C udp 53 40000 < C: seen host (C)",
                "H Host > C udp 547 546 < C: seen host (C)",
            ],
        ),
    ];
    for story in &mut stories {
        story.host_is_judged = true;
    }
    stories
}
