//! Flows: what was decided about the first packet, for those after it.

use super::{Address, Mac};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

/// [`FlowKey::zone`] of packets from other hosts.
pub const ZONE_OUTSIDE: u32 = 0;
/// [`FlowKey::zone`] of packets that this host itself made, which nobody else sends in the flows of.
pub const ZONE_HOST: u32 = u32::MAX;

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
    /// ifindex of the TAP that the packets come from, [`ZONE_OUTSIDE`] or [`ZONE_HOST`]: nobody sends in another's flow.
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

/// The way out for a packet. No `Option` of it is handed around: the compiler leaves what is in `None` undefined, and moves
/// it all the same, which the verifier refuses.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Exit {
    /// Destination MAC.
    pub mac: Mac,
    /// Longest IPv6 packet in bytes, or the longest number that fits.
    pub mtu: u16,
    /// Source MAC.
    pub source_mac: Mac,
    /// [`exit_flags`].
    pub flags: u16,
    /// The device; 0 is none.
    pub ifindex: u32,
    /// Counter slot of the VM that it is delivered to; `SLOT_UNCONFIGURED` when it leaves the host.
    pub slot: u32,
}

const _: () = assert!(size_of::<Exit>() == 24);

/// Bits of [`Exit::flags`].
pub mod exit_flags {
    /// XDP may send there.
    pub const XDP: u16 = 1;
    /// With no device: there is a way, but it is not for XDP.
    pub const NOT_BY_XDP: u16 = 2;
}

impl Exit {
    /// No way: it is the kernel's.
    pub const NONE: Self =
        Self { mac: Mac::ZERO, mtu: 0, source_mac: Mac::ZERO, flags: 0, ifindex: 0, slot: 0 };
    /// See [`exit_flags::NOT_BY_XDP`].
    pub const NOT_BY_XDP: Self = Self { flags: exit_flags::NOT_BY_XDP, ..Self::NONE };

    /// Whether there is a way.
    #[inline(always)]
    pub fn is_some(&self) -> bool {
        self.ifindex != 0
    }
}

/// What packets of a flow have in common before their addresses: the MACs of the link that they come from, and whose they
/// are. Of other hosts nothing is noted, which is [`Link::NONE`].
///
/// Numbers, not [`Mac`]s: the compiler would put those together on the stack, of which a program has little.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Link {
    /// Source MAC in the lower 48 bits, and above it the VM's counter slot.
    source: u64,
    /// Destination MAC.
    destination: u64,
}

const _: () = assert!(size_of::<Link>() == 16);

/// The bits of a MAC.
const MAC_BITS: u32 = 48;

impl Link {
    /// That of another host.
    pub const NONE: Self = Self { source: 0, destination: 0 };

    /// That of a frame with these MACs as numbers, destination and source, from the VM with this counter slot.
    #[inline(always)]
    pub fn new([destination, source]: [u64; 2], slot: u16) -> Self {
        Self { source: source | u64::from(slot) << MAC_BITS, destination }
    }

    /// Counter slot of the VM.
    #[inline(always)]
    pub fn slot(&self) -> u32 {
        (self.source >> MAC_BITS) as u32
    }
}

/// The way of a flow's packets in one direction, as one of them found it.
///
/// CPUs write it in place at the same time, and the kernel gives the memory of an entry that is removed to another flow at
/// once, so whoever reads it may see parts of several. The seal tells: it is of this way, of this flow, and of the epoch in
/// which it was found, so that a way that was found before a change of forwarding is none either.
///
/// The seal is no secret, and a VM chooses MACs as it likes: two of its words could be made to make up for each other. So one
/// of the two MACs is here, to be compared, and only the other is in the seal alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Way {
    exit: [u64; 3],
    /// [`Link`]'s.
    source: u64,
    seal: u64,
}

const _: () = assert!(size_of::<Way>() == 40);

/// Large odd numbers without structure, one a word: a difference in one word always shows in the sum of the products.
const SEALS: [u64; 9] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0xd6e8_feb8_6659_fd93,
    0xa076_1d64_78bd_642f,
    0xe703_7ed1_a0b4_28db,
    0x8ebc_6af0_9c88_c6e3,
    0x5899_65cc_7537_4cc3,
    0x1d8e_4e27_c47d_124f,
];

impl Way {
    /// None is known.
    pub const NONE: Self = Self { exit: [0; 3], source: 0, seal: 0 };

    /// The way of the packets of `key` that come from `link`, found in `epoch`.
    #[inline(always)]
    pub fn new(exit: Exit, link: Link, key: &FlowKey, epoch: u64) -> Self {
        let exit = transmute!(exit);
        Self { exit, source: link.source, seal: seal(&exit, &link, key, epoch) }
    }

    /// Whether one is known, of whatever epoch.
    #[inline(always)]
    pub fn is_some(&self) -> bool {
        self.seal != 0
    }

    /// Writes the way and whose packets these are, if it is that of packets with these MACs in this epoch, and says whether
    /// it is.
    #[inline(always)]
    pub fn of(&self, key: &FlowKey, epoch: u64, link: &mut Link, found: &mut Exit) -> bool {
        // SAFETY: a reference can be read. Each word once: what is used must be what the seal was compared with.
        let read = |word: &u64| unsafe { core::ptr::read_volatile(word) };
        let exit = [read(&self.exit[0]), read(&self.exit[1]), read(&self.exit[2])];
        let known = Link { source: read(&self.source), destination: link.destination };
        let same_mac = (known.source ^ link.source) << (u64::BITS - MAC_BITS) == 0;
        if !same_mac || read(&self.seal) != seal(&exit, &known, key, epoch) {
            return false;
        }
        *link = known;
        *found = transmute!(exit);
        true
    }
}

impl PartialEq for Way {
    /// What is derived becomes a call, which counts 32 bytes of a program's 512 of stack.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let differ = (self.exit[0] ^ other.exit[0])
            | (self.exit[1] ^ other.exit[1])
            | (self.exit[2] ^ other.exit[2])
            | (self.source ^ other.source)
            | (self.seal ^ other.seal);
        differ == 0
    }
}

#[inline(always)]
fn seal(exit: &[u64; 3], link: &Link, key: &FlowKey, epoch: u64) -> u64 {
    let ([a, b], [c, d]) = (key.source.words(), key.destination.words());
    let ports = u64::from(key.source_port) << 16 | u64::from(key.destination_port);
    let what = ports << 32 | u64::from(key.protocol ^ key.zone.rotate_left(8));
    let (from, to) = (b ^ a.rotate_left(32), d ^ c.rotate_left(32));
    let words = [exit[0], exit[1], exit[2], from, to, what, epoch, link.source, link.destination];
    let mut sum = 0u64;
    let mut word = 0;
    while word < words.len() {
        sum = sum.wrapping_add(words[word].wrapping_mul(SEALS[word]));
        word += 1;
    }
    sum
}

/// Value of `FLOWS`. With key and what the kernel adds it fills most of three lines of the cache; what every packet reads is
/// first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Flow {
    /// Where its packets go.
    pub way: Way,
    /// `GENERATION` of policy at which it was last allowed.
    pub generation: u64,
    /// When a packet of this direction was last seen, in seconds of the kernel's jiffies; they begin somewhere, and count
    /// while the host runs. Not more than a second old.
    pub seen: u32,
    /// [`flow_flags`].
    pub flags: u32,
    /// Counter slot of the endpoint whose quota it takes from.
    pub owner: u32,
    /// Zone of the other direction.
    pub reverse_zone: u32,
    /// Its place in the owner's ring.
    pub place: u32,
    /// Zero.
    pub _reserved: u32,
}

const _: () = assert!(size_of::<Flow>() == 72);

/// Bits of [`Flow::flags`].
pub mod flow_flags {
    /// The direction of the answers.
    pub const REPLY: u32 = 1;
    /// A packet went in this direction.
    pub const SEEN: u32 = 2;
    /// Packets went in both directions; of TCP, the handshake is done.
    pub const ESTABLISHED: u32 = 4;
    /// TCP: the sender of this direction has said that it ends.
    pub const ENDED: u32 = 8;
    /// The host itself has begun it, which nothing forbids.
    pub const HOST: u32 = 16;
    /// TCP: the sender of the other direction has said that it ends.
    pub const OTHER_ENDED: u32 = 32;
    /// TCP: one side has broken it off, and nobody has sent anything since.
    pub const RESET: u32 = 64;
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
