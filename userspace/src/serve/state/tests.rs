//! What the state makes of each event.

use super::*;
use crate::serve::fixture;
use std::time::Duration;

fn state(endpoint: &Attached, now: Instant) -> State {
    let mut state = State::new(Duid::default());
    let change = state.set_endpoints(&BTreeMap::from([(endpoint.ifindex, endpoint.clone())]), now);
    assert_eq!(change.current, [endpoint.ifindex]);
    state
}

fn update(state: &mut State, endpoint: &Attached, now: Instant) -> Change {
    state.set_endpoints(&BTreeMap::from([(endpoint.ifindex, endpoint.clone())]), now)
}

fn send_due(state: &mut State, now: Instant) -> usize {
    let due = state.advertisements(now);
    for outgoing in &due {
        state.settle(outgoing, &Ok(()), now, 0.5);
    }
    due.len()
}

fn from(source: &str, payload: &'static [u8]) -> Received<'static> {
    Received {
        ifindex: 7,
        source: source.parse().unwrap(),
        source_port: 546,
        destination: dhcp6::ALL_RELAY_AGENTS_AND_SERVERS,
        hop_limit: 255,
        payload,
    }
}

const RS: &[u8] = &[133, 0, 0, 0, 0, 0, 0, 0];
const INFORMATION_REQUEST: &[u8] = &[11, 1, 2, 3];

#[test]
fn a_new_endpoint_hears_at_once_and_an_unchanged_one_no_more() {
    let now = Instant::now();
    let endpoint = fixture::endpoint();
    let mut state = state(&endpoint, now);
    assert_eq!(state.advertisements(now)[0].frame, render(&endpoint));
    assert_eq!(send_due(&mut state, now), 1);
    assert!(update(&mut state, &endpoint, now).current.is_empty());
    assert_eq!(send_due(&mut state, now), 0);
    let stats = state.stats(7, now + Duration::from_secs(10)).unwrap();
    assert_eq!((stats.router_advertisements, stats.router_expires_in), (1, Some(8990)));
}

#[test]
fn a_change_that_the_guest_sees_is_sent_at_once() {
    let now = Instant::now();
    let mut endpoint = fixture::endpoint();
    let mut state = state(&endpoint, now);
    send_due(&mut state, now);
    endpoint.network.dns_servers.clear();
    assert!(update(&mut state, &endpoint, now).withdrawals.is_empty());
    assert_eq!(send_due(&mut state, now), 1);
    endpoint.network.ntp_servers.clear();
    update(&mut state, &endpoint, now);
    assert_eq!(send_due(&mut state, now), 0, "no advertisement speaks of NTP");
    endpoint.mac = "fa:16:3e:00:00:02".parse().unwrap();
    update(&mut state, &endpoint, now);
    assert_eq!(send_due(&mut state, now), 1);
    endpoint.carrier = false;
    update(&mut state, &endpoint, now);
    assert_eq!(state.next_due(), None);
    endpoint.carrier = true;
    update(&mut state, &endpoint, now);
    assert_eq!(send_due(&mut state, now), 1);
    assert_eq!(state.stats(7, now).unwrap().router_advertisements, 4, "counters stay");
}

#[test]
fn a_gateway_that_changes_is_withdrawn() {
    let now = Instant::now();
    let old = fixture::endpoint();
    let mut new = old.clone();
    new.gateway_mac = "fe:16:3e:00:00:02".parse().unwrap();
    new.gateway = new.gateway_mac.link_local();
    let mut same_tap = state(&old, now);
    let change = update(&mut same_tap, &new, now);
    let withdrawal = Outgoing { ifindex: 7, frame: render_withdrawal(&old), kind: Kind::Withdrawal };
    assert_eq!(change.withdrawals, std::slice::from_ref(&withdrawal));

    let mut recreated_tap = state(&old, now);
    new.ifindex = 8;
    let change = update(&mut recreated_tap, &new, now);
    assert_eq!((change.gone, change.current), (vec![7], vec![8]));
    assert_eq!(change.withdrawals, [Outgoing { ifindex: 8, ..withdrawal }]);
}

#[test]
fn removal_is_silent() {
    let now = Instant::now();
    let mut state = state(&fixture::endpoint(), now);
    let change = state.set_endpoints(&BTreeMap::new(), now);
    assert_eq!(change.gone, [7]);
    assert!(change.withdrawals.is_empty());
    assert_eq!((state.next_due(), state.stats(7, now)), (None, None));
}

#[test]
fn a_failure_is_retried_and_counted() {
    let now = Instant::now();
    let mut state = state(&fixture::endpoint(), now);
    let outgoing = state.advertisements(now).remove(0);
    state.settle(&outgoing, &Err(io::Error::from_raw_os_error(libc::ENETDOWN)), now, 0.5);
    assert!(state.advertisements(now).is_empty());
    assert_eq!(send_due(&mut state, now + Duration::from_secs(1)), 1);
    let stats = state.stats(7, now).unwrap();
    assert_eq!((stats.send_errors, stats.router_advertisements), (1, 1));
}

#[test]
fn solicitations() {
    let now = Instant::now();
    let endpoint = fixture::endpoint();
    let mut state = state(&endpoint, now);
    send_due(&mut state, now);
    let answer = state.solicited(&from("fe80::1", RS), now).unwrap();
    let to = Destination::vm(endpoint.mac, "fe80::1".parse().unwrap());
    assert_eq!((&answer.frame, answer.kind), (&render_to(&endpoint, to), Kind::Solicited));
    state.settle(&answer, &Ok(()), now, 0.5);
    assert_eq!(state.solicited(&from("::", RS), now), None);
    assert_eq!(state.next_due(), Some(now + Duration::from_secs(3)));
    assert_eq!(state.solicited(&Received { hop_limit: 64, ..from("fe80::1", RS) }, now), None);
    assert_eq!(state.solicited(&Received { ifindex: 8, ..from("fe80::1", RS) }, now), None);
    let stats = state.stats(7, now).unwrap();
    assert_eq!((stats.router_advertisements, stats.solicitations_answered), (2, 2));
}

#[test]
fn dhcp6_replies_go_to_the_vm_and_its_port() {
    let now = Instant::now();
    let endpoint = fixture::endpoint();
    let mut state = state(&endpoint, now);
    let reply = state.dhcp6(&from("fe80::1", INFORMATION_REQUEST), now).unwrap();
    assert_eq!(reply.frame[..6], endpoint.mac.octets());
    assert_eq!(reply.frame[6..12], endpoint.gateway_mac.octets());
    assert_eq!(reply.frame[22..38], endpoint.gateway.octets());
    assert_eq!(reply.frame[54..58], [2, 0x23, 2, 0x22]);
    assert_eq!(frame::tests::verify_sum(&reply.frame), 0xffff);
    state.settle(&reply, &Ok(()), now, 0.5);
    for refused in [
        from("2001:db8:a41:2::11", INFORMATION_REQUEST),
        from("fe80::1", &[11, 1, 2]),
        Received { source_port: 547, ..from("fe80::1", INFORMATION_REQUEST) },
    ] {
        assert_eq!(state.dhcp6(&refused, now), None);
    }
    assert_eq!(state.dhcp6(&Received { ifindex: 8, ..from("fe80::1", INFORMATION_REQUEST) }, now), None);
    let stats = state.stats(7, now).unwrap();
    assert_eq!((stats.dhcp6_replies, stats.dhcp6_discarded), (1, 3));
}

#[test]
fn a_flood_is_cut_off_without_harm_to_others() {
    let now = Instant::now();
    let one = fixture::endpoint();
    let mut other = one.clone();
    other.ifindex = 8;
    other.interface = "tap2".parse().unwrap();
    let mut state = State::new(Duid::default());
    state.set_endpoints(&BTreeMap::from([(7, one), (8, other)]), now);
    let flood = (0..1000).filter_map(|_| state.dhcp6(&from("fe80::1", INFORMATION_REQUEST), now));
    assert_eq!(flood.count(), 50);
    assert!(state.dhcp6(&Received { ifindex: 8, ..from("fe80::1", INFORMATION_REQUEST) }, now).is_some());
    assert_eq!(state.stats(7, now).unwrap().rate_limited, 950);
}

#[test]
fn neighbours_are_answered_as_fast_as_is_fair() {
    let now = Instant::now();
    let one = fixture::endpoint();
    let mut other = one.clone();
    (other.ifindex, other.interface) = (8, "tap2".parse().unwrap());
    other.addresses = vec![fixture::address("2001:db8:a41:2::12")];
    let mut state = State::new(Duid::default());
    state.set_endpoints(&BTreeMap::from([(7, one.clone()), (8, other)]), now);
    let solicitation = fixture::solicitation("fe80::1", "2001:db8:a41:2::12");
    let answer = state.neighbour_solicited(7, &solicitation, now).unwrap();
    assert_eq!((answer.ifindex, answer.kind), (7, Kind::Neighbour));
    state.settle(&answer, &Ok(()), now, 0.5);
    assert_eq!(state.neighbour_solicited(9, &solicitation, now), None);
    let flood = (0..1000).filter_map(|_| state.neighbour_solicited(7, &solicitation, now));
    assert_eq!(flood.count(), 49);
    let stats = state.stats(7, now).unwrap();
    assert_eq!((stats.neighbours_answered, stats.rate_limited), (1, 951));
    assert!(state.dhcp6(&from("fe80::1", INFORMATION_REQUEST), now).is_some(), "it still gets its lease");

    state.set_endpoints(&BTreeMap::from([(7, one)]), now);
    let later = now + Duration::from_secs(10);
    assert_eq!(state.neighbour_solicited(7, &solicitation, later), None, "the neighbour is gone");
}
