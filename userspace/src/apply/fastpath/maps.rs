//! The BPF maps, each with a copy of what it holds, so that only differences are written.

use super::FastPathError;
use super::entries::{Entries, GATEWAY};
use super::generation::{Generations, forwarding};
use aya::maps::xdp::XdpMapError;
use aya::maps::{DevMapHash, HashMap, IterableMap, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use dataplane_ebpf::abi::{Address, Advertisement, Counters, Endpoint, Owner, Uplink, names};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// A value of a map that userspace writes.
pub trait Value: aya::Pod + PartialEq {
    /// The value without what the hooks write into it.
    fn ours(self) -> Self {
        self
    }

    /// Takes over what the hooks wrote into the value before.
    fn carry(&mut self, _before: &Self) {}
}

impl Value for Endpoint {}
impl Value for Owner {}
impl Value for Uplink {}
impl Value for Advertisement {
    fn ours(mut self) -> Self {
        self.last_multicast = 0;
        self
    }

    fn carry(&mut self, before: &Self) {
        self.last_multicast = before.last_multicast;
    }
}

/// A hash map and a copy of its content.
pub struct Table<K: aya::Pod, V: Value> {
    name: &'static str,
    map: HashMap<MapData, K, V>,
    content: BTreeMap<K, V>,
    capacity: u32,
    /// Raised after every change, if ways are found in the map.
    generations: Option<Generations>,
}

impl<K: aya::Pod + Ord, V: Value> Table<K, V> {
    /// Takes over `map` with all it holds; `generations` if ways are found in it.
    pub fn open(
        name: &'static str,
        map: Map,
        generations: Option<&Generations>,
    ) -> Result<Self, FastPathError> {
        let map: HashMap<MapData, K, V> = map.try_into().map_err(failed(name, "unexpected type"))?;
        let capacity = map.map().info().map_err(failed(name, "cannot be read"))?.max_entries();
        let generations = generations.cloned();
        let mut table = Self { name, map, content: BTreeMap::new(), capacity, generations };
        table.reload()?;
        Ok(table)
    }

    /// What it holds.
    pub fn content(&self) -> &BTreeMap<K, V> {
        &self.content
    }

    /// Reads the map again and says how many entries are not what we left there.
    pub fn reload(&mut self) -> Result<usize, FastPathError> {
        let mut found = BTreeMap::new();
        for entry in self.map.iter() {
            match entry {
                Ok((key, value)) => {
                    found.insert(key, value.ours());
                }
                // Deleted between the two system calls of a step.
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed(self.name, "cannot be read")(error)),
            }
        }
        let changed = found.iter().filter(|(key, value)| self.content.get(key) != Some(value)).count();
        let missing = self.content.keys().filter(|key| !found.contains_key(key)).count();
        self.content = found;
        Ok(changed + missing)
    }

    /// Writes `value` unless it is there already.
    pub fn set(&mut self, key: K, mut value: V) -> Result<(), FastPathError> {
        if self.content.get(&key) == Some(&value.ours()) {
            return Ok(());
        }
        if let Ok(before) = self.map.get(&key, 0) {
            value.carry(&before);
        }
        self.change(|map| map.insert(key, value, 0), "cannot write an entry")?;
        self.content.insert(key, value.ours());
        Ok(())
    }

    /// Removes an entry; none there is fine.
    pub fn remove(&mut self, key: &K) -> Result<(), FastPathError> {
        if self.content.remove(key).is_some() {
            self.change(|map| absent_is_fine(map.remove(key)), "cannot remove an entry")?;
        }
        Ok(())
    }

    fn change(
        &mut self,
        change: impl FnOnce(&mut HashMap<MapData, K, V>) -> Result<(), MapError>,
        what: &'static str,
    ) -> Result<(), FastPathError> {
        let (name, map) = (self.name, &mut self.map);
        let change = || change(map).map_err(failed(name, what));
        match &self.generations {
            Some(generations) => forwarding(generations, change),
            None => change(),
        }
    }
}

/// All maps.
pub struct Maps {
    /// Who is behind a TAP.
    pub endpoints: Table<u32, Endpoint>,
    /// Who has an address.
    pub addresses: Table<Address, Owner>,
    /// Router advertisements.
    pub answers: Table<u32, Advertisement>,
    /// Uplinks.
    pub uplinks: Table<u32, Uplink>,
    devices: DevMapHash<MapData>,
    counters: PerCpuArray<MapData, Counters>,
}

/// `ADDRESSES` has no room.
pub struct NoRoom {
    /// Entries it holds at most.
    pub capacity: u32,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub fn open(
        mut take: impl FnMut(&'static str) -> Result<Map, FastPathError>,
        generations: &Generations,
    ) -> Result<Self, FastPathError> {
        let ways = Some(generations);
        Ok(Self {
            endpoints: Table::open(names::ENDPOINTS, take(names::ENDPOINTS)?, ways)?,
            addresses: Table::open(names::ADDRESSES, take(names::ADDRESSES)?, ways)?,
            answers: Table::open(names::ANSWERS, take(names::ANSWERS)?, None)?,
            uplinks: Table::open(names::UPLINKS, take(names::UPLINKS)?, ways)?,
            devices: take(names::DEVICES)?.try_into().map_err(failed(names::DEVICES, "unexpected type"))?,
            counters: take(names::COUNTERS)?
                .try_into()
                .map_err(failed(names::COUNTERS, "unexpected type"))?,
        })
    }

    /// Whether the addresses of `entries` fit, given what the endpoint gives up for them.
    pub fn room_for(&self, ifindex: u32, entries: &Entries) -> Result<(), NoRoom> {
        let content = self.addresses.content();
        let wanted = entries.owners.keys().chain(&entries.gateways);
        let new = wanted.filter(|address| !content.contains_key(address)).count();
        let given_up = self.stale_addresses(ifindex, entries).count();
        let capacity = self.addresses.capacity;
        if content.len() + new - given_up > capacity as usize { Err(NoRoom { capacity }) } else { Ok(()) }
    }

    /// Writes what differs. The order is what makes a change safe at every instant: nobody can be redirected to a
    /// device that is not there, and the TAP itself is switched on last.
    pub fn write(&mut self, ifindex: u32, entries: &Entries) -> Result<(), FastPathError> {
        if entries.reachable {
            self.add_device(ifindex)?;
        }
        let stale: Vec<Address> = self.stale_addresses(ifindex, entries).collect();
        for address in stale {
            self.addresses.remove(&address)?;
        }
        for gateway in &entries.gateways {
            self.addresses.set(*gateway, GATEWAY)?;
        }
        for (address, owner) in &entries.owners {
            self.addresses.set(*address, *owner)?;
        }
        match &entries.answer {
            Some(answer) => self.answers.set(ifindex, *answer)?,
            None => self.answers.remove(&ifindex)?,
        }
        self.endpoints.set(ifindex, entries.endpoint)?;
        if !entries.reachable {
            self.remove_device(ifindex)?;
        }
        Ok(())
    }

    /// What the maps hold for an endpoint now; its gateways, which belong to no one, are left out.
    pub fn entries(&self, ifindex: u32) -> Option<Entries> {
        let owners = self.addresses.content().iter().filter(|(_, owner)| owner.ifindex == ifindex);
        Some(Entries {
            endpoint: *self.endpoints.content().get(&ifindex)?,
            owners: owners.map(|(address, owner)| (*address, *owner)).collect(),
            gateways: BTreeSet::new(),
            answer: self.answers.content().get(&ifindex).copied(),
            reachable: self.has_device(ifindex),
        })
    }

    /// Removes what is the endpoint's alone, except its `ENDPOINTS` entry.
    pub fn clear(&mut self, ifindex: u32) -> Result<(), FastPathError> {
        let owned: Vec<Address> = self.owned_addresses(ifindex).collect();
        for address in owned {
            self.addresses.remove(&address)?;
        }
        self.answers.remove(&ifindex)?;
        self.remove_device(ifindex)
    }

    /// Removes gateway addresses that are not in `wanted`.
    pub fn sweep_gateways(&mut self, wanted: &BTreeSet<Address>) -> Result<(), FastPathError> {
        let found = self.addresses.content().iter();
        let stale: Vec<Address> =
            found.filter(|(a, o)| **o == GATEWAY && !wanted.contains(a)).map(|(a, _)| *a).collect();
        stale.iter().try_for_each(|address| self.addresses.remove(address))
    }

    /// Every interface that has an entry anywhere, but for uplinks.
    pub fn interfaces(&self) -> Result<BTreeSet<u32>, FastPathError> {
        let mut found: BTreeSet<u32> = self.endpoints.content().keys().copied().collect();
        found.extend(self.answers.content().keys());
        found.extend(
            self.addresses.content().values().map(|owner| owner.ifindex).filter(|i| *i != GATEWAY.ifindex),
        );
        for ifindex in self.devices.keys() {
            let ifindex = ifindex.map_err(failed(names::DEVICES, "cannot be read"))?;
            if !self.uplinks.content().contains_key(&ifindex) {
                found.insert(ifindex);
            }
        }
        Ok(found)
    }

    /// Reads the maps again; the number of entries that were changed behind our back.
    pub fn reload(&mut self) -> Result<usize, FastPathError> {
        Ok(self.endpoints.reload()?
            + self.addresses.reload()?
            + self.answers.reload()?
            + self.uplinks.reload()?)
    }

    /// Makes the interface an uplink, so that its hooks know it. XDP of TAPs may redirect to it.
    pub fn write_uplink(&mut self, ifindex: u32, uplink: Uplink) -> Result<(), FastPathError> {
        // First the mark: a device without one counts as a TAP's.
        self.uplinks.set(ifindex, uplink)?;
        self.add_device(ifindex)
    }

    /// The interface is no uplink any more.
    pub fn clear_uplink(&mut self, ifindex: u32) -> Result<(), FastPathError> {
        self.remove_device(ifindex)?;
        self.uplinks.remove(&ifindex)
    }

    /// Whether XDP may redirect to the interface. The kernel takes the entry out when the device goes.
    pub fn has_device(&self, ifindex: u32) -> bool {
        self.devices.get(ifindex, 0).is_ok()
    }

    /// The counters of a slot, summed over the CPUs.
    pub fn counters(&self, slot: u32) -> Result<Counters, FastPathError> {
        let values = self.counters.get(&slot, 0).map_err(failed(names::COUNTERS, "cannot be read"))?;
        let mut sum = Counters::default();
        values.iter().for_each(|value| sum.add(value));
        Ok(sum)
    }

    /// Sets the counters of a slot to 0.
    pub fn reset_counters(&mut self, slot: u32) -> Result<(), FastPathError> {
        let zero =
            || PerCpuValues::try_from(vec![Counters::default(); nr_cpus().map_err(|(_, error)| error)?]);
        let reset = zero().map_err(MapError::from).and_then(|zero| self.counters.set(slot, zero, 0));
        reset.map_err(failed(names::COUNTERS, "cannot be reset"))
    }

    fn stale_addresses<'a>(
        &'a self,
        ifindex: u32,
        entries: &'a Entries,
    ) -> impl Iterator<Item = Address> + 'a {
        self.owned_addresses(ifindex)
            .filter(|a| !entries.owners.contains_key(a) && !entries.gateways.contains(a))
    }

    fn owned_addresses(&self, ifindex: u32) -> impl Iterator<Item = Address> + '_ {
        self.addresses.content().iter().filter(move |(_, owner)| owner.ifindex == ifindex).map(|(a, _)| *a)
    }

    fn add_device(&mut self, ifindex: u32) -> Result<(), FastPathError> {
        if self.has_device(ifindex) {
            return Ok(());
        }
        match self.devices.insert(ifindex, ifindex, None, 0) {
            Err(XdpMapError::MapError(error)) => match failed(names::DEVICES, "cannot write an entry")(error)
            {
                // What the kernel says when it does not find the device.
                FastPathError::Map { source, .. } if source.raw_os_error() == Some(libc::EINVAL) => {
                    Err(FastPathError::NoDevice { ifindex })
                }
                error => Err(error),
            },
            Err(error) => Err(FastPathError::Map {
                map: names::DEVICES,
                what: "cannot write an entry",
                source: io::Error::other(error),
            }),
            Ok(()) => Ok(()),
        }
    }

    fn remove_device(&mut self, ifindex: u32) -> Result<(), FastPathError> {
        absent_is_fine(self.devices.remove(ifindex)).map_err(failed(names::DEVICES, "cannot remove an entry"))
    }
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn failed(map: &'static str, what: &'static str) -> impl FnOnce(MapError) -> FastPathError {
    move |error| {
        let source = match error {
            MapError::SyscallError(error) => error.io_error,
            MapError::IoError(error) => error,
            error => io::Error::other(error),
        };
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                FastPathError::Privileges { what: format!("map {map} {what}"), source }
            }
            _ => FastPathError::Map { map, what, source },
        }
    }
}
