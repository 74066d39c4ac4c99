//! What a VM may have of what is everybody's: its share.

use super::rig::Tool::Flood;
use super::rig::{Attack, Scene, echoes};
use anyhow::{Result, ensure};
use dataplane_ebpf::abi::LINK_LOCALS;
use serval_tests::cloud::{address, endpoint, mac, name, plugged, subnet, tap};
use serval_tests::fabric::ROUTER;
use serval_tests::frame::{GATEWAY_MAC, Ipv6, Payload, link_local};
use serval_tests::guest::{RawGuest, dhclient};
use serval_tests::host::{Host, PATIENCE};
use serval_tests::process::Running;
use serval_tests::require_rig;
use serval_tests::tap::{Options, VnetHeader};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

const FLOODS: &[Attack] = &[
    Attack {
        cases: &[18],
        name: "router solicitations",
        tool: Flood("atk6-flood_rs6 eth0"),
        dropped: &["rate_limited"],
        perhaps: &[],
    },
    Attack {
        cases: &[19],
        name: "neighbour solicitations with forged MACs",
        tool: Flood("atk6-flood_solicitate6 -k eth0 GATEWAY ff02::1"),
        dropped: &["nd_spoof"],
        perhaps: &["nd_invalid"],
    },
    Attack {
        cases: &[19],
        name: "packets to everybody in a prefix of the VMs",
        tool: Flood("atk6-ndpexhaust26 -p -s OWN eth0 2001:db8:5e:1::/64"),
        dropped: &[],
        perhaps: &[],
    },
    Attack {
        cases: &[19],
        name: "packets to everybody on the link between the hosts",
        tool: Flood("atk6-ndpexhaust26 -p -s OWN eth0 2001:db8:fab::/64"),
        dropped: &["neighbour_limited"],
        perhaps: &[],
    },
    Attack {
        cases: &[38],
        name: "listener reports",
        tool: Flood("atk6-flood_mld26 eth0"),
        dropped: &["source_mac"],
        perhaps: &[],
    },
    Attack {
        cases: &[38, 11],
        name: "echo requests to all in the victim's name",
        tool: Flood("atk6-smurf6 eth0 VICTIM"),
        dropped: &["source_mac"],
        perhaps: &[],
    },
    Attack {
        cases: &[24],
        name: "DHCPv6 clients",
        tool: Flood("atk6-flood_dhcpc6 -N -1 eth0"),
        dropped: &["host_limited"],
        perhaps: &[],
    },
    Attack {
        cases: &[23],
        name: "DHCPv6 messages gone wrong",
        tool: Flood("atk6-fuzz_dhcps6 -1 eth0"),
        dropped: &[],
        perhaps: &["host_limited"],
    },
];

#[test]
fn a_flood_takes_nothing_from_others() -> Result<()> {
    require_rig!();
    let scene = Scene::new("floods")?;
    scene.unharmed()?;
    let failed: Vec<_> = FLOODS
        .iter()
        .filter_map(|attack| Some(format!("{}: {:#}", attack.name, scene.withstands(attack).err()?)))
        .collect();
    ensure!(failed.is_empty(), "{} of {}:\n{}", failed.len(), FLOODS.len(), failed.join("\n"));
    Ok(())
}

/// Case 20.
#[test]
fn a_scan_from_the_world_leaves_no_neighbours() -> Result<()> {
    require_rig!();
    let scene = Scene::new("scan")?;
    scene.fabric.router.ip("route add 2001:db8:5e:1::/64 via 2001:db8:fab::1")?;
    let before = scene.neighbours()?;
    let mut command = scene.fabric.world.command("timeout");
    command.args(["-s", "KILL", "2", "atk6-ndpexhaust26", "-p", "eth0", "2001:db8:5e:1::/64"]);
    let output = command.output()?;
    let after = scene.neighbours()?;
    println!("{before} neighbours, then {after}: {}", output.status);
    ensure!(after <= before + 8, "{before} neighbours became {after}");
    scene.unharmed()
}

/// Case 19: the kernel would make a neighbour of every address that it answers.
#[test]
fn forged_link_local_addresses_leave_the_kernels_neighbours_alone() -> Result<()> {
    require_rig!();
    let scene = Scene::new("forged")?;
    scene.host().put_endpoint(&endpoint(3))?;
    let hostile = RawGuest::new(&scene.host().namespace, &tap(3), mac(3), Options::default())?;
    scene.host().wait_state(&name(3), "up")?;
    let before = scene.neighbours()?;
    let frames = 3_000;
    for number in 0..frames {
        let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xbad, 0, 0, number);
        let ping = Ipv6 { source, destination: link_local(GATEWAY_MAC), ..Ipv6::new(mac(3), GATEWAY_MAC) };
        hostile.send(&ping.carrying(Payload::echo_request(1, number, b"x")))?;
    }
    let after = scene.neighbours()?;
    let dropped = scene.dropped(3)?;
    println!("{before} neighbours, after {frames} addresses {after}; {dropped:?}");
    // One for the address, and one for the group in which the kernel asks for it.
    ensure!(after <= before + 2 * LINK_LOCALS + 2, "{before} neighbours became {after}");
    ensure!(
        dropped.get("link_local_limited") == Some(&(u64::from(frames) - LINK_LOCALS as u64)),
        "{dropped:?}"
    );
    // Whom nobody has talked to yet is found.
    scene.host().namespace.ip(&format!("-6 neighbour del {ROUTER} dev up0"))?;
    echoes(&scene.host().namespace, ROUTER)?;
    scene.unharmed()
}

/// Cases 16 and 24: a VM that boots beside a flood of clients and somebody who claims every address gets its own.
#[test]
fn a_vm_boots_beside_hostile_ones() -> Result<()> {
    require_rig!();
    let scene = Scene::new("besides")?;
    let start = |line: &str| -> Result<Running> {
        let mut words = line.split(' ');
        let mut command = scene.hostile().namespace.command(words.next().unwrap_or_default());
        command.args(words);
        Running::start(line, command)
    };
    let _claimer = start("atk6-dos-new-ip6 eth0")?;
    let _clients = start("atk6-flood_dhcpc6 -N -1 eth0")?;
    std::thread::sleep(Duration::from_secs(1));
    scene.host().put_endpoint(&endpoint(3))?;
    let guest = plugged(scene.host(), 3)?;
    scene.host().wait_state(&name(3), "up")?;
    let began = Instant::now();
    guest.boot()?;
    let _client = dhclient(&guest)?;
    guest.wait_default_route(PATIENCE)?;
    guest.wait_address(address(3), Duration::from_secs(30))?;
    println!("booted after {} ms; {:?}", began.elapsed().as_millis(), scene.dropped(1)?);
    let failed = guest.namespace.ip("-6 address show dev eth0 dadfailed")?;
    ensure!(failed.is_empty(), "somebody has claimed an address: {failed}");
    let status = scene.host().endpoint(&name(3))?;
    ensure!(status.dropped() == 0, "{status:?}");
    scene.unharmed()
}

/// DAD from `::`, listener reports, solicitations, DHCPv6 and pings to the router are no attack.
#[test]
fn nothing_that_a_vm_needs_is_dropped() -> Result<()> {
    require_rig!();
    let host = Host::started("legal")?;
    host.put("subnet.yaml", subnet().document())?;
    host.put_endpoint(&endpoint(1))?;
    let guest = plugged(&host, 1)?;
    host.wait_state(&name(1), "up")?;
    guest.boot()?;
    let _client = dhclient(&guest)?;
    guest.wait_default_route(PATIENCE)?;
    guest.wait_address(address(1), Duration::from_secs(30))?;
    for number in 0..4 {
        guest.namespace.ip(&format!("address add fe80::{number:x}:1/64 dev eth0"))?;
    }
    std::thread::sleep(Duration::from_secs(3));
    echoes(&guest.namespace, guest.gateway())?;
    let status = host.endpoint(&name(1))?;
    ensure!(status.dropped() == 0, "{status:?}");
    ensure!(status.counter("dhcp6_replies")? > 0 && status.counter("answered_rs")? > 0, "{status:?}");
    Ok(())
}

/// Cases 30 and 31.
#[test]
fn virtio_net_headers_that_lie_harm_nobody() -> Result<()> {
    require_rig!();
    let scene = Scene::new("vnet")?;
    scene.host().put_endpoint(&endpoint(3))?;
    let hostile = RawGuest::new(&scene.host().namespace, &tap(3), mac(3), Options::default())?;
    scene.host().wait_state(&name(3), "up")?;
    let frame = Ipv6 { source: address(3), destination: address(2), ..Ipv6::new(mac(3), GATEWAY_MAC) }
        .carrying(Payload::tcp(1, 2, 0, &[7; 1000]));
    let lengths = [0, 1, 13, 14, 53, 54, 73, 74, 1_000, frame.bytes.len()];
    let (mut taken, mut refused) = (0, 0);
    for flags in [0, 1, 2, 0xff] {
        for kind in [0, 1, 3, 4, 5, 0x80, 0xff] {
            for [header_len, size, start, offset] in [
                [0; 4],
                [0xffff; 4],
                [54, 0, 54, 16],
                [1, 1, 1, 1],
                [2000, 1440, 54, 16],
                [54, 1440, 1060, 2],
            ] {
                for length in lengths {
                    let header = VnetHeader {
                        flags,
                        gso_type: kind,
                        hdr_len: header_len,
                        gso_size: size,
                        csum_start: start,
                        csum_offset: offset,
                    };
                    // The TAP's driver refuses some.
                    match hostile.tap.write(header, &frame.bytes[..length]) {
                        Ok(()) => taken += 1,
                        Err(_) => refused += 1,
                    }
                }
            }
        }
    }
    println!("{taken} frames taken, {refused} refused; {:?}", scene.dropped(3)?);
    ensure!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
    scene.unharmed()
}
