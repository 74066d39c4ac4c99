//! `serval run` with BIRD: two hosts that share one set of Node resources learn each other's VMs, and their VMs reach each
//! other.

use anyhow::{Context, Result, ensure};
use serval_tests::cloud::{address, name, running, subnet};
use serval_tests::host::Host;
use serval_tests::tap::Offloads;
use serval_tests::traffic;
use serval_tests::wait::eventually;
use serval_tests::{process, require_rig};
use std::net::Ipv6Addr;
use std::process::Command;
use std::time::Duration;

const UPLINK: &str = "uplink0";

fn uplink_address(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, number)
}

/// A Node resource for each host.
fn nodes(hosts: &[&str]) -> String {
    let documents = hosts.iter().zip(1..).map(|(host, number)| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{ name: {host} }}\nspec:\n  bgp:\n    \
             ipv6Address: {}/64\n",
            uplink_address(number)
        )
    });
    documents.collect::<Vec<_>>().join("---\n")
}

/// Two hosts on one link, both with their daemon and BIRD.
fn connected() -> Result<[Host; 2]> {
    let mut hosts = [Host::new("bgp-a")?, Host::new("bgp-b")?];
    // From outside: a host has a /run of its own, without the names of namespaces.
    let mut link = Command::new("ip");
    link.args(["link", "add", UPLINK, "netns", hosts[0].namespace.name(), "type", "veth"]);
    link.args(["peer", "name", UPLINK, "netns", hosts[1].namespace.name()]);
    process::run(link)?;
    let names: Vec<String> = hosts.iter().map(|host| host.node().to_owned()).collect();
    let nodes = nodes(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for (host, number) in hosts.iter_mut().zip(1..) {
        host.namespace.ip(&format!("link set {UPLINK} up"))?;
        host.namespace.ip(&format!("address add {}/64 dev {UPLINK} nodad", uplink_address(number)))?;
        host.configure("[bird]\nas = 64512\n")?;
        host.put("nodes.yaml", &nodes)?;
        host.put("subnet.yaml", subnet().document())?;
        host.start()?;
    }
    Ok(hosts)
}

/// BGP takes its time: sessions are tried every few seconds.
fn wait(what: &str, mut probe: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let begun = std::time::Instant::now();
    eventually(what, Duration::from_secs(60), || Ok(probe()?.then_some(())))?;
    Ok(begun.elapsed())
}

fn bird(host: &Host) -> Result<serde_json::Value> {
    let said = host.serval(&["status", "--json"])?;
    let status: serde_json::Value = serde_json::from_slice(&said.stdout).context("status is JSON")?;
    Ok(status["bird"].clone())
}

#[test]
fn hosts_of_a_mesh_learn_each_others_vms() -> Result<()> {
    require_rig!();
    let hosts = connected()?;
    let guests = [running(&hosts[0], 1, Offloads::ALL)?, running(&hosts[1], 2, Offloads::ALL)?];
    for (host, other) in [(&hosts[0], 2), (&hosts[1], 1)] {
        let route = format!("-6 route show {}/128 proto bird", address(other));
        let took =
            wait("the other host's VM is known", || Ok(!host.namespace.ip(&route)?.trim().is_empty()))?;
        println!("{} knows {} after {} ms", host.node(), name(other), took.as_millis());
        let bird = bird(host)?;
        ensure!(bird["state"] == "up" && bird["peers"][0]["state"] == "established", "{bird}");
        ensure!(bird["peers"][0]["imported"] == 1 && bird["peers"][0]["exported"] == 1, "{bird}");
    }
    for (guest, other) in [(&guests[0], 2), (&guests[1], 1)] {
        let ping = traffic::ping(&guest.namespace, address(other), 5, Duration::from_millis(50))?;
        ensure!(ping.received == ping.sent, "{ping:?}");
    }
    // What is gone is withdrawn.
    hosts[1].remove_endpoint(&name(2))?;
    let route = format!("-6 route show {}/128", address(2));
    wait("the other host forgets it", || Ok(hosts[0].namespace.ip(&route)?.trim().is_empty()))?;
    Ok(())
}

#[test]
fn a_daemon_that_dies_leaves_bird_and_its_routes() -> Result<()> {
    require_rig!();
    let mut hosts = connected()?;
    let _guest = running(&hosts[1], 2, Offloads::ALL)?;
    let route = format!("-6 route show {}/128 proto bird", address(2));
    wait("the VM is known", || Ok(!hosts[0].namespace.ip(&route)?.trim().is_empty()))?;
    let before = bird(&hosts[0])?;
    hosts[0].kill()?;
    ensure!(!hosts[0].namespace.ip(&route)?.trim().is_empty(), "the route went with the daemon");
    hosts[0].start()?;
    wait("the new daemon has found BIRD", || Ok(bird(&hosts[0])?["state"] == "up"))?;
    let after = bird(&hosts[0])?;
    ensure!(after["since"] == before["since"], "BIRD was started again: {before} {after}");
    ensure!(
        after["peers"][0]["since"] == before["peers"][0]["since"],
        "the session was lost: {before} {after}"
    );
    Ok(())
}
