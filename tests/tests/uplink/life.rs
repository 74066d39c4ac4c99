//! What happens to an uplink: programs of others, changes behind our back, going and coming back, restarts.

use crate::rig::{HOST, NEXT_HOP_MAC, Scene, UPLINK, UPLINK_MAC, connect, delivered, inbound, lead_far};
use anyhow::{Context, Result, ensure};
use serval_tests::cloud::{address, name, running};
use serval_tests::fabric::Fabric;
use serval_tests::foreign;
use serval_tests::frame::{Ipv6, Mac, Payload, icmpv6_type, mac_text};
use serval_tests::host::PATIENCE;
use serval_tests::netns::Namespace;
use serval_tests::require_rig;
use serval_tests::stream::Stream;
use serval_tests::tap::Offloads;
use serval_tests::traffic::ping;
use serval_tests::wait::eventually;
use std::time::Duration;

/// Audits come every 30 s.
const AUDIT: Duration = Duration::from_secs(90);

/// Datagrams a second, and how many must come through in each state.
const RATE: u32 = 2_000;
const STEP: u64 = 500;

fn xdp_program(host: &Namespace) -> Result<Option<u64>> {
    let link = host.ip_json(&format!("-details link show dev {UPLINK}"))?;
    Ok(link[0]["xdp"]["prog"]["id"].as_u64())
}

#[test]
fn a_foreign_xdp_program_stays_until_its_owner_takes_it_off() -> Result<()> {
    require_rig!();
    let attach = |host: &Namespace| foreign::attach_xdp(host, UPLINK);
    let scene = Scene::prepared("foreign-xdp", "[fastpath]\nuplink = \"xdp\"\n", attach)?;
    let host = &scene.host.namespace;
    let theirs = xdp_program(host)?.context("the foreign program is not there")?;
    // TC does its work.
    scene.wait_hooks(UPLINK, ("off", "tcx"))?;
    let status = scene.host.status()?;
    let uplink = status.uplink(UPLINK).context("no uplink")?;
    println!("{}", uplink.reason());
    ensure!(uplink.reason().contains(&format!("program {theirs}")), "it does not say whose: {uplink:?}");
    let counted = scene.exchange()?;
    ensure!(counted.is_fast() && counted.delivered_tc == 1, "{counted:?}");
    ensure!(xdp_program(host)? == Some(theirs), "the foreign program was displaced");

    host.ip(&format!("link set dev {UPLINK} xdp off"))?;
    let native = || Ok(scene.host.status()?.uplink(UPLINK).filter(|uplink| uplink.hooks().0 == "native"));
    let uplink = eventually("XDP once it is possible", AUDIT, native)?;
    ensure!(uplink.hooks() == ("native", "off") && uplink.reason().is_empty(), "{uplink:?}");
    let counted = scene.exchange()?;
    ensure!(counted.is_fast() && counted.delivered_xdp == 1, "{counted:?}");
    ensure!(scene.host.status()?.drift() == 0, "that was nobody's fault");
    Ok(())
}

fn beside_a_foreign_filter(setting: &str) -> Result<()> {
    let scene = Scene::prepared(
        &format!("foreign-{setting}"),
        &format!("[fastpath]\ntc = \"{setting}\"\n"),
        |host| foreign::attach_filter(host, UPLINK),
    )?;
    let host = &scene.host.namespace;
    scene.wait_hooks(UPLINK, ("off", setting))?;
    // It drops what is the host's; what is a VM's does not come to it.
    let ping = Ipv6 { destination: HOST, ..inbound() }.carrying(Payload::echo_request(7, 1, b"host"));
    let replies =
        |frames: Vec<Vec<u8>>| frames.iter().filter(|frame| icmpv6_type(frame) == Some(129)).count();
    scene.wire.send(&ping.bytes)?;
    let counted = scene.exchange()?;
    ensure!(counted.is_fast() && counted.delivered_tc == 1, "{counted:?}");
    ensure!(replies(scene.wire.drain(HOST)?) == 0, "the foreign filter did not see the packet");

    let detached = scene.host.serval(&["detach"])?;
    ensure!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
    let filters = host.run(&format!("tc filter show dev {UPLINK} ingress"))?;
    ensure!(filters.contains("pref 5") && !filters.contains("serval"), "{filters}");
    host.run(&format!("tc filter del dev {UPLINK} ingress"))?;
    scene.wire.send(&ping.bytes)?;
    scene.wire.receive("an echo reply", |frame| icmpv6_type(frame) == Some(129)).map(drop)
}

#[test]
fn a_foreign_filter_stays_beside_tcx() -> Result<()> {
    require_rig!();
    beside_a_foreign_filter("tcx")
}

#[test]
fn a_foreign_filter_stays_beside_clsact() -> Result<()> {
    require_rig!();
    beside_a_foreign_filter("clsact")
}

/// `ifindex` as bpftool takes a key.
fn key(ifindex: u32) -> String {
    ifindex.to_ne_bytes().map(|byte| byte.to_string()).join(" ")
}

#[test]
fn what_others_take_away_is_put_back_and_counted() -> Result<()> {
    require_rig!();
    let scene = Scene::new("drift", "[fastpath]\nuplink = \"both\"\n")?;
    let host = &scene.host.namespace;
    scene.wait_hooks(UPLINK, ("native", "tcx"))?;
    let ifindex = host.ifindex(UPLINK)?.context("no uplink")?;
    let links = scene.host.links(ifindex)?;
    ensure!(links.len() == 2, "{links:?}");
    let pins = scene.host.list_pins()?;
    let map = |name: &str| {
        let pin = pins.iter().find(|pin| pin.ends_with(format!("maps/{name}")));
        pin.map(|pin| pin.display().to_string()).with_context(|| format!("no map {name}"))
    };
    for link in &links {
        host.run(&format!("bpftool link detach id {link}"))?;
    }
    for name in ["UPLINKS", "DEVICES"] {
        host.run(&format!("bpftool map delete pinned {} key {}", map(name)?, key(ifindex)))?;
    }
    let before = scene.host.status()?.drift();
    // Without programs the kernel delivers.
    let frame = inbound().carrying(Payload::udp(1, 2, b"meanwhile"));
    let counted = scene.counting(|| {
        scene.wire.send(&frame.bytes)?;
        scene.arrives(&delivered(&frame))
    })?;
    ensure!(counted.by_kernel == 1 || scene.host.status()?.drift() > before, "{counted:?}");

    let drift = eventually("an audit", AUDIT, || {
        let drift = scene.host.status()?.drift() - before;
        Ok((drift > 0).then_some(drift))
    })?;
    ensure!(drift == 4, "two links and two entries were taken away, {drift} counted");
    let counted = scene.exchange()?;
    ensure!(counted.is_fast() && counted.delivered_xdp == 1 && counted.forwarded_xdp == 1, "{counted:?}");
    scene.wait_hooks(UPLINK, ("native", "tcx"))
}

#[test]
fn an_uplink_that_is_replaced_is_one_again() -> Result<()> {
    require_rig!();
    let mut scene = Scene::new("replaced", "")?;
    let host = scene.host.namespace.clone();
    scene.wait_hooks(UPLINK, ("off", "tcx"))?;
    host.ip(&format!("link delete {UPLINK}"))?;
    scene.host.wait_status("no uplink", |status| status.uplink(UPLINK).is_none())?;
    let left = scene.host.inventory()?;
    for (map, entries) in &left.map_entries {
        ensure!(
            !map.ends_with("UPLINKS") || *entries == 0,
            "{entries} entries are left in {}",
            map.display()
        );
    }

    let mac: Mac = [2, 0, 0, 0, 0, 9];
    scene.wire = connect(&host, UPLINK, mac, NEXT_HOP_MAC)?;
    host.ip(&format!("address add {HOST}/64 dev {UPLINK} nodad"))?;
    lead_far(&host, UPLINK)?;
    scene.wait_hooks(UPLINK, ("off", "tcx"))?;
    scene.wait_route(crate::rig::FAR_PREFIX, (1, 1))?;
    let counted = scene.exchange_with(mac)?;
    ensure!(counted.is_fast(), "{counted:?}");
    Ok(())
}

#[test]
fn an_uplink_that_changes_its_mac_or_its_name_goes_on() -> Result<()> {
    require_rig!();
    let scene = Scene::new("renamed", "")?;
    let host = &scene.host.namespace;
    scene.wait_hooks(UPLINK, ("off", "tcx"))?;
    let ifindex = host.ifindex(UPLINK)?.context("no uplink")?;
    let links = scene.host.links(ifindex)?;
    let mac: Mac = [2, 0, 0, 0, 0, 7];
    host.ip(&format!("link set {UPLINK} address {}", mac_text(mac)))?;
    // The kernel forgets all neighbours of an interface whose MAC changes.
    lead_far(host, UPLINK)?;
    eventually("the new MAC", Duration::from_secs(20), || {
        Ok(scene.exchange_with(mac).is_ok_and(|counted| counted.is_fast()).then_some(()))
    })?;
    // What is sent to the old one is not ours any more.
    let counted = scene.counting(|| {
        scene.wire.send(&inbound().carrying(Payload::udp(1, 2, b"old")).bytes)?;
        let last = Ipv6 { destination_mac: mac, ..inbound() }.carrying(Payload::udp(1, 2, b"last"));
        scene.wire.send(&last.bytes)?;
        scene.arrives(&delivered(&last))
    })?;
    ensure!((counted.delivered_tc, counted.by_kernel) == (1, 0), "{counted:?}");
    ensure!(scene.host.links(ifindex)? == links, "the programs were attached anew");

    // Its routes go with it for the moment that this takes.
    host.ip(&format!("link set {UPLINK} down"))?;
    host.ip(&format!("link set {UPLINK} name wan0"))?;
    host.ip("link set wan0 up")?;
    host.ip(&format!("address replace {HOST}/64 dev wan0 nodad"))?;
    lead_far(host, "wan0")?;
    scene.wait_hooks("wan0", ("off", "tcx"))?;
    scene.wait_route(crate::rig::FAR_PREFIX, (1, 1))?;
    ensure!(scene.host.status()?.uplink(UPLINK).is_none(), "it is still there by its old name");
    let counted = scene.exchange_with(mac)?;
    ensure!(counted.is_fast(), "{counted:?}");
    Ok(())
}

#[test]
fn a_route_that_comes_and_goes_leaves_the_programs_alone() -> Result<()> {
    require_rig!();
    let scene = Scene::new("flap", "")?;
    let host = &scene.host.namespace;
    scene.wait_hooks(UPLINK, ("off", "tcx"))?;
    let ifindex = host.ifindex(UPLINK)?.context("no uplink")?;
    let links = scene.host.links(ifindex)?;
    for _ in 0..3 {
        host.ip(&format!("route del {}", crate::rig::FAR_PREFIX))?;
        scene.host.wait_status("no route mirrored", |status| status.mirrored() == 0)?;
        // It has heard of that, as it has answered since.
        ensure!(scene.host.status()?.uplink(UPLINK).is_some(), "no uplink any more");
        lead_far(host, UPLINK)?;
        scene.host.wait_status("the route mirrored", |status| status.mirrored() == 1)?;
    }
    ensure!(scene.host.links(ifindex)? == links, "the programs were attached anew");
    let counted = scene.exchange()?;
    ensure!(counted.is_fast() && counted.delivered_tc == 1, "{counted:?}");
    Ok(())
}

fn killed_and_restarted(setting: &str, uplink: UplinkCounter) -> Result<()> {
    let mut fabric = Fabric::new(&format!("restart-{setting}"), 2)?;
    let mut guests = Vec::new();
    for number in [1, 2] {
        fabric.take_redirects(number)?;
        fabric.host(number).configure(&format!("[fastpath]\nuplink = \"{setting}\"\n"))?;
        fabric.host_mut(number).start()?;
        guests.push(running(fabric.host(number), number, Offloads::NONE)?);
        fabric.route(address(number), number)?;
    }
    let (vm1, vm2) = (&guests[0].namespace, &guests[1].namespace);
    let counted = |fabric: &Fabric| -> Result<(u64, u64)> {
        let endpoint = fabric.host(1).endpoint(&name(1))?;
        Ok((endpoint.forwarded()?, endpoint.counter(uplink)?))
    };
    // Nobody has asked for the next hops yet, and few datagrams wait for the answer.
    for (from, to) in [(vm1, 2), (vm2, 1), (&fabric.world, 1)] {
        eventually("a way for the streams", PATIENCE, || {
            Ok((ping(from, address(to), 1, Duration::from_secs(1))?.received == 1).then_some(()))
        })?;
    }
    let streams = [
        Stream::start(vm1, vm2, address(2), 7_000, RATE)?,
        Stream::start(vm2, vm1, address(1), 7_001, RATE)?,
        Stream::start(&fabric.world, vm1, address(1), 7_002, RATE)?,
    ];
    let advance = || streams.iter().try_for_each(|stream| stream.advance(STEP));
    eventually("the fast path both ways", Duration::from_secs(20), || {
        let before = counted(&fabric)?;
        advance()?;
        let after = counted(&fabric)?;
        Ok((after.0 - before.0 >= STEP / 2 && after.1 - before.1 >= STEP).then_some(()))
    })?;
    let (before, pins) = (counted(&fabric)?, fabric.host(1).list_pins()?);
    fabric.host_mut(1).kill()?;
    advance()?;
    ensure!(fabric.host(1).list_pins()? == pins, "pins went with the daemon");
    let ready = fabric.host_mut(1).start()?;
    advance()?;
    let after = counted(&fabric)?;
    ensure!(fabric.host(1).list_pins()? == pins, "the start did not adopt what it found");
    println!("{setting}: ready again after {} ms; {before:?} -> {after:?}", ready.as_millis());
    for (stream, what) in streams.into_iter().zip(["vm1 -> vm2", "vm2 -> vm1", "world -> vm1"]) {
        let account = stream.finish()?;
        println!("{setting}, {what}: {account}");
        account.complete()?;
    }
    ensure!(after.0 - before.0 >= 2 * STEP && after.1 - before.1 >= 4 * STEP, "not by the fast path");
    Ok(())
}

/// The counter of what an uplink's program delivers.
type UplinkCounter = &'static str;

#[test]
fn kill_and_restart_lose_nothing_with_tc_on_the_uplink() -> Result<()> {
    require_rig!();
    killed_and_restarted("tc", "delivered_tc")
}

#[test]
fn kill_and_restart_lose_nothing_with_xdp_on_the_uplink() -> Result<()> {
    require_rig!();
    killed_and_restarted("xdp", "delivered_xdp")
}

#[test]
fn what_an_uplink_was_called_is_free_again() -> Result<()> {
    require_rig!();
    let scene = Scene::new("configured", &format!("uplinks = [\"{UPLINK}\"]\n"))?;
    let host = &scene.host.namespace;
    scene.wait_hooks(UPLINK, ("off", "tcx"))?;
    // Only what has the name that is configured is one.
    host.ip(&format!("link set {UPLINK} down"))?;
    host.ip(&format!("link set {UPLINK} name wan0"))?;
    host.ip("link set wan0 up")?;
    scene.host.wait_status("no uplink", |status| {
        status.uplink("wan0").is_none() && status.uplink(UPLINK).is_none()
    })?;
    host.ip(&format!("address replace {HOST}/64 dev wan0 nodad"))?;
    lead_far(host, "wan0")?;
    eventually("the route to be the kernel's", Duration::from_secs(10), || {
        let route = scene.host.route(crate::rig::FAR_PREFIX)?;
        Ok(route.filter(|route| !route.is_fast() && !route.reason().is_empty()).map(drop))
    })?;
    let counted = scene.exchange_with(UPLINK_MAC)?;
    ensure!(counted.by_kernel == 2 && counted.passed == 1, "{counted:?}");
    Ok(())
}
