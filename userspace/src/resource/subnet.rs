//! What DHCPv6 and router advertisements say to the endpoints of a prefix: Serval's own kind `Subnet`.

use std::net::Ipv6Addr;

/// DHCPv6 and router advertisement settings of the endpoints whose addresses lie in a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// `metadata.name`.
    pub name: String,
    /// `spec.cidr`, host bits zero.
    pub cidr: ipnet::Ipv6Net,
    /// `spec.networkId`: matched with the endpoint's annotation when both are there.
    pub network_id: Option<String>,
    /// `spec.dnsServers`.
    pub dns_servers: Vec<Ipv6Addr>,
    /// `spec.searchDomains`, lower case, without the final dot.
    pub search_domains: Vec<String>,
    /// `spec.ntpServers`.
    pub ntp_servers: Vec<Ipv6Addr>,
    /// `spec.validLifetime` in seconds: DHCPv6 preferred = valid. `u32::MAX` is forever.
    pub valid_lifetime: u32,
    /// `spec.routerLifetime` in seconds, at most 9000 (RFC 4861 section 6.2.1); at least 30.
    pub router_lifetime: u16,
}

impl Subnet {
    /// Default of `spec.validLifetime` in seconds.
    pub const VALID_LIFETIME: u32 = 86_400;
    /// Default of `spec.routerLifetime` in seconds.
    pub const ROUTER_LIFETIME: u16 = 9_000;
}
