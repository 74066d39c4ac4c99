//! The mirror against a model of the kernel: after any sequence of changes, and of lost notifications, the maps say what
//! the kernel's tables say, or leave it to the kernel.

use super::*;
use crate::apply::routes::event::{Link, Neighbour, Object};
use crate::apply::routes::hops::Probe;
use dataplane_ebpf::abi::{Mac, NextHopGroup, next_hop_flags};
use proptest::prelude::*;
use std::net::Ipv6Addr;

const LIMITS: Limits = Limits { routes: 100, groups: 100 };
const A: &str = "fe80::a";
const B: &str = "fe80::b";

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Prefix::new(address.parse().unwrap(), length.parse().unwrap()).unwrap()
}

fn id(text: &str, metric: u32) -> RouteId {
    RouteId { prefix: prefix(text), table: Table::Main, source: None, metric }
}

fn hop(ifindex: u32, gateway: &str) -> Hop {
    Hop { ifindex, gateway: address(gateway), weight: 1 }
}

fn via(hops: &[Hop]) -> Route {
    Route { path: Path::Hops(hops.to_vec()), mtu: 0, joins: true, protocol: 3 }
}

fn kernel(why: Why) -> Route {
    Route { path: Path::Kernel { why, ifindex: 1 }, mtu: 0, joins: false, protocol: 3 }
}

fn new(id: RouteId, route: Route) -> Event {
    Event::Route { id, route, replaces: false }
}

fn link(up: bool) -> Link {
    Link {
        name: "eth".into(),
        mac: Some(Mac::new([2, 0, 0, 0, 0, 1])),
        mtu: 1500,
        device_mtu: 1500,
        up,
        carrier: up,
    }
}

fn neighbour(last: u8) -> Neighbour {
    Neighbour { mac: Some(Mac::new([2, 0, 0, 0, 1, last])), stale: false }
}

fn sync(fib: &mut Fib, state: &[Event]) {
    fib.begin_sync(false);
    state.iter().for_each(|event| fib.found(event.clone()));
    fib.end_sync(true);
}

fn started(state: &[Event]) -> Mirror {
    let scope = Scope { tap_prefix: "tap".into(), uplinks: BTreeSet::new() };
    let mut mirror = Mirror { fib: Fib::new(scope, LIMITS, 1), maps: Maps::default() };
    sync(&mut mirror.fib, state);
    mirror.flush();
    mirror
}

/// Two interfaces with a resolved neighbour each.
fn world() -> Vec<Event> {
    vec![
        Event::Link(1, link(true)),
        Event::Link(2, link(true)),
        Event::Neighbour((1, address(A)), neighbour(1)),
        Event::Neighbour((2, address(B)), neighbour(2)),
    ]
}

/// The maps, as changes make them.
#[derive(Default)]
struct Maps {
    routes: BTreeMap<Prefix, abi::Route>,
    groups: BTreeMap<u32, NextHopGroup>,
}

struct Mirror {
    fib: Fib,
    maps: Maps,
}

impl Mirror {
    fn apply(&mut self, event: Event) -> Changes {
        self.fib.apply(event);
        self.flush()
    }

    fn flush(&mut self) -> Changes {
        let changes = self.fib.flush();
        self.maps.groups.extend(changes.groups.set.iter().copied());
        self.maps.routes.extend(changes.set.iter().copied());
        for prefix in &changes.gone {
            self.maps.routes.remove(prefix).expect("was written");
        }
        for number in &changes.groups.gone {
            self.maps.groups.remove(number).expect("was written");
        }
        assert_eq!(self.maps.routes, self.fib.written().collect(), "what is written is what is told");
        assert_eq!(self.maps.groups, self.fib.hops().written());
        changes
    }

    /// What the data plane does with a packet to `address`: nothing known, left to the kernel, or these next hops.
    fn forward(&self, address: Ipv6Addr) -> Option<Vec<(u32, [u8; 6])>> {
        let host = Prefix::new(address, 128).unwrap();
        let mut prefixes = [host].into_iter().chain(host.covering());
        let route = prefixes.find_map(|prefix| self.maps.routes.get(&prefix))?;
        let group = self.maps.groups.get(&route.group)?;
        let hops = &group.hops[..group.count as usize];
        assert_eq!(hops.last().unwrap().upper_bound, u32::MAX);
        let usable = hops.iter().filter(|hop| hop.flags & next_hop_flags::RESOLVED != 0);
        let usable: Vec<_> = usable.map(|hop| (hop.ifindex, hop.mac.octets())).collect();
        (!usable.is_empty()).then_some(usable)
    }

    fn goes_to(&self, destination: &str, hops: &[(u32, u8)]) {
        let hops: Vec<_> = hops.iter().map(|(ifindex, last)| (*ifindex, [2, 0, 0, 0, 1, *last])).collect();
        assert_eq!(self.forward(address(destination)).unwrap_or_default(), hops, "{destination}");
    }
}

#[test]
fn what_an_address_takes_comes_first_and_what_a_prefix_covers_is_listed() {
    let routes = [("2001:db8::/32", 1024), ("2001:db8:1::/48", 32), ("2001:db9::/32", 32)];
    let fib = started(&routes.map(|(text, metric)| new(id(text, metric), via(&[hop(1, A)])))).fib;
    let towards = |fib: &Fib, address: &str| {
        let views = fib.towards(address.parse().unwrap());
        views.map(|view| (view.prefix.to_string(), view.metric)).collect::<Vec<_>>()
    };
    let (long, short) = (("2001:db8:1::/48".to_owned(), 32), ("2001:db8::/32".to_owned(), 1024));
    assert_eq!(towards(&fib, "2001:db8:1::5"), [long.clone(), short.clone()]);
    assert_eq!(towards(&fib, "2001:db8:2::5").as_slice(), std::slice::from_ref(&short));
    assert_eq!(towards(&fib, "3fff::1"), []);
    assert!(fib.towards(address("2001:db8::1")).all(|view| view.protocol == 3));
    let within: Vec<String> =
        fib.within(prefix("2001:db8::/32")).map(|view| view.prefix.to_string()).collect();
    assert_eq!(within, [short.0, long.0]);
}

#[test]
fn the_lowest_metric_is_used_and_the_next_takes_over() {
    let mut mirror = started(&world());
    mirror.apply(new(id("2001:db8::/32", 32), via(&[hop(1, A)])));
    mirror.goes_to("2001:db8::1", &[(1, 1)]);
    mirror.apply(new(id("2001:db8::/32", 16), via(&[hop(2, B)])));
    mirror.goes_to("2001:db8::1", &[(2, 2)]);
    mirror.apply(Event::RouteGone { id: id("2001:db8::/32", 16), route: via(&[hop(2, B)]) });
    mirror.goes_to("2001:db8::1", &[(1, 1)]);
    mirror.apply(Event::RouteGone { id: id("2001:db8::/32", 32), route: via(&[hop(1, A)]) });
    mirror.goes_to("2001:db8::1", &[]);
    assert!(mirror.maps.routes.is_empty() && mirror.maps.groups.is_empty());
}

#[test]
fn a_vm_that_moves_away_is_reached_in_either_order_of_events() {
    let host = "2001:db8::1/128";
    let local = || (id(host, 16), kernel(Why::OnLink));
    let remote = || new(id(host, 32), via(&[hop(1, A)]));
    let gone = || Event::RouteGone { id: local().0, route: local().1 };
    for order in [[remote(), gone()], [gone(), remote()]] {
        let mut mirror = started(&world());
        mirror.apply(new(local().0, local().1));
        mirror.apply(new(id("::/0", 1024), via(&[hop(2, B)])));
        mirror.goes_to("2001:db8::1", &[]);
        for event in order {
            mirror.apply(event);
        }
        mirror.goes_to("2001:db8::1", &[(1, 1)]);
    }
}

#[test]
fn what_the_kernel_must_do_is_not_taken_by_a_shorter_prefix() {
    let mut mirror = started(&world());
    mirror.apply(new(id("::/0", 1024), via(&[hop(1, A)])));
    mirror.goes_to("2001:db8::1", &[(1, 1)]);
    for why in [Why::Blackhole, Why::Unreachable, Why::Prohibit, Why::Encapsulated, Why::OnLink] {
        let route = (id("2001:db8::/64", 1), kernel(why));
        mirror.apply(new(route.0, route.1.clone()));
        mirror.goes_to("2001:db8::1", &[]);
        mirror.goes_to("2001:db8:1::1", &[(1, 1)]);
        assert_eq!(
            mirror.fib.within(Prefix::ALL).find(|view| view.prefix == route.0.prefix).unwrap().hops,
            Err(why)
        );
        mirror.apply(Event::RouteGone { id: route.0, route: route.1 });
        mirror.goes_to("2001:db8::1", &[(1, 1)]);
    }
    let source = RouteId { source: Some(prefix("2001:db8:f::/48")), ..id("2001:db8::/64", 1) };
    mirror.apply(new(source, via(&[hop(2, B)])));
    mirror.goes_to("2001:db8::1", &[]);
}

#[test]
fn table_local_comes_first_whatever_the_length() {
    let mut mirror = started(&world());
    mirror.apply(new(id("2001:db8::1/128", 1), via(&[hop(1, A)])));
    let local = RouteId { table: Table::Local, ..id("2001:db8::/64", 0) };
    mirror.apply(new(local, kernel(Why::Local)));
    mirror.goes_to("2001:db8::1", &[]);
    mirror.apply(new(id("2001:db8::2/128", 1), via(&[hop(1, A)])));
    mirror.goes_to("2001:db8::2", &[]);
    // All of it is the host itself.
    for host in ["2001:db8::/64", "2001:db8::1/128", "2001:db8::2/128"] {
        assert!(mirror.maps.routes[&prefix(host)].is_local(), "{host}");
    }
    mirror.apply(new(RouteId { table: Table::Local, ..id("2001:db8::2/128", 0) }, kernel(Why::Blackhole)));
    assert!(!mirror.maps.routes[&prefix("2001:db8::2/128")].is_local());
    mirror.apply(Event::RouteGone {
        id: RouteId { table: Table::Local, ..id("2001:db8::2/128", 0) },
        route: kernel(Why::Blackhole),
    });
    mirror.apply(Event::RouteGone { id: local, route: kernel(Why::Local) });
    mirror.goes_to("2001:db8::1", &[(1, 1)]);
    mirror.goes_to("2001:db8::2", &[(1, 1)]);
}

#[test]
fn a_next_hop_that_moves_fails_or_is_unknown_is_the_kernels_at_once() {
    let mut mirror = started(&world());
    mirror.apply(new(id("::/0", 1024), via(&[hop(1, A)])));
    let key = (1, address(A));
    mirror.apply(Event::Neighbour(key, neighbour(9)));
    mirror.goes_to("2001:db8::1", &[(1, 9)]);
    mirror.apply(Event::Neighbour(key, Neighbour { mac: None, stale: false }));
    mirror.goes_to("2001:db8::1", &[]);
    mirror.apply(Event::Neighbour(key, neighbour(1)));
    mirror.goes_to("2001:db8::1", &[(1, 1)]);
    let probes = mirror.apply(Event::NeighbourGone(key)).groups.probes;
    assert_eq!(probes, BTreeMap::from([(key, Probe::Resolve)]));
    mirror.goes_to("2001:db8::1", &[]);
    mirror.apply(Event::Neighbour(key, neighbour(1)));
    mirror.apply(Event::Link(1, Link { carrier: false, ..link(true) }));
    mirror.goes_to("2001:db8::1", &[]);
    mirror.apply(Event::LinkGone(1));
    mirror.goes_to("2001:db8::1", &[]);
}

#[test]
fn the_kernel_is_asked_to_look_after_next_hops_in_use() {
    let mut mirror = started(&world());
    let key = (1, address(A));
    let stale = |mac| Event::Neighbour(key, Neighbour { stale: true, ..neighbour(mac) });
    assert_eq!(mirror.apply(stale(1)).groups.probes, BTreeMap::new(), "nobody uses it");
    let probes = mirror.apply(new(id("::/0", 1024), via(&[hop(1, A)]))).groups.probes;
    assert_eq!(probes, BTreeMap::from([(key, Probe::Check)]));
    mirror.goes_to("2001:db8::1", &[(1, 1)]);
    mirror.apply(Event::Neighbour(key, neighbour(1)));
    assert_eq!(mirror.apply(stale(1)).groups.probes, BTreeMap::from([(key, Probe::Check)]));
    // Unknown to the kernel, and behind an interface that is down.
    mirror.apply(Event::Link(2, link(false)));
    let unknown = (2, address("fe80::c"));
    let probes = mirror.apply(new(id("2001:db8::/32", 1), via(&[hop(2, "fe80::c")]))).groups.probes;
    assert_eq!(probes, BTreeMap::new());
    let probes = mirror.apply(Event::Link(2, link(true))).groups.probes;
    assert_eq!(probes, BTreeMap::from([(unknown, Probe::Resolve)]));
}

#[test]
fn the_kernel_is_not_asked_for_what_it_has_told_meanwhile() {
    let mut mirror = started(&world());
    mirror.apply(new(id("::/0", 1024), via(&[hop(1, A)])));
    let key = (1, address(A));
    mirror.fib.apply(Event::NeighbourGone(key));
    assert_eq!(mirror.apply(Event::Neighbour(key, neighbour(1))).groups.probes, BTreeMap::new());
}

#[test]
fn flows_are_shared_by_weight_among_interfaces_that_are_up() {
    let mut mirror = started(&world());
    let both = [hop(1, A), Hop { weight: 3, ..hop(2, B) }];
    mirror.apply(new(id("::/0", 1024), via(&both)));
    let group = *mirror.maps.groups.values().next().unwrap();
    assert_eq!(
        (group.count, group.hops[0].upper_bound, group.hops[1].upper_bound),
        (2, (1 << 30) - 1, u32::MAX)
    );
    mirror.apply(Event::Link(1, link(false)));
    mirror.goes_to("2001:db8::1", &[(2, 2)]);
    assert_eq!(mirror.maps.groups.values().next().unwrap().count, 1);
    mirror.apply(Event::Link(1, link(true)));
    mirror.goes_to("2001:db8::1", &[(1, 1), (2, 2)]);
    // The kernel tells single next hops that go.
    mirror.apply(Event::RouteGone { id: id("::/0", 1024), route: via(&[hop(1, A)]) });
    mirror.goes_to("2001:db8::1", &[]);
    sync(
        &mut mirror.fib,
        &[world(), vec![new(id("::/0", 1024), via(&[Hop { weight: 3, ..hop(2, B) }]))]].concat(),
    );
    mirror.flush();
    mirror.goes_to("2001:db8::1", &[(2, 2)]);
    let many: Vec<Hop> = (0..9).map(|n| hop(1, &format!("fe80::{n}"))).collect();
    mirror.apply(new(id("2001:db8::/32", 1), via(&many)));
    mirror.goes_to("2001:db8::1", &[]);
    let view = mirror.fib.within(Prefix::ALL).find(|view| view.prefix.length() == 32).unwrap();
    assert_eq!(view.hops, Err(Why::TooManyHops));
}

#[test]
fn next_hop_objects_change_under_their_routes() {
    let mut mirror = started(&world());
    let route = Route { path: Path::Object(7), mtu: 0, joins: false, protocol: 3 };
    mirror.apply(new(id("2001:db8::/32", 20), route.clone()));
    mirror.goes_to("2001:db8::1", &[]);
    mirror.apply(Event::Object(5, Object::Single(hop(1, A))));
    mirror.apply(Event::Object(6, Object::Single(hop(2, B))));
    let changes = mirror.apply(Event::Object(7, Object::Group(vec![(5, 1), (6, 1)])));
    assert!(changes.set.is_empty(), "only the group changes");
    mirror.goes_to("2001:db8::1", &[(1, 1), (2, 2)]);
    mirror.apply(Event::Object(5, Object::Kernel));
    mirror.goes_to("2001:db8::1", &[]);
    mirror.apply(Event::Object(7, Object::Single(hop(1, A))));
    mirror.goes_to("2001:db8::1", &[(1, 1)]);
    mirror.apply(Event::ObjectGone(7));
    assert!(mirror.maps.routes.is_empty(), "its routes went with it");
}

#[test]
fn policy_rules_and_too_many_routes_suspend_and_resume() {
    let mut mirror = started(&world());
    mirror.apply(new(id("::/0", 1024), via(&[hop(1, A)])));
    mirror.fib.set_rules(vec![Rule::Other, Rule::DEFAULT[0], Rule::DEFAULT[1]]);
    assert!(mirror.flush().set.is_empty(), "routes stay where they are");
    mirror.goes_to("2001:db8::1", &[]);
    assert_eq!(mirror.fib.suspension(), Some(Suspension::PolicyRules));
    mirror.fib.set_rules(vec![Rule::DEFAULT[1], Rule::DEFAULT[0]]);
    mirror.flush();
    mirror.goes_to("2001:db8::1", &[(1, 1)]);
    for n in 0..=LIMITS.routes {
        mirror.apply(new(id(&format!("2001:db8::{n:x}/128"), 1), via(&[hop(1, A)])));
    }
    assert_eq!(mirror.fib.suspension(), Some(Suspension::TooManyRoutes));
    mirror.flush();
    mirror.goes_to("2001:db8::1", &[]);
    mirror.apply(Event::RouteGone { id: id("2001:db8::0/128", 1), route: via(&[hop(1, A)]) });
    mirror.flush();
    mirror.goes_to("2001:db8::1", &[(1, 1)]);
}

#[test]
fn more_sets_than_the_map_holds_are_the_kernels_until_there_is_room() {
    let mut mirror = started(&world());
    mirror.fib = Fib::new(Scope::default(), Limits { routes: 10, groups: 1 }, 1);
    mirror.maps = Maps::default();
    let scope = Scope { tap_prefix: "tap".into(), uplinks: BTreeSet::new() };
    mirror.fib = Fib::new(scope, Limits { routes: 10, groups: 1 }, 1);
    sync(&mut mirror.fib, &world());
    mirror.apply(new(id("2001:db8:1::/48", 1), via(&[hop(1, A)])));
    mirror.apply(new(id("2001:db8:2::/48", 1), via(&[hop(2, B)])));
    mirror.goes_to("2001:db8:1::1", &[(1, 1)]);
    mirror.goes_to("2001:db8:2::1", &[]);
    mirror.apply(Event::RouteGone { id: id("2001:db8:1::/48", 1), route: via(&[hop(1, A)]) });
    mirror.goes_to("2001:db8:2::1", &[(2, 2)]);
}

#[test]
fn interfaces_that_are_no_uplinks_are_the_kernels() {
    let mut mirror = started(&world());
    mirror.apply(Event::Link(1, Link { name: "tap0".into(), ..link(true) }));
    mirror.apply(new(id("::/0", 1024), via(&[hop(1, A)])));
    mirror.goes_to("2001:db8::1", &[]);
    mirror.apply(Event::Link(1, Link { mac: None, ..link(true) }));
    mirror.goes_to("2001:db8::1", &[]);
    mirror.apply(Event::Link(1, link(true)));
    mirror.goes_to("2001:db8::1", &[(1, 1)]);
}

#[test]
fn what_several_next_hops_hide_from_a_sync_is_not_forgotten() {
    let mut mirror = started(&world());
    let route = id("2001:db8::/32", 32);
    let both = via(&[hop(1, A), hop(2, B)]);
    mirror.apply(new(id("::/0", 1024), via(&[hop(2, B)])));
    mirror.apply(new(route, kernel(Why::Unreachable)));
    mirror.apply(new(route, both.clone()));
    let seen = |route: Vec<Event>| [world(), vec![new(id("::/0", 1024), via(&[hop(2, B)]))], route].concat();
    sync(&mut mirror.fib, &seen(vec![new(route, both.clone())]));
    mirror.flush();
    mirror.goes_to("2001:db8::1", &[]);
    // The same without having heard of it before.
    let mut mirror = started(&seen(vec![new(route, both.clone())]));
    mirror.apply(Event::RouteGone { id: route, route: both });
    mirror.goes_to("2001:db8::1", &[]);
    sync(&mut mirror.fib, &seen(vec![]));
    mirror.flush();
    mirror.goes_to("2001:db8::1", &[(2, 2)]);
}

#[test]
fn events_during_a_sync_count_unless_others_were_lost() {
    for trusted in [true, false] {
        let mut mirror = started(&world());
        mirror.apply(new(id("::/0", 1024), via(&[hop(2, B)])));
        mirror.fib.begin_sync(trusted);
        // Has overtaken an answer that does not know of it; or it waited in the socket, and that it is gone was lost.
        mirror.apply(new(id("2001:db8::/32", 1), via(&[hop(1, A)])));
        let state = [world(), vec![new(id("::/0", 1024), via(&[hop(2, B)]))]].concat();
        state.iter().for_each(|event| mirror.fib.found(event.clone()));
        mirror.fib.end_sync(true);
        mirror.flush();
        let expected: &[(u32, u8)] = if trusted { &[(1, 1)] } else { &[] };
        mirror.goes_to("2001:db8::1", expected);
        assert_eq!(mirror.fib.is_uncertain(), !trusted);
        sync(&mut mirror.fib, &state);
        mirror.flush();
        mirror.goes_to("2001:db8::1", &[(2, 2)]);
    }
}

#[test]
fn an_incomplete_sync_leaves_what_it_did_not_find_to_the_kernel() {
    let mut mirror = started(&world());
    mirror.apply(new(id("::/0", 1024), via(&[hop(2, B)])));
    mirror.apply(new(id("2001:db8::/32", 1), via(&[hop(1, A)])));
    mirror.fib.begin_sync(false);
    mirror.fib.found(new(id("::/0", 1024), via(&[hop(2, B)])));
    mirror.fib.end_sync(false);
    mirror.flush();
    mirror.goes_to("2001:db8::1", &[]);
    mirror.goes_to("2001:db9::1", &[(2, 2)]);
    assert!(mirror.fib.is_uncertain());
    sync(&mut mirror.fib, &[world(), vec![new(id("::/0", 1024), via(&[hop(2, B)]))]].concat());
    mirror.flush();
    mirror.goes_to("2001:db8::1", &[(2, 2)]);
    assert!(!mirror.fib.is_uncertain());
}

/// The kernel's tables, with its rules of joining and replacing routes (net/ipv6/ip6_fib.c, fib6_add_rt2node).
#[derive(Clone, Default, Debug)]
struct Kernel {
    links: BTreeMap<u32, bool>,
    neighbours: BTreeMap<(u32, Ipv6Addr), Neighbour>,
    routes: Vec<(RouteId, Route)>,
}

#[derive(Clone, Debug)]
enum Step {
    Add(RouteId, Route),
    Replace(RouteId, Route),
    /// The n-th route goes.
    Delete(usize),
    /// A next hop of the n-th route goes.
    DeleteHop(usize, usize),
    Link(u32, bool),
    Neighbour((u32, Ipv6Addr), Option<u8>),
}

impl Kernel {
    /// What it notifies.
    fn take(&mut self, step: Step) -> Vec<Event> {
        match step {
            Step::Add(id, route) => {
                let joined =
                    self.routes.iter_mut().find(|(there, old)| *there == id && old.joins && route.joins);
                if let Some((_, old)) = joined {
                    let (Path::Hops(old_hops), Path::Hops(hops)) = (&mut old.path, &route.path) else {
                        return vec![];
                    };
                    let fresh: Vec<Hop> = hops
                        .iter()
                        .filter(|hop| !old_hops.iter().any(|old| old.neighbour() == hop.neighbour()))
                        .copied()
                        .collect();
                    if fresh.is_empty() {
                        return vec![];
                    }
                    old_hops.extend(fresh);
                    return vec![Event::Route { id, route: old.clone(), replaces: false }];
                }
                if self.routes.iter().any(|(there, old)| *there == id && old.path == route.path) {
                    return vec![];
                }
                self.routes.push((id, route.clone()));
                vec![Event::Route { id, route, replaces: false }]
            }
            Step::Replace(id, route) => {
                let same = |(there, old): &(RouteId, Route)| *there == id && old.joins == route.joins;
                let position = self.routes.iter().position(same);
                let position = position.or_else(|| self.routes.iter().position(|(there, _)| *there == id));
                let replaces = position.is_some();
                match position {
                    Some(position) => self.routes[position].1 = route.clone(),
                    None => self.routes.push((id, route.clone())),
                }
                vec![Event::Route { id, route, replaces }]
            }
            Step::Delete(n) => {
                if self.routes.is_empty() {
                    return vec![];
                }
                let (id, route) = self.routes.remove(n % self.routes.len());
                vec![Event::RouteGone { id, route }]
            }
            Step::DeleteHop(n, hop) => {
                if self.routes.is_empty() {
                    return vec![];
                }
                let n = n % self.routes.len();
                let (id, route) = &mut self.routes[n];
                match &mut route.path {
                    Path::Hops(hops) if hops.len() > 1 => {
                        let gone = hops.remove(hop % hops.len());
                        vec![Event::RouteGone { id: *id, route: via(&[gone]) }]
                    }
                    _ => vec![],
                }
            }
            Step::Link(ifindex, up) => {
                self.links.insert(ifindex, up);
                vec![Event::Link(ifindex, link(up))]
            }
            Step::Neighbour(key, Some(mac)) => {
                self.neighbours.insert(key, neighbour(mac));
                vec![Event::Neighbour(key, neighbour(mac))]
            }
            Step::Neighbour(key, None) => {
                self.neighbours.remove(&key);
                vec![Event::NeighbourGone(key)]
            }
        }
    }

    /// What a read of everything finds.
    fn state(&self) -> Vec<Event> {
        let links = self.links.iter().map(|(ifindex, up)| Event::Link(*ifindex, link(*up)));
        let neighbours = self.neighbours.iter().map(|(key, there)| Event::Neighbour(*key, *there));
        let routes = self.routes.iter().map(|(id, route)| new(*id, route.clone()));
        links.chain(neighbours).chain(routes).collect()
    }

    /// The next hops that a packet to `address` may go to: interface and MAC. `None`: not plain forwarding.
    fn forward(&self, address: Ipv6Addr) -> Option<Vec<(u32, [u8; 6])>> {
        let covers = |prefix: Prefix| Prefix::new(address, prefix.length()) == Some(prefix);
        let of = |table| self.routes.iter().filter(move |(id, _)| id.table == table && covers(id.prefix));
        if of(Table::Local).next().is_some() {
            return None;
        }
        let longest = of(Table::Main).map(|(id, _)| id.prefix.length()).max()?;
        let mut best: Vec<_> = of(Table::Main).filter(|(id, _)| id.prefix.length() == longest).collect();
        let metric = best.iter().map(|(id, _)| id.metric).min()?;
        best.retain(|(id, _)| id.metric == metric);
        let [(_, Route { path: Path::Hops(hops), .. })] = best.as_slice() else { return None };
        let alive = hops.iter().filter(|hop| self.links.get(&hop.ifindex) == Some(&true));
        let mac = |hop: &Hop| Some((hop.ifindex, self.neighbours.get(&hop.neighbour())?.mac?.octets()));
        Some(alive.filter_map(mac).collect())
    }
}

const DESTINATIONS: [&str; 5] =
    ["2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::3", "2001:db8:2::1", "2001:db9::1"];

const PREFIXES: [&str; 5] =
    ["::/0", "2001:db8::/32", "2001:db8:1::/48", "2001:db8:1::1/128", "2001:db8:1::2/128"];

fn any_id() -> impl Strategy<Value = RouteId> {
    (prop::sample::select(&PREFIXES), prop::sample::select(&[16, 32]), prop::bool::weighted(0.08)).prop_map(
        |(prefix, metric, local)| RouteId {
            table: if local { Table::Local } else { Table::Main },
            ..id(prefix, metric)
        },
    )
}

fn any_hop() -> impl Strategy<Value = Hop> {
    (1..=2u32, prop::sample::select(&["fe80::a", "fe80::b", "fe80::c"]), 1..=2u32)
        .prop_map(|(ifindex, gateway, weight)| Hop { weight, ..hop(ifindex, gateway) })
}

fn any_route() -> impl Strategy<Value = Route> {
    let hops = prop::collection::vec(any_hop(), 1..4).prop_map(|mut hops| {
        hops.sort_unstable();
        hops.dedup_by_key(|hop| hop.neighbour());
        via(&hops)
    });
    prop_oneof![
        6 => hops,
        1 => prop::sample::select(&[Why::OnLink, Why::Unreachable, Why::Blackhole]).prop_map(kernel),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any_id(), any_route()).prop_map(|(id, route)| Step::Add(id, route)),
        2 => (any_id(), any_route()).prop_map(|(id, route)| Step::Replace(id, route)),
        2 => any::<usize>().prop_map(Step::Delete),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(n, hop)| Step::DeleteHop(n, hop)),
        1 => (1..=2u32, any::<bool>()).prop_map(|(ifindex, up)| Step::Link(ifindex, up)),
        2 => (any_hop(), prop::option::weighted(0.8, 1..4u8))
            .prop_map(|(hop, mac)| Step::Neighbour(hop.neighbour(), mac)),
    ]
}

/// The same, but routes of different kinds have different metrics: after a loss nobody could tell what is hidden behind
/// several next hops of the same metric, so that is the kernel's.
fn any_step_apart() -> impl Strategy<Value = Step> {
    any_step().prop_map(|mut step| {
        if let Step::Add(id, route) | Step::Replace(id, route) = &mut step {
            id.metric += u32::from(!route.joins);
        }
        step
    })
}

/// A mirror that hears of these steps never lies, and is exact when it has been told all.
fn follows(steps: impl IntoIterator<Item = Step>) {
    let mut kernel = Kernel::default();
    let mut mirror = started(&[]);
    for step in steps {
        for event in kernel.take(step) {
            mirror.apply(event);
        }
        never_lies(&mirror, &kernel);
        if mirror.fib.is_uncertain() {
            sync(&mut mirror.fib, &kernel.state());
            mirror.flush();
        }
        is_exact(&mirror, &kernel);
    }
}

#[test]
fn a_route_that_is_there_twice_stays_when_one_of_them_goes() {
    let id = id("2001:db8:1::2/128", 16);
    for last in [Step::Replace(id, via(&[hop(2, B)])), Step::Delete(1)] {
        follows([
            Step::Neighbour((2, address(B)), Some(1)),
            Step::Link(2, true),
            Step::Add(RouteId { prefix: prefix("2001:db8:1::/48"), ..id }, via(&[hop(2, B)])),
            Step::Add(id, kernel(Why::Unreachable)),
            Step::Add(id, kernel(Why::OnLink)),
            Step::Replace(id, kernel(Why::OnLink)),
            last,
        ]);
    }
}

/// Whatever the data plane forwards, the kernel would forward to the same next hops.
fn never_lies(mirror: &Mirror, kernel: &Kernel) {
    for destination in DESTINATIONS.map(address) {
        if let Some(hops) = mirror.forward(destination) {
            let mut expected = kernel.forward(destination).unwrap_or_default();
            let mut hops = hops;
            expected.sort_unstable();
            hops.sort_unstable();
            assert_eq!(hops, expected, "{destination}: {kernel:#?}");
        }
    }
}

/// The maps are as those of a mirror that has only ever seen the present state; groups compared by what they say. But a
/// prefix with several routes of the same metric may be the kernel's longer than it has them, see `Fib::hiding`.
fn is_exact(mirror: &Mirror, kernel: &Kernel) {
    never_lies(mirror, kernel);
    let several = |view: &RouteView| view.hops == Err(Why::Alternatives);
    let several: BTreeSet<Prefix> =
        mirror.fib.within(Prefix::ALL).filter(several).map(|view| view.prefix).collect();
    let fresh = started(&kernel.state());
    let content = |mirror: &Mirror| -> BTreeMap<Prefix, (u32, Option<NextHopGroup>)> {
        let routes = mirror.maps.routes.iter().filter(|(prefix, _)| !several.contains(prefix));
        let resolve = |route: &abi::Route| (route.mtu, mirror.maps.groups.get(&route.group).copied());
        routes.map(|(prefix, route)| (*prefix, resolve(route))).collect()
    };
    assert!(content(mirror) == content(&fresh), "{kernel:#?}");
    for destination in DESTINATIONS.map(address) {
        let host = Prefix::new(destination, 128).unwrap();
        if [host].into_iter().chain(host.covering()).any(|prefix| several.contains(&prefix)) {
            continue;
        }
        let sorted = |mut hops: Vec<(u32, [u8; 6])>| {
            hops.sort_unstable();
            hops
        };
        let expected = kernel.forward(destination).filter(|hops| !hops.is_empty()).map(sorted);
        assert_eq!(mirror.forward(destination).map(sorted), expected, "{destination}: {kernel:#?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_maps_follow_any_sequence_of_changes(steps in prop::collection::vec(any_step(), 1..60)) {
        follows(steps);
    }

    #[test]
    fn a_sync_repairs_what_was_lost_while_others_change_it(
        before in prop::collection::vec(any_step_apart(), 0..30),
        lost in prop::collection::vec(any_step_apart(), 0..10),
        during in prop::collection::vec(any_step_apart(), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let trusted = lost.is_empty();
        let mut kernel = Kernel::default();
        let mut mirror = started(&[]);
        for step in before {
            kernel.take(step).into_iter().for_each(|event| drop(mirror.apply(event)));
        }
        for step in lost {
            kernel.take(step);
        }
        if mirror.fib.is_uncertain() && trusted {
            sync(&mut mirror.fib, &kernel.state());
        }
        mirror.fib.begin_sync(trusted);
        // The answer tells the state as it was; changes come between its parts.
        let answer = kernel.state();
        let cut = cut.index(answer.len() + 1);
        answer[..cut].iter().for_each(|event| mirror.fib.found(event.clone()));
        mirror.flush();
        for step in during {
            kernel.take(step).into_iter().for_each(|event| drop(mirror.apply(event)));
        }
        answer[cut..].iter().for_each(|event| mirror.fib.found(event.clone()));
        mirror.fib.end_sync(true);
        mirror.flush();
        // After a loss a second one follows, which nothing is lost before.
        if mirror.fib.is_uncertain() || !trusted {
            sync(&mut mirror.fib, &kernel.state());
            mirror.flush();
        }
        is_exact(&mirror, &kernel);
    }
}
