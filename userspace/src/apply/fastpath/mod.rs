//! The fast path: BPF programs on TAPs, the maps they read, and the pins that keep both alive without us.
//!
//! | file | what it holds |
//! |---|---|
//! | `entries` | what the maps hold for an endpoint, pure |
//! | `slots` | which counter belongs to whom, pure |
//! | `maps` | the maps, written by difference and in a safe order |
//! | `generation` | the generation of policy and the epoch of forwarding |
//! | `loader` | the BPF object: load, adopt pinned maps |
//! | `programs` | the programs, and which of them an interface has |
//! | `globals` | what the programs are told for good |
//! | `trace` | what the programs themselves log |
//! | `hooks` | which programs are attached where |
//! | `site` | one interface: attach or adopt |
//! | `link`, `tc` | the two kernel interfaces for that: BPF links, clsact by rtnetlink |
//! | `pins` | the directory on the BPF file system |
//! | `uplinks` | the interfaces towards other hosts |
//! | `routes`, `batch` | the maps of routes, written in bulk by `apply::routes` |
//! | `grace_period` | grace periods of RCU, and how to keep them short |
//! | `events` | what the hooks tell of packets |
//! | `policy` | the maps of policy, written in bulk by `apply::policy` |
//! | `flows` | what is remembered of an endpoint's flows |
//! | `rehearsal` | what the programs would do with a frame |
//! | `syscall` | the bpf system call, for what aya does not offer |
//!
//! Everything here is blocking and acts in the network namespace of the calling thread. Attaching tcx waits for a
//! grace period of the kernel (some 20 ms an interface), so call [`FastPath::apply`] off the async threads.

mod batch;
mod entries;
mod error;
mod events;
mod flows;
mod generation;
mod globals;
pub(super) mod grace_period;
mod hooks;
mod link;
mod loader;
mod maps;
mod pins;
pub mod policy;
mod preview;
mod programs;
mod rehearsal;
mod routes;
mod site;
mod slots;
mod syscall;
mod tc;
mod trace;
mod uplinks;

pub use crate::config::{TcMode, UplinkMode};
pub use entries::in_memory;
pub use error::FastPathError;
pub use events::{EventMaps, EventSwitch};
pub use globals::tick;
pub use loader::{NEXT_HOP_GROUPS, RULE_COUNTERS, embedded};
pub use policy::PolicyMaps;
pub use preview::Preview;
pub use rehearsal::{Act, Entrance, Rehearsal, Rehearsed};
pub use routes::{Destination, RouteMaps};

use crate::plan::Attached;
use dataplane_ebpf::abi::{Address, Counters, Mac, Rate, SLOT_UNCONFIGURED, names};
use entries::Entries;
use flows::FlowMaps;
use globals::Globals;
use hooks::Hooks;
use loader::Request;
use maps::{Maps, NoRoom};
use pins::{Pins, Role};
use serde::{Deserialize, Serialize};
use slots::Slots;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// What the host configuration says about the fast path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Directory on a BPF file system for links and maps.
    pub pin: PathBuf,
    /// Most endpoints at a time: the size of the maps.
    pub max_endpoints: u32,
    /// Which kind of TC hook.
    pub tc: TcMode,
    /// Attach XDP. Without it TC does all the work.
    pub xdp: bool,
    /// Most routes at a time: the size of the maps.
    pub max_routes: u32,
    /// Which hooks uplinks get.
    pub uplink: UplinkMode,
    /// Policy counts, and what it says is in the maps.
    pub policed: bool,
    /// VMs may talk to the host as far as their own policy allows.
    pub host_is_open: bool,
    /// What the host itself sends to VMs is judged by their own policy.
    pub host_is_judged: bool,
    /// Most entries of flows: the size of the maps.
    pub max_flows: u32,
    /// Most flows of an endpoint.
    pub flows_per_endpoint: u32,
    /// Solicitations of an endpoint that are answered.
    pub answer_rate: Rate,
    /// Packets of an endpoint that are handed to the host itself.
    pub host_rate: Rate,
}

/// How XDP is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpHook {
    /// In the driver.
    Native,
    /// On the skb: the driver has no XDP.
    Generic,
    /// Not at all.
    Off,
}

/// How TC is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TcHook {
    /// By tcx links.
    Tcx,
    /// By filters on clsact.
    Clsact,
    /// Not at all.
    Off,
}

impl fmt::Display for XdpHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Off => "off",
        })
    }
}

impl fmt::Display for TcHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::Off => "off",
        })
    }
}

/// What is attached to an endpoint's TAP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookReport {
    /// XDP.
    pub xdp: XdpHook,
    /// TC, both directions.
    pub tc: TcHook,
    /// Why a hook is off.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// The fast path of this host. Dropping it leaves everything as it is: links and maps are pinned.
pub struct FastPath {
    pins: Pins,
    globals: Globals,
    limit: u32,
    maps: Maps,
    hooks: Hooks,
    slots: Slots,
    flows: FlowMaps,
    /// Until somebody takes them.
    routes: Option<RouteMaps>,
    events: Option<EventMaps>,
    policy: Option<PolicyMaps>,
    /// The uplinks as applied since the start.
    uplinks: Option<BTreeMap<u32, Mac>>,
    /// What was applied since the start, by ifindex.
    applied: BTreeMap<u32, Entries>,
    /// Interfaces to keep that have not been applied yet: their links may still be those of an older generation.
    awaited: BTreeSet<u32>,
    /// There may be gateways that nobody has any more: an earlier process left some, or an endpoint has given one up.
    stale_gateways: bool,
}

impl FastPath {
    /// Loads the programs and adopts the maps that an earlier process left. Nothing is attached or changed yet: the
    /// earlier programs go on until [`apply`](Self::apply) replaces them, interface by interface.
    pub fn open(settings: &Settings) -> Result<Self, FastPathError> {
        if !embedded() {
            return Err(FastPathError::NoObject);
        }
        let limit = settings.max_endpoints.max(1);
        let pins = Pins::open(&settings.pin)?;
        let routes = settings.max_routes.max(1);
        let request = Request {
            pins: Some(&pins),
            limit,
            routes,
            flows: settings.max_flows.max(1),
            policed: settings.policed,
            host_is_open: settings.host_is_open,
            host_is_judged: settings.host_is_judged,
            pass_unconfigured: false,
            answer_rate: settings.answer_rate,
            host_rate: settings.host_rate,
        };
        let globals = Globals::new(&request);
        let loader::Loaded { programs, maps, routes, events, policy, mut flows } = loader::load(&request)?;
        flows.set_places(settings.flows_per_endpoint);
        let slots = Slots::recover(limit, maps.endpoints.content().iter().map(|(i, e)| (*i, e.slot)));
        let hooks = Hooks::new(programs, settings.tc, settings.xdp, settings.uplink);
        Ok(Self {
            globals,
            pins,
            limit,
            maps,
            hooks,
            slots,
            flows,
            routes: Some(routes),
            events: Some(events),
            policy: settings.policed.then_some(policy),
            uplinks: None,
            applied: BTreeMap::new(),
            awaited: BTreeSet::new(),
            stale_gateways: true,
        })
    }

    /// The maps of policy, for whoever writes them; once, and only if policy counts.
    pub fn take_policy(&mut self) -> Option<PolicyMaps> {
        self.policy.take()
    }

    /// Gives an endpoint the fast path, or brings it up to date: first the maps, then the hooks. On an error the
    /// endpoint has what it had before, or nothing if it is new.
    pub fn apply(&mut self, attached: &Attached, advertisement: &[u8]) -> Result<HookReport, FastPathError> {
        let ifindex = attached.ifindex;
        if self.hooks.is_replaced(ifindex, Role::Tap, &self.pins)? {
            // Another device with the same ifindex: what is counted was the old one's.
            self.remove(ifindex)?;
        }
        let before = self.maps.entries(ifindex);
        match (self.write(attached, advertisement), before) {
            (Ok(entries), _) => {
                let before = self.applied.get(&ifindex);
                self.stale_gateways |= before.is_some_and(|was| !was.gateways.is_subset(&entries.gateways));
                self.applied.insert(ifindex, entries);
                self.sweep_gateways()?;
                let report = self.hooks.attach(ifindex, Role::Tap, Some(&self.pins));
                self.arrived(ifindex)?;
                Ok(report)
            }
            (Err(error), Some(before)) => {
                self.stale_gateways = true;
                self.maps.write(ifindex, &before)?;
                Err(error)
            }
            (Err(error), None) => {
                self.remove(ifindex)?;
                Err(error)
            }
        }
    }

    /// Has XDP rest on the TAP of an endpoint, or puts it back, and says what is attached then; `None` when there is no such
    /// endpoint. Meanwhile TC does everything, and no frame goes without one of them.
    pub fn rest(&mut self, ifindex: u32, rests: bool) -> Option<HookReport> {
        self.has(ifindex).then(|| {
            self.hooks.rest(ifindex, rests);
            self.hooks.attach(ifindex, Role::Tap, Some(&self.pins))
        })
    }

    /// Whether an endpoint has what was last applied to it without an error.
    pub fn has(&self, ifindex: u32) -> bool {
        self.applied.contains_key(&ifindex)
    }

    /// Takes the fast path from an interface and removes all that belonged to it, also when the device is gone.
    pub fn remove(&mut self, ifindex: u32) -> Result<(), FastPathError> {
        self.maps.endpoints.remove(&ifindex)?;
        self.hooks.detach(ifindex, Role::Tap, Some(&self.pins))?;
        self.maps.clear(ifindex)?;
        if let Some(slot) = self.slots.release(ifindex) {
            self.flows.forget(slot)?;
            self.maps.reset_counters(slot)?;
        }
        self.applied.remove(&ifindex);
        self.stale_gateways = true;
        self.sweep_gateways()?;
        self.arrived(ifindex)
    }

    /// Removes everything that an earlier process left and that is not in `keep`; the interfaces removed. Call it at
    /// the start, before [`apply`](Self::apply) needs the room. Older generations of pins go when all of `keep` have
    /// been applied.
    pub fn retain(&mut self, keep: &BTreeSet<u32>) -> Result<BTreeSet<u32>, FastPathError> {
        let mut gone = self.maps.interfaces()?;
        gone.extend(self.pins.interfaces(Role::Tap)?);
        gone.extend(self.applied.keys());
        gone.retain(|ifindex| !keep.contains(ifindex));
        for ifindex in &gone {
            self.remove(*ifindex)?;
        }
        self.awaited = keep.iter().copied().filter(|ifindex| !self.applied.contains_key(ifindex)).collect();
        if self.awaited.is_empty() {
            self.pins.remove_older()?;
        }
        Ok(gone)
    }

    /// Reads maps and links again and repairs what is not as it was applied; the number of things repaired. Call it
    /// after [`retain`](Self::retain): entries of interfaces that are neither applied nor to be kept are removed.
    pub fn verify(&mut self) -> Result<usize, FastPathError> {
        let mut drift = self.maps.reload()?;
        for (ifindex, entries) in &self.applied {
            let missing = entries.reachable && !self.maps.has_device(*ifindex);
            drift += usize::from(missing) + self.hooks.lost(*ifindex, Role::Tap);
            drift += usize::from(self.flows.admit(entries.endpoint.slot)?);
            self.maps.write(*ifindex, entries)?;
            self.hooks.attach(*ifindex, Role::Tap, Some(&self.pins));
        }
        // Before strangers are looked for: an uplink without its mark would be one.
        drift += self.verify_uplinks()?;
        let mut strangers = self.maps.interfaces()?;
        strangers.retain(|ifindex| !self.applied.contains_key(ifindex) && !self.awaited.contains(ifindex));
        for ifindex in strangers {
            self.remove(ifindex)?;
        }
        self.stale_gateways = true;
        self.sweep_gateways()?;
        Ok(drift)
    }

    /// Counters of an interface; `None` when it has no endpoint.
    pub fn counters(&self, ifindex: u32) -> Result<Option<Counters>, FastPathError> {
        self.slots.get(ifindex).map(|slot| self.maps.counters(slot)).transpose()
    }

    /// Flows of an endpoint that could not be remembered because its share was used up.
    pub fn flow_pressure(&self, ifindex: u32) -> Result<Option<u64>, FastPathError> {
        self.slots.get(ifindex).map(|slot| self.flows.pressure(slot)).transpose()
    }

    /// Counters of frames on interfaces without an endpoint.
    pub fn counters_unconfigured(&self) -> Result<Counters, FastPathError> {
        self.maps.counters(SLOT_UNCONFIGURED)
    }

    /// Takes the fast path off: links, filters, pins and maps. The number of interfaces that had it. The kernel
    /// forwards alone from here on.
    pub fn detach(self) -> Result<usize, FastPathError> {
        take_off_all(self.pins)
    }

    fn write(&mut self, attached: &Attached, advertisement: &[u8]) -> Result<Entries, FastPathError> {
        let ifindex = attached.ifindex;
        let full = |map, capacity, limit| FastPathError::Full {
            interface: attached.interface.to_string(),
            map,
            capacity,
            limit,
        };
        let slot = match self.slots.get(ifindex) {
            Some(slot) => slot,
            None => {
                let slot = self.slots.take(ifindex);
                let slot = slot.ok_or_else(|| full(names::ENDPOINTS, self.limit, self.limit))?;
                self.maps.reset_counters(slot)?;
                self.flows.forget(slot)?;
                slot
            }
        };
        self.flows.admit(slot)?;
        let entries = Entries::new(attached, slot, advertisement)?;
        self.maps
            .room_for(ifindex, &entries)
            .map_err(|NoRoom { capacity }| full(names::ADDRESSES, capacity, self.limit))?;
        match self.maps.write(ifindex, &entries) {
            // Entries of interfaces that are gone may fill a map until `retain`.
            Err(FastPathError::Map { map, source, .. })
                if matches!(source.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC)) =>
            {
                Err(full(map, self.limit, self.limit))
            }
            other => other.map(|()| entries),
        }
    }

    /// An awaited interface has been applied or removed; nothing of an older generation is in use after the last one.
    fn arrived(&mut self, ifindex: u32) -> Result<(), FastPathError> {
        if self.awaited.remove(&ifindex) && self.awaited.is_empty() {
            self.pins.remove_older()
        } else {
            Ok(())
        }
    }

    /// Gateways are shared, so they go when nobody has them any more; not before all endpoints that an earlier process
    /// left have been applied or removed.
    fn sweep_gateways(&mut self) -> Result<(), FastPathError> {
        if !self.stale_gateways
            || !self.maps.endpoints.content().keys().all(|ifindex| self.applied.contains_key(ifindex))
        {
            return Ok(());
        }
        let wanted: BTreeSet<Address> =
            self.applied.values().flat_map(|entries| entries.gateways.iter().copied()).collect();
        self.maps.sweep_gateways(&wanted)?;
        self.stale_gateways = false;
        Ok(())
    }
}

/// Takes the fast path off when no daemon runs: by its pins alone. The number of interfaces that had it.
pub fn detach_pinned(pin: &Path) -> Result<usize, FastPathError> {
    Pins::open_existing(pin)?.map_or(Ok(0), take_off_all)
}

fn take_off_all(pins: Pins) -> Result<usize, FastPathError> {
    let mut count = 0;
    for ifindex in pins.interfaces(Role::Tap)? {
        count += usize::from(hooks::take_off(ifindex, Role::Tap, &pins)?);
    }
    for ifindex in pins.interfaces(Role::Uplink)? {
        hooks::take_off(ifindex, Role::Uplink, &pins)?;
    }
    pins.remove_all()?;
    Ok(count)
}
