//! What endpoints have used up of answers and of the host. Each question is a function of its own, which the verifier looks
//! at once.

use aya_ebpf::Global;
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use dataplane_ebpf::abi::{Address, Allowance, Rate, Reason};
use dataplane_ebpf::decide::limit::{self, Limits};

const ALLOWANCES_DEFAULT: u32 = 1025;

#[map]
static ALLOWANCES: Array<Allowance> = Array::with_max_entries(ALLOWANCES_DEFAULT, 0);

/// See `abi::names::ANSWER_RATE`.
#[unsafe(no_mangle)]
static ANSWER_RATE: Global<Rate> = Global::new(Rate::UNLIMITED);

/// See `abi::names::HOST_RATE`.
#[unsafe(no_mangle)]
static HOST_RATE: Global<Rate> = Global::new(Rate::UNLIMITED);

/// [`limit_host`] when it may.
const ALLOWED: u32 = u32::MAX;

/// [`limit::answer`] on the map.
#[inline(always)]
pub fn may_answer(ifindex: u32, slot: u32) -> bool {
    limit_answer(ifindex, slot) != 0
}

/// [`limit::hand_over`] on the map.
#[inline(always)]
pub fn may_hand_over(ifindex: u32, slot: u32, source: &Address) -> Result<(), Reason> {
    let [high, low] = source.words();
    match limit_host(ifindex, slot, high, low) {
        ALLOWED => Ok(()),
        number => Err(Reason::from_number(number).unwrap_or(Reason::HostLimited)),
    }
}

/// [`limit::resolve`] on the map.
#[inline(always)]
pub fn may_resolve(ifindex: u32, slot: u32) -> bool {
    limit_resolve(ifindex, slot) != 0
}

/// Not 0: one more packet to an unknown neighbour.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn limit_resolve(ifindex: u32, slot: u32) -> u32 {
    let Some(allowance) = allowance(slot) else { return 0 };
    u32::from(limit::resolve(allowance, ifindex, &limits()))
}

/// Not 0: one more answer.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn limit_answer(ifindex: u32, slot: u32) -> u32 {
    let Some(allowance) = allowance(slot) else { return 0 };
    u32::from(limit::answer(allowance, ifindex, &limits()))
}

/// [`ALLOWED`], or the number of the reason why not.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn limit_host(ifindex: u32, slot: u32, high: u64, low: u64) -> u32 {
    let Some(allowance) = allowance(slot) else { return Reason::HostLimited as u32 };
    match limit::hand_over(allowance, ifindex, &Address::from_words([high, low]), &limits()) {
        Ok(()) => ALLOWED,
        Err(reason) => reason as u32,
    }
}

#[inline(always)]
fn allowance<'a>(slot: u32) -> Option<&'a mut Allowance> {
    // SAFETY: the value stays valid while the program runs. CPUs that write it at the same time let a packet more pass.
    ALLOWANCES.get_ptr_mut(slot).map(|allowance| unsafe { &mut *allowance })
}

#[inline(always)]
fn limits() -> Limits {
    Limits {
        answers: ANSWER_RATE.load(),
        host: HOST_RATE.load(),
        // SAFETY: the helper has no precondition.
        now: unsafe { bpf_ktime_get_coarse_ns() },
    }
}
