//! What the kernel says of interfaces, neighbours, next hop objects and routes, reduced to what forwarding needs.

use super::prefix::Prefix;
use dataplane_ebpf::abi::Mac;
use std::fmt;
use std::net::Ipv6Addr;

/// Something the kernel has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An interface is there, like this.
    Link(u32, Link),
    /// An interface is gone.
    LinkGone(u32),
    /// A neighbour is there, like this.
    Neighbour(NeighbourKey, Neighbour),
    /// A neighbour is gone.
    NeighbourGone(NeighbourKey),
    /// A next hop object (`ip nexthop`) is there, like this.
    Object(u32, Object),
    /// A next hop object is gone, and with it all routes that use it.
    ObjectGone(u32),
    /// A route is there.
    Route {
        /// Which one.
        id: RouteId,
        /// What it says.
        route: Route,
        /// It takes the place of another (`NLM_F_REPLACE`).
        replaces: bool,
    },
    /// A route, or some of its next hops, are gone.
    RouteGone {
        /// Which one.
        id: RouteId,
        /// What it said.
        route: Route,
    },
    /// Policy rules were added or removed.
    RulesChanged,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its MAC; `None`: it carries no Ethernet frames.
    pub mac: Option<Mac>,
    /// Longest IPv6 packet in bytes: the smaller of the device's MTU and IPv6's own on it.
    pub mtu: u32,
    /// The device's MTU. The kernel tells that it has changed before IPv6's own and that of routes follow.
    pub device_mtu: u32,
    /// `IFF_UP`.
    pub up: bool,
    /// `IFF_LOWER_UP`.
    pub carrier: bool,
}

/// Whose MAC a neighbour entry tells: interface and address.
pub type NeighbourKey = (u32, Ipv6Addr);

/// An entry of the kernel's neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its MAC; `None` while it is being resolved, or when that failed.
    pub mac: Option<Mac>,
    /// `NUD_STALE`: nobody used it lately, so the kernel does not check it.
    pub stale: bool,
}

/// A next hop object (`ip nexthop`, Linux 5.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// One way.
    Single(Hop),
    /// Several single ones with their weights.
    Group(Vec<(u32, u32)>),
    /// One that only the kernel can do: blackhole, encapsulation, resilient groups, no gateway.
    Kernel,
}

/// One way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hop {
    /// The interface.
    pub ifindex: u32,
    /// Its address.
    pub gateway: Ipv6Addr,
    /// Its share of the flows, at least 1.
    pub weight: u32,
}

impl Hop {
    /// Its entry in the neighbour table.
    pub fn neighbour(&self) -> NeighbourKey {
        (self.ifindex, self.gateway)
    }
}

/// A routing table. The others are not looked into: that takes a policy rule, and then all routes are the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Comes first, whatever its prefixes' length.
    Local,
    /// Comes second.
    Main,
}

/// What tells routes apart. Several may still share it: those are alternatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId {
    /// Destination.
    pub prefix: Prefix,
    /// Table.
    pub table: Table,
    /// Source prefix, for source-specific routes (`ip route ... from`).
    pub source: Option<Prefix>,
    /// Preference: the lowest is used.
    pub metric: u32,
}

/// What a route says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where packets go.
    pub path: Path,
    /// Longest packet in bytes (`mtu`); 0: the route does not say.
    pub mtu: u32,
    /// The kernel joins such routes of one [`RouteId`] to one with several next hops (`rt6_qualify_for_ecmp`).
    pub joins: bool,
    /// Who put it there (`rtm_protocol`).
    pub protocol: u8,
}

/// Where packets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// Nowhere we can send them.
    Kernel {
        /// Why not.
        why: Why,
        /// The interface; 0 when there is none.
        ifindex: u32,
    },
    /// To these.
    Hops(Vec<Hop>),
    /// Where a next hop object says.
    Object(u32),
}

/// Why packets of a route are the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// Its addresses are the host's own.
    Local,
    /// Answered by an ICMPv6 error, no route.
    Unreachable,
    /// Dropped.
    Blackhole,
    /// Answered by an ICMPv6 error, administratively prohibited.
    Prohibit,
    /// The lookup goes on at the next rule.
    Throw,
    /// Another type of route.
    Type,
    /// Destinations are neighbours: each has its own MAC.
    OnLink,
    /// Packets are encapsulated.
    Encapsulated,
    /// Depends on the source address.
    SourceSpecific,
    /// Covered by a shorter prefix in table local, which comes first.
    Covered,
    /// Several routes with the same metric: the kernel chooses by what it knows of the routers.
    Alternatives,
    /// What the kernel said is not the whole story; its table is being read again.
    Uncertain,
    /// More next hops than a group holds.
    TooManyHops,
    /// More groups of next hops than the map holds.
    TooManyGroups,
    /// The next hop object is unknown, or of a kind that only the kernel can do.
    Object,
    /// The interface is not there, carries no Ethernet, is a VM's TAP, or no uplink.
    Interface,
    /// The interface is down.
    Down,
    /// The kernel does not know the next hop's MAC.
    Unresolved,
}

impl Why {
    /// As `serval routes` says it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Unreachable => "unreachable",
            Self::Blackhole => "blackhole",
            Self::Prohibit => "prohibit",
            Self::Throw => "throw",
            Self::Type => "other type of route",
            Self::OnLink => "on-link",
            Self::Encapsulated => "encapsulated",
            Self::SourceSpecific => "source-specific",
            Self::Covered => "covered by table local",
            Self::Alternatives => "several routes with the same metric",
            Self::Uncertain => "being read again",
            Self::TooManyHops => "too many next hops",
            Self::TooManyGroups => "too many different sets of next hops",
            Self::Object => "next hop object",
            Self::Interface => "interface is no uplink",
            Self::Down => "interface is down",
            Self::Unresolved => "next hop unresolved",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
