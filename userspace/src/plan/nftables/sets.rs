//! Sets of addresses as sets of nftables.

use super::{Text, list};
use crate::plan::policy::{SetId, Sets};
use ipnet::Ipv6Net;
use std::collections::{BTreeMap, BTreeSet};

/// The sets that rules speak of so far.
pub(super) struct AddressSets<'a> {
    sets: &'a Sets,
    used: BTreeMap<SetId, Members>,
}

/// Who is in a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Members {
    /// Nobody.
    Nobody,
    /// Everybody.
    Everybody,
    /// Those in these prefixes, of which none is part of another.
    Some(Vec<Ipv6Net>),
}

impl<'a> AddressSets<'a> {
    pub fn new(sets: &'a Sets) -> Self {
        Self { sets, used: BTreeMap::new() }
    }

    /// A set that a rule speaks of.
    pub fn members(&mut self, id: SetId) -> &Members {
        self.used.entry(id).or_insert_with(|| Members::of(self.sets.members(id)))
    }

    /// Writes the sets that rules speak of.
    pub fn render(&self, text: &mut Text) {
        for (id, members) in &self.used {
            let Members::Some(prefixes) = members else { continue };
            let mut lines = vec!["type ipv6_addr".to_owned()];
            // A set of single addresses is a hash table.
            if prefixes.iter().any(|prefix| prefix.prefix_len() < 128) {
                lines.push("flags interval".to_owned());
            }
            lines.push(format!("elements = {{ {} }}", list(prefixes.iter().map(plain))));
            text.block(format_args!("set {}", name(*id)), lines);
        }
    }
}

impl Members {
    fn of(prefixes: &BTreeSet<Ipv6Net>) -> Self {
        let prefixes = Ipv6Net::aggregate(&prefixes.iter().copied().collect());
        match prefixes.first() {
            None => Self::Nobody,
            Some(first) if first.prefix_len() == 0 => Self::Everybody,
            Some(_) => Self::Some(prefixes),
        }
    }
}

/// What the set is called.
pub(super) fn name(id: SetId) -> String {
    format!("addresses_{}", id.0)
}

/// A single address without its length, which is not written in sets without prefixes.
fn plain(prefix: &Ipv6Net) -> String {
    if prefix.prefix_len() == 128 { prefix.addr().to_string() } else { prefix.to_string() }
}
