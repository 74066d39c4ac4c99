//! Answers that userspace renders and the hooks send.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Longest router advertisement frame: Ethernet header and the 1280 bytes every IPv6 link carries (RFC 8200 section 5),
/// rounded up to a multiple of 8.
pub const ADVERTISEMENT_CAPACITY: usize = 1296;

/// Value of `ANSWERS`: a router advertisement as a whole Ethernet frame to `ff02::1`, checksum included. The hooks copy
/// it and patch destination MAC, destination address and checksum.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Advertisement {
    /// Monotonic time in ns of the last answer to a solicitation from `::`, written by the hooks: such answers are
    /// multicast and at least 3 s apart (RFC 4861 section 6.2.6).
    pub last_multicast: u64,
    /// Bytes of `frame` that are used.
    pub len: u32,
    /// Always 0.
    pub reserved: u32,
    /// The frame.
    pub frame: [u8; ADVERTISEMENT_CAPACITY],
}

const _: () = assert!(size_of::<Advertisement>() == 16 + ADVERTISEMENT_CAPACITY);

impl Advertisement {
    /// The map value for a rendered frame; `None` when it is longer than [`ADVERTISEMENT_CAPACITY`].
    pub fn new(rendered: &[u8]) -> Option<Self> {
        let mut value = Self {
            last_multicast: 0,
            len: rendered.len() as u32,
            reserved: 0,
            frame: [0; ADVERTISEMENT_CAPACITY],
        };
        value.frame.get_mut(..rendered.len())?.copy_from_slice(rendered);
        Some(value)
    }
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, no padding (`IntoBytes`), and every bit pattern is a value (`FromBytes`).
unsafe impl aya::Pod for Advertisement {}
