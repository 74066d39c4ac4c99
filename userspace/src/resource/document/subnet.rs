//! Our own kind `Subnet`, and what networking-calico keeps of a subnet in etcd.

use super::super::Subnet;
use super::fields::{Field, Fields};
use super::metadata;
use ipnet::{IpNet, Ipv6Net};
use std::net::{IpAddr, Ipv6Addr};

/// RFC 4861 section 4.2 and 6.2.1: at most 9000 s. Below 30 s the periodic advertisements cannot keep it alive.
const ROUTER_LIFETIMES: std::ops::RangeInclusive<u32> = 30..=9000;

/// Reads a `Subnet` document; `None` when a fault was reported.
pub(super) fn read(document: &mut Fields<'_>) -> Option<Subnet> {
    let name = metadata::read(document).name;
    let mut spec = document.required("spec")?.fields();
    let cidr = spec.required("cidr").and_then(|field| cidr(&field));
    let network_id = spec.optional("networkId").and_then(|field| field.string());
    let dns_servers = spec.optional("dnsServers").map(|field| servers(&field)).unwrap_or_default();
    let search_domains = spec.optional("searchDomains").map(|field| domains(&field)).unwrap_or_default();
    let ntp_servers = spec.optional("ntpServers").map(|field| servers(&field)).unwrap_or_default();
    let valid_lifetime =
        spec.optional("validLifetime").map_or(Some(Subnet::VALID_LIFETIME), |f| f.integer(60..=u32::MAX));
    let router_lifetime = spec.optional("routerLifetime").map_or(Some(Subnet::ROUTER_LIFETIME), |field| {
        field.integer(ROUTER_LIFETIMES).and_then(|seconds| u16::try_from(seconds).ok())
    });
    spec.end();
    Some(Subnet {
        name: name?.to_owned(),
        cidr: cidr?,
        network_id: network_id.map(str::to_owned),
        dns_servers,
        search_domains,
        ntp_servers,
        valid_lifetime: valid_lifetime?,
        router_lifetime: router_lifetime?,
    })
}

/// Reads the value of a key `/calico/dhcp/v2/<region>/subnet/<name>`; `None` when a fault was reported or the subnet is
/// IPv4.
pub(super) fn read_etcd(value: &Field<'_>, name: &str) -> Option<Subnet> {
    let mut fields = value.fields();
    let network_id = fields.optional("network_id").and_then(|field| field.string());
    let cidr = fields.required("cidr").and_then(|field| {
        if matches!(field.string()?.parse(), Ok(IpNet::V4(_))) {
            field.note("an IPv4 subnet; IPv4 is left to the kernel");
            return None;
        }
        cidr(&field)
    });
    // Neutron allows name servers of the other family.
    let dns_servers = match fields.optional("dns_servers") {
        Some(field) => field
            .list()
            .iter()
            .filter_map(|field| match field.parse::<IpAddr>()? {
                IpAddr::V6(_) => server(field),
                IpAddr::V4(_) => None,
            })
            .collect(),
        None => Vec::new(),
    };
    let mode = fields.optional("ipv6_address_mode");
    if let Some(field) = mode.filter(|field| field.node.as_str() == Some("slaac")) {
        field.note("SLAAC is not served; DHCPv6 leases the addresses of this subnet");
    }
    fields.accept(&["gateway_ip", "host_routes", "ipv6_ra_mode"]);
    fields.end();
    Some(Subnet {
        name: name.to_owned(),
        cidr: cidr?,
        network_id: network_id.map(str::to_owned),
        dns_servers,
        search_domains: Vec::new(),
        ntp_servers: Vec::new(),
        valid_lifetime: Subnet::VALID_LIFETIME,
        router_lifetime: Subnet::ROUTER_LIFETIME,
    })
}

fn cidr(field: &Field<'_>) -> Option<Ipv6Net> {
    let text = field.string()?;
    let net = match text.parse::<IpNet>() {
        Ok(IpNet::V6(net)) => net,
        Ok(IpNet::V4(_)) => {
            field.error(format!("`{text}` is an IPv4 network; give an IPv6 one like 2001:db8:1:2::/64"));
            return None;
        }
        Err(_) => {
            field.error(format!("`{text}` is no network; write one like 2001:db8:1:2::/64"));
            return None;
        }
    };
    if net.trunc() != net {
        field.error(format!("`{text}` has bits after the prefix; write {}", net.trunc()));
        return None;
    }
    let first = net.network();
    if net.prefix_len() == 0 || first.is_multicast() || first.is_unicast_link_local() || first.is_loopback() {
        field.error(format!("`{text}` is no network of hosts; give a global or unique local one"));
        return None;
    }
    Some(net)
}

fn servers(field: &Field<'_>) -> Vec<Ipv6Addr> {
    field.list().iter().filter_map(server).collect()
}

/// A server's address. Link-local is legal (RFC 8106 section 5.1), the others name no server.
fn server(field: &Field<'_>) -> Option<Ipv6Addr> {
    let text = field.string()?;
    let Ok(address) = text.parse::<Ipv6Addr>() else {
        field.error(format!("`{text}` is no IPv6 address; write one like 2001:db8:53::1"));
        return None;
    };
    let unicast = !address.is_multicast()
        && !address.is_unspecified()
        && !address.is_loopback()
        && address.to_ipv4_mapped().is_none();
    if !unicast {
        field.error(format!("`{text}` is no server's address; give a unicast one"));
        return None;
    }
    Some(address)
}

fn domains(field: &Field<'_>) -> Vec<String> {
    let read = |field: &Field<'_>| metadata::domain(field.string()?).map_err(|wrong| field.error(wrong)).ok();
    field.list().iter().filter_map(read).collect()
}
