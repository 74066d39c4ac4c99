//! What all hosts' BGP has in common: Calico v3 `BGPConfiguration`.

use super::{AsNumber, Community, SecretKey};
use ipnet::Ipv6Net;

/// Settings for all hosts (`default`) or for one (`node.<name>`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BgpConfiguration {
    /// `metadata.name`.
    pub name: String,
    /// `spec.asNumber`.
    pub as_number: Option<AsNumber>,
    /// `spec.nodeToNodeMeshEnabled`.
    pub mesh: Option<bool>,
    /// `spec.listenPort`.
    pub listen_port: Option<u16>,
    /// `spec.nodeMeshMaxRestartTime` in seconds.
    pub mesh_restart_time: Option<u16>,
    /// `spec.nodeMeshPassword`.
    pub mesh_password: Option<SecretKey>,
    /// `spec.prefixAdvertisements` of IPv6, names of communities resolved.
    pub communities: Vec<(Ipv6Net, Vec<Community>)>,
}

impl BgpConfiguration {
    /// Name of the one for all hosts.
    pub const DEFAULT: &str = "default";

    /// Name of the one for the host `node`.
    pub fn name_of(node: &str) -> String {
        format!("node.{node}")
    }
}
