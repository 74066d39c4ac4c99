//! A host that forwards by its kernel alone, TAPs of VMs, and the rules that are made of documents.

use anyhow::{Context, Result, anyhow, bail, ensure};
use serval::apply::nftables::Nftables;
use serval::config::LimitsConfig;
use serval::plan::nftables::{self, Ruleset};
use serval::plan::policy::{Tunnels, policies};
use serval::plan::{self, HostFacts, LinkFacts};
use serval::resource::Resources;
use serval::resource::document::{Content, Format, parse};
use serval_tests::frame::{Frame, GATEWAY_MAC, Ipv6, Mac, Payload, addresses, mac_text};
use serval_tests::guest::RawGuest;
use serval_tests::netns::Namespace;
use serval_tests::tap::Options;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::Path;
use std::sync::Arc;

/// Node of the endpoints whose TAPs are here.
pub const NODE: &str = "here";
/// The TAP that leads to everybody else.
pub const UPLINK: &str = "up0";
/// MAC of the router there.
const ROUTER_MAC: Mac = [0x02, 0, 0, 0, 0, 0xfe];

/// The host.
pub struct Rig {
    pub host: Arc<Namespace>,
    pub nftables: Nftables,
    taps: BTreeMap<String, RawGuest>,
    host_is_open: bool,
    host_is_judged: bool,
    limits: LimitsConfig,
}

impl Rig {
    /// A host with an uplink and TAPs, without rules.
    pub fn new(label: &str, taps: &[(&str, Mac)]) -> Result<Self> {
        let host = Arc::new(Namespace::new(label)?);
        host.set_sysctl("net/ipv6/conf/all/forwarding", 1)?;
        host.set_sysctl("net/ipv6/conf/default/accept_dad", 0)?;
        // A busy machine must not forget what a test has said before.
        for timeout in
            ["udp_timeout", "udp_timeout_stream", "icmpv6_timeout", "tcp_timeout_syn_sent", "generic_timeout"]
        {
            host.set_sysctl(&format!("net/netfilter/nf_conntrack_{timeout}"), 3600)?;
        }
        let mut rig = Self {
            host,
            nftables: Nftables::default(),
            taps: BTreeMap::new(),
            host_is_open: false,
            host_is_judged: false,
            limits: LimitsConfig::default(),
        };
        for (tap, mac) in taps.iter().chain([&(UPLINK, ROUTER_MAC)]) {
            let guest = RawGuest::new(&rig.host, tap, *mac, Options::default())?;
            rig.taps.insert((*tap).to_owned(), guest);
        }
        rig.host.ip(&format!(
            "neighbour add fe80::1 lladdr {} dev {UPLINK} nud permanent",
            mac_text(ROUTER_MAC)
        ))?;
        rig.host.ip(&format!("-6 route add default via fe80::1 dev {UPLINK}"))?;
        Ok(rig)
    }

    /// VMs may talk to the host.
    pub fn open_host(&mut self) {
        self.host_is_open = true;
    }

    /// What the host sends to VMs is judged by their policy.
    pub fn judge_host(&mut self) {
        self.host_is_judged = true;
    }

    /// Counts from now on who passes the guard.
    pub fn probe(&self) -> Result<()> {
        self.host.run("nft add table ip6 probe")?;
        self.host.run("nft add counter ip6 probe passed")?;
        self.host.run("nft add chain ip6 probe passed { type filter hook prerouting priority 0 ; }")?;
        self.host.run(&format!("nft add rule ip6 probe passed iifname != {UPLINK} counter name passed"))?;
        Ok(())
    }

    /// How many packets of VMs have passed the guard since the last time.
    pub fn passed(&self) -> Result<u64> {
        let text = self.host.run("nft reset counter ip6 probe passed")?;
        let number = text.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        number.ok_or_else(|| anyhow!("{text}"))
    }

    /// How much of a VM gets to the host.
    pub fn limit(&mut self, limits: LimitsConfig) {
        self.limits = limits;
    }

    /// Leads an address to a TAP, as the daemon's routes and neighbours do.
    pub fn route(&self, address: Ipv6Addr, tap: &str) -> Result<()> {
        let mac = mac_text(self.tap(tap)?.mac);
        self.host.ip(&format!("-6 route replace {address}/128 dev {tap}"))?;
        self.host.ip(&format!("neighbour replace {address} lladdr {mac} dev {tap} nud permanent"))?;
        Ok(())
    }

    /// The rules for these resources.
    pub fn ruleset(&self, resources: &Resources) -> Result<Ruleset> {
        let mut taps = BTreeMap::new();
        for name in self.taps.keys() {
            taps.insert(name.clone(), self.host.ifindex(name)?.context("the TAP is there")?);
        }
        self.ruleset_on(resources, taps)
    }

    /// The rules for these resources on a host with these TAPs, by name, and their ifindices.
    pub fn ruleset_on(
        &self,
        resources: &Resources,
        taps: impl IntoIterator<Item = (String, u32)>,
    ) -> Result<Ruleset> {
        let mut facts = HostFacts::default();
        for (name, ifindex) in taps {
            let link = LinkFacts {
                ifindex,
                mac: Some(mac_text(GATEWAY_MAC).parse()?),
                mtu: 1500,
                admin_up: true,
                carrier: true,
                tap: true,
            };
            facts.links.insert(name, link);
        }
        let plan = plan::plan(resources, &facts, plan::Settings { node: NODE, tap_prefix: "tap" });
        let settings = nftables::Settings {
            tap_prefix: "tap",
            host_is_open: self.host_is_open,
            host_is_judged: self.host_is_judged,
            limits: &self.limits,
        };
        Ok(nftables::ruleset(Some(&policies(resources, NODE, Tunnels::default())), &plan, settings))
    }

    /// Has the kernel judge by these resources from now on.
    pub fn load(&mut self, resources: &Resources) -> Result<()> {
        let ruleset = self.ruleset(resources)?;
        let nftables = &mut self.nftables;
        self.host.enter(|| nftables.apply(&ruleset).with_context(|| format!("{ruleset:?}")))?;
        Ok(())
    }

    /// The TAP.
    pub fn tap(&self, name: &str) -> Result<&RawGuest> {
        self.taps.get(name).with_context(|| format!("no TAP {name}"))
    }

    /// Sends a frame from a TAP; the TAPs where IPv6 frames between its addresses came out, and those frames. The kernel
    /// has decided when the frame is written: it goes all the way within the system call.
    pub fn send(&self, from: &str, frame: &Frame) -> Result<Vec<(String, Vec<u8>)>> {
        let ends = addresses(&frame.bytes);
        self.tap(from)?.send(frame)?;
        let mut out = Vec::new();
        for (name, tap) in &self.taps {
            let frames = tap.drain()?.into_iter().filter(|frame| addresses(frame) == ends);
            out.extend(frames.map(|frame| (name.clone(), frame)));
        }
        Ok(out)
    }

    /// Sends a frame, and wants it to come out of a TAP, or nowhere.
    pub fn expect(&self, what: &str, from: &str, frame: &Frame, to: Option<&str>) -> Result<()> {
        let out = self.send(from, frame)?;
        let out: Vec<_> = out.iter().map(|(name, _)| name.as_str()).collect();
        ensure!(out == to.into_iter().collect::<Vec<_>>(), "{what}: from {from}, came out at {out:?}");
        Ok(())
    }

    /// Headers of what the VM, or the router, behind a TAP sends.
    pub fn headers(&self, tap: &str, source: Ipv6Addr, destination: Ipv6Addr) -> Result<Ipv6> {
        Ok(Ipv6 { source, destination, ..Ipv6::new(self.tap(tap)?.mac, GATEWAY_MAC) })
    }

    /// A frame from a TAP.
    pub fn frame(&self, tap: &str, ends: (Ipv6Addr, Ipv6Addr), payload: Payload) -> Result<Frame> {
        Ok(self.headers(tap, ends.0, ends.1)?.carrying(payload))
    }
}

/// The resources that these documents describe.
pub fn resources(documents: &str) -> Result<Resources> {
    let mut resources = Resources::default();
    let parsed = parse(Path::new("test.yaml"), Format::Yaml, documents.as_bytes());
    for document in parsed.map_err(|problem| anyhow!("{problem}"))? {
        match document.content {
            Content::Resource(resource) => resources.insert(*resource),
            other => bail!("{other:?}: {:?}", document.problems),
        }
    }
    Ok(resources)
}

/// The document of a global policy.
pub fn global(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}
