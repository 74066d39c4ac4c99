//! What BIRD should do on this host: pure, from the configuration and Calico's resources to a [`BirdPlan`], and from
//! that to the text that BIRD reads ([`render()`]).
//!
//! Where the resources speak, they win: every host of a cluster can be given the same ones, and each finds its own
//! part, so that both ends of a session agree. What resources cannot say (BFD, what is accepted from a router) is the
//! configuration's.
//!
//! How routes to VMs compete. A VM's address may be announced by two hosts while it moves, and the one where it has
//! arrived says so by *raising* its own kernel route ([`metric::RAISED`] or less). From best to worst: raised here,
//! raised there, here, there. The order is the same in BIRD (preference) and in the kernel (metric), and on the wire it
//! is Calico's since v3.32 (`LOCAL_PREF` = 2^31 - 1 - metric, with metrics 512 and 1024), so that hosts of both kinds
//! understand each other.

mod local;
mod names;
mod password;
mod render;
mod sessions;

#[cfg(test)]
mod tests;

pub use names::SESSION_PREFIXES;
pub use password::Password;
pub use render::{AGGREGATES, Dialect, Inputs, REVISION_MARK, SERVAL_DEVICE, SERVAL_KERNEL, render};

use super::Conflict;
use crate::config::{AggregateConfig, Bfd, BfdConfig, BirdConfig};
use crate::resource::{AsNumber, BgpId, Community, HostAddress, InterfaceName, NextHop, Resources};
use ipnet::Ipv6Net;
use local::Local;
use std::net::Ipv6Addr;
use std::path::PathBuf;

/// Metrics of kernel routes, by which the kernel chooses between routes to the same destination.
pub mod metric {
    /// A VM here that has just arrived: at most this.
    pub const RAISED: u32 = 8;
    /// A VM there that has just arrived.
    pub const REMOTE_RAISED: u32 = 12;
    /// A VM here.
    pub const LOCAL: u32 = crate::apply::kernel::METRIC;
    /// A VM there, and everything else that neighbours announce.
    pub const REMOTE: u32 = 32;
    /// What becomes of addresses in our aggregates that nobody has: behind whatever route the host has.
    pub const UNASSIGNED: u32 = 65_535;
}

const _: () = assert!(
    metric::RAISED < metric::REMOTE_RAISED
        && metric::REMOTE_RAISED < metric::LOCAL
        && metric::LOCAL < metric::REMOTE
);

/// Whose plan it is.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// Our node.
    pub node: &'a str,
    /// How names of TAPs begin.
    pub tap_prefix: &'a str,
}

/// What BIRD should do on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BirdPlan {
    /// Our BGP identifier.
    pub router_id: BgpId,
    /// Our AS.
    pub as_number: AsNumber,
    /// Where we listen.
    pub port: u16,
    /// We are a route reflector of this cluster.
    pub cluster_id: Option<BgpId>,
    /// Where VMs' addresses are from.
    pub networks: Vec<Ipv6Net>,
    /// What is announced in place of single addresses.
    pub aggregates: Vec<AggregateConfig>,
    /// Marks on what is announced, by prefix.
    pub communities: Vec<(Ipv6Net, Vec<Community>)>,
    /// With whom we speak, in the order of their protocols' names.
    pub sessions: Vec<Session>,
    /// Graceful restart, if it is on.
    pub graceful_restart: Option<GracefulRestart>,
    /// Timers of BFD.
    pub bfd: BfdConfig,
    /// Most next hops of a route.
    pub max_paths: u16,
    /// How names of TAPs begin.
    pub tap_prefix: String,
    /// A file that BIRD reads at the end.
    pub extra: Option<PathBuf>,
    /// Where resources contradict each other.
    pub conflicts: Vec<Conflict>,
    /// What is odd in configuration and resources together.
    pub notes: Vec<String>,
}

/// Graceful restart (RFC 4724).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracefulRestart {
    /// How long neighbours shall keep our routes, in seconds.
    pub time: u16,
    /// How long we wait for them, in seconds.
    pub wait: u16,
}

/// A BGP session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its name in BIRD: a symbol.
    pub protocol: String,
    /// What it is called in `status`: a node or a peer.
    pub name: String,
    /// Who is there.
    pub side: Side,
    /// Its address.
    pub neighbour: Ipv6Addr,
    /// The interface of a link-local address.
    pub interface: Option<InterfaceName>,
    /// Its port.
    pub port: u16,
    /// Its AS.
    pub remote_as: AsNumber,
    /// Our AS in this session.
    pub local_as: AsNumber,
    /// Our address in this session, when it is not BIRD's to choose.
    pub source: Option<HostAddress>,
    /// We wait for it to connect.
    pub passive: bool,
    /// How far away it is.
    pub reach: Reach,
    /// Packets from farther away are refused.
    pub ttl_security: bool,
    /// File with the password.
    pub password: Option<PathBuf>,
    /// BFD.
    pub bfd: Bfd,
    /// It is a client of ours, the route reflector.
    pub reflector_client: bool,
    /// What it hears as next hop.
    pub next_hop: NextHop,
    /// How often our AS may be in the path of its routes.
    pub allow_local_as: u8,
    /// Hold time in seconds.
    pub hold: u16,
    /// How long it keeps our routes, when not as long as others.
    pub restart_time: Option<u16>,
    /// Prefixes accepted from it that are no VMs' networks, exactly.
    pub accept: Vec<Ipv6Net>,
}

/// Who is at the other end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A host like us, or a route reflector between them: hears every VM's address that is in no aggregate of ours
    /// alone.
    Inside,
    /// A router of another AS: hears aggregates, also those that other hosts announce as well.
    Outside,
}

/// How far away a neighbour is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// On a link that we have, too.
    Direct,
    /// Up to so many hops away; `None`: anywhere.
    Multihop(Option<u8>),
}

impl Session {
    /// Whether both ends are in one AS.
    pub fn internal(&self) -> bool {
        self.remote_as == self.local_as
    }
}

impl BirdPlan {
    /// The files with passwords that sessions need.
    pub fn password_files(&self) -> impl Iterator<Item = &PathBuf> {
        self.sessions.iter().filter_map(|session| session.password.as_ref())
    }
}

/// Plans the BIRD of a host.
pub fn plan(config: &BirdConfig, host: Host<'_>, resources: &Resources) -> BirdPlan {
    let mut findings = Findings::default();
    let local = Local::of(config, host.node, resources);
    local.judge(&mut findings);
    let sessions = sessions::plan(&local, &mut findings);
    BirdPlan {
        router_id: local.router_id(),
        as_number: local.as_number(),
        port: local.port(),
        cluster_id: local.cluster_id(),
        networks: config.networks.clone(),
        aggregates: config.aggregates.clone(),
        communities: local.communities(),
        sessions,
        graceful_restart: config.graceful_restart.enabled.then_some(GracefulRestart {
            time: config.graceful_restart.time,
            wait: config.graceful_restart.wait,
        }),
        bfd: config.bfd,
        max_paths: config.max_paths,
        tap_prefix: host.tap_prefix.to_owned(),
        extra: config.extra.clone(),
        conflicts: findings.conflicts,
        notes: findings.notes,
    }
}

/// What is wrong or odd.
#[derive(Debug, Default)]
struct Findings {
    conflicts: Vec<Conflict>,
    notes: Vec<String>,
}
