//! Several hosts on one link, and the world behind a router: what a cloud's network is to its hosts. The router is a
//! bridge with all hosts' cables in it that also routes, as a top-of-rack switch does. Nobody speaks BGP unasked: routes
//! are what tests say with [`Fabric::route`], or what BIRDs find when tests configure them ([`crate::bgp`]).

use crate::cloud::subnet;
use crate::host::Host;
use crate::netns::Namespace;
use anyhow::Result;
use std::net::Ipv6Addr;

/// The link between the hosts.
pub const LINK: &str = "2001:db8:fab::/64";

/// The interface of every host towards the others.
pub const UPLINK: &str = "up0";

/// The router's address on the link.
pub const ROUTER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xfab, 0, 0, 0, 0, 0xff);

/// The world's address.
pub const WORLD: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 2);

/// The router's address towards the world.
pub const WORLD_ROUTER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 1);

/// Metric of routes to VMs elsewhere: worse than that of a host's own.
const METRIC: u32 = 2048;

/// Hosts 1 to n, their router and the world.
#[derive(Debug)]
pub struct Fabric {
    hosts: Vec<Host>,
    /// The router; its interface `world` leads to the world, `host<n>` to host n.
    pub router: Namespace,
    /// Someone far away, on `eth0`.
    pub world: Namespace,
}

impl Fabric {
    /// Makes `count` hosts, each with the tenant's Subnet, a default route to the router, and no daemon yet.
    pub fn new(label: &str, count: u8) -> Result<Self> {
        Self::of(label, count, Host::new)
    }

    /// The same with hosts on which policy counts.
    pub fn policed(label: &str, count: u8) -> Result<Self> {
        Self::of(label, count, Host::policed)
    }

    fn of(label: &str, count: u8, host: fn(&str) -> Result<Host>) -> Result<Self> {
        let router = Namespace::new(&format!("{label}-router"))?;
        router.set_sysctl("net/ipv6/conf/all/forwarding", 1)?;
        router.ip("link add br0 type bridge mcast_snooping 0")?;
        router.ip("link set br0 up")?;
        router.ip(&format!("address add {ROUTER}/64 dev br0 nodad"))?;
        let world = Namespace::new(&format!("{label}-world"))?;
        router.ip(&format!("link add world type veth peer name eth0 netns {}", world.path()))?;
        router.ip("link set world up")?;
        router.ip(&format!("address add {WORLD_ROUTER}/64 dev world nodad"))?;
        world.ip("link set eth0 up")?;
        world.ip(&format!("address add {WORLD}/64 dev eth0 nodad"))?;
        world.ip(&format!("route add default via {WORLD_ROUTER} dev eth0"))?;
        let mut fabric = Self { hosts: Vec::new(), router, world };
        for number in 1..=count {
            let host = fabric.join(host(&format!("{label}{number}"))?, number)?;
            fabric.hosts.push(host);
        }
        Ok(fabric)
    }

    /// The same with all daemons started.
    pub fn started(label: &str, count: u8) -> Result<Self> {
        let mut fabric = Self::new(label, count)?;
        fabric.start()?;
        Ok(fabric)
    }

    /// Starts the daemons of all hosts at once.
    pub fn start(&mut self) -> Result<()> {
        for host in &mut self.hosts {
            host.launch()?;
        }
        for host in &mut self.hosts {
            host.wait_ready()?;
        }
        Ok(())
    }

    /// Host `number`, from 1 on.
    pub fn host(&self, number: u8) -> &Host {
        &self.hosts[usize::from(number) - 1]
    }

    /// The same, to start and stop it.
    pub fn host_mut(&mut self, number: u8) -> &mut Host {
        &mut self.hosts[usize::from(number) - 1]
    }

    /// All hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// From now on the router and all other hosts reach `destination` by host `number`.
    pub fn route(&self, destination: Ipv6Addr, number: u8) -> Result<()> {
        let route = format!("route replace {destination}/128 via {} metric {METRIC}", host_address(number));
        self.router.ip(&route)?;
        for (other, host) in (1u8..).zip(&self.hosts) {
            if other == number {
                // Its own endpoint's route is another, of the daemon.
                host.namespace.ip(&format!("route flush {destination}/128 metric {METRIC}"))?;
            } else {
                host.namespace.ip(&route)?;
            }
        }
        Ok(())
    }

    /// Lets XDP redirect to the uplink of host `number`: a veth takes such frames when its peer does GRO.
    pub fn take_redirects(&self, number: u8) -> Result<()> {
        self.router.run(&format!("ethtool -K host{number} gro on")).map(drop)
    }

    /// Takes the cable of host `number` out of the router, and leaves light on it: the host sees nothing but silence.
    pub fn silence(&self, number: u8) -> Result<()> {
        self.router.ip(&format!("link set host{number} nomaster")).map(drop)
    }

    fn join(&self, host: Host, number: u8) -> Result<Host> {
        let (port, inside) = (format!("host{number}"), &host.namespace);
        self.router.ip(&format!("link add {port} type veth peer name {UPLINK} netns {}", inside.path()))?;
        self.router.ip(&format!("link set {port} master br0 up"))?;
        inside.ip(&format!("link set {UPLINK} up"))?;
        inside.ip(&format!("address add {}/64 dev {UPLINK} nodad", host_address(number)))?;
        inside.ip(&format!("route add default via {ROUTER} dev {UPLINK}"))?;
        host.put("subnet.yaml", subnet().document())?;
        Ok(host)
    }
}

/// The address of host `number` on the link.
pub fn host_address(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xfab, 0, 0, 0, 0, u16::from(number))
}
