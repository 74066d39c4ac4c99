//! A VM's interface: Calico v3 `WorkloadEndpoint`.

use super::policy::Protocol;
use super::{EndpointName, HostAddress, InterfaceName, MacAddress};
use std::collections::BTreeMap;

/// A VM's interface, as far as IPv6 is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadEndpoint {
    /// `metadata.namespace` and `metadata.name`.
    pub name: EndpointName,
    /// `spec.node`: the host it runs on.
    pub node: String,
    /// `spec.interfaceName`: its TAP.
    pub interface: InterfaceName,
    /// `spec.mac`.
    pub mac: MacAddress,
    /// The IPv6 entries of `spec.ipNetworks`, in order, without those of `spec.allowedIps`: what DHCPv6 leases.
    pub addresses: Vec<HostAddress>,
    /// The IPv6 entries of `spec.allowedIps`: addresses it may use besides, never leased.
    pub allowed_pairs: Vec<HostAddress>,
    /// `spec.ipv6Gateway`: a second address of its router, beside the TAP's link-local one.
    pub gateway: Option<HostAddress>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.profiles`, in order.
    pub profiles: Vec<String>,
    /// `spec.ports`: what rules may call by name.
    pub ports: Vec<NamedPort>,
    /// Annotation `openstack.projectcalico.org/network-id`.
    pub network_id: Option<String>,
    /// Annotation `openstack.projectcalico.org/fqdn`, without the final dot.
    pub fqdn: Option<String>,
}

impl WorkloadEndpoint {
    /// Every address the VM may use as source and is reached under.
    pub fn all_addresses(&self) -> impl Iterator<Item = HostAddress> + '_ {
        self.addresses.iter().chain(&self.allowed_pairs).copied()
    }
}

/// A port with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// `name`.
    pub name: String,
    /// `protocol`.
    pub protocol: Protocol,
    /// `port`.
    pub port: u16,
}
