//! The mirror against the model: after any sequence of changes, and of lost notifications, the maps say what the kernel's
//! tables say, or leave it to the kernel.

use super::model::{Kernel, Step, any_step, any_step_apart};
use super::*;
use proptest::prelude::*;

const DESTINATIONS: [&str; 5] =
    ["2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::3", "2001:db8:2::1", "2001:db9::1"];

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
