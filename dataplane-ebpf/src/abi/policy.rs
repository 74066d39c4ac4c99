//! Compiled policy: chains of steps as bit vectors, by who, whom, and what. See `decide::policy`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Words of a vector that does not fit into its summary.
pub const VECTOR_WORDS: usize = 64;

/// The identity of an address that no set of any policy has.
pub const NOBODY: u32 = 0;

/// Steps of a chain, one bit each.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Steps {
    /// Of a chain of up to 64 steps: the steps themselves. Of a longer one: which words of the vector are not zero.
    pub summary: u64,
    /// Key of the words in `VECTORS`, of a longer chain.
    pub vector: u32,
    /// Zero.
    pub _reserved: u32,
}

const _: () = assert!(size_of::<Steps>() == 16);

/// Value of `CHAINS`: a list of steps that a packet is measured by.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Chain {
    /// Steps that an identity that is not in `PEERS` matches as source.
    pub source: Steps,
    /// The same as destination.
    pub destination: Steps,
    /// Steps that a protocol and destination port that is not in `SERVICES` matches.
    pub service: Steps,
    /// The same of the source port.
    pub source_port: Steps,
    /// [`chain_flags`].
    pub flags: u32,
    /// Zero.
    pub _reserved: u32,
}

const _: () = assert!(size_of::<Chain>() == 72);

/// Bits of [`Chain::flags`]. What no step asks for is not looked up.
pub mod chain_flags {
    /// Some step asks who the source is.
    pub const SOURCE: u32 = 1;
    /// Some step asks who the destination is.
    pub const DESTINATION: u32 = 2;
    /// Some step asks for protocol, destination port, or ICMPv6 type and code.
    pub const SERVICE: u32 = 4;
    /// Some step asks for the source port.
    pub const SOURCE_PORT: u32 = 8;
    /// There are more than 64 steps.
    pub const LONG: u32 = 16;
}

/// Which end of a packet a table is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// Where it comes from.
    Source = 0,
    /// Where it goes.
    Destination = 1,
}

/// Key of `PEERS`, whose values are [`Steps`]: what an identity matches at one end.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct PeerKey {
    /// Number of the chain, times two, plus the [`End`].
    pub table: u32,
    /// Identity.
    pub identity: u32,
}

const _: () = assert!(size_of::<PeerKey>() == 8);

impl PeerKey {
    /// Of an end of a chain.
    pub fn new(chain: u32, end: End, identity: u32) -> Self {
        Self { table: chain.wrapping_mul(2) + end as u32, identity }
    }
}

/// Bits of a key of `SERVICES` before the port: a prefix that ends there is the protocol with any port.
pub const SERVICE_PROTOCOL_BITS: u32 = 48;

/// Key of `SERVICES` (longest prefix match, without its length), whose values are [`Steps`]. Bytes in the order in which
/// prefixes are compared.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct ServiceKey(pub [u8; 8]);

impl ServiceKey {
    /// Of an end of a chain: the destination's port, or ICMPv6 type and code as one number, or the source's port.
    pub fn new(chain: u32, end: End, protocol: u8, port: u16) -> Self {
        let [a, b, c, d] = (chain.wrapping_mul(2) + end as u32).to_be_bytes();
        let [high, low] = port.to_be_bytes();
        Self([a, b, c, d, 0, protocol, high, low])
    }

    /// Number of the chain.
    pub fn chain(&self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d]) / 2
    }
}

/// Value of `VECTORS`: the words of a long chain's [`Steps`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Vector {
    /// Step n is bit n % 64 of word n / 64.
    pub words: [u64; VECTOR_WORDS],
}

const _: () = assert!(size_of::<Vector>() == 512);

/// Key of `STEPS`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct StepKey {
    /// Number of the chain.
    pub chain: u32,
    /// Number of the step.
    pub step: u32,
}

const _: () = assert!(size_of::<StepKey>() == 8);

/// Value of `STEPS`: what happens to a packet whose first matching step it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Step {
    /// One of [`step_actions`].
    pub action: u32,
    /// The step that is asked next, if the action says so.
    pub next: u32,
    /// Index in `RULE_COUNTERS`.
    pub counter: u32,
}

const _: () = assert!(size_of::<Step>() == 12);

/// Values of [`Step::action`].
pub mod step_actions {
    /// The packet is dropped.
    pub const DENY: u32 = 0;
    /// The packet may pass in this direction.
    pub const ALLOW: u32 = 1;
    /// The step `next` decides.
    pub const GO_TO: u32 = 2;
    /// The packet is logged, and the step `next` decides.
    pub const LOG: u32 = 3;
}

/// A value that changes together with others: readers see all of them before the change, or all of them after it.
///
/// Userspace writes values of the next generation beside those of the present one, then the generation; what is written
/// twice has both. A reader takes the generation once.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Identity {
    /// The generation from which on `after` counts.
    pub generation: u64,
    /// The identity before.
    pub before: u32,
    /// The identity after.
    pub after: u32,
}

const _: () = assert!(size_of::<Identity>() == 16);

impl Identity {
    /// The identity at a generation.
    #[inline(always)]
    pub fn at(&self, generation: u64) -> u32 {
        if self.generation <= generation { self.after } else { self.before }
    }
}

/// Value of `POLICIES`, by the endpoint's ifindex: the chains of its packets. Changes as [`Identity`] does.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EndpointPolicy {
    /// The generation from which on `after` counts.
    pub generation: u64,
    /// The chains before.
    pub before: ChainPair,
    /// The chains after.
    pub after: ChainPair,
}

const _: () = assert!(size_of::<EndpointPolicy>() == 24);

/// The chains of an endpoint.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ChainPair {
    /// Of packets to the VM.
    pub ingress: u32,
    /// Of packets from the VM.
    pub egress: u32,
}

impl EndpointPolicy {
    /// The chains at a generation.
    #[inline(always)]
    pub fn at(&self, generation: u64) -> &ChainPair {
        if self.generation <= generation { &self.after } else { &self.before }
    }
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)`, no padding (`IntoBytes`), and every bit pattern is a value (`FromBytes`).
    unsafe impl aya::Pod for super::Chain {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Steps {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::PeerKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::ServiceKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Vector {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::StepKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Step {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Identity {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::EndpointPolicy {}
}
