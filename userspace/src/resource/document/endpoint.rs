//! Calico's `WorkloadEndpoint`, as calicoctl and networking-calico write it.

use super::super::{EndpointName, HostAddress, NamedPort, WorkloadEndpoint};
use super::fields::{Field, Fields};
use super::metadata::{self, Metadata};
use super::rule;
use std::net::{IpAddr, Ipv6Addr};

/// Reads the document; `None` when a fault was reported.
pub(super) fn read(document: &mut Fields<'_>) -> Option<WorkloadEndpoint> {
    let metadata = metadata::read(document);
    let network_id =
        annotation(&metadata, "openstack.projectcalico.org/network-id").map(|(_, id)| id.to_owned());
    let fqdn = annotation(&metadata, "openstack.projectcalico.org/fqdn").and_then(|(field, name)| {
        metadata::domain(name).map_err(|wrong| field.note(format!("{wrong}; ignored"))).ok()
    });
    let name = metadata.name.map(|name| EndpointName {
        namespace: metadata.namespace.unwrap_or("default").to_owned(),
        name: name.to_owned(),
    });

    let mut spec = document.required("spec")?.fields();
    let node = spec.required("node").and_then(|field| metadata::name(&field));
    let interface = spec.required("interfaceName").and_then(|field| field.parse());
    let mac = spec.required("mac").and_then(|field| field.parse());
    let networks = spec.optional("ipNetworks").map(|field| addresses(&field)).unwrap_or_default();
    let pairs = spec.optional("allowedIps").map(|field| addresses(&field)).unwrap_or_default();
    let gateway = spec.optional("ipv6Gateway").and_then(|field| gateway(&field));
    if let Some(field) = spec.optional("allowSpoofedSourcePrefixes").filter(|field| !field.is_empty()) {
        field.note("not used by this version: the endpoint may send from its own addresses only");
    }
    let profiles = spec.optional("profiles").map(|field| profiles(&field)).unwrap_or_default();
    let ports = spec.optional("ports").map(|field| ports(&field)).unwrap_or_default();
    spec.accept(&[
        "containerID",
        "endpoint",
        "ipNATs",
        "ipv4Gateway",
        "orchestrator",
        "pod",
        "qosControls",
        "serviceAccountName",
        "workload",
    ]);
    spec.end();

    let (addresses, allowed_pairs) = divide(networks, pairs);
    Some(WorkloadEndpoint {
        name: name?,
        node: node?.to_owned(),
        interface: interface?,
        mac: mac?,
        addresses,
        allowed_pairs,
        gateway,
        labels: metadata.labels,
        profiles,
        ports,
        network_id,
        fqdn,
    })
}

fn profiles(field: &Field<'_>) -> Vec<String> {
    field.list().iter().filter_map(metadata::name).map(str::to_owned).collect()
}

/// Named ports; what an orchestrator adds for itself is left to it.
fn ports(field: &Field<'_>) -> Vec<NamedPort> {
    let port = |field: &Field<'_>| {
        let mut fields = field.fields();
        let name = fields.optional("name").and_then(|field| metadata::name(&field));
        let protocol = fields.required("protocol").and_then(|field| rule::protocol(&field));
        let port = fields.required("port").and_then(|field| field.integer(1..=65_535));
        fields.accept(&["hostIP", "hostPort"]);
        fields.end();
        Some(NamedPort { name: name?.to_owned(), protocol: protocol?, port: u16::try_from(port?).ok()? })
    };
    field.list().iter().filter_map(port).collect()
}

fn annotation<'m, 'a>(metadata: &'m Metadata<'a>, key: &str) -> Option<(&'m Field<'a>, &'a str)> {
    let field = metadata.annotations.get(key)?;
    Some((field, field.string()?)).filter(|(_, text)| !text.is_empty())
}

/// What is leased, and what is allowed besides. networking-calico writes the fixed addresses into `ipNetworks` and then
/// the pairs, and the pairs once more into `allowedIps`; so what stands twice in the one is both.
fn divide(mut networks: Vec<HostAddress>, pairs: Vec<HostAddress>) -> (Vec<HostAddress>, Vec<HostAddress>) {
    for pair in &pairs {
        if let Some(i) = networks.iter().rposition(|address| address == pair) {
            networks.remove(i);
        }
    }
    let mut addresses = Vec::new();
    for address in networks {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let mut allowed = Vec::new();
    for pair in pairs {
        if !addresses.contains(&pair) && !allowed.contains(&pair) {
            allowed.push(pair);
        }
    }
    (addresses, allowed)
}

/// The IPv6 addresses of a list of networks. IPv4 is left to the kernel and therefore skipped.
fn addresses(field: &Field<'_>) -> Vec<HostAddress> {
    field.list().iter().filter_map(address).collect()
}

fn address(field: &Field<'_>) -> Option<HostAddress> {
    let text = field.string()?;
    let wrong = || {
        field.error(format!("`{text}` is no address; write one like 2001:db8::10/128"));
        None
    };
    let (address, prefix) = match text.split_once('/') {
        None => (text, None),
        Some((address, prefix)) => (address, Some(prefix)),
    };
    let Ok(address) = address.parse::<IpAddr>() else { return wrong() };
    let bits = if address.is_ipv6() { 128 } else { 32 };
    // networking-calico appends /128 to an allowed-address-pair that is a network: 2001:db8::/64/128.
    let own = prefix.map(|prefix| prefix.strip_suffix(&format!("/{bits}")).unwrap_or(prefix));
    let Some(length) = own.map_or(Some(bits), |own| own.parse::<u8>().ok().filter(|&length| length <= bits))
    else {
        return wrong();
    };
    let IpAddr::V6(address) = address else { return None };
    if length != bits {
        field.note(format!(
            "`{text}` is a network; only single addresses (/128) are used, this entry is skipped"
        ));
        return None;
    }
    host(field, address)
}

fn gateway(field: &Field<'_>) -> Option<HostAddress> {
    let text = field.string()?;
    match text.parse::<IpAddr>() {
        // Neutron allows it; the router that guests use is the TAP's own link-local address, configured or not.
        Ok(IpAddr::V6(address)) if address.is_unicast_link_local() => {
            field.note(format!(
                "`{text}` is link-local; ignored, the TAP's own link-local address is the router"
            ));
            None
        }
        Ok(IpAddr::V6(address)) => host(field, address),
        Ok(IpAddr::V4(_)) => {
            field.error(format!("`{text}` is an IPv4 address; the IPv4 gateway goes into `ipv4Gateway`"));
            None
        }
        Err(_) => {
            field.error(format!("`{text}` is no IPv6 address; write one like 2001:db8::1, without prefix"));
            None
        }
    }
}

fn host(field: &Field<'_>, address: Ipv6Addr) -> Option<HostAddress> {
    HostAddress::new(address).map_err(|wrong| field.error(wrong.to_string())).ok()
}
