//! What an event about a route or a next hop object makes of what is known, by the kernel's rules of joining and replacing
//! routes. What those leave open is in doubt until the next sync.

use super::{Fib, Known, Stored};
use crate::apply::routes::event::{Hop, Path, Route, RouteId, Table};
use crate::apply::routes::hops::Content;
use crate::apply::routes::prefix::Prefix;
use std::mem;

impl Fib {
    pub(super) fn add(&mut self, id: RouteId, route: Route, replaces: bool) {
        if id.prefix.is_never_forwarded() {
            return;
        }
        let path = self.store(&route.path);
        let generation = self.generation;
        let entry = self.entries.entry(id.prefix).or_default();
        let same: Vec<usize> = (0..entry.routes.len()).filter(|n| entry.routes[*n].id == id).collect();
        let kin: Vec<usize> =
            same.iter().copied().filter(|n| entry.routes[*n].joins == route.joins).collect();
        let is_equal = |known: &Known| known.path == path && known.mtu == route.mtu;
        let (displaced, mut certain) = match (replaces, kin.as_slice(), same.as_slice()) {
            // The first of its kind is replaced, or the first of the other kind (fib6_add_rt2node).
            (true, [at], _) | (true, [], [at]) => (Some(*at), true),
            (true, _, all) => (None, all.is_empty()),
            // The kernel tells all next hops of a route when some are added to it.
            // It tells one MTU, though each may have its own.
            (false, [at], _) if route.joins => (Some(*at), entry.routes[*at].mtu == route.mtu),
            (false, _, all) if route.joins => (None, all.is_empty()),
            (false, kin, _) => (kin.iter().copied().find(|at| is_equal(&entry.routes[*at])), true),
        };
        match displaced.map(|at| &mut entry.routes[at]) {
            Some(known) => {
                let equal = known.path == path && known.mtu == route.mtu;
                certain &= equal || !known.twice;
                known.twice = equal && known.seen == generation && (known.twice || !route.joins);
                let before = mem::replace(&mut known.path, path);
                (known.mtu, known.joins, known.seen) = (route.mtu, route.joins, generation);
                known.protocol = route.protocol;
                self.unstore(before);
            }
            None => self.push(id, path, &route),
        }
        if !certain {
            // The kernel does not tell all.
            self.doubt(id.prefix);
        }
        self.dirty.insert(id.prefix);
    }

    pub(super) fn remove(&mut self, id: RouteId, route: &Route) {
        if id.prefix.is_never_forwarded() {
            return;
        }
        let path = self.store(&route.path);
        let Some(entry) = self.entries.get(&id.prefix) else { return self.unstore(path) };
        let same: Vec<usize> = (0..entry.routes.len()).filter(|n| entry.routes[*n].id == id).collect();
        let position = same.iter().copied().find(|n| self.is_same_way(entry.routes[*n].path, path));
        match (position, same.as_slice()) {
            (Some(position), _) => {
                let several = self.has_several_hops(path) || entry.routes[position].twice;
                self.remove_at(id.prefix, position);
                if several {
                    self.doubt(id.prefix);
                }
            }
            (None, []) => {}
            (None, [position]) => self.remove_hops(id.prefix, *position, &route.path),
            (None, _) => self.doubt(id.prefix),
        }
        self.unstore(path);
    }

    /// The kernel took some of a route's next hops away.
    fn remove_hops(&mut self, prefix: Prefix, position: usize, gone: &Path) {
        let known = self.entries.get(&prefix).and_then(|entry| entry.routes.get(position));
        let hops = known.and_then(|known| match known.path {
            Stored::Set(set) => match self.hops.content(set) {
                Some(Content::Hops(hops)) => Some(hops.to_vec()),
                _ => None,
            },
            Stored::Kernel { .. } => None,
        });
        let (Some(mut hops), Path::Hops(gone)) = (hops, gone) else { return self.doubt(prefix) };
        for way in gone {
            match hops.iter().position(|hop| hop.neighbour() == way.neighbour()) {
                Some(at) => drop(hops.remove(at)),
                None => return self.doubt(prefix),
            }
        }
        if hops.is_empty() {
            return self.remove_at(prefix, position);
        }
        // What they hid comes out, and the MTU may have been that of the one that is gone.
        self.doubt(prefix);
        let left = self.store(&Path::Hops(hops));
        let known = self.entries.get_mut(&prefix).and_then(|entry| entry.routes.get_mut(position));
        if let Some(known) = known {
            let before = mem::replace(&mut known.path, left);
            known.seen = self.generation;
            self.unstore(before);
        }
        self.dirty.insert(prefix);
    }

    /// A next hop object is gone, and with it, without notice when `nexthop_compat_mode` is off, all routes by it.
    pub(super) fn lose_object(&mut self, id: u32) {
        self.hops.set_object(id, None);
        // The group is left without a next hop that is resolved, so packets are the kernel's.
        let Some(set) = self.hops.number(&Content::Object(id)) else { return };
        let users: Vec<Prefix> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.routes.iter().any(|known| known.path == Stored::Set(set)))
            .map(|(prefix, _)| *prefix)
            .collect();
        for prefix in users {
            self.retain(prefix, |known| known.path != Stored::Set(set));
        }
    }

    pub(super) fn push(&mut self, id: RouteId, path: Stored, route: &Route) {
        let Route { mtu, joins, protocol, .. } = *route;
        let known = Known { id, path, mtu, joins, protocol, seen: self.generation, twice: false };
        self.entries.entry(id.prefix).or_default().routes.push(known);
        self.dirty.insert(id.prefix);
        if id.table == Table::Local && !id.prefix.is_host() && self.local.insert(id.prefix) {
            self.touch_covered(id.prefix);
        }
    }

    fn remove_at(&mut self, prefix: Prefix, position: usize) {
        let mut index = 0;
        self.retain(prefix, |_| {
            index += 1;
            index != position + 1
        });
    }

    /// Keeps those routes of a prefix that are to be kept.
    pub(super) fn retain(&mut self, prefix: Prefix, mut keep: impl FnMut(&Known) -> bool) {
        let Some(entry) = self.entries.get_mut(&prefix) else { return };
        let mut released = Vec::new();
        entry.routes.retain(|known| {
            let kept = keep(known);
            if !kept {
                released.push(known.path);
            }
            kept
        });
        let local = entry.routes.iter().any(|known| known.id.table == Table::Local);
        released.into_iter().for_each(|path| self.unstore(path));
        self.dirty.insert(prefix);
        if !local && self.local.remove(&prefix) {
            self.touch_covered(prefix);
        }
    }

    fn touch_covered(&mut self, prefix: Prefix) {
        let covered = self.entries.range(prefix.covered()).map(|(covered, _)| *covered);
        self.dirty.extend(covered);
    }

    /// Until the next sync a prefix is the kernel's, even one without routes: there may be some.
    pub(super) fn doubt(&mut self, prefix: Prefix) {
        if prefix.is_never_forwarded() {
            return;
        }
        self.uncertain.insert(prefix, self.generation);
        self.entries.entry(prefix).or_default();
        self.dirty.insert(prefix);
    }

    pub(super) fn store(&mut self, path: &Path) -> Stored {
        match path {
            Path::Kernel { why, ifindex } => Stored::Kernel { why: *why, ifindex: *ifindex },
            Path::Hops(hops) => {
                // The kernel rotates them in what it tells.
                let mut hops: Box<[Hop]> = hops.as_slice().into();
                hops.sort_unstable();
                Stored::Set(self.hops.acquire(Content::Hops(hops)))
            }
            Path::Object(id) => Stored::Set(self.hops.acquire(Content::Object(*id))),
        }
    }

    pub(super) fn unstore(&mut self, path: Stored) {
        if let Stored::Set(set) = path {
            self.hops.release(set);
        }
    }

    /// A route with several next hops may hide others of the same metric when all are read; they come out when it goes.
    pub(super) fn has_several_hops(&self, path: Stored) -> bool {
        let content = match path {
            Stored::Set(set) => self.hops.content(set),
            Stored::Kernel { .. } => None,
        };
        matches!(content, Some(Content::Hops(hops)) if hops.len() > 1)
    }

    /// Both lead to the same next hops; weights do not count.
    fn is_same_way(&self, a: Stored, b: Stored) -> bool {
        let ways = |path| match path {
            Stored::Set(set) => match self.hops.content(set) {
                Some(Content::Hops(hops)) => Some(hops.iter().map(Hop::neighbour).collect::<Vec<_>>()),
                _ => None,
            },
            Stored::Kernel { .. } => None,
        };
        a == b || ways(a).is_some_and(|a| Some(a) == ways(b))
    }
}
