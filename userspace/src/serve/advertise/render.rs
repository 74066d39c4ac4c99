//! A router advertisement (RFC 4861 section 4.2) as a whole Ethernet frame.
//!
//! There is no prefix information: nothing is on-link but the router, and no address comes from SLAAC, so every packet of
//! a VM passes the gateway and every address is one we know.

use super::max_interval;
use crate::plan::{Attached, NetworkSettings};
use crate::serve::domain;
use crate::serve::frame::{self, Destination, IPV6, MINIMUM_MTU};

const ROUTER_ADVERTISEMENT: u8 = 134;
const CUR_HOP_LIMIT: u8 = 64;
/// Addresses come from DHCPv6.
const MANAGED: u8 = 0x80;
/// Other configuration comes from DHCPv6.
const OTHER: u8 = 0x40;

const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const MTU: u8 = 5;
const RDNSS: u8 = 25;
const DNSSL: u8 = 31;

/// Longest ICMPv6 message in a packet that every link carries.
const LONGEST: usize = MINIMUM_MTU - IPV6;

/// The advertisement to all nodes: what the daemon repeats, and what the hooks copy and re-address to answer a
/// solicitation. The IPv6 packet is at most 1280 bytes; name servers and search domains that don't fit are left out,
/// the last ones first.
pub fn render(endpoint: &Attached) -> Vec<u8> {
    render_to(endpoint, Destination::ALL_NODES)
}

/// The advertisement to one VM, the answer to its solicitation.
pub fn render_to(endpoint: &Attached, to: Destination) -> Vec<u8> {
    let network = &endpoint.network;
    let mut message = header(endpoint, network.router_lifetime);
    put_mtu(&mut message, endpoint.mtu);
    put_rdnss(&mut message, network);
    put_dnssl(&mut message, network);
    frame::icmpv6(endpoint, to, &message)
}

/// The advertisement that takes the endpoint's gateway back, sent when its link-local address changes: router lifetime 0.
pub fn render_withdrawal(endpoint: &Attached) -> Vec<u8> {
    frame::icmpv6(endpoint, Destination::ALL_NODES, &header(endpoint, 0))
}

/// The fixed part and the source link-layer address.
fn header(endpoint: &Attached, router_lifetime: u16) -> Vec<u8> {
    let mut message = Vec::with_capacity(LONGEST);
    // OTHER is always true, as the server answers every Information-request. MANAGED without an address would make
    // clients solicit for ever. The preference bits are 00, medium (RFC 4191 section 2.2).
    let flags = if endpoint.leased.is_empty() { OTHER } else { MANAGED | OTHER };
    message.extend_from_slice(&[ROUTER_ADVERTISEMENT, 0, 0, 0, CUR_HOP_LIMIT, flags]);
    message.extend_from_slice(&router_lifetime.to_be_bytes());
    // Reachable time and retransmission timer: unspecified.
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&[SOURCE_LINK_LAYER_ADDRESS, 1]);
    message.extend_from_slice(&endpoint.gateway_mac.octets());
    message
}

fn put_mtu(message: &mut Vec<u8>, mtu: u32) {
    // A host ignores less than the minimum (RFC 4861 section 6.3.4).
    if mtu >= MINIMUM_MTU as u32 {
        message.extend_from_slice(&[MTU, 1, 0, 0]);
        message.extend_from_slice(&mtu.to_be_bytes());
    }
}

/// RFC 8106 section 5.1.
fn put_rdnss(message: &mut Vec<u8>, network: &NetworkSettings) {
    let fitting = (LONGEST - message.len()).saturating_sub(8) / 16;
    let servers = &network.dns_servers[..network.dns_servers.len().min(fitting)];
    if servers.is_empty() {
        return;
    }
    message.extend_from_slice(&[RDNSS, (1 + 2 * servers.len()) as u8, 0, 0]);
    message.extend_from_slice(&resolver_lifetime(network).to_be_bytes());
    for server in servers {
        message.extend_from_slice(&server.octets());
    }
}

/// RFC 8106 section 5.2.
fn put_dnssl(message: &mut Vec<u8>, network: &NetworkSettings) {
    let fitting = (LONGEST - message.len()).saturating_sub(8);
    let mut names = Vec::new();
    for name in network.search_domains.iter().filter_map(|name| domain::encode(name)) {
        if (names.len() + name.len()).next_multiple_of(8) > fitting {
            break;
        }
        names.extend_from_slice(&name);
    }
    if names.is_empty() {
        return;
    }
    names.resize(names.len().next_multiple_of(8), 0);
    message.extend_from_slice(&[DNSSL, (1 + names.len() / 8) as u8, 0, 0]);
    message.extend_from_slice(&resolver_lifetime(network).to_be_bytes());
    message.extend_from_slice(&names);
}

/// Finite, and no shorter than three times `MaxRtrAdvInterval` (RFC 8106 section 5.1): names resolve as long as packets
/// have a route.
fn resolver_lifetime(network: &NetworkSettings) -> u32 {
    let lifetime = network.router_lifetime;
    u32::from(lifetime).max(3 * max_interval(lifetime).as_secs() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::fixture;
    use crate::serve::frame::tests::verify_sum;
    use dataplane_ebpf::abi::ADVERTISEMENT_CAPACITY;
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    #[test]
    fn an_advertisement_to_the_byte() {
        let frame = render(&fixture::endpoint());
        #[rustfmt::skip]
        let expected = [
            0x33, 0x33, 0, 0, 0, 1,  0xfe, 0x16, 0x3e, 0, 0, 1,  0x86, 0xdd,
            0x60, 0, 0, 0,  0, 88, 58, 255,
            0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0xfc, 0x16, 0x3e, 0xff, 0xfe, 0, 0, 1,
            0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            134, 0, 0, 0, 64, 0xc0, 0x23, 0x28,  0, 0, 0, 0,  0, 0, 0, 0,
            1, 1, 0xfe, 0x16, 0x3e, 0, 0, 1,
            5, 1, 0, 0, 0, 0, 0x05, 0xdc,
            25, 3, 0, 0, 0, 0, 0x23, 0x28,
            0x20, 1, 0x0d, 0xb8, 0, 0x53, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            31, 4, 0, 0, 0, 0, 0x23, 0x28,
            9, b'o', b'p', b'e', b'n', b's', b't', b'a', b'c', b'k',
            7, b'e', b'x', b'a', b'm', b'p', b'l', b'e', 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(frame[..56], expected[..56]);
        assert_eq!(frame[58..], expected[58..]);
        assert_eq!(verify_sum(&frame), 0xffff);
    }

    #[test]
    fn managed_only_with_an_address() {
        let mut endpoint = fixture::endpoint();
        assert_eq!(render(&endpoint)[59], 0xc0);
        endpoint.leased.clear();
        assert_eq!(render(&endpoint)[59], 0x40);
    }

    #[test]
    fn a_small_mtu_is_not_advertised() {
        let mut endpoint = fixture::endpoint();
        endpoint.mtu = 1280;
        assert_eq!(Decoded::of(&render(&endpoint)).mtu, Some(1280));
        endpoint.mtu = 1279;
        assert_eq!(Decoded::of(&render(&endpoint)).mtu, None);
    }

    #[test]
    fn an_answer_differs_only_in_its_destination() {
        let endpoint = fixture::endpoint();
        let guest: Ipv6Addr = "fe80::f816:3eff:fe00:1".parse().unwrap();
        let answer = render_to(&endpoint, Destination::vm(endpoint.mac, guest));
        let multicast = render(&endpoint);
        assert_eq!(answer[..6], endpoint.mac.octets());
        assert_eq!(answer[38..54], guest.octets());
        assert_eq!(answer[6..38], multicast[6..38]);
        assert_eq!(answer[54..56], multicast[54..56]);
        assert_eq!(answer[58..], multicast[58..]);
        assert_eq!(verify_sum(&answer), 0xffff);
    }

    #[test]
    fn a_withdrawal_has_lifetime_zero() {
        let endpoint = fixture::endpoint();
        let decoded = Decoded::of(&render_withdrawal(&endpoint));
        assert_eq!(decoded.router_lifetime, 0);
        assert!(decoded.dns.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_left_out_from_the_end() {
        let mut endpoint = fixture::endpoint();
        endpoint.network.dns_servers =
            (0..200).map(|n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)).collect();
        let decoded = Decoded::of(&render(&endpoint));
        assert_eq!(decoded.dns, endpoint.network.dns_servers[..75]);

        endpoint.network.dns_servers.truncate(1);
        endpoint.network.search_domains = (0..200).map(|n| format!("domain-{n}.example")).collect();
        let decoded = Decoded::of(&render(&endpoint));
        assert!(decoded.search.len() > 50);
        assert_eq!(decoded.search, endpoint.network.search_domains[..decoded.search.len()]);
    }

    /// Every option of an advertisement, read by the RFC and not by the code above.
    #[derive(Default)]
    struct Decoded {
        router_lifetime: u16,
        mtu: Option<u32>,
        dns: Vec<Ipv6Addr>,
        search: Vec<String>,
        lifetimes: Vec<u32>,
    }

    impl Decoded {
        fn of(frame: &[u8]) -> Self {
            assert_eq!(usize::from(u16::from_be_bytes([frame[18], frame[19]])), frame.len() - 54);
            assert_eq!(verify_sum(frame), 0xffff);
            assert_eq!(frame[54], 134);
            let mut decoded =
                Self { router_lifetime: u16::from_be_bytes([frame[60], frame[61]]), ..Self::default() };
            let mut options = &frame[70..];
            while !options.is_empty() {
                let (option, rest) = options.split_at(usize::from(options[1]) * 8);
                assert!(!option.is_empty());
                decoded.read(option);
                options = rest;
            }
            decoded
        }

        fn read(&mut self, option: &[u8]) {
            let word = u32::from_be_bytes(option[4..8].try_into().unwrap());
            match option[0] {
                1 => assert_eq!(option.len(), 8),
                5 => self.mtu = Some(word),
                25 => {
                    self.lifetimes.push(word);
                    let (servers, rest) = option[8..].as_chunks::<16>();
                    assert!(rest.is_empty() && !servers.is_empty());
                    self.dns.extend(servers.iter().map(|octets| Ipv6Addr::from(*octets)));
                }
                31 => {
                    self.lifetimes.push(word);
                    self.read_names(&option[8..]);
                }
                other => panic!("option {other}"),
            }
        }

        fn read_names(&mut self, mut names: &[u8]) {
            while names.first().is_some_and(|length| *length != 0) {
                let mut labels = vec![];
                while names[0] != 0 {
                    let (label, rest) = names[1..].split_at(names[0].into());
                    labels.push(std::str::from_utf8(label).unwrap());
                    names = rest;
                }
                names = &names[1..];
                self.search.push(labels.join("."));
            }
            assert!(names.len() < 8 && names.iter().all(|byte| *byte == 0), "padding");
        }
    }

    proptest! {
        #[test]
        fn always_legal(
            dns in proptest::collection::vec(any::<u128>(), 0..100),
            search in proptest::collection::vec("[a-z]{1,63}(\\.[a-z]{1,63}){0,3}", 0..40),
            router_lifetime: u16,
            mtu in 1280u32..65536,
        ) {
            let mut endpoint = fixture::endpoint();
            endpoint.mtu = mtu;
            endpoint.network.router_lifetime = router_lifetime;
            endpoint.network.dns_servers = dns.into_iter().map(Ipv6Addr::from).collect();
            endpoint.network.search_domains = search.into_iter().filter(|name| name.len() < 254).collect();
            let frame = render(&endpoint);
            prop_assert!(frame.len() <= 14 + 1280);
            prop_assert!(frame.len() <= ADVERTISEMENT_CAPACITY);
            prop_assert_eq!((frame.len() - 54) % 8, 0);
            let decoded = Decoded::of(&frame);
            prop_assert_eq!(decoded.router_lifetime, router_lifetime);
            prop_assert_eq!(decoded.mtu, Some(mtu));
            prop_assert!(endpoint.network.dns_servers.starts_with(&decoded.dns));
            prop_assert!(endpoint.network.search_domains.starts_with(&decoded.search));
            for lifetime in decoded.lifetimes {
                prop_assert!(lifetime != u32::MAX && lifetime >= max_interval(router_lifetime).as_secs() as u32);
            }
        }
    }
}
