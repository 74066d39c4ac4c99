//! What this host should look like: pure functions from resources and host facts to a plan. No I/O, no clock.

mod host;

pub use host::{HostFacts, LinkFacts};

use crate::resource::{EndpointName, HostAddress, InterfaceName, MacAddress};
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

/// What this host should look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Every endpoint of this node.
    pub endpoints: BTreeMap<EndpointName, EndpointPlan>,
    /// TAPs with our prefix that no endpoint claims, by ifindex: they forward nothing.
    pub unclaimed: BTreeMap<u32, InterfaceName>,
}

/// One endpoint and what can be done about it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointPlan {
    /// Its TAP is there.
    Attached(Attached),
    /// Its TAP is not there yet.
    Pending {
        /// The TAP we wait for.
        interface: InterfaceName,
        /// Its addresses, for `status`.
        addresses: Vec<HostAddress>,
    },
    /// It contradicts another resource and gets nothing.
    Rejected {
        /// Its TAP.
        interface: InterfaceName,
        /// Its addresses, for `status`.
        addresses: Vec<HostAddress>,
        /// What is wrong and what to do.
        reason: String,
    },
}

/// Everything that maps, kernel, DHCPv6 and router advertisements need to know of an endpoint whose TAP is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its TAP.
    pub interface: InterfaceName,
    /// The TAP's ifindex.
    pub ifindex: u32,
    /// The TAP is administratively up.
    pub admin_up: bool,
    /// The TAP's carrier is on: a VMM has it open.
    pub carrier: bool,
    /// MTU of the TAP in bytes.
    pub mtu: u32,
    /// MAC of the VM.
    pub mac: MacAddress,
    /// MAC of the TAP.
    pub gateway_mac: MacAddress,
    /// Link-local address of the TAP, the VM's default router: made from the TAP's MAC as the kernel does (EUI-64).
    pub gateway: Ipv6Addr,
    /// Further addresses of the router: the endpoint's `ipv6Gateway`.
    pub gateways: Vec<HostAddress>,
    /// What DHCPv6 leases, in order.
    pub leased: Vec<HostAddress>,
    /// All addresses it may use and is reached under: `leased` first, then allowed pairs.
    pub addresses: Vec<HostAddress>,
    /// What DHCPv6 and router advertisements say besides.
    pub network: NetworkSettings,
}

/// DHCPv6 and router advertisement settings of an endpoint, from its Subnet or the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSettings {
    /// Recursive DNS servers.
    pub dns_servers: Vec<Ipv6Addr>,
    /// DNS search list.
    pub search_domains: Vec<String>,
    /// NTP servers.
    pub ntp_servers: Vec<Ipv6Addr>,
    /// The VM's name, for the client FQDN option.
    pub fqdn: Option<String>,
    /// Valid and preferred lifetime of a lease in seconds; `u32::MAX` is forever.
    pub valid_lifetime: u32,
    /// Router lifetime in seconds.
    pub router_lifetime: u16,
}
