//! Steps by protocol and port. Ranges of ports are cut where any step's begins or ends, and each piece is written as
//! prefixes, so that one lookup of the longest prefix finds it.

use super::super::chain::{Chain, EndMatch, Match};
use super::{Services, Vector};
use crate::resource::policy::{IcmpMatch, PortRange, Protocol};
use std::collections::{BTreeMap, BTreeSet};

/// A prefix of protocol and port: all ports of the protocol whose first `length` bits are those of `port`. For ICMPv6 the
/// port is type and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// The protocol.
    pub protocol: Protocol,
    /// The port, bits beyond `length` zero.
    pub port: u16,
    /// 0 to 16.
    pub length: u8,
}

/// By protocol and destination port, or ICMPv6 type and code.
pub(super) fn by_destination(chain: &Chain) -> Services {
    by_port(chain, &|matching| &matching.destination, &Match::asks_for_protocol)
}

/// By protocol and source port. What is asked of the protocol alone is asked in [`by_destination`].
pub(super) fn by_source(chain: &Chain) -> Services {
    by_port(chain, &|matching| &matching.source, &|_, _, _| true)
}

impl Match {
    /// Whether protocol, and type and code if it is ICMPv6, are what is asked for.
    fn asks_for_protocol(&self, protocol: Protocol, port: u16) -> bool {
        let [kind, code] = port.to_be_bytes();
        let is = |icmp: IcmpMatch| protocol == Protocol::ICMP6 && icmp.matches(kind, code);
        self.protocol.is_none_or(|wanted| wanted == protocol)
            && self.not_protocol.is_none_or(|unwanted| unwanted != protocol)
            && self.icmp.is_none_or(is)
            && !self.not_icmp.is_some_and(is)
    }
}

fn by_port(
    chain: &Chain,
    end: &dyn Fn(&Match) -> &EndMatch,
    besides: &dyn Fn(&Match, Protocol, u16) -> bool,
) -> Services {
    let vector = |protocol: Protocol, port: u16| {
        Vector::of(chain.steps.iter().map(|step| {
            let end = end(&step.matching);
            let any = |ranges: &[PortRange]| {
                protocol.has_ports() && ranges.iter().any(|range| range.contains(port))
            };
            (end.ports.is_empty() || any(&end.ports))
                && !any(&end.not_ports)
                && besides(&step.matching, protocol, port)
        }))
    };
    let mentioned = mentioned(chain);
    let other = (0..=255).map(Protocol).find(|protocol| !mentioned.contains(protocol));
    let otherwise = other.map(|protocol| vector(protocol, 0)).unwrap_or_default();
    let mut by_service = BTreeMap::new();
    for &protocol in &mentioned {
        // Pieces between cuts are the same all over.
        let cuts = cuts(chain, end, protocol);
        let ends = cuts.iter().skip(1).map(|next| next - 1).chain([u16::MAX]);
        let mut pieces: Vec<(u16, u16, Vector)> = Vec::new();
        for (&first, last) in cuts.iter().zip(ends) {
            let steps = vector(protocol, first);
            match pieces.last_mut() {
                Some((_, end, same)) if *same == steps => *end = last,
                _ => pieces.push((first, last, steps)),
            }
        }
        // The whole protocol is what most ports are; the others are listed.
        let base = most(&pieces);
        if base != otherwise || pieces.len() > 1 {
            by_service.insert(Service { protocol, port: 0, length: 0 }, base.clone());
        }
        for (first, last, steps) in pieces {
            if steps != base {
                by_service.extend(prefixes(protocol, first, last).map(|service| (service, steps.clone())));
            }
        }
    }
    Services { otherwise, by_service }
}

/// The protocols that any step speaks of.
fn mentioned(chain: &Chain) -> BTreeSet<Protocol> {
    let steps = chain.steps.iter().map(|step| &step.matching);
    steps.flat_map(|matching| matching.protocol.into_iter().chain(matching.not_protocol)).collect()
}

/// The first ports of the pieces, from 0 on.
fn cuts(chain: &Chain, end: &dyn Fn(&Match) -> &EndMatch, protocol: Protocol) -> BTreeSet<u16> {
    let mut cuts = BTreeSet::from([0]);
    // Behind the last port nothing begins.
    let mut cut =
        |first: u16, last: u16| cuts.extend([Some(first), last.checked_add(1)].into_iter().flatten());
    for step in &chain.steps {
        if protocol == Protocol::ICMP6 {
            for icmp in step.matching.icmp.iter().chain(&step.matching.not_icmp) {
                if let Some(kind) = icmp.kind {
                    let (first, last) = icmp.code.map_or((0, 255), |code| (code, code));
                    cut(u16::from_be_bytes([kind, first]), u16::from_be_bytes([kind, last]));
                }
            }
        } else if protocol.has_ports() {
            let end = end(&step.matching);
            for range in end.ports.iter().chain(&end.not_ports) {
                cut(range.first(), range.last());
            }
        }
    }
    cuts
}

/// The steps of most ports.
fn most(pieces: &[(u16, u16, Vector)]) -> Vector {
    let mut ports: BTreeMap<&Vector, u32> = BTreeMap::new();
    for (first, last, steps) in pieces {
        *ports.entry(steps).or_default() += u32::from(last - first) + 1;
    }
    ports.into_iter().max_by_key(|(_, count)| *count).map(|(steps, _)| steps.clone()).unwrap_or_default()
}

/// The prefixes that make up a range of ports.
fn prefixes(protocol: Protocol, first: u16, last: u16) -> impl Iterator<Item = Service> {
    let (mut next, last) = (u32::from(first), u32::from(last));
    std::iter::from_fn(move || {
        if next > last {
            return None;
        }
        // The largest block that begins here and does not go beyond.
        let aligned = next.trailing_zeros().min(16);
        let fits = (last - next + 1).ilog2();
        let bits = aligned.min(fits);
        let port = u16::try_from(next).ok()?;
        next += 1 << bits;
        Some(Service { protocol, port, length: u8::try_from(16 - bits).ok()? })
    })
}
