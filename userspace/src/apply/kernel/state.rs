//! What the kernel should know of one TAP, what it knows, and the changes between the two. Pure.

use super::error::Obstacle;
use super::{METRIC, PROTOCOL};
use crate::plan::Attached;
use crate::resource::MacAddress;
use rtnetlink::packet_route::address::{AddressFlags, AddressProtocol};
use rtnetlink::packet_route::neighbour::NeighbourState;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv6Addr;

/// What the kernel should know of one TAP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Desired {
    /// Our addresses on it, with prefix length.
    pub addresses: BTreeMap<Ipv6Addr, u8>,
    /// Addresses of the VM: each a /128 route.
    pub routes: BTreeSet<Ipv6Addr>,
    /// Who has which MAC.
    pub neighbours: BTreeMap<Ipv6Addr, MacAddress>,
}

impl Desired {
    pub(super) fn of(endpoint: &Attached) -> Self {
        let gateways = endpoint.gateways.iter().map(|gateway| (gateway.get(), 128));
        let routes: BTreeSet<Ipv6Addr> = endpoint.addresses.iter().map(|address| address.get()).collect();
        Self {
            addresses: gateways.chain([(endpoint.gateway, 64)]).collect(),
            neighbours: routes
                .iter()
                .copied()
                .chain([endpoint.mac.link_local()])
                .map(|address| (address, endpoint.mac))
                .collect(),
            routes,
        }
    }
}

/// An address on the TAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub address: Ipv6Addr,
    pub prefix_length: u8,
    pub flags: AddressFlags,
    /// `IFA_PROTO`, who made it; `None` when nobody says, as before Linux 5.18.
    pub protocol: Option<AddressProtocol>,
}

impl Address {
    fn ours(&self) -> bool {
        self.protocol == Some(AddressProtocol::Other(PROTOCOL))
    }

    /// Ours, or a link-local address that the kernel made from the TAP's MAC before we told it not to.
    fn ours_or_automatic(&self) -> bool {
        let automatic = match self.protocol {
            Some(protocol) => protocol == AddressProtocol::LinkLocal,
            // Before Linux 5.18: by its EUI-64 form (RFC 4291 appendix A).
            None => self.address.octets()[11..13] == [0xff, 0xfe],
        };
        self.ours() || self.address.is_unicast_link_local() && automatic
    }

    /// The kernel answers for it, for good.
    fn usable(&self) -> bool {
        let broken = AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated;
        self.flags.contains(AddressFlags::Permanent) && !self.flags.intersects(broken)
    }
}

/// A route with our protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    pub destination: Ipv6Addr,
    pub prefix_length: u8,
    pub metric: u32,
}

/// A neighbour on the TAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub address: Ipv6Addr,
    pub mac: Option<[u8; 6]>,
    pub state: NeighbourState,
    /// `NDA_PROTOCOL`; 0 when it has none.
    pub protocol: u8,
}

impl Neighbour {
    /// Anything else is the kernel's own note, which we may replace: also what is left of a deleted entry.
    fn permanent(&self) -> bool {
        self.state == NeighbourState::Permanent
    }
}

/// What the kernel knows of one TAP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Actual {
    pub addresses: Vec<Address>,
    pub routes: BTreeSet<Route>,
    pub neighbours: Vec<Neighbour>,
}

impl Actual {
    /// What of it carries our mark.
    pub(super) fn ours(mut self) -> Self {
        self.addresses.retain(Address::ours);
        self.neighbours.retain(|neighbour| neighbour.permanent() && neighbour.protocol == PROTOCOL);
        self
    }
}

/// One change, in the order in which changes are made: an address that is not to be used goes before its successor
/// of the same name comes, and a neighbour is known before a route can send packets to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Take away an address that has to be made anew.
    RenewAddress(Ipv6Addr, u8),
    SetAddress(Ipv6Addr, u8),
    RemoveAddress(Ipv6Addr, u8),
    RemoveRoute(Route),
    RemoveNeighbour(Ipv6Addr),
    SetNeighbour(Ipv6Addr, MacAddress),
    AddRoute(Ipv6Addr),
}

impl Change {
    /// Changes of one stage don't depend on each other.
    pub(super) fn stage(self) -> u8 {
        match self {
            Self::RenewAddress(..) => 0,
            Self::SetAddress(..) => 1,
            // After the new one has come: the fe80::/64 and ff00::/8 routes stay the whole time.
            Self::RemoveAddress(..) | Self::RemoveRoute(_) | Self::RemoveNeighbour(_) => 2,
            Self::SetNeighbour(..) => 3,
            Self::AddRoute(_) => 4,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetAddress(address, length) => write!(f, "set address {address}/{length}"),
            Self::RenewAddress(address, length) | Self::RemoveAddress(address, length) => {
                write!(f, "remove address {address}/{length}")
            }
            Self::SetNeighbour(address, mac) => write!(f, "set neighbour {address} to {mac}"),
            Self::RemoveNeighbour(address) => write!(f, "remove neighbour {address}"),
            Self::AddRoute(address) => write!(f, "add route {address}"),
            Self::RemoveRoute(route) => {
                write!(f, "remove route {}/{}", route.destination, route.prefix_length)
            }
        }
    }
}

/// What has to change, and what of others stands in the way.
pub(super) fn diff(desired: &Desired, actual: &Actual) -> (Vec<Change>, Vec<Obstacle>) {
    let mut changes = Vec::new();
    let mut obstacles = Vec::new();
    diff_addresses(desired, actual, &mut changes);
    diff_routes(desired, actual, &mut changes);
    diff_neighbours(desired, actual, &mut changes, &mut obstacles);
    (changes, obstacles)
}

fn diff_addresses(desired: &Desired, actual: &Actual, changes: &mut Vec<Change>) {
    for (&address, &prefix_length) in &desired.addresses {
        let set = Change::SetAddress(address, prefix_length);
        match actual.addresses.iter().find(|there| there.address == address) {
            None => changes.push(set),
            Some(there) if there.ours_or_automatic() => {
                if !there.usable() || there.prefix_length != prefix_length {
                    changes.extend([Change::RenewAddress(address, there.prefix_length), set]);
                } else if there.protocol == Some(AddressProtocol::LinkLocal) {
                    // The kernel's own: mark it as ours, so that it is found when the MAC has changed.
                    changes.push(set);
                }
            }
            // Somebody else's works just as well, and stays when we go.
            Some(there) if there.usable() => {}
            Some(there) => changes.extend([Change::RenewAddress(address, there.prefix_length), set]),
        }
    }
    let stale =
        |there: &&Address| there.ours_or_automatic() && !desired.addresses.contains_key(&there.address);
    changes.extend(
        actual
            .addresses
            .iter()
            .filter(stale)
            .map(|there| Change::RemoveAddress(there.address, there.prefix_length)),
    );
}

fn diff_routes(desired: &Desired, actual: &Actual, changes: &mut Vec<Change>) {
    let wanted = |route: &Route| {
        route.prefix_length == 128 && route.metric == METRIC && desired.routes.contains(&route.destination)
    };
    let there: BTreeSet<Ipv6Addr> =
        actual.routes.iter().filter(|route| wanted(route)).map(|route| route.destination).collect();
    changes.extend(desired.routes.difference(&there).copied().map(Change::AddRoute));
    changes.extend(actual.routes.iter().filter(|route| !wanted(route)).copied().map(Change::RemoveRoute));
}

fn diff_neighbours(
    desired: &Desired,
    actual: &Actual,
    changes: &mut Vec<Change>,
    obstacles: &mut Vec<Obstacle>,
) {
    let permanent: BTreeMap<Ipv6Addr, &Neighbour> = actual
        .neighbours
        .iter()
        .filter(|neighbour| neighbour.permanent())
        .map(|neighbour| (neighbour.address, neighbour))
        .collect();
    for (&address, &mac) in &desired.neighbours {
        match permanent.get(&address) {
            Some(there) if there.mac == Some(mac.octets()) => {}
            Some(there) if there.protocol != PROTOCOL => {
                obstacles.push(Obstacle::Neighbour { address, protocol: there.protocol });
            }
            _ => changes.push(Change::SetNeighbour(address, mac)),
        }
    }
    let stale =
        |there: &&Neighbour| there.protocol == PROTOCOL && !desired.neighbours.contains_key(&there.address);
    changes.extend(permanent.into_values().filter(stale).map(|there| Change::RemoveNeighbour(there.address)));
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
