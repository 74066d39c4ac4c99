//! What ends and begins again while VMs talk: BIRD, the daemon, a session. With graceful restart (RFC 4724) no datagram is
//! lost, because the kernel's routes stay at both ends and the fast path follows the kernel.

use anyhow::{Result, ensure};
use serde_json::Value;
use serval_tests::bgp::{nodes, share};
use serval_tests::cloud::address;
use serval_tests::fabric::{Fabric, UPLINK};
use serval_tests::host::bgp_event;
use serval_tests::require_rig;
use serval_tests::scene::Scene;
use serval_tests::stream::{Account, Stream};
use serval_tests::tap::Offloads;

/// Datagrams a second.
const RATE: u32 = 1_000;

/// Datagrams that must come through before and after.
const STEP: u64 = 500;

/// Two hosts of a mesh whose VMs reach each other.
fn pair(label: &str, configuration: &str) -> Result<Scene> {
    let mut fabric = Fabric::new(label, 2)?;
    share(&fabric, configuration, &nodes(&fabric, 2))?;
    fabric.start()?;
    let scene = Scene::populate(fabric, 2, Offloads::NONE)?;
    for (from, to) in [(1, 2), (2, 1)] {
        scene.fabric.host(from).wait_route(address(to))?;
        scene.settle(from, address(to))?;
        scene.fabric.host(from).wait_session(scene.fabric.host(to).node())?;
    }
    Ok(scene)
}

/// Datagrams both ways while something happens to host 1.
fn under_traffic(
    scene: &mut Scene,
    what: &str,
    change: impl FnOnce(&mut Scene) -> Result<()>,
) -> Result<Vec<Account>> {
    let streams = [scene.stream(1, 2, RATE)?, scene.stream(2, 1, RATE)?];
    let advance = || Stream::advance_all(&streams, STEP);
    advance()?;
    change(scene)?;
    advance()?;
    let accounts = Stream::finish_all(streams)?;
    println!("{what}: from VM 1 {}; to VM 1 {}", accounts[0], accounts[1]);
    Ok(accounts)
}

/// When the session of host 1 with host 2 was established.
fn since(scene: &Scene) -> Result<Value> {
    Ok(scene.fabric.host(1).bird()?["peers"][0]["since"].clone())
}

#[test]
fn a_bird_that_crashes_costs_no_datagram() -> Result<()> {
    require_rig!();
    let mut scene = pair("crash", "[bird]")?;
    let before = scene.fabric.host(1).bird_pid()?;
    let accounts = under_traffic(&mut scene, "kill -9 of BIRD", |scene| {
        let [here, there] = [scene.fabric.host(1), scene.fabric.host(2)];
        here.crash_bird()?;
        here.wait_bird("a new BIRD", |bird| bird["restarts"] == 1)?;
        let took = here.wait_session(there.node())?;
        println!("the session is back, and all is well, {} ms after the new BIRD", took.as_millis());
        there.wait_session(here.node()).map(drop)
    })?;
    ensure!(scene.fabric.host(1).bird_pid()? != before, "nothing was started");
    accounts.iter().try_for_each(Account::complete)
}

#[test]
fn a_daemon_that_ends_and_returns_costs_neither_datagram_nor_session() -> Result<()> {
    require_rig!();
    let mut scene = pair("daemon", "[bird]")?;
    let (pid, session) = (scene.fabric.host(1).bird_pid()?, since(&scene)?);
    let restarted = under_traffic(&mut scene, "restart of serval", |scene| {
        let host = scene.fabric.host_mut(1);
        let status = host.stop()?;
        ensure!(status.success(), "serval ended with {status}");
        host.start().map(drop)
    })?;
    let killed = under_traffic(&mut scene, "kill -9 of serval", |scene| {
        let host = scene.fabric.host_mut(1);
        host.kill()?;
        host.start().map(drop)
    })?;
    let host = scene.fabric.host(1);
    host.wait_session(scene.fabric.host(2).node())?;
    ensure!(host.bird_pid()? == pid && since(&scene)? == session, "BIRD or its session is another one");
    restarted.iter().chain(&killed).try_for_each(Account::complete)
}

#[test]
fn daemon_and_bird_that_die_together_cost_no_datagram() -> Result<()> {
    require_rig!();
    let mut scene =
        pair("both", "[bird]\nmesh.bfd = 'graceful'\nbfd = { interval = 100, multiplier = 10 }\n")?;
    // BFD notices it and must not take it for the end of the host.
    let accounts = under_traffic(&mut scene, "kill -9 of serval and BIRD", |scene| {
        let host = scene.fabric.host_mut(1);
        host.kill()?;
        host.crash_bird()?;
        host.start()?;
        let [here, there] = [scene.fabric.host(1), scene.fabric.host(2)];
        here.wait_session(there.node())?;
        there.wait_session(here.node()).map(drop)
    })?;
    accounts.iter().try_for_each(Account::complete)
}

#[test]
fn a_session_that_ends_without_need_is_back_by_itself() -> Result<()> {
    require_rig!();
    let mut scene = pair("flap", "[bird]")?;
    // The connection is reset. Routes stay until it is back; but BIRD sets the forwarding bit (RFC 4724 section 3) after a
    // restart of its own only, so both then forget what they knew, and are told again some milliseconds later. Where that
    // matters there are two reflectors, of which one always knows.
    let session = since(&scene)?;
    under_traffic(&mut scene, "connection reset", |scene| {
        scene
            .fabric
            .host(1)
            .namespace
            .run("ss --kill --tcp state established ( dport = 179 or sport = 179 )")?;
        since_again(scene, &session)
    })?;
    // An operator restarts it: that is a farewell (Cease), after which routes go at once.
    let session = since(&scene)?;
    under_traffic(&mut scene, "restart of the session", |scene| {
        scene.fabric.host(1).birdc("restart \"mesh_*\"")?;
        since_again(scene, &session)
    })?;
    // The cable is out for less than the hold time: nothing ends.
    let session = since(&scene)?;
    under_traffic(&mut scene, "cable out and in", |scene| {
        let router = &scene.fabric.router;
        router.ip("link set host1 down")?;
        bgp_event("no carrier", || {
            Ok(scene.fabric.host(1).namespace.ip(&format!("link show dev {UPLINK}"))?.contains("NO-CARRIER"))
        })?;
        router.ip("link set host1 up").map(drop)
    })?;
    ensure!(since(&scene)? == session, "the session ended");
    Ok(())
}

/// Waits until the session has been established anew, and both hosts know of the other's VM.
fn since_again(scene: &Scene, before: &Value) -> Result<()> {
    let [here, there] = [scene.fabric.host(1), scene.fabric.host(2)];
    let established = bgp_event("another session", || {
        let peer = &here.bird()?["peers"][0];
        Ok(peer["since"] != *before && peer["state"] == "established")
    });
    here.wait_route(address(2))?;
    there.wait_route(address(1))?;
    established.map(drop)
}
