//! Reads rtnetlink messages: pure.
//!
//! Only the attributes that forwarding depends on are read, in one pass and without allocation per attribute: a full
//! table is 100,000 messages and more. An attribute that a newer kernel adds does no harm.

use super::event::{Event, Hop, Link, Neighbour, Object, Path, Route, RouteId, Table, Why};
use super::prefix::Prefix;
use dataplane_ebpf::abi::Mac;
use rtnetlink::packet_core::NLM_F_REPLACE;
use std::net::Ipv6Addr;

#[cfg(test)]
mod tests;

const AF_INET6: u8 = libc::AF_INET6 as u8;

// linux/rtnetlink.h, linux/nexthop.h, linux/fib_rules.h, linux/if_link.h and linux/ipv6.h, as far as libc lacks them.
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
const RTA_NH_ID: u16 = 30;
const RTAX_MTU: u16 = 2;
const RTPROT_REDIRECT: u8 = 1;
const RTPROT_RA: u8 = 9;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_GROUP_TYPE: u16 = 3;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP_TYPE: u16 = 7;
const NHA_FDB: u16 = 11;
const NEXTHOP_GRP_TYPE_MPATH: u16 = 0;
const FRA_PRIORITY: u16 = 6;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_PAD: u16 = 18;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;
const IFLA_INET6_CONF: u16 = 2;
const DEVCONF_MTU6: usize = 2;

/// A policy rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// At this priority all packets look into this table.
    Lookup(u32, u32),
    /// Anything else.
    Other,
}

impl Rule {
    /// The rules that the kernel starts with.
    pub const DEFAULT: [Self; 2] =
        [Self::Lookup(0, libc::RT_TABLE_LOCAL as u32), Self::Lookup(32_766, libc::RT_TABLE_MAIN as u32)];

    /// Reads the payload of RTM_NEWRULE (`struct fib_rule_hdr`); `None`: not of IPv6.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let header: &[u8; 12] = payload.first_chunk()?;
        let [family, destination, source, class, table, _, _, action, flags @ ..] = *header;
        if family != AF_INET6 {
            return None;
        }
        let (mut priority, mut table) = (0, u32::from(table));
        let mut plain =
            destination == 0 && source == 0 && class == 0 && action == FR_ACT_TO_TBL && flags[0] & 2 == 0;
        for (kind, value) in attributes(&payload[12..]) {
            match kind {
                FRA_PRIORITY => priority = number(value)?,
                FRA_TABLE => table = number(value)?,
                // What the kernel says when nothing is suppressed.
                FRA_SUPPRESS_PREFIXLEN => plain &= number(value) == Some(u32::MAX),
                FRA_PROTOCOL | FRA_PAD => {}
                _ => plain = false,
            }
        }
        Some(if plain { Self::Lookup(priority, table) } else { Self::Other })
    }
}

/// Reads a message; `None`: nothing that forwarding depends on.
pub fn parse(kind: u16, flags: u16, payload: &[u8]) -> Option<Event> {
    match kind {
        libc::RTM_NEWLINK => link(payload).map(|(ifindex, link)| Event::Link(ifindex, link)),
        libc::RTM_DELLINK => link_header(payload).map(|(ifindex, ..)| Event::LinkGone(ifindex)),
        libc::RTM_NEWNEIGH => neighbour(payload, false),
        libc::RTM_DELNEIGH => neighbour(payload, true),
        RTM_NEWNEXTHOP => object(payload).map(|(id, object)| Event::Object(id, object)),
        RTM_DELNEXTHOP => object(payload).map(|(id, _)| Event::ObjectGone(id)),
        libc::RTM_NEWROUTE => {
            let replaces = flags & NLM_F_REPLACE != 0;
            route(payload).map(|(id, route)| Event::Route { id, route, replaces })
        }
        libc::RTM_DELROUTE => route(payload).map(|(id, route)| Event::RouteGone { id, route }),
        libc::RTM_NEWRULE | libc::RTM_DELRULE => Rule::parse(payload).map(|_| Event::RulesChanged),
        _ => None,
    }
}

/// `struct ifinfomsg`: ifindex, device type and flags.
fn link_header(payload: &[u8]) -> Option<(u32, u16, u32)> {
    let header: &[u8; 16] = payload.first_chunk()?;
    // Bridges tell about their ports in a family of their own; that is not about the interface as such.
    (header[0] == libc::AF_UNSPEC as u8).then_some(())?;
    Some((number(&header[4..])?, short(&header[2..])?, number(&header[8..])?))
}

fn link(payload: &[u8]) -> Option<(u32, Link)> {
    let (ifindex, kind, flags) = link_header(payload)?;
    let mut link = Link {
        name: String::new(),
        mac: None,
        mtu: 0,
        device_mtu: 0,
        up: flags & libc::IFF_UP as u32 != 0,
        carrier: flags & libc::IFF_LOWER_UP as u32 != 0,
    };
    let mut mtu6 = None;
    for (attribute, value) in attributes(&payload[16..]) {
        match attribute {
            libc::IFLA_IFNAME => {
                let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
                link.name = String::from_utf8_lossy(&value[..end]).into_owned();
            }
            libc::IFLA_ADDRESS if kind == libc::ARPHRD_ETHER => {
                link.mac = value.try_into().ok().map(Mac::new);
            }
            libc::IFLA_MTU => link.device_mtu = number(value)?,
            libc::IFLA_AF_SPEC => {
                let conf = find(value, u16::from(AF_INET6)).and_then(|ipv6| find(ipv6, IFLA_INET6_CONF));
                mtu6 = conf.and_then(|conf| number(conf.get(4 * DEVCONF_MTU6..)?));
            }
            _ => {}
        }
    }
    link.mtu = mtu6.unwrap_or(u32::MAX).min(link.device_mtu);
    Some((ifindex, link))
}

/// `struct ndmsg` and its attributes.
fn neighbour(payload: &[u8], gone: bool) -> Option<Event> {
    let header: &[u8; 12] = payload.first_chunk()?;
    let (ifindex, state, flags) = (number(&header[4..])?, short(&header[8..])?, header[10]);
    if header[0] != AF_INET6 || flags & libc::NTF_PROXY != 0 {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for (attribute, value) in attributes(&payload[12..]) {
        match attribute {
            libc::NDA_DST => address = ipv6(value),
            libc::NDA_LLADDR => mac = value.try_into().ok().map(Mac::new),
            _ => {}
        }
    }
    let key = (ifindex, address?);
    if gone {
        return Some(Event::NeighbourGone(key));
    }
    // NUD_VALID of the kernel (net/neighbour.h).
    let valid = libc::NUD_PERMANENT
        | libc::NUD_NOARP
        | libc::NUD_REACHABLE
        | libc::NUD_PROBE
        | libc::NUD_STALE
        | libc::NUD_DELAY;
    let mac = mac.filter(|_| state & valid != 0);
    Some(Event::Neighbour(key, Neighbour { mac, stale: state & libc::NUD_STALE != 0 }))
}

/// `struct nhmsg` and its attributes.
fn object(payload: &[u8]) -> Option<(u32, Object)> {
    let (mut id, mut ifindex, mut gateway, mut members) = (None, None, None, None);
    let mut special = false;
    for (attribute, value) in attributes(payload.get(8..)?) {
        match attribute {
            NHA_ID => id = number(value),
            NHA_OIF => ifindex = number(value),
            NHA_GATEWAY => gateway = ipv6(value),
            // `struct nexthop_grp`: id, weight - 1, its high byte (Linux 6.12), nothing.
            NHA_GROUP => {
                let member = |entry: &[u8]| {
                    let weight = u32::from(u16::from_le_bytes([entry[4], entry[5]])) + 1;
                    Some((number(entry)?, weight))
                };
                members = value.chunks_exact(8).map(member).collect::<Option<Vec<_>>>();
            }
            NHA_GROUP_TYPE => special |= short(value) != Some(NEXTHOP_GRP_TYPE_MPATH),
            NHA_BLACKHOLE | NHA_ENCAP_TYPE | NHA_FDB => special = true,
            _ => {}
        }
    }
    let object = match (special, members, ifindex, gateway) {
        (false, Some(members), ..) => Object::Group(members),
        (false, None, Some(ifindex), Some(gateway)) => Object::Single(Hop { ifindex, gateway, weight: 1 }),
        _ => Object::Kernel,
    };
    Some((id?, object))
}

/// What the attributes of a route, or of one of its next hops, say.
#[derive(Default)]
struct Way {
    ifindex: u32,
    gateway: Option<Ipv6Addr>,
    encapsulated: bool,
    weight: u32,
}

/// `struct rtmsg` and its attributes.
fn route(payload: &[u8]) -> Option<(RouteId, Route)> {
    let header: &[u8; 12] = payload.first_chunk()?;
    let [family, length, source_length, _, table, protocol, _, kind, ..] = *header;
    if family != AF_INET6 || number(&header[8..])? & libc::RTM_F_CLONED != 0 {
        return None;
    }
    let mut table = u32::from(table);
    let (mut destination, mut source) = (Ipv6Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
    let (mut metric, mut mtu, mut object, mut ways) = (0, 0, None, None);
    let mut single = Way { weight: 1, ..Way::default() };
    for (attribute, value) in attributes(&payload[12..]) {
        match attribute {
            libc::RTA_DST => destination = ipv6(value)?,
            libc::RTA_SRC => source = ipv6(value)?,
            libc::RTA_TABLE => table = number(value)?,
            libc::RTA_PRIORITY => metric = number(value)?,
            libc::RTA_METRICS => {
                mtu = find(value, RTAX_MTU).and_then(number).unwrap_or(0);
            }
            RTA_NH_ID => object = number(value),
            libc::RTA_MULTIPATH => ways = Some(multipath(value)?),
            attribute => single.read(attribute, value),
        }
    }
    let table = match u8::try_from(table) {
        Ok(libc::RT_TABLE_LOCAL) => Table::Local,
        Ok(libc::RT_TABLE_MAIN) => Table::Main,
        _ => return None,
    };
    let source = if source_length == 0 { None } else { Prefix::new(source, source_length) };
    let id = RouteId { prefix: Prefix::new(destination, length)?, table, source, metric };
    let ways = ways.unwrap_or_else(|| vec![single]);
    let first = ways.first()?;
    let joins =
        object.is_none() && first.gateway.is_some() && protocol != RTPROT_RA && protocol != RTPROT_REDIRECT;
    let kernel = |why| Path::Kernel { why, ifindex: first.ifindex };
    let path = match (kind, object) {
        (libc::RTN_UNICAST, Some(id)) => Path::Object(id),
        (libc::RTN_UNICAST, None) if ways.iter().any(|way| way.encapsulated) => kernel(Why::Encapsulated),
        (libc::RTN_UNICAST, None) => match ways.iter().map(Way::hop).collect() {
            Some(hops) => Path::Hops(hops),
            None => kernel(Why::OnLink),
        },
        (libc::RTN_LOCAL | libc::RTN_ANYCAST, _) => kernel(Why::Local),
        (libc::RTN_UNREACHABLE, _) => kernel(Why::Unreachable),
        (libc::RTN_BLACKHOLE, _) => kernel(Why::Blackhole),
        (libc::RTN_PROHIBIT, _) => kernel(Why::Prohibit),
        (libc::RTN_THROW, _) => kernel(Why::Throw),
        _ => kernel(Why::Type),
    };
    Some((id, Route { path, mtu, joins, protocol }))
}

/// `RTA_MULTIPATH`: each next hop is a `struct rtnexthop` (length, flags, weight - 1, ifindex) and attributes.
fn multipath(mut rest: &[u8]) -> Option<Vec<Way>> {
    let mut ways = Vec::new();
    while !rest.is_empty() {
        let length = usize::from(short(rest)?);
        let entry = rest.get(..length)?;
        let mut way = Way {
            ifindex: number(entry.get(4..)?)?,
            weight: u32::from(*entry.get(3)?) + 1,
            ..Way::default()
        };
        for (attribute, value) in attributes(entry.get(8..)?) {
            way.read(attribute, value);
        }
        ways.push(way);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(ways)
}

impl Way {
    fn read(&mut self, attribute: u16, value: &[u8]) {
        match attribute {
            libc::RTA_OIF => self.ifindex = number(value).unwrap_or(0),
            libc::RTA_GATEWAY => self.gateway = ipv6(value),
            libc::RTA_ENCAP_TYPE => self.encapsulated |= short(value) != Some(0),
            libc::RTA_ENCAP | libc::RTA_VIA | libc::RTA_NEWDST => self.encapsulated = true,
            _ => {}
        }
    }

    fn hop(&self) -> Option<Hop> {
        Some(Hop { ifindex: self.ifindex, gateway: self.gateway?, weight: self.weight })
    }
}

/// Attributes (`struct nlattr`: length, type) up to the first that is not whole.
pub(super) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(short(rest)?), short(rest.get(2..)?)?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        // Without NLA_F_NESTED and NLA_F_NET_BYTEORDER.
        Some((kind & 0x3fff, value))
    })
}

/// The first attribute of a type.
pub(super) fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(attribute, _)| *attribute == wanted).map(|(_, value)| value)
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn short(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn ipv6(bytes: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from)
}
