//! Who may talk to whom.

use super::rig::{Cloud, Who, Who::Vm, Who::World};
use anyhow::{Result, ensure};
use serval_tests::cloud::address;
use serval_tests::require_rig;
use serval_tests::tap::Offloads;
use serval_tests::traffic::{iperf3, iperf3_server, ping};
use std::time::Duration;

/// VM 1 is a web server, VM 2 its client, VM 3 a stranger.
const POLICIES: [(&str, &str, &str); 3] = [
    (
        "web",
        "vm == 'vm1'",
        "types: [Ingress], ingress: [{ action: Allow, protocol: UDP, source: { selector: \"vm == 'vm2'\" }, destination: { ports: [80] } }]",
    ),
    ("client", "vm == 'vm2'", "types: [Egress], egress: [{ action: Allow }]"),
    ("stranger", "vm == 'vm3'", "types: [Egress], egress: [{ action: Allow }]"),
];

fn labels_and_ports(label: &str, offloads: Offloads, more: &str) -> Result<()> {
    let cloud = Cloud::new(label, 3, more, offloads, &POLICIES)?;
    cloud.passes(Vm(2), Vm(1), 80)?;
    // Another port, another VM, and the world.
    cloud.is_dropped(Vm(2), Vm(1), 81, 2, "policy")?;
    cloud.is_dropped(Vm(3), Vm(1), 80, 3, "policy")?;
    cloud.is_dropped(World, Vm(1), 80, 1, "policy")?;
    // The server begins nothing itself: no policy says that it may.
    cloud.is_dropped(Vm(1), Vm(2), 80, 1, "policy")?;
    cloud.is_dropped(Vm(1), World, 80, 1, "policy")?;
    // The stranger may talk to the world, and the world not to it.
    cloud.passes(Vm(3), World, 7)?;
    cloud.is_dropped(World, Vm(3), 7, 3, "policy")?;
    ensure!(cloud.status(1)?.policies() == ["web"], "{:?}", cloud.status(1)?);
    // What is allowed goes by the fast path as ever.
    let path =
        if more.contains("off") || offloads == Offloads::ALL { "forwarded_tc" } else { "forwarded_xdp" };
    ensure!(cloud.status(2)?.counter(path)? > 0, "{:?}", cloud.status(2)?);
    Ok(())
}

#[test]
fn labels_and_ports_decide_at_xdp() -> Result<()> {
    require_rig!();
    labels_and_ports("sg-xdp", Offloads::NONE, "")
}

#[test]
fn labels_and_ports_decide_at_tc() -> Result<()> {
    require_rig!();
    labels_and_ports("sg-tc", Offloads::ALL, "")
}

#[test]
fn labels_and_ports_decide_without_xdp() -> Result<()> {
    require_rig!();
    labels_and_ports("sg-noxdp", Offloads::NONE, "[fastpath]\nxdp = \"off\"\nuplink = \"off\"\n")
}

#[test]
fn a_vm_that_no_policy_is_about_is_closed() -> Result<()> {
    require_rig!();
    let open = (
        "open",
        "vm == 'vm2'",
        "types: [Ingress, Egress], ingress: [{ action: Allow }], egress: [{ action: Allow }]",
    );
    let cloud = Cloud::new("closed", 2, "", Offloads::NONE, &[open])?;
    // The sender may, the receiver is closed; and the other way round.
    cloud.is_dropped(Vm(2), Vm(1), 80, 2, "policy")?;
    cloud.is_dropped(Vm(1), Vm(2), 80, 1, "policy")?;
    cloud.is_dropped(World, Vm(1), 80, 1, "policy")?;
    ensure!(cloud.status(1)?.policies().is_empty(), "{:?}", cloud.status(1)?);
    // It opens with the policy.
    cloud.change(1, &[("too", "all()", "types: [Ingress], ingress: [{ action: Allow }]")], &[])?;
    cloud.passes(Vm(2), Vm(1), 80)
}

#[test]
fn tcp_and_echoes_are_answered_where_only_the_question_is_allowed() -> Result<()> {
    require_rig!();
    let policies = [
        (
            "server",
            "vm == 'vm1'",
            "types: [Ingress], ingress: [{ action: Allow, protocol: TCP, destination: { ports: [5201] } }, \
          { action: Allow, protocol: ICMPv6, icmp: { type: 128 } }]",
        ),
        ("client", "vm == 'vm2'", "types: [Egress], egress: [{ action: Allow }]"),
    ];
    for offloads in [Offloads::ALL, Offloads::NONE] {
        let cloud = Cloud::new("answers", 2, "", offloads, &policies)?;
        let (from, to) = (cloud.namespace(Vm(2)), cloud.namespace(Vm(1)));
        let server = iperf3_server(to)?;
        let bulk = iperf3(from, address(1), 1)?;
        println!("{offloads:?}: {:.2} Gbit/s", bulk.bits_per_second / 1e9);
        ensure!(bulk.bits_per_second > 1e6, "{bulk:?}");
        drop(server);
        let echoes = ping(from, address(1), 5, Duration::from_millis(20))?;
        ensure!(echoes.received == 5, "{echoes:?}");
        let refused = ping(to, address(2), 2, Duration::from_millis(20))?;
        ensure!(refused.received == 0, "{refused:?}");
    }
    Ok(())
}

/// A path MTU that is learnt from errors, which policy knows to belong to a flow.
#[test]
fn errors_about_allowed_flows_arrive() -> Result<()> {
    require_rig!();
    let client = ("client", "vm == 'vm1'", "types: [Egress], egress: [{ action: Allow }]");
    let cloud = Cloud::new("errors", 1, "", Offloads::ALL, &[client])?;
    cloud.passes(Vm(1), World, 7)?;
    cloud.fabric.router.ip("link set world mtu 1400")?;
    let _server = iperf3_server(&cloud.fabric.world)?;
    let bulk = iperf3(cloud.namespace(Vm(1)), Who::World.address(), 1)?;
    let route = cloud.namespace(Vm(1)).ip(&format!("-6 route get {}", Who::World.address()))?;
    ensure!(route.contains("mtu 1400"), "path MTU not learnt: {route}; {bulk:?}");
    Ok(())
}
