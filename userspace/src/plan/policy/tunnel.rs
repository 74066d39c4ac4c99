//! Packets in packets: policy sees the outer ones, so a VM could reach by them whoever its policy keeps it from, where
//! somebody takes them apart. They are denied before policy is asked, as Felix does in each workload's egress chain.
//!
//! Felix writes the same two rules for IPv4 and IPv6, so protocol 4 within IPv6 (IPv4 in IPv6, RFC 2473) is among them, and
//! protocol 41 (IPv6 in IPv6) and GRE (47) are not: those are for policy to judge. They are asked like a rule, after flows:
//! an answer to whoever was allowed to begin passes.

use super::chain::{EndMatch, Match};
use crate::config::PolicyConfig;
use crate::resource::policy::{PortRange, Protocol};
use std::fmt;

/// UDP port of VXLAN (RFC 7348).
pub const VXLAN_PORT: u16 = 4789;
/// IPv4 in something else.
pub const IPIP: Protocol = Protocol(4);

/// A kind of packets in packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tunnel {
    /// Frames in datagrams to port 4789.
    Vxlan,
    /// IPv4 in IPv6.
    Ipip,
}

/// What VMs may send, as far as their policy allows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tunnels {
    /// [`Tunnel::Vxlan`].
    pub vxlan: bool,
    /// [`Tunnel::Ipip`].
    pub ipip: bool,
}

impl From<PolicyConfig> for Tunnels {
    fn from(config: PolicyConfig) -> Self {
        Self { vxlan: config.allow_vxlan, ipip: config.allow_ipip }
    }
}

impl Tunnels {
    /// What no VM may send.
    pub(super) fn denied(self) -> impl Iterator<Item = Tunnel> {
        let kinds = [(self.vxlan, Tunnel::Vxlan), (self.ipip, Tunnel::Ipip)];
        kinds.into_iter().filter(|(allowed, _)| !allowed).map(|(_, tunnel)| tunnel)
    }
}

impl Tunnel {
    /// The packets of this kind.
    pub(super) fn matching(self) -> Match {
        match self {
            Self::Vxlan => Match {
                protocol: Some(Protocol::UDP),
                destination: EndMatch {
                    ports: PortRange::new(VXLAN_PORT, VXLAN_PORT).into_iter().collect(),
                    ..EndMatch::default()
                },
                ..Match::default()
            },
            Self::Ipip => Match { protocol: Some(IPIP), ..Match::default() },
        }
    }
}

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vxlan => "VXLAN",
            Self::Ipip => "IP in IP",
        })
    }
}
