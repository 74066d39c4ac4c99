//! The maps of policy and flows, and the judgement as a function of its own, which the verifier looks at once however many
//! hooks ask.

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::helpers::bpf_jiffies64;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use dataplane_ebpf::abi::{
    self, Address, Chain, ChainPair, EPOCH_OF_FORWARDING, EndpointPolicy, Flow, FlowKey, FlowQuota,
    GENERATION_OF_POLICY, Identity, NOBODY, PeerKey, Reason, RingPlace, ServiceKey, Step, StepKey, Steps,
    Vector,
};
use dataplane_ebpf::decide::event::Told;
use dataplane_ebpf::decide::flow::{self, Change, Flows, Question, known};
use dataplane_ebpf::decide::policy::{self, Decision, LongSteps, Policies};

use crate::events;

const ENDPOINTS_DEFAULT: u32 = 1024;
const FLOWS_DEFAULT: u32 = 1 << 20;
const POLICY_DEFAULT: u32 = 1 << 20;
const NANOSECONDS: u64 = 1_000_000_000;

#[map]
static GENERATION: Array<u64> = Array::with_max_entries(2, 0);
#[map]
static POLICIES: HashMap<u32, EndpointPolicy> = HashMap::with_max_entries(ENDPOINTS_DEFAULT, 0);
#[map]
static CHAINS: HashMap<u32, Chain> = HashMap::with_max_entries(4 * ENDPOINTS_DEFAULT, BPF_F_NO_PREALLOC);
#[map]
static HOST_IDENTITIES: HashMap<Address, Identity> =
    HashMap::with_max_entries(POLICY_DEFAULT, BPF_F_NO_PREALLOC);
#[map]
static IDENTITIES: LpmTrie<[u8; 16], Identity> = LpmTrie::with_max_entries(POLICY_DEFAULT, BPF_F_NO_PREALLOC);
#[map]
static PEERS: HashMap<PeerKey, Steps> = HashMap::with_max_entries(POLICY_DEFAULT, BPF_F_NO_PREALLOC);
#[map]
static SERVICES: LpmTrie<[u8; 8], Steps> = LpmTrie::with_max_entries(POLICY_DEFAULT, BPF_F_NO_PREALLOC);
#[map]
static VECTORS: HashMap<u32, Vector> = HashMap::with_max_entries(POLICY_DEFAULT, BPF_F_NO_PREALLOC);
#[map]
static STEPS: HashMap<StepKey, Step> = HashMap::with_max_entries(POLICY_DEFAULT, BPF_F_NO_PREALLOC);
#[map]
static RULE_COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1 << 14, 0);
#[map]
static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(FLOWS_DEFAULT, BPF_F_NO_PREALLOC);
#[map]
static FLOW_RINGS: HashMap<RingPlace, FlowKey> = HashMap::with_max_entries(FLOWS_DEFAULT, BPF_F_NO_PREALLOC);
#[map]
static FLOW_QUOTAS: Array<FlowQuota> = Array::with_max_entries(ENDPOINTS_DEFAULT + 1, 0);

/// Where a question is written, and where functions of their own find it: verifiers before Linux 6.2 do not take memory that
/// a function is called with for the key of a map.
#[map]
pub static QUESTION: PerCpuArray<Question> = PerCpuArray::with_max_entries(1, 0);

/// What is written on the way into `FLOWS`.
struct Scratch {
    flow: Flow,
    key: FlowKey,
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// See `abi::names::HOST_IS_OPEN`.
#[unsafe(no_mangle)]
static HOST_IS_OPEN: Global<u32> = Global::new(0);

/// See `abi::names::HOST_IS_JUDGED`.
#[unsafe(no_mangle)]
static HOST_IS_JUDGED: Global<u32> = Global::new(0);

/// See `abi::names::POLICED`.
#[unsafe(no_mangle)]
static POLICED: Global<u32> = Global::new(0);

/// See `abi::names::TICK`.
#[unsafe(no_mangle)]
static TICK: Global<u64> = Global::new(abi::TICK);

/// Whether policy counts. Without it there are no flows.
#[inline(always)]
pub fn is_policed() -> bool {
    POLICED.load() != 0
}

/// The question that is being answered on this CPU.
#[inline(always)]
pub fn question<'a>() -> Option<&'a Question> {
    // SAFETY: the value is this CPU's, and nobody writes it until it is answered: no program runs within another.
    QUESTION.get_ptr(0).map(|question| unsafe { &*question })
}

/// [`flow::known`] on the maps.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flow_known(asked: u32) -> u32 {
    match question() {
        Some(question) => flow::known(&PolicyTables::of(question), question, asked != 0),
        None => known::REFUSED + Reason::Malformed as u32,
    }
}

/// [`flow::begin`] on the maps. Functions of their own return something.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flow_begin() -> u32 {
    if let Some(question) = question() {
        flow::begin(&PolicyTables::of(question), question);
    }
    0
}

/// [`flow::begin_fragments`] on the maps.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flow_begin_fragments() -> u32 {
    if let Some(question) = question() {
        flow::begin_fragments(&PolicyTables::of(question), question);
    }
    0
}

/// [`policy::evaluate`] on the maps, as [`Decision::to_bits`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn policy_evaluate(chain: u32, answer: u32) -> u64 {
    match question() {
        Some(question) => {
            policy::evaluate(&PolicyTables::of(question), chain, &question.subject(answer != 0)).to_bits()
        }
        None => Decision::CLOSED.to_bits(),
    }
}

/// [`policy::search`] on the maps.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn search_steps(long: *const LongSteps) -> u32 {
    if long.is_null() {
        return u32::MAX;
    }
    // SAFETY: callers hand over memory of theirs that lives until the function returns; the verifier checks its size, and
    // takes the pointer for one that may be null.
    policy::search(&PolicyTables { generation: 0 }, unsafe { &*long })
}

/// The maps, as policy and flows see them, at one generation.
pub struct PolicyTables {
    generation: u64,
}

impl PolicyTables {
    /// At the generation by which a question is judged.
    #[inline(always)]
    pub fn of(question: &Question) -> Self {
        Self { generation: question.generation }
    }

    /// At the generation that counts now.
    #[inline(always)]
    pub fn now() -> Self {
        Self { generation: GENERATION.get(GENERATION_OF_POLICY).copied().unwrap_or(0) }
    }
}

/// The epoch of forwarding.
#[inline(always)]
pub fn epoch() -> u64 {
    GENERATION.get(EPOCH_OF_FORWARDING).copied().unwrap_or(0)
}

/// A key of `IDENTITIES` whose address is aligned, as that of `ROUTES`.
#[repr(C, align(8))]
struct AlignedKey<T> {
    _padding: u32,
    key: Key<T>,
}

impl Policies for PolicyTables {
    #[inline(always)]
    fn chain(&self, chain: u32) -> Option<&Chain> {
        // SAFETY: a value that userspace replaces meanwhile is read torn at worst, and every bit pattern is a value.
        unsafe { CHAINS.get(chain) }
    }

    #[inline(always)]
    fn identity(&self, address: &Address) -> u32 {
        // SAFETY: as for `chain`.
        if let Some(identity) = unsafe { HOST_IDENTITIES.get(address) } {
            return identity.at(self.generation());
        }
        let key = AlignedKey { _padding: 0, key: Key::new(128, address.octets()) };
        match IDENTITIES.get(&key.key) {
            Some(identity) => identity.at(self.generation()),
            None => NOBODY,
        }
    }

    #[inline(always)]
    fn peer(&self, key: &PeerKey) -> Option<&Steps> {
        // SAFETY: as for `chain`.
        unsafe { PEERS.get(key) }
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<&Steps> {
        let key = AlignedKey { _padding: 0, key: Key::new(64, key.0) };
        SERVICES.get(&key.key)
    }

    #[inline(always)]
    fn vector(&self, vector: u32) -> Option<&Vector> {
        // SAFETY: as for `chain`.
        unsafe { VECTORS.get(vector) }
    }

    #[inline(always)]
    fn step(&self, key: &StepKey) -> Option<&Step> {
        // SAFETY: as for `chain`.
        unsafe { STEPS.get(key) }
    }

    #[inline(always)]
    fn search(&self, long: &LongSteps) -> u32 {
        search_steps(long)
    }
}

/// The questions that it is called with are all [`question`].
impl Flows for PolicyTables {
    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<&Flow> {
        // SAFETY: as for `chain`.
        unsafe { FLOWS.get(key) }
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        // The kernel counts them anyway: the JIT makes a load of this helper, where those that read a clock are calls.
        // SAFETY: the helper has no precondition.
        let ticks = unsafe { bpf_jiffies64() };
        (ticks.wrapping_mul(TICK.load()) / NANOSECONDS) as u32
    }

    #[inline(always)]
    fn generation(&self) -> u64 {
        self.generation
    }

    #[inline(always)]
    fn chains(&self, ifindex: u32) -> Option<ChainPair> {
        // SAFETY: as for `chain`.
        unsafe { POLICIES.get(ifindex) }.map(|policy| *policy.at(self.generation()))
    }

    #[inline(always)]
    fn update(&self, key: &FlowKey, change: Change) {
        if let Some(flow) = FLOWS.get_ptr_mut(key) {
            // SAFETY: the pointer is to a value of the map that stays valid while the program runs. CPUs may write at the
            // same time; what they write is the same but for a second or a flag, which the next packet repairs.
            unsafe {
                (*flow).seen = change.seen;
                (*flow).generation = change.generation;
                (*flow).flags = (*flow).flags & !change.without | change.flags;
                if change.way.is_some() {
                    (*flow).way = change.way;
                }
            }
        }
    }

    #[inline(always)]
    fn insert(&self, key: &FlowKey, flow: &Flow) -> bool {
        FLOWS.insert(key, flow, 0).is_ok()
    }

    #[inline(always)]
    fn remove(&self, key: &FlowKey) {
        // Another CPU may have been faster.
        let _gone = FLOWS.remove(key);
    }

    #[inline(always)]
    fn next_place(&self, owner: u32) -> Option<u32> {
        let quota = FLOW_QUOTAS.get_ptr_mut(owner)?;
        // SAFETY: as for `update`. CPUs that take the same place at the same time lose one flow of this endpoint.
        unsafe {
            (*quota).hand = (*quota).hand.wrapping_add(1);
            (*quota).hand.checked_rem((*quota).places)
        }
    }

    #[inline(always)]
    fn at_place(&self, place: &RingPlace) -> Option<&FlowKey> {
        // SAFETY: as for `chain`.
        unsafe { FLOW_RINGS.get(place) }
    }

    #[inline(always)]
    fn take_place(&self, place: &RingPlace, key: &FlowKey) -> bool {
        // A place that was taken before is written as it is: to replace it would cost another element, and its end.
        match FLOW_RINGS.get_ptr_mut(place) {
            // SAFETY: as for `update`. Whoever reads it meanwhile finds no flow of that key, and takes the place as well.
            Some(taken) => unsafe { *taken = *key },
            None => return FLOW_RINGS.insert(place, key, 0).is_ok(),
        }
        true
    }

    #[inline(always)]
    fn with_scratch<R>(&self, otherwise: R, act: impl FnOnce(&mut Flow, &mut FlowKey) -> R) -> R {
        let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return otherwise };
        // SAFETY: the value is this CPU's, and no program runs within another.
        let Scratch { flow, key } = unsafe { &mut *scratch };
        act(flow, key)
    }

    #[inline(always)]
    fn count_pressure(&self, owner: u32) {
        if let Some(quota) = FLOW_QUOTAS.get_ptr_mut(owner) {
            // SAFETY: as for `update`.
            unsafe { (*quota).pressure += 1 };
        }
    }

    #[inline(always)]
    fn host_is_open(&self) -> bool {
        HOST_IS_OPEN.load() != 0
    }

    #[inline(always)]
    fn host_is_judged(&self) -> bool {
        HOST_IS_JUDGED.load() != 0
    }

    #[inline(always)]
    fn count_rule(&self, counter: u32) {
        if let Some(count) = RULE_COUNTERS.get_ptr_mut(counter) {
            // SAFETY: the value is this CPU's, and programs are not preempted by others that write it.
            unsafe { *count += 1 };
        }
    }

    #[inline(always)]
    fn tell(&self, _: &Question, told: Told) {
        events::tell(told);
    }

    #[inline(always)]
    fn known(&self, _: &Question, asked: bool) -> u32 {
        flow_known(u32::from(asked))
    }

    #[inline(always)]
    fn begin(&self, _: &Question) {
        flow_begin();
    }

    #[inline(always)]
    fn begin_fragments(&self, _: &Question) {
        flow_begin_fragments();
    }

    #[inline(always)]
    fn evaluate(&self, chain: u32, _: &Question, answer: bool) -> Decision {
        Decision::from_bits(policy_evaluate(chain, u32::from(answer)))
    }
}
