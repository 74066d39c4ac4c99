//! Packets from a VM to other hosts: which route and next hop, and what is left to the kernel.

use super::network::{FAR, HOPS, NEAR, group, way};
use super::world::{GATEWAY, VM_B, from_a, link_local_a};
use super::{Case, VM_A};
use crate::frame::{Checksum, DESTINATION_OPTIONS, Extension, HOP_BY_HOP, Ipv6, Payload, UDP};
use dataplane_ebpf::abi::Reason;
use dataplane_ebpf::host::MemoryFrame;

pub fn cases() -> Vec<Case> {
    [routes(), next_hops(), limits(), exceptions(), offloads()].concat()
}

fn datagram() -> Payload {
    Payload::udp(4000, 5000, b"hello")
}

/// Headers of a packet from VM A.
fn to(destination: &str) -> Ipv6 {
    from_a(destination.parse().expect("an address"))
}

/// Headers of a packet from VM A to where a group of next hops leads.
fn by(group: u32) -> Ipv6 {
    from_a(way(group))
}

fn routes() -> Vec<Case> {
    let case = |name, destination, hop| Case::route(name, to(destination).carrying(datagram()), hop);
    let kernel = |name, destination| Case::pass(name, to(destination).carrying(datagram()));
    vec![
        case("by the default route", "2001:db8:77::1", &NEAR),
        case("by a prefix", "2001:db8:c:1::1", &NEAR),
        case("the longer prefix wins", "2001:db8:c:2::3", &FAR),
        case("a /128 wins over a prefix", "2001:db8:c:2::1", &NEAR),
        kernel("a /128 that is the kernel's wins over a prefix", "2001:db8:c:2::2"),
        kernel("a longer prefix that is the kernel's wins", "2001:db8:c:2::1f"),
        case("the first address behind such a prefix", "2001:db8:c:2::20", &FAR),
        case("the last address before such a prefix", "2001:db8:c:2::f", &FAR),
        Case::forward(
            "a local VM wins over a route",
            from_a(VM_B.address).carrying(Payload::udp(4000, 5001, b"hello")),
            &VM_B,
        ),
        Case::pass("its own address is never sent out", from_a(VM_A.address).carrying(datagram())),
        Case::route(
            "TCP by a route",
            to("2001:db8:77::1").carrying(Payload::tcp(1, 2, 0x18, b"data")),
            &NEAR,
        ),
        Case::route(
            "ICMPv6 by a route",
            to("2001:db8:77::1").carrying(Payload::echo_request(1, 1, b"ping")),
            &NEAR,
        ),
        Case::route(
            "an ICMPv6 error by a route",
            to("2001:db8:77::1").carrying(Payload::icmpv6(1, 4, &[0; 52])),
            &NEAR,
        ),
        Case::route(
            "from a second address by a route",
            Ipv6 { source: VM_A.second, ..to("2001:db8:77::1") }.carrying(datagram()),
            &NEAR,
        ),
    ]
}

fn next_hops() -> Vec<Case> {
    let case = |name, group, hop| Case::route(name, by(group).carrying(datagram()), hop);
    let kernel = |name, group| Case::pass(name, by(group).carrying(datagram()));
    vec![
        kernel("a next hop without a MAC", group::UNRESOLVED),
        case("a device that takes nothing from XDP", group::NO_XDP, &NEAR).by_tc(),
        case("a device that XDP has not been told of", group::NO_DEVICE, &NEAR).by_tc(),
        kernel("back to where it came from", group::BACK),
        kernel("a group that is not there", group::MISSING),
        case("the first of two takes all", group::FIRST_OF_TWO, &NEAR),
        case("the second of two takes all", group::SECOND_OF_TWO, &FAR),
        kernel("the chosen one has no MAC", group::SECOND_UNRESOLVED),
        case("the last of eight", group::LAST_OF_ALL, &HOPS[7]),
    ]
}

fn limits() -> Vec<Case> {
    let length =
        |destination: &str, len: usize| to(destination).carrying(Payload::udp(1, 2, &vec![7; len - 48]));
    let (by_route, large, both) = ("2001:db8:e:1::1", "2001:db8:e:2::1", "2001:db8:e:3::1");
    let small = |len: usize| by(group::SMALL).carrying(Payload::udp(1, 2, &vec![7; len - 48]));
    let hop_limit = |hop_limit| Ipv6 { hop_limit, ..to("2001:db8:77::1") }.carrying(datagram());
    vec![
        Case::route("exactly the MTU of the route", length(by_route, 1400), &NEAR),
        Case::pass("one byte over the MTU of the route", length(by_route, 1401)),
        Case::route("exactly the MTU of the device", small(1280), &NEAR),
        Case::pass("one byte over the MTU of the device", small(1281)),
        Case::route("the MTU of the device beneath a larger one of the route", length(large, 1500), &NEAR),
        Case::pass("one byte over that", length(large, 1501)),
        Case::route("exactly the smaller of both MTUs", length(both, 1280), &NEAR),
        Case::pass("between both MTUs", length(both, 1400)),
        Case::pass("hop limit 0 to another host", hop_limit(0)),
        Case::pass("hop limit 1 to another host", hop_limit(1)),
        Case::route("hop limit 2 to another host", hop_limit(2), &NEAR),
        Case::route("hop limit 255 to another host", hop_limit(255), &NEAR),
    ]
}

/// The default route would take all of these.
fn exceptions() -> Vec<Case> {
    let far = || to("2001:db8:77::1");
    let with = |extensions: Vec<Extension>, payload: Payload| Ipv6 { extensions, ..far() }.carrying(payload);
    let first = || Extension::fragment(0, true, 7);
    vec![
        Case::pass(
            "padding to another host is for the kernel to cut off",
            Ipv6 { padding: vec![0; 6], ..far() }.carrying(datagram()),
        ),
        Case::pass(
            "link-local source to another host",
            Ipv6 { source: link_local_a(), ..far() }.carrying(datagram()),
        ),
        Case::pass("site-local group", to("ff05::1:3").carrying(datagram())),
        Case::pass("link-local address that is not the router's", to("fe80::77").carrying(datagram())),
        Case::pass("a datagram to the router's link-local address", from_a(GATEWAY).carrying(datagram())),
        Case::drop(
            "IPv4-mapped loopback",
            to("::ffff:127.0.0.1").carrying(datagram()),
            Reason::DestinationAddress,
        ),
        Case::route("an address next to loopback", to("::2").carrying(datagram()), &NEAR),
        Case::pass(
            "hop-by-hop options to another host",
            with(vec![Extension::padding(HOP_BY_HOP)], datagram()),
        ),
        Case::route(
            "destination options to another host",
            with(vec![Extension::padding(DESTINATION_OPTIONS)], datagram()),
            &NEAR,
        )
        .by_tc(),
        Case::route(
            "first fragment to another host",
            with(vec![first()], Payload::udp(1, 2, &[9; 40])),
            &NEAR,
        )
        .by_tc(),
        Case::route(
            "later fragment to another host",
            with(vec![Extension::fragment(48, false, 7)], Payload::raw(UDP, [9; 16])),
            &NEAR,
        )
        .by_tc(),
        Case::drop(
            "first fragment without its headers to another host",
            with(vec![first()], Payload::raw(UDP, [0; 4])),
            Reason::FragmentChain,
        ),
        Case::drop(
            "routing header type 0 to another host",
            with(vec![Extension::routing(0, 1)], datagram()),
            Reason::RoutingHeader,
        ),
    ]
}

fn offloads() -> Vec<Case> {
    let open = |destination: &str, payload: Payload, gso_size: usize| {
        let frame = Ipv6 { checksum: Checksum::Partial, ..to(destination) }.carrying(payload);
        MemoryFrame { gso_size, ..frame.into() }
    };
    let behind_options = |gso_size: usize| {
        let headers = Ipv6 {
            checksum: Checksum::Partial,
            extensions: vec![Extension::padding(DESTINATION_OPTIONS)],
            ..to("2001:db8:e:1::1")
        };
        MemoryFrame { gso_size, ..headers.carrying(Payload::tcp(1, 2, 0x10, &[3; 2900])).into() }
    };
    let tcp = || Payload::tcp(1, 2, 0x10, &[3; 2900]);
    let udp = || Payload::udp(1, 2, &[3; 2900]);
    let (far, small) = ("2001:db8:77::1", "2001:db8:e:1::1");
    vec![
        Case::route("a partial checksum to another host", open(far, Payload::udp(1, 2, b"data"), 0), &NEAR)
            .by_tc(),
        Case::route("TCP segments to another host", open(far, tcp(), 1440), &NEAR).by_tc(),
        Case::pass("TCP segments one byte too long for the device", open(far, tcp(), 1441)),
        Case::route("TCP segments for the route's MTU", open(small, tcp(), 1340), &NEAR).by_tc(),
        Case::pass("TCP segments one byte too long for the route", open(small, tcp(), 1341)),
        Case::route("UDP segments for the route's MTU", open(small, udp(), 1352), &NEAR).by_tc(),
        Case::pass("UDP segments one byte too long for the route", open(small, udp(), 1353)),
        Case::route("segments behind options for the route's MTU", behind_options(1332), &NEAR).by_tc(),
        Case::pass("segments behind options one byte too long for the route", behind_options(1333)),
    ]
}
