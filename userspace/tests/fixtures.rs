//! What networking-calico writes to etcd is read as it is, file by file and as one directory.

use dataplane_ebpf::abi::Address;
use dataplane_ebpf::decide::policy::{Subject, evaluate};
use dataplane_ebpf::host::MemoryPolicies;
use serval::plan::policy::reference::{self, Packet};
use serval::plan::policy::{Direction, Tunnels, memory, policies};
use serval::resource::policy::Protocol;
use serval::resource::{EndpointName, Resources, Severity, WorkloadEndpoint};
use serval::source::{Directory, check};
use std::net::Ipv6Addr;
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

/// Number of the TAP under which an endpoint's tables are asked.
const TAP: u32 = 7;

/// What the security groups say, by the plain reference and by the tables that are compiled.
struct Groups {
    resources: Resources,
}

impl Groups {
    fn endpoint(&self, address: Ipv6Addr) -> Option<&WorkloadEndpoint> {
        let mut all = self.resources.endpoints.values();
        all.find(|endpoint| endpoint.all_addresses().any(|own| own.get() == address))
    }

    /// Whether both ends let the packet pass; those that are no endpoints do.
    #[track_caller]
    fn pass(&self, packet: &Packet) -> bool {
        [(packet.source, Direction::Egress), (packet.destination, Direction::Ingress)].into_iter().all(
            |(address, direction)| {
                let Some(endpoint) = self.endpoint(address) else { return true };
                let said =
                    reference::evaluate(&self.resources, Tunnels::default(), endpoint, direction, packet);
                assert_eq!(
                    self.compiled(endpoint, direction, packet),
                    said.allowed,
                    "{direction:?} {packet:?}"
                );
                said.allowed
            },
        )
    }

    /// What the tables on the endpoint's own node say.
    fn compiled(&self, endpoint: &WorkloadEndpoint, direction: Direction, packet: &Packet) -> bool {
        let compiled = policies(&self.resources, &endpoint.node, Tunnels::default());
        let tables: MemoryPolicies = memory::of(&compiled, |name| (*name == endpoint.name).then_some(TAP));
        let chains = tables.endpoints[&TAP];
        let chain = if direction == Direction::Ingress { chains.ingress } else { chains.egress };
        let (source, destination) =
            (Address::new(packet.source.octets()), Address::new(packet.destination.octets()));
        let destination_port = match packet.protocol {
            Protocol::ICMP6 => u16::from_be_bytes(packet.icmp.into()),
            _ => packet.destination_port,
        };
        let subject = Subject {
            source: &source,
            destination: &destination,
            protocol: packet.protocol.0,
            source_port: packet.source_port,
            destination_port,
        };
        evaluate(&tables, chain, &subject).allowed
    }
}

/// The web server is in both groups, the other VM in `default` alone: members of that may talk to each other and to
/// anybody; anybody may ping the web server and call its ports 8000 to 8080, and one network its port 22.
#[test]
fn security_groups_say_who_may_talk_to_whom() {
    let groups = Groups { resources: Directory::read(&calico()).resources };
    let address = |text: &str| text.parse::<Ipv6Addr>().unwrap();
    let (web, pair, other) =
        (address("2001:db8:a41:2::1234"), address("2001:db8:a41:2::beef"), address("2001:db8:a41:2::5678"));
    let (office, world) = (address("2001:db8:f00::1"), address("2001:db8:bad::1"));
    let resolver = address("2001:db8:53::53");
    let ports = |protocol, source, destination, port| Packet {
        source,
        destination,
        protocol,
        source_port: 40_000,
        destination_port: port,
        icmp: (0, 0),
    };
    let tcp = |source, destination, port| ports(Protocol::TCP, source, destination, port);
    let udp = |source, destination, port| ports(Protocol::UDP, source, destination, port);
    let icmp = |source, destination, kind| Packet {
        icmp: (kind, 0),
        source_port: 0,
        ..ports(Protocol::ICMP6, source, destination, 0)
    };
    for (packet, passes) in [
        (tcp(office, web, 22), true),
        (tcp(world, web, 22), false),
        (tcp(office, web, 23), false),
        (tcp(world, web, 7999), false),
        (tcp(world, web, 8000), true),
        (tcp(world, pair, 8080), true),
        (tcp(world, web, 8081), false),
        (udp(world, web, 8000), false),
        (icmp(world, web, 128), true),
        (icmp(world, web, 139), false),
        (udp(world, web, 5353), false),
        (udp(other, web, 5353), true),
        // A member of its own group: all of it, from either address.
        (tcp(other, web, 1), true),
        (tcp(pair, other, 1), true),
        // The other VM is in no group that lets anybody in.
        (tcp(office, other, 22), false),
        (tcp(world, other, 8000), false),
        (icmp(world, other, 128), false),
        // Both may send to anybody.
        (udp(web, resolver, 53), true),
        (tcp(web, world, 443), true),
        (icmp(other, world, 128), true),
        // But for what Felix drops of VMs: VXLAN.
        (udp(other, world, 4789), false),
    ] {
        assert_eq!(groups.pass(&packet), passes, "{packet:?}");
    }
}

/// Without `default`, the web server may ask its resolver and nobody else.
#[test]
fn a_group_that_is_left_takes_its_rights_along() {
    let mut groups = Groups { resources: Directory::read(&calico()).resources };
    let web: Ipv6Addr = "2001:db8:a41:2::1234".parse().unwrap();
    let resolver: Ipv6Addr = "2001:db8:53::53".parse().unwrap();
    let asks = |destination, destination_port| Packet {
        source: web,
        destination,
        protocol: Protocol::UDP,
        source_port: 40_000,
        destination_port,
        icmp: (0, 0),
    };
    assert!(groups.pass(&asks(resolver, 54)));
    let endpoint =
        groups.resources.endpoints.values_mut().find(|endpoint| endpoint.node == "compute-1").unwrap();
    endpoint.labels.remove("sg.projectcalico.org/openstack-a1d0c7e4-5b92-4f18-93ae-c6f07b2d8e31");
    assert!(groups.pass(&asks(resolver, 53)));
    assert!(!groups.pass(&asks(resolver, 54)));
    assert!(!groups.pass(&asks("2001:db8:53::54".parse().unwrap(), 53)));
}
