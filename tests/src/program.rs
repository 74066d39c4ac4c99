//! The loaded BPF programs, run on single frames by BPF_PROG_TEST_RUN: no interface is attached, no packet is sent.

mod policy;
mod size;

pub use size::Size;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::xdp::DevMapHash;
use aya::maps::{Array, HashMap, PerCpuArray};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use dataplane_ebpf::abi::{
    Address, Advertisement, Counters, EPOCH_OF_FORWARDING, Endpoint, NextHopGroup, Owner, Rate, Route,
    Uplink, names,
};
use dataplane_ebpf::decide::{Action, Hook};
use dataplane_ebpf::host::{MemoryFrame, MemoryTables, labelled};
use serval::apply::fastpath::tick;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

/// The interface that a test run pretends to have received on, in any namespace: the loopback device.
pub const INGRESS: u32 = 1;

/// What `__sk_buff` is for BPF_PROG_TEST_RUN: the fields up to `gso_size`.
const SKB_CONTEXT_LEN: usize = 192;
/// What `xdp_md` is.
const XDP_CONTEXT_LEN: usize = 24;
/// Offset of `data_end` in `xdp_md`.
const XDP_DATA_END: usize = 4;
/// Offset of `ingress_ifindex` in `xdp_md`.
const XDP_INGRESS_IFINDEX: usize = 12;
/// Offset of `ingress_ifindex` in `__sk_buff`.
const INGRESS_IFINDEX: usize = 36;
/// Offset of `ifindex` in `__sk_buff`.
const IFINDEX: usize = 40;
/// Offset of `gso_segs` in `__sk_buff`.
const GSO_SEGS: usize = 164;
/// Offset of `gso_size` in `__sk_buff`.
const GSO_SIZE: usize = 176;

/// What userspace tells them of the clock.
static TICK: LazyLock<u64> = LazyLock::new(tick);

/// Programs and maps of the object file.
pub struct Programs {
    ebpf: Ebpf,
}

/// Where a frame comes from, which decides about the programs that see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A VM.
    Vm,
    /// Another host.
    Uplink,
}

/// The program that sees a frame, and on which interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Where it comes in.
    In(Origin, Hook, u32),
    /// Where the kernel delivers it to the VM behind `ifindex`.
    Out {
        /// The TAP.
        ifindex: u32,
        /// Where the kernel received it; 0 if the host made it.
        received_on: u32,
    },
}

impl At {
    /// The kind of its program.
    pub fn hook(self) -> Hook {
        match self {
            Self::In(_, hook, _) => hook,
            Self::Out { .. } => Hook::Tc,
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::In(Origin::Vm, Hook::Xdp, _) => names::TAP_XDP,
            Self::In(Origin::Vm, Hook::Tc, _) => names::TAP_IN,
            Self::In(Origin::Uplink, Hook::Xdp, _) => names::UPLINK_XDP,
            Self::In(Origin::Uplink, Hook::Tc, _) => names::UPLINK_IN,
            Self::Out { .. } => names::TAP_OUT,
        }
    }
}

/// What a program made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its answer.
    pub action: Action,
    /// The frame afterwards.
    pub bytes: Vec<u8>,
}

/// The object file that `cargo xtask test` built; `None` when the tests run without it.
pub fn object() -> Option<PathBuf> {
    std::env::var_os("SERVAL_BPF_OBJECT").map(PathBuf::from)
}

impl Programs {
    /// Loads the object into the kernel, without policy.
    pub fn load(object: &std::path::Path) -> Self {
        Self::load_with(object, &[])
    }

    /// Loads the object, with limits.
    pub fn load_limited(object: &std::path::Path, answers: Rate, host: Rate) -> Self {
        let mut loader = EbpfLoader::new();
        loader.override_global(names::ANSWER_RATE, &answers, true);
        loader.override_global(names::HOST_RATE, &host, true);
        Self::load_by(loader, object, &[])
    }

    /// Loads the object with these globals.
    fn load_with(object: &std::path::Path, globals: &[(&str, u32)]) -> Self {
        Self::load_by(EbpfLoader::new(), object, globals)
    }

    fn load_by<'a>(
        mut loader: EbpfLoader<'a>,
        object: &std::path::Path,
        globals: &'a [(&'a str, u32)],
    ) -> Self {
        // As userspace loads it: without the log statements.
        loader.override_global("AYA_LOG_LEVEL", &0u8, true);
        loader.override_global(names::TICK, &*TICK, true);
        for (name, value) in globals {
            loader.override_global(name, value, true);
        }
        let mut ebpf = loader.load_file(object).expect("the object loads");
        for name in [names::TAP_XDP, names::UPLINK_XDP] {
            let program: &mut Xdp = ebpf.program_mut(name).expect(name).try_into().expect("is XDP");
            program.load().unwrap_or_else(|error| panic!("the verifier takes {name}: {error:?}"));
        }
        for name in [names::TAP_IN, names::TAP_OUT, names::UPLINK_IN] {
            let program: &mut SchedClassifier =
                ebpf.program_mut(name).expect(name).try_into().expect("is TC");
            program.load().unwrap_or_else(|error| panic!("the verifier takes {name}: {error:?}"));
        }
        Self { ebpf }
    }

    /// Writes `tables` into the maps; `devices` must be interfaces of this namespace.
    pub fn fill(&mut self, tables: &MemoryTables) {
        let mut endpoints: HashMap<_, u32, Endpoint> = self.map(names::ENDPOINTS);
        for (ifindex, endpoint) in &tables.endpoints {
            endpoints.insert(ifindex, endpoint, 0).expect("endpoint");
        }
        let addresses = tables.addresses.iter().map(|(address, owner)| (*address, *owner));
        self.replace::<Address, Owner>(names::ADDRESSES, addresses);
        let mut answers: HashMap<_, u32, Advertisement> = self.map(names::ANSWERS);
        for (ifindex, advertisement) in &tables.answers {
            answers.insert(ifindex, **advertisement, 0).expect("answer");
        }
        let mut devices: DevMapHash<_> = self.map(names::DEVICES);
        for ifindex in &tables.devices {
            devices.insert(*ifindex, *ifindex, None, 0).expect("device");
        }
        let mut host_routes: HashMap<_, Address, Route> = self.map(names::HOST_ROUTES);
        for (address, route) in &tables.host_routes {
            host_routes.insert(address, route, 0).expect("host route");
        }
        let mut routes: LpmTrie<_, [u8; 16], Route> = self.map(names::ROUTES);
        for ((prefix, length), route) in &tables.routes {
            routes.insert(&Key::new(u32::from(*length), prefix.octets()), route, 0).expect("route");
        }
        let mut next_hops: Array<_, NextHopGroup> = self.map(names::NEXT_HOPS);
        for (number, group) in &tables.next_hops {
            next_hops.set(*number, group, 0).expect("group of next hops");
        }
        let mut uplinks: HashMap<_, u32, Uplink> = self.map(names::UPLINKS);
        for (ifindex, uplink) in &tables.uplinks {
            uplinks.insert(ifindex, uplink, 0).expect("uplink");
        }
        let mut generations: Array<_, u64> = self.map(names::GENERATION);
        generations.set(EPOCH_OF_FORWARDING, tables.epoch, 0).expect("the epoch");
    }

    /// Runs the program of `hook` on a frame that came in on [`INGRESS`], as if a TAP or an uplink were there.
    pub fn run(&self, origin: Origin, hook: Hook, frame: &MemoryFrame) -> Outcome {
        self.run_at(At::In(origin, hook, INGRESS), frame)
    }

    /// Runs a program on a frame, as if a TAP or an uplink were on that interface of this namespace.
    pub fn run_at(&self, at: At, frame: &MemoryFrame) -> Outcome {
        let mut out = vec![0; 4096.max(frame.bytes.len() + 512)];
        let mut options = TestRunOptions::new();
        options.data_in = Some(&frame.bytes);
        options.data_out = Some(&mut out);
        let context = context(at, frame);
        options.ctx_in = context.as_deref();
        let name = at.program();
        let program = self.ebpf.program(name).expect(name);
        let result = match at.hook() {
            Hook::Xdp => {
                let program: &Xdp = program.try_into().expect("is XDP");
                program.test_run(options)
            }
            Hook::Tc => {
                let program: &SchedClassifier = program.try_into().expect("is TC");
                program.test_run(options)
            }
        }
        .unwrap_or_else(|error| panic!("{name} runs on {} bytes: {error:?}", frame.bytes.len()));
        out.truncate(result.data_size_out as usize);
        Outcome { action: action(at.hook(), result.return_value), bytes: out }
    }

    /// All counters that are not zero, by slot and label.
    pub fn counted(&mut self, slots: u32) -> BTreeMap<(u32, &'static str), u64> {
        let counters: PerCpuArray<_, Counters> = self.map(names::COUNTERS);
        (0..slots)
            .flat_map(|slot| {
                let mut sum = Counters::default();
                for value in counters.get(&slot, 0).expect("slot").iter() {
                    sum.add(value);
                }
                labelled(&sum).into_iter().map(move |(label, n)| ((slot, label), n))
            })
            .collect()
    }

    /// Sets all counters to zero.
    pub fn clear_counters(&mut self, slots: u32) {
        let cpus = aya::util::nr_cpus().expect("number of CPUs");
        let mut counters: PerCpuArray<_, Counters> = self.map(names::COUNTERS);
        for slot in 0..slots {
            let zero =
                aya::maps::PerCpuValues::try_from(vec![Counters::default(); cpus]).expect("a value per CPU");
            counters.set(slot, zero, 0).expect("slot");
        }
    }

    /// Makes multicast answers unlimited again, or used up.
    pub fn set_multicast_spent(&mut self, spent: bool) {
        let mut answers: HashMap<_, u32, Advertisement> = self.map(names::ANSWERS);
        let Ok(mut advertisement) = answers.get(&INGRESS, 0) else { return };
        advertisement.last_multicast = if spent { monotonic_ns() } else { 0 };
        answers.insert(INGRESS, advertisement, 0).expect("answer");
    }

    /// A map of the object.
    pub fn map<'a, M>(&'a mut self, name: &str) -> M
    where
        M: TryFrom<&'a mut aya::maps::Map, Error = aya::maps::MapError>,
    {
        self.ebpf.map_mut(name).unwrap_or_else(|| panic!("map {name}")).try_into().expect("type of map")
    }
}

/// The context that a program is called with; `None` is that of a whole frame on the loopback device.
fn context(at: At, frame: &MemoryFrame) -> Option<Vec<u8>> {
    let write = |fields: &[(usize, u32)], len| {
        let mut context = vec![0; len];
        for (offset, value) in fields {
            context[*offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        }
        Some(context)
    };
    match at {
        At::In(_, Hook::Xdp, INGRESS) => None,
        At::In(_, Hook::Xdp, ifindex) => {
            let end = frame.bytes.len() as u32;
            write(&[(XDP_DATA_END, end), (XDP_INGRESS_IFINDEX, ifindex)], XDP_CONTEXT_LEN)
        }
        At::In(_, Hook::Tc, ifindex) | At::Out { ifindex, .. } => {
            let received_on = match at {
                At::Out { received_on, .. } => received_on,
                At::In(..) => ifindex,
            };
            let segments = if frame.gso_size == 0 { 0 } else { frame.bytes.len().div_ceil(frame.gso_size) };
            let fields = [
                (INGRESS_IFINDEX, received_on),
                (IFINDEX, ifindex),
                (GSO_SEGS, segments as u32),
                (GSO_SIZE, frame.gso_size as u32),
            ];
            write(&fields, SKB_CONTEXT_LEN)
        }
    }
}

fn action(hook: Hook, value: u32) -> Action {
    // The redirect helpers keep the device to themselves; the counters tell whom it was for.
    match (hook, value as i32) {
        (Hook::Xdp, 1) => Action::Drop,
        (Hook::Xdp, 2) | (Hook::Tc, -1) => Action::Pass,
        (Hook::Xdp, 3) => Action::Reply,
        (Hook::Xdp, 4) | (Hook::Tc, 7) => Action::Redirect(0),
        (Hook::Tc, 2) => Action::Drop,
        (hook, value) => panic!("{hook:?} returned {value}"),
    }
}

fn monotonic_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("the clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// The maps themselves, when a test wants more than [`Programs`] offers.
impl std::ops::DerefMut for Programs {
    fn deref_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

impl std::ops::Deref for Programs {
    type Target = Ebpf;

    fn deref(&self) -> &Ebpf {
        &self.ebpf
    }
}

/// Makes two connected devices in the current namespace; gives their ifindices.
pub fn veth_pair(a: &str, b: &str) -> (u32, u32) {
    let status = std::process::Command::new("ip")
        .args(["link", "add", a, "type", "veth", "peer", "name", b])
        .status()
        .expect("ip runs");
    assert!(status.success(), "a pair of veth devices is made");
    let index = |name| nix::net::if_::if_nametoindex(name).expect("the device is there");
    (index(a), index(b))
}
