//! Who is behind a TAP, and which TAP is behind an address.

use super::{Address, Mac};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Value of `ENDPOINTS`: what the hooks of a TAP know about the VM behind it.
///
/// Writing it is what switches the TAP on; userspace writes it last and removes it first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Endpoint {
    /// The first of its addresses, also in `ADDRESSES`: most frames come from there, and need one lookup less. `::` when it
    /// has none.
    pub address: Address,
    /// Link-local address of the TAP: the VM's default router.
    pub gateway: Address,
    /// The only source MAC the VM may use.
    pub mac: Mac,
    /// MAC of the TAP: destination of the VM's frames and source of ours.
    pub gateway_mac: Mac,
    /// MTU of the TAP: the longest IPv6 packet in bytes.
    pub mtu: u32,
    /// Index of its [`Counters`](super::Counters).
    pub slot: u32,
    /// [`endpoint_flags`].
    pub flags: u32,
}

const _: () = assert!(size_of::<Endpoint>() == 56);

/// Bits of [`Endpoint::flags`].
pub mod endpoint_flags {
    /// The TAP is administratively up. Without it everything is dropped: `ip link set down` does not stop XDP on a TAP.
    pub const ADMIN_UP: u32 = 1;
}

/// Value of `ADDRESSES`: who has an IPv6 address. Destination lookup and anti-spoofing in one: a source is legal when
/// its owner is the TAP it came from.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Owner {
    /// The TAP of the owner; 0 for [`owner_flags::GATEWAY`].
    pub ifindex: u32,
    /// MTU of that TAP in bytes.
    pub mtu: u32,
    /// Counter slot of the owner.
    pub slot: u32,
    /// [`owner_flags`].
    pub flags: u32,
    /// Destination MAC of frames to the owner.
    pub mac: Mac,
    /// Source MAC of frames to the owner.
    pub gateway_mac: Mac,
}

const _: () = assert!(size_of::<Owner>() == 28);

/// Bits of [`Owner::flags`].
pub mod owner_flags {
    /// The address is a gateway's: we answer for it, and its packets are the host's.
    pub const GATEWAY: u32 = 1;
    /// The owner's TAP is administratively up and may be redirected to.
    pub const REACHABLE: u32 = 2;
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)`, no padding (`IntoBytes`), and every bit pattern is a value (`FromBytes`).
    unsafe impl aya::Pod for super::Endpoint {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Owner {}
}
