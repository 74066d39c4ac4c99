//! The arms of every benchmark: what carries frames between the TAPs `tapa` and `tapb` of a namespace. Each arm has a
//! namespace and TAPs of its own, so nothing is attached or taken off between rounds.

use crate::bare::{self, Egress};
use crate::report::KERNEL;
use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use dataplane_ebpf::abi::Counter;
use serval::apply::fastpath::{FastPath, HookReport, Settings, TcMode, XdpHook};
use serval::config::UplinkMode;
use serval::plan::{Attached, NetworkSettings};
use serval::resource::{HostAddress, MacAddress};
use serval_tests::frame::{GATEWAY_MAC, Mac, mac_text};
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
    pub mac: Mac,
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
    works: Works,
}

/// What is held while a carrier works.
enum Works {
    Serval(Box<FastPath>),
    Bare { _objects: Vec<Ebpf> },
    Kernel,
}

impl Path {
    /// Puts `carrier` between the TAPs, which are there and up.
    pub fn new(host: &Arc<Namespace>, carrier: Carrier) -> Result<Self> {
        let [a, b] = ENDS.map(|end| host.ifindex(end.tap).and_then(|index| index.context(end.tap)));
        let ifindex = [a?, b?];
        let works = match carrier {
            Carrier::Serval => serval(host, ifindex, true)?,
            Carrier::ServalTc => serval(host, ifindex, false)?,
            Carrier::BareXdp => bare(host, ifindex, bare::attach_xdp)?,
            Carrier::BareTc => bare(host, ifindex, bare::attach_tc)?,
            Carrier::Kernel => kernel(host)?,
        };
        Ok(Self { host: Arc::clone(host), ifindex, carrier, works })
    }

    /// Frames from the first TAP that `hook` has sent on so far; `None`: nothing but the carrier could have.
    pub fn sent_on(&self, hook: Hook) -> Result<Option<u64>> {
        let Works::Serval(fastpath) = &self.works else { return Ok(None) };
        let counters = fastpath.counters(self.ifindex[0])?.context("the endpoint has no counters")?;
        Ok(Some(match (hook, self.carrier) {
            (Hook::First, Carrier::Serval) => counters.get(Counter::ForwardedXdp),
            _ => counters.get(Counter::ForwardedTc),
        }))
    }
}

fn serval(host: &Namespace, ifindex: [u32; 2], xdp: bool) -> Result<Works> {
    let settings = Settings {
        pin: PathBuf::from("/sys/fs/bpf/serval"),
        max_endpoints: 1024,
        tc: TcMode::Auto,
        xdp,
        max_routes: 1024,
        uplink: UplinkMode::Off,
    };
    let attach = || {
        let mut fastpath = FastPath::open(&settings)?;
        for (end, ifindex) in ENDS.iter().zip(ifindex) {
            let report: HookReport = fastpath.apply(&attached(end, ifindex)?, &[])?;
            ensure!(!xdp || report.xdp == XdpHook::Native, "no native XDP on {}: {report:?}", end.tap);
        }
        Ok(Works::Serval(Box::new(fastpath)))
    };
    host.enter(attach)
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

fn kernel(host: &Namespace) -> Result<Works> {
    host.set_sysctl("net/ipv6/conf/all/forwarding", 1)?;
    for End { tap, mac, address } in ENDS {
        host.ip(&format!("route add {address}/128 dev {tap}"))?;
        host.ip(&format!("neighbour add {address} lladdr {} dev {tap} nud permanent", mac_text(mac)))?;
    }
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
