//! What both sides of the kernel boundary agree on.
//!
//! Every type is `repr(C)` without padding (the `IntoBytes` derive refuses padding) and its size is asserted, so the
//! compiler catches a layout change. Such a change also needs a new [`VERSION`]: pinned maps outlive the program.

mod address;
mod answer;
mod counter;
mod endpoint;
mod event;
mod flow;
mod limit;
mod policy;
mod route;

pub use address::{Address, Mac};
pub use answer::{ADVERTISEMENT_CAPACITY, Advertisement};
pub use counter::{COUNTER_SLOTS, Counter, Counters, Reason};
pub use endpoint::{Endpoint, Owner, endpoint_flags, owner_flags};
pub use event::{
    COPIES_PER_EVENT, EVENTS_PER_SECOND, Event, EventBudget, EventControl, NO_STEP, event_flags, event_kinds,
};
pub use flow::{
    Exit, Flow, FlowKey, FlowQuota, Link, RingPlace, Way, ZONE_HOST, ZONE_OUTSIDE, exit_flags, flow_flags,
};
pub use limit::{Allowance, LINK_LOCALS, LinkLocal, Rate};
pub use policy::{
    Chain, ChainPair, End, EndpointPolicy, Identity, NOBODY, PeerKey, SERVICE_PROTOCOL_BITS, ServiceKey,
    Step, StepKey, Steps, VECTOR_WORDS, Vector, chain_flags, step_actions,
};
pub use route::{MAX_NEXT_HOPS, NextHop, NextHopGroup, Route, Uplink, next_hop_flags, uplink_flags};

/// Version of everything in this module. Pinned maps of another version are not adopted.
pub const VERSION: u32 = 7;

/// Key in `GENERATION` of the generation of policy.
pub const GENERATION_OF_POLICY: u32 = 0;

/// Key in `GENERATION` of the epoch of forwarding: it is another after every change of a map that ways are found in
/// (`ENDPOINTS`, `ADDRESSES`, `HOST_ROUTES`, `ROUTES`, `NEXT_HOPS`, `UPLINKS`), so that what was found before does not count
/// any more. `DEVICES` is asked for every frame. 0: no way is remembered.
pub const EPOCH_OF_FORWARDING: u32 = 1;

/// Counter slot of frames that belong to no configured endpoint.
pub const SLOT_UNCONFIGURED: u32 = 0;

/// [`names::MARK`] where userspace gives no other.
pub const MARK: u32 = 0x5e72;

/// [`names::TICK`] where userspace gives no other: that of Debian's kernels.
pub const TICK: u64 = 4_000_000;

/// What is added to the mark of a frame from a VM that TC judged and left to the kernel: the egress hook of the TAP that the
/// kernel may forward it to does not judge it again.
pub const MARK_JUDGED: u32 = 1;

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
    pub const MAPS: [&str; 22] = [
        ENDPOINTS,
        ADDRESSES,
        ANSWERS,
        DEVICES,
        COUNTERS,
        HOST_ROUTES,
        ROUTES,
        NEXT_HOPS,
        UPLINKS,
        GENERATION,
        POLICIES,
        CHAINS,
        HOST_IDENTITIES,
        IDENTITIES,
        PEERS,
        SERVICES,
        VECTORS,
        STEPS,
        RULE_COUNTERS,
        FLOWS,
        FLOW_RINGS,
        FLOW_QUOTAS,
    ];

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

    /// Array of two `u64`, beside each other as every packet needs both: the generation of policy that counts now (see
    /// [`Identity`](super::Identity)), and the epoch of forwarding.
    pub const GENERATION: &str = "GENERATION";
    /// Hash: ifindex of a TAP (`u32`) -> [`EndpointPolicy`](super::EndpointPolicy).
    pub const POLICIES: &str = "POLICIES";
    /// Hash: number of a chain (`u32`) -> [`Chain`](super::Chain).
    pub const CHAINS: &str = "CHAINS";
    /// Hash: [`Address`](super::Address) -> [`Identity`](super::Identity).
    pub const HOST_IDENTITIES: &str = "HOST_IDENTITIES";
    /// Longest prefix match: prefix -> [`Identity`](super::Identity), of addresses that `HOST_IDENTITIES` lacks.
    pub const IDENTITIES: &str = "IDENTITIES";
    /// Hash: [`PeerKey`](super::PeerKey) -> [`Steps`](super::Steps).
    pub const PEERS: &str = "PEERS";
    /// Longest prefix match: [`ServiceKey`](super::ServiceKey) -> [`Steps`](super::Steps).
    pub const SERVICES: &str = "SERVICES";
    /// Hash: number of a vector (`u32`) -> [`Vector`](super::Vector).
    pub const VECTORS: &str = "VECTORS";
    /// Hash: [`StepKey`](super::StepKey) -> [`Step`](super::Step).
    pub const STEPS: &str = "STEPS";
    /// Per-CPU array: how often a step decided (`u64`).
    pub const RULE_COUNTERS: &str = "RULE_COUNTERS";
    /// Hash: [`FlowKey`](super::FlowKey) -> [`Flow`](super::Flow).
    pub const FLOWS: &str = "FLOWS";
    /// Hash: [`RingPlace`](super::RingPlace) -> [`FlowKey`](super::FlowKey).
    pub const FLOW_RINGS: &str = "FLOW_RINGS";
    /// Array: counter slot -> [`FlowQuota`](super::FlowQuota).
    pub const FLOW_QUOTAS: &str = "FLOW_QUOTAS";

    /// Array: counter slot -> [`Allowance`](super::Allowance).
    pub const ALLOWANCES: &str = "ALLOWANCES";

    /// Ring buffer of [`Event`](super::Event)s.
    pub const EVENTS: &str = "EVENTS";
    /// Array of one: [`EventControl`](super::EventControl).
    pub const EVENT_CONTROL: &str = "EVENT_CONTROL";
    /// Per-CPU array: counter slot -> [`EventBudget`](super::EventBudget).
    pub const EVENT_BUDGETS: &str = "EVENT_BUDGETS";

    /// Global `u32`, even, 16 bits: `skb->tc_index` of a frame that the fast path itself sends towards a VM, so that the TC
    /// egress hook there does not judge or count it a second time. The index survives a veth, so each host on one kernel
    /// has its own.
    pub const MARK: &str = "MARK";
    /// Global `u32`: 1 when policy counts; with 0 everything passes that the guard lets pass.
    pub const POLICED: &str = "POLICED";
    /// Global `u64`: nanoseconds from one jiffy of this kernel to the next; the clock of flows counts them
    /// ([`Flow::seen`](super::Flow::seen)).
    pub const TICK: &str = "TICK";
    /// Global `u32`: 1 lets VMs talk to the host as far as their own policy allows.
    pub const HOST_IS_OPEN: &str = "HOST_IS_OPEN";
    /// Global `u32`: 1 has what the host itself sends to VMs judged by their own policy, but for what every VM needs.
    pub const HOST_IS_JUDGED: &str = "HOST_IS_JUDGED";
    /// Global [`Rate`](super::Rate): solicitations of an endpoint that are answered.
    pub const ANSWER_RATE: &str = "ANSWER_RATE";
    /// Global [`Rate`](super::Rate): packets of an endpoint that are handed to the host itself.
    pub const HOST_RATE: &str = "HOST_RATE";
    /// Global `u32`: 1 lets IPv6 frames of an interface without an endpoint pass (`cargo xtask load`), 0 drops them.
    pub const PASS_UNCONFIGURED: &str = "PASS_UNCONFIGURED";
}
