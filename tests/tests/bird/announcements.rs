//! What is announced and what is not: marks, aggregates, communities, and which of two hosts has a VM.

use super::rig::{Host, hosts, nodes};
use anyhow::{Result, ensure};
use serval_tests::require_rig;

/// Two hosts in a mesh that have found each other; the first one has `config`.
fn pair(n1: &mut Host, n2: &mut Host, config: &str) -> Result<()> {
    n1.bring(config, &nodes(2))?;
    n2.bring("[bird]", &nodes(2))?;
    n2.wait_peers(&["n1"]).map(drop)
}

#[test]
fn only_vms_are_announced() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, mut n2]) = hosts()?;
    n1.plug("tap0", "2001:db8::1")?;
    // What an operator, a router or another daemon has put there is not ours to announce.
    for route in [
        "2001:db8:9::/48 via fd00::9 dev up0",
        "2001:db8::9 dev tap0",
        "default via fd00::9 dev up0 proto ra",
        "2001:db8:8::/48 via fd00::9 dev up0 proto static",
    ] {
        n1.namespace.ip(&format!("-6 route add {route}"))?;
    }
    // Marked, but outside of where VMs are from.
    n1.route("tap0", "2001:db9::1", 16)?;
    pair(&mut n1, &mut n2, "[bird]\nnetworks = ['2001:db8::/32']")?;
    n2.wait_route("2001:db8::1", true)?;
    n1.plug("tap1", "2001:db8::2")?;
    n2.wait_route("2001:db8::2", true)?;
    ensure!(n2.bird_routes()? == ["2001:db8::1", "2001:db8::2"], "{:?}", n2.bird_routes()?);
    // None of it was touched where it is.
    ensure!(n1.namespace.ip("-6 route show default")?.contains("proto ra"));
    Ok(())
}

#[test]
fn an_aggregate_speaks_for_its_vms_unless_one_has_just_arrived() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, mut n2]) = hosts()?;
    n1.plug("tap0", "2001:db8:a::1")?;
    n1.plug("tap1", "2001:db8:b::1")?;
    let config = "[bird]\naggregates = [{ prefix = '2001:db8:a::/64' }]\n\
        communities = [{ prefix = '2001:db8:a::/64', communities = ['64512:7', '64512:7:8'] }]";
    pair(&mut n1, &mut n2, config)?;
    n2.wait_route("2001:db8:a::/64", true)?;
    n2.wait_route("2001:db8:b::1", true)?;
    ensure!(n2.bird_routes()? == ["2001:db8:a::/64", "2001:db8:b::1"], "{:?}", n2.bird_routes()?);
    // Nobody's address ends here instead of going round in circles.
    let here = n1.namespace.ip("-6 route show 2001:db8:a::/64")?;
    ensure!(here.contains("unreachable") && here.contains("metric 65535"), "{here}");
    let marked = n2.birdc("show route all 2001:db8:a::/64")?;
    ensure!(marked.contains("(64512,7)") && marked.contains("(64512, 7, 8)"), "{marked}");
    ensure!(!n2.birdc("show route all 2001:db8:b::1/128")?.contains("(64512,7)"));

    // One of its addresses whose VM is elsewhere is sent there, and is nobody's again when that goes.
    n2.plug("tap0", "2001:db8:a::2")?;
    let (route, _) = n1.wait_route("2001:db8:a::2", true)?;
    ensure!(route.contains("via fd00::2 dev up0"), "{route}");
    ensure!(n1.namespace.ip("-6 route get 2001:db8:a::2")?.contains("dev up0"));
    n2.unroute("2001:db8:a::2")?;
    n1.wait_route("2001:db8:a::2", false)?;
    ensure!(n1.namespace.ip("-6 route get 2001:db8:a::2").is_err());
    // It comes here instead.
    n1.route("tap1", "2001:db8:a::2", 16)?;
    ensure!(n1.namespace.ip("-6 route get 2001:db8:a::2")?.contains("dev tap1"));

    n1.unroute("2001:db8:a::1")?;
    n1.route("tap0", "2001:db8:a::1", 8)?;
    let (route, _) = n2.wait_route("2001:db8:a::1", true)?;
    ensure!(route.contains("metric 12"), "{route}");
    Ok(())
}

#[test]
fn two_hosts_that_have_a_vm_both_keep_it_until_one_says_that_it_has_arrived() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, mut n2]) = hosts()?;
    for host in [&mut n1, &mut n2] {
        host.plug("tap0", "2001:db8::1")?;
        host.plug("tap1", &format!("2001:db8::{}", &host.node.replace('n', "f")))?;
    }
    pair(&mut n1, &mut n2, "[bird]")?;
    n1.wait_route("2001:db8::f2", true)?;
    n2.wait_route("2001:db8::f1", true)?;
    // Both announce it, neither believes the other more than itself, and so nothing swings.
    for host in [&n1, &n2] {
        let routes = host.birdc("show route all 2001:db8::1/128")?;
        ensure!(routes.contains("[mesh_n") && routes.contains("[serval_kernel"), "{routes}");
        ensure!(host.bird_route("2001:db8::1")?.is_empty());
    }
    // It has arrived at n2: n1 sends there, although it still has it.
    n2.unroute("2001:db8::1")?;
    n2.route("tap0", "2001:db8::1", 8)?;
    let (route, _) = n1.wait_route("2001:db8::1", true)?;
    ensure!(route.contains("via fd00::2") && route.contains("metric 12"), "{route}");
    let way = n1.namespace.ip("-6 route get 2001:db8::1")?;
    ensure!(way.contains("dev up0"), "{way}");
    // It is gone from n1, and n2 counts it as any other again.
    n1.unroute("2001:db8::1")?;
    n2.route("tap0", "2001:db8::1", 16)?;
    n2.namespace.ip("-6 route del 2001:db8::1 proto 83 metric 8")?;
    serval_tests::wait::eventually("an ordinary route", super::rig::PATIENCE, || {
        Ok(n1.bird_route("2001:db8::1")?.contains("metric 32").then_some(()))
    })?;
    Ok(())
}

#[test]
fn two_ways_to_one_destination_are_both_used() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, mut n2, mut n3]) = hosts()?;
    for host in [&mut n2, &mut n3] {
        host.plug("tap0", "2001:db8::5")?;
    }
    for host in [&mut n1, &mut n2, &mut n3] {
        host.bring("[bird]", &nodes(3))?;
    }
    n1.wait_peers(&["n2", "n3"])?;
    serval_tests::wait::eventually("two next hops", super::rig::PATIENCE, || {
        let route = n1.bird_route("2001:db8::5")?;
        Ok((route.contains("via fd00::2") && route.contains("via fd00::3")).then_some(()))
    })?;
    n1.bring("[bird]\nmax_paths = 1", &nodes(3))?;
    serval_tests::wait::eventually("one next hop", super::rig::PATIENCE, || {
        Ok((n1.bird_route("2001:db8::5")?.matches("via fd00::").count() == 1).then_some(()))
    })?;
    Ok(())
}
