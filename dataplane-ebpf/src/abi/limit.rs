//! How much of an endpoint is answered or handed to the host itself.

use super::Address;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Link-local addresses of an endpoint that the host deals with at a time.
pub const LINK_LOCALS: usize = 8;

/// A token bucket's sizes, in nanoseconds: what a packet costs, and how much a full bucket holds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Rate {
    /// Time that pays for one packet; 0: packets are free.
    pub cost: u64,
    /// Time that is saved up at most.
    pub capacity: u64,
}

const _: () = assert!(size_of::<Rate>() == 16);

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self { cost: 0, capacity: 0 };

    /// So many packets a second in the long run, and so many at once.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let cost = 1_000_000_000 / u64::from(per_second.max(1));
        Self { cost, capacity: cost * u64::from(burst) }
    }
}

/// Value of `ALLOWANCES`, by counter slot: what an endpoint has used up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Allowance {
    /// The TAP it is of: whoever has the slot next begins anew.
    pub ifindex: u32,
    /// Zero.
    pub _reserved: u32,
    /// When all answers so far will be paid for, in nanoseconds of the clock that counts from the start of the host.
    pub answers: u64,
    /// The same of packets for the host.
    pub host: u64,
    /// The same of packets for which the kernel has to find a neighbour.
    pub neighbours: u64,
    /// Link-local addresses it has used.
    pub link_locals: [LinkLocal; LINK_LOCALS],
}

const _: () = assert!(size_of::<Allowance>() == 32 + 24 * LINK_LOCALS);

/// A link-local address that an endpoint has used.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LinkLocal {
    /// When it was seen last, as of [`Allowance::answers`]; 0: never.
    pub seen: u64,
    /// The address.
    pub address: Address,
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)`, no padding (`IntoBytes`), and every bit pattern is a value (`FromBytes`).
    unsafe impl aya::Pod for super::Rate {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Allowance {}
}
