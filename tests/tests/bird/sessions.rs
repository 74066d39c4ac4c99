//! Sessions: the mesh of shared resources, passwords, reflectors, BFD.

use super::rig::{Host, deletions, hosts, node, nodes, peer};
use anyhow::{Result, ensure};
use serval::apply::bird::{Applied, BirdState, BirdStatus, PeerStatus, Retired};
use serval_tests::require_rig;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn secret(host: &Host, text: &str, mode: u32) -> Result<()> {
    let file = host.directory.path().join("password");
    fs::write(&file, text)?;
    fs::set_permissions(file, fs::Permissions::from_mode(mode))?;
    Ok(())
}

#[test]
fn three_hosts_of_the_same_resources_exchange_their_vms() -> Result<()> {
    require_rig!();
    let (_link, mut all) = hosts::<3>()?;
    for (i, host) in all.iter_mut().enumerate() {
        host.plug("tap0", &format!("2001:db8::{}", i + 1))?;
        ensure!(host.bring("[bird]", &nodes(3))? == Applied::Started);
    }
    for (host, others) in all.iter_mut().zip([["n2", "n3"], ["n1", "n3"], ["n1", "n2"]]) {
        host.wait_peers(&others)?;
        for other in others {
            let (route, _) = host.wait_route(&format!("2001:db8::{}", &other[1..]), true)?;
            ensure!(route.contains(&format!("via fd00::{} dev up0", &other[1..])), "{route}");
            ensure!(route.contains("metric 32"), "{route}");
        }
        ensure!(host.bird_routes()?.len() == 2, "{:?}", host.bird_routes()?);
        let status = host.status()?;
        ensure!(
            status.state == BirdState::Up && status.reason.is_none() && status.problems.is_empty(),
            "{status:?}"
        );
        let session = peer(&status, others[0]).cloned();
        ensure!(session.is_some_and(|peer| (peer.imported, peer.exported) == (1, 1)), "{status:#?}");
    }
    // A VM that goes is gone everywhere.
    let [n1, n2, _] = &all;
    n1.unroute("2001:db8::1")?;
    n2.wait_route("2001:db8::1", false)?;
    Ok(())
}

#[test]
fn a_password_is_agreed_upon_or_there_is_no_session() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, mut n2]) = hosts()?;
    let config = "[bird]\nmesh.password_file = '$DIR/password'";
    secret(&n1, "one secret\n", 0o600)?;
    secret(&n2, "one secret\n", 0o600)?;
    n1.bring(config, &nodes(2))?;
    n2.bring(config, &nodes(2))?;
    n1.wait_peers(&["n2"])?;

    // The password of a running session changes at one end.
    secret(&n2, "another\n", 0o600)?;
    ensure!(n2.bring(config, &nodes(2))? == Applied::Loaded);
    let established = |status: &_| peer(status, "n2").is_some_and(|peer| peer.is_established());
    n1.wait("the end of the session", |status| !established(status))?;
    // To BIRD it is a neighbour that does not answer. Who is called counts what it drops; who calls cannot know.
    let says = |status: &BirdStatus, name: &str, words: &str| {
        let reason = peer(status, name).and_then(|peer| peer.reason.clone());
        reason.is_some_and(|reason| reason.contains(words))
    };
    n1.wait("why, at the host that is called", |status| {
        says(status, "n2", "signed with another TCP MD5 password")
    })?;
    n2.wait("why, at the host that calls", |status| says(status, "n1", "another TCP MD5 password"))?;
    // Nobody says so: it is found at the next look.
    secret(&n1, "another\n", 0o600)?;
    n1.wait_peers(&["n2"])?;
    ensure!(!says(&n1.status()?, "n2", "password"), "{:?}", n1.status()?);

    // It is in no status, and the file that it is in is BIRD's alone.
    let status = format!("{:?}", n1.status()?);
    ensure!(!status.contains("another"), "{status}");
    let mode = fs::metadata(n1.directory.path().join("bird/bird.conf"))?.permissions().mode();
    ensure!(mode & 0o077 == 0, "{mode:o}");
    Ok(())
}

#[test]
fn a_password_file_that_others_may_read_costs_its_session_only() -> Result<()> {
    require_rig!();
    let (_link, [mut n1]) = hosts()?;
    secret(&n1, "secret", 0o644)?;
    let config = "[bird]\npeers = [
        { name = 'open', address = 'fd00::9' }, { name = 'shut', address = 'fd00::8', password_file = '$DIR/password' }]";
    n1.bring(config, "")?;
    let status = n1.status()?;
    ensure!(peer(&status, "shut").is_some_and(|peer| peer.state == "absent"), "{status:?}");
    ensure!(peer(&status, "open").is_some_and(|peer| peer.state != "absent"), "{status:?}");
    ensure!(status.problems.len() == 1 && status.problems[0].contains("chmod 600"), "{status:?}");
    ensure!(!status.complaints().is_empty());
    Ok(())
}

/// Hosts `n1` and, if there are two, `n2` as reflectors of one cluster, and `n3` and `n4` as their clients.
fn reflected(reflectors: u16) -> String {
    let reflector = |number| {
        node(number, ", routeReflectorClusterID: 192.0.2.250").replace("labels: {", "labels: { rr: '',")
    };
    (1..=reflectors).map(reflector).collect::<String>()
        + &node(3, "")
        + &node(4, "")
        + "---\napiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: { name: default }\nspec: { nodeToNodeMeshEnabled: false }\n"
        + "---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: { name: rr }\nspec: { nodeSelector: all(), peerSelector: has(rr) }\n"
}

#[test]
fn a_reflector_joins_its_clients() -> Result<()> {
    require_rig!();
    let (_link, [mut reflector, _n2, mut n3, mut n4]) = hosts()?;
    let resources = reflected(1);
    reflector.plug("tap0", "2001:db8::1")?;
    n3.plug("tap0", "2001:db8::3")?;
    n4.plug("tap0", "2001:db8::4")?;
    for host in [&mut reflector, &mut n3, &mut n4] {
        host.bring("[bird]", &resources)?;
    }
    ensure!(n3.status()?.peers.len() == 1);
    reflector.wait_peers(&["rr/n3", "rr/n4"])?;
    // Straight to the other client, not through the reflector.
    let (route, _) = n3.wait_route("2001:db8::4", true)?;
    ensure!(route.contains("via fd00::4 dev up0"), "{route}");
    n4.wait_route("2001:db8::3", true)?;
    n4.wait_route("2001:db8::1", true)?;
    Ok(())
}

#[test]
fn one_of_two_reflectors_may_go_away() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, mut n2, mut n3, mut n4]) = hosts()?;
    let resources = reflected(2);
    n3.plug("tap0", "2001:db8::3")?;
    for host in [&mut n1, &mut n2, &mut n3, &mut n4] {
        host.bring("[bird]", &resources)?;
    }
    n1.wait_peers(&["rr/n2", "rr/n3", "rr/n4"])?;
    n2.wait_peers(&["rr/n1", "rr/n3", "rr/n4"])?;
    n4.wait("the same from both", |status| {
        ["rr/n1", "rr/n2"].iter().all(|name| peer(status, name).is_some_and(|peer| peer.imported == 1))
    })?;
    n4.wait_route("2001:db8::3", true)?;
    let monitor = n4.monitor()?;
    ensure!(n1.retire()? == Retired::Bird);
    n4.wait("one reflector less", |status| !peer(status, "rr/n1").is_some_and(PeerStatus::is_established))?;
    ensure!(n4.bird_route("2001:db8::3")?.contains("via fd00::3"), "{:?}", n4.bird_routes()?);
    ensure!(deletions(&monitor).is_empty(), "{:?}", monitor.log());
    // What comes later comes through the other one.
    n3.plug("tap1", "2001:db8::33")?;
    n4.wait_route("2001:db8::33", true)?;
    n3.unroute("2001:db8::3")?;
    n4.wait_route("2001:db8::3", false)?;
    Ok(())
}

#[test]
fn a_router_outside_gives_a_default_route_only_when_it_may() -> Result<()> {
    require_rig!();
    let (_link, [mut host, mut router]) = hosts()?;
    host.plug("tap0", "2001:db8::1")?;
    // The router's side: a BIRD of ours whose extra file announces what a router does, and more than it should.
    let extra = "protocol static { ipv6; route ::/0 unreachable; route 2001:db8:2::/48 unreachable; route 2000::/8 unreachable; }
        protocol bgp leaf { local fd00::2 as 65000; neighbor fd00::1 as 64512; direct; ipv6 { import all; export all; }; }\n";
    fs::write(router.directory.path().join("extra"), extra)?;
    router.bring("[bird]\nas = 65000\nextra = '$DIR/extra'", "")?;
    let config = "[bird]\npeers = [{ name = 'tor', address = 'fd00::2', as = 65000 }]";
    host.bring(config, "")?;
    host.wait_peers(&["tor"])?;
    router.wait_route("2001:db8::1", true)?;
    host.wait_route("2001:db8:2::/48", true)?;
    ensure!(host.bird_routes()? == ["2001:db8:2::/48"], "{:?}", host.bird_routes()?);

    host.bring(&config.replace("65000 }", "65000, accept = ['::/0'] }"), "")?;
    host.wait_route("default", true)?;
    ensure!(host.bird_routes()? == ["2001:db8:2::/48", "default"], "{:?}", host.bird_routes()?);
    // Sessions that the extra file brings are told, too.
    ensure!(peer(&router.status()?, "leaf").is_some_and(|peer| peer.is_established()));
    Ok(())
}

#[test]
fn a_neighbour_by_its_link_local_address() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, mut n2]) = hosts()?;
    n1.plug("tap0", "2001:db8::1")?;
    for (host, last, system, other) in [(&mut n1, 1, 65001, 65002), (&mut n2, 2, 65002, 65001)] {
        host.namespace.ip(&format!("address add fe80::{last}/64 dev up0 nodad"))?;
        let config = format!(
            "[bird]\nas = {system}\npeers = [{{ name = 'other', address = 'fe80::{}', interface = 'up0', as = {other} }}]",
            3 - last
        );
        host.bring(&config, "")?;
    }
    n1.wait_peers(&["other"])?;
    let (route, _) = n2.wait_route("2001:db8::1", true)?;
    ensure!(route.contains("via fe80::") && route.contains("dev up0"), "{route}");
    Ok(())
}

#[test]
fn bfd_notices_a_dead_link_long_before_bgp() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, mut n2]) = hosts()?;
    n2.plug("tap0", "2001:db8::2")?;
    // Of the TOML peers only, so that the source has to be found.
    for (host, other) in [(&mut n1, 2), (&mut n2, 1)] {
        let config = format!(
            "[bird]\nbfd.interval = 50\npeers = [{{ name = 'n{other}', address = 'fd00::{other}', bfd = true }}]"
        );
        host.bring(&config, "")?;
    }
    n1.wait_peers(&["n2"])?;
    n1.wait_route("2001:db8::2", true)?;
    let up = |host: &Host| Ok::<bool, anyhow::Error>(host.birdc("show bfd sessions")?.contains(" Up "));
    serval_tests::wait::eventually("BFD up", super::rig::PATIENCE, || Ok(up(&n1)?.then_some(())))?;
    // Silence, without a link that goes down.
    n2.namespace.run("ip6tables -A OUTPUT -o up0 -j DROP")?;
    let (_, took) = n1.wait_route("2001:db8::2", false)?;
    println!("a silent neighbour's routes were gone after {took:?}");
    ensure!(took < std::time::Duration::from_secs(10), "{took:?}: that was the hold timer");
    Ok(())
}
