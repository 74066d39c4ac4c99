//! The maps of events, and telling as a function of its own, which the verifier looks at once. With nobody listening it
//! costs one look into an array, and only packets come here that are not of an established flow.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray, RingBuf};
use dataplane_ebpf::abi::{COPIES_PER_EVENT, Event, EventBudget, EventControl, NO_STEP, event_kinds};
use dataplane_ebpf::decide::event::{self, Sink, Told};

use crate::policy::question;

/// Some 2,400 events, which userspace reads as they come.
const RING_BYTES: u32 = 256 << 10;
const BUDGETS_DEFAULT: u32 = 1025;

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);
#[map]
static EVENT_CONTROL: Array<EventControl> = Array::with_max_entries(1, 0);
#[map]
static EVENT_BUDGETS: PerCpuArray<EventBudget> = PerCpuArray::with_max_entries(BUDGETS_DEFAULT, 0);
/// Frames that the kernel copied for XDP, of all TAPs.
#[map]
static COPIES: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// Tells what [`Told::to_words`] says of the packet that is the question.
#[inline(always)]
pub fn tell(told: Told) {
    let (what, place) = told.to_words();
    event_tell(what, place);
}

/// [`event::tell`] on the maps.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn event_tell(what: u32, place: u64) -> u32 {
    if let Some(question) = question() {
        event::tell(&EventMaps, question, Told::from_words(what, place));
    }
    0
}

/// Tells that the kernel copied a frame from this TAP for XDP, of a sample of those.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn event_copied(ifindex: u32) -> u32 {
    let Some(copies) = COPIES.get_ptr_mut(0) else { return 0 };
    // SAFETY: the value is this CPU's, and programs are not preempted by others that write it.
    let number = unsafe {
        *copies = (*copies).wrapping_add(1);
        *copies
    };
    let wanted = EventMaps.control().is_some_and(|control| control.has(event_kinds::COPIED));
    if wanted && number.is_multiple_of(COPIES_PER_EVENT) {
        let told =
            Event { kind: event_kinds::COPIED, from_ifindex: ifindex, step: NO_STEP, ..Event::default() };
        EventMaps.write(
            #[inline(always)]
            |event| *event = told,
        );
    }
    0
}

/// The maps, as events see them.
struct EventMaps;

impl Sink for EventMaps {
    #[inline(always)]
    fn control(&self) -> Option<EventControl> {
        EVENT_CONTROL.get(0).copied()
    }

    #[inline(always)]
    fn time(&self) -> u64 {
        // SAFETY: the helper has no precondition.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn with_budget<R>(&self, slot: u32, change: impl FnOnce(&mut EventBudget) -> R) -> Option<R> {
        let budget = EVENT_BUDGETS.get_ptr_mut(slot)?;
        // SAFETY: the value is this CPU's, and programs are not preempted by others that write it.
        Some(change(unsafe { &mut *budget }))
    }

    #[inline(always)]
    fn write(&self, fill: impl FnOnce(&mut Event)) -> bool {
        let Some(mut entry) = EVENTS.reserve::<Event>(0) else { return false };
        // SAFETY: the entry has the size of an event, and `fill` writes every field of it, reading none.
        fill(unsafe { &mut *entry.as_mut_ptr() });
        entry.submit(0);
        true
    }
}
