//! Sessions besides the mesh: Calico v3 `BGPPeer`.

use super::{AsNumber, Selector};
use std::net::IpAddr;

/// Sessions between some hosts and a router or other hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpPeer {
    /// `metadata.name`.
    pub name: String,
    /// `spec.node` or `spec.nodeSelector`: which hosts have these sessions.
    pub hosts: Hosts,
    /// `spec.peerIP` with `spec.asNumber`, or `spec.peerSelector`: with whom.
    pub remote: Remote,
    /// `spec.localASNumber`.
    pub local_as: Option<AsNumber>,
    /// `spec.password`.
    pub password: Option<SecretKey>,
    /// `spec.sourceAddress` is `UseNodeIP`.
    pub source_is_node: bool,
    /// `spec.maxRestartTime` in seconds.
    pub restart_time: Option<u16>,
    /// `spec.keepaliveTime` in seconds.
    pub keepalive: Option<u16>,
    /// `spec.numAllowedLocalASNumbers`.
    pub allow_local_as: Option<u8>,
    /// `spec.nextHopMode`, or `spec.keepOriginalNextHop` of older versions.
    pub next_hop: NextHop,
    /// `spec.ttlSecurity`: how many hops away the neighbour may be.
    pub ttl_security: Option<u8>,
    /// `spec.reversePeering` is not `Manual`: hosts that `peerSelector` chooses have the session, too.
    pub reverse: bool,
}

/// Some hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// All.
    All,
    /// One, by name.
    One(String),
    /// Those with such labels.
    Chosen(Selector),
}

/// With whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// A router.
    Router {
        /// Its address.
        address: IpAddr,
        /// Its port, if not the usual one.
        port: Option<u16>,
        /// Its AS.
        as_number: AsNumber,
    },
    /// Hosts with such labels.
    Hosts(Selector),
}

/// What is announced as next hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextHop {
    /// As BGP has it (RFC 4271 section 5.1.3): ourselves for what is ours.
    #[default]
    Standard,
    /// Always ourselves.
    Own,
    /// Never changed.
    Keep,
}

/// A password by reference: a key of a secret, as Kubernetes mounts it into a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretKey {
    /// `secretKeyRef.name`: a directory.
    pub secret: String,
    /// `secretKeyRef.key`: a file in it.
    pub key: String,
}
