//! A full mesh of hosts that share one set of Node resources.

use anyhow::{Result, ensure};
use serval_tests::bgp::{node, nodes, share};
use serval_tests::cloud::{address, name, running};
use serval_tests::fabric::{Fabric, host_address};
use serval_tests::host::session;
use serval_tests::require_rig;
use serval_tests::scene::Scene;
use serval_tests::tap::Offloads;

#[test]
fn vms_of_three_hosts_reach_each_other() -> Result<()> {
    require_rig!();
    let mut fabric = Fabric::new("mesh", 3)?;
    share(&fabric, "[bird]", &nodes(&fabric, 3))?;
    fabric.start()?;
    let scene = Scene::populate(fabric, 3, Offloads::ALL)?;
    let pairs = [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)];
    for (at, to) in pairs {
        scene.fabric.host(at).wait_route(address(to))?;
        let route = scene.fabric.host(at).learnt(address(to))?;
        ensure!(route.contains(&format!("via {}", host_address(to))), "{route}");
    }
    for (from, to) in pairs {
        scene.converse(from, to)?;
    }
    for host in scene.fabric.hosts() {
        // The other two VMs, and nothing else that anybody has.
        ensure!(host.all_learnt()?.len() == 2, "{:?}", host.all_learnt()?);
        let bird = &host.bird()?;
        ensure!(bird["state"] == "up" && bird.get("reason").is_none(), "{bird}");
        for other in scene.fabric.hosts().iter().filter(|other| other.node() != host.node()) {
            let session = session(bird, other.node());
            ensure!(
                session.is_some_and(|session| session["imported"] == 1 && session["exported"] == 1),
                "{bird:#}"
            );
        }
    }
    // What is gone is withdrawn.
    scene.fabric.host(2).remove_endpoint(&name(2))?;
    for number in [1, 3] {
        let took = scene.fabric.host(number).wait_no_route(address(2))?;
        println!("host {number} has forgotten VM 2 after {} ms", took.as_millis());
    }
    Ok(())
}

#[test]
fn a_host_that_appears_learns_and_is_learnt() -> Result<()> {
    require_rig!();
    let mut fabric = Fabric::new("appear", 3)?;
    share(&fabric, "[bird]", &nodes(&fabric, 2))?;
    for number in [1, 2] {
        fabric.host_mut(number).start()?;
    }
    let mut scene = Scene::populate(fabric, 2, Offloads::ALL)?;
    scene.fabric.host(1).wait_route(address(2))?;
    scene.fabric.host(2).wait_route(address(1))?;
    let stream = scene.stream(1, 2, 1_000)?;

    // Somebody installs it and writes its Node; the others do not know it before.
    let appeared = node(scene.fabric.host(3), 3, "", "");
    for host in scene.fabric.hosts() {
        host.put("node3.yaml", &appeared)?;
    }
    let begun = std::time::Instant::now();
    let start = scene.fabric.host_mut(3).start()?;
    scene.fabric.take_redirects(3)?;
    let guest = running(scene.fabric.host(3), 3, Offloads::ALL)?;
    scene.guests.push(guest);
    for (at, to) in [(1, 3), (2, 3), (3, 1), (3, 2)] {
        scene.fabric.host(at).wait_route(address(to))?;
        let took = begun.elapsed().as_millis();
        println!(
            "host {at} has learnt VM {to} after {took} ms, {} of them the daemon's start",
            start.as_millis()
        );
    }
    for (from, to) in [(1, 3), (3, 2)] {
        scene.converse(from, to)?;
    }
    // The others did not suffer from it.
    stream.finish()?.complete()
}

#[test]
fn hosts_without_any_ipv4_address_need_none() -> Result<()> {
    require_rig!();
    let mut fabric = Fabric::new("v6", 2)?;
    share(&fabric, "[bird]", &nodes(&fabric, 2))?;
    // One identifier is made from the node's name, the other is the operator's.
    fabric.host(2).configure("[bird]\nrouter_id = '192.0.2.2'")?;
    for host in fabric.hosts() {
        host.namespace.ip("-4 address flush dev lo")?;
        ensure!(host.namespace.ip("-4 address")?.is_empty(), "an IPv4 address is left");
    }
    fabric.start()?;
    let scene = Scene::populate(fabric, 2, Offloads::ALL)?;
    scene.fabric.host(1).wait_route(address(2))?;
    scene.fabric.host(2).wait_route(address(1))?;
    scene.converse(1, 2)?;
    scene.converse(2, 1)?;
    let id = |number| -> Result<String> {
        Ok(scene.fabric.host(number).bird()?["router_id"].as_str().unwrap_or_default().to_owned())
    };
    println!("identifiers {} and {}", id(1)?, id(2)?);
    ensure!(id(2)? == "192.0.2.2" && id(1)? != id(2)? && id(1)?.parse::<std::net::Ipv4Addr>().is_ok());
    Ok(())
}
