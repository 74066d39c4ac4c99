//! The case table against the rules: what the data plane drops never gets past them, and what it forwards comes out as the
//! same bytes.

use crate::rig::{NODE, Rig, UPLINK, global, resources};
use anyhow::{Result, ensure};
use dataplane_ebpf::abi::Reason;
use dataplane_ebpf::decide::{Action, Hook};
use serval_tests::cases::{self, Case, VM_A, VM_B, VM_C};
use serval_tests::frame::{Frame, checksum_holds, icmpv6_type, mac_text};
use serval_tests::program::Origin;
use serval_tests::require_rig;
use serval_tests::tap::VnetHeader;

/// What the guard says, not discovery, policy or the tables of the fast path.
const GUARD: [Reason; 11] = [
    Reason::SourceMac,
    Reason::Malformed,
    Reason::FragmentChain,
    Reason::HeaderChain,
    Reason::RoutingHeader,
    Reason::RouterAdvertisement,
    Reason::Redirect,
    Reason::Dhcp6Server,
    Reason::NdHidden,
    Reason::GatewaySpoof,
    Reason::SourceAddress,
];

/// Three VMs as in the case table, who may do everything that the guard lets them.
fn rig() -> Result<Rig> {
    let vms = [("tap1", &VM_A), ("tap2", &VM_B), ("tap3", &VM_C)];
    let mut rig = Rig::new("nfttable", &vms.map(|(tap, vm)| (tap, vm.mac)))?;
    let mut documents = global("all", "{ingress: [{action: Allow}], egress: [{action: Allow}]}");
    for (tap, vm) in vms {
        documents += &format!(
            "---\napiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {{name: {tap}}}\n\
             spec: {{node: {NODE}, interfaceName: {tap}, mac: '{}', ipNetworks: ['{}/128', '{}/128'], \
             ipv6Gateway: '2001:db8:a::ffff'}}\n",
            mac_text(vm.mac),
            vm.address,
            vm.second,
        );
        rig.route(vm.address, tap)?;
        rig.route(vm.second, tap)?;
        rig.host.ip(&format!("link set {tap} mtu {}", vm.mtu))?;
    }
    rig.open_host();
    rig.load(&resources(&documents)?)?;
    // Whoever comes here has passed the guard.
    rig.host.run("nft add table ip6 probe")?;
    rig.host.run("nft add counter ip6 probe passed")?;
    rig.host.run("nft add chain ip6 probe passed { type filter hook prerouting priority 0 ; }")?;
    rig.host.run(&format!("nft add rule ip6 probe passed iifname != {UPLINK} counter name passed"))?;
    Ok(rig)
}

/// How many packets have passed the guard since the last time.
fn passed(rig: &Rig) -> Result<u64> {
    let text = rig.host.run("nft reset counter ip6 probe passed")?;
    let number = text.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    number.ok_or_else(|| anyhow::anyhow!("{text}"))
}

fn frame(case: &Case) -> Frame {
    Frame { header: VnetHeader::default(), bytes: case.frame.bytes.clone() }
}

/// Cases of frames that a TAP takes as they are.
fn plain() -> impl Iterator<Item = Case> {
    cases::all().into_iter().filter(|case| case.frame.gso_size == 0 && case.frame.vlan.is_none())
}

#[test]
fn what_the_guard_drops_the_rules_drop() -> Result<()> {
    require_rig!();
    let rig = rig()?;
    let is_guard = |case: &Case| {
        // The kernel follows any number of headers, and the rules see what it finds at their end.
        if ["more headers than are followed", "128 headers"].contains(&case.name) {
            return false;
        }
        let labels: Vec<_> = case.expected(Hook::Tc).counted.keys().map(|(_, label)| *label).collect();
        GUARD.iter().any(|reason| labels.contains(&reason.label()))
    };
    let mut failed = Vec::new();
    let mut count = 0;
    passed(&rig)?;
    for case in plain().filter(|case| case.origin == Origin::Vm && is_guard(case)) {
        count += 1;
        let out = rig.send("tap1", &frame(&case))?;
        if passed(&rig)? != 0 || !out.is_empty() {
            failed.push(case.name);
        }
    }
    println!("{count} cases");
    ensure!(failed.is_empty(), "of {count}, these passed: {failed:#?}");
    Ok(())
}

#[test]
fn what_is_forwarded_comes_out_as_the_same_bytes() -> Result<()> {
    require_rig!();
    let rig = rig()?;
    let mut failed = Vec::new();
    let mut count = 0;
    for case in plain() {
        let expected = case.expected(Hook::Tc);
        let (Action::Redirect(_), Some(bytes)) = (expected.action, &expected.bytes) else { continue };
        let to = [("tap2", &VM_B), ("tap3", &VM_C)].into_iter().find(|(_, vm)| bytes[..6] == vm.mac);
        // A checksum that is wrong, or left to a device, belongs to no flow; nor does an error about nothing.
        let is_error = icmpv6_type(&case.frame.bytes).is_some_and(|kind| kind < 128);
        let (Some((to, _)), true) = (to, checksum_holds(&case.frame.bytes) && !is_error) else { continue };
        let from = if case.origin == Origin::Vm { "tap1" } else { UPLINK };
        let mut frame = frame(&case);
        if case.origin == Origin::Uplink {
            // The uplink has another MAC here.
            frame.bytes[..6].copy_from_slice(&serval_tests::frame::GATEWAY_MAC);
        }
        count += 1;
        let out = rig.send(from, &frame)?;
        if out != [(to.to_owned(), bytes.clone())] {
            failed.push(format!("{}: {out:02x?}", case.name));
        }
    }
    println!("{count} cases");
    ensure!(failed.is_empty(), "of {count}, these differ:\n{}", failed.join("\n"));
    Ok(())
}
