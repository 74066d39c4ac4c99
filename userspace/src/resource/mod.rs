//! Resources as types that cannot hold illegal values. Parsing is in [`document`]; nothing here does I/O.

mod endpoint;
mod names;
mod subnet;

pub mod document;

pub use endpoint::WorkloadEndpoint;
pub use names::{EndpointName, HostAddress, InterfaceName, MacAddress, NameError};
pub use subnet::Subnet;

/// One valid resource that concerns this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A VM's interface.
    WorkloadEndpoint(WorkloadEndpoint),
    /// What DHCPv6 and router advertisements say to the endpoints of a prefix.
    Subnet(Subnet),
}

/// All valid resources, in the state they were last good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Endpoints of every node, by name.
    pub endpoints: std::collections::BTreeMap<EndpointName, WorkloadEndpoint>,
    /// Subnets, by name.
    pub subnets: std::collections::BTreeMap<String, Subnet>,
}
