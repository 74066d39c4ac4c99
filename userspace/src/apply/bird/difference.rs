//! How BIRD's table and the kernel's can differ: pure.

use super::status::listed;
use crate::apply::kernel;
use crate::plan::bird::SERVAL_KERNEL;
use ipnet::Ipv6Net;
use rtnetlink::packet_route::route::RouteProtocol;
use std::collections::BTreeSet;

/// A way that routes go between BIRD and the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// From BIRD to the kernel: how others' VMs are reached.
    Given,
    /// From the kernel to BIRD: the VMs of this host, which it announces.
    Learnt,
}

/// How they differ about a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Difference {
    /// BIRD's route is not in the kernel.
    Missing,
    /// A route under BIRD's name that it does not know.
    Stray,
    /// A VM of this host that BIRD has not learnt of: it is announced to nobody.
    Unlearnt,
    /// BIRD still announces a VM that is not here any more.
    Stale,
}

/// What is known of differences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Drift {
    /// At present.
    pub differences: BTreeSet<(Difference, Ipv6Net)>,
    /// How many there have been.
    pub found: u64,
}

impl Side {
    pub const ALL: [Self; 2] = [Self::Given, Self::Learnt];

    /// The mark that its routes have in the kernel.
    pub fn mark(self) -> RouteProtocol {
        match self {
            Self::Given => RouteProtocol::Bird,
            Self::Learnt => RouteProtocol::Other(kernel::PROTOCOL),
        }
    }

    /// Whose mark that is, if it is of any.
    pub fn marked(mark: RouteProtocol) -> Option<Self> {
        Self::ALL.into_iter().find(|side| side.mark() == mark)
    }

    /// What to ask BIRD about to hear of its routes.
    pub fn selection(self) -> String {
        match self {
            Self::Given => format!("export {SERVAL_KERNEL}"),
            Self::Learnt => format!("protocol {SERVAL_KERNEL} where krt_source = {}", kernel::PROTOCOL),
        }
    }

    pub fn difference(self, in_bird: bool, in_kernel: bool) -> Option<Difference> {
        match (self, in_bird, in_kernel) {
            (_, true, true) | (_, false, false) => None,
            (Self::Given, true, false) => Some(Difference::Missing),
            (Self::Given, false, true) => Some(Difference::Stray),
            (Self::Learnt, true, false) => Some(Difference::Stale),
            (Self::Learnt, false, true) => Some(Difference::Unlearnt),
        }
    }
}

impl Difference {
    pub fn side(self) -> Side {
        match self {
            Self::Missing | Self::Stray => Side::Given,
            Self::Unlearnt | Self::Stale => Side::Learnt,
        }
    }
}

impl Drift {
    /// The destinations of a kind.
    pub fn of(&self, kind: Difference) -> Vec<Ipv6Net> {
        self.differences.iter().filter(|(difference, _)| *difference == kind).map(|(_, at)| *at).collect()
    }

    /// For people.
    pub fn told(&self) -> String {
        use Difference::{Missing, Stale, Stray, Unlearnt};
        let [missing, stray, unlearnt, stale] = [Missing, Stray, Unlearnt, Stale].map(|kind| self.of(kind));
        told([&missing, &stray, &unlearnt, &stale])
    }
}

/// Routes that are missing, stray, unlearnt and stale, for people.
pub(super) fn told(kinds: [&[Ipv6Net]; 4]) -> String {
    let names = ["missing in the kernel", "stray there", "not learnt by BIRD", "gone, and announced still"];
    let there = names.into_iter().zip(kinds).filter(|(_, destinations)| !destinations.is_empty());
    let parts: Vec<String> =
        there.map(|(name, destinations)| format!("{name}: {}", listed(destinations))).collect();
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_tell_sides_apart() {
        for side in Side::ALL {
            assert_eq!(Side::marked(side.mark()), Some(side));
            for (in_bird, in_kernel) in [(true, false), (false, true)] {
                let difference = side.difference(in_bird, in_kernel).unwrap();
                assert_eq!(difference.side(), side);
            }
            assert_eq!(side.difference(true, true), None);
            assert_eq!(side.difference(false, false), None);
        }
        assert_eq!(Side::marked(RouteProtocol::Static), None);
    }

    #[test]
    fn only_kinds_that_there_are_are_told() {
        let net =
            |n: u16| Ipv6Net::new(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n), 128).unwrap();
        let differences = BTreeSet::from([(Difference::Stale, net(2)), (Difference::Missing, net(1))]);
        let drift = Drift { differences, found: 2 };
        assert_eq!(
            drift.told(),
            "missing in the kernel: 2001:db8::1/128; gone, and announced still: 2001:db8::2/128"
        );
    }
}
