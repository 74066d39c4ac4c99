//! `[bird]`: routing between hosts. Types and their checks; what becomes of them is in [`crate::plan::bird`].

mod peer;
mod read;

#[cfg(test)]
mod tests;

pub use peer::PeerConfig;

use super::absolute;
use crate::resource::{AsNumber, BgpId, Community, HostAddress};
use ipnet::Ipv6Net;
use read::{
    aggregate, as_number, bfd, communities, hold, interval, multiplier, network, networks, paths, port,
    restart_time, some_host_address, some_parsed, some_path,
};
use serde::Deserialize;
use std::path::PathBuf;

/// `[bird]`. Its presence, even empty, is what makes this host speak BGP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BirdConfig {
    /// Start and supervise a BIRD of our own; `false`: configure the one that the system runs.
    pub start: bool,
    /// The program to start; without it the first `bird` of version 2 or later, or `bird6`, of the usual directories.
    #[serde(deserialize_with = "some_path")]
    pub executable: Option<PathBuf>,
    /// Control socket of the BIRD that the system runs.
    #[serde(deserialize_with = "absolute")]
    pub control_socket: PathBuf,
    /// Our AS, and that of every host without one of its own.
    #[serde(rename = "as", deserialize_with = "as_number")]
    pub as_number: AsNumber,
    /// Our BGP identifier; by default that of the Node resource's IPv4 address, else one made from the node's name.
    #[serde(deserialize_with = "some_parsed")]
    pub router_id: Option<BgpId>,
    /// Our address in sessions with other hosts; by default that of our Node resource, else what the kernel chooses.
    #[serde(deserialize_with = "some_host_address")]
    pub address: Option<HostAddress>,
    /// Where we, and hosts without a setting of their own, listen.
    #[serde(deserialize_with = "port")]
    pub port: u16,
    /// We are a route reflector of this cluster, and no part of the mesh.
    #[serde(deserialize_with = "some_parsed")]
    pub cluster_id: Option<BgpId>,
    /// Where VMs' addresses are from: what lies outside is neither announced nor accepted.
    #[serde(deserialize_with = "networks")]
    pub networks: Vec<Ipv6Net>,
    /// Most next hops of a route.
    #[serde(deserialize_with = "paths")]
    pub max_paths: u16,
    /// Directory with the secrets that resources refer to, as `<name>/<key>`.
    #[serde(deserialize_with = "absolute")]
    pub secrets: PathBuf,
    /// A file that BIRD reads at the end of our configuration.
    #[serde(deserialize_with = "some_path")]
    pub extra: Option<PathBuf>,
    /// Sessions with all hosts that have a Node resource.
    pub mesh: MeshConfig,
    /// Graceful restart (RFC 4724).
    pub graceful_restart: GracefulRestartConfig,
    /// Timers of BFD (RFC 5880).
    pub bfd: BfdConfig,
    /// Prefixes that are announced in place of the single addresses in them.
    pub aggregates: Vec<AggregateConfig>,
    /// Marks on what we announce.
    pub communities: Vec<CommunitiesConfig>,
    /// Sessions with others.
    #[serde(deserialize_with = "peer::list")]
    pub peers: Vec<PeerConfig>,
}

impl BirdConfig {
    /// Where VMs' addresses are from when nothing is said: everywhere.
    pub const NETWORKS: [&str; 2] = ["2000::/3", "fc00::/7"];
}

impl Default for BirdConfig {
    fn default() -> Self {
        Self {
            start: true,
            executable: None,
            control_socket: "/run/bird/bird.ctl".into(),
            as_number: AsNumber::default(),
            router_id: None,
            address: None,
            port: 179,
            cluster_id: None,
            networks: Self::NETWORKS.iter().filter_map(|text| text.parse().ok()).collect(),
            max_paths: 16,
            secrets: "/etc/serval/secrets".into(),
            extra: None,
            mesh: MeshConfig::default(),
            graceful_restart: GracefulRestartConfig::default(),
            bfd: BfdConfig::default(),
            aggregates: Vec::new(),
            communities: Vec::new(),
            peers: Vec::new(),
        }
    }
}

/// `[bird.mesh]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeshConfig {
    /// Whether there is a session with every other host that has a Node resource.
    pub enabled: bool,
    /// File with the password of these sessions.
    #[serde(deserialize_with = "some_path")]
    pub password_file: Option<PathBuf>,
    /// BFD on these sessions.
    #[serde(deserialize_with = "bfd")]
    pub bfd: Bfd,
    /// Hold time of these sessions in seconds.
    #[serde(deserialize_with = "hold")]
    pub hold: u16,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self { enabled: true, password_file: None, bfd: Bfd::Off, hold: HOLD }
    }
}

/// Hold time of a session in seconds (RFC 4271 section 4.2 suggests it): how long a host that died is believed alive,
/// without BFD.
const HOLD: u16 = 90;

/// `[bird.graceful_restart]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GracefulRestartConfig {
    /// Whether neighbours keep our routes while BIRD restarts, and we theirs.
    pub enabled: bool,
    /// How long neighbours shall keep them, in seconds.
    #[serde(deserialize_with = "restart_time")]
    pub time: u16,
    /// How long a restarted BIRD waits for neighbours before it removes the kernel routes that none of them has
    /// announced anew, in seconds.
    #[serde(deserialize_with = "restart_time")]
    pub wait: u16,
}

impl Default for GracefulRestartConfig {
    fn default() -> Self {
        Self { enabled: true, time: 120, wait: 60 }
    }
}

/// `[bird.bfd]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BfdConfig {
    /// Milliseconds between two packets.
    #[serde(deserialize_with = "interval")]
    pub interval: u16,
    /// How many may be missed.
    #[serde(deserialize_with = "multiplier")]
    pub multiplier: u8,
}

impl Default for BfdConfig {
    fn default() -> Self {
        Self { interval: 300, multiplier: 3 }
    }
}

/// Whether BFD watches a neighbour, and what its silence means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bfd {
    /// It does not.
    #[default]
    Off,
    /// A silent neighbour is dead: its routes go at once. That also ends the graceful restart of its BIRD, which BFD
    /// cannot tell from the death of the host.
    On,
    /// A silent neighbour restarts: its routes stay for its restart time.
    Graceful,
}

/// `[[bird.aggregates]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AggregateConfig {
    /// What is announced.
    #[serde(deserialize_with = "aggregate")]
    pub prefix: Ipv6Net,
    /// Other hosts announce it, too: it is only announced outside our AS, and inside single addresses are.
    #[serde(default)]
    pub shared: bool,
    /// What becomes of packets to addresses in it that nobody has.
    #[serde(default)]
    pub unassigned: Unassigned,
}

/// What becomes of packets to addresses in an aggregate that nobody has. Were they routed, they would come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unassigned {
    /// The sender is told.
    #[default]
    Unreachable,
    /// Nobody is told.
    Blackhole,
}

/// `[[bird.communities]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommunitiesConfig {
    /// What is marked: this and everything in it.
    #[serde(deserialize_with = "network")]
    pub prefix: Ipv6Net,
    /// With what.
    #[serde(deserialize_with = "communities")]
    pub communities: Vec<Community>,
}
