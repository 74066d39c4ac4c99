//! Who is who: addresses that are in the same sets are the same to every chain.

use super::super::{SetId, Sets};
use ipnet::Ipv6Net;
use std::collections::{BTreeMap, BTreeSet};

/// An identity. [`IdentityId::NOBODY`] is in no set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityId(pub u32);

impl IdentityId {
    /// In no set.
    pub const NOBODY: Self = Self(0);
}

/// Identities of prefixes: the longest that has an address says who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities {
    prefixes: BTreeMap<Ipv6Net, IdentityId>,
    /// The sets of every identity but nobody.
    sets: Vec<BTreeSet<SetId>>,
}

impl Identities {
    /// Of everything that is in some set.
    pub fn new(sets: &Sets) -> Self {
        let mut own: BTreeMap<Ipv6Net, BTreeSet<SetId>> = BTreeMap::new();
        for (id, members) in sets.iter() {
            for net in members {
                own.entry(net.trunc()).or_default().insert(id);
            }
        }
        let mut identities = Self::default();
        let mut known = BTreeMap::from([(BTreeSet::new(), IdentityId::NOBODY)]);
        // In order of address and then length, what encloses a prefix comes before it.
        let mut enclosing: Vec<(Ipv6Net, BTreeSet<SetId>)> = Vec::new();
        for (net, mut sets) in own {
            while enclosing.last().is_some_and(|(outer, _)| !outer.contains(&net)) {
                enclosing.pop();
            }
            // What encloses already has the sets of all that enclose it.
            if let Some((_, outer)) = enclosing.last() {
                sets.extend(outer);
            }
            let id = *known.entry(sets.clone()).or_insert_with(|| {
                identities.sets.push(sets.clone());
                IdentityId(u32::try_from(identities.sets.len()).unwrap_or(u32::MAX))
            });
            identities.prefixes.insert(net, id);
            enclosing.push((net, sets));
        }
        identities
    }

    /// Every identity but nobody, with its sets.
    pub fn iter(&self) -> impl Iterator<Item = (IdentityId, &BTreeSet<SetId>)> {
        (1..).map(IdentityId).zip(&self.sets)
    }

    /// Every prefix with its identity.
    pub fn prefixes(&self) -> impl Iterator<Item = (Ipv6Net, IdentityId)> {
        self.prefixes.iter().map(|(net, id)| (*net, *id))
    }
}
