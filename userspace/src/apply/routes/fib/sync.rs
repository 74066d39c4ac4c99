//! A read of the kernel's tables, merged with what events say meanwhile.
//!
//! The read marks what it finds; what is not marked at its end is gone. Until then the maps keep what they had: no hole.
//! An event that arrives between parts of an answer is younger than whatever the answer may still say of the same thing,
//! since the kernel writes a part before it queues it. One that comes before the first part is older than the answer,
//! and confirms nothing.

use super::{Entry, Fib, Known};
use crate::apply::routes::event::{Event, NeighbourKey, RouteId};
use crate::apply::routes::prefix::Prefix;
use std::collections::BTreeSet;

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
    /// Parts of which an answer has come.
    arrived: BTreeSet<Part>,
    /// What events spoke of since then.
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
    /// An event speaks of this.
    pub(super) fn touch(&mut self, event: &Event) {
        let has = |part| self.arrived.contains(&part);
        match event {
            Event::Link(ifindex, _) | Event::LinkGone(ifindex) if has(Part::Links) => {
                self.links.insert(*ifindex);
            }
            Event::Neighbour(key, _) | Event::NeighbourGone(key) if has(Part::Neighbours) => {
                self.neighbours.insert(*key);
            }
            Event::Object(id, _) | Event::ObjectGone(id) if has(Part::Objects) => {
                self.objects.insert(*id);
            }
            Event::Route { id, .. } | Event::RouteGone { id, .. } if has(Part::Routes) => {
                self.routes.insert(*id);
            }
            _ => {}
        }
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
    /// A sync begins.
    pub fn begin_sync(&mut self) {
        self.sync = Some(Sync::default());
    }

    /// The first answer about a part is here.
    pub fn part_arrives(&mut self, part: Part) {
        let Some(sync) = &mut self.sync else { return };
        if sync.arrived.insert(part) && part == Part::Routes {
            self.generation = self.generation.wrapping_add(1);
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
                known.seen = generation;
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
        let unseen: Vec<Prefix> = self
            .entries
            .iter()
            .filter(|(_, entry): &(_, &Entry)| entry.routes.iter().any(lost))
            .map(|(prefix, _)| *prefix)
            .collect();
        for prefix in unseen {
            differing.insert(prefix);
            if complete {
                self.retain(prefix, |known| !lost(known));
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
