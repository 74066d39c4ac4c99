//! The kernel's tables as a model, and any change to them.

use super::*;
use proptest::prelude::*;

/// The kernel's tables, with its rules of joining and replacing routes (net/ipv6/ip6_fib.c, fib6_add_rt2node).
#[derive(Clone, Default, Debug)]
pub(super) struct Kernel {
    links: BTreeMap<u32, bool>,
    neighbours: BTreeMap<(u32, Ipv6Addr), Neighbour>,
    routes: Vec<(RouteId, Route)>,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
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
    pub(super) fn take(&mut self, step: Step) -> Vec<Event> {
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
    pub(super) fn state(&self) -> Vec<Event> {
        let links = self.links.iter().map(|(ifindex, up)| Event::Link(*ifindex, link(*up)));
        let neighbours = self.neighbours.iter().map(|(key, there)| Event::Neighbour(*key, *there));
        let routes = self.routes.iter().map(|(id, route)| new(*id, route.clone()));
        links.chain(neighbours).chain(routes).collect()
    }

    /// The next hops that a packet to `address` may go to: interface and MAC. `None`: not plain forwarding.
    pub(super) fn forward(&self, address: Ipv6Addr) -> Option<Vec<(u32, [u8; 6])>> {
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

pub(super) fn any_step() -> impl Strategy<Value = Step> {
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
pub(super) fn any_step_apart() -> impl Strategy<Value = Step> {
    any_step().prop_map(|mut step| {
        if let Step::Add(id, route) | Step::Replace(id, route) = &mut step {
            id.metric += u32::from(!route.joins);
        }
        step
    })
}
