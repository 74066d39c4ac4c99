//! A top-of-rack router of another AS: it hears of VMs and aggregates and of nothing else, and gives a default route.

use anyhow::{Result, ensure};
use serval_tests::bgp::{self, Router};
use serval_tests::cloud::address;
use serval_tests::fabric::{Fabric, ROUTER, UPLINK, WORLD, host_address};
use serval_tests::host::{Host, bgp_event, session};
use serval_tests::require_rig;
use serval_tests::scene::Scene;
use serval_tests::tap::Offloads;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const PASSWORD: &str = "keep it to yourself";

/// The router's configuration, as its operator has it: hosts are leaves of their own AS each, all know the password, BFD
/// watches them, and they get a default route and what other leaves announce.
fn router(leaves: u8) -> String {
    let leaves = (1..=leaves).map(|number| {
        format!(
            "protocol bgp leaf{number} {{
               local {ROUTER} as 65000; neighbor {} as {}; direct; password \"{PASSWORD}\"; bfd on;
               connect delay time 1; connect retry time 1;
               ipv6 {{ import all; export where source = RTS_BGP || net = ::/0; }};
             }}\n",
            host_address(number),
            65_000 + u32::from(number),
        )
    });
    bgp::router(&format!(
        "protocol bfd {{ interface \"*\" {{ interval 300 ms; multiplier 10; }}; }}\n{}",
        leaves.collect::<String>()
    ))
}

/// A host's side of it; its default route comes from the router alone.
fn leaf(host: &Host, number: u8, password: &str, more: &str) -> Result<()> {
    let file = host.configuration().with_file_name("password");
    fs::write(&file, password)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    host.namespace.ip("-6 route del default")?;
    host.configure(&format!(
        "[bird]\nas = {}\n{more}\nbfd = {{ interval = 300, multiplier = 10 }}\npeers = [{{ name = 'tor', address = \
         '{ROUTER}', as = 65000, password_file = '{}', bfd = true, accept = ['::/0'] }}]\n",
        65_000 + u32::from(number),
        file.display()
    ))
}

#[test]
fn a_top_of_rack_hears_of_vms_alone_and_leads_to_the_world() -> Result<()> {
    require_rig!();
    let mut fabric = Fabric::new("tor", 3)?;
    // Host 1 speaks for all VMs of the tenant, host 2 for its own only, and host 3 does not know the password.
    let aggregate = "aggregates = [{ prefix = '2001:db8:5e:1::/64', shared = true }]";
    leaf(fabric.host(1), 1, PASSWORD, aggregate)?;
    leaf(fabric.host(2), 2, PASSWORD, "")?;
    leaf(fabric.host(3), 3, "guessed", "")?;
    for number in 1..=3 {
        // Nobody else's business.
        let host = &fabric.host(number).namespace;
        host.ip(&format!("-6 route add 2001:db8:9::/48 via {} proto static", host_address(9)))?;
        host.ip(&format!("-6 route add 2001:db8:9::9 dev {UPLINK}"))?;
    }
    fabric.start()?;
    let scene = Scene::populate(fabric, 3, Offloads::ALL)?;
    let tor = Router::start(&scene.fabric.router, &router(3))?;
    let took = tor.wait_heard(&["2001:db8:5e:1::/64", "2001:db8:5e:1::2/128"])?;
    println!("the router knows the VMs {} ms after its start", took.as_millis());
    let hosts = [scene.fabric.host(1), scene.fabric.host(2)];
    for host in hosts {
        host.wait_route("default")?;
        host.wait_session("tor")?;
    }
    // Straight to the other host, which is on the same link.
    hosts[0].wait_learnt(address(2), "by its host", |route| {
        route.contains(&format!("via {}", host_address(2)))
    })?;
    hosts[1].wait_route("2001:db8:5e:1::/64")?;
    scene.converse(1, 2)?;
    for number in [1, 2] {
        scene.settle(number, WORLD)?;
        let before = scene.counted(number)?;
        scene.echoes(&scene.guest(number).namespace, WORLD)?;
        scene.echoes(&scene.fabric.world, address(number))?;
        let after = scene.counted(number)?;
        let both_ways = 2 * u64::from(serval_tests::scene::PINGS);
        ensure!(
            after.0 >= before.0 + both_ways && after.1 >= before.1 + both_ways,
            "VM {number} and the world, by the fast path: {before:?} -> {after:?}"
        );
    }
    for number in [1, 2] {
        let own = host_address(number).to_string();
        bgp_event("BFD on both sides", || {
            let up = |said: String, neighbour: &str| {
                said.lines().any(|line| line.starts_with(&format!("{neighbour} ")) && line.contains(" Up "))
            };
            let at_host = scene.fabric.host(number).birdc("show bfd sessions")?;
            Ok(up(tor.birdc("show bfd sessions")?, &own) && up(at_host, &ROUTER.to_string()))
        })?;
    }
    // The third host has tried, and is not understood.
    bgp_event("a segment with a wrong password", || {
        let counter = scene.fabric.router.run("nstat -asz TcpExtTCPMD5Failure")?;
        Ok(counter.lines().any(|line| line.split_ascii_whitespace().nth(1).is_some_and(|count| count != "0")))
    })?;
    let stranger = scene.fabric.host(3);
    let bird = stranger.bird()?;
    ensure!(
        session(&bird, "tor").is_some_and(|tor| tor["state"] != "established" && tor["imported"] == 0),
        "{bird:#}"
    );
    ensure!(stranger.all_learnt()?.is_empty(), "{:?}", stranger.all_learnt()?);
    Ok(())
}
