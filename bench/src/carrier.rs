//! The arms of every benchmark: what carries frames between the TAPs `tapa` and `tapb` of a namespace. Each arm has a
//! namespace and TAPs of its own, so nothing is attached or taken off between rounds.

use crate::bare::{self, Egress};
use crate::destinations::{Destinations, next_hop_address, next_hop_mac};
use crate::measure::Between;
use crate::report::KERNEL;
use crate::rounds::{Arm, Work};
use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use dataplane_ebpf::abi::{
    Counter, MAX_NEXT_HOPS, Mac, NextHop, NextHopGroup, Route, Uplink, next_hop_flags,
};
use serval::apply::fastpath::{FastPath, HookReport, RouteMaps, Settings, TcMode, XdpHook};
use serval::config::{LimitsConfig, UplinkMode};
use serval::plan::{Attached, NetworkSettings};
use serval::resource::{HostAddress, MacAddress};
use serval_tests::frame::{self, GATEWAY_MAC, mac_text};
use serval_tests::netns::Namespace;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::Arc;

/// One of the two ends.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The TAP on the host.
    pub tap: &'static str,
    /// MAC of the VM behind it.
    pub mac: frame::Mac,
    /// Address of that VM.
    pub address: Ipv6Addr,
}

/// Who sends, and who receives.
pub const ENDS: [End; 2] = [
    End { tap: "tapa", mac: [0xfa, 0x16, 0x3e, 0, 0, 0xa], address: address(0xa) },
    End { tap: "tapb", mac: [0xfa, 0x16, 0x3e, 0, 0, 0xb], address: address(0xb) },
];

const MTU: u32 = 1500;

const fn address(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
}

/// What carries frames from one TAP to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Serval as it runs in production: XDP, and TC for what XDP hands on.
    Serval,
    /// Serval without XDP.
    ServalTc,
    /// XDP that does nothing but redirect.
    BareXdp,
    /// TC that does nothing but redirect.
    BareTc,
    /// The kernel's own forwarding, with host routes and permanent neighbours.
    Kernel,
}

impl Carrier {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serval => "serval",
            Self::ServalTc => "serval, TC only",
            Self::BareXdp => "bare XDP redirect",
            Self::BareTc => "bare TC redirect",
            Self::Kernel => KERNEL,
        }
    }

    /// Whether it is a router, which counts the hop limit down.
    pub const fn routes(self) -> bool {
        matches!(self, Self::Serval | Self::ServalTc | Self::Kernel)
    }
}

/// Who takes part, each with the arm that nothing on its hook can beat.
#[derive(Clone, Copy)]
pub struct Contest(pub &'static [(Carrier, Option<Carrier>)]);

/// With frames that XDP can finish.
pub const SMALL: Contest = Contest(&[
    (Carrier::Serval, Some(Carrier::BareXdp)),
    (Carrier::BareXdp, None),
    (Carrier::ServalTc, Some(Carrier::BareTc)),
    (Carrier::BareTc, None),
    (Carrier::Kernel, None),
]);

/// With frames that XDP has to leave to TC.
pub const LARGE: Contest = Contest(&[
    (Carrier::Serval, Some(Carrier::BareTc)),
    (Carrier::ServalTc, Some(Carrier::BareTc)),
    (Carrier::BareTc, None),
    (Carrier::Kernel, None),
]);

impl Contest {
    /// An arm for each, with the work that `make` gives it.
    pub fn arms(self, mut make: impl FnMut(Carrier) -> Result<Box<dyn Work>>) -> Result<Vec<Arm>> {
        let arm = |(carrier, limit): &(Carrier, Option<Carrier>)| {
            Ok(Arm {
                name: carrier.name().to_owned(),
                limit: limit.map(|limit| limit.name().to_owned()),
                kernel: KERNEL.to_owned(),
                size: None,
                work: make(*carrier)?,
            })
        };
        self.0.iter().map(arm).collect()
    }
}

/// What is behind the second TAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Far {
    /// A VM.
    Endpoint,
    /// Other hosts, and routes to these destinations.
    Uplink(Destinations),
}

/// Which of a carrier's hooks must do the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The first that it has: XDP before TC.
    First,
    /// TC, for frames that XDP has to leave alone.
    Tc,
}

/// A carrier at work.
pub struct Path {
    /// Where it works.
    pub host: Arc<Namespace>,
    /// Ifindex of both TAPs.
    pub ifindex: [u32; 2],
    /// What works.
    pub carrier: Carrier,
    hook: Hook,
    works: Works,
}

/// What is held while a carrier works.
enum Works {
    Serval(Box<FastPath>),
    Bare { _objects: Vec<Ebpf> },
    Kernel,
}

impl Path {
    /// Puts `carrier` between the TAPs, which are there and up. Frames of the first TAP are up to `hook`.
    pub fn new(host: &Arc<Namespace>, carrier: Carrier, far: Far, hook: Hook) -> Result<Self> {
        let [a, b] = ENDS.map(|end| host.ifindex(end.tap).and_then(|index| index.context(end.tap)));
        let ifindex = [a?, b?];
        let works = match carrier {
            Carrier::Serval => serval(host, ifindex, true, far)?,
            Carrier::ServalTc => serval(host, ifindex, false, far)?,
            Carrier::BareXdp => bare(host, ifindex, bare::attach_xdp)?,
            Carrier::BareTc => bare(host, ifindex, bare::attach_tc)?,
            Carrier::Kernel => kernel(host, far)?,
        };
        Ok(Self { host: Arc::clone(host), ifindex, carrier, hook, works })
    }
}

impl Between for Path {
    fn sent_on(&self) -> Result<Option<u64>> {
        let Works::Serval(fastpath) = &self.works else { return Ok(None) };
        let counters = fastpath.counters(self.ifindex[0])?.context("the endpoint has no counters")?;
        Ok(Some(match (self.hook, self.carrier) {
            (Hook::First, Carrier::Serval) => counters.get(Counter::ForwardedXdp),
            _ => counters.get(Counter::ForwardedTc),
        }))
    }
}

fn serval(host: &Namespace, ifindex: [u32; 2], xdp: bool, far: Far) -> Result<Works> {
    let limits = LimitsConfig::default();
    let settings = Settings {
        pin: PathBuf::from("/sys/fs/bpf/serval"),
        max_endpoints: limits.endpoints,
        tc: TcMode::Auto,
        xdp,
        max_routes: limits.routes,
        uplink: UplinkMode::Off,
        policed: false,
        host_is_open: false,
        max_flows: 1,
        flows_per_endpoint: 1,
    };
    let attach = || {
        let mut fastpath = FastPath::open(&settings)?;
        let endpoints = match far {
            Far::Endpoint => &ENDS[..],
            Far::Uplink(_) => &ENDS[..1],
        };
        for (end, ifindex) in endpoints.iter().zip(ifindex) {
            let report: HookReport = fastpath.apply(&attached(end, ifindex)?, &[])?;
            ensure!(!xdp || report.xdp == XdpHook::Native, "no native XDP on {}: {report:?}", end.tap);
        }
        if let Far::Uplink(destinations) = far {
            let mac = Mac::new(GATEWAY_MAC);
            for outcome in fastpath.apply_uplinks(&[(ifindex[1], Uplink { mac })].into())?.into_values() {
                outcome?;
            }
            let routes = fastpath.take_routes().context("the maps of routes are taken")?;
            write_routes(&routes, destinations, ifindex[1])?;
        }
        Ok(Works::Serval(Box::new(fastpath)))
    };
    host.enter(attach)
}

/// Writes what the daemon writes when the kernel has these routes and knows their next hops.
fn write_routes(maps: &RouteMaps, destinations: Destinations, ifindex: u32) -> Result<()> {
    let group = |next_hop: u32| {
        let hop = NextHop {
            upper_bound: u32::MAX,
            ifindex,
            mtu: MTU,
            flags: next_hop_flags::RESOLVED | next_hop_flags::XDP,
            mac: Mac::new(next_hop_mac(next_hop)),
            source_mac: Mac::new(GATEWAY_MAC),
        };
        let mut hops = [NextHop::default(); MAX_NEXT_HOPS];
        hops[0] = hop;
        (group_of(next_hop), NextHopGroup { count: 1, hops })
    };
    maps.set_groups(&(0..destinations.next_hops()).map(group).collect::<Vec<_>>())?;
    let route = |number| {
        let group = group_of(destinations.next_hop(number));
        (destinations.route(number), Route { group, mtu: 0 })
    };
    Ok(maps.set_routes(&destinations.numbers().map(route).collect::<Vec<_>>())?)
}

/// The group of a next hop; 0 means none.
const fn group_of(next_hop: u32) -> u32 {
    next_hop + 1
}

fn bare(host: &Namespace, ifindex: [u32; 2], attach: fn(&str, Egress) -> Result<Ebpf>) -> Result<Works> {
    let ways = [(ENDS[0], ENDS[1], ifindex[1]), (ENDS[1], ENDS[0], ifindex[0])];
    let attach = || {
        let objects =
            ways.map(|(from, to, ifindex)| attach(from.tap, Egress { ifindex, macs: [to.mac, GATEWAY_MAC] }));
        Ok(Works::Bare { _objects: objects.into_iter().collect::<Result<_>>()? })
    };
    host.enter(attach)
}

fn kernel(host: &Namespace, far: Far) -> Result<Works> {
    host.set_sysctl("net/ipv6/conf/all/forwarding", 1)?;
    let neighbour = |address, mac, tap| {
        format!("neighbour add {address} lladdr {} dev {tap} nud permanent\n", mac_text(mac))
    };
    let mut batch = String::new();
    match far {
        Far::Endpoint => {
            for End { tap, mac, address } in ENDS {
                batch += &format!("route add {address}/128 dev {tap}\n");
                batch += &neighbour(address, mac, tap);
            }
        }
        Far::Uplink(destinations) => {
            let tap = ENDS[1].tap;
            for next_hop in 0..destinations.next_hops() {
                batch += &neighbour(next_hop_address(next_hop), next_hop_mac(next_hop), tap);
            }
            for number in destinations.numbers() {
                let (address, bits) = destinations.route(number);
                let next_hop = next_hop_address(destinations.next_hop(number));
                batch += &format!("route add {address}/{bits} via {next_hop} dev {tap}\n");
            }
        }
    }
    host.ip_batch(&batch)?;
    Ok(Works::Kernel)
}

fn attached(end: &End, ifindex: u32) -> Result<Attached> {
    let gateway_mac = MacAddress::new(GATEWAY_MAC).context("gateway MAC")?;
    let address = HostAddress::new(end.address)?;
    Ok(Attached {
        interface: end.tap.parse()?,
        ifindex,
        admin_up: true,
        carrier: true,
        mtu: MTU,
        mac: MacAddress::new(end.mac).context("MAC")?,
        gateway_mac,
        gateway: gateway_mac.link_local(),
        gateways: Vec::new(),
        leased: vec![address],
        addresses: vec![address],
        network: NetworkSettings {
            dns_servers: Vec::new(),
            search_domains: Vec::new(),
            ntp_servers: Vec::new(),
            fqdn: None,
            valid_lifetime: 86400,
            router_lifetime: 9000,
        },
    })
}
