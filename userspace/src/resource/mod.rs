//! Resources as types that cannot hold illegal values. Parsing is in [`document`]; nothing here does I/O.

mod bgp;
mod bgp_configuration;
mod bgp_peer;
mod endpoint;
mod names;
mod node;
mod problem;
mod subnet;

pub mod document;
pub mod policy;
pub mod selector;

pub use bgp::{AsNumber, BgpId, Community};
pub use bgp_configuration::BgpConfiguration;
pub use bgp_peer::{BgpPeer, Hosts, NextHop, Remote, SecretKey};
pub use endpoint::{NamedPort, WorkloadEndpoint};
pub use names::{EndpointName, HostAddress, InterfaceName, MacAddress, NameError};
pub use node::{Node, NodeBgp};
pub use policy::{NetworkSet, Policy, Profile, ScopedName, Tier};
pub use problem::{Position, Problem, Severity};
pub use selector::Selector;
pub use subnet::Subnet;

use std::collections::BTreeMap;

/// One valid resource that concerns this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A VM's interface.
    WorkloadEndpoint(WorkloadEndpoint),
    /// What DHCPv6 and router advertisements say to the endpoints of a prefix.
    Subnet(Subnet),
    /// A host.
    Node(Node),
    /// What all hosts' BGP has in common.
    BgpConfiguration(BgpConfiguration),
    /// Sessions besides the mesh.
    BgpPeer(BgpPeer),
    /// Rules for some endpoints.
    Policy(Policy),
    /// Policies that are asked one after the other.
    Tier(Tier),
    /// Rules that endpoints name.
    Profile(Profile),
    /// Prefixes with labels.
    NetworkSet(NetworkSet),
}

impl Resource {
    /// What it is called.
    pub fn id(&self) -> ResourceId {
        match self {
            Self::WorkloadEndpoint(endpoint) => ResourceId::WorkloadEndpoint(endpoint.name.clone()),
            Self::Subnet(subnet) => ResourceId::Subnet(subnet.name.clone()),
            Self::Node(node) => ResourceId::Node(node.name.clone()),
            Self::BgpConfiguration(settings) => ResourceId::BgpConfiguration(settings.name.clone()),
            Self::BgpPeer(peer) => ResourceId::BgpPeer(peer.name.clone()),
            Self::Policy(policy) => ResourceId::Policy(policy.name.clone()),
            Self::Tier(tier) => ResourceId::Tier(tier.name.clone()),
            Self::Profile(profile) => ResourceId::Profile(profile.name.clone()),
            Self::NetworkSet(set) => ResourceId::NetworkSet(set.name.clone()),
        }
    }
}

/// Kind and name of a resource: there is one of each. Printed as `WorkloadEndpoint openstack/web1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceId {
    /// A [`WorkloadEndpoint`].
    WorkloadEndpoint(EndpointName),
    /// A [`Subnet`].
    Subnet(String),
    /// A [`Node`].
    Node(String),
    /// A [`BgpConfiguration`].
    BgpConfiguration(String),
    /// A [`BgpPeer`].
    BgpPeer(String),
    /// A [`Policy`].
    Policy(ScopedName),
    /// A [`Tier`].
    Tier(String),
    /// A [`Profile`].
    Profile(String),
    /// A [`NetworkSet`].
    NetworkSet(ScopedName),
}

impl std::fmt::Display for ResourceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WorkloadEndpoint(name) => write!(f, "WorkloadEndpoint {name}"),
            Self::Subnet(name) => write!(f, "Subnet {name}"),
            Self::Node(name) => write!(f, "Node {name}"),
            Self::BgpConfiguration(name) => write!(f, "BGPConfiguration {name}"),
            Self::BgpPeer(name) => write!(f, "BGPPeer {name}"),
            Self::Policy(name) if name.namespace.is_none() => write!(f, "GlobalNetworkPolicy {name}"),
            Self::Policy(name) => write!(f, "NetworkPolicy {name}"),
            Self::Tier(name) => write!(f, "Tier {name}"),
            Self::Profile(name) => write!(f, "Profile {name}"),
            Self::NetworkSet(name) if name.namespace.is_none() => write!(f, "GlobalNetworkSet {name}"),
            Self::NetworkSet(name) => write!(f, "NetworkSet {name}"),
        }
    }
}

/// All valid resources, in the state they were last good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Endpoints of every node, by name.
    pub endpoints: BTreeMap<EndpointName, WorkloadEndpoint>,
    /// Subnets, by name.
    pub subnets: BTreeMap<String, Subnet>,
    /// Hosts, by name.
    pub nodes: BTreeMap<String, Node>,
    /// Settings of BGP, by name.
    pub bgp_configurations: BTreeMap<String, BgpConfiguration>,
    /// Sessions of BGP, by name.
    pub bgp_peers: BTreeMap<String, BgpPeer>,
    /// Policies, by name: global ones first.
    pub policies: BTreeMap<ScopedName, Policy>,
    /// Tiers, by name.
    pub tiers: BTreeMap<String, Tier>,
    /// Profiles, by name.
    pub profiles: BTreeMap<String, Profile>,
    /// Network sets, by name: global ones first.
    pub network_sets: BTreeMap<ScopedName, NetworkSet>,
}

impl Resources {
    /// Adds a resource, in the place of one of the same kind and name.
    pub fn insert(&mut self, resource: Resource) {
        match resource {
            Resource::WorkloadEndpoint(endpoint) => {
                self.endpoints.insert(endpoint.name.clone(), endpoint);
            }
            Resource::Subnet(subnet) => {
                self.subnets.insert(subnet.name.clone(), subnet);
            }
            Resource::Node(node) => {
                self.nodes.insert(node.name.clone(), node);
            }
            Resource::BgpConfiguration(settings) => {
                self.bgp_configurations.insert(settings.name.clone(), settings);
            }
            Resource::BgpPeer(peer) => {
                self.bgp_peers.insert(peer.name.clone(), peer);
            }
            Resource::Policy(policy) => {
                self.policies.insert(policy.name.clone(), policy);
            }
            Resource::Tier(tier) => {
                self.tiers.insert(tier.name.clone(), tier);
            }
            Resource::Profile(profile) => {
                self.profiles.insert(profile.name.clone(), profile);
            }
            Resource::NetworkSet(set) => {
                self.network_sets.insert(set.name.clone(), set);
            }
        }
    }
}
