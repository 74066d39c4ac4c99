//! Serval between the TAPs, as its daemon would put it there.

use super::setting::Routed;
use super::{End, Far, MTU, Setting};
use crate::destinations::next_hop_mac;
use crate::policy::{Policy, endpoint};
use anyhow::{Context, Result, ensure};
use dataplane_ebpf::abi::{Counters, MAX_NEXT_HOPS, Mac, NextHop, NextHopGroup, Rate, Route, next_hop_flags};
use serval::apply::fastpath::{FastPath, HookReport, RouteMaps, Settings, TcMode, XdpHook};
use serval::apply::policy::PolicyPath;
use serval::config::{LimitsConfig, UplinkMode};
use serval::plan::policy::Direction;
use serval::plan::{Attached, NetworkSettings};
use serval::resource::{HostAddress, MacAddress};
use serval::serve::advertise;
use serval_tests::frame::GATEWAY_MAC;
use serval_tests::netns::Namespace;
use std::path::PathBuf;

/// Most answers a second that `limits.answer_rate` takes.
const MAX_RATE: u32 = 1_000_000;

/// The fast path at work.
pub struct Serval {
    fastpath: FastPath,
    /// Unless policy does not count.
    policy: Option<PolicyPath>,
}

/// What of it is there.
#[derive(Clone, Copy, Debug)]
pub struct Attachments {
    /// XDP on TAPs of VMs.
    pub xdp: bool,
    /// Policy.
    pub policed: bool,
    /// The programs of uplinks.
    pub uplink: UplinkMode,
}

impl Serval {
    /// Attaches it to the TAPs.
    pub fn new(
        host: &Namespace,
        ifindex: &[u32],
        attachments: Attachments,
        setting: &Setting,
    ) -> Result<Self> {
        host.enter(|| attach(ifindex, attachments, setting))
    }

    /// Has XDP rest on a TAP, as the daemon does while its VM sends long frames.
    pub fn rest(&mut self, ifindex: u32) -> Result<()> {
        let report = self.fastpath.rest(ifindex, true).context("the TAP has no endpoint")?;
        ensure!(report.xdp == XdpHook::Off, "{report:?}");
        Ok(())
    }

    /// Counters of the endpoint behind a TAP.
    pub fn counters(&self, ifindex: u32) -> Result<Counters> {
        self.fastpath.counters(ifindex)?.context("the endpoint has no counters")
    }

    /// Packets to VMs that rules have let pass so far: first packets of flows. `None`: without policy.
    pub fn judged(&self) -> Result<Option<u64>> {
        let Some(policy) = &self.policy else { return Ok(None) };
        let counted = policy.counted()?.into_iter();
        let ingress = counted.filter(|(direction, _, _)| *direction == Direction::Ingress);
        Ok(Some(ingress.map(|(_, _, counted)| counted.packets).sum()))
    }
}

fn attach(ifindex: &[u32], attachments: Attachments, setting: &Setting) -> Result<Serval> {
    let Attachments { xdp, policed, uplink } = attachments;
    let limits = LimitsConfig::default();
    let owned = setting.far.owned().count();
    // Who measures what an answer costs wants the most that the configuration takes, so that there is a limit to look at;
    // who floods has no more than anybody.
    let (answer_rate, host_rate) = match setting.far {
        Far::Crowd => (
            Rate::new(limits.answer_rate, limits.answer_burst),
            Rate::new(limits.host_rate, limits.host_burst),
        ),
        _ => (Rate::new(MAX_RATE, MAX_RATE), Rate::UNLIMITED),
    };
    let settings = Settings {
        pin: PathBuf::from("/sys/fs/bpf/serval"),
        max_endpoints: limits.endpoints.max(u32::try_from(owned)?),
        tc: TcMode::Auto,
        xdp,
        max_routes: limits.routes,
        uplink,
        policed,
        host_is_open: false,
        host_is_judged: false,
        max_flows: if policed { limits.flows } else { 1 },
        flows_per_endpoint: setting.flows.max(limits.flows_per_endpoint),
        answer_rate,
        host_rate,
    };
    let mut fastpath = FastPath::open(&settings)?;
    let ends = setting.taps();
    let endpoints = setting.endpoints();
    let policy = match fastpath.take_policy() {
        Some(maps) => {
            let taps = endpoints.iter().map(|(end, _)| (ends[*end].tap, ifindex[*end]));
            Some(write_policy(PolicyPath::open(maps), setting.policy, taps)?)
        }
        None => None,
    };
    for (number, addresses) in endpoints {
        let end = &ends[number];
        let addresses = addresses.into_iter().map(HostAddress::new).collect::<Result<_, _>>()?;
        let attached = attached(end, ifindex[number], addresses)?;
        let report: HookReport = fastpath.apply(&attached, &advertise::render(&attached))?;
        ensure!(!xdp || report.xdp == XdpHook::Native, "no native XDP on {}: {report:?}", end.tap);
    }
    if let Some(routed) = setting.routed() {
        let ifindex = ifindex[routed.end];
        let mac = Mac::new(GATEWAY_MAC);
        for outcome in fastpath.apply_uplinks(&[(ifindex, mac)].into())?.into_values() {
            let report = outcome?;
            let native = report.xdp == XdpHook::Native;
            ensure!(uplink != UplinkMode::Xdp || native, "no native XDP on the uplink: {report:?}");
        }
        let routes = fastpath.take_routes().context("the maps of routes are taken")?;
        write_routes(&routes, routed, ifindex)?;
    }
    Ok(Serval { fastpath, policy })
}

fn write_policy<'a>(
    mut path: PolicyPath,
    policy: Policy,
    taps: impl Iterator<Item = (&'a str, u32)>,
) -> Result<PolicyPath> {
    let compiled = policy.compiled()?;
    let names = taps.map(|(tap, ifindex)| {
        let name = endpoint(&compiled, tap).with_context(|| format!("no endpoint has {tap}"))?;
        Ok((ifindex, name.clone()))
    });
    let attached = names.collect::<Result<_>>()?;
    let faults: Vec<_> = compiled.endpoints.values().filter_map(|policy| policy.fault.as_ref()).collect();
    ensure!(faults.is_empty(), "policy is too much: {faults:?}");
    path.set_policies(&compiled, &attached)?;
    Ok(path)
}

/// Writes what the daemon writes when the kernel has these routes and knows their next hops.
fn write_routes(maps: &RouteMaps, routed: Routed, ifindex: u32) -> Result<()> {
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
    maps.set_groups(&(0..routed.next_hops).map(group).collect::<Vec<_>>())?;
    let route = |(to, next_hop)| (to, Route { group: group_of(next_hop), mtu: 0 });
    Ok(maps.set_routes(&routed.routes.into_iter().map(route).collect::<Vec<_>>())?)
}

/// The group of a next hop; 0 means none.
const fn group_of(next_hop: u32) -> u32 {
    next_hop + 1
}

fn attached(end: &End, ifindex: u32, addresses: Vec<HostAddress>) -> Result<Attached> {
    let gateway_mac = MacAddress::new(GATEWAY_MAC).context("gateway MAC")?;
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
        leased: addresses.clone(),
        addresses,
        network: NetworkSettings::default(),
    })
}
