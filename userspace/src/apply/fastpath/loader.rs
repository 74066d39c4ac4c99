//! Loads the BPF object into the kernel: its programs, and maps that are new or adopted from pins.

use super::FastPathError;
use super::events::EventMaps;
use super::flows::FlowMaps;
use super::generation::Generations;
use super::globals::Globals;
use super::maps::Maps;
use super::pins::Pins;
use super::policy::PolicyMaps;
use super::programs::Programs;
use super::routes::RouteMaps;
use super::trace;
use aya::maps::{Map, MapData, MapError, MapInfo, MapType};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfError};
use dataplane_ebpf::abi::{
    Address, Advertisement, Chain, Counters, Endpoint, EndpointPolicy, Flow, FlowKey, FlowQuota, Identity,
    NextHopGroup, Owner, PeerKey, Rate, RingPlace, Route, ServiceKey, Step, StepKey, Steps, Uplink, Vector,
    names,
};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/serval-hooks.o"));

/// Addresses an endpoint has on average: its own, allowed pairs, and some gateways.
const ADDRESSES_PER_ENDPOINT: u32 = 4;
/// Room for gateway addresses even with few endpoints.
const SPARE_ADDRESSES: u32 = 64;
/// Most uplinks.
const UPLINKS: u32 = 64;
/// Most different sets of next hops. A route by one more is the kernel's.
pub const NEXT_HOP_GROUPS: u32 = 16_384;
/// Length of a prefix, before its address.
const PREFIX_KEY: usize = size_of::<u32>() + size_of::<Address>();
/// The same before a protocol and port.
const SERVICE_KEY: usize = size_of::<u32>() + size_of::<ServiceKey>();
/// Chains an endpoint has: two in force, and two that are about to be.
const CHAINS_PER_ENDPOINT: u32 = 4;
/// Most entries of every other map of policy. The memory is taken as it is used.
const POLICY_ENTRIES: u32 = 1 << 20;
/// Most rules that are counted each for itself.
pub const RULE_COUNTERS: u32 = 1 << 14;

/// Whether this binary carries the BPF programs.
pub fn embedded() -> bool {
    !OBJECT.is_empty()
}

/// All that is in the object.
pub struct Loaded {
    /// The programs.
    pub programs: Programs,
    /// The maps of endpoints and uplinks.
    pub maps: Maps,
    /// The maps of routes to other hosts.
    pub routes: RouteMaps,
    /// The maps of events.
    pub events: EventMaps,
    /// The maps of policy.
    pub policy: PolicyMaps,
    /// The maps of flows.
    pub flows: FlowMaps,
}

/// How to load the object.
pub struct Request<'a> {
    /// Where maps are pinned; `None` keeps them to this process.
    pub pins: Option<&'a Pins>,
    /// Most endpoints at a time.
    pub limit: u32,
    /// Most routes at a time.
    pub routes: u32,
    /// Most entries of flows at a time.
    pub flows: u32,
    /// Policy counts.
    pub policed: bool,
    /// VMs may talk to the host as far as their own policy allows.
    pub host_is_open: bool,
    /// What the host itself sends to VMs is judged by their own policy.
    pub host_is_judged: bool,
    /// Let frames of an interface without an endpoint pass.
    pub pass_unconfigured: bool,
    /// Solicitations of an endpoint that are answered.
    pub answer_rate: Rate,
    /// Packets of an endpoint that are handed to the host itself.
    pub host_rate: Rate,
}

/// Loads programs and maps.
pub fn load(request: &Request<'_>) -> Result<Loaded, FastPathError> {
    if !embedded() {
        return Err(FastPathError::NoObject);
    }
    raise_memory_lock()?;
    let definitions = definitions(request.limit, request.routes, request.flows);
    if let Some(pins) = request.pins {
        if !definitions.iter().all(|definition| definition.fits_pin(pins)) {
            tracing::info!("the pinned maps are of another size or version; they are replaced");
            pins.retire()?;
        }
        pins.prepare()?;
    }

    let globals = Globals::new(request);
    let mut loader = globals.loader();
    for definition in &definitions {
        loader.map_max_entries(definition.name, definition.max_entries);
        if let Some(pins) = request.pins {
            loader.map_pin_path(definition.name, pins.map(definition.name));
        }
    }
    // Not pinned: a daemon hears what its own programs tell, and what is used up is back in seconds.
    for name in [names::EVENT_BUDGETS, names::ALLOWANCES] {
        loader.map_max_entries(name, request.limit.saturating_add(1));
    }
    let mut object = loader.load(OBJECT).map_err(load_error)?;

    trace::follow(&mut object);
    let programs = Programs::load(&mut object)?;
    let mut take = |name| -> Result<Map, FastPathError> {
        object.take_map(name).ok_or(FastPathError::Incomplete { kind: "map", name })
    };
    let generations = Generations::open(take(names::GENERATION)?)?;
    Ok(Loaded {
        programs,
        maps: Maps::open(&mut take, &generations)?,
        routes: RouteMaps::open(&mut take, &generations)?,
        events: EventMaps::open(&mut take)?,
        policy: PolicyMaps::open(&mut take, generations)?,
        flows: FlowMaps::open(&mut take)?,
    })
}

/// Names of the maps that are pinned.
pub fn pinned() -> impl Iterator<Item = &'static str> {
    definitions(1, 1, 1).into_iter().map(|definition| definition.name)
}

/// The object once more, with `shared` maps from their pins and all others its own; its programs are yet to be loaded.
pub fn beside(
    shared: &BTreeMap<&'static str, PathBuf>,
    globals: &Globals,
    limit: u32,
    flows: u32,
) -> Result<Ebpf, FastPathError> {
    if let Some((name, _)) = shared.iter().find(|(_, pin)| !pin.exists()) {
        return Err(FastPathError::Incomplete { kind: "map", name });
    }
    let globals = globals.silent();
    let mut loader = globals.loader();
    let own = definitions(limit, 1, flows);
    for definition in own.iter().filter(|definition| !shared.contains_key(definition.name)) {
        loader.map_max_entries(definition.name, definition.max_entries);
    }
    for name in [names::EVENT_BUDGETS, names::ALLOWANCES] {
        loader.map_max_entries(name, limit.saturating_add(1));
    }
    for (name, pin) in shared {
        loader.map_pin_path(name, pin);
    }
    loader.load(OBJECT).map_err(load_error)
}

/// What a pinned map must be like to be adopted.
struct Definition {
    name: &'static str,
    kind: MapType,
    key_size: usize,
    /// `None`: the kernel's own type.
    value_size: Option<usize>,
    max_entries: u32,
}

fn define(
    name: &'static str,
    kind: MapType,
    key_size: usize,
    value_size: Option<usize>,
    max_entries: u32,
) -> Definition {
    Definition { name, kind, key_size, value_size, max_entries }
}

fn definitions(limit: u32, routes: u32, flows: u32) -> Vec<Definition> {
    let mut definitions = forwarding(limit, routes);
    definitions.extend(policy(limit));
    definitions.extend(remembered(limit, flows));
    definitions
}

fn forwarding(limit: u32, routes: u32) -> Vec<Definition> {
    let index = size_of::<u32>();
    let addresses = limit.saturating_mul(ADDRESSES_PER_ENDPOINT).saturating_add(SPARE_ADDRESSES);
    vec![
        define(names::ENDPOINTS, MapType::Hash, index, Some(size_of::<Endpoint>()), limit),
        define(names::ADDRESSES, MapType::Hash, size_of::<Address>(), Some(size_of::<Owner>()), addresses),
        define(names::ANSWERS, MapType::Hash, index, Some(size_of::<Advertisement>()), limit),
        define(names::DEVICES, MapType::DevMapHash, index, None, limit.saturating_add(UPLINKS)),
        // One more for frames without an endpoint.
        define(
            names::COUNTERS,
            MapType::PerCpuArray,
            index,
            Some(size_of::<Counters>()),
            limit.saturating_add(1),
        ),
        define(names::HOST_ROUTES, MapType::Hash, size_of::<Address>(), Some(size_of::<Route>()), routes),
        define(names::ROUTES, MapType::LpmTrie, PREFIX_KEY, Some(size_of::<Route>()), routes),
        define(names::NEXT_HOPS, MapType::Array, index, Some(size_of::<NextHopGroup>()), NEXT_HOP_GROUPS),
        define(names::UPLINKS, MapType::Hash, index, Some(size_of::<Uplink>()), UPLINKS),
    ]
}

fn policy(limit: u32) -> [Definition; 10] {
    use MapType::{Array, Hash, LpmTrie, PerCpuArray};
    let index = size_of::<u32>();
    let chains = limit.saturating_mul(CHAINS_PER_ENDPOINT);
    let sized = |name, kind, key, value, entries| define(name, kind, key, Some(value), entries);
    [
        sized(names::GENERATION, Array, index, size_of::<u64>(), 2),
        sized(names::POLICIES, Hash, index, size_of::<EndpointPolicy>(), limit),
        sized(names::CHAINS, Hash, index, size_of::<Chain>(), chains),
        sized(names::HOST_IDENTITIES, Hash, size_of::<Address>(), size_of::<Identity>(), POLICY_ENTRIES),
        sized(names::IDENTITIES, LpmTrie, PREFIX_KEY, size_of::<Identity>(), POLICY_ENTRIES),
        sized(names::PEERS, Hash, size_of::<PeerKey>(), size_of::<Steps>(), POLICY_ENTRIES),
        sized(names::SERVICES, LpmTrie, SERVICE_KEY, size_of::<Steps>(), POLICY_ENTRIES),
        sized(names::VECTORS, Hash, index, size_of::<Vector>(), POLICY_ENTRIES),
        sized(names::STEPS, Hash, size_of::<StepKey>(), size_of::<Step>(), POLICY_ENTRIES),
        sized(names::RULE_COUNTERS, PerCpuArray, index, size_of::<u64>(), RULE_COUNTERS),
    ]
}

fn remembered(limit: u32, flows: u32) -> [Definition; 3] {
    let index = size_of::<u32>();
    [
        define(names::FLOWS, MapType::Hash, size_of::<FlowKey>(), Some(size_of::<Flow>()), flows),
        define(names::FLOW_RINGS, MapType::Hash, size_of::<RingPlace>(), Some(size_of::<FlowKey>()), flows),
        define(
            names::FLOW_QUOTAS,
            MapType::Array,
            index,
            Some(size_of::<FlowQuota>()),
            limit.saturating_add(1),
        ),
    ]
}

impl Definition {
    /// Nothing is pinned under the name, or a map that fits.
    fn fits_pin(&self, pins: &Pins) -> bool {
        let path = pins.map(self.name);
        if !path.exists() {
            return true;
        }
        MapData::from_pin(&path).and_then(|map| self.fits(&map.info()?)).unwrap_or(false)
    }

    fn fits(&self, found: &MapInfo) -> Result<bool, MapError> {
        Ok(found.map_type()? == self.kind
            && found.key_size() as usize == self.key_size
            && self.value_size.is_none_or(|size| found.value_size() as usize == size)
            && found.max_entries() == self.max_entries)
    }
}

pub(super) fn load_error(error: EbpfError) -> FastPathError {
    match error {
        EbpfError::BtfError(_) | EbpfError::NoBTF | EbpfError::BtfRelocationError(_) => {
            FastPathError::Btf(error)
        }
        EbpfError::MapError(MapError::CreateError { name, io_error: source }) => {
            match source.raw_os_error() {
                Some(libc::EPERM) if memory_is_locked() => FastPathError::MemoryLock(source),
                Some(libc::EPERM | libc::EACCES) => {
                    FastPathError::Privileges { what: format!("cannot create BPF map `{name}`"), source }
                }
                Some(libc::ENOMEM | libc::E2BIG) => FastPathError::Memory(source),
                Some(libc::ENOSYS) => FastPathError::NoBpf(source),
                _ => FastPathError::Object(MapError::CreateError { name, io_error: source }.into()),
            }
        }
        error => FastPathError::Object(error),
    }
}

/// Before Linux 5.11 BPF maps count against RLIMIT_MEMLOCK, which is 64 KiB by default.
fn memory_is_locked() -> bool {
    KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(5, 11, 0))
}

fn raise_memory_lock() -> Result<(), FastPathError> {
    if !memory_is_locked() {
        return Ok(());
    }
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the structure is read only for the time of the call.
    match unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) } {
        0 => Ok(()),
        _ => Err(FastPathError::MemoryLock(io::Error::last_os_error())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_have_room_for_more_addresses_than_endpoints() {
        let addresses = |limit| forwarding(limit, 1)[1].max_entries;
        assert_eq!(addresses(1024), 4096 + 64);
        assert_eq!(addresses(u32::MAX), u32::MAX);
    }
}
