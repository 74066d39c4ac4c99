//! The maps of routes to other hosts. Who writes them is `apply::routes`; this is how.

use super::FastPathError;
use super::batch::BatchMap;
use super::generation::{ForwardingMap, Generations};
use aya::Pod;
use aya::maps::{Map, MapData};
use dataplane_ebpf::abi::{Address, NextHopGroup, Route, names};
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;

/// Destination and prefix length.
pub type Destination = (Ipv6Addr, u8);

/// Key of `ROUTES` (`struct bpf_lpm_trie_key_u8`): length in host byte order, then the address.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct PrefixKey {
    pub length: u32,
    pub address: [u8; 16],
}

// SAFETY: `repr(C)`, without padding, and every bit pattern is a value.
unsafe impl Pod for PrefixKey {}

/// `HOST_ROUTES`, `ROUTES` and `NEXT_HOPS`.
pub struct RouteMaps {
    hosts: ForwardingMap<Address, Route>,
    prefixes: ForwardingMap<PrefixKey, Route>,
    groups: ForwardingMap<u32, NextHopGroup>,
}

impl RouteMaps {
    /// Takes the maps out of a loaded object.
    pub(super) fn open(
        mut take: impl FnMut(&'static str) -> Result<Map, FastPathError>,
        generations: &Generations,
    ) -> Result<Self, FastPathError> {
        Ok(Self {
            hosts: ForwardingMap::open(names::HOST_ROUTES, take(names::HOST_ROUTES)?, generations)?,
            prefixes: ForwardingMap::open(names::ROUTES, take(names::ROUTES)?, generations)?,
            groups: ForwardingMap::open(names::NEXT_HOPS, take(names::NEXT_HOPS)?, generations)?,
        })
    }

    /// Writes routes, each to the map of its kind.
    pub fn set_routes(&self, routes: &[(Destination, Route)]) -> Result<(), FastPathError> {
        let is_host = |entry: &&(Destination, Route)| entry.0.1 == 128;
        let hosts: Vec<_> =
            routes.iter().filter(is_host).map(|((a, _), r)| (Address::from(*a), *r)).collect();
        let prefixes: Vec<_> =
            routes.iter().filter(|entry| !is_host(entry)).map(|(prefix, r)| (key(*prefix), *r)).collect();
        self.hosts.update(&hosts)?;
        self.prefixes.update(&prefixes)
    }

    /// Removes routes; those that are not there are fine.
    pub fn remove_routes(&self, routes: &[Destination]) -> Result<(), FastPathError> {
        let hosts: Vec<_> = routes.iter().filter(|r| r.1 == 128).map(|r| Address::from(r.0)).collect();
        let prefixes: Vec<_> = routes.iter().filter(|r| r.1 != 128).map(|r| key(*r)).collect();
        self.hosts.remove(&hosts)?;
        self.prefixes.remove(&prefixes)
    }

    /// Writes groups of next hops.
    pub fn set_groups(&self, groups: &[(u32, NextHopGroup)]) -> Result<(), FastPathError> {
        self.groups.update(groups)
    }

    /// Removes groups of next hops; those that are not there are fine.
    pub fn remove_groups(&self, groups: &[u32]) -> Result<(), FastPathError> {
        let none: Vec<_> = groups.iter().map(|group| (*group, NextHopGroup::NONE)).collect();
        self.groups.update(&none)
    }

    /// All routes.
    pub fn routes(&self) -> Result<BTreeMap<Destination, Route>, FastPathError> {
        let (hosts, prefixes) = (self.hosts.entries()?, self.prefixes.entries()?);
        let hosts = hosts.into_iter().map(|(address, route)| ((address.octets().into(), 128), route));
        let prefixes = prefixes.into_iter().map(|(key, route)| {
            // The map refuses longer prefixes.
            ((key.address.into(), key.length as u8), route)
        });
        Ok(hosts.chain(prefixes).collect())
    }

    /// All groups of next hops.
    pub fn groups(&self) -> Result<BTreeMap<u32, NextHopGroup>, FastPathError> {
        let groups = self.groups.entries()?;
        Ok(groups.into_iter().filter(|(_, group)| *group != NextHopGroup::NONE).collect())
    }
}

fn key((address, length): Destination) -> PrefixKey {
    PrefixKey { length: u32::from(length), address: address.octets() }
}

/// A map for changes in bulk.
pub(super) fn open<K: Pod, V: Pod>(name: &'static str, map: Map) -> Result<BatchMap<K, V>, FastPathError> {
    let data: MapData = match map {
        Map::HashMap(data) | Map::LpmTrie(data) | Map::Array(data) => data,
        _ => return Err(FastPathError::Incomplete { kind: "map of the right type", name }),
    };
    BatchMap::new(data).map_err(failed(name, "cannot be opened"))
}

/// What was tried on which map, and why it failed.
pub(super) fn failed(map: &'static str, what: &'static str) -> impl FnOnce(io::Error) -> FastPathError {
    move |source| match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            FastPathError::Privileges { what: format!("map {map} {what}"), source }
        }
        _ => FastPathError::Map { map, what, source },
    }
}
