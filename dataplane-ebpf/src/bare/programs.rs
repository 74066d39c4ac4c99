//! Bare redirects and the source of frames. Userspace sets the globals when it loads them. XDP programs take fragments,
//! as that of TAPs does: only such can call each other.

use crate::choice::{uniform, zipf};
use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::{DevMap, PerCpuArray, ProgramArray};
use aya_ebpf::programs::{TcContext, XdpContext};
use core::ptr;

/// Destination and source MAC of what is sent.
const MACS_LEN: usize = 12;
/// Bytes of the frame that [`source`] makes.
const FRAME_LEN: usize = 78;

/// Where XDP sends to: entry 0.
#[map]
static DEVICE: DevMap = DevMap::with_max_entries(1, 0);
/// What [`source`] chooses variants by: entry 0.
#[map]
static STATE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// What [`source`] runs on its frames: entry 0.
#[map]
static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Ifindex that TC sends to.
#[unsafe(no_mangle)]
static EGRESS: u32 = 0;
/// Destination and source MAC, as memory holds them.
#[unsafe(no_mangle)]
static MACS: [u32; MACS_LEN / 4] = [0; MACS_LEN / 4];
/// The frame that [`source`] makes, as memory holds it; of the last word a part.
#[unsafe(no_mangle)]
static FRAME: [u64; FRAME_LEN.div_ceil(8)] = [0; FRAME_LEN.div_ceil(8)];

/// What [`source`] varies from frame to frame: one of [`varies`].
#[unsafe(no_mangle)]
static VARIES: u32 = 0;
/// How many variants there are; 0: the frame as it is.
#[unsafe(no_mangle)]
static COUNT: u32 = 0;
/// The variants take turns, else they are chosen at random.
#[unsafe(no_mangle)]
static IN_TURN: u32 = 0;
/// Of variants at random, the first are more frequent: what [`zipf`] needs to know; 0: all are alike.
#[unsafe(no_mangle)]
static OCTAVES: u32 = 0;
/// The number of an address is its index times this.
#[unsafe(no_mangle)]
static FACTOR: u32 = 0;

/// What [`source`] varies.
mod varies {
    /// The destination address.
    pub const DESTINATION: u32 = 0;
    /// The source address: answers to that.
    pub const SOURCE: u32 = 1;
    /// The ports.
    pub const PORTS: u32 = 2;
    /// The ports: answers to that.
    pub const ANSWERED_PORTS: u32 = 3;
}

/// Where in a frame numbers are, in network byte order. Eight bytes on they are inverted, so that the frame's checksum is
/// that of all.
const SOURCE_AT: usize = 26;
const DESTINATION_AT: usize = 42;
const PORTS_AT: usize = 54;
/// A multiplier of linear congruential generators (Knuth's MMIX).
const LCG: u64 = 6_364_136_223_846_793_005;

/// Sends a frame to the device in the map.
#[xdp(frags)]
pub fn bare_xdp(context: XdpContext) -> u32 {
    if !set_macs(context.data(), context.data_end()) {
        return XDP_DROP;
    }
    DEVICE.redirect(0, u64::from(XDP_ABORTED)).unwrap_or(XDP_ABORTED)
}

/// Lets every frame pass. A veth copies what it hands to XDP into a page of its own, as a card does.
#[xdp(frags)]
pub fn card(_: XdpContext) -> u32 {
    XDP_PASS
}

/// Sends a frame to the device.
#[classifier]
pub fn bare_tc(context: TcContext) -> i32 {
    if !set_macs(context.data(), context.data_end()) {
        return TC_ACT_SHOT;
    }
    // SAFETY: a valid static; volatile, because userspace sets it in the object before loading.
    let egress = unsafe { ptr::read_volatile(&raw const EGRESS) };
    // SAFETY: the helper has no precondition.
    unsafe { bpf_redirect(egress, 0) as i32 }
}

/// Makes the frame anew, as live frames come back edited by what ran on them, and goes on with the next program.
#[xdp(frags)]
pub fn source(context: XdpContext) -> u32 {
    make(&context)
}

/// The same for a next program that takes no fragments.
#[xdp]
pub fn source_linear(context: XdpContext) -> u32 {
    make(&context)
}

#[inline(always)]
fn make(context: &XdpContext) -> u32 {
    let start = context.data();
    if start + FRAME_LEN > context.data_end() {
        return XDP_ABORTED;
    }
    let mut at = 0;
    while at + 8 <= FRAME_LEN {
        copy_word::<u64>(start, at);
        at += 8;
    }
    copy_word::<u32>(start, FRAME_LEN - 6);
    copy_word::<u16>(start, FRAME_LEN - 2);
    vary(start);
    // SAFETY: the context is this program's own.
    unsafe { NEXT.tail_call(context, 0) };
    XDP_PASS
}

#[inline(always)]
fn set_macs(start: usize, end: usize) -> bool {
    if start + MACS_LEN > end {
        return false;
    }
    let mut word = 0;
    while word < MACS_LEN / 4 {
        // SAFETY: the frame has MACS_LEN bytes, and the static is valid; volatile as in `bare_tc`.
        unsafe {
            let value = ptr::read_volatile((&raw const MACS).cast::<u32>().add(word));
            (start as *mut u32).add(word).write_unaligned(value);
        }
        word += 1;
    }
    true
}

/// Copies a part of the frame.
#[inline(always)]
fn copy_word<T>(start: usize, at: usize) {
    // SAFETY: the caller has checked that FRAME_LEN bytes are there, and the static is that long.
    unsafe {
        let value = ptr::read_volatile((&raw const FRAME).cast::<u8>().add(at).cast::<T>());
        ((start + at) as *mut T).write_unaligned(value);
    }
}

/// Makes of the frame one of the many that there are.
#[inline(always)]
fn vary(start: usize) {
    // SAFETY: valid statics; volatile as in `bare_tc`.
    let (varies, count, factor) = unsafe {
        (
            ptr::read_volatile(&raw const VARIES),
            ptr::read_volatile(&raw const COUNT),
            ptr::read_volatile(&raw const FACTOR),
        )
    };
    if count == 0 {
        return;
    }
    let Some(index) = next_index(count) else { return };
    match varies {
        varies::DESTINATION => write_number::<DESTINATION_AT>(start, index.wrapping_mul(factor)),
        varies::SOURCE => write_number::<SOURCE_AT>(start, index.wrapping_mul(factor)),
        varies::PORTS => write_number::<PORTS_AT>(start, ports(index)),
        varies::ANSWERED_PORTS => write_number::<PORTS_AT>(start, ports(index).rotate_left(16)),
        _ => {}
    }
}

/// The next of `count` indices: in turn, or at random.
#[inline(always)]
fn next_index(count: u32) -> Option<u32> {
    let state = STATE.get_ptr_mut(0)?;
    // SAFETY: valid statics, volatile as in `bare_tc`; and the value is this CPU's, whose program is not preempted by
    // itself.
    let (random, octaves) = unsafe {
        if ptr::read_volatile(&raw const IN_TURN) != 0 {
            *state = state.read().wrapping_add(1);
            return Some((state.read() % u64::from(count)) as u32);
        }
        *state = state.read().wrapping_mul(LCG).wrapping_add(1);
        ((state.read() >> 32) as u32, ptr::read_volatile(&raw const OCTAVES))
    };
    Some(if octaves == 0 { uniform(random, count) } else { zipf(random, count, octaves) })
}

/// The ports of flow `index`, as in bench/src/flows.rs.
#[inline(always)]
fn ports(index: u32) -> u32 {
    ((index & 0x3fff) + 0x4000) << 16 | ((index >> 14) + 0x8000)
}

/// Writes a number and its inverse.
#[inline(always)]
fn write_number<const AT: usize>(start: usize, number: u32) {
    // SAFETY: the caller has checked that FRAME_LEN bytes are there.
    unsafe {
        ((start + AT) as *mut u32).write_unaligned(number.to_be());
        ((start + AT + 8) as *mut u32).write_unaligned((!number).to_be());
    }
}
