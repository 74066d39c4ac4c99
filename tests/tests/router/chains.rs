//! Fragments and extension headers over two hosts: what is legal arrives as it was sent, what is not is dropped with a
//! reason, at the host of the VM that sent it or of the VM that it is for.

use crate::scene::{Scene, arrived, headers, until};
use anyhow::{Context, Result, ensure};
use serval_tests::cloud::address;
use serval_tests::fabric::WORLD;
use serval_tests::frame::{DESTINATION_OPTIONS, Extension, FRAGMENT, Frame, HOP_BY_HOP, Ipv6, Payload, UDP};
use serval_tests::require_rig;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

/// What the fast path forwards at both ends.
fn legal(with: impl Fn(Vec<Extension>, Payload) -> Frame) -> Vec<(&'static str, Frame)> {
    let option = || Extension::padding(DESTINATION_OPTIONS);
    let authentication = Extension { number: 51, rest: [vec![4, 0, 0], vec![0; 20]].concat() };
    let udp = || Payload::udp(4000, 5000, &[9; 40]);
    vec![
        ("first fragment", with(vec![Extension::fragment(0, true, 7)], udp())),
        ("later fragment", with(vec![Extension::fragment(48, false, 7)], Payload::raw(UDP, [9; 16]))),
        ("atomic fragment", with(vec![Extension::fragment(0, false, 7)], udp())),
        ("destination options", with(vec![option()], udp())),
        ("seven headers", with(vec![option(); 7], udp())),
        ("segment routing header", with(vec![Extension::routing(4, 0)], udp())),
        ("authentication header", with(vec![authentication], udp())),
        ("ESP", with(vec![], Payload::raw(50, [7; 40]))),
        ("a protocol nobody knows", with(vec![], Payload::raw(253, [7; 40]))),
    ]
}

/// What must not reach a VM, and why.
fn illegal(with: impl Fn(Vec<Extension>, Payload) -> Frame) -> Vec<(&'static str, Frame)> {
    let option = || Extension::padding(DESTINATION_OPTIONS);
    let udp = || Payload::udp(4000, 5000, &[9; 40]);
    let first = || Extension::fragment(0, true, 7);
    vec![
        ("fragment_chain", with(vec![first()], Payload::raw(UDP, [0; 4]))),
        (
            "fragment_chain",
            with(vec![first()], Payload::raw(DESTINATION_OPTIONS, [UDP, 3, 1, 4, 0, 0, 0, 0])),
        ),
        ("fragment_chain", with(vec![first(), first()], udp())),
        ("header_chain", with(vec![option(), Extension::padding(HOP_BY_HOP)], udp())),
        ("header_chain", with(vec![option(); 9], udp())),
        ("routing_header", with(vec![Extension::routing(0, 1)], udp())),
        ("routing_header", with(vec![Extension::padding(HOP_BY_HOP), Extension::routing(0, 1)], udp())),
        ("malformed", with(vec![], Payload::raw(FRAGMENT, [UDP, 0, 0]))),
    ]
}

#[test]
fn legal_chains_cross_both_hosts_by_the_fast_path() -> Result<()> {
    require_rig!();
    let scene = Scene::new("chains", "")?;
    let with = |extensions, payload| Ipv6 { extensions, ..headers(1, address(2)) }.carrying(payload);
    let by_kernel = |number| scene.fabric.host(number).namespace.kernel_forwarded();
    let before = (by_kernel(1)?, by_kernel(2)?);
    for (what, frame) in legal(with) {
        scene.vm(1).send(&frame)?;
        let wanted = arrived(&frame, 2, 2);
        scene.vm(2).receive(what, |frame| *frame == wanted)?;
    }
    ensure!((by_kernel(1)?, by_kernel(2)?) == before, "the kernels forwarded some");
    // Options that a router has to look at are the kernels'.
    let frame = with(vec![Extension::padding(HOP_BY_HOP)], Payload::udp(4000, 5000, b"x"));
    scene.vm(1).send(&frame)?;
    let wanted = arrived(&frame, 2, 2);
    scene.vm(2).receive("hop-by-hop options", |frame| *frame == wanted)?;
    ensure!((by_kernel(1)?, by_kernel(2)?) == (before.0 + 1, before.1 + 1), "not by the kernels");
    Ok(())
}

#[test]
fn illegal_chains_do_not_leave_their_host() -> Result<()> {
    require_rig!();
    let scene = Scene::new("illegal", "")?;
    let with = |extensions, payload| Ipv6 { extensions, ..headers(1, address(2)) }.carrying(payload);
    let marker = with(vec![], Payload::udp(4000, 5000, b"the last"));
    refused(&scene, 1, |frame| scene.vm(1).send(frame), &illegal(with), &marker, 2)
}

fn refused_from_afar(label: &str, uplink: &str) -> Result<()> {
    let scene = Scene::new(label, &format!("[fastpath]\nuplink = \"{uplink}\""))?;
    let stranger = scene.stranger()?;
    let far =
        Ipv6 { source: WORLD, destination: address(2), ..Ipv6::new(stranger.mac, scene.uplink_mac(2)?) };
    let with = |extensions, payload| Ipv6 { extensions, ..far.clone() }.carrying(payload);
    let marker = with(vec![], Payload::udp(4000, 5000, b"the last"));
    for (what, frame) in legal(with) {
        stranger.send(&frame)?;
        let wanted = arrived(&frame, 2, 1);
        scene.vm(2).receive(what, |frame| *frame == wanted)?;
    }
    let from = |source: &str| -> Result<(&'static str, Frame)> {
        let headers = Ipv6 { source: source.parse()?, ..far.clone() };
        Ok(("source_address", headers.carrying(Payload::udp(4000, 5000, b"x"))))
    };
    let sources = ["::", "::1", "ff02::1", "ff0e::1", "::ffff:192.0.2.1"].map(from);
    let sources = sources.into_iter().collect::<Result<Vec<_>>>()?;
    let mut frames = [illegal(with), sources].concat();
    // What the kernel would cut off is no way round.
    let mut padded = frames.clone();
    for (_, frame) in &mut padded {
        frame.bytes.extend([0; 4]);
    }
    frames.extend(padded);
    refused(&scene, 2, |frame| stranger.send(frame), &frames, &marker, 1)?;
    // Link-local addresses stay on their link: the sender is told so, the VM gets nothing.
    let forwarded = scene.status(2)?.delivered()?;
    let link_local: Ipv6Addr = "fe80::66".parse()?;
    let beyond = Ipv6 { source: link_local, ..far.clone() }.carrying(Payload::udp(4000, 5000, b"x"));
    stranger.send(&beyond)?;
    stranger.send(&marker)?;
    let seen = until(scene.vm(2), "the last", 2, |frame| *frame == arrived(&marker, 2, 1))?;
    ensure!(seen.len() == 1, "from a link-local address: {seen:02x?}");
    ensure!(scene.status(2)?.delivered()? == forwarded + 1);
    Ok(())
}

#[test]
fn illegal_packets_from_afar_do_not_reach_a_vm_by_tc() -> Result<()> {
    require_rig!();
    refused_from_afar("afar-tc", "tc")
}

#[test]
fn illegal_packets_from_afar_do_not_reach_a_vm_by_xdp() -> Result<()> {
    require_rig!();
    refused_from_afar("afar-xdp", "both")
}

/// Sends frames that must be dropped at host `number` and then `marker`, which VM 2 must get, `hops` routers later, and
/// nothing else; each is counted under its reason.
fn refused(
    scene: &Scene,
    number: u8,
    send: impl Fn(&Frame) -> Result<()>,
    frames: &[(&'static str, Frame)],
    marker: &Frame,
    hops: u8,
) -> Result<()> {
    let mut wanted = BTreeMap::new();
    for (reason, _) in frames {
        *wanted.entry(*reason).or_insert(0) += 1;
    }
    let count = || -> Result<BTreeMap<&str, u64>> {
        let status = scene.status(number)?;
        Ok(wanted.keys().map(|reason| (*reason, status.dropped_for(reason))).collect())
    };
    let before = count()?;
    for (_, frame) in frames {
        send(frame)?;
    }
    send(marker)?;
    let last = arrived(marker, 2, hops);
    let seen = until(scene.vm(2), "the last", 2, |frame| *frame == last)?;
    ensure!(seen.len() == 1, "the VM got {seen:02x?}");
    let after = count()?;
    for (reason, count) in &wanted {
        let counted = after[reason].checked_sub(before[reason]).context("a counter went back")?;
        ensure!(counted == *count, "{counted} of {count} dropped for {reason}");
    }
    Ok(())
}
