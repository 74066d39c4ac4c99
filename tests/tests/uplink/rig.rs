//! A host with one VM that is a harness, and an uplink whose far end is one, too.

use anyhow::{Context, Result, ensure};
use serval_tests::cloud::{address, endpoint, mac, name, subnet, tap};
use serval_tests::frame::{Frame, GATEWAY_MAC, Ipv6, Mac, Payload, addresses, mac_text};
use serval_tests::guest::RawGuest;
use serval_tests::host::{Host, PATIENCE};
use serval_tests::netns::Namespace;
use serval_tests::tap::{Offloads, Options};
use serval_tests::wait::eventually;
use serval_tests::wire::Wire;
use std::net::Ipv6Addr;

/// The uplink.
pub const UPLINK: &str = "up0";
/// Its MAC.
pub const UPLINK_MAC: Mac = [2, 0, 0, 0, 0, 1];
/// The MAC of the next hop.
pub const NEXT_HOP_MAC: Mac = [2, 0, 0, 0, 1, 1];
/// The host's address on the uplink.
pub const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xfab, 0, 0, 0, 0, 1);
/// The next hop.
pub const NEXT_HOP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xfab, 0, 0, 0, 0, 2);
/// What is behind it.
pub const FAR_PREFIX: &str = "2001:db8:77::/48";
/// Somebody there.
pub const FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 2);

/// Host, VM 1 and the far end.
pub struct Scene {
    /// The host.
    pub host: Host,
    /// VM 1.
    pub guest: RawGuest,
    /// The far end.
    pub wire: Wire,
}

/// What `status` counts of VM 1, and packets that the host's kernel forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub forwarded_xdp: u64,
    pub forwarded_tc: u64,
    pub passed: u64,
    pub delivered_xdp: u64,
    pub delivered_tc: u64,
    pub by_kernel: u64,
}

impl Counted {
    /// One frame each way, neither by the kernel.
    pub fn is_fast(&self) -> bool {
        self.forwarded_xdp + self.forwarded_tc == 1
            && self.delivered_xdp + self.delivered_tc == 1
            && self.by_kernel == 0
    }
}

impl Scene {
    /// All of it, with the host configuration `more`, when frames can go both ways.
    pub fn new(label: &str, more: &str) -> Result<Self> {
        Self::prepared(label, more, |_| Ok(()))
    }

    /// The same; `prepare` comes after the uplink and before the daemon.
    pub fn prepared(label: &str, more: &str, prepare: impl FnOnce(&Namespace) -> Result<()>) -> Result<Self> {
        let mut host = Host::new(label)?;
        host.configure(more)?;
        host.put("subnet.yaml", subnet().document())?;
        let wire = connect(&host.namespace, UPLINK, UPLINK_MAC, NEXT_HOP_MAC)?;
        host.namespace.ip(&format!("address add {HOST}/64 dev {UPLINK} nodad"))?;
        lead_far(&host.namespace, UPLINK)?;
        prepare(&host.namespace)?;
        host.start()?;
        let guest = guest(&host)?;
        let scene = Self { host, guest, wire };
        scene.wait_route(FAR_PREFIX, (1, 1))?;
        Ok(scene)
    }

    /// Waits until TC and XDP use so many next hops of a route.
    pub fn wait_route(&self, destination: &str, usable: (usize, usize)) -> Result<()> {
        eventually(&format!("{destination} with {usable:?} next hops"), PATIENCE, || {
            let route = self.host.route(destination)?;
            Ok(route.filter(|route| route.usable() == usable).map(drop))
        })
        .with_context(|| format!("{:?}\n{:?}", self.host.route(destination), self.host.status()))
    }

    /// Waits until the uplink `interface` has these hooks for XDP and TC.
    pub fn wait_hooks(&self, interface: &str, hooks: (&str, &str)) -> Result<()> {
        self.host
            .wait_status(&format!("{interface} with {hooks:?}"), |status| {
                status.uplink(interface).is_some_and(|uplink| uplink.hooks() == hooks)
            })
            .map(drop)
    }

    /// What is counted by now.
    pub fn counted(&self) -> Result<Counted> {
        let endpoint = self.host.endpoint(&name(1))?;
        Ok(Counted {
            forwarded_xdp: endpoint.counter("forwarded_xdp")?,
            forwarded_tc: endpoint.counter("forwarded_tc")?,
            passed: endpoint.counter("passed")?,
            delivered_xdp: endpoint.counter("delivered_xdp")?,
            delivered_tc: endpoint.counter("delivered_tc")?,
            by_kernel: self.host.namespace.kernel_forwarded()?,
        })
    }

    /// What is counted while `work` is done.
    pub fn counting(&self, work: impl FnOnce() -> Result<()>) -> Result<Counted> {
        let before = self.counted()?;
        work()?;
        let after = self.counted()?;
        Ok(Counted {
            forwarded_xdp: after.forwarded_xdp - before.forwarded_xdp,
            forwarded_tc: after.forwarded_tc - before.forwarded_tc,
            passed: after.passed - before.passed,
            delivered_xdp: after.delivered_xdp - before.delivered_xdp,
            delivered_tc: after.delivered_tc - before.delivered_tc,
            by_kernel: after.by_kernel - before.by_kernel,
        })
    }

    /// The VM reads exactly this, among what the host says by itself.
    pub fn arrives(&self, expected: &[u8]) -> Result<()> {
        let ends = addresses(expected);
        let (_, frame) = self.guest.receive(&format!("{expected:02x?}"), |frame| addresses(frame) == ends)?;
        ensure!(frame == expected, "wanted\n{expected:02x?}\nbut read\n{frame:02x?}");
        Ok(())
    }

    /// A datagram crosses from VM to far end, and one the other way, exactly; gives what was counted.
    pub fn exchange(&self) -> Result<Counted> {
        self.exchange_with(UPLINK_MAC)
    }

    /// The same when the uplink has this MAC.
    pub fn exchange_with(&self, uplink_mac: Mac) -> Result<Counted> {
        self.counting(|| {
            let there = out().carrying(Payload::udp(1000, 2000, b"there"));
            self.guest.send(&there)?;
            self.wire.expect(&routed(&there.bytes, uplink_mac, NEXT_HOP_MAC))?;
            let back = Ipv6 { destination_mac: uplink_mac, ..inbound() };
            let back = back.carrying(Payload::udp(2000, 1000, b"back"));
            self.wire.send(&back.bytes)?;
            self.arrives(&delivered(&back))
        })
    }
}

/// Gives a host an uplink, which does not say anything by itself.
pub fn connect(host: &Namespace, interface: &str, uplink_mac: Mac, mac: Mac) -> Result<Wire> {
    host.set_sysctl("net/ipv6/conf/default/accept_ra", 0)?;
    let wire = Wire::new(host, interface, uplink_mac, mac)?;
    ensure!(host.ifindex(interface)?.is_some(), "no {interface}");
    Ok(wire)
}

/// The next hop is known, and what is far is behind it.
pub fn lead_far(host: &Namespace, interface: &str) -> Result<()> {
    host.ip(&neighbour(NEXT_HOP, NEXT_HOP_MAC, interface))?;
    host.ip(&format!("route replace {FAR_PREFIX} via {NEXT_HOP} dev {interface}")).map(drop)
}

/// VM 1, whose endpoint is up.
fn guest(host: &Host) -> Result<RawGuest> {
    host.put_endpoint(&endpoint(1))?;
    let options = Options { offloads: Offloads::NONE, ..Options::default() };
    let guest = RawGuest::new(&host.namespace, &tap(1), mac(1), options)?;
    host.wait_state(&name(1), "up")?;
    Ok(guest)
}

/// `ip` arguments that make a neighbour known for good.
pub fn neighbour(address: Ipv6Addr, mac: Mac, interface: &str) -> String {
    format!("neighbour replace {address} lladdr {} dev {interface} nud permanent", mac_text(mac))
}

/// Headers of what VM 1 sends to [`FAR`].
pub fn out() -> Ipv6 {
    Ipv6 { source: address(1), destination: FAR, ..Ipv6::new(mac(1), GATEWAY_MAC) }
}

/// Headers of what [`FAR`] sends to VM 1.
pub fn inbound() -> Ipv6 {
    Ipv6 { source: FAR, destination: address(1), ..Ipv6::new(NEXT_HOP_MAC, UPLINK_MAC) }
}

/// The frame as the next hop must see it.
pub fn sent_on(frame: &Frame) -> Vec<u8> {
    routed(&frame.bytes, UPLINK_MAC, NEXT_HOP_MAC)
}

/// The frame as VM 1 must see it.
pub fn delivered(frame: &Frame) -> Vec<u8> {
    routed(&frame.bytes, GATEWAY_MAC, mac(1))
}

/// The frame behind a router: MACs, hop limit one less, nothing else.
pub fn routed(frame: &[u8], source: Mac, destination: Mac) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    bytes[..6].copy_from_slice(&destination);
    bytes[6..12].copy_from_slice(&source);
    bytes[21] -= 1;
    bytes
}
