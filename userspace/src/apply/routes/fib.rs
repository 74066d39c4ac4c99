//! The kernel's FIB, and what the data plane's maps have to hold so that it never forwards otherwise: pure.
//!
//! Events go in, map changes come out. What is not plain forwarding, and what is not certain, is the kernel's: such a
//! prefix is in the map with group 0, so that a shorter one does not take its packets; or as the host's own, to which VMs
//! may not talk as they may to others. An event costs O(log n) in the number of routes.
//!
//! What an event about a route makes of what is known: `learn`. How a read of the whole table is merged with events that
//! arrive meanwhile: [`sync`].

mod learn;
mod sync;
#[cfg(test)]
mod tests;

use super::event::{Event, RouteId, Table, Why};
use super::hops::{GroupChanges, NextHops, Scope, View};
use super::message::Rule;
use super::prefix::Prefix;
use dataplane_ebpf::abi;
use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::Ipv6Addr;
pub use sync::Part;
use sync::Sync;

/// How much the maps hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `HOST_ROUTES`, and as many `ROUTES`.
    pub routes: usize,
    /// `NEXT_HOPS`.
    pub groups: usize,
}

/// Why the data plane uses no route at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspension {
    /// Policy rules other than the default ones decide which table is looked into.
    PolicyRules,
    /// More routes than the maps hold.
    TooManyRoutes,
    /// The FIB has not been read yet.
    Starting,
}

/// What to write to the maps, in the order of the fields; then `groups.gone`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Groups of next hops.
    pub groups: GroupChanges,
    /// New and changed routes.
    pub set: Vec<(Prefix, abi::Route)>,
    /// Routes that are gone.
    pub gone: Vec<Prefix>,
}

impl Changes {
    /// There is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
            && self.gone.is_empty()
            && self.groups.set.is_empty()
            && self.groups.gone.is_empty()
    }
}

/// A route as it is known.
struct Known {
    id: RouteId,
    path: Stored,
    mtu: u32,
    joins: bool,
    protocol: u8,
    /// The last sync that found it.
    seen: u32,
    /// That sync told of it more than once. The kernel can have the same route twice (when another is replaced by one that
    /// is there already), and then one of them stays when the other goes.
    twice: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stored {
    Kernel { why: Why, ifindex: u32 },
    Set(u32),
}

#[derive(Default)]
struct Entry {
    routes: Vec<Known>,
    /// What the map holds.
    written: Option<abi::Route>,
}

/// One prefix, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteView {
    /// Destination.
    pub prefix: Prefix,
    /// Metric of the route that is used.
    pub metric: u32,
    /// Who put it there.
    pub protocol: u8,
    /// Longest packet, if the route says.
    pub mtu: u32,
    /// Its next hops, or why it is the kernel's.
    pub hops: Result<Vec<View>, Why>,
}

/// All that is known.
pub struct Fib {
    entries: BTreeMap<Prefix, Entry>,
    hops: NextHops,
    /// Prefixes in table local that cover others.
    local: BTreeSet<Prefix>,
    /// Prefixes whose routes are not certain, and the sync in which that came up.
    uncertain: BTreeMap<Prefix, u32>,
    default_rules: bool,
    limits: Limits,
    /// Entries of `HOST_ROUTES` and of `ROUTES`.
    hosts: usize,
    prefixes: usize,
    generation: u32,
    sync: Option<Sync>,
    synced: bool,
    dirty: BTreeSet<Prefix>,
}

impl Fib {
    /// Nothing is known yet. See [`NextHops::new`] for `first_group`.
    pub fn new(scope: Scope, limits: Limits, first_group: u32) -> Self {
        Self {
            entries: BTreeMap::new(),
            hops: NextHops::new(scope, first_group, limits.groups),
            local: BTreeSet::new(),
            uncertain: BTreeMap::new(),
            default_rules: true,
            limits,
            hosts: 0,
            prefixes: 0,
            generation: 0,
            sync: None,
            synced: false,
            dirty: BTreeSet::new(),
        }
    }

    /// Next hops and what they depend on.
    pub fn hops(&self) -> &NextHops {
        &self.hops
    }

    /// Next hops and what they depend on.
    pub fn hops_mut(&mut self) -> &mut NextHops {
        &mut self.hops
    }

    /// Takes what the kernel notified.
    pub fn apply(&mut self, event: Event) {
        let doubtful = self.sync.as_mut().and_then(|sync| sync.touch(&event, &self.uncertain));
        self.take(event);
        if let Some(prefix) = doubtful {
            self.doubt(prefix);
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Link(ifindex, link) => self.hops.set_link(ifindex, Some(link)),
            Event::LinkGone(ifindex) => self.hops.set_link(ifindex, None),
            Event::Neighbour(key, neighbour) => self.hops.set_neighbour(key, Some(neighbour)),
            Event::NeighbourGone(key) => self.hops.set_neighbour(key, None),
            Event::Object(id, object) => self.hops.set_object(id, Some(object)),
            Event::ObjectGone(id) => self.lose_object(id),
            Event::Route { id, route, replaces } => self.add(id, route, replaces),
            Event::RouteGone { id, route } => self.remove(id, &route),
            Event::RulesChanged => {}
        }
    }

    /// These are the policy rules.
    pub fn set_rules(&mut self, mut rules: Vec<Rule>) {
        rules.sort_unstable();
        // A kernel without policy routing has none.
        self.default_rules = rules.is_empty() || rules == Rule::DEFAULT;
    }

    /// Something that the kernel said does not fit what is known: a sync is needed.
    pub fn is_uncertain(&self) -> bool {
        !self.uncertain.is_empty()
    }

    /// Why the data plane uses no route at present.
    pub fn suspension(&self) -> Option<Suspension> {
        if !self.synced {
            Some(Suspension::Starting)
        } else if !self.default_rules {
            Some(Suspension::PolicyRules)
        } else if self.is_too_much() {
            Some(Suspension::TooManyRoutes)
        } else {
            None
        }
    }

    /// There are more routes than the maps hold, which then are to hold those of the host itself and no others.
    pub fn is_too_much(&self) -> bool {
        self.hosts > self.limits.routes || self.prefixes > self.limits.routes
    }

    /// What has to be written since the last call.
    pub fn flush(&mut self) -> Changes {
        let mut changes = Changes::default();
        for prefix in mem::take(&mut self.dirty) {
            let desired = self.desired(prefix);
            let Some(entry) = self.entries.get_mut(&prefix) else { continue };
            let before = mem::replace(&mut entry.written, desired);
            if entry.routes.is_empty() && desired.is_none() {
                self.entries.remove(&prefix);
            }
            if before == desired {
                continue;
            }
            self.account(prefix, before, false);
            self.account(prefix, desired, true);
            match desired {
                Some(route) => changes.set.push((prefix, route)),
                None => changes.gone.push(prefix),
            }
        }
        self.hops.withdraw(self.suspension().is_some());
        changes.groups = self.hops.flush();
        changes
    }

    /// What the route maps must hold after the last [`flush`](Self::flush).
    pub fn written(&self) -> impl Iterator<Item = (Prefix, abi::Route)> + '_ {
        self.entries.iter().filter_map(|(prefix, entry)| Some((*prefix, entry.written?)))
    }

    /// How many prefixes the data plane forwards by, and how many are the kernel's.
    pub fn counts(&self) -> (usize, usize) {
        let fast = self.hops.fast_routes();
        (fast, (self.hosts + self.prefixes).saturating_sub(fast))
    }

    /// A prefix and all that it covers, for people.
    pub fn within(&self, prefix: Prefix) -> impl Iterator<Item = RouteView> + '_ {
        self.entries.range(prefix.covered()).filter_map(|(prefix, entry)| self.view(*prefix, entry))
    }

    /// The prefixes that cover an address, longest first: packets take the first one.
    pub fn towards(&self, address: Ipv6Addr) -> impl Iterator<Item = RouteView> + '_ {
        let host = Prefix::new(address, 128).into_iter();
        let all = host.flat_map(|host| std::iter::once(host).chain(host.covering()));
        all.filter_map(|prefix| self.view(prefix, self.entries.get(&prefix)?))
    }

    fn view(&self, prefix: Prefix, entry: &Entry) -> Option<RouteView> {
        let best = best(&entry.routes)?;
        let hops = self.judge(prefix, entry).and_then(|set| self.hops.view(set));
        Some(RouteView { prefix, metric: best.id.metric, protocol: best.protocol, mtu: best.mtu, hops })
    }

    /// The set that the prefix's packets go to, or why they are the kernel's.
    fn judge(&self, prefix: Prefix, entry: &Entry) -> Result<u32, Why> {
        if self.uncertain.contains_key(&prefix) {
            return Err(Why::Uncertain);
        }
        if entry.routes.iter().any(|known| known.id.table == Table::Local) {
            return Err(Why::Local);
        }
        if !self.local.is_empty() && prefix.covering().any(|shorter| self.local.contains(&shorter)) {
            return Err(Why::Covered);
        }
        if entry.routes.iter().any(|known| known.id.source.is_some()) {
            return Err(Why::SourceSpecific);
        }
        let best = best(&entry.routes).ok_or(Why::Uncertain)?;
        if entry.routes.iter().filter(|known| known.id.metric == best.id.metric).count() > 1 {
            return Err(Why::Alternatives);
        }
        match best.path {
            Stored::Set(set) => Ok(set),
            Stored::Kernel { why, .. } => Err(why),
        }
    }

    fn desired(&self, prefix: Prefix) -> Option<abi::Route> {
        let entry = self.entries.get(&prefix)?;
        if entry.routes.is_empty() && !self.uncertain.contains_key(&prefix) {
            return None;
        }
        Some(match self.judge(prefix, entry) {
            // Also when it is not certain: who was the host is nobody else until that is known.
            Err(_) if self.is_local(prefix, entry) => abi::Route { group: abi::Route::LOCAL, mtu: 0 },
            Ok(group) => abi::Route { group, mtu: best(&entry.routes).map_or(0, |known| known.mtu) },
            Err(_) => abi::Route { group: 0, mtu: 0 },
        })
    }

    /// Whether packets to the prefix are for the host itself.
    fn is_local(&self, prefix: Prefix, entry: &Entry) -> bool {
        let shorter = prefix.covering().filter(|shorter| self.local.contains(shorter));
        let around = shorter.filter_map(|shorter| self.entries.get(&shorter));
        let mut found = std::iter::once(entry).chain(around).filter_map(|entry| {
            let local = entry.routes.iter().filter(|known| known.id.table == Table::Local);
            local.min_by_key(|known| known.id.metric)
        });
        found.next().is_some_and(|known| matches!(known.path, Stored::Kernel { why: Why::Local, .. }))
    }

    fn account(&mut self, prefix: Prefix, route: Option<abi::Route>, more: bool) {
        let Some(route) = route else { return };
        let count = if prefix.is_host() { &mut self.hosts } else { &mut self.prefixes };
        *count = if more { *count + 1 } else { *count - 1 };
        self.hops.note_installed(route.group, more);
    }
}

/// The route that the kernel takes.
fn best(routes: &[Known]) -> Option<&Known> {
    routes.iter().min_by_key(|known| (known.id.table, known.id.metric))
}
