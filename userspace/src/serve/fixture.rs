//! Endpoints for the tests of this directory.

use crate::plan::{Attached, NetworkSettings};
use crate::resource::HostAddress;
use crate::serve::frame;
use std::net::Ipv6Addr;

/// An endpoint with one address, one name server, one search domain and one NTP server.
pub(crate) fn endpoint() -> Attached {
    let gateway_mac: crate::resource::MacAddress = "fe:16:3e:00:00:01".parse().unwrap();
    let address = address("2001:db8:a41:2::11");
    Attached {
        interface: "tap11111111-aa".parse().unwrap(),
        ifindex: 7,
        admin_up: true,
        carrier: true,
        mtu: 1500,
        mac: "fa:16:3e:00:00:01".parse().unwrap(),
        gateway_mac,
        gateway: gateway_mac.link_local(),
        gateways: vec![],
        leased: vec![address],
        addresses: vec![address],
        network: NetworkSettings {
            dns_servers: vec!["2001:db8:53::1".parse().unwrap()],
            search_domains: vec!["openstack.example".to_owned()],
            ntp_servers: vec!["2001:db8:123::1".parse().unwrap()],
            fqdn: Some("vm-1.openstack.example".to_owned()),
            ..NetworkSettings::default()
        },
    }
}

/// Parses an address.
pub(crate) fn address(address: &str) -> HostAddress {
    HostAddress::new(address.parse().unwrap()).unwrap()
}

/// A neighbour solicitation by the VM of [`endpoint`].
pub(crate) fn solicitation(source: &str, target: &str) -> Vec<u8> {
    let target: Ipv6Addr = target.parse().unwrap();
    let mac = endpoint().mac;
    let from = Attached { gateway: source.parse().unwrap(), gateway_mac: mac, ..endpoint() };
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let to = frame::Destination { mac: [0x33, 0x33, 0xff, a, b, c], address: group };
    let mut message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
    if !from.gateway.is_unspecified() {
        message.extend_from_slice(&[1, 1]);
        message.extend_from_slice(&mac.octets());
    }
    frame::icmpv6(&from, to, &message)
}
