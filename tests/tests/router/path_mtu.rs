//! Packet Too Big (RFC 8201): by whom, with which MTU, off by none; for whole packets and for those that are still to be
//! cut into segments.

use crate::scene::{Scene, Told, headers, is_error, parse};
use anyhow::{Context, Result, ensure};
use serval_tests::cloud::{address, running, tap};
use serval_tests::fabric::{Fabric, ROUTER, UPLINK, WORLD, host_address};
use serval_tests::frame::{Checksum, Frame, Ipv6, Payload, addresses};
use serval_tests::host::PATIENCE;
use serval_tests::require_rig;
use serval_tests::tap::{Offloads, VnetHeader};
use serval_tests::wait::eventually;
use std::net::{Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

fn too_big(mtu: u32) -> (u8, u8, u32) {
    (2, 0, mtu)
}

/// A UDP packet of `length` bytes from `port` of VM 1 to VM 2.
fn packet(port: u16, length: usize) -> Frame {
    headers(1, address(2)).carrying(Payload::udp(port, 7, &vec![5; length - 48]))
}

/// Three segments, of which two are packets of `length` bytes.
fn segments(port: u16, length: usize, gso_type: u8) -> Frame {
    let headers = Ipv6 { checksum: Checksum::Partial, ..headers(1, address(2)) };
    let upper = if gso_type == VnetHeader::GSO_TCPV6 { 20 } else { 8 };
    let size = length - 40 - upper;
    let data = vec![5; 2 * size + 100];
    let mut frame = headers.carrying(match gso_type {
        VnetHeader::GSO_TCPV6 => Payload::tcp(port, 7, 0x10, &data),
        _ => Payload::udp(port, 7, &data),
    });
    frame.header.gso_type = gso_type;
    frame.header.gso_size = size as u16;
    frame.header.hdr_len = 54 + upper as u16;
    frame
}

/// The frame is from `port` of VM 1.
fn is_from(port: u16) -> impl Fn(&[u8]) -> bool {
    move |frame| {
        let from = addresses(frame).is_some_and(|(source, _)| source == address(1));
        from && frame.get(54..56) == Some(&port.to_be_bytes())
    }
}

/// The frame is an error about a packet from `port`.
fn is_about(port: u16) -> impl Fn(&[u8]) -> bool {
    move |frame| is_error(frame) && frame.get(102..104) == Some(&port.to_be_bytes())
}

/// What is as long as `mtu` allows gets to VM 2, and what is one byte longer is refused by `by`, when its hop limit is
/// `hops` less.
fn off_by_none(scene: &Scene, by: Ipv6Addr, hops: u8, mtu: u32) -> Result<()> {
    let length = mtu as usize;
    let mut ports = 2000..;
    let mut port = || ports.next().context("no more ports");
    // The fast path is told of a new MTU a moment after it is set.
    eventually("the new MTU to be known", PATIENCE, || {
        let port = port()?;
        scene.vm(1).send(&packet(port, length + 1))?;
        let error = scene.vm(1).tap.read_until(Instant::now() + Duration::from_millis(50))?;
        Ok(error.is_some_and(|(_, frame)| is_about(port)(&frame)).then_some(()))
    })?;
    let refused = |what: &str, port: u16, frame: &Frame| -> Result<()> {
        scene.vm(1).send(frame)?;
        let (_, error) = scene.vm(1).receive(what, is_about(port))?;
        // From the next header to the ports: which of the segments it is about is the kernel's choice.
        let of = |told: &Told| (told.by, told.kind, told.code, told.value, told.quote[6..44].to_vec());
        let (told, wanted) = (parse(&error, 1)?, Told::about(by, too_big(mtu), frame, hops));
        ensure!(of(&told) == of(&wanted), "{what}: {:02x?} instead of {:02x?}", of(&told), of(&wanted));
        Ok(())
    };
    let (small, large) = (port()?, port()?);
    let frame = packet(small, length);
    scene.vm(1).send(&frame)?;
    let (_, got) = scene.vm(2).receive("a packet of the MTU", is_from(small))?;
    ensure!(got[54..] == frame.bytes[54..], "changed on the way");
    refused("one byte too long", large, &packet(large, length + 1))?;
    for (what, kind) in [("TCP segments", VnetHeader::GSO_TCPV6), ("UDP segments", VnetHeader::GSO_UDP_L4)] {
        let (small, large) = (port()?, port()?);
        let frame = segments(small, length, kind);
        scene.vm(1).send(&frame)?;
        // However it is cut on the way: all of the data arrives, none of it in a longer packet.
        let wanted = frame.bytes.len() - usize::from(frame.header.hdr_len);
        let mut data = 0;
        while data < wanted {
            let (header, got) = scene.vm(2).receive(what, is_from(small))?;
            let segment = if header.gso_size == 0 { got.len() - 14 } else { length_of_segment(&header) };
            ensure!(segment <= length, "{what}: a packet of {segment} bytes");
            data += got.len() - usize::from(frame.header.hdr_len);
        }
        ensure!(data == wanted, "{what}: {data} bytes of {wanted}");
        refused(what, large, &segments(large, length + 1, kind))?;
    }
    Ok(())
}

/// Bytes of each packet that the frame is to be cut into.
fn length_of_segment(header: &VnetHeader) -> usize {
    let upper = if header.gso_type & 0x7f == VnetHeader::GSO_TCPV6 { 20 } else { 8 };
    40 + upper + usize::from(header.gso_size)
}

#[test]
fn the_uplink_is_smaller() -> Result<()> {
    require_rig!();
    let scene = Scene::new("mtu-up", "")?;
    scene.fabric.host(1).namespace.ip(&format!("link set {UPLINK} mtu 1420"))?;
    off_by_none(&scene, host_address(1), 0, 1420)
}

#[test]
fn the_tap_is_smaller() -> Result<()> {
    require_rig!();
    let scene = Scene::new("mtu-tap", "")?;
    scene.fabric.host(2).namespace.ip(&format!("link set {} mtu 1380", tap(2)))?;
    off_by_none(&scene, host_address(2), 1, 1380)
}

#[test]
fn the_route_is_smaller() -> Result<()> {
    require_rig!();
    let scene = Scene::new("mtu-route", "")?;
    let host = &scene.fabric.host(1).namespace;
    host.ip(&format!("route change {}/128 via {} metric 2048 mtu 1300", address(2), host_address(2)))?;
    // For the MTU of a route, unless it is locked, the kernel looks after it has counted the hop.
    off_by_none(&scene, host_address(1), 1, 1300)
}

/// A guest's own stack learns the MTU of a link that it cannot see, and cuts its datagrams accordingly.
#[test]
fn datagrams_go_on_in_fragments() -> Result<()> {
    require_rig!();
    const LENGTH: usize = 4_000;
    let fabric = Fabric::started("mtu-udp", 1)?;
    let guest = running(fabric.host(1), 1, Offloads::ALL)?;
    fabric.route(address(1), 1)?;
    fabric.router.ip("link set world mtu 1320")?;
    let world = fabric.world.enter(|| Ok(UdpSocket::bind((WORLD, 7000))?))?;
    world.set_read_timeout(Some(Duration::from_millis(100)))?;
    let socket = guest.namespace.enter(|| Ok(UdpSocket::bind((address(1), 0))?))?;
    let mut sent = 0u8;
    let first = eventually("a datagram in the world", PATIENCE, || {
        sent += 1;
        socket.send_to(&[sent; LENGTH], (WORLD, 7000))?;
        let mut buffer = [0; LENGTH + 1];
        let got = world.recv(&mut buffer).ok();
        Ok(got.filter(|length| buffer[..*length] == [buffer[0]; LENGTH]).map(|_| buffer[0]))
    })?;
    println!("datagram {first} of {sent} arrived first");
    ensure!(first > 1, "nothing was too big for the link: the test shows nothing");
    let route = guest.namespace.ip(&format!("-6 route get {WORLD}"))?;
    ensure!(route.contains("mtu 1320"), "the guest has not learnt the MTU from {ROUTER}: {route}");
    Ok(())
}
