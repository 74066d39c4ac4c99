//! Single changes, and what the maps say after them.

use super::*;
use crate::apply::routes::event::Object;
use crate::apply::routes::hops::Probe;

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
