//! The difference between plan and kernel, case by case; and that making the changes leaves none.

use super::*;
use proptest::prelude::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GATEWAY: &str = "fe80::ff:fe00:2";
const PLAIN: AddressFlags = AddressFlags::Permanent;

fn ip(address: &str) -> Ipv6Addr {
    address.parse().unwrap()
}

fn mac() -> MacAddress {
    MacAddress::new(MAC).unwrap()
}

fn desired() -> Desired {
    Desired {
        addresses: [(ip(GATEWAY), 64), (ip("2001:db8::1"), 128)].into(),
        routes: [ip("2001:db8::5")].into(),
        neighbours: [(ip("2001:db8::5"), mac()), (ip("fe80::ff:fe00:1"), mac())].into(),
    }
}

fn ours(address: &str, prefix_length: u8) -> Address {
    let protocol = Some(AddressProtocol::Other(PROTOCOL));
    Address { address: ip(address), prefix_length, flags: PLAIN | AddressFlags::Nodad, protocol }
}

fn permanent(address: &str, mac: [u8; 6], protocol: u8) -> Neighbour {
    Neighbour { address: ip(address), mac: Some(mac), state: NeighbourState::Permanent, protocol }
}

fn settled() -> Actual {
    Actual {
        addresses: vec![ours(GATEWAY, 64), ours("2001:db8::1", 128)],
        routes: [Route { destination: ip("2001:db8::5"), prefix_length: 128, metric: METRIC }].into(),
        neighbours: vec![
            permanent("2001:db8::5", MAC, PROTOCOL),
            permanent("fe80::ff:fe00:1", MAC, PROTOCOL),
        ],
    }
}

/// `settled`, changed by `edit`, differs from the plan by exactly this.
fn expect(edit: impl FnOnce(&mut Actual), changes: &[Change]) {
    let mut actual = settled();
    edit(&mut actual);
    assert_eq!(diff(&desired(), &actual), (changes.to_vec(), vec![]));
}

#[test]
fn nothing_to_do_when_all_is_there() {
    expect(|_| {}, &[]);
}

#[test]
fn everything_is_made_on_a_bare_tap() {
    let (changes, obstacles) = diff(&desired(), &Actual::default());
    assert_eq!(changes.len(), 5);
    assert_eq!(obstacles, []);
}

#[test]
fn everything_of_ours_goes_with_the_endpoint() {
    let (changes, _) = diff(&Desired::default(), &settled());
    assert_eq!(changes.len(), 5);
    assert!(changes.iter().all(|change| change.stage() == 2));
}

#[test]
fn a_link_local_of_an_older_mac_goes_and_the_kernels_own_becomes_ours() {
    let old = "fe80::ff:fe00:99";
    let remove = [Change::RemoveAddress(ip(old), 64)];
    expect(|actual| actual.addresses.push(ours(old, 64)), &remove);
    let kernels = |address, protocol| Address { protocol, ..ours(address, 64) };
    expect(|actual| actual.addresses.push(kernels(old, Some(AddressProtocol::LinkLocal))), &remove);
    // Before Linux 5.18.
    expect(|actual| actual.addresses.push(kernels(old, None)), &remove);
    expect(|actual| actual.addresses[0] = kernels(GATEWAY, None), &[]);
    let adopt = [Change::SetAddress(ip(GATEWAY), 64)];
    expect(|actual| actual.addresses[0] = kernels(GATEWAY, Some(AddressProtocol::LinkLocal)), &adopt);
}

#[test]
fn an_address_in_duplicate_detection_is_made_anew() {
    let renew = [Change::RenewAddress(ip(GATEWAY), 64), Change::SetAddress(ip(GATEWAY), 64)];
    for flag in [AddressFlags::Tentative, AddressFlags::Dadfailed, AddressFlags::Deprecated] {
        expect(|actual| actual.addresses[0].flags |= flag, &renew);
    }
    let renew = [Change::RenewAddress(ip(GATEWAY), 10), Change::SetAddress(ip(GATEWAY), 64)];
    expect(|actual| actual.addresses[0].prefix_length = 10, &renew);
}

#[test]
fn addresses_of_others_stay() {
    let foreign = |address| Address { protocol: None, ..ours(address, 64) };
    expect(|actual| actual.addresses.push(foreign("2001:db8:9::1")), &[]);
    expect(|actual| actual.addresses.push(foreign("fe80::1")), &[]);
    // Ours by address, somebody else's by owner: as good as ours.
    expect(|actual| actual.addresses[1] = foreign("2001:db8::1"), &[]);
    let mut actual = settled();
    actual.addresses[1] = foreign("2001:db8::1");
    assert!(!diff(&Desired::default(), &actual).0.contains(&Change::RemoveAddress(ip("2001:db8::1"), 64)));
}

#[test]
fn routes_of_ours_that_are_not_planned_go() {
    let stale = Route { destination: ip("2001:db8::6"), prefix_length: 128, metric: METRIC };
    expect(|actual| actual.routes.extend([stale]), &[Change::RemoveRoute(stale)]);
    let other_metric = Route { destination: ip("2001:db8::5"), prefix_length: 128, metric: METRIC + 1 };
    expect(|actual| actual.routes.extend([other_metric]), &[Change::RemoveRoute(other_metric)]);
    let whole_prefix = Route { destination: ip("2001:db8::5"), prefix_length: 64, metric: METRIC };
    expect(|actual| actual.routes.extend([whole_prefix]), &[Change::RemoveRoute(whole_prefix)]);
}

#[test]
fn a_neighbour_gets_the_vms_mac() {
    let set = [Change::SetNeighbour(ip("2001:db8::5"), mac())];
    expect(|actual| actual.neighbours[0].mac = Some([2, 0, 0, 0, 0, 9]), &set);
    for state in [NeighbourState::Reachable, NeighbourState::Stale, NeighbourState::Failed] {
        expect(|actual| actual.neighbours[0].state = state, &set);
    }
    let stale = permanent("2001:db8::6", MAC, PROTOCOL);
    expect(|actual| actual.neighbours.push(stale), &[Change::RemoveNeighbour(ip("2001:db8::6"))]);
    // What is left of a deleted one.
    let failed = Neighbour { state: NeighbourState::Failed, ..stale };
    expect(|actual| actual.neighbours.push(failed), &[]);
}

#[test]
fn neighbours_of_others_stay_and_are_told_when_they_are_wrong() {
    expect(|actual| actual.neighbours[0].protocol = 0, &[]);
    expect(|actual| actual.neighbours.push(permanent("2001:db8::6", MAC, 4)), &[]);
    let mut actual = settled();
    actual.neighbours[0] = permanent("2001:db8::5", [2, 0, 0, 0, 0, 9], 4);
    let obstacle = Obstacle::Neighbour { address: ip("2001:db8::5"), protocol: 4 };
    assert_eq!(diff(&desired(), &actual), (vec![], vec![obstacle]));
}

/// What the kernel does, as far as it matters here.
fn perform(actual: &mut Actual, change: Change) {
    match change {
        Change::RenewAddress(address, _) | Change::RemoveAddress(address, _) => {
            actual.addresses.retain(|there| there.address != address);
        }
        Change::SetAddress(address, prefix_length) => {
            actual.addresses.retain(|there| there.address != address);
            actual.addresses.push(Address { address, ..ours(GATEWAY, prefix_length) });
        }
        Change::RemoveRoute(route) => actual.routes.retain(|there| *there != route),
        Change::AddRoute(destination) => {
            actual.routes.insert(Route { destination, prefix_length: 128, metric: METRIC });
        }
        Change::RemoveNeighbour(address) => {
            actual.neighbours.retain(|there| there.address != address);
        }
        Change::SetNeighbour(address, mac) => {
            actual.neighbours.retain(|there| there.address != address);
            actual.neighbours.push(Neighbour { address, ..permanent(GATEWAY, mac.octets(), PROTOCOL) });
        }
    }
}

fn any_ip() -> impl Strategy<Value = Ipv6Addr> {
    (any::<bool>(), 0..6_u16).prop_map(|(local, last)| match local {
        true => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x00ff, 0xfe00, last),
        false => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last),
    })
}

fn any_mac() -> impl Strategy<Value = MacAddress> {
    (1..3_u8).prop_map(|last| MacAddress::new([2, 0, 0, 0, 0, last]).unwrap())
}

prop_compose! {
    fn any_desired()(
        gateway in any_ip(),
        gateways in proptest::collection::btree_set(any_ip(), 0..3),
        routes in proptest::collection::btree_set(any_ip(), 0..4),
        mac in any_mac(),
    ) -> Desired {
        Desired {
            addresses: gateways.into_iter().map(|address| (address, 128)).chain([(gateway, 64)]).collect(),
            neighbours: routes.iter().map(|&address| (address, mac)).collect(),
            routes,
        }
    }
}

prop_compose! {
    fn any_actual()(
        addresses in proptest::collection::btree_map(
            any_ip(), (prop_oneof![Just(64_u8), Just(128)], any::<bool>(), proptest::option::of(0..5_u8)), 0..5),
        routes in proptest::collection::btree_map(any_ip(), METRIC..METRIC + 2, 0..4),
        neighbours in proptest::collection::btree_map(
            any_ip(), (any_mac(), any::<bool>(), prop_oneof![Just(0), Just(PROTOCOL)]), 0..5),
    ) -> Actual {
        Actual {
            addresses: addresses.into_iter().map(|(address, (prefix_length, tentative, protocol))| Address {
                address,
                prefix_length,
                flags: if tentative { PLAIN | AddressFlags::Tentative } else { PLAIN },
                protocol: protocol.map(|number| if number == 4 { PROTOCOL } else { number }.into()),
            }).collect(),
            routes: routes.into_iter()
                .map(|(destination, metric)| Route { destination, prefix_length: 128, metric }).collect(),
            neighbours: neighbours.into_iter().map(|(address, (mac, permanent, protocol))| Neighbour {
                address,
                mac: Some(mac.octets()),
                state: if permanent { NeighbourState::Permanent } else { NeighbourState::Stale },
                protocol,
            }).collect(),
        }
    }
}

proptest! {
    #[test]
    fn the_changes_lead_to_the_plan_and_spare_others(desired in any_desired(), before in any_actual()) {
        let (mut changes, obstacles) = diff(&desired, &before);
        changes.sort_by_key(|change| change.stage());
        let mut after = before.clone();
        for change in changes {
            perform(&mut after, change);
        }
        prop_assert_eq!(diff(&desired, &after), (vec![], obstacles));
        for there in before.neighbours.iter().filter(|there| there.permanent() && there.protocol != PROTOCOL) {
            prop_assert!(after.neighbours.contains(there));
        }
        for there in before.addresses.iter().filter(|there| !there.ours_or_automatic() && there.usable()) {
            prop_assert!(after.addresses.contains(there));
        }
    }
}
