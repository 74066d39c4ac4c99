//! The settings of this host and what it knows of the others: Calico's resources over the configuration.

use super::super::Conflict;
use super::Findings;
use crate::config::BirdConfig;
use crate::resource::{
    AsNumber, BgpConfiguration, BgpId, Community, HostAddress, Node, NodeBgp, ResourceId, Resources,
    SecretKey, Severity,
};
use ipnet::Ipv6Net;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where settings are looked up.
pub(super) struct Local<'a> {
    pub config: &'a BirdConfig,
    pub node: &'a str,
    pub resources: &'a Resources,
}

/// Another host that speaks BGP over IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Other<'a> {
    pub node: &'a Node,
    pub address: HostAddress,
    pub as_number: AsNumber,
    pub port: u16,
    pub cluster_id: Option<BgpId>,
}

impl<'a> Local<'a> {
    pub fn of(config: &'a BirdConfig, node: &'a str, resources: &'a Resources) -> Self {
        Self { config, node, resources }
    }

    pub fn router_id(&self) -> BgpId {
        self.config.router_id.unwrap_or_else(|| router_id(self.node, self.own()))
    }

    pub fn as_number(&self) -> AsNumber {
        self.as_number_of(self.node, self.own())
    }

    pub fn port(&self) -> u16 {
        self.port_of(self.node)
    }

    pub fn cluster_id(&self) -> Option<BgpId> {
        self.own().and_then(|bgp| bgp.cluster_id).or(self.config.cluster_id)
    }

    pub fn address(&self) -> Option<HostAddress> {
        self.own().and_then(|bgp| bgp.ipv6).or(self.config.address)
    }

    /// Route reflectors are no part of the mesh.
    pub fn in_mesh(&self) -> bool {
        let enabled = self.of_all(|settings| settings.mesh).unwrap_or(self.config.mesh.enabled);
        enabled && self.cluster_id().is_none()
    }

    pub fn mesh_password(&self) -> Option<PathBuf> {
        let secret = self.default_settings().and_then(|settings| settings.mesh_password.as_ref());
        secret.map(|key| self.secret(key)).or_else(|| self.config.mesh.password_file.clone())
    }

    pub fn mesh_restart_time(&self) -> Option<u16> {
        self.of_all(|settings| settings.mesh_restart_time)
    }

    /// Where the value of a secret is.
    pub fn secret(&self, key: &SecretKey) -> PathBuf {
        self.config.secrets.join(&key.secret).join(&key.key)
    }

    /// Marks by prefix.
    pub fn communities(&self) -> Vec<(Ipv6Net, Vec<Community>)> {
        let mut all: BTreeMap<Ipv6Net, Vec<Community>> = BTreeMap::new();
        for entry in &self.config.communities {
            all.entry(entry.prefix).or_default().extend(&entry.communities);
        }
        for settings in [self.default_settings(), self.settings_of(self.node)].into_iter().flatten() {
            all.extend(settings.communities.iter().cloned());
        }
        for communities in all.values_mut() {
            communities.sort_unstable();
            communities.dedup();
        }
        all.into_iter().collect()
    }

    /// All other hosts that speak BGP over IPv6, by name.
    pub fn others(&self) -> impl Iterator<Item = Other<'a>> + '_ {
        self.resources.nodes.values().filter(|node| node.name != self.node).filter_map(|node| {
            let bgp = node.bgp.as_ref()?;
            Some(Other {
                node,
                address: bgp.ipv6?,
                as_number: self.as_number_of(&node.name, Some(bgp)),
                port: self.port_of(&node.name),
                cluster_id: bgp.cluster_id,
            })
        })
    }

    /// Looks for what makes sessions between hosts impossible.
    pub fn judge(&self, findings: &mut Findings) {
        let hosts_by_resources =
            self.others().next().is_some() && (self.in_mesh() || !self.resources.bgp_peers.is_empty());
        if hosts_by_resources && self.own().and_then(|bgp| bgp.ipv6).is_none() {
            findings.notes.push(format!(
                "Node {} with spec.bgp.ipv6Address is missing: other hosts have no session with this one",
                self.node
            ));
        }
        let mut addresses: BTreeMap<HostAddress, &str> = BTreeMap::new();
        let mut ids: BTreeMap<BgpId, &str> = BTreeMap::new();
        for (node, bgp) in self.resources.nodes.values().filter_map(|node| Some((node, node.bgp.as_ref()?))) {
            if let Some(first) = bgp.ipv6.and_then(|address| addresses.get(&address).copied()) {
                findings.conflicts.push(conflict(
                    node,
                    "spec.bgp.ipv6Address",
                    format!(
                        "it is also that of Node {first}, which keeps it; give one of them another address"
                    ),
                    Severity::Error,
                ));
            } else {
                addresses.extend(bgp.ipv6.map(|address| (address, node.name.as_str())));
            }
            let id = router_id(&node.name, Some(bgp));
            if let Some(first) = ids.insert(id, &node.name) {
                findings.conflicts.push(conflict(
                    node,
                    "spec.bgp.ipv4Address",
                    format!(
                        "BGP identifier {id} is also that of Node {first}, and they will refuse each other; give them different ipv4Addresses"
                    ),
                    Severity::Note,
                ));
            }
        }
    }

    /// `spec.bgp` of our own Node.
    fn own(&self) -> Option<&'a NodeBgp> {
        self.resources.nodes.get(self.node)?.bgp.as_ref()
    }

    fn as_number_of(&self, node: &str, bgp: Option<&NodeBgp>) -> AsNumber {
        bgp.and_then(|bgp| bgp.as_number)
            .or_else(|| self.of_host(node, |settings| settings.as_number))
            .unwrap_or(self.config.as_number)
    }

    fn port_of(&self, node: &str) -> u16 {
        self.of_host(node, |settings| settings.listen_port).unwrap_or(self.config.port)
    }

    fn of_host<T>(&self, node: &str, field: impl Fn(&BgpConfiguration) -> Option<T>) -> Option<T> {
        self.settings_of(node).and_then(&field).or_else(|| self.of_all(field))
    }

    fn of_all<T>(&self, field: impl Fn(&BgpConfiguration) -> Option<T>) -> Option<T> {
        self.default_settings().and_then(field)
    }

    fn settings_of(&self, node: &str) -> Option<&'a BgpConfiguration> {
        self.resources.bgp_configurations.get(&BgpConfiguration::name_of(node))
    }

    fn default_settings(&self) -> Option<&'a BgpConfiguration> {
        self.resources.bgp_configurations.get(BgpConfiguration::DEFAULT)
    }
}

fn router_id(node: &str, bgp: Option<&NodeBgp>) -> BgpId {
    let of_address = bgp.and_then(|bgp| BgpId::try_from(bgp.ipv4?).ok());
    of_address.unwrap_or_else(|| BgpId::of_name(node))
}

fn conflict(node: &Node, field: &'static str, message: String, severity: Severity) -> Conflict {
    Conflict { loser: ResourceId::Node(node.name.clone()), field, message, severity }
}
