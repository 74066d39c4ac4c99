//! VMs on several hosts, and the world: the fast path at both ends, and what routers on the way owe.

use anyhow::{Context, Result, ensure};
use serval_tests::cloud::{address, endpoint, name};
use serval_tests::fabric::{Fabric, ROUTER, UPLINK, WORLD, WORLD_ROUTER, host_address};
use serval_tests::host::PATIENCE;
use serval_tests::netns::Namespace;
use serval_tests::require_rig;
use serval_tests::scene::{PINGS, Scene};
use serval_tests::stream::Stream;
use serval_tests::tap::Offloads;
use serval_tests::traffic::{answer, iperf3, iperf3_server};
use serval_tests::wait::eventually;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Instant;

/// Datagrams a second.
const RATE: u32 = 2_000;

/// Datagrams that must come through in each state.
const STEP: u64 = 500;

/// Two hosts with a VM each, all routes in place and all next hops known.
fn two_hosts(label: &str, offloads: Offloads) -> Result<Scene> {
    let scene = Scene::populate(Fabric::started(label, 2)?, 2, offloads)?;
    for number in [1, 2] {
        scene.fabric.route(address(number), number)?;
    }
    for number in [1, 2] {
        // To the other VM, and to everywhere.
        scene.fabric.host(number).wait_status("a default route mirrored", |status| status.mirrored() >= 1)?;
    }
    for (from, to) in [(1, address(2)), (2, address(1)), (1, WORLD), (2, WORLD)] {
        scene.settle(from, to)?;
    }
    Ok(scene)
}

fn fast_path_at_both_ends(label: &str, offloads: Offloads) -> Result<()> {
    let scene = two_hosts(label, offloads)?;
    let world = &scene.fabric.world;
    let whole = offloads == Offloads::NONE;
    let pings = u64::from(PINGS);
    for (from, to, destination) in [(1u8, Some(2u8), address(2)), (2, Some(1), address(1)), (1, None, WORLD)]
    {
        let before = (scene.counted(from)?, to.map(|to| scene.counted(to)).transpose()?);
        scene.echoes(&scene.guest(from).namespace, destination)?;
        let after = (scene.counted(from)?, to.map(|to| scene.counted(to)).transpose()?);
        println!("vm{from} -> {destination}: {before:?} -> {after:?}");
        ensure!(after.0.0 >= before.0.0 + pings, "requests did not go by the fast path of host {from}");
        ensure!(after.0.1 >= before.0.1 + pings, "replies did not go by the fast path of host {from}");
        if let (Some(before), Some(after)) = (before.1, after.1) {
            ensure!(after.0 >= before.0 + pings, "replies did not go by the fast path of the other host");
            ensure!(after.1 >= before.1 + pings, "requests did not go by the fast path of the other host");
        }
    }
    let before = scene.counted(2)?;
    scene.echoes(world, address(2))?;
    let after = scene.counted(2)?;
    ensure!(after.0 >= before.0 + pings && after.1 >= before.1 + pings, "{before:?} -> {after:?}");

    let by_kernel = |number| scene.fabric.host(number).namespace.kernel_forwarded();
    let before = (by_kernel(1)?, by_kernel(2)?);
    for (from, to, destination) in [
        (&scene.guest(1).namespace, &scene.guest(2).namespace, address(2)),
        (&scene.guest(2).namespace, world, WORLD),
        (world, &scene.guest(1).namespace, address(1)),
    ] {
        let stream = Stream::start(from, to, destination, 7_000, RATE)?;
        stream.advance(STEP)?;
        let account = stream.finish()?;
        println!("{} -> {}: {account}", from.name(), to.name());
        account.complete()?;
        let server = iperf3_server(to)?;
        let bulk = iperf3(from, destination, 1)?;
        println!(
            "{} -> {}: {:.2} Gbit/s, {} retransmits",
            from.name(),
            to.name(),
            bulk.bits_per_second / 1e9,
            bulk.retransmits
        );
        drop(server);
    }
    let after = (by_kernel(1)?, by_kernel(2)?);
    println!("forwarded by the kernels: {before:?} -> {after:?}");
    for number in [1, 2] {
        // XDP forwards what is whole, and TC what has work left for the device.
        let endpoint = scene.fabric.host(number).endpoint(&name(number))?;
        ensure!(
            endpoint.counter(if whole { "forwarded_xdp" } else { "forwarded_tc" })? > pings,
            "{endpoint:?}"
        );
    }
    ensure!(after == before, "the kernels forwarded packets");
    Ok(())
}

#[test]
fn vms_reach_vms_on_other_hosts_and_the_world_with_offloads() -> Result<()> {
    require_rig!();
    fast_path_at_both_ends("offload", Offloads::ALL)
}

#[test]
fn vms_reach_vms_on_other_hosts_and_the_world_without_offloads() -> Result<()> {
    require_rig!();
    fast_path_at_both_ends("plain", Offloads::NONE)
}

#[test]
fn traceroute_shows_every_router() -> Result<()> {
    require_rig!();
    let scene = two_hosts("trace", Offloads::ALL)?;
    let hop_limit = |from: &Namespace, to, limit: u8| answer(from, to, &format!("-t {limit}"));
    let vm1 = &scene.guest(1).namespace;
    let exceeded = "Time exceeded: Hop limit";
    for (from, to, path) in [
        (vm1, address(2), [host_address(1), host_address(2)]),
        (vm1, WORLD, [host_address(1), ROUTER]),
        (&scene.fabric.world, address(2), [WORLD_ROUTER, host_address(2)]),
    ] {
        for (limit, router) in (1..).zip(path) {
            let (who, what) = hop_limit(from, to, limit)?;
            println!("{} -> {to}, hop limit {limit}: {who} {what}", from.name());
            ensure!((who, what.as_str()) == (router, exceeded), "hop {limit} to {to}: {who} {what}");
        }
        ensure!(hop_limit(from, to, 3)?.0 == to, "{to} is farther than two routers");
    }
    Ok(())
}

#[test]
fn unreachable_destinations_are_told() -> Result<()> {
    require_rig!();
    let scene = two_hosts("unreach", Offloads::ALL)?;
    let vm1 = &scene.guest(1).namespace;
    let host = &scene.fabric.host(1).namespace;
    let nowhere: Ipv6Addr = "2001:db8:bad::1".parse()?;
    let told = |from, to| -> Result<(Ipv6Addr, String)> {
        let told = answer(from, to, "")?;
        println!("{to}: {} {}", told.0, told.1);
        Ok(told)
    };
    let unreachable = |who: Ipv6Addr, what: &str| (who, format!("Destination unreachable: {what}"));
    // The last router knows no route.
    ensure!(told(vm1, nowhere)? == unreachable(ROUTER, "No route"));
    // The first one is told not to have one, by a route more specific than what the fast path has.
    host.ip(&format!("route add unreachable {nowhere}/128"))?;
    ensure!(told(vm1, nowhere)? == unreachable(host_address(1), "No route"));
    host.ip(&format!("route del unreachable {nowhere}/128"))?;
    host.ip(&format!("route add prohibit {nowhere}/128"))?;
    ensure!(told(vm1, nowhere)? == unreachable(host_address(1), "Administratively prohibited"));
    host.ip(&format!("route del prohibit {nowhere}/128"))?;
    // A next hop that is not there.
    host.ip(&format!("route add {nowhere}/128 via {}", host_address(0x99)))?;
    ensure!(told(vm1, nowhere)? == unreachable(host_address(1), "Address unreachable"));
    host.ip(&format!("route del {nowhere}/128"))?;
    // No route at all.
    host.ip("-6 route del default")?;
    ensure!(told(vm1, nowhere)? == unreachable(host_address(1), "No route"));
    Ok(())
}

/// TCP goes on after a smaller link, wherever it is, and the guest has learnt its MTU.
fn path_mtu(from: &Namespace, to: &Namespace, destination: Ipv6Addr, mtu: u32) -> Result<()> {
    let _server = iperf3_server(to)?;
    let bulk = iperf3(from, destination, 1)?;
    let route = from.ip(&format!("-6 route get {destination}"))?;
    println!("{} -> {destination}: {:.2} Gbit/s; {}", from.name(), bulk.bits_per_second / 1e9, route.trim());
    ensure!(route.contains(&format!("mtu {mtu}")), "path MTU not learnt: {route}");
    ensure!(bulk.bits_per_second > 1e6, "TCP does not get through: {bulk:?}");
    Ok(())
}

#[test]
fn path_mtu_is_discovered_behind_the_fast_path() -> Result<()> {
    require_rig!();
    let scene = two_hosts("pmtu", Offloads::ALL)?;
    let (vm1, vm2, world) = (&scene.guest(1).namespace, &scene.guest(2).namespace, &scene.fabric.world);
    // At the far router: its Packet Too Big crosses the fast path of the host.
    scene.fabric.router.ip("link set world mtu 1400")?;
    path_mtu(vm1, world, WORLD, 1400)?;
    // At our own uplink: the fast path hands it to the kernel.
    scene.fabric.host(2).namespace.ip(&format!("link set {UPLINK} mtu 1420"))?;
    path_mtu(vm2, vm1, address(1), 1420)?;
    // At a route.
    let host = &scene.fabric.host(1).namespace;
    host.ip(&format!("route change {}/128 via {} metric 2048 mtu 1300", address(2), host_address(2)))?;
    path_mtu(vm1, vm2, address(2), 1300)
}

/// A stream that flows from VM 1 to VM 2 while `change` is made to the link between their hosts.
fn under_traffic(scene: &Scene, what: &str, change: impl FnOnce(&Stream) -> Result<()>) -> Result<()> {
    let (from, to) = (&scene.guest(1).namespace, &scene.guest(2).namespace);
    let stream = Stream::start(from, to, address(2), 7_000, RATE)?;
    stream.advance(STEP)?;
    change(&stream)?;
    let before = (scene.counted(1)?.0, scene.counted(2)?.1);
    stream.advance(STEP)?;
    let after = (scene.counted(1)?.0, scene.counted(2)?.1);
    let account = stream.finish()?;
    println!("{what}: {account}");
    // Some of those that arrived may have been under way before the first look.
    let least = STEP / 2;
    ensure!(
        after.0 >= before.0 + least,
        "{what}: the fast path of host 1 is not used again: {before:?} -> {after:?}"
    );
    ensure!(
        after.1 >= before.1 + least,
        "{what}: the fast path of host 2 is not used again: {before:?} -> {after:?}"
    );
    ensure!(account.duplicates == 0, "{what}: {account}");
    account.ends_whole(STEP / 2).with_context(|| what.to_owned())
}

#[test]
fn a_next_hop_that_changes_its_mac_is_followed() -> Result<()> {
    require_rig!();
    let scene = two_hosts("mac", Offloads::NONE)?;
    let host = &scene.fabric.host(2).namespace;
    // The host tells its neighbours, as it does where addresses move.
    host.set_sysctl(&format!("net/ipv6/conf/{UPLINK}/ndisc_notify"), 1)?;
    let mac = "02:00:00:00:00:77";
    under_traffic(&scene, "new MAC, announced", |stream| {
        host.ip(&format!("link set {UPLINK} address {mac}"))?;
        stream.advance(STEP)?;
        eventually("the neighbour to be known by its new MAC", PATIENCE, || {
            let neighbour =
                scene.fabric.host(1).namespace.ip(&format!("neighbour show {}", host_address(2)))?;
            Ok(neighbour.contains(mac).then_some(()))
        })
    })
}

#[test]
fn a_next_hop_that_fails_is_the_kernels_until_it_is_back() -> Result<()> {
    require_rig!();
    let scene = two_hosts("fail", Offloads::NONE)?;
    let router = &scene.fabric.router;
    // The kernel checks a neighbour after half a second rather than 30; the present ones it shall forget.
    let host = &scene.fabric.host(1).namespace;
    let quick = format!("net/ipv6/neigh/{UPLINK}");
    host.set_sysctl(&format!("{quick}/base_reachable_time_ms"), 500)?;
    host.set_sysctl(&format!("{quick}/delay_first_probe_time"), 0)?;
    host.set_sysctl(&format!("{quick}/retrans_time_ms"), 100)?;
    // It gives up when new ones come as fast as it forgets.
    let flush = format!("neighbour flush dev {UPLINK}");
    eventually("the kernel to forget", PATIENCE, || Ok(host.ip(&flush).ok().map(drop)))?;
    under_traffic(&scene, "next hop gone and back", |stream| {
        router.ip("link set host2 down")?;
        // Once the kernel knows, the packets are its own to refuse.
        let errors = || host.ipv6_counter("Icmp6OutDestUnreachs");
        let before = errors()?;
        eventually("the VM to be told", PATIENCE, || Ok((errors()? > before).then_some(())))?;
        router.ip("link set host2 up")?;
        stream.advance(STEP)
    })
}

/// In which order a VM and the routes to it move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Routes,
    Vm,
}

fn moved_under_traffic(label: &str, first: First) -> Result<()> {
    let mut scene = two_hosts(label, Offloads::NONE)?;
    let from_world = Stream::start(&scene.fabric.world, &scene.guest(1).namespace, address(1), 7_000, RATE)?;
    let from_vm2 =
        Stream::start(&scene.guest(2).namespace, &scene.guest(1).namespace, address(1), 7_001, RATE)?;
    let advance = || from_world.advance(STEP).and_then(|()| from_vm2.advance(STEP));
    advance()?;
    // There is its document before it comes, as there is in a live migration.
    scene.fabric.host(2).put_endpoint(&endpoint(1))?;
    scene.fabric.host(2).wait_state(&name(1), "pending")?;
    if first == First::Routes {
        scene.fabric.route(address(1), 2)?;
    }
    let start = Instant::now();
    let target = Arc::clone(&scene.fabric.host(2).namespace);
    scene.guests[0].move_to(&target)?;
    if first == First::Vm {
        scene.fabric.route(address(1), 2)?;
    }
    scene.fabric.host(2).wait_state(&name(1), "up")?;
    let up = start.elapsed();
    advance()?;
    println!("{first:?} first: set up on the other host after {} ms", up.as_millis());
    scene.fabric.host(1).remove_endpoint(&name(1))?;
    scene.fabric.host(1).wait_status("vm1 gone", |status| status.endpoint(&name(1)).is_none())?;
    advance()?;
    // What it sends goes by the fast path of its new host, and where it was nothing of it is left.
    let before = scene.fabric.host(2).endpoint(&name(1))?;
    scene.echoes(&scene.guest(1).namespace, WORLD)?;
    let after = scene.fabric.host(2).endpoint(&name(1))?;
    ensure!(after.forwarded()? >= before.forwarded()? + u64::from(PINGS), "{before:?} -> {after:?}");
    ensure!(after.delivered()? > before.delivered()?, "{before:?} -> {after:?}");
    for (who, stream) in [("world", from_world), ("vm2", from_vm2)] {
        let account = stream.finish()?;
        let lost = account.sent - account.received;
        println!(
            "{first:?} first, {who} -> vm1: {account}; {lost} lost are {:.0} ms",
            lost as f64 * 1e3 / f64::from(RATE)
        );
        ensure!(account.duplicates == 0, "{account}");
        account.ends_whole(STEP / 2)?;
    }
    Ok(())
}

#[test]
fn a_vm_moves_before_its_routes() -> Result<()> {
    require_rig!();
    moved_under_traffic("move-vm", First::Vm)
}

#[test]
fn a_vm_moves_after_its_routes() -> Result<()> {
    require_rig!();
    moved_under_traffic("move-routes", First::Routes)
}
