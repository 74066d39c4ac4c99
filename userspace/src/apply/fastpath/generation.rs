//! What every packet reads first: the generation of policy, and the epoch of forwarding. Flows remember their way in an
//! epoch; whatever changes a map that ways are found in raises it afterwards, so that no way outlives the change.

use super::FastPathError;
use super::batch::BatchMap;
use super::routes::{failed, open};
use aya::Pod;
use aya::maps::Map;
use dataplane_ebpf::abi::{EPOCH_OF_FORWARDING, GENERATION_OF_POLICY, names};
use std::sync::{Arc, Mutex, PoisonError};

/// `GENERATION`, for all who write it.
#[derive(Clone)]
pub struct Generations(Arc<Mutex<BatchMap<u32, u64>>>);

impl Generations {
    /// Takes over the map. What an earlier process left in the maps may be newer than its last epoch.
    pub fn open(map: Map) -> Result<Self, FastPathError> {
        let generations = Self(Arc::new(Mutex::new(open(names::GENERATION, map)?)));
        generations.raise_epoch()?;
        Ok(generations)
    }

    /// The generation of policy that counts.
    pub fn policy(&self) -> Result<u64, FastPathError> {
        self.with(|map| read(map, GENERATION_OF_POLICY))
    }

    /// From now on this generation of policy counts.
    pub fn set_policy(&self, generation: u64) -> Result<(), FastPathError> {
        self.with(|map| write(map, GENERATION_OF_POLICY, generation))
    }

    /// No way that was found before counts from now on.
    fn raise_epoch(&self) -> Result<(), FastPathError> {
        self.with(|map| {
            let next = read(map, EPOCH_OF_FORWARDING)?.wrapping_add(1);
            write(map, EPOCH_OF_FORWARDING, next)
        })
    }

    fn with<R>(&self, act: impl FnOnce(&BatchMap<u32, u64>) -> R) -> R {
        // Whoever panicked has written one number, or has not.
        act(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read(map: &BatchMap<u32, u64>, key: u32) -> Result<u64, FastPathError> {
    map.get(&key).map(Option::unwrap_or_default).map_err(failed(names::GENERATION, "cannot be read"))
}

fn write(map: &BatchMap<u32, u64>, key: u32, value: u64) -> Result<(), FastPathError> {
    map.update(&[(key, value)]).map_err(failed(names::GENERATION, "cannot be written"))
}

/// A change of maps that ways are found in: the epoch is raised when it has been made, and also when it has been made only
/// in part.
pub fn forwarding(
    generations: &Generations,
    change: impl FnOnce() -> Result<(), FastPathError>,
) -> Result<(), FastPathError> {
    let changed = change();
    let raised = generations.raise_epoch();
    changed.and(raised)
}

/// A map that ways are found in, for changes in bulk.
pub struct ForwardingMap<K, V> {
    name: &'static str,
    map: BatchMap<K, V>,
    generations: Generations,
}

impl<K: Pod, V: Pod> ForwardingMap<K, V> {
    /// Takes over `map`.
    pub fn open(name: &'static str, map: Map, generations: &Generations) -> Result<Self, FastPathError> {
        Ok(Self { name, map: open(name, map)?, generations: generations.clone() })
    }

    /// Writes entries, whether they are there already or not.
    pub fn update(&self, entries: &[(K, V)]) -> Result<(), FastPathError> {
        if entries.is_empty() {
            return Ok(());
        }
        let update = || self.map.update(entries).map_err(failed(self.name, "cannot write entries"));
        forwarding(&self.generations, update)
    }

    /// Removes entries; those that are not there are fine.
    pub fn remove(&self, keys: &[K]) -> Result<(), FastPathError> {
        if keys.is_empty() {
            return Ok(());
        }
        let remove = || self.map.remove(keys).map_err(failed(self.name, "cannot remove entries"));
        forwarding(&self.generations, remove)
    }

    /// All entries.
    pub fn entries(&self) -> Result<Vec<(K, V)>, FastPathError> {
        self.map.entries().map_err(failed(self.name, "cannot be read"))
    }
}
