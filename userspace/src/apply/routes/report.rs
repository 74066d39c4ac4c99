//! What `serval status` and `serval routes` say about routes. Types only; fields may be added, not renamed.

use crate::apply::bird::BirdStatus;
use crate::apply::kernel;
use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};
use std::net::Ipv6Addr;

/// Whether the fast path uses routes at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoutesState {
    /// The kernel's table has not been read yet.
    #[default]
    Starting,
    /// It does.
    On,
    /// All are the kernel's; `reason` says why.
    Suspended,
}

/// Routes as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutesStatus {
    /// Whether they are used.
    pub state: RoutesState,
    /// Why not, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Prefixes that the fast path forwards by.
    pub mirrored: usize,
    /// Prefixes that are the kernel's.
    pub kernel: usize,
    /// Next hops whose MAC is known.
    pub next_hops: usize,
    /// How often notifications of the kernel were lost, and its tables read again.
    pub overflows: u64,
    /// How many audits there were.
    pub audits: u64,
    /// How many differences audits found between the kernel's tables, what we know of them, and the maps. All were
    /// repaired.
    pub drift: u64,
}

/// Which routes are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutesQuery {
    /// Where they lead.
    pub selection: Selection,
    /// At most so many.
    pub limit: Option<usize>,
}

/// Where routes lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// Anywhere.
    #[default]
    All,
    /// To this prefix, or into it.
    Within(Ipv6Net),
    /// To this address, the one that packets take first.
    Towards(Ipv6Addr),
}

/// Answer to `routes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutesReport {
    /// Routes as a whole.
    #[serde(flatten)]
    pub status: RoutesStatus,
    /// BIRD and its sessions; absent when the configuration has no section for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bird: Option<BirdStatus>,
    /// How many prefixes are as was asked, of which those that follow are the first.
    #[serde(default)]
    pub matching: usize,
    /// Prefixes of the kernel's tables local and main that packets could be forwarded by.
    pub routes: Vec<RouteDetail>,
}

/// Who forwards by a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forwarder {
    /// The fast path, by at least one next hop.
    Fast,
    /// The kernel.
    Kernel,
}

/// One prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteDetail {
    /// Destination.
    pub destination: String,
    /// Metric of the route that is used.
    pub metric: u32,
    /// Who put it there: `bird`, `static`, `kernel`, `serval` and so on, or the number of its protocol.
    #[serde(default)]
    pub protocol: String,
    /// Longest packet in bytes, if the route says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Who forwards by it.
    pub state: Forwarder,
    /// Why it is the kernel's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its next hops, as far as the fast path could use them.
    pub next_hops: Vec<NextHopDetail>,
}

/// One way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHopDetail {
    /// The router's address.
    pub address: Ipv6Addr,
    /// The interface.
    pub interface: String,
    /// Its share of the flows, relative to the others.
    pub weight: u32,
    /// The router's MAC, when the fast path uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// XDP uses it, too; otherwise TC alone.
    pub xdp: bool,
    /// Why flows of this share are the kernel's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A MAC in the usual notation.
pub(super) fn mac(octets: &[u8; 6]) -> String {
    let [a, b, c, d, e, f] = octets;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// Who puts routes there under a number (linux/rtnetlink.h), as `ip route` calls them.
pub(super) fn protocol(number: u8) -> String {
    let name = match number {
        libc::RTPROT_REDIRECT => "redirect",
        libc::RTPROT_KERNEL => "kernel",
        libc::RTPROT_BOOT => "boot",
        libc::RTPROT_STATIC => "static",
        9 => "ra",
        11 => "zebra",
        12 => "bird",
        16 => "dhcp",
        kernel::PROTOCOL => "serval",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        number => return number.to_string(),
    };
    name.to_owned()
}
