//! A guest that is a real kernel stack: a network namespace whose `eth0` is joined to the host's TAP as a virtio-net
//! device would join it. Its own kernel handles router advertisements, neighbours, offloads and duplicate addresses.

use super::pump::{Counts, Pump};
use crate::frame::{GATEWAY_MAC, Mac, link_local, mac_text};
use crate::netns::Namespace;
use crate::tap::{Options, Tap};
use crate::wait::eventually;
use anyhow::{Context, Result};
use serde_json::Value;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

/// What a guest and its TAP are like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the TAP on the host.
    pub tap: String,
    /// MAC of the VM.
    pub mac: Mac,
    /// MAC of the TAP.
    pub gateway_mac: Mac,
    /// MTU of both.
    pub mtu: u32,
    /// How both TAPs are opened.
    pub options: Options,
}

impl Settings {
    /// The usual: Calico's TAP MAC, MTU 1500, all offloads.
    pub fn new(tap: &str, mac: Mac) -> Self {
        Self { tap: tap.to_owned(), mac, gateway_mac: GATEWAY_MAC, mtu: 1500, options: Options::default() }
    }
}

/// A guest with its own kernel stack.
#[derive(Debug)]
pub struct KernelGuest {
    /// The guest's inside.
    pub namespace: Namespace,
    host: Arc<Namespace>,
    settings: Settings,
    pump: Pump,
}

impl KernelGuest {
    /// Makes the guest and plugs it into `host`; its `eth0` is still down, see [`Self::boot`].
    pub fn new(host: &Arc<Namespace>, settings: Settings) -> Result<Self> {
        let guest = Self::without_tap(host, settings)?;
        guest.plug()?;
        Ok(guest)
    }

    /// Makes the guest without its TAP on the host; see [`Self::plug`].
    pub fn without_tap(host: &Arc<Namespace>, settings: Settings) -> Result<Self> {
        let namespace = Namespace::new(&settings.tap)?;
        let inner = namespace.enter(|| Tap::open("eth0", settings.options))?;
        inner.set_carrier(false)?;
        let (mac, mtu) = (mac_text(settings.mac), settings.mtu);
        namespace.ip(&format!("link set eth0 address {mac} mtu {mtu}"))?;
        let pump = Pump::start(inner, settings.options.header)?;
        Ok(Self { namespace, host: Arc::clone(host), settings, pump })
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The guest's link-local address.
    pub fn link_local(&self) -> Ipv6Addr {
        link_local(self.settings.mac)
    }

    /// The gateway's link-local address: its default router.
    pub fn gateway(&self) -> Ipv6Addr {
        link_local(self.settings.gateway_mac)
    }

    /// Opens the TAP on the host as the VMM, with its MAC and MTU, and sets it up as the cloud's agent does.
    pub fn plug(&self) -> Result<()> {
        let Settings { tap, gateway_mac, mtu, options, .. } = &self.settings;
        let outer = self.host.enter(|| Tap::open(tap, *options))?;
        self.host.ip(&format!("link set {tap} address {} mtu {mtu} up", mac_text(*gateway_mac)))?;
        self.pump.plug(outer)?;
        self.set_cable(true)
    }

    /// Closes the TAP on the host and returns when it has vanished; the guest sees its cable pulled.
    pub fn unplug(&self) -> Result<()> {
        self.set_cable(false)?;
        self.pump.unplug()?;
        // A child between fork and exec holds a copy of the descriptor for a moment.
        let tap = &self.settings.tap;
        eventually(&format!("the end of {tap}"), Duration::from_secs(5), || {
            Ok(self.host.ifindex(tap)?.is_none().then_some(()))
        })
    }

    /// Unplugs the guest and plugs it into another host, as the end of a live migration.
    pub fn move_to(&mut self, host: &Arc<Namespace>) -> Result<()> {
        self.unplug()?;
        self.host = Arc::clone(host);
        self.plug()
    }

    /// Brings the guest's `eth0` up: from here on it asks for its router.
    pub fn boot(&self) -> Result<()> {
        self.namespace.ip("link set eth0 up").map(drop)
    }

    /// Gives `eth0` an address and a default route by hand, and brings it up without router discovery.
    pub fn configure(&self, address: Ipv6Addr) -> Result<()> {
        self.namespace.set_sysctl("net/ipv6/conf/eth0/accept_ra", 0)?;
        self.boot()?;
        self.namespace.add_address("eth0", address)?;
        self.namespace.ip(&format!("route add default via {} dev eth0", self.gateway())).map(drop)
    }

    /// Stops the device from taking frames, either way, as a paused VM does.
    pub fn pause(&self) -> Result<()> {
        self.pump.pause(true)
    }

    /// Takes frames again.
    pub fn resume(&self) -> Result<()> {
        self.pump.pause(false)
    }

    /// Frames that crossed the device so far.
    pub fn counts(&self) -> Counts {
        self.pump.counts()
    }

    /// Global addresses of `eth0` that are past duplicate address detection.
    pub fn addresses(&self) -> Result<Vec<Ipv6Addr>> {
        let links = self.namespace.ip_json("-6 address show dev eth0 scope global -tentative")?;
        let entries = links.as_array().into_iter().flatten().filter_map(|link| link["addr_info"].as_array());
        entries
            .flatten()
            .filter_map(|entry| entry["local"].as_str())
            .map(|address| address.parse().with_context(|| format!("`ip` printed the address {address}")))
            .collect()
    }

    /// Default routes of the guest, as `ip -json -6 route` prints them.
    pub fn default_routes(&self) -> Result<Vec<Value>> {
        match self.namespace.ip_json("-6 route show default")? {
            Value::Array(routes) => Ok(routes),
            other => Ok(vec![other]),
        }
    }

    /// Waits until the gateway is the guest's default router.
    pub fn wait_default_route(&self, limit: Duration) -> Result<Value> {
        let gateway = self.gateway().to_string();
        eventually(&format!("{}: a default route via {gateway}", self.settings.tap), limit, || {
            Ok(self.default_routes()?.into_iter().find(|route| route["gateway"] == gateway.as_str()))
        })
    }

    /// Waits until the guest has `address`.
    pub fn wait_address(&self, address: Ipv6Addr, limit: Duration) -> Result<()> {
        eventually(&format!("{}: address {address}", self.settings.tap), limit, || {
            Ok(self.addresses()?.contains(&address).then_some(()))
        })
    }

    /// Waits until duplicate address detection of the link-local address is past, a second or two after boot.
    pub fn wait_link_local(&self) -> Result<()> {
        let limit = Duration::from_secs(20);
        eventually(&format!("{}: a link-local address", self.settings.tap), limit, || {
            let addresses = self.namespace.ip("-6 address show dev eth0 scope link -tentative")?;
            Ok(addresses.contains("fe80").then_some(()))
        })
    }

    fn set_cable(&self, on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        self.namespace.ip(&format!("link set eth0 carrier {state}")).map(drop)
    }
}
