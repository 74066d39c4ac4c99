//! The kernel does not see what the fast path sends, and yet keeps the next hops that it uses.

use anyhow::{Result, ensure};
use serval_tests::cloud::{address, name, running};
use serval_tests::fabric::{Fabric, UPLINK, host_address};
use serval_tests::host::PATIENCE;
use serval_tests::require_rig;
use serval_tests::stream::Stream;
use serval_tests::tap::Offloads;
use serval_tests::traffic::ping;
use serval_tests::wait::eventually;
use std::time::Duration;

/// Datagrams a second, and how many come through between two looks.
const RATE: u32 = 2_000;
const STEP: u64 = 500;

/// How often the next hop must have been confirmed anew.
const CONFIRMED: usize = 3;

#[test]
fn next_hops_outlive_their_neighbour_entries_without_loss() -> Result<()> {
    require_rig!();
    let fabric = Fabric::started("fresh", 2)?;
    let mut guests = Vec::new();
    for number in [1, 2] {
        fabric.take_redirects(number)?;
        let neigh = format!("net/ipv6/neigh/{UPLINK}");
        let host = &fabric.host(number).namespace;
        // Known for a quarter of a second to three, by chance (RFC 4861 section 6.3.4), and rubbish a second later.
        host.set_sysctl(&format!("{neigh}/base_reachable_time_ms"), 500)?;
        host.set_sysctl(&format!("{neigh}/gc_stale_time"), 1)?;
        host.set_sysctl(&format!("{neigh}/delay_first_probe_time"), 0)?;
        guests.push(running(fabric.host(number), number, Offloads::NONE)?);
        fabric.route(address(number), number)?;
    }
    let host = fabric.host(1);
    let to = format!("{}/128", address(2));
    eventually("the route by a known next hop", PATIENCE, || {
        Ok(host.route(&to)?.filter(|route| route.usable() == (1, 1)).map(drop))
    })?;
    // The answers' next hop may not be known yet, and few datagrams wait until it is.
    eventually("a way for the stream", PATIENCE, || {
        let ping = ping(&guests[0].namespace, address(2), 1, Duration::from_secs(1))?;
        Ok((ping.received == 1).then_some(()))
    })?;
    let stream = Stream::start(&guests[0].namespace, &guests[1].namespace, address(2), 7_000, RATE)?;
    stream.advance(STEP)?;
    let counted = || host.endpoint(&name(1))?.counter("forwarded_xdp");
    let (before, by_kernel) = (counted()?, host.namespace.kernel_forwarded()?);
    let known = || -> Result<bool> {
        let entry = host.namespace.ip(&format!("-6 neighbour show {} dev {UPLINK}", host_address(2)))?;
        ensure!(!entry.contains("FAILED"), "the next hop failed: {entry}");
        Ok(entry.contains("REACHABLE"))
    };
    for _ in 0..CONFIRMED {
        eventually("the next hop not to be certain", 3 * PATIENCE, || Ok((!known()?).then_some(())))?;
        eventually("the next hop to be confirmed", 3 * PATIENCE, || Ok(known()?.then_some(())))?;
        stream.advance(STEP)?;
    }
    let account = stream.finish()?;
    println!("confirmed {CONFIRMED} times: {account}");
    account.complete()?;
    let (after, kernel_now) = (counted()?, host.namespace.kernel_forwarded()?);
    ensure!(kernel_now == by_kernel, "the kernel forwarded {}", kernel_now - by_kernel);
    ensure!(after - before >= CONFIRMED as u64 * STEP, "{before} -> {after}");
    Ok(())
}
