//! Exact frames through a veth, both ways, for every setting of `fastpath.uplink`.

use crate::rig::{
    Counted, FAR, HOST, NEXT_HOP_MAC, Scene, UPLINK, UPLINK_MAC, delivered, inbound, out, routed, sent_on,
};
use anyhow::{Context, Result, ensure};
use serval_tests::cloud::address;
use serval_tests::frame::{
    Checksum, DESTINATION_OPTIONS, Extension, Frame, HOP_BY_HOP, Ipv6, NO_NEXT_HEADER, Payload, addresses,
    icmpv6_type, multicast_mac, solicited_node, source_link_layer,
};
use serval_tests::require_rig;
use serval_tests::tap::VnetHeader;

/// `fastpath.uplink`, the hooks that come of it, and who carries what is whole, what is a segment of many, and what is not
/// whole, to the VM.
struct Mode {
    setting: &'static str,
    hooks: Option<(&'static str, &'static str)>,
    whole: Counted,
    segment: Counted,
    open: Counted,
}

const BY_XDP: Counted = Counted { delivered_xdp: 1, ..NOTHING };
const BY_TC: Counted = Counted { delivered_tc: 1, ..NOTHING };
const BY_KERNEL: Counted = Counted { by_kernel: 1, ..NOTHING };
const NOTHING: Counted =
    Counted { forwarded_xdp: 0, forwarded_tc: 0, passed: 0, delivered_xdp: 0, delivered_tc: 0, by_kernel: 0 };

const TC: Mode =
    Mode { setting: "tc", hooks: Some(("off", "tcx")), whole: BY_TC, segment: BY_TC, open: BY_TC };
const XDP: Mode =
    Mode { setting: "xdp", hooks: Some(("native", "off")), whole: BY_XDP, segment: BY_XDP, open: BY_KERNEL };
const BOTH: Mode =
    Mode { setting: "both", hooks: Some(("native", "tcx")), whole: BY_XDP, segment: BY_TC, open: BY_TC };
const OFF: Mode = Mode {
    setting: "off",
    hooks: Some(("off", "off")),
    whole: BY_KERNEL,
    segment: BY_KERNEL,
    open: BY_KERNEL,
};

impl Mode {
    fn scene(&self, label: &str) -> Result<Scene> {
        let label = format!("{label}-{}", self.setting);
        let scene = Scene::new(&label, &format!("[fastpath]\nuplink = \"{}\"\n", self.setting))?;
        if let Some(hooks) = self.hooks {
            scene.wait_hooks(UPLINK, hooks)?;
        }
        Ok(scene)
    }
}

fn destination_options() -> Ipv6 {
    Ipv6 { extensions: vec![Extension::padding(DESTINATION_OPTIONS)], ..Ipv6::new([0; 6], [0; 6]) }
}

/// What XDP can see to be whole, as payloads.
fn whole() -> Vec<(&'static str, Payload)> {
    vec![
        ("UDP", Payload::udp(1, 2, b"hello")),
        ("UDP as long as fits", Payload::udp(1, 2, &[0x5a; 1452])),
        ("TCP that only acknowledges", Payload::tcp(1, 2, 0x10, b"")),
        ("echo request", Payload::echo_request(1, 2, b"ping")),
        ("ESP", Payload::raw(50, [0x11; 40])),
    ]
}

/// The same of TCP that has more to say.
fn segment() -> [(&'static str, Payload); 2] {
    [("TCP", Payload::tcp(1, 2, 0x18, b"hello")), ("TCP that begins", Payload::tcp(1, 2, 0x02, b""))]
}

/// What it cannot, as headers to take over addresses and MACs, and payloads.
fn open() -> Vec<(&'static str, Ipv6, Payload)> {
    let plain = || Ipv6::new([0; 6], [0; 6]);
    let fragment = Ipv6 { extensions: vec![Extension::fragment(0, true, 7)], ..plain() };
    let last = Ipv6 { extensions: vec![Extension::fragment(1232, false, 7)], ..plain() };
    vec![
        (
            "UDP without a checksum (RFC 6935)",
            Ipv6 { checksum: Checksum::Wrong(0), ..plain() },
            Payload::udp(1, 2, b"tunnel"),
        ),
        ("destination options", destination_options(), Payload::udp(1, 2, b"x")),
        ("first fragment", fragment, Payload::udp(1, 2, &[3; 1224])),
        ("last fragment", last, Payload::raw(17, [4; 100])),
    ]
}

/// `headers` between the two ends of `way`.
fn along(way: &Ipv6, headers: &Ipv6) -> Ipv6 {
    Ipv6 {
        source_mac: way.source_mac,
        destination_mac: way.destination_mac,
        source: way.source,
        destination: way.destination,
        ..headers.clone()
    }
}

/// Each frame that is sent arrives as it must, and is counted so.
fn each(scene: &Scene, what: &str, wanted: Counted, cross: impl FnOnce() -> Result<()>) -> Result<()> {
    let counted = scene.counting(cross).with_context(|| what.to_owned())?;
    ensure!(counted == wanted, "{what}: {counted:?}, not {wanted:?}");
    Ok(())
}

fn to_the_vm(mode: &Mode) -> Result<()> {
    let scene = mode.scene("in")?;
    let cross = |frame: &Frame| {
        scene.wire.send(&frame.bytes)?;
        scene.arrives(&delivered(frame))
    };
    for (what, payload) in whole() {
        each(&scene, what, mode.whole, || cross(&inbound().carrying(payload)))?;
    }
    for (what, payload) in segment() {
        each(&scene, what, mode.segment, || cross(&inbound().carrying(payload)))?;
    }
    let last_hop = Ipv6 { hop_limit: 2, traffic_class: 0xb8, flow_label: 0xabcde, ..inbound() };
    each(&scene, "hop limit 2", mode.whole, || cross(&last_hop.carrying(Payload::udp(1, 2, b"x"))))?;
    for (what, headers, payload) in open() {
        each(&scene, what, mode.open, || cross(&along(&inbound(), &headers).carrying(payload)))?;
    }
    // What is the kernel's in any case, and how it comes out.
    let hop_by_hop = Ipv6 { extensions: vec![Extension::padding(HOP_BY_HOP)], ..inbound() };
    each(&scene, "hop-by-hop options", BY_KERNEL, || cross(&hop_by_hop.carrying(Payload::udp(1, 2, b"x"))))?;
    let padded = Ipv6 { padding: vec![0; 6], ..inbound() };
    each(&scene, "padding", BY_KERNEL, || {
        scene.wire.send(&padded.carrying(Payload::raw(NO_NEXT_HEADER, [])).bytes)?;
        scene.arrives(&delivered(&inbound().carrying(Payload::raw(NO_NEXT_HEADER, []))))
    })?;
    each(&scene, "hop limit 1", NOTHING, || {
        scene.wire.send(&Ipv6 { hop_limit: 1, ..inbound() }.carrying(Payload::udp(1, 2, b"x")).bytes)?;
        // Time Exceeded, hop limit exceeded in transit (RFC 4443 section 3.3).
        let error = scene.wire.receive("an error", |frame| icmpv6_type(frame) == Some(3))?;
        ensure!(error[55] == 0, "code {}", error[55]);
        Ok(())
    })?;
    let strays = scene.guest.drain()?;
    ensure!(strays.iter().all(|frame| addresses(frame).is_none_or(|(from, _)| from != FAR)), "{strays:02x?}");
    Ok(())
}

fn from_the_vm(mode: &Mode) -> Result<()> {
    let scene = mode.scene("out")?;
    let xdp = Counted { forwarded_xdp: 1, ..NOTHING };
    let tc = Counted { forwarded_tc: 1, ..NOTHING };
    let kernel = Counted { passed: 1, by_kernel: 1, ..NOTHING };
    let refused = Counted { passed: 1, ..NOTHING };
    let cross = |frame: &Frame| {
        scene.guest.send(frame)?;
        scene.wire.expect(&sent_on(frame))
    };
    for (what, payload) in whole().into_iter().chain(segment()) {
        each(&scene, what, xdp, || cross(&out().carrying(payload)))?;
    }
    let last_hop = Ipv6 { hop_limit: 2, traffic_class: 0xb8, flow_label: 0xabcde, ..out() };
    each(&scene, "hop limit 2", xdp, || cross(&last_hop.carrying(Payload::udp(1, 2, b"x"))))?;
    for (what, headers, payload) in open() {
        each(&scene, what, tc, || cross(&along(&out(), &headers).carrying(payload)))?;
    }
    let hop_by_hop = Ipv6 { extensions: vec![Extension::padding(HOP_BY_HOP)], ..out() };
    each(&scene, "hop-by-hop options", kernel, || cross(&hop_by_hop.carrying(Payload::udp(1, 2, b"x"))))?;
    each(&scene, "hop limit 1", refused, || {
        scene.guest.send(&Ipv6 { hop_limit: 1, ..out() }.carrying(Payload::udp(1, 2, b"x")))?;
        scene.guest.receive("an error", |frame| icmpv6_type(frame) == Some(3)).map(drop)
    })?;

    // Work that the VM leaves to the device, and the device to the kernel.
    scene.host.namespace.run(&format!("ethtool -K {UPLINK} tx off"))?;
    // A TAP's socket owns what is written to it until the kernel's own path lets go of it; of several segments it stays
    // with the last (skb_segment), which for GRO, in a veth, makes it another flow that overtakes the rest.
    scene.wire.namespace.run(&format!("ethtool -K {UPLINK} gro off"))?;
    let partial = Ipv6 { checksum: Checksum::Partial, ..out() };
    each(&scene, "a partial checksum", tc, || {
        scene.guest.send(&partial.carrying(Payload::tcp(1, 2, 0x18, b"hello")))?;
        scene.wire.expect(&sent_on(&out().carrying(Payload::tcp(1, 2, 0x18, b"hello"))))
    })?;
    each(&scene, "segments to be cut", tc, || {
        let mut frame = partial.carrying(Payload::tcp(1, 2, 0x18, &[[0xa; 1000], [0xb; 1000]].concat()));
        frame.header =
            VnetHeader { gso_type: VnetHeader::GSO_TCPV6, gso_size: 1000, hdr_len: 74, ..frame.header };
        scene.guest.send(&frame)?;
        // PSH is the last one's (RFC 9293 section 3.9.1), whose sequence number is 1000 more.
        scene.wire.expect(&sent_on(&out().carrying(Payload::tcp(1, 2, 0x10, &[0xa; 1000]))))?;
        let mut second = Payload::tcp(1, 2, 0x18, &[0xb; 1000]);
        second.bytes[4..8].copy_from_slice(&1001_u32.to_be_bytes());
        scene.wire.expect(&sent_on(&out().carrying(second)))
    })?;
    let strays = scene.wire.drain(address(1))?;
    ensure!(strays.is_empty(), "{strays:02x?}");
    Ok(())
}

/// What is not for a VM is the host's: it gets it as if nobody had looked, and nothing of it is counted.
fn not_for_the_vm(mode: &Mode) -> Result<()> {
    let scene = mode.scene("host")?;
    let host = &scene.host.namespace;
    host.set_sysctl("net/ipv6/auto_flowlabels", 0)?;
    host.ip("address add 192.0.2.1/24 dev up0")?;
    let to_host = Ipv6 { destination: HOST, ..inbound() };
    let from_host = Ipv6 { source: HOST, destination: FAR, ..Ipv6::new(UPLINK_MAC, NEXT_HOP_MAC) };
    let transit_alone = Counted { by_kernel: 1, ..NOTHING };
    each(&scene, "not for a VM", transit_alone, || {
        scene.wire.send(&to_host.carrying(Payload::echo_request(7, 1, b"host")).bytes)?;
        scene.wire.expect(&from_host.carrying(Payload::echo_reply(7, 1, b"host")).bytes)?;

        // Through the host to somewhere else: back to where it came from, of which the kernel tells the sender, too.
        let transit = Ipv6 { source: "2001:db8:78::1".parse()?, destination: FAR, ..inbound() };
        let transit = transit.carrying(Payload::udp(1, 2, b"transit"));
        scene.wire.send(&transit.bytes)?;
        let behind = routed(&transit.bytes, UPLINK_MAC, NEXT_HOP_MAC);
        scene.wire.receive("the frame in transit", |frame| frame == behind)?;

        let solicited = solicited_node(HOST);
        let question = Ipv6 {
            hop_limit: 255,
            source: "2001:db8:fab::2".parse()?,
            destination: solicited,
            ..Ipv6::new(NEXT_HOP_MAC, multicast_mac(solicited))
        };
        let question =
            question.carrying(Payload::neighbour_solicitation(HOST, &[source_link_layer(NEXT_HOP_MAC)]));
        scene.wire.send(&question.bytes)?;
        scene.wire.receive("an advertisement", |frame| icmpv6_type(frame) == Some(136))?;

        scene.wire.send(&arp_request())?;
        scene.wire.receive("an ARP reply", |frame| frame[12..14] == [8, 6] && frame[21] == 2)?;

        // To the VM, but not to our MAC; and in a VLAN that is not ours.
        let hidden = inbound().carrying(Payload::udp(1, 2, b"not ours")).bytes;
        let mut elsewhere = hidden.clone();
        elsewhere[..6].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
        scene.wire.send(&elsewhere)?;
        scene.wire.send(&[&hidden[..12], &[0x81, 0, 0, 5], &hidden[12..]].concat())
    })?;
    // Behind all of these, so they have been dealt with.
    let last = inbound().carrying(Payload::udp(1, 2, b"last"));
    scene.wire.send(&last.bytes)?;
    scene.arrives(&delivered(&last))?;
    ensure!(scene.host.endpoint("vm1")?.dropped() == 0, "something was dropped");
    Ok(())
}

/// Who has 192.0.2.1? 192.0.2.2 asks (RFC 826).
fn arp_request() -> Vec<u8> {
    let mut frame = [[0xff; 6].as_slice(), &NEXT_HOP_MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    frame.extend([NEXT_HOP_MAC.as_slice(), &[192, 0, 2, 2], &[0; 6], &[192, 0, 2, 1]].concat());
    frame
}

macro_rules! modes {
    ($($test:ident: $check:ident, $mode:ident;)+) => {$(
        #[test]
        fn $test() -> Result<()> {
            require_rig!();
            $check(&$mode)
        }
    )+};
}

modes! {
    frames_to_the_vm_by_tc: to_the_vm, TC;
    frames_to_the_vm_by_xdp: to_the_vm, XDP;
    frames_to_the_vm_by_both: to_the_vm, BOTH;
    frames_to_the_vm_by_the_kernel: to_the_vm, OFF;
    frames_from_the_vm_with_tc: from_the_vm, TC;
    frames_from_the_vm_with_xdp: from_the_vm, XDP;
    frames_from_the_vm_with_both: from_the_vm, BOTH;
    frames_from_the_vm_without: from_the_vm, OFF;
    frames_for_the_host_with_tc: not_for_the_vm, TC;
    frames_for_the_host_with_xdp: not_for_the_vm, XDP;
    frames_for_the_host_with_both: not_for_the_vm, BOTH;
}
