//! Flows: what was decided about the first packet, for those after it.

use super::Address;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// [`FlowKey::zone`] of packets that did not come from a TAP.
pub const ZONE_OUTSIDE: u32 = 0;

/// Key of `FLOWS`: packets of one flow in one direction, where they come in.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct FlowKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port, identifier of an ICMPv6 echo, or 0.
    pub source_port: u16,
    /// Destination port, identifier of an ICMPv6 echo, or 0.
    pub destination_port: u16,
    /// Protocol of the upper layer.
    pub protocol: u32,
    /// ifindex of the TAP that the packets come from, or [`ZONE_OUTSIDE`]: nobody sends in another's flow.
    pub zone: u32,
    /// Zero.
    pub _reserved: u32,
}

const _: () = assert!(size_of::<FlowKey>() == 48);

impl FlowKey {
    /// The key of packets in the other direction, which come in at `zone`.
    #[inline(always)]
    pub fn reverse(&self, zone: u32) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
            zone,
            _reserved: 0,
        }
    }
}

/// Value of `FLOWS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Flow {
    /// `GENERATION` of policy at which it was last allowed.
    pub generation: u64,
    /// Seconds of the clock that counts from the start of the host, when a packet of this direction was last seen; not
    /// more than a second old.
    pub seen: u32,
    /// Counter slot of the endpoint whose quota it takes from.
    pub owner: u32,
    /// [`flow_flags`].
    pub flags: u32,
    /// Zone of the other direction.
    pub reverse_zone: u32,
    /// Its place in the owner's ring.
    pub place: u32,
    /// Zero.
    pub _reserved: u32,
}

const _: () = assert!(size_of::<Flow>() == 32);

/// Bits of [`Flow::flags`].
pub mod flow_flags {
    /// The direction of the answers.
    pub const REPLY: u32 = 1;
    /// A packet went in this direction.
    pub const SEEN: u32 = 2;
    /// Packets went in both directions; of TCP, the handshake is done.
    pub const ESTABLISHED: u32 = 4;
    /// TCP: one side has said that it ends.
    pub const CLOSING: u32 = 8;
    /// The host itself has begun it, which nothing forbids.
    pub const HOST: u32 = 16;
}

/// Key of `FLOW_RINGS`: a place in the ring of an endpoint's flows, which is its quota.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct RingPlace {
    /// Counter slot of the endpoint.
    pub owner: u32,
    /// Place.
    pub place: u32,
}

const _: () = assert!(size_of::<RingPlace>() == 8);

/// Value of `FLOW_QUOTAS`: the ring of an endpoint's flows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowQuota {
    /// How many places it has; 0: no flow is remembered.
    pub places: u32,
    /// The place that comes next, before it is wrapped.
    pub hand: u32,
    /// Flows that found no place.
    pub pressure: u64,
}

const _: () = assert!(size_of::<FlowQuota>() == 16);

#[cfg(feature = "user")]
mod pod {
    // SAFETY: as below.
    unsafe impl aya::Pod for super::FlowQuota {}
    // SAFETY: `repr(C)`, no padding (`IntoBytes`), and every bit pattern is a value (`FromBytes`).
    unsafe impl aya::Pod for super::FlowKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Flow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::RingPlace {}
}
