//! No path is a way round: what XDP and TC leave to the kernel is judged once, by the same policy.

use super::rig::{Cloud, Who::Vm, Who::World};
use anyhow::{Context, Result, ensure};
use nix::sys::socket::{SetSockOpt, setsockopt};
use serval_tests::cloud::{address, name, tap};
use serval_tests::host::PATIENCE;
use serval_tests::tap::Offloads;
use serval_tests::wait::eventually;
use serval_tests::{foreign, require_rig};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

/// UDP to port 80 of VM 1, from everywhere.
const WEB: (&str, &str, &str) = (
    "web",
    "vm == 'vm1'",
    "types: [Ingress], ingress: [{ action: Allow, protocol: UDP, destination: { ports: [80] } }]",
);
const OUT: (&str, &str, &str) = ("out", "vm == 'vm2'", "types: [Egress], egress: [{ action: Allow }]");

/// Hop-by-hop options in front of everything the socket sends: six bytes of padding (RFC 8200 section 4.2).
#[derive(Clone, Copy)]
struct HopByHop;

impl SetSockOpt for HopByHop {
    type Val = [u8; 8];

    fn set<F: AsFd>(&self, socket: &F, value: &[u8; 8]) -> nix::Result<()> {
        // SAFETY: the kernel reads as many bytes as it is told there are.
        let result = unsafe {
            libc::setsockopt(
                socket.as_fd().as_raw_fd(),
                libc::IPPROTO_IPV6,
                libc::IPV6_HOPOPTS,
                value.as_ptr().cast(),
                value.len() as libc::socklen_t,
            )
        };
        nix::errno::Errno::result(result).map(drop)
    }
}

/// A socket whose packets the fast path leaves to the kernel.
fn slow(socket: UdpSocket) -> Result<UdpSocket> {
    setsockopt(&socket, HopByHop, &[0, 0, 1, 4, 0, 0, 0, 0]).context("cannot set hop-by-hop options")?;
    Ok(socket)
}

fn by_kernel(cloud: &Cloud) -> Result<u64> {
    cloud.status(1)?.counter("delivered_kernel")
}

#[test]
fn a_tap_without_hooks_is_closed_and_the_others_are_not() -> Result<()> {
    require_rig!();
    let open = (
        "open",
        "all()",
        "types: [Ingress, Egress], ingress: [{ action: Allow }], egress: [{ action: Allow }]",
    );
    let cloud = Cloud::new("hookless", 3, "[fastpath]\ntc = \"clsact\"\n", Offloads::ALL, &[open])?;
    cloud.passes(World, Vm(1), 80)?;
    // Somebody else has the place of our filter, and the daemon looks at the TAP again.
    let host = &cloud.host().namespace;
    let tap = tap(1);
    host.run(&format!("tc qdisc del dev {tap} clsact"))?;
    foreign::take_first_place(host, &tap)?;
    host.run(&format!("ip link set {tap} mtu 1400"))?;
    cloud.host().wait_state(&name(1), "error")?;
    let status = cloud.status(1)?;
    println!("{}", status.reason());
    ensure!(status.reason().contains("closed") && status.reason().contains("filter"), "{status:?}");
    for (from, to) in [(Vm(1), Vm(2)), (Vm(1), World), (Vm(2), Vm(1)), (World, Vm(1))] {
        let server = super::rig::socket(cloud.namespace(to), 81)?;
        let client = super::rig::socket(cloud.namespace(from), 0)?;
        for _ in 0..5 {
            // Nobody is there, the kernel may say.
            if let Err(error) = client.send_to(b"unjudged", SocketAddr::from((to.address(), 81))) {
                println!("{error}");
            }
        }
        ensure!(super::rig::receive(&server)?.is_none(), "a datagram passed a TAP without hooks");
    }
    cloud.passes(Vm(2), Vm(3), 80)?;
    cloud.passes(World, Vm(2), 80)?;

    host.run(&format!("tc qdisc del dev {tap} clsact"))?;
    cloud.host().wait_status("the hooks back", |status| {
        status.endpoint(&name(1)).is_some_and(|endpoint| endpoint.state() == "up")
    })?;
    cloud.passes(World, Vm(1), 80)
}

#[test]
fn what_the_kernel_forwards_is_judged_too() -> Result<()> {
    require_rig!();
    let configurations = [
        ("kernel-xdp", ""),
        ("kernel-tc", "[fastpath]\nxdp = \"off\"\n"),
        ("kernel-off", "[fastpath]\nuplink = \"off\"\n"),
    ];
    for (label, configuration) in configurations {
        for (from, counted) in [(Vm(2), 2), (World, 1)] {
            let cloud = Cloud::new(label, 2, configuration, Offloads::NONE, &[WEB, OUT])?;
            let open = super::rig::socket(cloud.namespace(Vm(1)), 80)?;
            let closed = super::rig::socket(cloud.namespace(Vm(1)), 81)?;
            let client = slow(super::rig::socket(cloud.namespace(from), 0)?)?;
            let before = by_kernel(&cloud)?;
            eventually("a datagram with options", PATIENCE, || {
                client.send_to(b"slow", SocketAddr::from((address(1), 80)))?;
                super::rig::receive(&open)
            })
            .with_context(|| format!("{label}: {:?} {:?}", cloud.status(1), cloud.status(2)))?;
            ensure!(by_kernel(&cloud)? > before, "{label}: it did not go by the kernel");
            drop(open);
            let dropped = |cloud: &Cloud| -> Result<u64> {
                Ok(cloud.status(1)?.dropped_for("policy") + cloud.status(2)?.dropped_for("policy"))
            };
            let before = dropped(&cloud)?;
            client.send_to(b"slow", SocketAddr::from((address(1), 81)))?;
            eventually("a denied datagram with options to be counted", PATIENCE, || {
                Ok((dropped(&cloud)? > before).then_some(()))
            })
            .with_context(|| format!("{label}, VM {counted}"))?;
            ensure!(super::rig::receive(&closed)?.is_none(), "{label}: it passed");
            // Its answer belongs to the flow, and goes by whatever path.
            cloud.passes(from, Vm(1), 80)?;
        }
    }
    Ok(())
}
