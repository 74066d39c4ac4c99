//! `Frame` on a socket buffer.

use crate::linear::{self, Linear};
use aya_ebpf::Global;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_pull_data,
    bpf_skb_store_bytes,
};
use core::ptr;
use dataplane_ebpf::abi::MARK_JUDGED;
use dataplane_ebpf::wire::{Frame, L4_OFFSET, TcpHeader};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes that are looked at by direct access. A TAP leaves as many linear as the guest says headers are.
const LINEAR: usize = L4_OFFSET + size_of::<TcpHeader>();

/// The VLAN identifier in a tag's control information (IEEE 802.1Q).
const VLAN_ID: u32 = 0xfff;

/// See `abi::names::MARK`.
#[unsafe(no_mangle)]
static MARK: Global<u32> = Global::new(dataplane_ebpf::abi::MARK);

#[inline(always)]
fn mark() -> u32 {
    MARK.load()
}

/// Answer of `bpf_fib_lookup`: there is a next hop, and its MAC is not known (`BPF_FIB_LKUP_RET_NO_NEIGH`).
const NO_NEIGHBOUR: i64 = 7;
const AF_INET6: u8 = 10;

/// What the kernel is asked about a packet's way: `struct bpf_fib_lookup` with addresses as words.
#[repr(C)]
#[derive(Default)]
struct Way {
    family: u8,
    protocol: u8,
    ports: [u16; 2],
    length: u16,
    ifindex: u32,
    flow: u32,
    source: [u64; 2],
    destination: [u64; 2],
    /// VLAN and MACs, which the kernel writes.
    link: [u64; 2],
}

const _: () = assert!(size_of::<Way>() == 64);

/// No answer of a TC program.
pub const UNKNOWN: i32 = i32::MIN;

/// The frame that a TC program was called for.
pub struct SkbFrame {
    skb: *mut __sk_buff,
}

impl SkbFrame {
    /// `skb` is the program's own context.
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Self {
        let frame = Self { skb };
        let want = frame.len().min(LINEAR);
        if frame.data() + want > frame.data_end() {
            // When it fails, views find nothing and the frame counts as malformed.
            // SAFETY: the helper has no precondition; no pointer into the frame is held.
            unsafe { bpf_skb_pull_data(skb, want as u32) };
        }
        frame
    }

    /// The interface whose hook this is.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.skb).ifindex }
    }

    /// Whether the fast path sends this frame.
    #[inline(always)]
    pub fn is_forwarded(&self) -> bool {
        self.tc_index() == mark()
    }

    /// Whether TC judged this frame when it came from a VM.
    #[inline(always)]
    pub fn is_judged(&self) -> bool {
        self.tc_index() == mark() + MARK_JUDGED
    }

    #[inline(always)]
    fn tc_index(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb).tc_index }
    }

    /// The interface that the kernel received it on; 0 if the host itself made it.
    #[inline(always)]
    pub fn received_on(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb).ingress_ifindex }
    }

    /// Marks the frame as judged, for the egress hook of the TAP that the kernel may forward it to.
    #[inline(always)]
    pub fn mark_judged(&mut self) {
        // SAFETY: as above.
        unsafe { (*self.skb).tc_index = mark() + MARK_JUDGED };
    }

    /// Sends the frame out of another device, marked as ours for that device's egress hook; the program's answer.
    #[inline(always)]
    pub fn redirect(&mut self, ifindex: u32) -> i32 {
        // SAFETY: the context is valid while the program runs, and the helper has no precondition.
        unsafe {
            (*self.skb).tc_index = mark();
            bpf_redirect(ifindex, 0) as i32
        }
    }
}

impl Linear for SkbFrame {
    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.skb).data as usize }
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        // SAFETY: as above.
        unsafe { (*self.skb).data_end as usize }
    }
}

impl Frame for SkbFrame {
    #[inline(always)]
    fn len(&self) -> usize {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.skb).len as usize }
    }

    #[inline(always)]
    fn gso_size(&self) -> usize {
        // SAFETY: as above.
        unsafe { (*self.skb).gso_size as usize }
    }

    #[inline(always)]
    fn is_tagged(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.skb).vlan_present != 0 }
    }

    #[inline(always)]
    fn vlan_id(&self) -> u16 {
        // SAFETY: as above. The kernel keeps 0 here when there is no tag.
        unsafe { ((*self.skb).vlan_tci & VLAN_ID) as u16 }
    }

    #[inline(always)]
    fn needs_neighbour(&self, ifindex: u32, source: [u64; 2], destination: [u64; 2]) -> bool {
        let mut way = Way { family: AF_INET6, ifindex, source, destination, ..Way::default() };
        // SAFETY: `way` is laid out as the helper's `struct bpf_fib_lookup`, of that size.
        let found = unsafe {
            bpf_fib_lookup(self.skb.cast(), ptr::from_mut(&mut way).cast(), size_of::<Way>() as i32, 0)
        };
        found == NO_NEIGHBOUR
    }

    #[inline(always)]
    fn view<T: FromBytes + Immutable + KnownLayout + Unaligned>(&self, offset: usize) -> Option<&T> {
        linear::view(self, offset)
    }

    #[inline(always)]
    fn view_mut<T: FromBytes + IntoBytes + KnownLayout + Unaligned>(
        &mut self,
        offset: usize,
    ) -> Option<&mut T> {
        linear::view_mut(self, offset)
    }

    #[inline(always)]
    fn load<T: FromBytes + IntoBytes>(&self, offset: usize) -> Option<T> {
        let mut value = T::new_zeroed();
        // SAFETY: `value` is good for its size.
        let result = unsafe {
            bpf_skb_load_bytes(
                self.skb.cast(),
                offset as u32,
                ptr::from_mut(&mut value).cast(),
                size_of::<T>() as u32,
            )
        };
        if result == 0 { Some(value) } else { None }
    }

    #[inline(always)]
    fn sum(&self, _offset: usize, _len: usize) -> Option<u32> {
        // The socket buffer knows whether its checksum is complete; nobody needs to add it up.
        None
    }

    #[inline(always)]
    fn resize(&mut self, len: usize) -> bool {
        // SAFETY: the helpers check the new length; no pointer into the frame outlives the calls.
        unsafe {
            bpf_skb_change_tail(self.skb, len as u32, 0) == 0 && bpf_skb_pull_data(self.skb, len as u32) == 0
        }
    }

    #[inline(always)]
    fn store(&mut self, bytes: &[u8]) -> bool {
        // SAFETY: `bytes` is good for its length, and the helper checks the frame's.
        let stored = unsafe {
            bpf_skb_store_bytes(self.skb, 0, bytes.as_ptr().cast_mut().cast(), bytes.len() as u32, 0)
        };
        stored == 0
    }
}
