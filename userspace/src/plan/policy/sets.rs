//! Sets of addresses: what `nets` and selectors come down to. Each is known by what it comes from, not by who is in it, so
//! that it stays the same set when somebody joins or leaves.

use crate::resource::Selector;
use crate::resource::policy::{PortRange, Protocol};
use ipnet::Ipv6Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

/// A set, by its place in [`Sets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub u32);

/// What a set comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetName {
    /// These prefixes.
    Nets(BTreeSet<Ipv6Net>),
    /// Whoever a selector chooses.
    Selected(Selector),
    /// Endpoints that have a port of a protocol by one of these names.
    Named {
        /// The protocol.
        protocol: Option<Protocol>,
        /// Names that a rule asks for, and those that it excludes.
        names: (Vec<String>, Vec<String>),
        /// What they mean by them; `None`: anything.
        meaning: Option<(Vec<PortRange>, Vec<PortRange>)>,
    },
}

/// Sets of prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    sets: Vec<BTreeSet<Ipv6Net>>,
    names: Vec<SetName>,
    known: BTreeMap<SetName, SetId>,
}

impl Sets {
    /// The set of this name; `members` says who is in it when it is new.
    pub fn intern(&mut self, name: SetName, members: impl FnOnce() -> BTreeSet<Ipv6Net>) -> SetId {
        if let Some(&id) = self.known.get(&name) {
            return id;
        }
        let id = SetId(u32::try_from(self.sets.len()).unwrap_or(u32::MAX));
        self.known.insert(name.clone(), id);
        self.names.push(name);
        self.sets.push(members());
        id
    }

    /// The set of exactly these prefixes.
    pub fn nets(&mut self, nets: BTreeSet<Ipv6Net>) -> SetId {
        self.intern(SetName::Nets(nets.clone()), || nets)
    }

    /// The members of a set.
    pub fn members(&self, id: SetId) -> &BTreeSet<Ipv6Net> {
        &self.sets[id.0 as usize]
    }

    /// What a set comes from.
    pub fn name(&self, id: SetId) -> &SetName {
        &self.names[id.0 as usize]
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
