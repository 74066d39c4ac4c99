//! What a VM may not send, and what looks like it but may be sent.

use super::Case;
use super::world::{
    ALL_NODES, ALL_ROUTERS, GATEWAY, GATEWAY_GLOBAL, VM_A, VM_B, discovery, from_a, link_local_a,
};
use crate::frame::{
    DESTINATION_OPTIONS, Extension, FRAGMENT, Frame, GATEWAY_MAC, HOP_BY_HOP, Ipv6, NO_NEXT_HEADER, Payload,
    ROUTING, UDP, multicast_mac,
};
use dataplane_ebpf::abi::Reason;
use dataplane_ebpf::host::MemoryFrame;
use std::net::Ipv6Addr;

pub fn cases() -> Vec<Case> {
    [link_layer(), lengths(), sources(), destinations(), servers(), chains(), fragments()].concat()
}

fn to_b() -> Ipv6 {
    from_a(VM_B.address)
}

fn datagram() -> Payload {
    Payload::udp(4000, 5000, b"hello")
}

fn link_layer() -> Vec<Case> {
    let other_mac = Ipv6 { source_mac: VM_B.mac, ..to_b() };
    let multicast_source = Ipv6 { source_mac: [0x33, 0x33, 0, 0, 0, 1], ..to_b() };
    let mut in_vlan = MemoryFrame::from(to_b().carrying(datagram()));
    in_vlan.bytes.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    let mut stacked = in_vlan.clone();
    stacked.bytes.splice(12..12, [0x88, 0xa8, 0x00, 0x05]);
    let ipv4 = Ipv6 { ethertype: 0x0800, version: 4, ..to_b() };
    let arp = Ipv6 { ethertype: 0x0806, ..Ipv6::new(VM_A.mac, [0xff; 6]) };
    let lldp = Ipv6 { ethertype: 0x88cc, ..Ipv6::new(VM_A.mac, [0x01, 0x80, 0xc2, 0, 0, 0x0e]) };
    let length_field = Ipv6 { ethertype: 45, ..to_b() };
    let tag = |name, frame: MemoryFrame| {
        // XDP leaves a tag to the kernel, which takes it off before TC sees the frame.
        Case::drop(name, frame, Reason::Vlan).by_tc()
    };
    vec![
        Case::drop("another VM's source MAC", other_mac.carrying(datagram()), Reason::SourceMac),
        Case::drop("multicast source MAC", multicast_source.carrying(datagram()), Reason::SourceMac),
        tag("in a VLAN", in_vlan),
        tag("in a VLAN in a VLAN", stacked),
        Case::pass("IPv4 is the kernel's", ipv4.carrying(datagram())),
        Case::pass("ARP is the kernel's", arp.carrying(datagram())),
        Case::pass("LLDP is the kernel's", lldp.carrying(datagram())),
        Case::pass("802.3 with a length is the kernel's", length_field.carrying(datagram())),
        Case::pass(
            "to a MAC that is not the router's",
            Ipv6 { destination_mac: VM_B.mac, ..to_b() }.carrying(datagram()),
        ),
        Case::pass(
            "unicast address in a multicast MAC",
            Ipv6 { destination_mac: multicast_mac(ALL_NODES), ..to_b() }.carrying(datagram()),
        ),
    ]
}

fn lengths() -> Vec<Case> {
    let whole = to_b().carrying(datagram()).bytes;
    let cut = |len: usize| Frame { bytes: whole[..len].to_vec(), ..to_b().carrying(datagram()) };
    vec![
        Case::drop(
            "version 4 as IPv6",
            Ipv6 { version: 4, ..to_b() }.carrying(datagram()),
            Reason::Malformed,
        ),
        Case::drop("cut in the payload", cut(66), Reason::Malformed),
        Case::drop(
            "payload length beyond the frame",
            Ipv6 { payload_length: Some(14), ..to_b() }.carrying(datagram()),
            Reason::Malformed,
        ),
        Case::drop(
            "jumbogram: payload length 0",
            Ipv6 { payload_length: Some(0), ..to_b() }.carrying(datagram()),
            Reason::Malformed,
        ),
        Case::drop("UDP cut short", to_b().carrying(Payload::raw(UDP, [0; 7])), Reason::Malformed),
        Case::drop("TCP cut short", to_b().carrying(Payload::raw(6, [0; 19])), Reason::Malformed),
        Case::drop("ICMPv6 cut short", to_b().carrying(Payload::raw(58, [128, 0, 0, 0])), Reason::Malformed),
    ]
}

fn sources() -> Vec<Case> {
    let from = |source: Ipv6Addr| Ipv6 { source, ..to_b() }.carrying(datagram());
    let address = |text: &str| text.parse::<Ipv6Addr>().expect("an address");
    let refused = [
        ("another VM's address", VM_B.address),
        ("nobody's address", address("2001:db8:a::77")),
        ("multicast source", address("ff02::1")),
        ("loopback source", Ipv6Addr::LOCALHOST),
        ("IPv4-mapped source", address("::ffff:192.0.2.1")),
        ("unspecified source of a datagram", Ipv6Addr::UNSPECIFIED),
    ];
    let mut cases: Vec<_> = refused
        .map(|(name, source)| Case::drop(name, from(source), Reason::SourceAddress))
        .into_iter()
        .collect();
    let report = |source, destination| Ipv6 {
        hop_limit: 1,
        extensions: vec![Extension { number: HOP_BY_HOP, rest: vec![0, 5, 2, 0, 0, 1, 0] }],
        ..discovery(source, destination)
    };
    let routers: Ipv6Addr = address("ff02::16");
    let mld2 = Payload::icmpv6(143, 0, &[0, 0, 0, 0]);
    let mld1 = Payload::icmpv6(131, 0, &[[0; 4].as_slice(), &routers.octets()].concat());
    cases.extend([
        Case::drop("the router's own link-local address", from(GATEWAY), Reason::GatewaySpoof),
        Case::drop("the router's configured address", from(GATEWAY_GLOBAL), Reason::GatewaySpoof),
        Case::pass("link-local source to a global address is never forwarded", from(link_local_a())),
        Case::pass(
            "any link-local source is the VM's to choose",
            Ipv6 { source: address("fe80::dead:beef"), ..from_a(GATEWAY) }
                .carrying(Payload::echo_request(1, 1, b"")),
        ),
        Case::pass("MLDv2 report from ::", report(Ipv6Addr::UNSPECIFIED, routers).carrying(mld2.clone())),
        Case::pass("MLDv2 report from link-local", report(link_local_a(), routers).carrying(mld2)),
        Case::pass("MLDv1 report from ::", report(Ipv6Addr::UNSPECIFIED, routers).carrying(mld1)),
        Case::drop(
            "echo request from :: to all nodes",
            discovery(Ipv6Addr::UNSPECIFIED, ALL_NODES).carrying(Payload::echo_request(1, 1, b"")),
            Reason::SourceAddress,
        ),
        Case::drop(
            "neighbour advertisement from ::",
            discovery(Ipv6Addr::UNSPECIFIED, ALL_NODES).carrying(Payload::neighbour_advertisement(
                0x20,
                VM_A.address,
                &[],
            )),
            Reason::SourceAddress,
        ),
    ]);
    cases
}

fn destinations() -> Vec<Case> {
    let to = |text: &str| from_a(text.parse().expect("an address")).carrying(datagram());
    vec![
        Case::drop("to ::", to("::"), Reason::DestinationAddress),
        Case::drop("to ::1", to("::1"), Reason::DestinationAddress),
        Case::drop("to an IPv4-mapped address", to("::ffff:192.0.2.1"), Reason::DestinationAddress),
        Case::pass("to a link-local address", to("fe80::1")),
        Case::pass("to a group", to("ff0e::1")),
        Case::pass("to nobody we have a route to", to("2001:db8:ffff::1")),
        Case::pass("to the router's configured address", from_a(GATEWAY_GLOBAL).carrying(datagram())),
        Case::pass("to its own other address", from_a(VM_A.second).carrying(datagram())),
    ]
}

fn servers() -> Vec<Case> {
    let ra = || Payload::icmpv6(134, 0, &[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    let redirect = || Payload::icmpv6(137, 0, &[0; 36]);
    let advertise = || Payload::udp(547, 546, &[2, 0, 0, 1]);
    let relay = || Payload::udp(547, 547, &[12, 0, 0, 0]);
    let from_link_local = |destination| discovery(link_local_a(), destination);
    let behind = |extensions: Vec<Extension>| Ipv6 { extensions, ..from_link_local(ALL_NODES) };
    let hidden = [
        ("RA behind hop-by-hop options", vec![Extension::padding(HOP_BY_HOP)]),
        ("RA behind destination options", vec![Extension::padding(DESTINATION_OPTIONS)]),
        (
            "RA behind three headers",
            vec![
                Extension::padding(HOP_BY_HOP),
                Extension::padding(DESTINATION_OPTIONS),
                Extension::routing(4, 0),
            ],
        ),
        ("RA in an atomic fragment", vec![Extension::fragment(0, false, 1)]),
        ("RA in a first fragment", vec![Extension::fragment(0, true, 1)]),
        (
            "RA in a first fragment behind destination options",
            vec![Extension::padding(DESTINATION_OPTIONS), Extension::fragment(0, true, 1)],
        ),
    ];
    let mut cases: Vec<_> = hidden
        .into_iter()
        .map(|(name, extensions)| {
            Case::drop(name, behind(extensions).carrying(ra()), Reason::RouterAdvertisement)
        })
        .collect();
    let solicitation = Payload::udp(546, 547, &[1, 0, 0, 1, 0, 1, 0, 4, 0, 3, 0, 1]);
    let servers: Ipv6Addr = "ff02::1:2".parse().expect("an address");
    cases.extend([
        Case::drop("RA", from_link_local(ALL_NODES).carrying(ra()), Reason::RouterAdvertisement),
        Case::drop("RA to another VM", to_b().carrying(ra()), Reason::RouterAdvertisement),
        Case::drop("redirect", from_link_local(ALL_NODES).carrying(redirect()), Reason::Redirect),
        Case::drop(
            "redirect behind destination options",
            behind(vec![Extension::padding(DESTINATION_OPTIONS)]).carrying(redirect()),
            Reason::Redirect,
        ),
        Case::drop("DHCPv6 advertise", from_link_local(ALL_NODES).carrying(advertise()), Reason::Dhcp6Server),
        Case::drop("DHCPv6 reply to another VM", to_b().carrying(advertise()), Reason::Dhcp6Server),
        Case::drop("DHCPv6 relay message", to_b().carrying(relay()), Reason::Dhcp6Server),
        Case::drop(
            "DHCPv6 advertise from an odd port",
            to_b().carrying(Payload::udp(4000, 546, &[2, 0, 0, 1])),
            Reason::Dhcp6Server,
        ),
        Case::drop(
            "DHCPv6 advertise in a first fragment",
            behind(vec![Extension::fragment(0, true, 1)]).carrying(advertise()),
            Reason::Dhcp6Server,
        ),
        Case::drop(
            "DHCPv6 advertise behind hop-by-hop options",
            behind(vec![Extension::padding(HOP_BY_HOP)]).carrying(advertise()),
            Reason::Dhcp6Server,
        ),
        Case::pass("DHCPv6 solicit", from_link_local(servers).carrying(solicitation)),
    ]);
    cases
}

fn chains() -> Vec<Case> {
    let with = |extensions: Vec<Extension>| Ipv6 { extensions, ..to_b() }.carrying(datagram());
    let option = || Extension::padding(DESTINATION_OPTIONS);
    let too_long = Extension { number: DESTINATION_OPTIONS, rest: vec![200, 1, 4, 0, 0, 0, 0] };
    let authentication = Extension { number: 51, rest: [vec![4, 0, 0], vec![0; 20]].concat() };
    let mobility = || Extension { number: 135, rest: vec![0; 7] };
    vec![
        Case::drop("a datagram behind a mobility header", with(vec![mobility()]), Reason::HeaderChain),
        Case::drop(
            "a datagram behind options and a mobility header",
            with(vec![option(), mobility()]),
            Reason::HeaderChain,
        ),
        Case::forward("one extension header", with(vec![option()]), &VM_B).by_tc(),
        Case::forward("seven extension headers", with(vec![option(); 7]), &VM_B).by_tc(),
        Case::drop("more headers than are followed", with(vec![option(); 9]), Reason::HeaderChain),
        Case::drop("128 headers", with(vec![option(); 128]), Reason::HeaderChain),
        Case::drop(
            "hop-by-hop options in second place",
            with(vec![option(), Extension::padding(HOP_BY_HOP)]),
            Reason::HeaderChain,
        ),
        Case::pass("hop-by-hop options are a router's to read", with(vec![Extension::padding(HOP_BY_HOP)])),
        Case::drop("a header longer than the packet", with(vec![too_long]), Reason::Malformed),
        Case::drop("routing header type 0", with(vec![Extension::routing(0, 1)]), Reason::RoutingHeader),
        Case::forward("segment routing header", with(vec![Extension::routing(4, 0)]), &VM_B).by_tc(),
        Case::forward("authentication header", with(vec![authentication]), &VM_B).by_tc(),
        Case::forward("ESP", to_b().carrying(Payload::raw(50, [7; 40])), &VM_B),
        Case::forward("no next header", to_b().carrying(Payload::raw(NO_NEXT_HEADER, [])), &VM_B),
        Case::forward("a protocol we do not know", to_b().carrying(Payload::raw(253, [1, 2, 3])), &VM_B)
            .by_tc(),
        Case::drop(
            "a routing header cut short",
            to_b().carrying(Payload::raw(ROUTING, [UDP, 0, 4])),
            Reason::Malformed,
        ),
    ]
}

fn fragments() -> Vec<Case> {
    let with = |extensions: Vec<Extension>, payload: Payload| Ipv6 { extensions, ..to_b() }.carrying(payload);
    let first = || Extension::fragment(0, true, 7);
    vec![
        Case::forward("first fragment", with(vec![first()], Payload::udp(1, 2, &[9; 40])), &VM_B).by_tc(),
        Case::forward(
            "later fragment",
            with(vec![Extension::fragment(48, false, 7)], Payload::raw(UDP, [9; 16])),
            &VM_B,
        )
        .by_tc(),
        Case::forward("atomic fragment", with(vec![Extension::fragment(0, false, 7)], datagram()), &VM_B)
            .by_tc(),
        Case::drop(
            "first fragment without the whole UDP header",
            with(vec![first()], Payload::raw(UDP, [0; 4])),
            Reason::FragmentChain,
        ),
        Case::drop(
            "first fragment that ends in the chain",
            with(vec![first()], Payload::raw(DESTINATION_OPTIONS, [UDP, 3, 1, 4, 0, 0, 0, 0])),
            Reason::FragmentChain,
        ),
        Case::drop(
            "fragment in a fragment",
            with(vec![first(), Extension::fragment(0, false, 8)], datagram()),
            Reason::FragmentChain,
        ),
        Case::drop(
            "atomic fragment in an atomic fragment",
            with(vec![Extension::fragment(0, false, 7), Extension::fragment(0, false, 8)], datagram()),
            Reason::FragmentChain,
        ),
        Case::drop(
            "later fragment with another VM's address",
            Ipv6 { source: VM_B.address, extensions: vec![Extension::fragment(8, true, 7)], ..to_b() }
                .carrying(Payload::raw(UDP, [9; 16])),
            Reason::SourceAddress,
        ),
        Case::drop(
            "later fragment from ::",
            Ipv6 {
                source: Ipv6Addr::UNSPECIFIED,
                destination: ALL_ROUTERS,
                extensions: vec![Extension::fragment(8, true, 7)],
                ..to_b()
            }
            .carrying(Payload::raw(58, [135; 16])),
            Reason::SourceAddress,
        ),
        Case::drop(
            "neighbour solicitation in an atomic fragment",
            Ipv6 { extensions: vec![Extension::fragment(0, false, 7)], ..discovery(link_local_a(), GATEWAY) }
                .carrying(Payload::neighbour_solicitation(GATEWAY, &[])),
            Reason::NdHidden,
        ),
        Case::drop(
            "a fragment header cut short",
            Ipv6 { destination_mac: GATEWAY_MAC, ..to_b() }.carrying(Payload::raw(FRAGMENT, [UDP, 0, 0])),
            Reason::Malformed,
        ),
    ]
}
