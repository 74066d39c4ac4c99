//! From a packet to the question that policy answers.

use super::flow::{Party, Question, question_flags};
use super::guard::{Packet, header};
use crate::abi::{Address, Exit, FlowKey, Link, Reason};
use crate::wire::{Fragment, Frame, IPV6_LEN, Icmp6Header, TcpHeader, UdpHeader, icmp6, protocol};
use core::hint::cold_path;
use zerocopy::network_endian::U16;

/// Bytes of an ICMPv6 error before the packet that it is about (RFC 4443 section 3).
const ERROR_LEN: usize = 8;
/// Types below are errors (RFC 4443 section 2.1).
const INFORMATIONAL: u8 = 128;
/// UDP ports of DHCPv6 clients and servers, and of DNS.
pub(super) const DHCP6: (u16, u16) = (546, 547);
pub(super) const DNS: u16 = 53;

/// Writes what is to be asked about a packet, at the generation and epoch that are there; `false` when nothing is: what every VM needs of its host is always allowed
/// (as Felix does for OpenStack).
#[inline(always)]
pub fn about<F: Frame>(
    frame: &F,
    packet: &Packet,
    from: Party,
    to: Party,
    question: &mut Question,
) -> Result<bool, Reason> {
    let chain = &packet.chain;
    *question = Question {
        key: FlowKey {
            source: packet.source,
            destination: packet.destination,
            source_port: 0,
            destination_port: 0,
            protocol: u32::from(chain.protocol),
            zone: from.zone(),
            _reserved: 0,
        },
        from,
        to,
        service: 0,
        tcp_flags: 0,
        flags: 0,
        fragment: chain.identification,
        generation: question.generation,
        epoch: question.epoch,
        link: Link::NONE,
        exit: Exit::NONE,
    };
    match chain.fragment {
        Fragment::Whole | Fragment::Atomic => {}
        Fragment::First => question.flags |= question_flags::FIRST_FRAGMENT,
        Fragment::Later => {
            cold_path();
            question.key = question.fragment_key();
            question.flags |= question_flags::LATER_FRAGMENT;
            return Ok(true);
        }
    }
    match chain.protocol {
        protocol::TCP => {
            if let Some(tcp) = header::<TcpHeader, F>(frame, chain) {
                ports(question, tcp.ports[0].get(), tcp.ports[1].get());
                question.tcp_flags = u32::from(tcp.flags);
            }
        }
        protocol::UDP => {
            if let Some(udp) = header::<UdpHeader, F>(frame, chain) {
                let (source, destination) = (udp.source_port.get(), udp.destination_port.get());
                if to.is_host() && ((source, destination) == DHCP6 || destination == DNS) {
                    return Ok(false);
                }
                ports(question, source, destination);
            }
        }
        protocol::SCTP | protocol::UDP_LITE => {
            if let Some([source, destination]) = header::<[U16; 2], F>(frame, chain) {
                ports(question, source.get(), destination.get());
            }
        }
        protocol::ICMP6 => return icmp(frame, packet, question),
        _ => {}
    }
    Ok(true)
}

#[inline(always)]
fn ports(question: &mut Question, source: u16, destination: u16) {
    question.key.source_port = source;
    question.key.destination_port = destination;
    question.service = u32::from(destination);
}

#[inline(always)]
fn icmp<F: Frame>(frame: &F, packet: &Packet, question: &mut Question) -> Result<bool, Reason> {
    let Some(message) = header::<Icmp6Header, F>(frame, &packet.chain) else {
        return Err(Reason::Malformed);
    };
    question.service = u32::from(u16::from_be_bytes([message.kind, message.code]));
    match message.kind {
        icmp6::ECHO_REQUEST | icmp6::ECHO_REPLY => {
            let Some([_, _, identifier]) = header::<[U16; 3], F>(frame, &packet.chain) else {
                return Err(Reason::Malformed);
            };
            let identifier = identifier.get();
            question.key.source_port = identifier;
            question.key.destination_port = identifier;
        }
        kind if kind < INFORMATIONAL => {
            cold_path();
            // The host's own are about what it could not forward, and are not asked about.
            if question.from.is_host() {
                return Ok(false);
            }
            question.key = inner(frame, packet, question.to)?;
            question.flags |= question_flags::ERROR;
        }
        icmp6::MLD_QUERY | icmp6::MLD_REPORT | icmp6::MLD_DONE | icmp6::MLD2_REPORT
            if question.to.is_host() =>
        {
            return Ok(false);
        }
        _ => question.flags |= question_flags::NO_FLOW,
    }
    Ok(true)
}

/// The flow of the packet that an error is about, which the receiver of the error must have sent.
#[inline(always)]
fn inner<F: Frame>(frame: &F, packet: &Packet, to: Party) -> Result<FlowKey, Reason> {
    let unrelated = Reason::UnrelatedError;
    let start = packet.chain.offset + ERROR_LEN;
    // By words, as the compiler would otherwise read odd bytes of the copy together, which the verifier refuses.
    let [first, a, b, c, d]: [u64; IPV6_LEN / 8] = frame.load(start).ok_or(unrelated)?;
    let (source, destination) = (Address::from_words([a, b]), Address::from_words([c, d]));
    if source != packet.destination {
        return Err(unrelated);
    }
    let mut upper = start + IPV6_LEN;
    let mut next_header = (u64::from_be(first) >> 8) as u8;
    if next_header == protocol::FRAGMENT {
        let header = u64::from_be(frame.load(upper).ok_or(unrelated)?);
        // A later fragment shows no ports.
        if header >> 32 & 0xfff8 != 0 {
            return Err(unrelated);
        }
        next_header = (header >> 56) as u8;
        upper += 8;
    }
    let header = u64::from_be(frame.load(upper).ok_or(unrelated)?);
    let (source_port, destination_port) = match next_header {
        protocol::TCP | protocol::UDP | protocol::SCTP | protocol::UDP_LITE => {
            ((header >> 48) as u16, (header >> 32) as u16)
        }
        protocol::ICMP6 if matches!((header >> 56) as u8, icmp6::ECHO_REQUEST | icmp6::ECHO_REPLY) => {
            ((header >> 16) as u16, (header >> 16) as u16)
        }
        // No flow, so that the errors about it belong to none.
        protocol::ICMP6 => return Err(unrelated),
        _ => (0, 0),
    };
    Ok(FlowKey {
        source,
        destination,
        source_port,
        destination_port,
        protocol: u32::from(next_header),
        zone: to.zone(),
        _reserved: 0,
    })
}
