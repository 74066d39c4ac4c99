//! VMs and their host.

use super::rig::{Cloud, Who, Who::Vm};
use anyhow::{Context, Result, ensure};
use serval_tests::cloud::{address, endpoint, name, plugged, subnet};
use serval_tests::fabric::host_address;
use serval_tests::frame::mac_text;
use serval_tests::guest::dhclient;
use serval_tests::host::{Host, PATIENCE};
use serval_tests::require_rig;
use serval_tests::tap::Offloads;
use serval_tests::traffic::ping;
use serval_tests::wait::eventually;
use std::net::{Ipv6Addr, TcpListener};
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

/// How many of the first ports of one of the host's addresses answer a SYN of VM 1, in whatever way.
fn answering(cloud: &Cloud, to: Ipv6Addr) -> Result<usize> {
    let guest = cloud.guest(1);
    let script = format!(
        "from scapy.all import *\n\
         scan = Ether(src='{}', dst='{}')/IPv6(src='{}', dst='{to}')/TCP(sport=40000, dport=(1, {SCANNED}))\n\
         answered, _ = srp(scan, iface='eth0', timeout=2, verbose=False)\n\
         print(len(answered))\n",
        mac_text(guest.settings().mac),
        mac_text(guest.settings().gateway_mac),
        address(1)
    );
    let mut command = guest.namespace.command("timeout");
    let output = command.args(["-s", "KILL", "60", "/usr/bin/python3", "-c", &script]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    said.trim().parse().with_context(|| format!("Scapy: {said} {}", String::from_utf8_lossy(&output.stderr)))
}

/// Ports that are scanned.
const SCANNED: u16 = 200;

/// Attack case 39. What shows that the scan would find something is a host that is open.
#[test]
fn a_scan_of_the_host_finds_nothing() -> Result<()> {
    require_rig!();
    for (label, more, is_open) in
        [("scanclosed", "", false), ("scanopen", "[policy]\nendpoint_to_host = \"accept\"\n", true)]
    {
        let cloud = Cloud::new(label, 1, more, Offloads::NONE, &[OPEN])?;
        let host = &cloud.host().namespace;
        let _server = host.enter(|| Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, 22))?))?;
        let before = cloud.status(1)?.dropped_for("host_closed");
        for to in [host_address(1), cloud.guest(1).gateway()] {
            let answers = answering(&cloud, to)?;
            ensure!((answers > 0) == is_open, "{label}: {answers} ports of {to} answer");
        }
        let dropped = cloud.status(1)?.dropped_for("host_closed") - before;
        ensure!(
            is_open || dropped >= 2 * u64::from(SCANNED),
            "only {dropped} were dropped as they should be"
        );
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
fn the_host_is_judged_where_it_is_configured() -> Result<()> {
    require_rig!();
    let judged = "[policy]\nhost_to_endpoint = \"policy\"\n";
    let in_seven = (
        "seven",
        "all()",
        "types: [Ingress], ingress: [{ action: Allow, protocol: UDP, destination: { ports: [7] } }]",
    );
    let cloud = Cloud::new("hostjudged", 1, judged, Offloads::NONE, &[in_seven])?;
    let host = &cloud.host().namespace;
    let explain = |port: &str| -> Result<bool> {
        let (from, to) = (host_address(1).to_string(), name(1));
        let arguments = ["explain", "--from", &from, "--to", &to, "--protocol", "UDP", "--port", port];
        Ok(cloud.host().serval(&arguments)?.status.success())
    };
    for (port, passes) in [(7, true), (8, false)] {
        let server = super::rig::socket(cloud.namespace(Vm(1)), port)?;
        let client = super::rig::socket(host, 0)?;
        let before = cloud.status(1)?.dropped_for("policy");
        let arrived = eventually("a datagram of the host to arrive or be counted", PATIENCE, || {
            client.send_to(b"question", (address(1), port))?;
            if super::rig::receive(&server)?.is_some() {
                return Ok(Some(true));
            }
            Ok((cloud.status(1)?.dropped_for("policy") > before).then_some(false))
        })?;
        ensure!(arrived == passes, "port {port}");
        ensure!(explain(&port.to_string())? == passes, "port {port} is explained otherwise");
    }
    Ok(())
}

#[test]
fn a_closed_vm_boots_by_advertisement_and_dhcp() -> Result<()> {
    require_rig!();
    let mut host = Host::policed("boots")?;
    // What every VM needs comes from a host that is judged, too.
    host.configure("[policy]\nhost_to_endpoint = \"policy\"\n")?;
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
