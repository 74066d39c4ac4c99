//! What a step matches, in nftables' words.

use super::list;
use super::sets::{AddressSets, Members, name};
use super::steps::View;
use crate::plan::policy::chain::{EndMatch, Match};
use crate::resource::policy::{IcmpMatch, PortRange, Protocol};

/// Type and code of an ICMPv6 echo request (RFC 4443 section 4.1), the only ICMPv6 that flows begin with.
const ECHO_REQUEST: (u8, u8) = (128, 0);

/// Conditions of one rule, in a row; `None`: no packet meets them.
type Conditions = Option<Vec<String>>;

/// What a step matches: packets that meet one of these lists of conditions. No packet meets two of them.
pub(super) fn alternatives(matching: &Match, view: View, sets: &mut AddressSets<'_>) -> Vec<Vec<String>> {
    let ends = [&matching.source, &matching.destination];
    let by_kind = matching.icmp.is_some()
        || matching.not_icmp.is_some()
        || ends.iter().any(|end| !end.ports.is_empty() || !end.not_ports.is_empty());
    let kinds = match matching.protocol {
        Some(protocol) => vec![Kind::of(protocol)],
        None if by_kind => vec![Kind::Icmp, Kind::Ports, Kind::Other],
        None => vec![Kind::Any],
    };
    kinds.into_iter().filter_map(|kind| conditions(matching, kind, view, sets)).collect()
}

/// What is asked of packets differs by what their protocol has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Types and codes.
    Icmp,
    /// Ports.
    Ports,
    /// Neither.
    Other,
    /// Nothing is asked that only some have.
    Any,
}

impl Kind {
    fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::ICMP6 => Self::Icmp,
            protocol if protocol.has_ports() => Self::Ports,
            _ => Self::Other,
        }
    }

    /// That a packet is of this kind.
    fn condition(self) -> Option<&'static str> {
        match self {
            Self::Icmp => Some("meta l4proto 58"),
            Self::Ports => Some("meta l4proto { 6, 17, 132 }"),
            Self::Other => Some("meta l4proto != { 6, 17, 58, 132 }"),
            Self::Any => None,
        }
    }
}

fn conditions(matching: &Match, kind: Kind, view: View, sets: &mut AddressSets<'_>) -> Conditions {
    let Match { protocol, not_protocol, icmp, not_icmp, source, destination } = matching;
    if not_protocol.is_some() && not_protocol == protocol {
        return None;
    }
    let mut all = Vec::new();
    match protocol {
        Some(protocol) => all.push(format!("meta l4proto {}", protocol.0)),
        None => all.extend(kind.condition().map(str::to_owned)),
    }
    all.extend(not_protocol.map(|protocol| format!("meta l4proto != {}", protocol.0)));
    if kind == Kind::Icmp {
        all.extend(message(*icmp, view, true)?);
        all.extend(message(*not_icmp, view, false)?);
    } else if icmp.is_some() {
        return None;
    }
    let (from, to) = match view {
        View::Packet => ("s", "d"),
        View::Answer => ("d", "s"),
    };
    for (end, letter) in [(source, from), (destination, to)] {
        all.extend(addresses(end, letter, sets)?);
        if kind == Kind::Ports {
            all.extend(ports(end, letter)?);
        } else if !end.ports.is_empty() {
            return None;
        }
    }
    Some(all)
}

/// That an ICMPv6 message is, or is not, like this.
fn message(wanted: Option<IcmpMatch>, view: View, is: bool) -> Conditions {
    let Some(wanted) = wanted else { return Some(Vec::new()) };
    if view == View::Answer {
        return (wanted.matches(ECHO_REQUEST.0, ECHO_REQUEST.1) == is).then(Vec::new);
    }
    // Type and code as one number, since not both is something else than neither.
    let (field, value) = match (wanted.kind, wanted.code) {
        (None, None) => return is.then(Vec::new),
        (Some(kind), None) => ("@th,0,8", u16::from(kind)),
        (None, Some(code)) => ("@th,8,8", u16::from(code)),
        (Some(kind), Some(code)) => ("@th,0,16", u16::from_be_bytes([kind, code])),
    };
    Some(vec![format!("{field} {}{value:#x}", if is { "" } else { "!= " })])
}

/// What is asked of the address at an end.
fn addresses(end: &EndMatch, letter: &str, sets: &mut AddressSets<'_>) -> Conditions {
    let mut all = Vec::new();
    for id in &end.within {
        match sets.members(*id) {
            Members::Nobody => return None,
            Members::Everybody => {}
            Members::Some(_) => all.push(format!("ip6 {letter}addr @{}", name(*id))),
        }
    }
    for id in &end.outside {
        match sets.members(*id) {
            Members::Nobody => {}
            Members::Everybody => return None,
            Members::Some(_) => all.push(format!("ip6 {letter}addr != @{}", name(*id))),
        }
    }
    Some(all)
}

/// What is asked of the port at an end.
fn ports(end: &EndMatch, letter: &str) -> Conditions {
    let mut all = Vec::new();
    let everything = [(0, u16::MAX)];
    let wanted = merged(&end.ports);
    if !wanted.is_empty() && wanted != everything {
        all.push(format!("th {letter}port {{ {} }}", list(wanted.iter().map(text))));
    }
    let unwanted = merged(&end.not_ports);
    if unwanted == everything {
        return None;
    }
    if !unwanted.is_empty() {
        all.push(format!("th {letter}port != {{ {} }}", list(unwanted.iter().map(text))));
    }
    Some(all)
}

/// The same ports in ranges that do not touch.
fn merged(ranges: &[PortRange]) -> Vec<(u16, u16)> {
    let mut ranges: Vec<_> = ranges.iter().map(|range| (range.first(), range.last())).collect();
    ranges.sort_unstable();
    let mut apart: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match apart.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => apart.push((first, last)),
        }
    }
    apart
}

fn text(&(first, last): &(u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}
