//! The maps, and the decision's `Tables` on them. Sizes here are defaults; userspace sets them when it loads.

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::bindings::xdp_action::{XDP_PASS, XDP_REDIRECT};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, DevMapHash, HashMap, PerCpuArray};
use dataplane_ebpf::abi::{
    Address, Advertisement, COUNTER_SLOTS, Counters, Endpoint, NextHopGroup, Owner, Reason, Route, Uplink,
};
use dataplane_ebpf::decide::event::Told;
use dataplane_ebpf::decide::flow::{self, Flows, Question};
use dataplane_ebpf::decide::{Hook, Tables};

use crate::events;
use crate::limits;
use crate::policy::{self, PolicyTables, QUESTION};

const ENDPOINTS_DEFAULT: u32 = 1024;
const ROUTES_DEFAULT: u32 = 1 << 20;

#[map]
static ENDPOINTS: HashMap<u32, Endpoint> = HashMap::with_max_entries(ENDPOINTS_DEFAULT, 0);
#[map]
static ADDRESSES: HashMap<Address, Owner> = HashMap::with_max_entries(4 * ENDPOINTS_DEFAULT, 0);
#[map]
static ANSWERS: HashMap<u32, Advertisement> = HashMap::with_max_entries(ENDPOINTS_DEFAULT, 0);
#[map]
static DEVICES: DevMapHash = DevMapHash::with_max_entries(ENDPOINTS_DEFAULT, 0);
#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(ENDPOINTS_DEFAULT + 1, 0);
#[map]
static HOST_ROUTES: HashMap<Address, Route> = HashMap::with_max_entries(ROUTES_DEFAULT, BPF_F_NO_PREALLOC);
#[map]
static ROUTES: LpmTrie<[u8; 16], Route> = LpmTrie::with_max_entries(ROUTES_DEFAULT, BPF_F_NO_PREALLOC);
#[map]
static NEXT_HOPS: Array<NextHopGroup> = Array::with_max_entries(4096, 0);
#[map]
static UPLINKS: HashMap<u32, Uplink> = HashMap::with_max_entries(64, 0);

/// See `abi::names::PASS_UNCONFIGURED`.
#[unsafe(no_mangle)]
static PASS_UNCONFIGURED: Global<u32> = Global::new(0);

/// Shortest time between two multicast answers to one TAP (RFC 4861 section 10, MIN_DELAY_BETWEEN_RAS).
const MULTICAST_INTERVAL_NS: u64 = 3_000_000_000;

/// A key of `ROUTES` whose address is aligned: the compiler copies it by words, the verifier wants those aligned.
#[repr(C, align(8))]
struct AlignedKey {
    _padding: u32,
    key: Key<[u8; 16]>,
}

/// The maps, as the decision about one packet sees them: at one generation of policy and one epoch of forwarding.
pub struct MapTables {
    policies: PolicyTables,
}

impl MapTables {
    /// For a packet that nothing has been looked up for. Both numbers are written into the question at once, so that they
    /// need no room on the stack until it is asked.
    #[inline(always)]
    pub fn new() -> Self {
        let tables = Self { policies: PolicyTables::now() };
        if policy::is_policed()
            && let Some(question) = QUESTION.get_ptr_mut(0)
        {
            // SAFETY: the value is this CPU's, and no program runs within another.
            unsafe {
                (*question).generation = tables.policies.generation();
                (*question).epoch = policy::epoch();
            }
        }
        tables
    }
}

impl Tables for MapTables {
    #[inline(always)]
    fn endpoint(&self, ifindex: u32) -> Option<&Endpoint> {
        // SAFETY: a value that userspace replaces meanwhile is read torn at worst, and every bit pattern is a value.
        unsafe { ENDPOINTS.get(ifindex) }
    }

    #[inline(always)]
    fn owner(&self, address: &Address) -> Option<&Owner> {
        // SAFETY: as for `endpoint`.
        unsafe { ADDRESSES.get(address) }
    }

    #[inline(always)]
    fn advertisement(&self, ifindex: u32) -> Option<&Advertisement> {
        // SAFETY: as for `endpoint`.
        unsafe { ANSWERS.get(ifindex) }
    }

    #[inline(always)]
    fn host_route(&self, address: &Address) -> Option<&Route> {
        // SAFETY: as for `endpoint`.
        unsafe { HOST_ROUTES.get(address) }
    }

    #[inline(always)]
    fn route(&self, address: &Address) -> Option<&Route> {
        let key = AlignedKey { _padding: 0, key: Key::new(128, address.octets()) };
        ROUTES.get(&key.key)
    }

    #[inline(always)]
    fn next_hops(&self, group: u32) -> Option<&NextHopGroup> {
        // Without a call of the kernel: an array is looked into in place.
        NEXT_HOPS.get(group)
    }

    #[inline(always)]
    fn uplink(&self, ifindex: u32) -> Option<&Uplink> {
        // SAFETY: as for `endpoint`.
        unsafe { UPLINKS.get(ifindex) }
    }

    #[inline(always)]
    fn may_multicast(&self, ifindex: u32) -> bool {
        let Some(advertisement) = ANSWERS.get_ptr_mut(ifindex) else {
            return false;
        };
        // SAFETY: the helper has no precondition.
        let now = unsafe { bpf_ktime_get_ns() };
        // SAFETY: the pointer is to a value of the map that stays valid while the program runs. CPUs may race for the
        // right; then both answer once.
        unsafe {
            let last = (*advertisement).last_multicast;
            if last != 0 && now.wrapping_sub(last) < MULTICAST_INTERVAL_NS {
                return false;
            }
            (*advertisement).last_multicast = now;
        }
        true
    }

    #[inline(always)]
    fn may_answer(&self, ifindex: u32, endpoint: &Endpoint) -> bool {
        limits::may_answer(ifindex, endpoint.slot)
    }

    #[inline(always)]
    fn may_hand_over(&self, ifindex: u32, endpoint: &Endpoint, source: &Address) -> Result<(), Reason> {
        limits::may_hand_over(ifindex, endpoint.slot, source)
    }

    #[inline(always)]
    fn may_resolve(&self, ifindex: u32, endpoint: &Endpoint) -> bool {
        limits::may_resolve(ifindex, endpoint.slot)
    }

    #[inline(always)]
    fn choose_device(&self, ifindex: u32, hook: Hook) -> bool {
        match hook {
            Hook::Xdp => DEVICES.redirect(ifindex, u64::from(XDP_PASS)) == Ok(XDP_REDIRECT),
            Hook::Tc => true,
        }
    }

    #[inline(always)]
    fn is_policed(&self) -> bool {
        policy::is_policed()
    }

    #[inline(always)]
    fn flows(&self) -> Option<&impl Flows> {
        self.is_policed().then_some(&self.policies)
    }

    #[inline(always)]
    fn with_question<R>(&self, otherwise: R, act: impl FnOnce(&mut Question) -> R) -> R {
        let Some(question) = QUESTION.get_ptr_mut(0) else { return otherwise };
        // SAFETY: the value is this CPU's, and no program runs within another.
        act(unsafe { &mut *question })
    }

    #[inline(always)]
    fn judge(&self, fill: impl FnOnce(&mut Question) -> Result<bool, Reason>) -> Result<(), Reason> {
        let question = QUESTION.get_ptr_mut(0).ok_or(Reason::Policy)?;
        // SAFETY: the value is this CPU's, and no program runs within another.
        let question = unsafe { &mut *question };
        if !fill(question)? {
            return Ok(());
        }
        flow::judge(&PolicyTables::of(question), question)
    }

    #[inline(always)]
    fn tell_drop(&self, reason: Reason, fill: impl FnOnce(&mut Question)) {
        let Some(question) = QUESTION.get_ptr_mut(0) else { return };
        // SAFETY: as for `judge`.
        let question = unsafe { &mut *question };
        fill(question);
        events::tell(Told::dropped(reason));
    }

    #[inline(always)]
    fn pass_unconfigured(&self) -> bool {
        PASS_UNCONFIGURED.load() != 0
    }

    #[inline(always)]
    fn count(&self, slot: u32, index: usize) {
        count(slot, index);
    }
}

/// Adds 1 to a value of `COUNTERS`.
#[inline(always)]
pub fn count(slot: u32, index: usize) {
    // The compiler knows the numbers of a reason and would leave the check out; the verifier does not know them.
    let index = core::hint::black_box(index);
    if index >= COUNTER_SLOTS {
        return;
    }
    if let Some(counters) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the value is this CPU's, and programs are not preempted by others that write it.
        unsafe { (*counters).values[index] += 1 };
    }
}
