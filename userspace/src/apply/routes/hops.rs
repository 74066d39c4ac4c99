//! Sets of next hops, and what the data plane must know to use them: pure.
//!
//! Routes with the same next hops share a set, and a set is one group of the map `NEXT_HOPS`. What changes under many
//! routes at once (a MAC, an interface, a next hop object) so changes groups, not routes.

use super::event::{Hop, Link, Neighbour, NeighbourKey, Object, Why};
use dataplane_ebpf::abi::{MAX_NEXT_HOPS, Mac, NextHop, NextHopGroup, next_hop_flags};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;

/// Which interfaces may carry packets to other hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// How names of TAPs begin: what is behind them is not another host.
    pub tap_prefix: String,
    /// These and no others; empty: all.
    pub uplinks: BTreeSet<String>,
}

impl Scope {
    /// Packets may leave by the interface.
    pub fn admits(&self, link: &Link) -> bool {
        link.mac.is_some()
            && !link.name.starts_with(&self.tap_prefix)
            && (self.uplinks.is_empty() || self.uplinks.contains(&link.name))
    }
}

/// What a set consists of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// These.
    Hops(Box<[Hop]>),
    /// Whatever a next hop object says.
    Object(u32),
}

/// A set that routes use.
struct Set {
    content: Content,
    /// Routes of the FIB that use it; the last one takes it away.
    users: usize,
    /// Routes of the maps that lead to it.
    installed: usize,
    /// What the map holds.
    written: Option<NextHopGroup>,
    /// The neighbours it depends on.
    neighbours: BTreeSet<NeighbourKey>,
}

/// One next hop of a set, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Where to.
    pub hop: Hop,
    /// Its MAC, when the data plane uses it.
    pub mac: Option<Mac>,
    /// XDP uses it, too.
    pub xdp: bool,
    /// Why it is left to the kernel.
    pub why: Option<Why>,
}

/// What to write to `NEXT_HOPS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupChanges {
    /// New and changed groups. Before any route that leads to them.
    pub set: Vec<(u32, NextHopGroup)>,
    /// Groups that are gone. After all routes that led to them.
    pub gone: Vec<u32>,
    /// Neighbours that the kernel should look after.
    pub probes: BTreeMap<NeighbourKey, Probe>,
}

/// What the kernel should do about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Find it: nothing is known of it.
    Resolve,
    /// See whether it is still there.
    Check,
}

/// All sets, and what they depend on.
pub struct NextHops {
    scope: Scope,
    capacity: usize,
    /// Interfaces that take frames which XDP redirects.
    xdp: BTreeSet<u32>,
    links: BTreeMap<u32, Link>,
    neighbours: BTreeMap<NeighbourKey, Neighbour>,
    objects: BTreeMap<u32, Object>,
    sets: BTreeMap<u32, Set>,
    numbers: HashMap<Content, u32>,
    by_neighbour: BTreeMap<NeighbourKey, BTreeSet<u32>>,
    next_number: u32,
    written: usize,
    dirty: BTreeSet<u32>,
    /// Did not fit the map.
    waiting: BTreeSet<u32>,
    gone: Vec<u32>,
    probes: BTreeSet<NeighbourKey>,
    withdrawn: bool,
    moved: bool,
}

impl NextHops {
    /// No sets yet. Groups are numbered from `first_number` on, which must not be 0, and at most `capacity` are written.
    pub fn new(scope: Scope, first_number: u32, capacity: usize) -> Self {
        Self {
            scope,
            capacity,
            xdp: BTreeSet::new(),
            links: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            objects: BTreeMap::new(),
            sets: BTreeMap::new(),
            numbers: HashMap::new(),
            by_neighbour: BTreeMap::new(),
            next_number: first_number.max(1),
            written: 0,
            dirty: BTreeSet::new(),
            waiting: BTreeSet::new(),
            gone: Vec::new(),
            probes: BTreeSet::new(),
            withdrawn: false,
            moved: true,
        }
    }

    /// The set with this content, used once more. Its number never means another set.
    pub fn acquire(&mut self, content: Content) -> u32 {
        if let Some(number) = self.numbers.get(&content).copied() {
            if let Some(set) = self.sets.get_mut(&number) {
                set.users += 1;
            }
            return number;
        }
        let number = self.free_number();
        self.numbers.insert(content.clone(), number);
        let set = Set { content, users: 1, installed: 0, written: None, neighbours: BTreeSet::new() };
        self.sets.insert(number, set);
        self.relate(number);
        number
    }

    /// The set is used once less.
    pub fn release(&mut self, number: u32) {
        let Some(set) = self.sets.get_mut(&number) else { return };
        set.users -= 1;
        if set.users > 0 {
            return;
        }
        self.unrelate(number);
        self.dirty.remove(&number);
        self.waiting.remove(&number);
        if let Some(set) = self.sets.remove(&number) {
            self.numbers.remove(&set.content);
            if set.written.is_some() {
                self.gone.push(number);
                self.written -= 1;
                self.dirty.append(&mut self.waiting);
            }
        }
    }

    /// What a set consists of.
    pub fn content(&self, number: u32) -> Option<&Content> {
        self.sets.get(&number).map(|set| &set.content)
    }

    /// The number of the set with this content.
    pub fn number(&self, content: &Content) -> Option<u32> {
        self.numbers.get(content).copied()
    }

    /// A route in the maps leads to the set, or no longer does.
    pub fn note_installed(&mut self, number: u32, more: bool) {
        if let Some(set) = self.sets.get_mut(&number) {
            set.installed = if more { set.installed + 1 } else { set.installed.saturating_sub(1) };
        }
    }

    /// How many routes of the maps the data plane forwards by, at least for some of the flows.
    pub fn fast_routes(&self) -> usize {
        let usable =
            |set: &&Set| set.written.as_ref().is_some_and(|group| group.hops.iter().any(is_resolved));
        self.sets.values().filter(usable).map(|set| set.installed).sum()
    }

    /// How many different next hops there are that the data plane uses.
    pub fn usable(&self) -> usize {
        self.by_neighbour.keys().filter(|key| self.mac(key).is_ok()).count()
    }

    /// The interfaces that next hops are behind, if that may have changed since the last call.
    pub fn take_interfaces(&mut self) -> Option<BTreeSet<u32>> {
        mem::replace(&mut self.moved, false).then(|| {
            let all = self.by_neighbour.keys().map(|(ifindex, _)| *ifindex);
            all.filter(|ifindex| self.links.get(ifindex).is_some_and(|link| self.scope.admits(link)))
                .collect()
        })
    }

    /// Whether any set depends on a next hop object.
    pub fn has_objects(&self) -> bool {
        !self.objects.is_empty()
    }

    /// An interface as it was last heard of.
    pub fn link(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(&ifindex)
    }

    /// All interfaces, as far as they are known.
    pub fn links(&self) -> &BTreeMap<u32, Link> {
        &self.links
    }

    /// All neighbours, as far as they are known.
    pub fn neighbours(&self) -> &BTreeMap<NeighbourKey, Neighbour> {
        &self.neighbours
    }

    /// All next hop objects, as far as they are known.
    pub fn objects(&self) -> &BTreeMap<u32, Object> {
        &self.objects
    }

    /// An interface is like this, or gone.
    pub fn set_link(&mut self, ifindex: u32, link: Option<Link>) {
        if self.links.get(&ifindex) == link.as_ref() {
            return;
        }
        self.moved = true;
        match link {
            Some(link) => self.links.insert(ifindex, link),
            None => self.links.remove(&ifindex),
        };
        let users: Vec<(NeighbourKey, BTreeSet<u32>)> =
            self.users_behind(ifindex).map(|(key, sets)| (*key, sets.clone())).collect();
        for (key, sets) in users {
            self.dirty.extend(sets);
            self.want(key);
        }
    }

    /// A neighbour is like this, or gone.
    pub fn set_neighbour(&mut self, key: NeighbourKey, neighbour: Option<Neighbour>) {
        if self.neighbours.get(&key) == neighbour.as_ref() {
            return;
        }
        match neighbour {
            Some(neighbour) => self.neighbours.insert(key, neighbour),
            None => self.neighbours.remove(&key),
        };
        if let Some(sets) = self.by_neighbour.get(&key) {
            self.dirty.extend(sets);
            self.want(key);
        }
    }

    /// A next hop object is like this, or gone.
    pub fn set_object(&mut self, id: u32, object: Option<Object>) {
        if self.objects.get(&id) == object.as_ref() {
            return;
        }
        match object {
            Some(object) => self.objects.insert(id, object),
            None => self.objects.remove(&id),
        };
        // Groups of objects may have changed, too.
        let affected: Vec<u32> = self
            .sets
            .iter()
            .filter(|(_, set)| matches!(set.content, Content::Object(_)))
            .map(|(number, _)| *number)
            .collect();
        for number in affected {
            self.unrelate(number);
            self.relate(number);
        }
    }

    /// These interfaces take frames that XDP redirects.
    pub fn set_xdp(&mut self, interfaces: BTreeSet<u32>) {
        let before = mem::replace(&mut self.xdp, interfaces);
        for ifindex in before.symmetric_difference(&self.xdp.clone()) {
            let sets: Vec<u32> = self.users_behind(*ifindex).flat_map(|(_, sets)| sets).copied().collect();
            self.dirty.extend(sets);
        }
    }

    /// The data plane may, or may not, use any of it.
    pub fn withdraw(&mut self, withdrawn: bool) {
        if mem::replace(&mut self.withdrawn, withdrawn) != withdrawn {
            self.dirty.extend(self.sets.keys());
            self.want_all();
        }
    }

    /// Asks for every next hop that is not known to be fresh.
    pub fn want_all(&mut self) {
        let all: Vec<NeighbourKey> = self.by_neighbour.keys().copied().collect();
        all.into_iter().for_each(|key| self.want(key));
    }

    /// What has to be written since the last call.
    pub fn flush(&mut self) -> GroupChanges {
        let mut changes = GroupChanges { gone: mem::take(&mut self.gone), ..GroupChanges::default() };
        for number in mem::take(&mut self.dirty) {
            let Some(set) = self.sets.get(&number) else { continue };
            let group = if self.withdrawn { None } else { Some(self.render(&set.content)) };
            if set.written == group {
                continue;
            }
            match (&set.written, &group) {
                (None, Some(_)) if self.written == self.capacity => {
                    self.waiting.insert(number);
                    continue;
                }
                (None, Some(_)) => self.written += 1,
                (Some(_), None) => self.written -= 1,
                _ => {}
            }
            match group {
                Some(group) => changes.set.push((number, group)),
                None => changes.gone.push(number),
            }
            if let Some(set) = self.sets.get_mut(&number) {
                set.written = group;
            }
        }
        let probes = mem::take(&mut self.probes);
        if !self.withdrawn {
            let used = probes.into_iter().filter(|key| self.by_neighbour.contains_key(key));
            // It may have become known since.
            changes.probes = used.filter_map(|key| Some((key, self.probe(&key)?))).collect();
        }
        changes
    }

    /// What `NEXT_HOPS` must hold after the last [`flush`](Self::flush).
    pub fn written(&self) -> BTreeMap<u32, NextHopGroup> {
        self.sets.iter().filter_map(|(number, set)| Some((*number, set.written?))).collect()
    }

    /// The next hops of a set.
    pub fn view(&self, number: u32) -> Result<Vec<View>, Why> {
        let set = self.sets.get(&number).ok_or(Why::Object)?;
        let hops = self.hops(&set.content).ok_or(Why::Object)?;
        if set.written.is_none() && self.waiting.contains(&number) {
            return Err(Why::TooManyGroups);
        }
        if self.alive(&hops).len() > MAX_NEXT_HOPS {
            return Err(Why::TooManyHops);
        }
        let view = |hop: &Hop| {
            let mac = self.mac(&hop.neighbour());
            let xdp = mac.is_ok() && self.xdp.contains(&hop.ifindex);
            View { hop: *hop, mac: mac.ok(), xdp, why: mac.err() }
        };
        Ok(hops.iter().map(view).collect())
    }

    fn free_number(&mut self) -> u32 {
        while self.next_number == 0 || self.sets.contains_key(&self.next_number) {
            self.next_number = self.next_number.wrapping_add(1);
        }
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        number
    }

    /// Notes on which neighbours a set depends, and that it is to be rendered.
    fn relate(&mut self, number: u32) {
        self.dirty.insert(number);
        let Some(set) = self.sets.get(&number) else { return };
        let hops = self.hops(&set.content).unwrap_or_default();
        let neighbours: BTreeSet<NeighbourKey> = hops.iter().map(Hop::neighbour).collect();
        for key in &neighbours {
            self.moved |= self.by_neighbour.entry(*key).or_default().insert(number);
            self.want(*key);
        }
        if let Some(set) = self.sets.get_mut(&number) {
            set.neighbours = neighbours;
        }
    }

    fn unrelate(&mut self, number: u32) {
        let Some(set) = self.sets.get_mut(&number) else { return };
        for key in mem::take(&mut set.neighbours) {
            if let Some(sets) = self.by_neighbour.get_mut(&key) {
                sets.remove(&number);
                if sets.is_empty() {
                    self.by_neighbour.remove(&key);
                    self.moved = true;
                }
            }
        }
    }

    fn users_behind(&self, ifindex: u32) -> impl Iterator<Item = (&NeighbourKey, &BTreeSet<u32>)> {
        let all = std::net::Ipv6Addr::UNSPECIFIED..=std::net::Ipv6Addr::from_bits(u128::MAX);
        self.by_neighbour.range((ifindex, *all.start())..=(ifindex, *all.end()))
    }

    /// Notes that the kernel should look after a next hop: it is unknown to it, or was not checked lately.
    fn want(&mut self, key: NeighbourKey) {
        let link = self.links.get(&key.0);
        if self.probe(&key).is_some()
            && link.is_some_and(|link| link.up && link.carrier && self.scope.admits(link))
        {
            self.probes.insert(key);
        }
    }

    /// What there is to do about a neighbour.
    fn probe(&self, key: &NeighbourKey) -> Option<Probe> {
        match self.neighbours.get(key) {
            None => Some(Probe::Resolve),
            Some(neighbour) => neighbour.stale.then_some(Probe::Check),
        }
    }

    /// The ways that a content means at present; `None`: unknown, or only the kernel can.
    fn hops(&self, content: &Content) -> Option<Vec<Hop>> {
        match content {
            Content::Hops(hops) => Some(hops.to_vec()),
            Content::Object(id) => match self.objects.get(id)? {
                Object::Single(hop) => Some(vec![*hop]),
                Object::Kernel => None,
                Object::Group(members) => {
                    let member = |(id, weight): &(u32, u32)| match self.objects.get(id)? {
                        Object::Single(hop) => Some(Hop { weight: *weight, ..*hop }),
                        Object::Group(_) | Object::Kernel => None,
                    };
                    let hops: Option<Vec<Hop>> = members.iter().map(member).collect();
                    hops.filter(|hops| !hops.is_empty())
                }
            },
        }
    }

    /// Those that the kernel spreads flows over: not those whose interface is down, as it marks them dead.
    fn alive(&self, hops: &[Hop]) -> Vec<Hop> {
        let up = |hop: &&Hop| self.links.get(&hop.ifindex).is_some_and(|link| link.up);
        hops.iter().filter(up).copied().collect()
    }

    /// The MAC of a next hop, if the data plane may use it.
    fn mac(&self, key: &NeighbourKey) -> Result<Mac, Why> {
        let link = self.links.get(&key.0).ok_or(Why::Interface)?;
        if !self.scope.admits(link) {
            return Err(Why::Interface);
        }
        if !link.up || !link.carrier {
            return Err(Why::Down);
        }
        self.neighbours.get(key).and_then(|neighbour| neighbour.mac).ok_or(Why::Unresolved)
    }

    /// The group of a set. What the data plane cannot do is in it as a next hop that is not resolved: the kernel's.
    fn render(&self, content: &Content) -> NextHopGroup {
        let mut group = NextHopGroup { count: 1, hops: [NextHop::default(); MAX_NEXT_HOPS] };
        group.hops[0].upper_bound = u32::MAX;
        let alive = self.hops(content).map(|hops| self.alive(&hops)).unwrap_or_default();
        if alive.is_empty() || alive.len() > MAX_NEXT_HOPS {
            return group;
        }
        let total: u64 = alive.iter().map(|hop| u64::from(hop.weight)).sum();
        let mut sum = 0;
        group.count = alive.len() as u32;
        for (slot, hop) in group.hops.iter_mut().zip(&alive) {
            sum += u64::from(hop.weight);
            // As rt6_multipath_rebalance does, which has 31 bits of hash.
            slot.upper_bound = ((sum << 32) / total - 1) as u32;
            slot.ifindex = hop.ifindex;
            let Some(link) = self.links.get(&hop.ifindex) else { continue };
            slot.mtu = link.mtu;
            if let (Ok(mac), Some(source_mac)) = (self.mac(&hop.neighbour()), link.mac) {
                slot.mac = mac;
                slot.source_mac = source_mac;
                slot.flags = next_hop_flags::RESOLVED;
                if self.xdp.contains(&hop.ifindex) {
                    slot.flags |= next_hop_flags::XDP;
                }
            }
        }
        group
    }
}

fn is_resolved(hop: &NextHop) -> bool {
    hop.flags & next_hop_flags::RESOLVED != 0
}
