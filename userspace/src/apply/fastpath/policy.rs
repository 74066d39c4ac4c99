//! The maps of policy. Who writes them is `apply::policy`; this is how.

use super::FastPathError;
use super::batch::BatchMap;
use super::generation::Generations;
use super::routes::{PrefixKey, failed, open};
use aya::Pod;
use aya::maps::{Map, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use dataplane_ebpf::abi::{
    Address, Chain, EndpointPolicy, Identity, PeerKey, ServiceKey, Step, StepKey, Steps, Vector, names,
};
use ipnet::Ipv6Net;
use std::collections::BTreeMap;
use std::io;

/// Key of `SERVICES` (`struct bpf_lpm_trie_key_u8`): length in host byte order, then the rest.
#[repr(C)]
#[derive(Clone, Copy)]
struct ServicePrefix {
    length: u32,
    key: [u8; 8],
}

// SAFETY: `repr(C)`, without padding, and every bit pattern is a value.
unsafe impl Pod for ServicePrefix {}

/// A service and the length of its prefix in bits.
pub type Service = (ServiceKey, u32);

/// The maps of policy.
pub struct PolicyMaps {
    generations: Generations,
    /// Chains by endpoint.
    pub policies: Entries<u32, EndpointPolicy>,
    /// Chains by number.
    pub chains: Entries<u32, Chain>,
    /// Steps by identity.
    pub peers: Entries<PeerKey, Steps>,
    /// Words of vectors.
    pub vectors: Entries<u32, Vector>,
    /// Steps.
    pub steps: Entries<StepKey, Step>,
    /// Steps by protocol and port.
    pub services: Services,
    /// Who is who.
    pub identities: Identities,
    counters: PerCpuArray<aya::maps::MapData, u64>,
}

/// What all maps of policy have in common.
pub trait Table<K, V> {
    /// All that it holds.
    fn read(&self) -> Result<BTreeMap<K, V>, FastPathError>;

    /// Writes entries.
    fn write(&self, entries: &[(K, V)]) -> Result<(), FastPathError>;

    /// Removes entries; those that are not there are fine.
    fn remove(&self, keys: &[K]) -> Result<(), FastPathError>;

    /// The name and size of the map that would be too small for these keys.
    fn too_small<'a>(&self, keys: impl Iterator<Item = &'a K>) -> Option<(&'static str, usize)>
    where
        K: 'a;
}

/// A map whose keys are what is looked up.
pub struct Entries<K, V> {
    name: &'static str,
    map: BatchMap<K, V>,
    capacity: usize,
}

impl<K: Pod + Ord, V: Pod> Entries<K, V> {
    fn open(
        name: &'static str,
        take: &mut impl FnMut(&'static str) -> Result<Map, FastPathError>,
    ) -> Result<Self, FastPathError> {
        let map = open(name, take(name)?)?;
        let capacity = BatchMap::capacity(&map).map_err(failed(name, "cannot be read"))?;
        Ok(Self { name, map, capacity })
    }
}

impl<K: Pod + Ord, V: Pod> Table<K, V> for Entries<K, V> {
    fn read(&self) -> Result<BTreeMap<K, V>, FastPathError> {
        let entries = self.map.entries().map_err(failed(self.name, "cannot be read"))?;
        Ok(entries.into_iter().collect())
    }

    fn write(&self, entries: &[(K, V)]) -> Result<(), FastPathError> {
        self.map.update(entries).map_err(failed(self.name, "cannot write entries"))
    }

    fn remove(&self, keys: &[K]) -> Result<(), FastPathError> {
        self.map.remove(keys).map_err(failed(self.name, "cannot remove entries"))
    }

    fn too_small<'a>(&self, keys: impl Iterator<Item = &'a K>) -> Option<(&'static str, usize)>
    where
        K: 'a,
    {
        (keys.count() > self.capacity).then_some((self.name, self.capacity))
    }
}

/// `SERVICES`.
pub struct Services(Entries<ServicePrefix, Steps>);

impl PartialEq for ServicePrefix {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ServicePrefix {}

impl PartialOrd for ServicePrefix {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ServicePrefix {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.key, self.length).cmp(&(other.key, other.length))
    }
}

impl Table<Service, Steps> for Services {
    fn read(&self) -> Result<BTreeMap<Service, Steps>, FastPathError> {
        let entries = self.0.read()?;
        Ok(entries
            .into_iter()
            .map(|(prefix, steps)| ((ServiceKey(prefix.key), prefix.length), steps))
            .collect())
    }

    fn write(&self, entries: &[(Service, Steps)]) -> Result<(), FastPathError> {
        let entries: Vec<_> =
            entries.iter().map(|(service, steps)| (service_prefix(service), *steps)).collect();
        self.0.write(&entries)
    }

    fn remove(&self, keys: &[Service]) -> Result<(), FastPathError> {
        self.0.remove(&keys.iter().map(service_prefix).collect::<Vec<_>>())
    }

    fn too_small<'a>(&self, keys: impl Iterator<Item = &'a Service>) -> Option<(&'static str, usize)> {
        (keys.count() > self.0.capacity).then_some((self.0.name, self.0.capacity))
    }
}

fn service_prefix((key, length): &Service) -> ServicePrefix {
    ServicePrefix { length: *length, key: key.0 }
}

/// `HOST_IDENTITIES` for addresses, and `IDENTITIES` for shorter prefixes.
pub struct Identities {
    hosts: Entries<Address, Identity>,
    prefixes: BatchMap<PrefixKey, Identity>,
    capacity: usize,
}

impl Table<Ipv6Net, Identity> for Identities {
    fn read(&self) -> Result<BTreeMap<Ipv6Net, Identity>, FastPathError> {
        let hosts = self.hosts.read()?;
        let prefixes = self.prefixes.entries().map_err(failed(names::IDENTITIES, "cannot be read"))?;
        let hosts = hosts
            .into_iter()
            .map(|(address, identity)| (Ipv6Net::from(std::net::Ipv6Addr::from(address.octets())), identity));
        // The map refuses longer prefixes.
        let prefixes = prefixes.into_iter().filter_map(|(key, identity)| {
            let length = u8::try_from(key.length).ok()?;
            Some((Ipv6Net::new(key.address.into(), length).ok()?, identity))
        });
        Ok(hosts.chain(prefixes).collect())
    }

    fn write(&self, entries: &[(Ipv6Net, Identity)]) -> Result<(), FastPathError> {
        let (hosts, prefixes): (Vec<_>, Vec<_>) = entries.iter().partition(|(net, _)| is_host(net));
        let hosts: Vec<_> = hosts.iter().map(|(net, identity)| (net.addr().into(), *identity)).collect();
        let prefixes: Vec<_> = prefixes.iter().map(|(net, identity)| (prefix(net), *identity)).collect();
        self.hosts.write(&hosts)?;
        self.prefixes.update(&prefixes).map_err(failed(names::IDENTITIES, "cannot write entries"))
    }

    fn remove(&self, keys: &[Ipv6Net]) -> Result<(), FastPathError> {
        let (hosts, prefixes): (Vec<&Ipv6Net>, Vec<_>) = keys.iter().partition(|net| is_host(net));
        self.hosts.remove(&hosts.iter().map(|net| net.addr().into()).collect::<Vec<_>>())?;
        let prefixes: Vec<_> = prefixes.into_iter().map(prefix).collect();
        self.prefixes.remove(&prefixes).map_err(failed(names::IDENTITIES, "cannot remove entries"))
    }

    fn too_small<'a>(&self, keys: impl Iterator<Item = &'a Ipv6Net>) -> Option<(&'static str, usize)> {
        let (hosts, prefixes): (Vec<&Ipv6Net>, Vec<_>) = keys.partition(|net| is_host(net));
        if hosts.len() > self.hosts.capacity {
            Some((names::HOST_IDENTITIES, self.hosts.capacity))
        } else {
            (prefixes.len() > self.capacity).then_some((names::IDENTITIES, self.capacity))
        }
    }
}

fn is_host(net: &Ipv6Net) -> bool {
    net.prefix_len() == 128
}

fn prefix(net: &Ipv6Net) -> PrefixKey {
    PrefixKey { length: u32::from(net.prefix_len()), address: net.addr().octets() }
}

impl PolicyMaps {
    /// Takes the maps out of a loaded object.
    pub(super) fn open(
        mut take: impl FnMut(&'static str) -> Result<Map, FastPathError>,
        generations: Generations,
    ) -> Result<Self, FastPathError> {
        let take = &mut take;
        let prefixes = open(names::IDENTITIES, take(names::IDENTITIES)?)?;
        let capacity = BatchMap::capacity(&prefixes).map_err(failed(names::IDENTITIES, "cannot be read"))?;
        let counters = take(names::RULE_COUNTERS)?.try_into();
        Ok(Self {
            generations,
            policies: Entries::open(names::POLICIES, take)?,
            chains: Entries::open(names::CHAINS, take)?,
            peers: Entries::open(names::PEERS, take)?,
            vectors: Entries::open(names::VECTORS, take)?,
            steps: Entries::open(names::STEPS, take)?,
            services: Services(Entries::open(names::SERVICES, take)?),
            identities: Identities {
                hosts: Entries::open(names::HOST_IDENTITIES, take)?,
                prefixes,
                capacity,
            },
            counters: counters
                .map_err(io::Error::other)
                .map_err(failed(names::RULE_COUNTERS, "unexpected type"))?,
        })
    }

    /// The generation that counts.
    pub fn generation(&self) -> Result<u64, FastPathError> {
        self.generations.policy()
    }

    /// From now on this generation counts.
    pub fn set_generation(&self, generation: u64) -> Result<(), FastPathError> {
        self.generations.set_policy(generation)
    }

    /// What is counted, by all CPUs.
    pub fn counter(&self, counter: u32) -> Result<u64, FastPathError> {
        let values = self.counters.get(&counter, 0).map_err(io::Error::other);
        let values = values.map_err(failed(names::RULE_COUNTERS, "cannot be read"))?;
        Ok(values.iter().sum())
    }

    /// Begins to count from 0.
    pub fn reset_counter(&mut self, counter: u32) -> Result<(), FastPathError> {
        let cpus = nr_cpus().map_err(|(_, error)| error);
        let zero = cpus.and_then(|cpus| PerCpuValues::try_from(vec![0; cpus]));
        zero.and_then(|zero| self.counters.set(counter, zero, 0).map_err(io::Error::other))
            .map_err(failed(names::RULE_COUNTERS, "cannot be reset"))
    }
}
