//! Sets of addresses, each kept once: what `nets` and selectors come down to.

use ipnet::Ipv6Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

/// A set, by its place in [`Sets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub u32);

/// Sets of prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    sets: Vec<BTreeSet<Ipv6Net>>,
    known: BTreeMap<BTreeSet<Ipv6Net>, SetId>,
}

impl Sets {
    /// The set with these members, new or known.
    pub fn intern(&mut self, members: BTreeSet<Ipv6Net>) -> SetId {
        if let Some(&id) = self.known.get(&members) {
            return id;
        }
        let id = SetId(u32::try_from(self.sets.len()).unwrap_or(u32::MAX));
        self.known.insert(members.clone(), id);
        self.sets.push(members);
        id
    }

    /// The members of a set.
    pub fn members(&self, id: SetId) -> &BTreeSet<Ipv6Net> {
        &self.sets[id.0 as usize]
    }

    /// All sets.
    pub fn iter(&self) -> impl Iterator<Item = (SetId, &BTreeSet<Ipv6Net>)> {
        (0..).map(SetId).zip(&self.sets)
    }

    /// Whether an address is in a set.
    pub fn contains(&self, id: SetId, address: Ipv6Addr) -> bool {
        self.members(id).iter().any(|net| net.contains(&address))
    }
}
