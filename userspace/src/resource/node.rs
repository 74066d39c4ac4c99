//! A host, for the routing between hosts: Calico v3 `Node`.

use super::{AsNumber, BgpId, HostAddress};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A host, as far as routing is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.bgp`; a host without it speaks no BGP.
    pub bgp: Option<NodeBgp>,
}

/// `spec.bgp` of a [`Node`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeBgp {
    /// `asNumber`.
    pub as_number: Option<AsNumber>,
    /// `ipv4Address`, without its prefix length.
    pub ipv4: Option<Ipv4Addr>,
    /// `ipv6Address`, without its prefix length: what other hosts speak BGP with.
    pub ipv6: Option<HostAddress>,
    /// `routeReflectorClusterID`: it is a route reflector, and no part of the mesh.
    pub cluster_id: Option<BgpId>,
}
