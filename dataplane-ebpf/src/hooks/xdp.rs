//! `Frame` on an XDP buffer.

use crate::linear::{self, Linear};
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_xdp_adjust_head, bpf_xdp_get_buff_len, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
};
use core::hint::black_box;
use core::ptr;
use dataplane_ebpf::decide::Action;
use dataplane_ebpf::wire::{Checksum, Frame};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Longest range that [`Frame::sum`] adds: what a TAP hands to native XDP fits into a page.
const MAX_SUM: usize = 4096;
/// Where the range begins at the latest.
const MAX_OFFSET: usize = 128;
/// The first fragment of a frame on a TAP is longer than this, as the kernel fills a page before it begins another.
const LINEAR_LEAST: usize = 2048;
/// Longest range that `bpf_csum_diff` took before kernel 6.13.
const SUM_CHUNK: usize = 512;

/// No answer of an XDP program.
pub const UNKNOWN: u32 = u32::MAX;

/// The answer of an XDP program.
#[inline(always)]
pub fn answer(action: Action) -> u32 {
    match action {
        Action::Pass => XDP_PASS,
        Action::Drop => XDP_DROP,
        Action::Reply => XDP_TX,
        Action::Redirect(_) => XDP_REDIRECT,
    }
}

/// [`Frame::sum`], a function of its own, which the verifier looks at once: it takes a path for every length. More than 32 bits
/// are no sum.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn xdp_sum(context: *mut xdp_md, offset: u32, len: u32) -> u64 {
    XdpFrame::new(context).add_up(offset as usize, len as usize).map_or(u64::MAX, u64::from)
}

/// The frame that an XDP program was called for.
pub struct XdpFrame {
    context: *mut xdp_md,
}

impl XdpFrame {
    /// `context` is the program's own.
    #[inline(always)]
    pub fn new(context: *mut xdp_md) -> Self {
        Self { context }
    }

    /// Where the frame came in.
    #[inline(always)]
    pub fn ingress_ifindex(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.context).ingress_ifindex }
    }

    /// Whether the frame was too long for a page. The kernel copied it for us then, from where the VM's bytes were.
    #[inline(always)]
    pub fn is_in_fragments(&self) -> bool {
        let linear = self.data_end() - self.data();
        linear >= LINEAR_LEAST && self.len() > linear
    }

    /// Sum of `SIZE` bytes at `offset`, added to `seed`.
    #[inline(always)]
    fn sum_chunk<const SIZE: usize>(&self, offset: usize, seed: u32) -> Option<u32> {
        let start = self.at(offset, SIZE)?;
        // SAFETY: `start` is good for SIZE bytes, and SIZE is a multiple of 4.
        let sum = unsafe { bpf_csum_diff(ptr::null_mut(), 0, start.cast(), SIZE as u32, seed) };
        if sum < 0 { None } else { Some(sum as u32) }
    }

    /// As [`Self::sum_chunk`], without the call of a helper, which costs more than a few words.
    #[inline(always)]
    fn sum_words<const SIZE: usize>(&self, offset: usize, seed: Checksum) -> Option<Checksum> {
        let start = self.at(offset, SIZE)?.cast::<u64>();
        let mut sum = seed;
        let mut word = 0;
        while word < SIZE / size_of::<u64>() {
            // SAFETY: `start` is good for SIZE bytes.
            sum = sum.add_word(unsafe { start.add(word).read_unaligned() });
            word += 1;
        }
        Some(sum)
    }

    /// [`Frame::sum`]
    #[inline(always)]
    fn add_up(&self, offset: usize, len: usize) -> Option<u32> {
        if offset > MAX_OFFSET || len > MAX_SUM {
            return None;
        }
        let (mut at, mut left, mut sum) = (offset, len, 0);
        let mut chunk = 0;
        while chunk < MAX_SUM / SUM_CHUNK {
            if left < SUM_CHUNK {
                break;
            }
            sum = self.sum_chunk::<SUM_CHUNK>(at, sum)?;
            at += SUM_CHUNK;
            left -= SUM_CHUNK;
            chunk += 1;
        }
        // The rest by its binary digits: the verifier wants every length to be a constant.
        macro_rules! digits {
            ($sum:ident, $add:ident: $($size:literal)+) => {$(
                if left & $size != 0 {
                    $sum = self.$add::<$size>(at, $sum)?;
                    at += $size;
                }
            )+};
        }
        digits!(sum, sum_chunk: 256 128 64);
        let mut rest = Checksum::default().add_sum(sum);
        digits!(rest, sum_words: 32 16 8);
        if left & 4 != 0 {
            // SAFETY: the pointer is good for four bytes.
            rest = rest.add_sum(unsafe { self.at(at, 4)?.cast::<u32>().read_unaligned() });
            at += 4;
        }
        if left & 2 != 0 {
            // SAFETY: the pointer is good for two bytes.
            rest = rest.add_field(unsafe { *self.at(at, 2)?.cast() });
            at += 2;
        }
        if left & 1 != 0 {
            // SAFETY: the pointer is good for one byte.
            rest = rest.add_field([unsafe { *self.at(at, 1)? }, 0]);
        }
        Some(rest.fold().into())
    }
}

impl Linear for XdpFrame {
    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.context).data as usize }
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        // SAFETY: as above.
        unsafe { (*self.context).data_end as usize }
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn len(&self) -> usize {
        let linear = self.data_end() - self.data();
        if linear < LINEAR_LEAST {
            return linear;
        }
        // SAFETY: the context is the program's own.
        unsafe { bpf_xdp_get_buff_len(self.context) as usize }
    }

    #[inline(always)]
    fn gso_size(&self) -> usize {
        0
    }

    #[inline(always)]
    fn is_tagged(&self) -> bool {
        false
    }

    #[inline(always)]
    fn vlan_id(&self) -> u16 {
        0
    }

    #[inline(always)]
    fn needs_neighbour(&self, _ifindex: u32, _source: [u64; 2], _destination: [u64; 2]) -> bool {
        false
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
            bpf_xdp_load_bytes(
                self.context,
                offset as u32,
                ptr::from_mut(&mut value).cast(),
                size_of::<T>() as u32,
            )
        };
        if result == 0 { Some(value) } else { None }
    }

    #[inline(always)]
    fn sum(&self, offset: usize, len: usize) -> Option<u32> {
        u32::try_from(xdp_sum(self.context, offset as u32, len as u32)).ok()
    }

    #[inline(always)]
    fn resize(&mut self, len: usize) -> bool {
        // Grows and shrinks at the head: a TAP gives 256 bytes of headroom, but hardly any tailroom.
        // Opaque, or the compiler subtracts from the pointers first, which the verifier does not allow.
        let delta = black_box(self.len()) as i32 - len as i32;
        // SAFETY: the helper checks the new bounds; no pointer into the frame outlives the call.
        delta == 0 || unsafe { bpf_xdp_adjust_head(self.context, delta) } == 0
    }

    #[inline(always)]
    fn store(&mut self, bytes: &[u8]) -> bool {
        // SAFETY: `bytes` is good for its length, and the helper checks the frame's.
        let stored = unsafe {
            bpf_xdp_store_bytes(self.context, 0, bytes.as_ptr().cast_mut().cast(), bytes.len() as u32)
        };
        stored == 0
    }
}
