//! VMs and their host.

use super::rig::{Cloud, Who, Who::Vm};
use anyhow::{Context, Result, ensure};
use serval_tests::cloud::{address, endpoint, name, plugged, subnet};
use serval_tests::fabric::host_address;
use serval_tests::guest::dhclient;
use serval_tests::host::{Host, PATIENCE};
use serval_tests::require_rig;
use serval_tests::tap::Offloads;
use serval_tests::traffic::ping;
use serval_tests::wait::eventually;
use std::net::Ipv6Addr;
use std::time::Duration;

const OPEN: (&str, &str, &str) = ("out", "all()", "types: [Egress], egress: [{ action: Allow }]");

fn sends(cloud: &Cloud, to: Ipv6Addr, port: u16) -> Result<()> {
    let client = super::rig::socket(cloud.namespace(Vm(1)), 0)?;
    client.send_to(b"question", (to, port)).context("cannot send").map(drop)
}

/// Whether a datagram from VM 1 to one of the host's addresses arrives there.
fn reaches_host(cloud: &Cloud, to: Ipv6Addr, port: u16) -> Result<bool> {
    let server = super::rig::socket(&cloud.host().namespace, port)?;
    let before = cloud.status(1)?.dropped_for("host_closed");
    eventually("a datagram to the host to arrive or be counted", PATIENCE, || {
        sends(cloud, to, port)?;
        if super::rig::receive(&server)?.is_some() {
            return Ok(Some(true));
        }
        Ok((cloud.status(1)?.dropped_for("host_closed") > before).then_some(false))
    })
}

#[test]
fn the_host_is_closed_but_for_what_every_vm_needs() -> Result<()> {
    require_rig!();
    for offloads in [Offloads::NONE, Offloads::ALL] {
        let cloud = Cloud::new("hostclosed", 1, "", offloads, &[OPEN])?;
        let gateway = cloud.guest(1).gateway();
        ensure!(!reaches_host(&cloud, host_address(1), 7)?, "the host's own address is open");
        ensure!(reaches_host(&cloud, host_address(1), 53)?, "DNS is closed");
        // The host itself may talk to its VMs, and gets answers.
        let echoes = ping(&cloud.host().namespace, address(1), 5, Duration::from_millis(20))?;
        ensure!(echoes.received == 5, "{echoes:?}");
        // The router answers neighbour discovery, and not echoes.
        let refused = ping(cloud.namespace(Vm(1)), host_address(1), 2, Duration::from_millis(20))?;
        ensure!(refused.received == 0, "{refused:?}");
        let neighbour = cloud.namespace(Vm(1)).ip(&format!("neighbour show {gateway}"))?;
        ensure!(neighbour.contains("lladdr"), "the gateway is unknown: {neighbour}");
        cloud.passes(Vm(1), Who::World, 7)?;
    }
    Ok(())
}

#[test]
fn the_host_is_open_as_far_as_policy_allows_where_it_is_configured() -> Result<()> {
    require_rig!();
    let to_seven = (
        "seven",
        "all()",
        "types: [Egress], egress: [{ action: Allow, protocol: UDP, destination: { ports: [7] } }]",
    );
    let cloud =
        Cloud::new("hostopen", 1, "[policy]\nendpoint_to_host = \"accept\"\n", Offloads::NONE, &[to_seven])?;
    ensure!(reaches_host(&cloud, host_address(1), 7)?, "what policy allows does not pass");
    let before = cloud.status(1)?.dropped_for("policy");
    eventually("a datagram that policy forbids to be counted", PATIENCE, || {
        sends(&cloud, host_address(1), 8)?;
        Ok((cloud.status(1)?.dropped_for("policy") > before).then_some(()))
    })
}

#[test]
fn a_closed_vm_boots_by_advertisement_and_dhcp() -> Result<()> {
    require_rig!();
    let mut host = Host::policed("boots")?;
    host.start()?;
    host.put("subnet.yaml", subnet().document())?;
    host.put_endpoint(&endpoint(1))?;
    let guest = plugged(&host, 1)?;
    guest.boot()?;
    let _client = dhclient(&guest)?;
    guest.wait_default_route(PATIENCE)?;
    guest.wait_address(address(1), Duration::from_secs(30))?;
    let status = host.endpoint(&name(1))?;
    ensure!(status.policies().is_empty() && status.counter("dhcp6_replies")? > 0, "{status:?}");
    Ok(())
}
