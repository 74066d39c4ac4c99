//! Packets from other hosts: which go straight to a VM, which are the host's, and which must not exist.

use super::network::UPLINK_MAC;
use super::world::{ALL_NODES, ELSEWHERE, GATEWAY, GATEWAY_GLOBAL, VM_B, VM_C, VM_D};
use super::{Case, HOPS};
use crate::frame::{
    Checksum, DESTINATION_OPTIONS, Extension, FRAGMENT, HOP_BY_HOP, Ipv6, NO_NEXT_HEADER, Payload, UDP,
    link_local, multicast_mac,
};
use dataplane_ebpf::abi::Reason;
use dataplane_ebpf::host::MemoryFrame;
use std::net::Ipv6Addr;

pub fn cases() -> Vec<Case> {
    [plain(), for_the_host(), link_layer(), limits(), sources(), chains(), fragments(), offloads()].concat()
}

/// What becomes of packets where TC is behind XDP, to which is left what GRO may put together.
pub fn steered() -> Vec<Case> {
    let tcp = |flags, data: &[u8]| to_b().carrying(Payload::tcp(1, 2, flags, data));
    let deliver = |name, frame| Case::deliver(name, frame, &VM_B);
    let mut with_options = Payload::tcp(1, 2, 0x10, &[1; 12]);
    with_options.bytes[12] = 0x80;
    let mut too_long = Payload::tcp(1, 2, 0x10, b"");
    too_long.bytes[12] = 0xf0;
    let to_host = Ipv6 { destination: GATEWAY_GLOBAL, ..to_b() };
    let from_nobody = Ipv6 { source: ALL_NODES, ..to_b() };
    vec![
        deliver("steered: TCP data is TC's", tcp(0x10, b"data")).by_tc(),
        deliver("steered: so is one byte", tcp(0x18, b"x")).by_tc(),
        deliver("steered: so is what begins a connection", tcp(0x02, b"")).by_tc(),
        deliver("steered: so is what ends it", tcp(0x11, b"")).by_tc(),
        deliver("steered: so is what breaks it off", tcp(0x04, b"")).by_tc(),
        deliver("steered: an acknowledgement is XDP's", tcp(0x10, b"")),
        deliver("steered: so is one with options", to_b().carrying(with_options)),
        deliver("steered: so is one with a header that is too long", to_b().carrying(too_long)),
        deliver("steered: so is UDP", to_b().carrying(datagram())),
        deliver("steered: so is an echo", to_b().carrying(Payload::echo_request(1, 1, b"ping"))),
        Case::host("steered: the host's own is its own", to_host.carrying(Payload::tcp(1, 2, 0x10, b"data"))),
        Case::refuse(
            "steered: TC drops what must not be",
            from_nobody.carrying(Payload::tcp(1, 2, 0x10, b"data")),
            Reason::SourceAddress,
            &VM_B,
        )
        .by_tc(),
    ]
}

/// Headers of what the world sends.
fn to(destination: Ipv6Addr) -> Ipv6 {
    Ipv6 { source: ELSEWHERE, destination, ..Ipv6::new(HOPS[0].mac, UPLINK_MAC) }
}

fn to_b() -> Ipv6 {
    to(VM_B.address)
}

fn datagram() -> Payload {
    Payload::udp(4000, 5000, b"hello")
}

fn plain() -> Vec<Case> {
    let marked = Ipv6 { traffic_class: 0xb8, flow_label: 0xabcde, ..to_b() };
    let advertisement = Payload::icmpv6(134, 0, &[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    vec![
        Case::deliver("from afar: UDP", to_b().carrying(datagram()), &VM_B),
        Case::deliver("from afar: TCP", to_b().carrying(Payload::tcp(1, 2, 0x10, b"data")), &VM_B),
        Case::deliver("from afar: echo", to_b().carrying(Payload::echo_request(1, 1, b"ping")), &VM_B),
        Case::deliver("from afar: an ICMPv6 error", to_b().carrying(Payload::icmpv6(3, 0, &[0; 52])), &VM_B),
        Case::deliver("from afar: to a second address", to(VM_B.second).carrying(datagram()), &VM_B),
        Case::deliver("from afar: traffic class and flow label stay", marked.carrying(datagram()), &VM_B),
        Case::deliver(
            "from afar: a router advertisement is none any more with hop limit 254",
            Ipv6 { hop_limit: 255, ..to_b() }.carrying(advertisement),
            &VM_B,
        ),
    ]
}

fn for_the_host() -> Vec<Case> {
    let case = |name, destination| Case::host(name, to(destination).carrying(datagram()));
    let address = |text: &str| text.parse::<Ipv6Addr>().expect("an address");
    vec![
        case("from afar: to nobody here", address("2001:db8:c::1")),
        case("from afar: to the router's address", GATEWAY_GLOBAL),
        case("from afar: to the router's link-local address", GATEWAY),
        case("from afar: to a link-local address", address("fe80::1")),
        case("from afar: to ::", Ipv6Addr::UNSPECIFIED),
        case("from afar: to ::1", Ipv6Addr::LOCALHOST),
        case("from afar: to an IPv4-mapped address", address("::ffff:192.0.2.1")),
        case("from afar: to a global group", address("ff0e::1")),
        case("from afar: to a VM whose TAP is down", VM_D.address),
        Case::host(
            "from afar: to all nodes",
            Ipv6 { destination_mac: multicast_mac(ALL_NODES), ..to(ALL_NODES) }.carrying(datagram()),
        ),
    ]
}

fn link_layer() -> Vec<Case> {
    let to_mac = |destination_mac| Ipv6 { destination_mac, ..to_b() }.carrying(datagram());
    let mut in_vlan = MemoryFrame::from(to_b().carrying(datagram()));
    in_vlan.bytes.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    let mut cut = MemoryFrame::from(to_b().carrying(datagram()));
    cut.bytes.truncate(66);
    vec![
        Case::host("from afar: not to our MAC", to_mac(VM_B.mac)),
        Case::host("from afar: to the broadcast MAC", to_mac([0xff; 6])),
        Case::host("from afar: in a VLAN", in_vlan),
        Case::host("from afar: IPv4", Ipv6 { ethertype: 0x0800, version: 4, ..to_b() }.carrying(datagram())),
        Case::host("from afar: ARP", Ipv6 { ethertype: 0x0806, ..to_b() }.carrying(datagram())),
        Case::host("from afar: version 4 as IPv6", Ipv6 { version: 4, ..to_b() }.carrying(datagram())),
        Case::host("from afar: cut in the payload", cut),
        Case::host(
            "from afar: payload length beyond the frame",
            Ipv6 { payload_length: Some(14), ..to_b() }.carrying(datagram()),
        ),
        Case::host("from afar: jumbogram", Ipv6 { payload_length: Some(0), ..to_b() }.carrying(datagram())),
        Case::host(
            "from afar: jumbogram as GRO marks it",
            Ipv6 { payload_length: Some(0), extensions: vec![Extension::padding(HOP_BY_HOP)], ..to_b() }
                .carrying(datagram()),
        ),
        Case::host("from afar: nothing inside", to_b().carrying(Payload::raw(NO_NEXT_HEADER, []))),
        Case::host(
            "from afar: padding is for the kernel to cut off",
            Ipv6 { padding: vec![0; 6], ..to_b() }.carrying(datagram()),
        ),
    ]
}

fn limits() -> Vec<Case> {
    let hop_limit = |hop_limit| Ipv6 { hop_limit, ..to_b() }.carrying(datagram());
    let length = |len: usize| to(VM_C.address).carrying(Payload::udp(1, 2, &vec![7; len - 48]));
    vec![
        Case::host("from afar: hop limit 0", hop_limit(0)),
        Case::host("from afar: hop limit 1", hop_limit(1)),
        Case::deliver("from afar: hop limit 2", hop_limit(2), &VM_B),
        Case::deliver("from afar: exactly the MTU of the TAP", length(1280), &VM_C),
        Case::host("from afar: one byte over the MTU of the TAP", length(1281)),
    ]
}

fn sources() -> Vec<Case> {
    let from = |source| Ipv6 { source, ..to_b() }.carrying(datagram());
    let address = |text: &str| text.parse::<Ipv6Addr>().expect("an address");
    let refuse = |name, source| Case::refuse(name, from(source), Reason::SourceAddress, &VM_B);
    vec![
        refuse("from afar: multicast source", ALL_NODES),
        refuse("from afar: unspecified source", Ipv6Addr::UNSPECIFIED),
        refuse("from afar: loopback source", Ipv6Addr::LOCALHOST),
        refuse("from afar: IPv4-mapped source", address("::ffff:192.0.2.1")),
        Case::refuse(
            "from afar: padding is no way round",
            Ipv6 { source: ALL_NODES, padding: vec![0; 6], ..to_b() }.carrying(datagram()),
            Reason::SourceAddress,
            &VM_B,
        ),
        Case::refuse(
            "from afar: hop-by-hop options are no way round",
            Ipv6 { source: ALL_NODES, extensions: vec![Extension::padding(HOP_BY_HOP)], ..to_b() }
                .carrying(datagram()),
            Reason::SourceAddress,
            &VM_B,
        ),
        Case::refuse(
            "from afar: no error about a source that is none",
            Ipv6 { source: Ipv6Addr::LOCALHOST, hop_limit: 1, ..to_b() }.carrying(datagram()),
            Reason::SourceAddress,
            &VM_B,
        ),
        Case::refuse(
            "from afar: a bad source to a VM whose TAP is down",
            Ipv6 { source: ALL_NODES, ..to(VM_D.address) }.carrying(datagram()),
            Reason::SourceAddress,
            &VM_D,
        ),
        Case::host("from afar: link-local source", from(link_local(HOPS[0].mac))),
        Case::host(
            "from afar: a bad source to another MAC is somebody else's",
            Ipv6 { source: ALL_NODES, destination_mac: VM_B.mac, ..to_b() }.carrying(datagram()),
        ),
    ]
}

fn chains() -> Vec<Case> {
    let with = |extensions: Vec<Extension>| Ipv6 { extensions, ..to_b() }.carrying(datagram());
    let refuse = |name, extensions, reason| Case::refuse(name, with(extensions), reason, &VM_B);
    let option = || Extension::padding(DESTINATION_OPTIONS);
    let too_long = Extension { number: DESTINATION_OPTIONS, rest: vec![200, 1, 4, 0, 0, 0, 0] };
    let authentication = Extension { number: 51, rest: [vec![4, 0, 0], vec![0; 20]].concat() };
    vec![
        Case::deliver("from afar: one extension header", with(vec![option()]), &VM_B).by_tc(),
        Case::deliver("from afar: seven extension headers", with(vec![option(); 7]), &VM_B).by_tc(),
        Case::deliver("from afar: segment routing header", with(vec![Extension::routing(4, 0)]), &VM_B)
            .by_tc(),
        Case::deliver("from afar: authentication header", with(vec![authentication]), &VM_B).by_tc(),
        Case::deliver("from afar: ESP", to_b().carrying(Payload::raw(50, [7; 40])), &VM_B),
        Case::deliver("from afar: SCTP", to_b().carrying(Payload::raw(132, [7; 40])), &VM_B),
        Case::deliver(
            "from afar: a protocol we do not know",
            to_b().carrying(Payload::raw(253, [1, 2, 3])),
            &VM_B,
        )
        .by_tc(),
        Case::deliver(
            "from afar: UDP cut short is the receiver's to judge",
            to_b().carrying(Payload::raw(UDP, [0; 7])),
            &VM_B,
        )
        .by_tc(),
        Case::host("from afar: hop-by-hop options", with(vec![Extension::padding(HOP_BY_HOP)])),
        refuse("from afar: more headers than are followed", vec![option(); 9], Reason::HeaderChain),
        refuse(
            "from afar: hop-by-hop options in second place",
            vec![option(), Extension::padding(HOP_BY_HOP)],
            Reason::HeaderChain,
        ),
        refuse("from afar: a header longer than the packet", vec![too_long], Reason::Malformed),
        refuse("from afar: routing header type 0", vec![Extension::routing(0, 1)], Reason::RoutingHeader),
        refuse(
            "from afar: routing header type 0 behind hop-by-hop options",
            vec![Extension::padding(HOP_BY_HOP), Extension::routing(0, 1)],
            Reason::RoutingHeader,
        ),
    ]
}

fn fragments() -> Vec<Case> {
    let with = |extensions: Vec<Extension>, payload: Payload| Ipv6 { extensions, ..to_b() }.carrying(payload);
    let first = || Extension::fragment(0, true, 7);
    let refuse = |name, frame| Case::refuse(name, frame, Reason::FragmentChain, &VM_B);
    vec![
        Case::deliver("from afar: first fragment", with(vec![first()], Payload::udp(1, 2, &[9; 40])), &VM_B)
            .by_tc(),
        Case::deliver(
            "from afar: later fragment",
            with(vec![Extension::fragment(48, false, 7)], Payload::raw(UDP, [9; 16])),
            &VM_B,
        )
        .by_tc(),
        Case::deliver(
            "from afar: later fragment that looks like a header chain",
            with(vec![Extension::fragment(48, false, 7)], Payload::raw(DESTINATION_OPTIONS, [200; 16])),
            &VM_B,
        )
        .by_tc(),
        Case::deliver(
            "from afar: atomic fragment",
            with(vec![Extension::fragment(0, false, 7)], datagram()),
            &VM_B,
        )
        .by_tc(),
        Case::deliver(
            "from afar: first fragment of a protocol we do not know",
            with(vec![first()], Payload::raw(253, [9; 8])),
            &VM_B,
        )
        .by_tc(),
        refuse(
            "from afar: first fragment without the whole UDP header",
            with(vec![first()], Payload::raw(UDP, [0; 4])),
        ),
        refuse(
            "from afar: first fragment without the whole TCP header",
            with(vec![first()], Payload::raw(6, [0; 16])),
        ),
        refuse(
            "from afar: first fragment that ends in the chain",
            with(vec![first()], Payload::raw(DESTINATION_OPTIONS, [UDP, 3, 1, 4, 0, 0, 0, 0])),
        ),
        refuse(
            "from afar: fragment in a fragment",
            with(vec![first(), Extension::fragment(0, false, 8)], datagram()),
        ),
        Case::refuse(
            "from afar: a fragment header cut short",
            to_b().carrying(Payload::raw(FRAGMENT, [UDP, 0, 0])),
            Reason::Malformed,
            &VM_B,
        ),
    ]
}

fn offloads() -> Vec<Case> {
    let partial = |payload: Payload| Ipv6 { checksum: Checksum::Partial, ..to_b() }.carrying(payload);
    let gso = |extensions: Vec<Extension>, payload: Payload, gso_size: usize| {
        let frame = Ipv6 { checksum: Checksum::Partial, extensions, ..to_b() }.carrying(payload);
        MemoryFrame { gso_size, ..frame.into() }
    };
    let tcp = || Payload::tcp(1, 2, 0x10, &[3; 2900]);
    let option = || vec![Extension::padding(DESTINATION_OPTIONS)];
    let mut no_checksum = to_b().carrying(Payload::udp(4789, 4789, b"tunnel"));
    no_checksum.bytes[60..62].fill(0);
    vec![
        Case::deliver("from afar: partial checksum", partial(Payload::tcp(1, 2, 0x10, b"data")), &VM_B)
            .by_tc(),
        Case::deliver(
            "from afar: UDP whose sum is not right",
            Ipv6 { checksum: Checksum::Wrong(0x1234), ..to_b() }.carrying(datagram()),
            &VM_B,
        )
        .by_tc(),
        Case::deliver("from afar: UDP without a checksum", no_checksum, &VM_B).by_tc(),
        Case::deliver("from afar: TCP segments that fit", gso(vec![], tcp(), 1440), &VM_B).by_tc(),
        Case::host("from afar: TCP segments one byte too long", gso(vec![], tcp(), 1441)),
        Case::deliver("from afar: segments behind options that fit", gso(option(), tcp(), 1432), &VM_B)
            .by_tc(),
        Case::host("from afar: segments behind options one byte too long", gso(option(), tcp(), 1433)),
    ]
}
