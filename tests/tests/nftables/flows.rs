//! Two VMs and the world: who may begin, who may answer, and what becomes of flows when policy changes.

use crate::rig::{NODE, Rig, UPLINK, global, resources};
use anyhow::{Result, ensure};
use serval_tests::cloud::{address, mac};
use serval_tests::frame::{
    DESTINATION_OPTIONS, Extension, FRAGMENT, Frame, Ipv6, Payload, addresses, link_local, mac_text,
    multicast_mac,
};
use serval_tests::require_rig;
use std::io::ErrorKind;
use std::net::{Ipv6Addr, UdpSocket};

const A: &str = "tap1";
const B: &str = "tap2";
const WORLD: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;

/// VM 1 and VM 2.
fn endpoints() -> String {
    let endpoint = |n: u8| {
        format!(
            "---\napiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {{name: vm{n}, labels: {{vm: '{n}'}}}}\n\
             spec: {{node: {NODE}, interfaceName: tap{n}, mac: '{}', ipNetworks: ['{}/128']}}\n",
            mac_text(mac(n)),
            address(n)
        )
    };
    endpoint(1) + &endpoint(2)
}

/// VM 1 may begin to talk to VM 2 and the world; nobody else may.
fn one_way() -> String {
    endpoints()
        + &global("out", "{selector: vm == '1', types: [Egress], egress: [{action: Allow}]}")
        + &global(
            "in",
            "{selector: vm == '2', types: [Ingress], ingress: [{action: Allow, source: {selector: vm == '1'}}]}",
        )
        + &global("closed", "{order: 10, types: [Ingress, Egress]}")
}

fn rig(label: &str, documents: &str) -> Result<Rig> {
    let mut rig = Rig::new(label, &[(A, mac(1)), (B, mac(2))])?;
    rig.route(address(1), A)?;
    rig.route(address(2), B)?;
    rig.load(&resources(documents)?)?;
    Ok(rig)
}

fn there() -> (Ipv6Addr, Ipv6Addr) {
    (address(1), address(2))
}

fn back() -> (Ipv6Addr, Ipv6Addr) {
    (address(2), address(1))
}

#[test]
fn answers_pass_and_beginnings_are_judged() -> Result<()> {
    require_rig!();
    let rig = rig("nftflow", &one_way())?;
    let udp = |from: u16, to: u16| Payload::udp(from, to, b"data");
    rig.expect("VM 2 may not begin", B, &rig.frame(B, back(), udp(2, 1))?, None)?;
    rig.expect("VM 1 may begin", A, &rig.frame(A, there(), udp(1, 2))?, Some(B))?;
    rig.expect("VM 2 answers", B, &rig.frame(B, back(), udp(2, 1))?, Some(A))?;
    rig.expect("VM 2 has no other right", B, &rig.frame(B, back(), udp(2, 3))?, None)?;

    let out = (address(1), WORLD);
    rig.expect("to the world", A, &rig.frame(A, out, udp(1, 2))?, Some(UPLINK))?;
    rig.expect("the world answers", UPLINK, &rig.frame(UPLINK, (WORLD, address(1)), udp(2, 1))?, Some(A))?;
    rig.expect("the world may not begin", UPLINK, &rig.frame(UPLINK, (WORLD, address(1)), udp(2, 4))?, None)?;
    let transit = (WORLD, Ipv6Addr::new(0x2001, 0xdb8, 0xfffe, 0, 0, 0, 0, 1));
    rig.expect("what concerns no VM", UPLINK, &rig.frame(UPLINK, transit, udp(2, 1))?, Some(UPLINK))?;

    let echo = |kind: fn(u16, u16, &[u8]) -> Payload| kind(7, 1, b"ping");
    rig.expect("an echo reply to nothing", B, &rig.frame(B, back(), echo(Payload::echo_reply))?, None)?;
    rig.expect("echo request", A, &rig.frame(A, there(), echo(Payload::echo_request))?, Some(B))?;
    rig.expect("echo reply", B, &rig.frame(B, back(), echo(Payload::echo_reply))?, Some(A))?;
    rig.expect("echo request back", B, &rig.frame(B, back(), echo(Payload::echo_request))?, None)?;

    let tcp = |from, to, flags| Payload::tcp(from, to, flags, b"");
    rig.expect("an answer to nothing", B, &rig.frame(B, back(), tcp(80, 9, SYN_ACK))?, None)?;
    rig.expect("SYN", A, &rig.frame(A, there(), tcp(9, 80, SYN))?, Some(B))?;
    rig.expect("SYN instead of an answer", B, &rig.frame(B, back(), tcp(80, 9, SYN))?, None)?;
    rig.expect("SYN and ACK", B, &rig.frame(B, back(), tcp(80, 9, SYN_ACK))?, Some(A))?;
    rig.expect("ACK", A, &rig.frame(A, there(), tcp(9, 80, ACK))?, Some(B))?;
    rig.expect("in the middle of a connection", A, &rig.frame(A, there(), tcp(10, 80, ACK))?, Some(B))?;
    rig.expect("in the middle of a denied one", B, &rig.frame(B, back(), tcp(81, 10, ACK))?, None)?;
    Ok(())
}

#[test]
fn errors_pass_only_about_what_was_sent() -> Result<()> {
    require_rig!();
    let rig = rig("nfterror", &one_way())?;
    let sent = rig.frame(A, there(), Payload::udp(1, 2, b"data"))?;
    let error = |about: &Frame| -> Result<Frame> {
        let body = [[0; 4].as_slice(), &about.bytes[14..]].concat();
        rig.frame(B, back(), Payload::icmpv6(1, 4, &body))
    };
    rig.expect("an error about nothing", B, &error(&sent)?, None)?;
    rig.expect("a datagram", A, &sent, Some(B))?;
    rig.expect("the error about it", B, &error(&sent)?, Some(A))?;
    let forged = rig.frame(A, there(), Payload::udp(1, 3, b"data"))?;
    rig.expect("an error about another port", B, &error(&forged)?, None)?;
    let others = rig.frame(A, (WORLD, address(2)), Payload::udp(1, 2, b"data"))?;
    rig.expect("an error about another's datagram", B, &error(&others)?, None)?;
    Ok(())
}

#[test]
fn a_change_of_policy_counts_from_the_next_packet() -> Result<()> {
    require_rig!();
    let mut rig = rig("nftchange", &one_way())?;
    let udp = |from: u16, to: u16| Payload::udp(from, to, b"data");
    let (ahead, answer) = (rig.frame(A, there(), udp(1, 2))?, rig.frame(B, back(), udp(2, 1))?);
    rig.expect("allowed", A, &ahead, Some(B))?;
    rig.expect("its answer", B, &answer, Some(A))?;

    let other = global("other", "{order: 1, types: [Ingress], ingress: [{action: Deny, protocol: TCP}]}");
    rig.load(&resources(&(one_way() + &other))?)?;
    rig.expect("an answer, first after a change that is about others", B, &answer, Some(A))?;
    rig.expect("and ahead", A, &ahead, Some(B))?;

    let revoked = global(
        "revoked",
        "{order: -1, selector: vm == '2', types: [Ingress], \
         ingress: [{action: Deny, protocol: UDP, source: {ports: [1]}, destination: {ports: [2]}}]}",
    );
    rig.load(&resources(&(one_way() + &revoked))?)?;
    rig.expect("an answer that is no longer allowed", B, &answer, None)?;
    rig.expect("nor is what it answers", A, &ahead, None)?;
    rig.load(&resources(&one_way())?)?;
    rig.expect("an answer to what is allowed again", B, &answer, Some(A))?;
    Ok(())
}

#[test]
fn fragments_share_the_fate_of_their_packet() -> Result<()> {
    require_rig!();
    let only_80 = endpoints()
        + &global(
            "web",
            "{types: [Egress, Ingress], egress: [{action: Allow}], \
                   ingress: [{action: Allow, protocol: UDP, destination: {ports: [80]}}]}",
        );
    let rig = rig("nftfrag", &only_80)?;
    for (port, identification, passes) in [(80, 1, true), (81, 2, false)] {
        let whole = rig.frame(A, there(), Payload::udp(1, port, &[7; 1000]))?;
        let datagram = &whole.bytes[54..];
        let fragment = |offset: u16, more: bool, bytes: &[u8]| -> Result<Frame> {
            let extensions = vec![Extension::fragment(offset, more, identification)];
            let headers = Ipv6 { extensions, ..rig.headers(A, address(1), address(2))? };
            Ok(headers.carrying(Payload::raw(17, bytes)))
        };
        // The later one first: it shows no port.
        let first = rig.send(A, &fragment(512, false, &datagram[512..])?)?;
        ensure!(first.is_empty(), "a fragment got through by itself");
        let out = rig.send(A, &fragment(0, true, &datagram[..512])?)?;
        let bytes: usize = out.iter().map(|(_, frame)| frame.len() - 62).sum();
        ensure!(out.iter().all(|(tap, frame)| tap == B && frame[20] == FRAGMENT), "port {port}: {out:02x?}");
        ensure!(bytes == if passes { datagram.len() } else { 0 }, "port {port}: {bytes} bytes");
    }
    // Another VM cannot add to what VM 1 sends.
    let forged = Ipv6 {
        extensions: vec![Extension::fragment(512, false, 3)],
        ..rig.headers(B, address(1), address(2))?
    };
    rig.expect("a forged fragment", B, &forged.carrying(Payload::raw(17, [0; 496])), None)?;
    let nested = Ipv6 {
        extensions: vec![
            Extension::fragment(0, false, 4),
            Extension::padding(DESTINATION_OPTIONS),
            Extension::fragment(0, false, 5),
        ],
        ..rig.headers(A, address(1), address(2))?
    };
    rig.expect("a fragment in a fragment", A, &nested.carrying(Payload::udp(1, 80, b"x")), None)?;
    Ok(())
}

#[test]
fn the_host_is_as_open_as_it_is_configured() -> Result<()> {
    require_rig!();
    let mut rig = rig("nfthost", &one_way())?;
    let host: Ipv6Addr = "2001:db8:5e::1".parse()?;
    rig.host.add_address("lo", host)?;
    let answered = |rig: &Rig, tap: &str, from: Ipv6Addr| -> Result<bool> {
        let tap = rig.tap(tap)?;
        tap.send(&rig.frame(tap.tap.name(), (from, host), Payload::echo_request(9, 1, b"host"))?)?;
        Ok(!tap.drain()?.is_empty())
    };
    ensure!(!answered(&rig, A, address(1))?, "the host is closed");
    // What every VM needs all the same: its router is found.
    let router = link_local(serval_tests::frame::GATEWAY_MAC);
    let target = serval_tests::frame::solicited_node(router);
    let tap = rig.tap(A)?;
    let headers = Ipv6 {
        hop_limit: 255,
        destination_mac: multicast_mac(target),
        ..rig.headers(A, link_local(mac(1)), target)?
    };
    let option = serval_tests::frame::source_link_layer(mac(1));
    tap.send(&headers.carrying(Payload::neighbour_solicitation(router, &[option])))?;
    tap.receive("a neighbour advertisement", |frame| serval_tests::frame::icmpv6_type(frame) == Some(136))?;

    rig.open_host();
    rig.load(&resources(&one_way())?)?;
    ensure!(answered(&rig, A, address(1))?, "VM 1 may talk to everybody");
    ensure!(!answered(&rig, B, address(2))?, "VM 2 may talk to nobody");
    Ok(())
}

#[test]
fn the_host_is_judged_where_it_is_configured() -> Result<()> {
    require_rig!();
    let to_seven = global(
        "seven",
        "{ingress: [{action: Allow, protocol: UDP, destination: {ports: [7]}}], types: [Ingress]}",
    );
    let mut rig = rig("nftjudged", &(endpoints() + &to_seven))?;
    let host: Ipv6Addr = "2001:db8:5e::1".parse()?;
    rig.host.add_address("lo", host)?;
    let sends = |rig: &Rig, from: u16, to: u16| -> Result<bool> {
        let socket = rig.host.enter(|| Ok(UdpSocket::bind((host, from))?))?;
        // What a rule of the way out drops, the sender hears of.
        match socket.send_to(b"data", (address(1), to)) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            sent => ensure!(sent? == 4, "cut"),
        }
        Ok(rig.tap(A)?.drain()?.iter().any(|frame| addresses(frame) == Some((host, address(1)))))
    };
    ensure!(sends(&rig, 1000, 8)?, "the host may call whom it wants");
    rig.judge_host();
    rig.load(&resources(&(endpoints() + &to_seven))?)?;
    ensure!(!sends(&rig, 1000, 8)?, "the flow goes on");
    ensure!(!sends(&rig, 1001, 8)?, "VM 1 takes no datagram to port 8");
    ensure!(sends(&rig, 1001, 7)?, "VM 1 takes datagrams to port 7");
    ensure!(sends(&rig, 53, 9)?, "DNS is answered");
    ensure!(sends(&rig, 547, 546)?, "DHCPv6 is answered");

    // The VM answers what its policy has let in, and nothing else.
    let server = rig.host.enter(|| Ok(UdpSocket::bind((host, 1001))?))?;
    server.set_nonblocking(true)?;
    let mut bytes = [0; 8];
    for (from, arrives) in [(7, true), (8, false)] {
        let answer = rig.frame(A, (address(1), host), Payload::udp(from, 1001, b"answer"))?;
        rig.tap(A)?.send(&answer)?;
        ensure!(server.recv_from(&mut bytes).is_ok() == arrives, "an answer from port {from}");
    }
    rig.load(&resources(&endpoints())?)?;
    let answer = rig.frame(A, (address(1), host), Payload::udp(7, 1001, b"answer"))?;
    rig.tap(A)?.send(&answer)?;
    ensure!(server.recv_from(&mut bytes).is_err(), "an answer to what is no longer allowed");
    Ok(())
}
