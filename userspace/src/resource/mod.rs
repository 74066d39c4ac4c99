//! Resources as types that cannot hold illegal values. Parsing is in [`document`]; nothing here does I/O.

mod endpoint;
mod names;
mod problem;
mod subnet;

pub mod document;

pub use endpoint::WorkloadEndpoint;
pub use names::{EndpointName, HostAddress, InterfaceName, MacAddress, NameError};
pub use problem::{Position, Problem, Severity};
pub use subnet::Subnet;

/// One valid resource that concerns this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A VM's interface.
    WorkloadEndpoint(WorkloadEndpoint),
    /// What DHCPv6 and router advertisements say to the endpoints of a prefix.
    Subnet(Subnet),
}

impl Resource {
    /// What it is called.
    pub fn id(&self) -> ResourceId {
        match self {
            Self::WorkloadEndpoint(endpoint) => ResourceId::WorkloadEndpoint(endpoint.name.clone()),
            Self::Subnet(subnet) => ResourceId::Subnet(subnet.name.clone()),
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
}

impl std::fmt::Display for ResourceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WorkloadEndpoint(name) => write!(f, "WorkloadEndpoint {name}"),
            Self::Subnet(name) => write!(f, "Subnet {name}"),
        }
    }
}

/// All valid resources, in the state they were last good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Endpoints of every node, by name.
    pub endpoints: std::collections::BTreeMap<EndpointName, WorkloadEndpoint>,
    /// Subnets, by name.
    pub subnets: std::collections::BTreeMap<String, Subnet>,
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
        }
    }
}
