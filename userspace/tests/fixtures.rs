//! What networking-calico writes to etcd is read as it is, file by file and as one directory.

use serval::resource::{EndpointName, Severity};
use serval::source::{Directory, check};
use std::path::{Path, PathBuf};

fn calico() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/calico")
}

#[test]
fn everything_calico_writes_is_accepted() {
    let snapshot = Directory::read(&calico());
    assert!(!snapshot.has_errors(), "{:#?}", snapshot.problems);
    assert_eq!(snapshot.resources.endpoints.len(), 2);
    assert_eq!(snapshot.resources.subnets.len(), 1);
    assert_eq!(snapshot.resources.policies.len(), 2);
    // The IPv4 subnet, cluster information, Felix' configuration and two status reports.
    assert_eq!(snapshot.problems.iter().filter(|p| p.severity == Severity::Note).count(), 5);
}

#[test]
fn a_neutron_port_becomes_an_endpoint() {
    let snapshot = check(&calico().join("01-workloadendpoint-dualstack.json"));
    assert_eq!(snapshot.problems, []);
    let name = EndpointName {
        namespace: "openstack".into(),
        name: "compute--1-openstack-d0000001--1111--4222--8333--444444444401-11111111--aaaa--4bbb--8ccc--000000000001"
            .into(),
    };
    let endpoint = &snapshot.resources.endpoints[&name];
    let show = |addresses: &[serval::resource::HostAddress]| {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(endpoint.node, "compute-1");
    assert_eq!(endpoint.interface.as_str(), "tap11111111-aa");
    assert_eq!(endpoint.mac.to_string(), "fa:16:3e:11:22:33");
    assert_eq!(show(&endpoint.addresses), ["2001:db8:a41:2::1234"]);
    assert_eq!(show(&endpoint.allowed_pairs), ["2001:db8:a41:2::beef"]);
    assert_eq!(endpoint.gateway.map(|gateway| gateway.to_string()).as_deref(), Some("2001:db8:a41:2::1"));
    assert_eq!(endpoint.network_id.as_deref(), Some("0f3b7d52-6a1e-4c39-9b0e-5d2f4a7c8e10"));
    assert_eq!(endpoint.fqdn.as_deref(), Some("web1.openstack.example"));
    assert_eq!(endpoint.labels.len(), 10);
}

#[test]
fn a_neutron_subnet_becomes_a_subnet() {
    let snapshot = check(&calico().join("05-subnet-v6-stateful.json"));
    assert_eq!(snapshot.problems, []);
    let subnet = &snapshot.resources.subnets["6c0d2a91-7f4b-4e0a-8b53-21d9e7a04f66"];
    assert_eq!(subnet.cidr.to_string(), "2001:db8:a41:2::/64");
    assert_eq!(subnet.network_id.as_deref(), Some("0f3b7d52-6a1e-4c39-9b0e-5d2f4a7c8e10"));
    assert_eq!(subnet.dns_servers, ["2001:db8:53::53".parse::<std::net::Ipv6Addr>().unwrap()]);
    assert_eq!((subnet.valid_lifetime, subnet.router_lifetime), (86_400, 9_000));
}
