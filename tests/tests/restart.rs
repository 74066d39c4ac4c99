//! The daemon may die, restart, stop, and its fast path be taken off, under traffic: every datagram is accounted for.

use anyhow::{Context, Result, ensure};
use serval_tests::cloud::{address, endpoint, name, running, subnet};
use serval_tests::guest::KernelGuest;
use serval_tests::host::{Host, wait};
use serval_tests::require_rig;
use serval_tests::stream::Stream;
use serval_tests::tap::Offloads;
use std::thread;
use std::time::Duration;

const RATE: u32 = 2_000;

/// Datagrams that must come through in each state.
const STEP: u64 = 500;

struct Scene {
    host: Host,
    guests: [KernelGuest; 2],
}

/// Two running guests; with [`Offloads::NONE`] XDP forwards what they send, with others TC does.
fn scene(offloads: Offloads) -> Result<Scene> {
    let host = Host::started("restart")?;
    host.put("subnet.yaml", subnet().document())?;
    let guests = [running(&host, 1, offloads)?, running(&host, 2, offloads)?];
    Ok(Scene { host, guests })
}

impl Scene {
    fn stream(&self) -> Result<Stream> {
        let [from, to] = &self.guests;
        let stream = Stream::start(&from.namespace, &to.namespace, address(2), 7_000, RATE)?;
        stream.advance(STEP)?;
        Ok(stream)
    }

    fn forwarded(&self) -> Result<u64> {
        let endpoint = self.host.endpoint(&name(1))?;
        Ok(endpoint.counter("forwarded_xdp")? + endpoint.counter("forwarded_tc")?)
    }
}

fn killed_and_restarted(offloads: Offloads, hook: &str) -> Result<()> {
    let mut scene = scene(offloads)?;
    let stream = scene.stream()?;
    let used = scene.host.endpoint(&name(1))?;
    ensure!(used.counter(hook)? >= STEP, "traffic does not go by {hook}: {used:?}");
    let (before, pins) = (scene.forwarded()?, scene.host.list_pins()?);
    let by_kernel = scene.host.namespace.kernel_forwarded()?;

    scene.host.kill()?;
    stream.advance(STEP)?;
    ensure!(scene.host.list_pins()? == pins, "the pins are not those of before");
    let ready = scene.host.start()?;
    println!("ready again after {} ms", ready.as_millis());
    stream.advance(STEP)?;

    let account = stream.finish()?;
    println!("kill -9 and restart, {hook}: {account}");
    account.complete()?;
    let forwarded = scene.forwarded()?;
    ensure!(
        forwarded - before >= 2 * STEP,
        "only {} more forwarded while it was dead and after",
        forwarded - before
    );
    ensure!(scene.host.namespace.kernel_forwarded()? == by_kernel, "the kernel had to step in");
    ensure!(scene.host.list_pins()? == pins, "the start did not adopt what it found");
    Ok(())
}

#[test]
fn kill_and_restart_lose_nothing_on_xdp() -> Result<()> {
    require_rig!();
    killed_and_restarted(Offloads::NONE, "forwarded_xdp")
}

#[test]
fn kill_and_restart_lose_nothing_on_tc() -> Result<()> {
    require_rig!();
    killed_and_restarted(Offloads::ALL, "forwarded_tc")
}

#[test]
fn normal_stop_leaves_forwarding_on() -> Result<()> {
    require_rig!();
    let mut scene = scene(Offloads::NONE)?;
    let stream = scene.stream()?;
    let (before, pins) = (scene.forwarded()?, scene.host.list_pins()?);
    let ended = scene.host.stop()?;
    ensure!(ended.success(), "{ended}");
    stream.advance(STEP)?;
    ensure!(scene.host.list_pins()? == pins, "the stop took pins away");
    scene.host.start()?;
    stream.advance(STEP)?;
    let account = stream.finish()?;
    println!("stop and start: {account}");
    account.complete()?;
    ensure!(scene.forwarded()? - before >= 2 * STEP, "not forwarded by the fast path while stopped");
    Ok(())
}

#[test]
fn detach_leaves_the_kernel_forwarding() -> Result<()> {
    require_rig!();
    let mut scene = scene(Offloads::NONE)?;
    let stream = scene.stream()?;
    let detached = scene.host.serval(&["detach"])?;
    ensure!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
    for number in [1, 2] {
        let endpoint = scene.host.endpoint(&name(number))?;
        ensure!((endpoint.xdp(), endpoint.tc()) == ("off", "off"), "{endpoint:?}");
    }
    let tap = scene.host.namespace.ip("-details link show dev tap1")?;
    ensure!(!tap.contains("xdp"), "XDP is still attached: {tap}");
    let by_kernel = scene.host.namespace.kernel_forwarded()?;
    stream.advance(STEP)?;
    // Some of those that arrived were forwarded before the first look, and waited in the guest.
    let more = scene.host.namespace.kernel_forwarded()? - by_kernel;
    ensure!(more >= STEP / 2, "somebody else forwards: the kernel did {more} of {STEP}");

    scene.host.stop()?;
    scene.host.start()?;
    scene.host.wait_status("the fast path back", |status| {
        status.endpoint(&name(1)).is_some_and(|endpoint| endpoint.xdp() == "native" && endpoint.tc() != "off")
    })?;
    let before = scene.forwarded()?;
    stream.advance(STEP)?;
    let account = stream.finish()?;
    println!("detach and start again: {account}");
    account.complete()?;
    ensure!(scene.forwarded()? > before, "the fast path forwards nothing after the restart");
    Ok(())
}

#[test]
fn detach_needs_no_daemon() -> Result<()> {
    require_rig!();
    let mut scene = scene(Offloads::ALL)?;
    let stream = scene.stream()?;
    scene.host.kill()?;
    let detached = scene.host.serval(&["detach"])?;
    ensure!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
    let tap = scene.host.namespace.ip("-details link show dev tap1")?;
    ensure!(!tap.contains("xdp"), "XDP is still attached: {tap}");
    stream.advance(STEP)?;
    let account = stream.finish()?;
    println!("detach without a daemon: {account}");
    account.complete()
}

#[test]
fn death_at_any_moment_is_repaired_by_the_next_start() -> Result<()> {
    require_rig!();
    let mut scene = scene(Offloads::NONE)?;
    let stream = scene.stream()?;
    scene.host.kill()?;
    for step in 0..10_u32 {
        scene.host.launch()?;
        // Moments of a start, and of a change right after it.
        thread::sleep(Duration::from_millis(u64::from(step * step * 5)));
        host_changes(&scene.host, step)?;
        scene.host.kill()?;
        stream.advance(STEP / 10)?;
    }
    host_changes(&scene.host, 0)?;
    scene.host.start()?;
    scene.host.wait_state(&name(1), "up")?;
    scene.host.wait_state(&name(2), "up")?;
    stream.advance(STEP)?;
    let account = stream.finish()?;
    println!("ten deaths: {account}");
    account.complete()?;
    let status = scene.host.status()?;
    ensure!(status.endpoint(&name(3)).is_none() && status.problems().is_empty(), "{status:?}");
    let routes = scene.host.namespace.ip("-6 route show")?;
    ensure!(!routes.contains(&address(3).to_string()), "a route of a removed endpoint is left: {routes}");
    Ok(())
}

/// Endpoint 3 comes with odd steps and goes with even ones.
fn host_changes(host: &Host, step: u32) -> Result<()> {
    if step % 2 == 1 {
        return host.put_endpoint(&endpoint(3));
    }
    let file = host.resources().join(format!("{}.yaml", name(3)));
    if file.exists() { host.remove_endpoint(&name(3)) } else { Ok(()) }
}

#[test]
fn second_daemon_is_refused() -> Result<()> {
    require_rig!();
    let scene = scene(Offloads::NONE)?;
    let second = scene.host.serval(&["run"])?;
    ensure!(second.status.code() == Some(1), "{second:?}");
    let said = String::from_utf8(second.stderr).context("no text")?;
    ensure!(said.lines().count() == 1 && said.contains("another serval"), "not one clear message: {said}");
    wait("the first to answer still", || Ok(scene.host.status()?.ready()))?;
    Ok(())
}
