//! What is asked about a packet: who sends it, whom it is for, and what it is.

use super::super::policy::Subject;
use super::Flows;
use crate::abi::{Exit, Flow, FlowKey, Link, Way, ZONE_HOST, ZONE_OUTSIDE, flow_flags};
use crate::wire::protocol;

/// One end of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Party {
    /// Its TAP, if it is a VM of this host.
    pub(in crate::decide) ifindex: u32,
    /// Its counter slot, if it is a VM of this host; else one of the two below.
    pub(in crate::decide) slot: u32,
}

impl Party {
    /// This host.
    pub const HOST: Self = Self { ifindex: ZONE_OUTSIDE, slot: 0 };
    /// Somebody else.
    pub const OUTSIDE: Self = Self { ifindex: ZONE_OUTSIDE, slot: 1 };

    /// A VM of this host.
    #[inline(always)]
    pub fn endpoint(ifindex: u32, slot: u32) -> Self {
        Self { ifindex, slot }
    }

    /// Whether it is a VM of this host.
    #[inline(always)]
    pub fn is_endpoint(&self) -> bool {
        self.ifindex != ZONE_OUTSIDE
    }

    /// Whether it is this host.
    #[inline(always)]
    pub fn is_host(&self) -> bool {
        !self.is_endpoint() && self.slot == Self::HOST.slot
    }

    /// Where its packets come in.
    #[inline(always)]
    pub fn zone(&self) -> u32 {
        if self.is_host() { ZONE_HOST } else { self.ifindex }
    }
}

/// A packet that is to be judged. Plain memory without padding, as it is handed to a function of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Question {
    /// Its flow.
    pub key: FlowKey,
    /// Who sends it.
    pub from: Party,
    /// Whom it is for.
    pub to: Party,
    /// Destination port, or ICMPv6 type and code.
    pub service: u32,
    /// Flags, of TCP.
    pub tcp_flags: u32,
    /// [`question_flags`].
    pub flags: u32,
    /// Identification of the packet's fragments, if it is one.
    pub fragment: u32,
    /// In the kernel, the generation of policy by which it is judged from beginning to end: a flow that one allowed must
    /// not be remembered as allowed by the next.
    pub generation: u64,
    /// The epoch of forwarding before anything was looked up for it.
    pub epoch: u64,
    /// The link that it comes from, if that is a VM's.
    pub link: Link,
    /// Where it goes, if other packets of its flow may go there unasked.
    pub exit: Exit,
}

const _: () = assert!(size_of::<Question>() == 136);

/// Bits of [`Question::flags`].
pub mod question_flags {
    /// It is no flow: ICMPv6 other than echo and errors. Answers need a right of their own.
    pub const NO_FLOW: u32 = 1;
    /// It is an ICMPv6 error, and the key is that of the packet that it is about, where that came in.
    pub const ERROR: u32 = 2;
    /// It is the first of several fragments.
    pub const FIRST_FRAGMENT: u32 = 4;
    /// It is a later fragment, and the key is that of all fragments of its packet.
    pub const LATER_FRAGMENT: u32 = 8;
    /// XDP asks.
    pub const XDP: u32 = 16;
    /// It is on its way out to a VM, and the kernel has forwarded it.
    pub const OUT: u32 = 32;
}

impl Question {
    /// What policy looks at: this packet; or, if it is an answer, the first one of its flow.
    #[inline(always)]
    pub fn subject(&self, answer: bool) -> Subject<'_> {
        let key = &self.key;
        let is_icmp = key.protocol == u32::from(protocol::ICMP6);
        if answer {
            Subject {
                source: &key.destination,
                destination: &key.source,
                protocol: key.protocol as u8,
                source_port: if is_icmp { 0 } else { key.destination_port },
                destination_port: if is_icmp { ECHO_REQUEST } else { key.source_port },
            }
        } else {
            Subject {
                source: &key.source,
                destination: &key.destination,
                protocol: key.protocol as u8,
                source_port: if is_icmp { 0 } else { key.source_port },
                destination_port: self.service as u16,
            }
        }
    }

    /// Its type, if it is an ICMPv6 message.
    #[inline(always)]
    pub(super) fn icmp_type(&self) -> u32 {
        self.service >> 8
    }

    /// Counter slot of the endpoint whose quota a flow takes from that begins with this packet.
    #[inline(always)]
    pub(super) fn payer(&self) -> u32 {
        if self.from.is_endpoint() { self.from.slot } else { self.to.slot }
    }

    /// Writes the flow that begins with this packet.
    #[inline(always)]
    pub(super) fn flow<T: Flows>(&self, tables: &T, flow: &mut Flow) {
        let host = if self.from.is_host() { flow_flags::HOST } else { 0 };
        *flow = Flow {
            generation: tables.generation(),
            way: self.way(),
            seen: tables.now(),
            owner: self.payer(),
            flags: flow_flags::SEEN | host,
            reverse_zone: self.to.zone(),
            place: 0,
            _reserved: 0,
        };
    }

    /// What its flow is to remember of its way.
    #[inline(always)]
    pub(super) fn way(&self) -> Way {
        if self.exit.is_some() && self.epoch != 0 {
            Way::new(self.exit, self.link, &self.key, self.epoch)
        } else {
            Way::NONE
        }
    }

    /// The key of all fragments of this packet.
    #[inline(always)]
    pub(in crate::decide) fn fragment_key(&self) -> FlowKey {
        FlowKey {
            source_port: self.fragment as u16,
            destination_port: (self.fragment >> 16) as u16,
            protocol: u32::from(protocol::FRAGMENT),
            ..self.key
        }
    }
}

/// Type and code of an ICMPv6 echo request (RFC 4443 section 4.1) as one number.
const ECHO_REQUEST: u16 = 128 << 8;
