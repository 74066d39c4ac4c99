//! A router in the manner of xdp-forward (xdp-tools, `xdp_forward.bpf.c`): parse, ask the kernel's FIB, count the hop
//! limit down, write the MACs that it knows, redirect. What is not found goes on to the kernel.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_PASS};
use aya_ebpf::bindings::{BPF_FIB_LKUP_RET_SUCCESS, TC_ACT_OK, bpf_fib_lookup};
use aya_ebpf::helpers::generated::{bpf_fib_lookup as ask, bpf_redirect};
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::DevMap;
use aya_ebpf::programs::{TcContext, XdpContext};
use core::ffi::c_void;
use core::{mem, ptr};

/// Interfaces that XDP may send to, by ifindex; as many as xdp-forward has.
#[map]
static PORTS: DevMap = DevMap::with_max_entries(64, 0);

/// Flags of the lookup: 0, or `BPF_FIB_LOOKUP_DIRECT`.
#[unsafe(no_mangle)]
static FIB_FLAGS: u32 = 0;

/// Where the headers are in a frame.
mod at {
    pub const SOURCE_MAC: usize = 6;
    pub const ETHERTYPE: usize = 12;
    pub const IPV6: usize = 14;
    pub const PAYLOAD_LENGTH: usize = 18;
    pub const NEXT_HEADER: usize = 20;
    pub const HOP_LIMIT: usize = 21;
    pub const SOURCE: usize = 22;
    pub const DESTINATION: usize = 38;
    pub const END: usize = 54;
}

const ETHERTYPE_IPV6: u16 = 0x86dd;
const AF_INET6: u8 = 10;
/// Traffic class and flow label.
const FLOW_INFORMATION: u32 = 0x0fff_ffff;

/// Forwards by XDP.
#[xdp(frags)]
pub fn fib_xdp(context: XdpContext) -> u32 {
    // SAFETY: the context is this program's own.
    let ingress = unsafe { (*context.ctx).ingress_ifindex };
    let Some(way) = look_up(context.as_ptr(), context.data(), context.data_end(), ingress) else {
        return XDP_PASS;
    };
    if PORTS.get_ifindex(way.ifindex).is_none() {
        return XDP_PASS;
    }
    edit(context.data(), context.data_end(), &way);
    PORTS.redirect(way.ifindex, u64::from(XDP_ABORTED)).unwrap_or(XDP_ABORTED)
}

/// Forwards by TC.
#[classifier]
pub fn fib_tc(context: TcContext) -> i32 {
    // SAFETY: the context is this program's own.
    let ingress = unsafe { (*context.skb.skb).ifindex };
    let Some(way) = look_up(context.as_ptr(), context.data(), context.data_end(), ingress) else {
        return TC_ACT_OK;
    };
    edit(context.data(), context.data_end(), &way);
    // SAFETY: the helper has no precondition.
    unsafe { bpf_redirect(way.ifindex, 0) as i32 }
}

/// What the FIB says about a frame; `None`: it is the kernel's.
#[inline(always)]
fn look_up(context: *mut c_void, start: usize, end: usize, ingress: u32) -> Option<bpf_fib_lookup> {
    if start + at::END > end {
        return None;
    }
    // SAFETY: all reads are below at::END.
    let (ethertype, hop_limit) =
        unsafe { (read::<u16>(start, at::ETHERTYPE), read::<u8>(start, at::HOP_LIMIT)) };
    if ethertype != ETHERTYPE_IPV6.to_be() || hop_limit <= 1 {
        return None;
    }
    // SAFETY: zeroes are valid, all reads are below at::END, and of the unions the fields of a question are written.
    let mut question: bpf_fib_lookup = unsafe { mem::zeroed() };
    question.family = AF_INET6;
    question.ifindex = ingress;
    // SAFETY: as above.
    unsafe {
        question.l4_protocol = read(start, at::NEXT_HEADER);
        question.__bindgen_anon_1.tot_len = u16::from_be(read(start, at::PAYLOAD_LENGTH));
        question.__bindgen_anon_2.flowinfo = read::<u32>(start, at::IPV6) & FLOW_INFORMATION.to_be();
        question.__bindgen_anon_3.ipv6_src = read(start, at::SOURCE);
        question.__bindgen_anon_4.ipv6_dst = read(start, at::DESTINATION);
    }
    // SAFETY: the context is the program's, the question is as long as is said, and the static is valid; volatile, because
    // userspace sets it in the object before loading.
    let answer = unsafe {
        let flags = ptr::read_volatile(&raw const FIB_FLAGS);
        ask(context, &raw mut question, mem::size_of::<bpf_fib_lookup>() as i32, flags)
    };
    (answer == i64::from(BPF_FIB_LKUP_RET_SUCCESS)).then_some(question)
}

/// Counts the hop limit down and writes both MACs.
#[inline(always)]
fn edit(start: usize, end: usize, way: &bpf_fib_lookup) {
    if start + at::END > end {
        return;
    }
    // SAFETY: all of it is below at::END.
    unsafe {
        let hop_limit = (start + at::HOP_LIMIT) as *mut u8;
        *hop_limit -= 1;
        (start as *mut [u8; 6]).write(way.dmac);
        ((start + at::SOURCE_MAC) as *mut [u8; 6]).write(way.smac);
    }
}

/// # Safety
///
/// The frame must have a `T` there.
#[inline(always)]
unsafe fn read<T>(start: usize, at: usize) -> T {
    // SAFETY: as the caller promises.
    unsafe { ((start + at) as *const T).read_unaligned() }
}
