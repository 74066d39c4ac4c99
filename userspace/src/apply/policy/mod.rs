//! Policy in the maps: [`tables`] says what they have to hold, [`update`] what that takes, and this does it.
//!
//! A change is written in an order that may end anywhere: until `GENERATION` is written, what was before counts. A daemon
//! that starts reads what there is, writes all that is wanted as a new generation under numbers that nobody has, and then
//! removes the rest.

mod numbers;
mod tables;
#[cfg(test)]
mod tests;
mod update;

use super::fastpath::grace_period;
use super::fastpath::policy::Table;
use super::fastpath::{FastPathError, PolicyMaps};
use crate::plan::policy::{Chain, Direction, Origin, Policies};
use crate::resource::EndpointName;
use dataplane_ebpf::abi::{ChainPair, step_actions};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tables::{Numbering, Tables, TooMany, Used};
use update::{Garbage, Present, Update};

/// How long programs may run that began before a change, where the kernel does not say when they have ended.
const GRACE: Duration = Duration::from_secs(1);

/// Why policy is not in the maps as it should be. What was before still counts.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A map.
    #[error(transparent)]
    Map(#[from] FastPathError),
    /// Too much for the numbers.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// Too much for a map.
    #[error("policy needs {needed} entries in map {map}, which holds {capacity}: {advice}")]
    Full {
        /// The map.
        map: &'static str,
        /// What it would have to hold, including what is still in use.
        needed: usize,
        /// What it holds.
        capacity: usize,
        /// What to do.
        advice: &'static str,
    },
}

/// What a rule did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// It lets packets pass; else it drops them.
    pub allows: bool,
    /// How many.
    pub packets: u64,
}

/// Policy in the maps.
pub struct PolicyPath {
    maps: PolicyMaps,
    numbering: Numbering,
    present: Present,
    wanted: Tables,
    /// Who is behind which TAP; `None`: what the maps hold is an earlier daemon's.
    attached: Option<BTreeMap<u32, EndpointName>>,
    /// What goes when no program needs it any more, and since when.
    garbage: Option<(Instant, Garbage)>,
    /// What the maps hold is not as it is known: they have to be read again.
    doubtful: bool,
}

impl PolicyPath {
    /// Takes over the maps with all that they hold. Nothing is changed yet.
    pub fn open(maps: PolicyMaps) -> Self {
        Self {
            maps,
            numbering: Numbering::default(),
            present: Present::default(),
            wanted: Tables::default(),
            attached: None,
            garbage: None,
            doubtful: true,
        }
    }

    /// From now on these policies count, for these endpoints behind these TAPs; how many entries that took.
    pub fn set_policies(
        &mut self,
        policies: &Policies,
        attached: &BTreeMap<u32, EndpointName>,
    ) -> Result<usize, PolicyError> {
        self.prepare()?;
        let (tables, fresh) = self.numbering.tables(policies)?;
        for counter in fresh {
            self.maps.reset_counter(counter)?;
        }
        self.change(Some(tables), attached)
    }

    /// From now on these endpoints are behind these TAPs.
    pub fn set_endpoints(&mut self, attached: &BTreeMap<u32, EndpointName>) -> Result<usize, PolicyError> {
        if self.attached.as_ref() == Some(attached) {
            return Ok(0);
        }
        self.prepare()?;
        self.change(None, attached)
    }

    /// Where a step of a chain comes from, by the numbers that events have; and which way the packets go.
    pub fn step(&self, chain: u32, step: u32) -> Option<(Direction, Origin)> {
        let (direction, chain) = self.numbering.chain(chain)?;
        Some((*direction, chain.steps.get(step as usize)?.origin.clone()))
    }

    /// The chains of an endpoint, by number.
    pub fn chains(&self, name: &EndpointName) -> impl Iterator<Item = (u32, (Direction, Chain))> {
        let pair = self.wanted.endpoints.get(name);
        let numbers = pair.into_iter().flat_map(|pair| [pair.ingress, pair.egress]);
        numbers.filter_map(|number| Some((number, self.numbering.chain(number)?.clone())))
    }

    /// How many packets each rule let pass or dropped: first packets of flows, and what is no flow. What only logs or
    /// passes on decides nothing.
    pub fn counted(&self) -> Result<Vec<(Direction, Origin, Counted)>, FastPathError> {
        let steps = self.wanted.steps.values();
        let allows: BTreeMap<u32, bool> = steps
            .filter(|step| matches!(step.action, step_actions::ALLOW | step_actions::DENY))
            .map(|step| (step.counter, step.action == step_actions::ALLOW))
            .collect();
        let deciding =
            self.numbering.counters().filter_map(|(of, number)| Some((of, number, *allows.get(&number)?)));
        deciding
            .map(|((direction, origin), number, allows)| {
                let packets = self.maps.counter(number)?;
                Ok((*direction, origin.clone(), Counted { allows, packets }))
            })
            .collect()
    }

    /// When [`collect`](Self::collect) has something to do.
    pub fn wake(&self) -> Option<Instant> {
        self.garbage.as_ref().map(|(since, _)| *since + GRACE)
    }

    /// Removes what only programs needed that have ended.
    pub fn collect(&mut self, now: Instant) -> Result<(), PolicyError> {
        match self.wake() {
            Some(wake) if wake <= now => self.dispose(),
            _ => Ok(()),
        }
    }

    /// Reads the maps again, and repairs what is not as it was left; the number of entries.
    pub fn verify(&mut self) -> Result<usize, PolicyError> {
        let Some(attached) = self.attached.clone().filter(|_| !self.doubtful) else { return Ok(0) };
        self.finish()?;
        let found = read(&self.maps)?;
        let drift = found.differences(&self.present);
        if drift > 0 {
            self.present = found;
            self.change(None, &attached)?;
        }
        Ok(drift)
    }

    /// Nothing of an earlier change is left in the way of the next.
    fn prepare(&mut self) -> Result<(), PolicyError> {
        if self.doubtful {
            self.present = read(&self.maps)?;
            self.numbering = Numbering::default();
            self.numbering.reserve(&self.present.used());
            self.garbage = None;
        }
        self.finish()
    }

    /// Removes what only programs need that have begun before the last change, as soon as they have ended.
    fn finish(&mut self) -> Result<(), PolicyError> {
        let Some((since, _)) = &self.garbage else { return Ok(()) };
        let left = GRACE.saturating_sub(since.elapsed());
        if !left.is_zero() && grace_period::wait().is_err() {
            std::thread::sleep(left);
        }
        self.dispose()
    }

    fn dispose(&mut self) -> Result<(), PolicyError> {
        let Some((_, garbage)) = self.garbage.take() else { return Ok(()) };
        self.doubtful = true;
        self.maps.policies.remove(&garbage.policies)?;
        self.maps.identities.remove(&garbage.identities)?;
        self.maps.chains.remove(&garbage.chains)?;
        self.maps.peers.remove(&garbage.peers)?;
        self.maps.services.remove(&garbage.services)?;
        self.maps.steps.remove(&garbage.steps)?;
        self.maps.vectors.remove(&garbage.vectors)?;
        self.present.remove(&garbage);
        self.numbering.keep(&self.wanted);
        self.doubtful = false;
        Ok(())
    }

    /// Makes the maps hold `tables`, or what they held before, for the endpoints behind TAPs.
    fn change(
        &mut self,
        tables: Option<Tables>,
        attached: &BTreeMap<u32, EndpointName>,
    ) -> Result<usize, PolicyError> {
        let wanted = tables.as_ref().unwrap_or(&self.wanted);
        let pairs: BTreeMap<u32, ChainPair> = attached
            .iter()
            .filter_map(|(ifindex, name)| Some((*ifindex, *wanted.endpoints.get(name)?)))
            .collect();
        let update = Update::new(&self.present, wanted, &pairs);
        if !update.is_empty() {
            let outcome = self.room_for(&update).and_then(|()| self.write(&update));
            if let Err(error) = outcome {
                self.close_strangers(attached)?;
                return Err(error);
            }
            self.present.write(&update);
            self.garbage = Some((Instant::now(), update.garbage.clone()));
        }
        self.wanted = tables.unwrap_or_else(|| std::mem::take(&mut self.wanted));
        self.attached = Some(attached.clone());
        self.doubtful = false;
        Ok(update.entries())
    }

    /// What was before still counts, but not for whoever is new behind a TAP.
    fn close_strangers(&mut self, attached: &BTreeMap<u32, EndpointName>) -> Result<(), PolicyError> {
        let known = |ifindex: &u32| match &self.attached {
            Some(before) => before.get(ifindex) == attached.get(ifindex),
            None => attached.contains_key(ifindex),
        };
        let found = self.present.policies.keys().chain(attached.keys());
        let strangers: Vec<u32> = found.filter(|ifindex| !known(ifindex)).copied().collect();
        self.maps.policies.remove(&strangers)?;
        self.present.policies.retain(|ifindex, _| !strangers.contains(ifindex));
        Ok(())
    }

    fn write(&mut self, update: &Update) -> Result<(), PolicyError> {
        // Whatever keeps this from its end, the maps hold more than is known.
        self.doubtful = true;
        self.maps.vectors.write(&update.vectors)?;
        self.maps.steps.write(&update.steps)?;
        self.maps.services.write(&update.services)?;
        self.maps.peers.write(&update.peers)?;
        self.maps.chains.write(&update.chains)?;
        self.maps.identities.write(&update.identities)?;
        self.maps.policies.write(&update.policies)?;
        Ok(self.maps.set_generation(update.generation)?)
    }

    /// Whether the maps have room for what is there and what comes to it.
    fn room_for(&self, update: &Update) -> Result<(), PolicyError> {
        const SIMPLER: &str = "use fewer different selectors, or fewer rules";
        const LIMIT: &str = "raise `endpoints` in `[limits]` and restart";
        room(&self.maps.policies, &self.present.policies, &update.policies, LIMIT)?;
        room(&self.maps.chains, &self.present.chains, &update.chains, LIMIT)?;
        room(&self.maps.identities, &self.present.identities, &update.identities, SIMPLER)?;
        room(&self.maps.peers, &self.present.peers, &update.peers, SIMPLER)?;
        room(&self.maps.services, &self.present.services, &update.services, SIMPLER)?;
        room(&self.maps.steps, &self.present.steps, &update.steps, SIMPLER)?;
        room(&self.maps.vectors, &self.present.vectors, &update.vectors, SIMPLER)
    }
}

fn room<K: Ord, V>(
    table: &impl Table<K, V>,
    present: &BTreeMap<K, V>,
    new: &[(K, V)],
    advice: &'static str,
) -> Result<(), PolicyError> {
    let new: Vec<&K> = new.iter().map(|(key, _)| key).filter(|key| !present.contains_key(key)).collect();
    if new.is_empty() {
        return Ok(());
    }
    let needed = present.len() + new.len();
    match table.too_small(present.keys().chain(new)) {
        Some((map, capacity)) => Err(PolicyError::Full { map, needed, capacity, advice }),
        None => Ok(()),
    }
}

fn read(maps: &PolicyMaps) -> Result<Present, FastPathError> {
    Ok(Present {
        generation: maps.generation()?,
        identities: maps.identities.read()?,
        policies: maps.policies.read()?,
        chains: maps.chains.read()?,
        peers: maps.peers.read()?,
        services: maps.services.read()?,
        steps: maps.steps.read()?,
        vectors: maps.vectors.read()?,
    })
}

impl Present {
    /// The numbers in use.
    fn used(&self) -> Used {
        let identities = self.identities.values().flat_map(|identity| [identity.before, identity.after]);
        let pairs = self.policies.values().flat_map(|policy| [policy.before, policy.after]);
        let chains = self.chains.keys().copied();
        let tables = self.peers.keys().map(|key| key.table / 2);
        let services = self.services.keys().map(|(key, _)| key.chain());
        Used {
            identities: identities.chain(self.peers.keys().map(|key| key.identity)).collect(),
            chains: chains
                .chain(pairs.flat_map(|pair| [pair.ingress, pair.egress]))
                .chain(tables)
                .chain(services)
                .chain(self.steps.keys().map(|key| key.chain))
                .collect(),
            vectors: self.vectors.keys().copied().collect(),
        }
    }

    /// How many entries are not the same in both.
    fn differences(&self, other: &Self) -> usize {
        usize::from(self.generation != other.generation)
            + differences(&self.identities, &other.identities)
            + differences(&self.policies, &other.policies)
            + differences(&self.chains, &other.chains)
            + differences(&self.peers, &other.peers)
            + differences(&self.services, &other.services)
            + differences(&self.steps, &other.steps)
            + differences(&self.vectors, &other.vectors)
    }
}

fn differences<K: Ord, V: PartialEq>(one: &BTreeMap<K, V>, other: &BTreeMap<K, V>) -> usize {
    let changed = one.iter().filter(|(key, value)| other.get(key) != Some(value)).count();
    changed + other.keys().filter(|key| !one.contains_key(key)).count()
}
