//! A VM's share of the host, and that nobody elsewhere has the rights of a VM that runs here.

use crate::rig::{NODE, Rig, UPLINK, global, resources};
use anyhow::{Result, ensure};
use dataplane_ebpf::abi::LINK_LOCALS;
use serval::config::LimitsConfig;
use serval_tests::cloud::{address, mac};
use serval_tests::frame::{GATEWAY_MAC, Ipv6, Payload, link_local, mac_text, multicast_mac};
use serval_tests::require_rig;
use std::net::Ipv6Addr;

const A: &str = "tap1";
const B: &str = "tap2";
/// So slow that a busy machine does not earn another packet within a test.
const LIMITS: (u32, u32) = (5, 7);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// VM 1 and VM 2, who may do everything.
fn documents() -> String {
    let endpoint = |n: u8| {
        format!(
            "---\napiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {{name: vm{n}}}\n\
             spec: {{node: {NODE}, interfaceName: tap{n}, mac: '{}', ipNetworks: ['{}/128']}}\n",
            mac_text(mac(n)),
            address(n)
        )
    };
    endpoint(1) + &endpoint(2) + &global("all", "{ingress: [{action: Allow}], egress: [{action: Allow}]}")
}

fn rig(label: &str, limits: LimitsConfig) -> Result<Rig> {
    let mut rig = Rig::new(label, &[(A, mac(1)), (B, mac(2))])?;
    rig.route(address(1), A)?;
    rig.route(address(2), B)?;
    rig.limit(limits);
    rig.load(&resources(&documents())?)?;
    rig.probe()?;
    Ok(rig)
}

/// Sends `count` times the same; how many of them pass the guard.
fn pass(rig: &Rig, tap: &str, headers: &Ipv6, payload: &Payload, count: u64) -> Result<u64> {
    rig.passed()?;
    let frame = headers.clone().carrying(payload.clone());
    for _ in 0..count {
        rig.send(tap, &frame)?;
    }
    rig.passed()
}

#[test]
fn each_vm_has_a_share_of_the_host() -> Result<()> {
    require_rig!();
    let (hosts, answers) = LIMITS;
    let limits = LimitsConfig {
        host_rate: 1,
        host_burst: hosts,
        answer_rate: 1,
        answer_burst: answers,
        ..LimitsConfig::default()
    };
    let mut rig = rig("nftshare", limits)?;
    let to_all = |tap: &str, source: Ipv6Addr| -> Result<Ipv6> {
        let destination_mac = multicast_mac(ALL_ROUTERS);
        Ok(Ipv6 { hop_limit: 255, destination_mac, ..rig.headers(tap, source, ALL_ROUTERS)? })
    };
    let report = Payload::icmpv6(143, 0, &[0; 4]);
    let solicitation = Payload::icmpv6(133, 0, &[0; 4]);
    let about = |passed: u64, burst: u32| (u64::from(burst)..u64::from(burst) + 20).contains(&passed);
    for tap in [A, B] {
        let unspecified = to_all(tap, Ipv6Addr::UNSPECIFIED)?;
        let passed = pass(&rig, tap, &unspecified, &report, 100)?;
        ensure!(about(passed, hosts), "{tap}: {passed} reports passed");
        let passed = pass(&rig, tap, &unspecified, &solicitation, 100)?;
        ensure!(about(passed, answers), "{tap}: {passed} solicitations passed");
        let own = rig.headers(tap, address(if tap == A { 1 } else { 2 }), link_local(GATEWAY_MAC))?;
        let passed = pass(&rig, tap, &own, &Payload::echo_request(1, 1, b"x"), 100)?;
        ensure!(passed < 20, "{tap}: {passed} pings to the router passed");
    }
    // What is forwarded is not the host's.
    let there = rig.headers(A, address(1), address(2))?;
    ensure!(pass(&rig, A, &there, &Payload::udp(1, 2, b"x"), 100)? == 100);
    // What VMs have sent is no change of the rules.
    let host = std::sync::Arc::clone(&rig.host);
    let nftables = &mut rig.nftables;
    ensure!(!host.enter(|| Ok(nftables.verify()?))?, "rules were written again");
    Ok(())
}

#[test]
fn a_vm_has_few_link_local_addresses() -> Result<()> {
    require_rig!();
    let rig = rig("nftlinks", LimitsConfig::default())?;
    let from = |number: u16| -> Result<u64> {
        let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xbad, 0, number);
        let headers = rig.headers(A, source, link_local(GATEWAY_MAC))?;
        pass(&rig, A, &headers, &Payload::echo_request(1, number, b"x"), 1)
    };
    let known = LINK_LOCALS as u16;
    for number in 0..known {
        ensure!(from(number)? == 1, "address {number}");
    }
    for number in known..known + 50 {
        ensure!(from(number)? == 0, "address {number}");
    }
    ensure!(from(0)? == 1, "one that is known");
    let other = rig.headers(B, link_local(mac(2)), link_local(GATEWAY_MAC))?;
    ensure!(pass(&rig, B, &other, &Payload::echo_request(1, 1, b"x"), 1)? == 1, "another VM's");
    Ok(())
}

#[test]
fn nobody_elsewhere_has_a_vms_address() -> Result<()> {
    require_rig!();
    let rig = rig("nftspoof", LimitsConfig::default())?;
    let datagram = || Payload::udp(1, 2, b"data");
    let world = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
    let from_afar = |source| rig.frame(UPLINK, (source, address(2)), datagram());
    rig.expect("from the world", UPLINK, &from_afar(world)?, Some(B))?;
    rig.expect("in a VM's name", UPLINK, &from_afar(address(1))?, None)?;
    rig.expect("in its own", UPLINK, &from_afar(address(2))?, None)?;
    rig.expect("from the VM", A, &rig.frame(A, (address(1), address(2)), datagram())?, Some(B))?;
    Ok(())
}
