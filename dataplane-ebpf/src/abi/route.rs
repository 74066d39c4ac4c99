//! Where packets to other hosts go: routes and next hops, mirrored from the kernel's FIB.

use super::Mac;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Next hops of a group. A route with more is the kernel's.
pub const MAX_NEXT_HOPS: usize = 8;

/// Value of `HOST_ROUTES` and `ROUTES`: what the kernel's FIB says about a destination.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Route {
    /// Key of its group in `NEXT_HOPS`; 0: the route is the kernel's (blackhole, unreachable, encapsulated, local ...).
    /// Such a route is in the map so that a shorter prefix does not take its packets.
    pub group: u32,
    /// Longest IPv6 packet in bytes, when the route says so; 0 otherwise.
    pub mtu: u32,
}

const _: () = assert!(size_of::<Route>() == 8);

impl Route {
    /// The group of addresses of the host itself. No such group exists.
    pub const LOCAL: u32 = u32::MAX;

    /// Whether it leads to the host itself.
    #[inline(always)]
    pub fn is_local(&self) -> bool {
        self.group == Self::LOCAL
    }
}

/// One way out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NextHop {
    /// The last flow hash that takes this way; the last hop of a group has `u32::MAX`.
    pub upper_bound: u32,
    /// The device.
    pub ifindex: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// [`next_hop_flags`].
    pub flags: u32,
    /// The next hop's MAC.
    pub mac: Mac,
    /// The device's MAC.
    pub source_mac: Mac,
}

const _: () = assert!(size_of::<NextHop>() == 28);

/// Bits of [`NextHop::flags`].
pub mod next_hop_flags {
    /// The kernel knows the next hop's MAC and trusts it. Without it packets are the kernel's, which then resolves it.
    pub const RESOLVED: u32 = 1;
    /// The device takes frames that XDP redirects.
    pub const XDP: u32 = 2;
}

/// Value of `NEXT_HOPS`, an array: the next hops of one or more routes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NextHopGroup {
    /// How many of `hops` are used, at least 1; 0: there is no such group.
    pub count: u32,
    /// The ways out, by `upper_bound`.
    pub hops: [NextHop; MAX_NEXT_HOPS],
}

const _: () = assert!(size_of::<NextHopGroup>() == 4 + 28 * MAX_NEXT_HOPS);

impl NextHopGroup {
    /// What an array holds in place of a group.
    pub const NONE: Self = Self {
        count: 0,
        hops: [NextHop {
            upper_bound: 0,
            ifindex: 0,
            mtu: 0,
            flags: 0,
            mac: Mac::new([0; 6]),
            source_mac: Mac::new([0; 6]),
        }; MAX_NEXT_HOPS],
    };
}

/// Value of `UPLINKS`: what the hooks of an uplink know about it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Uplink {
    /// Its MAC: frames to another are not ours to forward.
    pub mac: Mac,
    /// [`uplink_flags`].
    pub flags: u16,
}

const _: () = assert!(size_of::<Uplink>() == 8);

/// Bits of [`Uplink::flags`].
pub mod uplink_flags {
    /// It has a TC hook behind its XDP hook, and what GRO may put together is left to that.
    pub const STEERED: u16 = 1;
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)`, no padding (`IntoBytes`), and every bit pattern is a value (`FromBytes`).
    unsafe impl aya::Pod for super::Route {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::NextHopGroup {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Uplink {}
}
