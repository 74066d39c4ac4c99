//! The mirror of the kernel's FIB, with maps to write to; and words for routes.
//!
//! | file | what it holds |
//! |---|---|
//! | `cases` | single changes, and what the maps say after them |
//! | `model` | the kernel's tables, and any change to them |
//! | `following` | the mirror against the model |

mod cases;
mod following;
mod model;

use super::*;
use crate::apply::routes::event::{Hop, Link, Neighbour, Path, Route};
use dataplane_ebpf::abi::{Mac, NextHopGroup, next_hop_flags};
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
