//! Guests boot into working IPv6: the kernel's own router discovery, dhclient, dhcpcd, and a real VM as clients.

use anyhow::{Context, Result, ensure};
use serval_tests::cloud::{DNS_SERVER, address, endpoint, mac, name, plugged, running, subnet, tap};
use serval_tests::guest::{self, KernelGuest};
use serval_tests::host::Host;
use serval_tests::process::Running;
use serval_tests::program::object;
use serval_tests::qemu::{Vm, older};
use serval_tests::tap::Offloads;
use serval_tests::{require_rig, traffic};
use std::time::{Duration, Instant};

/// How long a client may take; a second for its own delays is usual.
const CLIENT: Duration = Duration::from_secs(30);

/// A host with a Subnet, a running guest 1 to talk to, and the document of endpoint 2.
fn host() -> Result<(Host, KernelGuest)> {
    let host = Host::started("boot")?;
    host.put("subnet.yaml", subnet().document())?;
    let peer = running(&host, 1, Offloads::ALL)?;
    host.put_endpoint(&endpoint(2))?;
    Ok((host, peer))
}

fn reaches_peer(guest: &KernelGuest) -> Result<()> {
    let ping = traffic::ping(&guest.namespace, address(1), 3, Duration::from_millis(20))?;
    ensure!(ping.received == 3, "{ping:?}");
    Ok(())
}

/// Boots guest 2 with a client and checks route, address, reach and counters.
fn boots_with(client: impl Fn(&KernelGuest) -> Result<Running>) -> Result<()> {
    let (host, _peer) = host()?;
    let guest = plugged(&host, 2)?;
    let start = Instant::now();
    guest.boot()?;
    let client = client(&guest)?;
    let explain = || client.log().join("\n");
    guest.wait_default_route(CLIENT).with_context(explain)?;
    println!("default route after {} ms", start.elapsed().as_millis());
    guest.wait_address(address(2), CLIENT).with_context(explain)?;
    println!("address after {} ms", start.elapsed().as_millis());
    ensure!(guest.addresses()? == [address(2)], "only the leased address: {:?}", guest.addresses());
    reaches_peer(&guest)?;

    let status = host.endpoint(&name(2))?;
    for counter in ["answered_rs", "dhcp6_replies"] {
        ensure!(status.counter(counter)? > 0, "{counter} is 0: {status:?}");
    }
    ensure!(status.dropped() == 0, "frames of an honest guest were dropped: {status:?}");
    Ok(())
}

#[test]
fn dhclient_gets_its_address() -> Result<()> {
    require_rig!();
    boots_with(guest::dhclient)
}

#[test]
fn dhcpcd_gets_route_and_address() -> Result<()> {
    require_rig!();
    boots_with(guest::dhcpcd)
}

#[test]
fn dhclient_takes_the_options() -> Result<()> {
    require_rig!();
    let (host, _peer) = host()?;
    let guest = plugged(&host, 2)?;
    guest.boot()?;
    let client = guest::dhclient(&guest)?;
    guest.wait_address(address(2), CLIENT).with_context(|| client.log().join("\n"))?;
    // The script writes it before it adds the address.
    let resolver = guest.namespace.run("cat /etc/resolv.conf")?;
    ensure!(resolver.contains(&format!("nameserver {DNS_SERVER}")), "{resolver}");
    ensure!(resolver.contains("openstack.example"), "{resolver}");
    Ok(())
}

#[test]
fn kernel_takes_the_route_and_makes_no_address() -> Result<()> {
    require_rig!();
    let (host, _peer) = host()?;
    let guest = plugged(&host, 2)?;
    let start = Instant::now();
    guest.boot()?;
    let route = guest.wait_default_route(CLIENT)?;
    println!("default route after {} ms", start.elapsed().as_millis());
    ensure!(route["protocol"] == "ra", "{route}");
    let expires = route["expires"].as_u64().with_context(|| format!("no lifetime: {route}"))?;
    ensure!((1..=9000).contains(&expires), "{route}");
    ensure!(guest.addresses()?.is_empty(), "SLAAC made an address: {:?}", guest.addresses());
    let on_link = guest.namespace.ip("-6 route show proto kernel")?;
    ensure!(!on_link.contains("2001:"), "a prefix is on-link: {on_link}");
    ensure!(guest.namespace.sysctl("net/ipv6/conf/eth0/hop_limit")? == "64");

    host.wait_status("seconds left of the route", |status| {
        status.endpoint(&name(2)).is_some_and(|endpoint| {
            endpoint.0["router_expires_in"].as_u64().is_some_and(|left| (1..=9000).contains(&left))
        })
    })?;
    Ok(())
}

#[test]
fn advertisement_is_as_an_independent_reader_sees_it() -> Result<()> {
    require_rig!();
    let (host, _peer) = host()?;
    let guest = plugged(&host, 2)?;
    guest.boot()?;
    guest.wait_default_route(CLIENT)?;
    guest.wait_link_local()?;
    let seen = guest.namespace.run("rdisc6 -1 eth0")?;
    let line = |start: &str| -> Result<&str> {
        seen.lines()
            .map(str::trim)
            .find(|line| line.starts_with(start))
            .with_context(|| format!("no {start}: {seen}"))
    };
    for (field, value) in [
        ("Hop limit", "64"),
        ("Stateful address conf.", "Yes"),
        ("Stateful other conf.", "Yes"),
        ("Router preference", "medium"),
        ("Router lifetime", "9000"),
        ("MTU", "1500"),
        ("Recursive DNS server", DNS_SERVER),
        ("DNS search list", "openstack.example"),
        ("Source link-layer address", "00:61:FE:ED:CA:FE"),
    ] {
        ensure!(line(field)?.contains(value), "{field} is not {value}: {seen}");
    }
    ensure!(!seen.contains("Prefix "), "a prefix is announced: {seen}");
    Ok(())
}

#[test]
fn gateway_answers_neighbour_solicitations_in_bpf() -> Result<()> {
    require_rig!();
    let (host, _peer) = host()?;
    let guest = plugged(&host, 2)?;
    guest.configure(address(2))?;
    guest.wait_link_local()?;
    host.wait_state(&name(2), "up")?;
    // An unsolicited advertisement has already told it the gateway's MAC.
    guest.namespace.ip("-6 neighbour flush dev eth0")?;
    reaches_peer(&guest)?;
    let neighbours = guest.namespace.ip("-6 neighbour show dev eth0")?;
    ensure!(neighbours.contains("00:61:fe:ed:ca:fe router"), "the gateway is no router: {neighbours}");
    let answered = host.endpoint(&name(2))?.counter("answered_ns")?;
    ensure!(answered > 0, "the kernel answered instead");
    let seen =
        guest.namespace.run(&format!("ndisc6 -1 -r 1 -s {} {} eth0", guest.link_local(), guest.gateway()))?;
    ensure!(seen.contains("00:61:FE:ED:CA:FE"), "{seen}");
    ensure!(host.endpoint(&name(2))?.counter("answered_ns")? > answered);
    Ok(())
}

#[test]
fn guest_that_believes_in_a_prefix_reaches_its_neighbours() -> Result<()> {
    require_rig!();
    let (host, peer) = host()?;
    let guest = plugged(&host, 2)?;
    guest.boot()?;
    // As old versions of dhclient do; with duplicate address detection, which nobody may answer.
    guest.namespace.ip(&format!("address add {}/64 dev eth0", address(2)))?;
    guest.wait_address(address(2), CLIENT)?;
    host.wait_state(&name(2), "up")?;
    reaches_peer(&guest)?;
    let neighbours = guest.namespace.ip("-6 neighbour show dev eth0")?;
    ensure!(neighbours.contains(&address(1).to_string()), "the peer was not solicited: {neighbours}");
    let back = traffic::ping(&peer.namespace, address(2), 3, Duration::from_millis(20))?;
    ensure!(back.received == 3, "{back:?}");
    Ok(())
}

#[test]
fn second_gateway_address_is_a_router_too() -> Result<()> {
    require_rig!();
    let (host, _peer) = host()?;
    let gateway = address(0xfe);
    let document = endpoint(2).document(host.node());
    host.put("vm2.yaml", format!("{document}  ipv6Gateway: \"{gateway}\"\n"))?;
    let guest = plugged(&host, 2)?;
    guest.namespace.set_sysctl("net/ipv6/conf/eth0/accept_ra", 0)?;
    guest.boot()?;
    guest.namespace.add_address("eth0", address(2))?;
    guest.namespace.ip(&format!("route add {gateway}/128 dev eth0"))?;
    guest.namespace.ip(&format!("route add default via {gateway} dev eth0"))?;
    host.wait_state(&name(2), "up")?;
    reaches_peer(&guest)?;
    ensure!(host.endpoint(&name(2))?.counter("answered_ns")? > 0, "the kernel answered instead");
    Ok(())
}

#[test]
fn endpoint_without_address_or_subnet_still_gets_its_router() -> Result<()> {
    require_rig!();
    let host = Host::started("bare")?;
    let mut bare = endpoint(2);
    bare.addresses.clear();
    host.put_endpoint(&bare)?;
    let guest = plugged(&host, 2)?;
    guest.boot()?;
    guest.wait_default_route(CLIENT)?;
    guest.wait_link_local()?;
    let seen = guest.namespace.run("rdisc6 -1 eth0")?;
    let managed = seen.lines().find(|line| line.contains("Stateful address conf.")).context("no M flag")?;
    ensure!(managed.contains("No"), "there is nothing to lease: {seen}");
    Ok(())
}

#[test]
fn real_vm_gets_route_and_address() -> Result<()> {
    require_rig!();
    let (host, peer) = host()?;
    let start = Instant::now();
    let mut vm = Vm::boot(&host.namespace, &tap(2), mac(2))?;
    println!("user space after {:.1} s", start.elapsed().as_secs_f64());
    let limit = Duration::from_secs(90);
    vm.run_until("ip -6 route show default | grep -q via", limit)?;
    vm.wait_address(address(2), limit)?;
    println!("route and address after {:.1} s", start.elapsed().as_secs_f64());
    vm.run_until(&format!("ping6 -c 3 -W 2 {}", address(1)), limit)?;
    let back = traffic::ping(&peer.namespace, address(2), 3, Duration::from_millis(50))?;
    ensure!(back.received == 3, "{back:?}");
    let status = host.endpoint(&name(2))?;
    println!("{}", status.0);
    ensure!(status.counter("forwarded_xdp")? + status.counter("forwarded_tc")? > 0, "{status:?}");
    ensure!(status.dropped() == 0, "{status:?}");
    Ok(())
}

/// With clsact, as that kernel has no tcx.
#[test]
fn the_daemon_serves_guests_on_debians_kernel() -> Result<()> {
    require_rig!();
    let Some(object) = object() else {
        eprintln!("skipped: no BPF object; `cargo xtask test` builds it");
        return Ok(());
    };
    let start = Instant::now();
    let serval = serval_tests::host::program()?;
    let tests = ["gateway_answers_neighbour_solicitations_in_bpf"];
    let kernel = older::passes(&tests, &object, Some(&serval), &["ip", "ndisc6", "ping"])?;
    println!("the daemon on {kernel}: {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}
