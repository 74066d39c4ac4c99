//! A chain, asked step by step: what nftables does with one, said here for people and tests. The hooks ask tables, which
//! name only the first step that logs.

use super::chain::{Chain, EndMatch, Match, Step, StepAction};
use super::reference::Packet;
use super::sets::Sets;
use crate::resource::policy::{PortRange, Protocol};
use std::net::Ipv6Addr;

impl Chain {
    /// The steps that say something of a packet: those that log it, and then the one that decides.
    pub fn asked(&self, sets: &Sets, packet: &Packet) -> Vec<&Step> {
        let mut said = Vec::new();
        let mut number = 0;
        while let Some(step) = self.steps.get(number) {
            number = match (step.matching.matches(sets, packet), step.action) {
                (true, StepAction::Allow | StepAction::Deny) => {
                    said.push(step);
                    break;
                }
                (true, StepAction::Log(to)) => {
                    said.push(step);
                    to
                }
                (true, StepAction::GoTo(to)) => to,
                (false, _) => number + 1,
            };
        }
        said
    }
}

impl Match {
    fn matches(&self, sets: &Sets, packet: &Packet) -> bool {
        let icmp = packet.protocol == Protocol::ICMP6;
        let end = |end: &EndMatch, address: Ipv6Addr, port: u16| {
            let any = |ranges: &[PortRange]| {
                packet.protocol.has_ports() && ranges.iter().any(|range| range.contains(port))
            };
            end.within.iter().all(|set| sets.contains(*set, address))
                && !end.outside.iter().any(|set| sets.contains(*set, address))
                && (end.ports.is_empty() || any(&end.ports))
                && !any(&end.not_ports)
        };
        self.protocol.is_none_or(|protocol| protocol == packet.protocol)
            && self.not_protocol.is_none_or(|protocol| protocol != packet.protocol)
            && self.icmp.is_none_or(|wanted| icmp && wanted.matches(packet.icmp.0, packet.icmp.1))
            && !self.not_icmp.is_some_and(|unwanted| icmp && unwanted.matches(packet.icmp.0, packet.icmp.1))
            && end(&self.source, packet.source, packet.source_port)
            && end(&self.destination, packet.destination, packet.destination_port)
    }
}
