//! The case table against the rules: what the data plane drops never gets past them, and what it forwards comes out as the
//! same bytes.

use crate::rig::{NODE, Rig, UPLINK, global, resources};
use anyhow::{Result, ensure};
use dataplane_ebpf::abi::Reason;
use dataplane_ebpf::decide::{Action, Hook};
use serval_tests::cases::{self, Case, UPLINK_MAC, VM_A, VM_B, VM_C};
use serval_tests::frame::{Frame, GATEWAY_MAC, checksum_holds, icmpv6_type, mac_text};
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
    rig.probe()?;
    Ok(rig)
}

/// The frame of a case; the uplink has another MAC here.
fn frame(case: &Case) -> Frame {
    let mut bytes = case.frame.bytes.clone();
    if case.origin == Origin::Uplink && bytes[..6] == UPLINK_MAC {
        bytes[..6].copy_from_slice(&GATEWAY_MAC);
    }
    Frame { header: VnetHeader::default(), bytes }
}

/// The guard drops it where TC sees it. The kernel follows any number of headers, and the rules see what it finds at their
/// end.
fn is_guarded(case: &Case) -> bool {
    let labels: Vec<_> = case.expected(Hook::Tc).counted.keys().map(|(_, label)| *label).collect();
    !case.name.ends_with("more headers than are followed")
        && case.name != "128 headers"
        && GUARD.iter().any(|reason| labels.contains(&reason.label()))
}

/// Cases of frames that a TAP takes as they are.
fn plain() -> impl Iterator<Item = Case> {
    cases::all().into_iter().filter(|case| case.frame.gso_size == 0 && case.frame.vlan.is_none())
}

#[test]
fn what_the_guard_drops_the_rules_drop() -> Result<()> {
    require_rig!();
    let rig = rig()?;
    let mut failed = Vec::new();
    let mut count = 0;
    rig.passed()?;
    for case in plain().filter(|case| case.origin == Origin::Vm && is_guarded(case)) {
        count += 1;
        let out = rig.send("tap1", &frame(&case))?;
        if rig.passed()? != 0 || !out.is_empty() {
            failed.push(case.name);
        }
    }
    println!("{count} cases");
    ensure!(failed.is_empty(), "of {count}, these passed: {failed:#?}");
    Ok(())
}

#[test]
fn what_must_not_come_from_afar_comes_to_no_vm() -> Result<()> {
    require_rig!();
    let rig = rig()?;
    let mut failed = Vec::new();
    let mut count = 0;
    for case in plain().filter(|case| case.origin == Origin::Uplink && is_guarded(case)) {
        count += 1;
        if !rig.send(UPLINK, &frame(&case))?.is_empty() {
            failed.push(case.name);
        }
    }
    println!("{count} cases");
    ensure!(count > 0 && failed.is_empty(), "of {count}, these came to a VM: {failed:#?}");
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
        count += 1;
        let out = rig.send(from, &frame(&case))?;
        if out != [(to.to_owned(), bytes.clone())] {
            failed.push(format!("{}: {out:02x?}", case.name));
        }
    }
    println!("{count} cases");
    ensure!(failed.is_empty(), "of {count}, these differ:\n{}", failed.join("\n"));
    Ok(())
}
