//! TAPs and documents come, change and go: each leads to the right state, and nobody else notices.

use anyhow::{Context, Result, ensure};
use serval_tests::cloud::{address, endpoint, mac, name, plugged, running, subnet, tap};
use serval_tests::frame::{Mac, link_local, mac_text};
use serval_tests::guest::KernelGuest;
use serval_tests::host::{Host, wait};
use serval_tests::stream::Stream;
use serval_tests::tap::Offloads;
use serval_tests::{require_rig, traffic};
use std::time::{Duration, Instant};

/// Two other guests whose stream goes on through a test, and who must not notice it.
struct Witness {
    guests: [KernelGuest; 2],
    stream: Stream,
    links: Vec<u64>,
}

impl Witness {
    fn start(host: &Host) -> Result<Self> {
        let guests = [running(host, 8, Offloads::NONE)?, running(host, 9, Offloads::NONE)?];
        let stream = Stream::start(&guests[0].namespace, &guests[1].namespace, address(9), 7_000, 1_000)?;
        stream.advance(100)?;
        let links = Self::links(host)?;
        ensure!(links.len() >= 2, "no links found: {links:?}");
        Ok(Self { guests, stream, links })
    }

    fn links(host: &Host) -> Result<Vec<u64>> {
        let mut links = Vec::new();
        for number in [8, 9] {
            links.extend(host.links(ifindex(host, number)?)?);
        }
        Ok(links)
    }

    /// Checks that the stream went on through the fast path and the links are those of the beginning.
    fn finish(self, host: &Host) -> Result<()> {
        self.stream.advance(100)?;
        let account = self.stream.finish()?;
        println!("witness: {account}");
        account.complete()?;
        let sent = host.endpoint(&name(8))?.counter("forwarded_xdp")?;
        ensure!(sent >= account.sent, "only {sent} of {} by XDP", account.sent);
        ensure!(Self::links(host)? == self.links, "links of others were replaced");
        drop(self.guests);
        Ok(())
    }
}

fn host() -> Result<Host> {
    let host = Host::started("lifecycle")?;
    host.put("subnet.yaml", subnet().document())?;
    Ok(host)
}

fn ifindex(host: &Host, number: u8) -> Result<u32> {
    host.namespace.ifindex(&tap(number))?.with_context(|| format!("no {}", tap(number)))
}

fn replies(from: &KernelGuest, to: u8) -> Result<u32> {
    Ok(traffic::ping(&from.namespace, address(to), 3, Duration::from_millis(20))?.received)
}

/// Waits until guest 2 and the witnesses reach each other; says how long that took.
fn wait_reach(from: &KernelGuest, to: u8) -> Result<Duration> {
    wait(&format!("replies of vm{to}"), || {
        Ok(traffic::ping(&from.namespace, address(to), 1, Duration::from_millis(10))?.received == 1)
    })
}

#[test]
fn document_comes_before_the_tap() -> Result<()> {
    require_rig!();
    let host = host()?;
    let witness = Witness::start(&host)?;
    host.put_endpoint(&endpoint(2))?;
    host.wait_state(&name(2), "pending")?;
    let guest = KernelGuest::without_tap(&host.namespace, plug_settings(2))?;
    guest.configure(address(2))?;
    let start = Instant::now();
    guest.plug()?;
    host.wait_state(&name(2), "up")?;
    println!(
        "TAP after document: up after {} ms, the TAP's own making included",
        start.elapsed().as_millis()
    );
    ensure!(replies(&guest, 8)? == 3);
    witness.finish(&host)
}

#[test]
fn tap_comes_before_its_document_and_forwards_nothing_until_then() -> Result<()> {
    require_rig!();
    let host = host()?;
    let witness = Witness::start(&host)?;
    let guest = plugged(&host, 2)?;
    guest.configure(address(2))?;
    let blocked = || Ok(host.namespace.sysctl("net/ipv6/conf/tap2/disable_ipv6")? == "1");
    wait("the kernel's IPv6 off on an unclaimed TAP", blocked)?;
    ensure!(replies(&guest, 8)? == 0, "an unclaimed TAP reached another endpoint");

    host.put_endpoint(&endpoint(2))?;
    println!("document after TAP: up after {} ms", host.wait_state(&name(2), "up")?.as_millis());
    wait_reach(&guest, 8)?;
    witness.finish(&host)
}

#[test]
fn tap_vanishes_and_returns_with_another_ifindex() -> Result<()> {
    require_rig!();
    let host = host()?;
    let witness = Witness::start(&host)?;
    let guest = running(&host, 2, Offloads::NONE)?;
    ensure!(replies(&guest, 8)? == 3);
    let before = ifindex(&host, 2)?;
    guest.unplug()?;
    println!("vanished: pending after {} ms", host.wait_state(&name(2), "pending")?.as_millis());
    ensure!(host.links(before)?.is_empty(), "links of ifindex {before} are left");
    let start = Instant::now();
    guest.plug()?;
    host.wait_state(&name(2), "up")?;
    println!("returned: up after {} ms, the TAP's own making included", start.elapsed().as_millis());
    ensure!(ifindex(&host, 2)? != before);
    println!("returned: replies after {} ms", wait_reach(&guest, 8)?.as_millis());
    witness.finish(&host)
}

#[test]
fn tap_goes_down_and_up() -> Result<()> {
    require_rig!();
    let host = host()?;
    let witness = Witness::start(&host)?;
    let guest = running(&host, 2, Offloads::NONE)?;
    ensure!(replies(&guest, 8)? == 3);
    host.namespace.ip("link set tap2 down")?;
    println!("down after {} ms", host.wait_state(&name(2), "down")?.as_millis());
    ensure!(replies(&guest, 8)? == 0, "a guest on a TAP that is down reached another");
    let seen = guest.counts().to_vm.frames;
    ensure!(replies(&witness.guests[0], 2)? == 0, "a guest on a TAP that is down was reached");
    ensure!(guest.counts().to_vm.frames == seen, "frames came out of a TAP that is down");
    host.namespace.ip("link set tap2 up")?;
    println!("up after {} ms", host.wait_state(&name(2), "up")?.as_millis());
    println!("replies after {} ms", wait_reach(&guest, 8)?.as_millis());
    witness.finish(&host)
}

#[test]
fn mac_of_the_tap_changes() -> Result<()> {
    require_rig!();
    const NEW: Mac = [0x02, 0x61, 0xfe, 0xed, 0xca, 0x02];
    let host = host()?;
    let witness = Witness::start(&host)?;
    host.put_endpoint(&endpoint(2))?;
    let guest = plugged(&host, 2)?;
    guest.boot()?;
    guest.namespace.add_address("eth0", address(2))?;
    guest.wait_default_route(Duration::from_secs(20))?;
    wait_reach(&guest, 8)?;

    host.namespace.ip(&format!("link set tap2 address {}", mac_text(NEW)))?;
    let gateway = link_local(NEW).to_string();
    let took = wait(&format!("the new gateway {gateway} in the guest"), || {
        Ok(guest.default_routes()?.iter().any(|route| route.to_string().contains(&gateway)))
    })?;
    println!("guest has the new gateway after {} ms", took.as_millis());
    guest.namespace.ip(&format!("route replace 2001:db8::/32 via {gateway} dev eth0"))?;
    wait_reach(&guest, 8)?;
    wait("the kernel's own link-local follows", || {
        Ok(host.namespace.ip("-6 address show dev tap2 scope link")?.contains(&gateway))
    })?;
    witness.finish(&host)
}

#[test]
fn mtu_of_the_tap_changes() -> Result<()> {
    require_rig!();
    let host = host()?;
    let witness = Witness::start(&host)?;
    host.put_endpoint(&endpoint(2))?;
    let guest = plugged(&host, 2)?;
    guest.boot()?;
    guest.wait_default_route(Duration::from_secs(20))?;
    host.namespace.ip("link set tap2 mtu 1400")?;
    let took =
        wait("the new MTU in the guest", || Ok(guest.namespace.sysctl("net/ipv6/conf/eth0/mtu")? == "1400"))?;
    println!("guest has the new MTU after {} ms", took.as_millis());
    witness.finish(&host)
}

#[test]
fn mac_and_address_of_the_vm_change_in_the_document() -> Result<()> {
    require_rig!();
    let host = host()?;
    let witness = Witness::start(&host)?;
    let guest = running(&host, 2, Offloads::NONE)?;
    let mut changed = endpoint(2);
    changed.mac = mac(22);
    changed.addresses = vec![address(22)];
    host.put_endpoint(&changed)?;
    let dropped = host.endpoint(&name(2))?.dropped();
    let took = host.wait_status("the new address in status", |status| {
        status.endpoint(&name(2)).is_some_and(|endpoint| {
            endpoint.0["addresses"] == serde_json::json!([address(22)]) && endpoint.state() == "up"
        })
    })?;
    println!("changed after {} ms", took.as_millis());
    ensure!(replies(&guest, 8)? == 0, "the old MAC and address still pass");
    ensure!(host.endpoint(&name(2))?.dropped() > dropped, "spoofed frames were not counted");

    guest.namespace.ip(&format!("link set eth0 address {}", mac_text(mac(22))))?;
    guest.namespace.ip(&format!("address del {}/128 dev eth0", address(2)))?;
    guest.namespace.add_address("eth0", address(22))?;
    wait_reach(&guest, 8)?;
    ensure!(replies(&witness.guests[0], 22)? == 3);
    ensure!(replies(&witness.guests[0], 2)? == 0, "the old address is still reached");
    witness.finish(&host)
}

#[test]
fn removal_leaves_nothing() -> Result<()> {
    require_rig!();
    let host = host()?;
    let witness = Witness::start(&host)?;
    let before = host.inventory()?;
    let guest = running(&host, 2, Offloads::NONE)?;
    ensure!(replies(&guest, 8)? == 3);
    let index = ifindex(&host, 2)?;
    ensure!(host.inventory()? != before && !host.links(index)?.is_empty(), "the inventory sees nothing");

    host.remove_endpoint(&name(2))?;
    let gone = host.wait_status("vm2 gone from status", |status| status.endpoint(&name(2)).is_none())?;
    println!("document removed: gone after {} ms", gone.as_millis());
    let restored = || Ok(host.inventory()? == before && host.links(index)?.is_empty());
    wait("nothing left of vm2", restored)
        .with_context(|| format!("before {before:#?}\nnow {:#?}", host.inventory()))?;
    ensure!(replies(&guest, 8)? == 0, "a guest without a document reached another");

    host.put_endpoint(&endpoint(2))?;
    host.wait_state(&name(2), "up")?;
    guest.unplug()?;
    host.wait_state(&name(2), "pending")?;
    host.remove_endpoint(&name(2))?;
    wait("nothing left of vm2, TAP first", restored)
        .with_context(|| format!("before {before:#?}\nnow {:#?}", host.inventory()))?;
    witness.finish(&host)
}

#[test]
fn taps_that_go_are_no_news() -> Result<()> {
    require_rig!();
    let host = host()?;
    let witness = Witness::start(&host)?;
    // Many at a time, so that steps for some come in the midst of the end of others.
    let numbers = 10..30;
    for number in numbers.clone() {
        host.put_endpoint(&endpoint(number))?;
    }
    let guests = numbers.clone().map(|number| plugged(&host, number)).collect::<Result<Vec<_>>>()?;
    for number in numbers.clone() {
        host.wait_state(&name(number), "up")?;
    }
    for guest in guests {
        guest.unplug()?;
    }
    for number in numbers {
        host.wait_state(&name(number), "pending")?;
        host.remove_endpoint(&name(number))?;
    }
    witness.finish(&host)?;
    let log = host.log();
    ensure!(!log.iter().any(|line| line.contains("WARN") || line.contains("ERROR")), "{log:#?}");
    Ok(())
}

#[test]
fn what_vanished_while_the_daemon_was_dead_is_swept() -> Result<()> {
    require_rig!();
    let mut host = host()?;
    let _peers = [running(&host, 8, Offloads::NONE)?, running(&host, 9, Offloads::NONE)?];
    let before = host.inventory()?;
    let (gone, unplugged) = (running(&host, 2, Offloads::NONE)?, running(&host, 3, Offloads::NONE)?);
    host.kill()?;
    host.remove_endpoint(&name(2))?;
    host.remove_endpoint(&name(3))?;
    unplugged.unplug()?;
    host.start()?;
    wait("nothing left of either", || Ok(host.inventory()? == before))
        .with_context(|| format!("before {before:#?}\nnow {:#?}", host.inventory()))?;
    ensure!(replies(&gone, 8)? == 0, "a guest without a document reached another");
    Ok(())
}

fn plug_settings(number: u8) -> serval_tests::guest::Settings {
    serval_tests::guest::Settings::new(&tap(number), mac(number))
}
