//! A host with two uplinks, each to a router of its own, and the world behind both: equal ways to everywhere. Routers
//! and host find each other by BGP; their configurations are the test's.

use crate::cloud::subnet;
use crate::host::Host;
use crate::netns::Namespace;
use anyhow::Result;
use std::net::Ipv6Addr;

/// What the world is behind both routers.
pub const WORLD_PREFIX: &str = "2001:db8:77::/64";

/// The world's address, which both lead to.
pub const WORLD: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 2);

/// The two ways.
pub const WAYS: [u8; 2] = [1, 2];

/// The host, its routers and the world.
#[derive(Debug)]
pub struct Racks {
    /// The host; its interface `up<n>` leads to router n.
    pub host: Host,
    /// The routers; `host` leads to the host, `world` to the world.
    routers: Vec<Namespace>,
    /// Someone far away.
    pub world: Namespace,
}

impl Racks {
    /// Makes all of them, without any BGP and without a daemon.
    pub fn new(label: &str) -> Result<Self> {
        let host = Host::new(label)?;
        host.put("subnet.yaml", subnet().document())?;
        let world = Namespace::new(&format!("{label}-world"))?;
        world.add_address("lo", WORLD)?;
        let mut routers = Vec::new();
        for way in WAYS {
            let router = Namespace::new(&format!("{label}-tor{way}"))?;
            router.set_sysctl("net/ipv6/conf/all/forwarding", 1)?;
            let (inside, far) = (host.namespace.path(), world.path());
            // A veth takes frames that XDP redirects to it when its peer does GRO.
            router.ip(&format!("link add host type veth peer name up{way} netns {inside}"))?;
            router.run("ethtool -K host gro on")?;
            router.ip(&format!("link add world type veth peer name eth{way} netns {far}"))?;
            for (namespace, interface, address) in [
                (&router, "host".to_owned(), router_address(way)),
                (&host.namespace, format!("up{way}"), host_address(way)),
                (&router, "world".to_owned(), far_address(way, 1)),
                (&world, format!("eth{way}"), far_address(way, 2)),
            ] {
                namespace.ip(&format!("link set {interface} up"))?;
                namespace.ip(&format!("address add {address}/64 dev {interface} nodad"))?;
            }
            router.ip(&format!("route add {WORLD_PREFIX} via {}", far_address(way, 2)))?;
            routers.push(router);
        }
        let ways = WAYS.map(|way| format!("nexthop via {} dev eth{way}", far_address(way, 1)));
        world.ip(&format!("-6 route add default {}", ways.join(" ")))?;
        Ok(Self { host, routers, world })
    }

    /// Router `way`.
    pub fn router(&self, way: u8) -> &Namespace {
        &self.routers[usize::from(way) - 1]
    }

    /// Packets that each router has forwarded.
    pub fn forwarded(&self) -> Result<[u64; 2]> {
        Ok([self.router(1).kernel_forwarded()?, self.router(2).kernel_forwarded()?])
    }
}

/// The address of router `way` towards the host.
pub fn router_address(way: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xfab, u16::from(way), 0, 0, 0, 0xff)
}

/// The host's address towards router `way`.
pub fn host_address(way: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xfab, u16::from(way), 0, 0, 0, 1)
}

fn far_address(way: u8, end: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x78, u16::from(way), 0, 0, 0, end)
}
