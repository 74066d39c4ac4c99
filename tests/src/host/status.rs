//! `serval status --json` as its contract has it, read without the daemon's own types: a renamed field is an error here.

use anyhow::{Context, Result};
use serde_json::Value;

/// The whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Status(pub Value);

/// One endpoint of it.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointStatus(pub Value);

/// One uplink of it.
#[derive(Clone, Debug, PartialEq)]
pub struct UplinkStatus(pub Value);

impl Status {
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let value = serde_json::from_slice(text);
        Ok(Self(value.with_context(|| format!("no JSON from status: {}", String::from_utf8_lossy(text)))?))
    }

    /// Everything found at the start has been applied.
    pub fn ready(&self) -> bool {
        self.0["ready"] == true
    }

    /// The endpoint `name`.
    pub fn endpoint(&self, name: &str) -> Option<EndpointStatus> {
        self.endpoints().into_iter().find(|endpoint| endpoint.0["name"] == name)
    }

    /// All endpoints.
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        self.0["endpoints"].as_array().into_iter().flatten().cloned().map(EndpointStatus).collect()
    }

    /// The uplink `interface`.
    pub fn uplink(&self, interface: &str) -> Option<UplinkStatus> {
        let uplinks = self.0["uplinks"].as_array()?;
        uplinks.iter().find(|uplink| uplink["interface"] == interface).cloned().map(UplinkStatus)
    }

    /// How many things others changed and audits repaired.
    pub fn drift(&self) -> u64 {
        self.0["drift"].as_u64().unwrap_or_default()
    }

    /// How many of the kernel's prefixes the fast path forwards by.
    pub fn mirrored(&self) -> u64 {
        self.0.pointer("/routes/mirrored").and_then(Value::as_u64).unwrap_or_default()
    }

    /// What is wrong with the resources, as text.
    pub fn problems(&self) -> Vec<String> {
        self.0["problems"].as_array().into_iter().flatten().map(Value::to_string).collect()
    }
}

impl UplinkStatus {
    /// Its hooks for XDP (`native` or `off`) and TC (`tcx`, `clsact` or `off`).
    pub fn hooks(&self) -> (&str, &str) {
        let hook = |path| self.0.pointer(path).and_then(Value::as_str).unwrap_or_default();
        (hook("/hooks/xdp"), hook("/hooks/tc"))
    }

    /// Why a hook is off that should be on; empty when it does not say.
    pub fn reason(&self) -> &str {
        self.0["reason"].as_str().unwrap_or_default()
    }
}

impl EndpointStatus {
    /// Its name.
    pub fn name(&self) -> &str {
        self.text("/name")
    }

    /// `up`, `pending`, `down` or `error`.
    pub fn state(&self) -> &str {
        self.text("/state")
    }

    /// Why it is in that state; empty when it does not say.
    pub fn reason(&self) -> &str {
        self.text("/reason")
    }

    /// `native`, `generic` or `off`.
    pub fn xdp(&self) -> &str {
        self.text("/hooks/xdp")
    }

    /// `tcx`, `clsact` or `off`.
    pub fn tc(&self) -> &str {
        self.text("/hooks/tc")
    }

    /// The policies that are about it.
    pub fn policies(&self) -> Vec<&str> {
        self.0["policies"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// A counter by its name in the contract.
    pub fn counter(&self, name: &str) -> Result<u64> {
        self.0["counters"][name].as_u64().with_context(|| format!("status has no counter {name}: {}", self.0))
    }

    /// Frames from the VM that the fast path forwarded.
    pub fn forwarded(&self) -> Result<u64> {
        Ok(self.counter("forwarded_xdp")? + self.counter("forwarded_tc")?)
    }

    /// Frames to the VM that the fast path delivered.
    pub fn delivered(&self) -> Result<u64> {
        Ok(self.counter("delivered_xdp")? + self.counter("delivered_tc")?)
    }

    /// Frames dropped for all reasons.
    pub fn dropped(&self) -> u64 {
        self.0["counters"]["dropped"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum()
    }

    /// Frames dropped for one reason, by its label.
    pub fn dropped_for(&self, reason: &str) -> u64 {
        self.0["counters"]["dropped"][reason].as_u64().unwrap_or_default()
    }

    fn text(&self, path: &str) -> &str {
        self.0.pointer(path).and_then(Value::as_str).unwrap_or_default()
    }
}

/// One route of `serval routes --json`.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteReport(pub Value);

impl RouteReport {
    pub(super) fn find(text: &[u8], destination: &str) -> Result<Option<Self>> {
        let report: Value = serde_json::from_slice(text)
            .with_context(|| format!("no JSON from routes: {}", String::from_utf8_lossy(text)))?;
        let routes = report["routes"].as_array().context("no routes")?;
        Ok(routes.iter().find(|route| route["destination"] == destination).cloned().map(Self))
    }

    /// The fast path forwards by it, at least some of the flows.
    pub fn is_fast(&self) -> bool {
        self.0["state"] == "fast"
    }

    /// Why not; empty when it does not say.
    pub fn reason(&self) -> &str {
        self.0["reason"].as_str().unwrap_or_default()
    }

    /// How many of its next hops TC uses, and how many XDP uses.
    pub fn usable(&self) -> (usize, usize) {
        let hops = || self.0["next_hops"].as_array().into_iter().flatten();
        let tc = hops().filter(|hop| hop["mac"].is_string()).count();
        (tc, hops().filter(|hop| hop["xdp"] == true).count())
    }
}
