//! Semantics by example, and the promise that chains, their tables and the reference always say the same.

mod arbitrary;
mod examples;
mod lint;
mod review;

use super::classify::Classifier;
use super::reference::{self, Packet};
use super::*;
use crate::resource::policy::Protocol;
use dataplane_ebpf::abi::Address;
use dataplane_ebpf::decide::policy::{Subject, evaluate};
use dataplane_ebpf::host::MemoryPolicies;
use std::net::Ipv6Addr;

/// Asks reference, chain and tables about a packet, and says what they agree on.
#[track_caller]
fn asked(
    resources: &Resources,
    compiled: &Compiled,
    name: &EndpointName,
    direction: Direction,
    packet: &Packet,
) -> reference::Outcome {
    let expected =
        reference::evaluate(resources, compiled.tunnels, &resources.endpoints[name], direction, packet);
    let chain = compiled.chain(name, direction);
    let mut said: Vec<_> =
        chain.asked(&compiled.policies.sets, packet).into_iter().map(|step| &step.origin).collect();
    // A rule may be several steps.
    said.dedup();
    let all: Vec<_> = expected.logged.iter().chain([&expected.origin]).collect();
    assert_eq!(said, all, "the chain says something else: {packet:?}");
    let (number, decision) = compiled.decide(name, direction, packet);
    let steps = &compiled.chains[number as usize].steps;
    let origin = steps.get(decision.step as usize).map(|step| &step.origin);
    assert_eq!(origin, Some(&expected.origin), "the tables of chain {number} say something else: {packet:?}");
    assert_eq!(decision.allowed, expected.allowed, "{packet:?}");
    let logged = decision.logged.map(|step| steps[step as usize].origin.clone());
    assert_eq!(logged.as_ref(), expected.logged.first(), "{packet:?}");
    expected
}

/// Policies with all their tables in memory.
struct Compiled {
    tunnels: Tunnels,
    policies: Policies,
    numbers: BTreeMap<EndpointName, (classify::ChainId, classify::ChainId)>,
    chains: Vec<Chain>,
    tables: MemoryPolicies,
}

impl Compiled {
    fn new(resources: &Resources, node: &str, tunnels: Tunnels) -> Self {
        let policies = policies(resources, node, tunnels);
        let (classifier, chains) = Classifier::new(&policies);
        let numbers = policies.endpoints.keys().cloned().zip(chains).collect();
        let tables = memory::tables(&classifier);
        let chains = classifier.chains.into_iter().map(|tables| tables.chain).collect();
        Self { tunnels, policies, numbers, chains, tables }
    }

    fn chain(&self, name: &EndpointName, direction: Direction) -> &Chain {
        let endpoint = &self.policies.endpoints[name];
        match direction {
            Direction::Ingress => &endpoint.ingress,
            Direction::Egress => &endpoint.egress,
        }
    }

    fn decide(
        &self,
        name: &EndpointName,
        direction: Direction,
        packet: &Packet,
    ) -> (u32, dataplane_ebpf::decide::policy::Decision) {
        let (ingress, egress) = self.numbers[name];
        let number = match direction {
            Direction::Ingress => ingress.0,
            Direction::Egress => egress.0,
        };
        let source = Address::new(packet.source.octets());
        let destination = Address::new(packet.destination.octets());
        (number, evaluate(&self.tables, number, &subject(packet, &source, &destination)))
    }
}

/// A packet as the data plane sees it.
pub(crate) fn subject<'a>(packet: &Packet, source: &'a Address, destination: &'a Address) -> Subject<'a> {
    let (source_port, destination_port) = match packet.protocol {
        Protocol::ICMP6 => (0, u16::from_be_bytes([packet.icmp.0, packet.icmp.1])),
        protocol if protocol.has_ports() => (packet.source_port, packet.destination_port),
        _ => (0, 0),
    };
    Subject { source, destination, protocol: packet.protocol.0, source_port, destination_port }
}
