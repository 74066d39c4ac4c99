//! ICMPv6 errors (RFC 4443): from the right router, about the right packet, not too many, and never about errors.

use crate::scene::{Scene, Told, headers, is_error, told, until};
use anyhow::{Result, ensure};
use serval_tests::cloud::{address, tap};
use serval_tests::fabric::{WORLD, host_address};
use serval_tests::frame::{Ipv6, Payload, addresses, icmpv6_type, multicast_mac};
use serval_tests::guest::RawGuest;
use serval_tests::host::{Host, PATIENCE};
use serval_tests::require_rig;
use serval_tests::wait::eventually;
use std::net::Ipv6Addr;

/// Type, code and value of Time Exceeded: hop limit.
const HOP_LIMIT: (u8, u8, u32) = (3, 0, 0);
/// The same of Destination Unreachable: no route, and rejected by a route.
const NO_ROUTE: (u8, u8, u32) = (1, 0, 0);

/// Waits until the daemon knows a new route to `destination`, which is the fast path's, or the kernel's.
fn known(host: &Host, destination: Ipv6Addr, fast: bool) -> Result<()> {
    eventually(&format!("the route to {destination}"), PATIENCE, || {
        Ok(host.route(&format!("{destination}/128"))?.filter(|route| route.is_fast() == fast).map(drop))
    })
}

#[test]
fn errors_are_about_the_packet_that_was_sent() -> Result<()> {
    require_rig!();
    let scene = Scene::new("errors", "")?;
    let vm = scene.vm(1);
    for (hop_limit, by, hops) in [(0, host_address(1), 0), (1, host_address(1), 0), (2, host_address(2), 1)] {
        for length in [8, 1452] {
            let frame =
                Ipv6 { hop_limit, ..headers(1, address(2)) }.carrying(Payload::udp(7, 7, &vec![5; length]));
            vm.send(&frame)?;
            let told = told(vm, 1)?;
            let wanted = Told::about(by, HOP_LIMIT, &frame, hops);
            ensure!(told == wanted, "hop limit {hop_limit}: {told:02x?} instead of {wanted:02x?}");
        }
    }
    Ok(())
}

/// After what must be left without an answer comes what must have one; the kernel works in order.
fn unanswered(vm: &RawGuest, silent: &[serval_tests::frame::Frame]) -> Result<()> {
    let asked =
        Ipv6 { hop_limit: 1, ..headers(1, WORLD) }.carrying(Payload::echo_request(77, 1, b"the last"));
    for frame in silent.iter().chain([&asked]) {
        vm.send(frame)?;
    }
    let wanted = Told::about(host_address(1), HOP_LIMIT, &asked, 0);
    let told = told(vm, 1)?;
    ensure!(told == wanted, "an error about {:02x?}", told.quote);
    Ok(())
}

#[test]
fn errors_are_never_about_errors() -> Result<()> {
    require_rig!();
    let scene = Scene::new("silent", "")?;
    let nowhere: Ipv6Addr = "2001:db8:bad::1".parse()?;
    scene.fabric.host(1).namespace.ip(&format!("route add unreachable {nowhere}/128"))?;
    known(scene.fabric.host(1), nowhere, false)?;
    let quoted = headers(1, WORLD).carrying(Payload::udp(1, 2, b"x")).bytes[14..].to_vec();
    let error = |kind| Payload::icmpv6(kind, 0, &[vec![0; 4], quoted.clone()].concat());
    let mut silent = Vec::new();
    for kind in [1, 2, 3, 4, 127] {
        silent.push(Ipv6 { hop_limit: 1, ..headers(1, WORLD) }.carrying(error(kind)));
        silent.push(headers(1, nowhere).carrying(error(kind)));
    }
    // Nor about what was sent to many (RFC 4443 section 2.4 e).
    let group: Ipv6Addr = "ff0e::1234".parse()?;
    let datagram = || Payload::udp(1, 2, b"x");
    for (destination, destination_mac) in
        [(group, multicast_mac(group)), (WORLD, multicast_mac(group)), (WORLD, [0xff; 6])]
    {
        silent.push(Ipv6 { hop_limit: 1, destination_mac, ..headers(1, destination) }.carrying(datagram()));
    }
    unanswered(scene.vm(1), &silent)?;
    // What is no error has its answer there, so the route does refuse.
    let frame = headers(1, nowhere).carrying(datagram());
    scene.vm(1).send(&frame)?;
    let told = told(scene.vm(1), 1)?;
    ensure!(told == Told::about(host_address(1), NO_ROUTE, &frame, 0), "{told:02x?}");
    Ok(())
}

#[test]
fn errors_are_rate_limited() -> Result<()> {
    require_rig!();
    const PACKETS: u16 = 400;
    let scene = Scene::new("limit", "")?;
    let vm = scene.vm(1);
    let expired = Ipv6 { hop_limit: 1, ..headers(1, WORLD) };
    for sequence in 0..PACKETS {
        vm.send(&expired.carrying(Payload::echo_request(1, sequence, b"x")))?;
    }
    // Answers that are no errors are not limited, and the kernel works in order.
    vm.send(&headers(1, host_address(1)).carrying(Payload::echo_request(2, 0, b"the last")))?;
    let seen = until(vm, "the echo reply", 1, |frame| icmpv6_type(frame) == Some(129))?;
    let errors = seen.iter().filter(|frame| is_error(frame)).count();
    println!("{errors} errors about {PACKETS} packets");
    // The kernel's limit is one a second for a host, after a burst of six.
    ensure!((1..usize::from(PACKETS) / 2).contains(&errors), "{errors} errors about {PACKETS} packets");
    Ok(())
}

#[test]
fn a_loop_of_routes_ends() -> Result<()> {
    require_rig!();
    let scene = Scene::new("loop", "")?;
    let nowhere: Ipv6Addr = "2001:db8:100b::1".parse()?;
    for (number, via) in [(1, 2), (2, 1)] {
        let host = scene.fabric.host(number);
        host.namespace.ip(&format!("route add {nowhere}/128 via {}", host_address(via)))?;
        known(host, nowhere, true)?;
    }
    let frame = headers(1, nowhere).carrying(Payload::udp(7, 7, b"round and round"));
    scene.vm(1).send(&frame)?;
    let told = told(scene.vm(1), 1)?;
    // 64 hops: host 1 forwards 64 to 63, host 2 63 to 62, and host 2 is left with 1.
    ensure!(told == Told::about(host_address(2), HOP_LIMIT, &frame, 63), "{told:02x?}");
    Ok(())
}

#[test]
fn a_loop_through_the_vm_itself_ends() -> Result<()> {
    require_rig!();
    let scene = Scene::new("bounce", "")?;
    let behind: Ipv6Addr = "2001:db8:bac::1".parse()?;
    let host = scene.fabric.host(1);
    host.namespace.ip(&format!("route add {behind}/128 via {} dev {}", address(1), tap(1)))?;
    known(host, behind, false)?;
    let vm = scene.vm(1);
    let mut frame = Ipv6 { hop_limit: 20, ..headers(1, behind) }.carrying(Payload::udp(7, 7, b"bounce"));
    // The host sends it back, one hop limit less, and the VM does the same until that is used up.
    for hop_limit in (1..20).rev() {
        vm.send(&frame)?;
        let (_, back) = vm.receive("the packet back", |frame| {
            addresses(frame).is_some_and(|(_, destination)| destination == behind)
        })?;
        ensure!(back[21] == hop_limit, "hop limit {} instead of {hop_limit}", back[21]);
        frame.bytes[21] = hop_limit;
        ensure!(back[12..] == frame.bytes[12..], "changed on the way: {back:02x?}");
    }
    vm.send(&frame)?;
    let told = told(vm, 1)?;
    ensure!(told == Told::about(host_address(1), HOP_LIMIT, &frame, 0), "{told:02x?}");
    Ok(())
}
