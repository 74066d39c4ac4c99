//! What both sides of the kernel boundary agree on.
//!
//! Every type is `repr(C)` without padding (the `IntoBytes` derive refuses padding) and its size is asserted, so the
//! compiler catches a layout change. Such a change also needs a new [`VERSION`]: pinned maps outlive the program.

mod address;
mod answer;
mod counter;
mod endpoint;
mod flow;
mod policy;
mod route;

pub use address::{Address, Mac};
pub use answer::{ADVERTISEMENT_CAPACITY, Advertisement};
pub use counter::{COUNTER_SLOTS, Counter, Counters, Reason};
pub use endpoint::{Endpoint, Owner, endpoint_flags, owner_flags};
pub use flow::{Flow, FlowKey, RingPlace, ZONE_OUTSIDE, flow_flags};
pub use policy::{
    Chain, ChainPair, End, EndpointPolicy, Identity, NOBODY, PeerKey, SERVICE_PROTOCOL_BITS, ServiceKey,
    Step, StepKey, Steps, VECTOR_WORDS, Vector, chain_flags, step_actions,
};
pub use route::{MAX_NEXT_HOPS, NextHop, NextHopGroup, Route, Uplink, next_hop_flags};

/// Version of everything in this module. Pinned maps of another version are not adopted.
pub const VERSION: u32 = 2;

/// Counter slot of frames that belong to no configured endpoint.
pub const SLOT_UNCONFIGURED: u32 = 0;

/// `skb->tc_index` of a frame that the fast path itself sends towards a VM, so that its TC egress hook does not judge
/// or count it a second time. Never leaves the host: a TAP does not carry it.
pub const TC_INDEX_FORWARDED: u16 = 0x5e72;

/// Names of maps, programs and globals, as the object file spells them.
pub mod names {
    /// Hash: ifindex of a TAP (`u32`) -> [`Endpoint`](super::Endpoint).
    pub const ENDPOINTS: &str = "ENDPOINTS";
    /// Hash: [`Address`](super::Address) -> [`Owner`](super::Owner).
    pub const ADDRESSES: &str = "ADDRESSES";
    /// Hash: ifindex of a TAP (`u32`) -> [`Advertisement`](super::Advertisement).
    pub const ANSWERS: &str = "ANSWERS";
    /// Devmap hash: ifindex -> the device of that ifindex, what XDP may redirect to.
    pub const DEVICES: &str = "DEVICES";
    /// Per-CPU array: counter slot -> [`Counters`](super::Counters).
    pub const COUNTERS: &str = "COUNTERS";
    /// Hash: [`Address`](super::Address) of a /128 route -> [`Route`](super::Route).
    pub const HOST_ROUTES: &str = "HOST_ROUTES";
    /// Longest prefix match: prefix -> [`Route`](super::Route).
    pub const ROUTES: &str = "ROUTES";
    /// Hash: group number (`u32`) -> [`NextHopGroup`](super::NextHopGroup).
    pub const NEXT_HOPS: &str = "NEXT_HOPS";
    /// Hash: ifindex of an uplink (`u32`) -> [`Uplink`](super::Uplink).
    pub const UPLINKS: &str = "UPLINKS";
    /// All pinned maps.
    pub const MAPS: [&str; 9] =
        [ENDPOINTS, ADDRESSES, ANSWERS, DEVICES, COUNTERS, HOST_ROUTES, ROUTES, NEXT_HOPS, UPLINKS];

    /// Native XDP on a TAP: frames from the VM.
    pub const TAP_XDP: &str = "tap_xdp";
    /// TC ingress on a TAP: frames from the VM that XDP handed on.
    pub const TAP_IN: &str = "tap_in";
    /// TC egress on a TAP: frames that the kernel delivers to the VM.
    pub const TAP_OUT: &str = "tap_out";

    /// Native XDP on an uplink: frames from other hosts.
    pub const UPLINK_XDP: &str = "uplink_xdp";
    /// TC ingress on an uplink, after GRO: frames from other hosts.
    pub const UPLINK_IN: &str = "uplink_in";

    /// Global `u32`: 1 lets IPv6 frames of an interface without an endpoint pass (`cargo xtask load`), 0 drops them.
    pub const PASS_UNCONFIGURED: &str = "PASS_UNCONFIGURED";
}
