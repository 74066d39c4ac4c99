//! Events: what the hooks tell people about single packets, as long as somebody listens.

use super::FlowKey;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most events that are told of one endpoint's packets in a second, by each CPU: a flood costs little and does not keep
/// others from being heard.
pub const EVENTS_PER_SECOND: u32 = 32;

/// Frames that the kernel copied for XDP, by each CPU and of whatever TAP, for each one that is told of.
pub const COPIES_PER_EVENT: u32 = 256;

/// [`Event::step`] when no step decided.
pub const NO_STEP: u32 = u32::MAX;

/// Record of `EVENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// Nanoseconds of the clock that counts from the start of the host (`CLOCK_MONOTONIC`), a few milliseconds coarse.
    pub time: u64,
    /// Flow of the packet. Of an ICMPv6 error, that of the packet that it is about; of a packet that the guard dropped,
    /// addresses and next header alone.
    pub key: FlowKey,
    /// One of [`event_kinds`].
    pub kind: u32,
    /// Number of the [`Reason`](super::Reason) why it was dropped, if it was.
    pub reason: u32,
    /// The chain that decided.
    pub chain: u32,
    /// The step of it that decided or logs, or [`NO_STEP`].
    pub step: u32,
    /// TAP of the VM that sent it; 0: another host, or this one.
    pub from_ifindex: u32,
    /// Counter slot of that VM; of no VM, 0 is this host and 1 any other.
    pub from_slot: u32,
    /// TAP of the VM that it is for, as of the sender.
    pub to_ifindex: u32,
    /// Counter slot of that VM, as of the sender.
    pub to_slot: u32,
    /// Destination port, or ICMPv6 type and code.
    pub service: u32,
    /// Flags, of TCP.
    pub tcp_flags: u32,
    /// Bits of [`event_flags`].
    pub flags: u32,
    /// How many events of the same endpoint were left out since the one before.
    pub suppressed: u32,
}

const _: () = assert!(size_of::<Event>() == 104);

impl Event {
    /// The event in a record of the ring buffer; `None` when it is of another length.
    pub fn from_record(record: &[u8]) -> Option<Self> {
        Self::read_from_bytes(record).ok()
    }
}

/// Values of [`Event::kind`].
pub mod event_kinds {
    /// Policy, or what is known of the flow, does not let the packet pass.
    pub const DENIED: u32 = 0;
    /// A rule logs it.
    pub const LOGGED: u32 = 1;
    /// Policy lets the first packet of a flow pass in one direction.
    pub const ALLOWED: u32 = 2;
    /// The guard dropped it.
    pub const DROPPED: u32 = 3;
    /// The kernel copied a frame from `from_ifindex` before it asked XDP, which left it to TC: one in
    /// [`COPIES_PER_EVENT`](super::COPIES_PER_EVENT). Nothing else is said of it.
    pub const COPIED: u32 = 4;
}

/// Bits of [`Event::flags`].
pub mod event_flags {
    /// XDP asked.
    pub const XDP: u32 = 1;
    /// It was on its way out to the VM, and the kernel had forwarded it.
    pub const OUT: u32 = 2;
    /// It is an answer, and was judged as the first packet of its flow, which went the other way.
    pub const ANSWER: u32 = 4;
    /// It is an ICMPv6 error.
    pub const ERROR: u32 = 8;
}

/// Value of `EVENT_CONTROL`: what is told.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EventControl {
    /// A bit for each of [`event_kinds`].
    pub kinds: u32,
    /// Of the flows that begin, one in so many is told of; 0 is none.
    pub one_in: u32,
}

const _: () = assert!(size_of::<EventControl>() == 8);

impl EventControl {
    /// Whether events of this kind are told.
    #[inline(always)]
    pub fn has(&self, kind: u32) -> bool {
        self.kinds & 1 << (kind & 31) != 0
    }

    /// Whether an event of this kind about a packet of this flow is told.
    #[inline(always)]
    pub fn wants(&self, kind: u32, key: &FlowKey) -> bool {
        if !self.has(kind) {
            return false;
        }
        kind != event_kinds::ALLOWED || is_sample(key, self.one_in)
    }
}

/// Whether a flow is one of those that are told of: the same for both of the chains that it is asked.
#[inline(always)]
fn is_sample(key: &FlowKey, one_in: u32) -> bool {
    let ([_, a], [_, b]) = (key.source.words(), key.destination.words());
    let ports = u64::from(key.source_port) << 16 | u64::from(key.destination_port);
    // An odd number without structure: 2^64 divided by the golden ratio.
    let mixed = (a ^ b.rotate_left(32) ^ ports).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 32) as u32).checked_rem(one_in) == Some(0)
}

/// Value of `EVENT_BUDGETS`, one per CPU and counter slot: how much was told of its packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EventBudget {
    /// The second that `told` is of.
    pub second: u32,
    /// Events in this second.
    pub told: u32,
    /// Events that were left out since the last one told.
    pub suppressed: u32,
    /// Zero.
    pub _reserved: u32,
    /// All events that were left out.
    pub lost: u64,
}

const _: () = assert!(size_of::<EventBudget>() == 24);

impl EventBudget {
    /// Takes the right to tell of one more; `false` when this second has none left, which is counted.
    #[inline(always)]
    pub fn take(&mut self, second: u32) -> bool {
        if self.second != second {
            self.second = second;
            self.told = 0;
        }
        if self.told >= EVENTS_PER_SECOND {
            self.lose();
            return false;
        }
        self.told += 1;
        true
    }

    /// Counts an event that is left out.
    #[inline(always)]
    pub fn lose(&mut self) {
        self.suppressed = self.suppressed.saturating_add(1);
        self.lost = self.lost.wrapping_add(1);
    }
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)`, no padding (`IntoBytes`), and every bit pattern is a value (`FromBytes`).
    unsafe impl aya::Pod for super::EventControl {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::EventBudget {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Address;

    #[test]
    fn a_flood_is_told_of_a_few_times_a_second_and_the_rest_is_counted() {
        let mut budget = EventBudget::default();
        let told = (0..1000).filter(|_| budget.take(7)).count();
        assert_eq!(told, EVENTS_PER_SECOND as usize);
        assert_eq!(u64::from(budget.suppressed), budget.lost);
        assert_eq!(budget.lost, 1000 - u64::from(EVENTS_PER_SECOND));
        assert!(budget.take(8), "the next second has its own");
    }

    #[test]
    fn only_what_is_asked_for_is_told() {
        let key = FlowKey::default();
        assert!(!EventControl::default().wants(event_kinds::DENIED, &key));
        let denials = EventControl { kinds: 1 << event_kinds::DENIED, one_in: 0 };
        assert!(denials.wants(event_kinds::DENIED, &key) && !denials.wants(event_kinds::LOGGED, &key));
        let all = |one_in| EventControl { kinds: u32::MAX, one_in };
        assert!(!all(0).wants(event_kinds::ALLOWED, &key) && all(1).wants(event_kinds::ALLOWED, &key));
    }

    #[test]
    fn about_one_flow_in_so_many_is_a_sample() {
        let flow = |port| FlowKey {
            source: Address::new([1; 16]),
            destination: Address::new([2; 16]),
            source_port: port,
            destination_port: 80,
            ..FlowKey::default()
        };
        let samples = (0..10_000).filter(|port| is_sample(&flow(*port), 10)).count();
        assert!((700..1300).contains(&samples), "{samples} of 10000");
    }
}
