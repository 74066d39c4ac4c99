//! A read of the kernel's tables, merged with what events say meanwhile.
//!
//! The read marks what it finds; what is not marked at its end is gone. Until then the maps keep what they had: no hole.
//!
//! Answers and events come in the order in which the kernel queues them, but it writes an answer before it queues it, so an
//! event may overtake an answer that does not know of it. As long as no event is lost that is settled easily: what an
//! event speaks of, it knows better than the answer. After a loss it may not: it speaks of one route, or one next hop, and
//! of nothing that came or went beside it. Then its prefix is the kernel's until the next read.

use super::{Entry, Fib, Known};
use crate::apply::routes::event::{Event, NeighbourKey, RouteId};
use crate::apply::routes::prefix::Prefix;
use std::collections::{BTreeMap, BTreeSet};

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Policy rules.
    Rules,
    /// Interfaces.
    Links,
    /// Next hop objects.
    Objects,
    /// Neighbours.
    Neighbours,
    /// Routes.
    Routes,
}

impl Part {
    /// All, in the order in which they are read.
    pub const ALL: [Self; 5] = [Self::Rules, Self::Links, Self::Objects, Self::Neighbours, Self::Routes];
}

/// A sync that is under way.
#[derive(Default)]
pub(super) struct Sync {
    /// No notification was lost since the last one.
    trusted: bool,
    /// What events spoke of meanwhile.
    links: BTreeSet<u32>,
    neighbours: BTreeSet<NeighbourKey>,
    objects: BTreeSet<u32>,
    routes: BTreeSet<RouteId>,
    /// What it found.
    found_links: BTreeSet<u32>,
    found_neighbours: BTreeSet<NeighbourKey>,
    found_objects: BTreeSet<u32>,
    /// Prefixes of which it found something else than what events had told.
    differing: BTreeSet<Prefix>,
}

impl Sync {
    /// An event speaks of this. Gives the prefix when it does not tell the whole story.
    pub(super) fn touch(&mut self, event: &Event, uncertain: &BTreeMap<Prefix, u32>) -> Option<Prefix> {
        match event {
            Event::Route { id, .. } | Event::RouteGone { id, .. }
                if !self.trusted || uncertain.contains_key(&id.prefix) =>
            {
                return Some(id.prefix);
            }
            // The read is at least as young as what waited in the socket.
            _ if !self.trusted => {}
            Event::Link(ifindex, _) | Event::LinkGone(ifindex) => drop(self.links.insert(*ifindex)),
            Event::Neighbour(key, _) | Event::NeighbourGone(key) => drop(self.neighbours.insert(*key)),
            Event::Object(id, _) | Event::ObjectGone(id) => drop(self.objects.insert(*id)),
            Event::Route { id, .. } | Event::RouteGone { id, .. } => drop(self.routes.insert(*id)),
            Event::RulesChanged => {}
        }
        None
    }

    /// The read says so; `false`: an event knows better.
    fn note(&mut self, event: &Event) -> bool {
        match event {
            Event::Link(ifindex, _) => self.found_links.insert(*ifindex) && !self.links.contains(ifindex),
            Event::Neighbour(key, _) => {
                self.found_neighbours.insert(*key);
                !self.neighbours.contains(key)
            }
            Event::Object(id, _) => self.found_objects.insert(*id) && !self.objects.contains(id),
            Event::Route { id, .. } => !self.routes.contains(id),
            _ => false,
        }
    }
}

impl Fib {
    /// A sync begins. It is trusted when no notification was lost since the last one.
    pub fn begin_sync(&mut self, trusted: bool) {
        self.generation = self.generation.wrapping_add(1);
        self.sync = Some(Sync { trusted, ..Sync::default() });
    }

    /// Notifications were lost.
    pub fn distrust(&mut self) {
        if let Some(sync) = &mut self.sync {
            sync.trusted = false;
        }
    }

    /// A sync is under way.
    pub fn is_syncing(&self) -> bool {
        self.sync.is_some()
    }

    /// The sync found this.
    pub fn found(&mut self, event: Event) {
        let Some(sync) = &mut self.sync else { return };
        if !sync.note(&event) {
            return;
        }
        let (id, route) = match event {
            Event::Route { id, route, .. } => (id, route),
            other => return self.take(other),
        };
        if id.prefix.is_never_forwarded() {
            return;
        }
        let path = self.store(&route.path);
        let generation = self.generation;
        let entry = self.entries.entry(id.prefix).or_default();
        let same = |known: &&mut Known| {
            known.id == id && known.path == path && known.mtu == route.mtu && known.joins == route.joins
        };
        match entry.routes.iter_mut().find(same) {
            Some(known) => {
                known.twice = known.seen == generation;
                (known.seen, known.protocol) = (generation, route.protocol);
                self.unstore(path);
            }
            None => {
                // Beside what was known until the end of the sync, so that the prefix is the kernel's meanwhile.
                if let Some(sync) = &mut self.sync {
                    sync.differing.insert(id.prefix);
                }
                self.push(id, path, &route);
            }
        }
    }

    /// The sync is at its end. When it is `complete`, what it did not find is gone; otherwise that is uncertain. Gives
    /// the prefixes of which it said something new.
    pub fn end_sync(&mut self, complete: bool) -> BTreeSet<Prefix> {
        let Some(mut sync) = self.sync.take() else { return BTreeSet::new() };
        let generation = self.generation;
        let mut differing = std::mem::take(&mut sync.differing);
        let lost = |known: &Known| known.seen != generation && !sync.routes.contains(&known.id);
        let unseen: Vec<(Prefix, BTreeSet<RouteId>)> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.routes.iter().any(lost))
            .map(|(prefix, entry)| (*prefix, self.hiding(entry)))
            .filter(|(prefix, hiding)| {
                self.entries[prefix].routes.iter().any(|known| lost(known) && !is_hidden(known, hiding))
            })
            .collect();
        for (prefix, hiding) in unseen {
            differing.insert(prefix);
            if complete {
                self.retain(prefix, |known| !lost(known) || is_hidden(known, &hiding));
            } else {
                self.doubt(prefix);
            }
        }
        if complete {
            self.sweep(&sync);
            let settled: Vec<Prefix> =
                self.uncertain.iter().filter(|(_, since)| **since != generation).map(|(p, _)| *p).collect();
            for prefix in settled {
                self.uncertain.remove(&prefix);
                self.dirty.insert(prefix);
            }
            self.synced = true;
        }
        self.hops.want_all();
        differing
    }

    /// Routes that may hide others from a read: from the first next hop of a route the kernel jumps to the last, past
    /// whatever else of the same metric is in its list between them (rt6_dump_route and its caller, Linux 6.18).
    fn hiding(&self, entry: &Entry) -> BTreeSet<RouteId> {
        let found = entry.routes.iter().filter(|known| known.seen == self.generation);
        found.filter(|known| self.has_several_hops(known.path)).map(|known| known.id).collect()
    }

    /// Takes away interfaces, neighbours and next hop objects that were neither found nor spoken of.
    fn sweep(&mut self, sync: &Sync) {
        let links: Vec<u32> = self.hops.links().keys().copied().collect();
        for ifindex in links {
            if !sync.found_links.contains(&ifindex) && !sync.links.contains(&ifindex) {
                self.hops.set_link(ifindex, None);
            }
        }
        let neighbours: Vec<NeighbourKey> = self.hops.neighbours().keys().copied().collect();
        for key in neighbours {
            if !sync.found_neighbours.contains(&key) && !sync.neighbours.contains(&key) {
                self.hops.set_neighbour(key, None);
            }
        }
        let objects: Vec<u32> = self.hops.objects().keys().copied().collect();
        for id in objects {
            if !sync.found_objects.contains(&id) && !sync.objects.contains(&id) {
                self.lose_object(id);
            }
        }
    }
}

fn is_hidden(known: &Known, hiding: &BTreeSet<RouteId>) -> bool {
    !known.joins && hiding.contains(&known.id)
}
