//! Any bytes are read without a panic, and what the kernel would encode comes back as it was.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const KINDS: [u16; 10] = [
    libc::RTM_NEWLINK,
    libc::RTM_DELLINK,
    libc::RTM_NEWNEIGH,
    libc::RTM_DELNEIGH,
    RTM_NEWNEXTHOP,
    RTM_DELNEXTHOP,
    libc::RTM_NEWROUTE,
    libc::RTM_DELROUTE,
    libc::RTM_NEWRULE,
    libc::RTM_DELRULE,
];

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (4 + value.len()) as u16;
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn word(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_ne_bytes())
}

fn address(kind: u16, value: Ipv6Addr) -> Vec<u8> {
    attribute(kind, &value.octets())
}

/// BGP's.
const PROTOCOL: u8 = 186;

/// `struct rtmsg` of a unicast route in table main, and these attributes.
fn route_message(prefix: Prefix, metric: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
    let header =
        [AF_INET6, prefix.length(), 0, 0, libc::RT_TABLE_MAIN, PROTOCOL, 0, libc::RTN_UNICAST, 0, 0, 0, 0];
    let more = [address(libc::RTA_DST, prefix.address()), word(libc::RTA_PRIORITY, metric)].concat();
    [&header[..], &more, &attributes.concat()].concat()
}

/// Of several next hops, as `rt6_fill_node_nexthop` writes them.
fn multipath_attribute(hops: &[Hop]) -> Vec<u8> {
    let entry = |hop: &Hop| {
        let gateway = address(libc::RTA_GATEWAY, hop.gateway);
        let length = (8 + gateway.len()) as u16;
        let header = [&length.to_ne_bytes()[..], &[0, (hop.weight - 1) as u8], &hop.ifindex.to_ne_bytes()];
        [header.concat(), gateway].concat()
    };
    attribute(libc::RTA_MULTIPATH, &hops.iter().flat_map(entry).collect::<Vec<u8>>())
}

fn addresses() -> impl Strategy<Value = Ipv6Addr> {
    any::<u128>().prop_map(Ipv6Addr::from_bits)
}

fn prefixes() -> impl Strategy<Value = Prefix> {
    (addresses(), 0..=128u8).prop_filter_map("a length that fits", |(a, length)| Prefix::new(a, length))
}

fn hops(weights: std::ops::RangeInclusive<u32>) -> impl Strategy<Value = Hop> {
    (1..=u32::MAX, addresses(), weights).prop_map(|(ifindex, gateway, weight)| Hop {
        ifindex,
        gateway,
        weight,
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(
        kind in prop::sample::select(&KINDS[..]),
        flags in any::<u16>(),
        bytes in vec(any::<u8>(), 0..300),
    ) {
        parse(kind, flags, &bytes);
        Rule::parse(&bytes);
    }

    /// Random bytes hardly ever get beyond the header, so here that is right, and attributes are of types that are read.
    #[test]
    fn any_attributes_are_read_without_a_panic(
        kind in prop::sample::select(&KINDS[..]),
        header in vec(any::<u8>(), 16),
        attributes in vec((0..40u16, vec(any::<u8>(), 0..40), any::<u16>()), 0..12),
        cut in 0..64usize,
    ) {
        let size = match kind {
            libc::RTM_NEWLINK | libc::RTM_DELLINK => 16,
            RTM_NEWNEXTHOP | RTM_DELNEXTHOP => 8,
            _ => 12,
        };
        let mut bytes = header[..size].to_vec();
        bytes[0] = if size == 16 { 0 } else { AF_INET6 };
        for (kind, value, length) in attributes {
            let start = bytes.len();
            bytes.extend(attribute(kind, &value));
            if length % 8 == 0 {
                // One that lies about its length.
                bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
            }
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        parse(kind, 0, &bytes);
        Rule::parse(&bytes);
    }

    #[test]
    fn a_route_by_one_next_hop_comes_back(
        prefix in prefixes(),
        metric in any::<u32>(),
        mtu in any::<u32>(),
        hop in hops(1..=1),
        replaces in any::<bool>(),
    ) {
        let message = route_message(prefix, metric, &[
            attribute(libc::RTA_METRICS, &word(RTAX_MTU, mtu)),
            word(libc::RTA_OIF, hop.ifindex),
            address(libc::RTA_GATEWAY, hop.gateway),
            // What we do not know does no harm.
            attribute(200, &[1, 2, 3]),
        ]);
        let id = RouteId { prefix, table: Table::Main, source: None, metric };
        let route = Route { path: Path::Hops(vec![hop]), mtu, joins: true, protocol: PROTOCOL };
        let flags = if replaces { NLM_F_REPLACE } else { 0 };
        let wanted = Event::Route { id, route: route.clone(), replaces };
        prop_assert_eq!(parse(libc::RTM_NEWROUTE, flags, &message), Some(wanted));
        prop_assert_eq!(parse(libc::RTM_DELROUTE, 0, &message), Some(Event::RouteGone { id, route }));
    }

    #[test]
    fn a_route_by_several_next_hops_comes_back(
        prefix in prefixes(),
        metric in any::<u32>(),
        hops in vec(hops(1..=256), 1..20),
    ) {
        let message = route_message(prefix, metric, &[multipath_attribute(&hops)]);
        let id = RouteId { prefix, table: Table::Main, source: None, metric };
        let route = Route { path: Path::Hops(hops), mtu: 0, joins: true, protocol: PROTOCOL };
        let wanted = Event::Route { id, route, replaces: false };
        prop_assert_eq!(parse(libc::RTM_NEWROUTE, 0, &message), Some(wanted));
    }

    #[test]
    fn a_route_that_the_kernel_caches_is_none(prefix in prefixes(), flags in any::<u32>()) {
        let mut message = route_message(prefix, 1, &[]);
        message[8..12].copy_from_slice(&(flags | libc::RTM_F_CLONED).to_ne_bytes());
        prop_assert_eq!(parse(libc::RTM_NEWROUTE, 0, &message), None);
    }

    #[test]
    fn a_neighbour_comes_back(
        ifindex in any::<u32>(),
        to in addresses(),
        octets in any::<[u8; 6]>(),
        state in prop::sample::select(&[
            libc::NUD_INCOMPLETE, libc::NUD_REACHABLE, libc::NUD_STALE, libc::NUD_DELAY, libc::NUD_PROBE,
            libc::NUD_FAILED, libc::NUD_NOARP, libc::NUD_PERMANENT,
        ][..]),
    ) {
        let mut message = vec![AF_INET6, 0, 0, 0];
        message.extend(ifindex.to_ne_bytes());
        message.extend(state.to_ne_bytes());
        message.extend([0, 0]);
        message.extend(address(libc::NDA_DST, to));
        message.extend(attribute(libc::NDA_LLADDR, &octets));
        // RFC 4861 section 7.3.2: no MAC is known in the first state, and the last one known is wrong in FAILED.
        let known = ![libc::NUD_INCOMPLETE, libc::NUD_FAILED].contains(&state);
        let neighbour =
            Neighbour { mac: known.then(|| Mac::new(octets)), stale: state == libc::NUD_STALE };
        let key = (ifindex, to);
        prop_assert_eq!(parse(libc::RTM_NEWNEIGH, 0, &message), Some(Event::Neighbour(key, neighbour)));
        prop_assert_eq!(parse(libc::RTM_DELNEIGH, 0, &message), Some(Event::NeighbourGone(key)));
        message[10] = libc::NTF_PROXY;
        prop_assert_eq!(parse(libc::RTM_NEWNEIGH, 0, &message), None);
    }

    #[test]
    fn next_hop_objects_come_back(
        id in any::<u32>(),
        hop in hops(1..=1),
        members in vec((any::<u32>(), 1..=65_536u32), 1..20),
    ) {
        let header = [AF_INET6, 0, 0, 0, 0, 0, 0, 0];
        let single = [
            &header[..], &word(NHA_ID, id), &word(NHA_OIF, hop.ifindex), &address(NHA_GATEWAY, hop.gateway),
        ].concat();
        let wanted = Event::Object(id, Object::Single(hop));
        prop_assert_eq!(parse(RTM_NEWNEXTHOP, 0, &single), Some(wanted));
        prop_assert_eq!(parse(RTM_DELNEXTHOP, 0, &single), Some(Event::ObjectGone(id)));

        let entry = |(id, weight): &(u32, u32)| {
            let [low, high, ..] = (weight - 1).to_le_bytes();
            [&id.to_ne_bytes()[..], &[low, high, 0, 0]].concat()
        };
        let group = attribute(NHA_GROUP, &members.iter().flat_map(entry).collect::<Vec<u8>>());
        let kind = |kind: u16| attribute(NHA_GROUP_TYPE, &kind.to_ne_bytes());
        let message = |kind: Vec<u8>| [&header[..], &word(NHA_ID, id), &group, &kind].concat();
        let wanted = Event::Object(id, Object::Group(members));
        prop_assert_eq!(parse(RTM_NEWNEXTHOP, 0, &message(kind(NEXTHOP_GRP_TYPE_MPATH))), Some(wanted));
        let resilient = parse(RTM_NEWNEXTHOP, 0, &message(kind(1)));
        prop_assert_eq!(resilient, Some(Event::Object(id, Object::Kernel)));
    }

    #[test]
    fn an_interface_comes_back(
        ifindex in any::<u32>(),
        name in "[a-z]{1,8}[0-9]{0,4}",
        octets in any::<[u8; 6]>(),
        mtus in (any::<u32>(), any::<u32>()),
        up in any::<bool>(),
        carrier in any::<bool>(),
    ) {
        let flag = |on: bool, flag: libc::c_int| if on { flag as u32 } else { 0 };
        let flags = flag(up, libc::IFF_UP) | flag(carrier, libc::IFF_LOWER_UP);
        let mut message = vec![0, 0];
        message.extend(libc::ARPHRD_ETHER.to_ne_bytes());
        message.extend(ifindex.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(attribute(libc::IFLA_IFNAME, &[name.as_bytes(), &[0]].concat()));
        message.extend(attribute(libc::IFLA_ADDRESS, &octets));
        message.extend(word(libc::IFLA_MTU, mtus.0));
        let mut conf = vec![0; 4 * DEVCONF_MTU6];
        conf.extend(mtus.1.to_ne_bytes());
        let ipv6 = attribute(u16::from(AF_INET6), &attribute(IFLA_INET6_CONF, &conf));
        message.extend(attribute(libc::IFLA_AF_SPEC, &ipv6));
        let link =
            Link { name, mac: Some(Mac::new(octets)), mtu: mtus.0.min(mtus.1), device_mtu: mtus.0, up, carrier };
        prop_assert_eq!(parse(libc::RTM_NEWLINK, 0, &message), Some(Event::Link(ifindex, link)));
        prop_assert_eq!(parse(libc::RTM_DELLINK, 0, &message), Some(Event::LinkGone(ifindex)));
    }
}
