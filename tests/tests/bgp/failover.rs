//! A host dies: how long the others believe in its VMs, with BFD and without, and what its VMs' peers are told.

use anyhow::{Result, ensure};
use serval_tests::bgp::{nodes, share};
use serval_tests::cloud::{address, endpoint};
use serval_tests::fabric::{Fabric, ROUTER, host_address};
use serval_tests::guest::{KernelGuest, Settings};
use serval_tests::host::{Host, session};
use serval_tests::require_rig;
use serval_tests::scene::Scene;
use serval_tests::tap::Offloads;
use serval_tests::traffic::answer;
use serval_tests::wait::eventually;
use std::time::Duration;

/// An address that two hosts have: VM 7 on host 2, VM 8 on host 3.
const SHARED: u8 = 9;

/// A VM with [`SHARED`] as its address.
fn one_of_two(host: &Host, number: u8) -> Result<KernelGuest> {
    let mut endpoint = endpoint(number);
    endpoint.addresses = vec![address(SHARED)];
    host.put_endpoint(&endpoint)?;
    let settings = Settings::new(&endpoint.tap, endpoint.mac);
    let guest = KernelGuest::new(&host.namespace, settings)?;
    guest.configure(address(SHARED))?;
    host.wait_state(&endpoint.name, "up")?;
    Ok(guest)
}

/// Hosts 1 to 3, and the end of host 3.
fn a_host_dies(label: &str, configuration: &str) -> Result<()> {
    let mut fabric = Fabric::new(label, 3)?;
    share(&fabric, configuration, &nodes(&fabric, 3))?;
    fabric.start()?;
    let scene = Scene::populate(fabric, 3, Offloads::ALL)?;
    let _shared = [one_of_two(scene.fabric.host(2), 7)?, one_of_two(scene.fabric.host(3), 8)?];
    for at in [1, 2] {
        scene.fabric.host(at).wait_route(address(3))?;
    }
    let [second, third] = [2, 3].map(|number| format!("via {} ", host_address(number)));
    scene
        .fabric
        .host(1)
        .wait_learnt(address(SHARED), "by both", |route| route.contains(&second) && route.contains(&third))?;
    scene.converse(1, 3)?;

    scene.fabric.silence(3)?;
    let took = scene.fabric.host(1).wait_no_route(address(3))?;
    println!("{configuration:?}: host 1 forgets a dead host's VM after {} ms", took.as_millis());
    scene.fabric.host(2).wait_no_route(address(3))?;
    let bird = scene.fabric.host(1).bird()?;
    let dead = session(&bird, scene.fabric.host(3).node());
    ensure!(dead.is_some_and(|peer| peer["state"] != "established"), "{bird:#}");
    // Its VM is told to be unreachable by the first router, which has no other way than the default one.
    let [host, guest] = [&scene.fabric.host(1).namespace, &scene.guest(1).namespace];
    host.ip("-6 route del default")?;
    // The fast path follows the kernel's routes a moment later, so the first packet may still go to the dead.
    let told = eventually("an answer about a dead host's VM", Duration::from_secs(20), || {
        Ok(answer(guest, address(3), "").ok())
    })?;
    ensure!(told == (host_address(1), "Destination unreachable: No route".to_owned()), "{told:?}");
    // What another host has as well is reached there.
    scene.fabric.host(1).wait_learnt(address(SHARED), "by the living", |route| {
        route.contains(&second) && !route.contains(&third)
    })?;
    scene.echoes(guest, address(SHARED))?;
    scene.converse(1, 2)?;

    // The dead return with the same daemon, BIRD and VMs.
    scene.fabric.router.ip("link set host3 master br0")?;
    let took = scene.fabric.host(1).wait_route(address(3))?;
    println!("{configuration:?}: it is back {} ms after its cable", took.as_millis());
    scene.fabric.host(3).wait_route(address(1))?;
    host.ip(&format!("-6 route add default via {ROUTER}"))?;
    scene.converse(1, 3)
}

#[test]
fn a_host_that_dies_is_noticed_by_bfd() -> Result<()> {
    require_rig!();
    a_host_dies("dead-bfd", "[bird]\nmesh.bfd = true\nbfd = { interval = 100, multiplier = 10 }\n")
}

#[test]
fn a_host_that_dies_is_noticed_by_the_hold_timer() -> Result<()> {
    require_rig!();
    a_host_dies("dead-hold", "[bird]\nmesh.hold = 6\n")
}

#[test]
fn a_host_without_daemon_and_bird_is_believed_for_the_restart_time() -> Result<()> {
    require_rig!();
    let mut fabric = Fabric::new("dead-bird", 2)?;
    share(&fabric, "[bird]\ngraceful_restart.time = 4\n", &nodes(&fabric, 2))?;
    fabric.start()?;
    let mut scene = Scene::populate(fabric, 2, Offloads::NONE)?;
    scene.fabric.host(1).wait_route(address(2))?;
    scene.fabric.host(2).wait_route(address(1))?;
    scene.converse(1, 2)?;
    scene.fabric.host(1).wait_session(scene.fabric.host(2).node())?;
    // Whoever should start BIRD again is dead, too. What both have left in the kernel works on.
    let stream = scene.stream(1, 2, 500)?;
    scene.fabric.host_mut(2).kill()?;
    scene.fabric.host(2).crash_bird()?;
    stream.advance(1_000)?;
    stream.finish()?.complete()?;
    let took = scene.fabric.host(1).wait_no_route(address(2))?;
    println!("forgotten {} ms after two more seconds", took.as_millis());
    ensure!(!scene.fabric.host(2).learnt(address(1))?.is_empty(), "the dead host has lost its routes");
    // The next daemon finds nothing alive, and makes it whole again.
    scene.fabric.host_mut(2).start()?;
    scene.fabric.host(1).wait_route(address(2))?;
    scene.fabric.host(2).wait_session(scene.fabric.host(1).node())?;
    scene.converse(1, 2)
}
