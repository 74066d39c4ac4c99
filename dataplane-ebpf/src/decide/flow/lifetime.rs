//! When a flow begins, is established, and is over.

use super::Question;
use crate::abi::{Flow, FlowKey, flow_flags};
use crate::wire::{icmp6, protocol};

/// Flags of TCP (RFC 9293 section 3.1).
pub mod tcp {
    /// The sender has no more data.
    pub const FIN: u32 = 1;
    /// A connection begins.
    pub const SYN: u32 = 2;
    /// A connection is no more.
    pub const RST: u32 = 4;
    /// The acknowledgement number counts.
    pub const ACK: u32 = 16;
}

/// Whether with this packet both sides have taken part.
#[inline(always)]
pub(super) fn establishes(question: &Question, flow: &Flow, other: u32) -> bool {
    if question.key.protocol != u32::from(protocol::TCP) {
        return flow.flags & flow_flags::REPLY != 0 && other & flow_flags::SEEN != 0;
    }
    // The third packet of the handshake: whoever only sends SYN never holds an established flow.
    flow.flags & flow_flags::REPLY == 0
        && other & flow_flags::SEEN != 0
        && question.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::ACK
}

/// Whether the packets of a flow have nothing more to tell of it.
#[inline(always)]
pub fn is_settled(flow: &Flow, key: &FlowKey) -> bool {
    flow.flags & (flow_flags::SEEN | flow_flags::RESET) == flow_flags::SEEN
        && (flow.flags & flow_flags::ESTABLISHED != 0
            // Here answers establish.
            || key.protocol != u32::from(protocol::TCP) && flow.flags & flow_flags::REPLY == 0)
}

/// Whether a connection ends: both sides have said so, or one has broken it off. Who has ended may still hear the other, so
/// one FIN shortens nothing; and it takes both sides to forge both.
#[inline(always)]
pub(super) fn ends(flags: u32) -> bool {
    const BOTH: u32 = flow_flags::ENDED | flow_flags::OTHER_ENDED;
    flags & BOTH == BOTH || flags & flow_flags::RESET != 0
}

/// Whether the packet begins another flow between the same ports: whoever answers has no right to it by the flow, and
/// whoever began a connection is judged again when the old one has ended.
#[inline(always)]
pub(super) fn begins_anew(flow: &Flow, question: &Question) -> bool {
    const ENDING: u32 = flow_flags::REPLY | flow_flags::ENDED | flow_flags::OTHER_ENDED | flow_flags::RESET;
    match question.key.protocol as u8 {
        protocol::TCP => question.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN && flow.flags & ENDING != 0,
        protocol::ICMP6 => {
            question.icmp_type() == u32::from(icmp6::ECHO_REQUEST) && flow.flags & flow_flags::REPLY != 0
        }
        _ => false,
    }
}

/// Whether the packet may be the first of a flow. Of TCP: a SYN; or data, when the flow was forgotten (as netfilter's
/// `nf_conntrack_tcp_loose`). An echo reply never is: the request that it would let back in is nobody's answer.
#[inline(always)]
pub(super) fn may_begin(question: &Question) -> bool {
    match question.key.protocol as u8 {
        protocol::TCP => {
            let flags = question.tcp_flags & (tcp::SYN | tcp::ACK | tcp::FIN | tcp::RST);
            matches!(flags, tcp::SYN | tcp::ACK)
        }
        protocol::ICMP6 => question.icmp_type() != u32::from(icmp6::ECHO_REPLY),
        _ => true,
    }
}

/// Whether a flow has not been seen for longer than it may be silent.
#[inline(always)]
pub fn is_over(flow: &Flow, of: u32, now: u32) -> bool {
    // Another CPU may have seen it in a second that this one has not reached yet.
    now.wrapping_sub(flow.seen).cast_signed() > patience(of, flow.flags)
}

/// How many seconds a flow may be silent.
#[inline(always)]
fn patience(of: u32, flags: u32) -> i32 {
    let established = flags & flow_flags::ESTABLISHED != 0;
    if of == u32::from(protocol::TCP) {
        if flags & flow_flags::RESET != 0 {
            40
        } else if ends(flags) {
            30
        } else if established {
            3600
        } else {
            20
        }
    } else if of == u32::from(protocol::UDP) {
        60
    } else if of == u32::from(protocol::ICMP6) {
        5
    } else if of == u32::from(protocol::FRAGMENT) {
        // As long as a receiver waits for the rest (RFC 8200 section 4.5).
        60
    } else {
        600
    }
}
