//! Random policies and real packets: the rules say what the reference says, of packets that begin flows and of answers,
//! also when policy has changed since.

use crate::rig::{NODE, Rig, UPLINK};
use anyhow::{Result, anyhow, ensure};
use proptest::collection::vec;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serval::plan::policy::arbitrary::{self, ADDRESSES, packets, worlds};
use serval::plan::policy::reference::{self, Packet};
use serval::plan::policy::{Direction, Tunnels};
use serval::resource::policy::Protocol;
use serval::resource::{Resources, WorkloadEndpoint};
use serval_tests::frame::{Mac, Payload};
use serval_tests::require_rig;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv6Addr;

/// MAC of all VMs of these worlds.
const MAC: Mac = [0xfa, 0x16, 0x3e, 0, 0, 1];
/// Endpoints at most.
const VMS: usize = 5;
/// Echo requests are not answered by echo requests: each is a flow of its own.
const ECHO_REQUEST: u8 = 128;

/// The rules, and what they have to remember.
struct World {
    rig: Rig,
    /// The first packets of flows, without type and code.
    flows: BTreeSet<Flow>,
    passed: usize,
    dropped: usize,
    answers: usize,
}

/// Protocol, source and destination.
type Flow = (u8, (Ipv6Addr, u16), (Ipv6Addr, u16));

#[test]
fn rules_say_what_the_documents_say() -> Result<()> {
    require_rig!();
    let names: Vec<String> = (0..VMS).map(|n| format!("tap{n}")).collect();
    let taps: Vec<_> = names.iter().map(|name| (name.as_str(), MAC)).collect();
    let rig = Rig::new("nftworld", &taps)?;
    let world = RefCell::new(World { rig, flows: BTreeSet::new(), passed: 0, dropped: 0, answers: 0 });
    let config = Config { cases: 64, failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
    TestRunner::new(config)
        .run(&(worlds(), vec(packets(), 32..96)), |(resources, packets)| {
            let asked = world.borrow_mut().ask(&resources, &packets);
            asked.map_err(|error| TestCaseError::fail(format!("{error:#}")))
        })
        .map_err(|error| anyhow!("{error}"))?;
    let World { passed, dropped, answers, .. } = world.into_inner();
    println!("{passed} passed, {dropped} dropped, {answers} of them answers");
    ensure!(passed > 20 && dropped > 20 && answers > 20, "too few of a kind");
    Ok(())
}

impl World {
    /// Has all packets sent under the policy of these resources.
    fn ask(&mut self, resources: &Resources, packets: &[Packet]) -> Result<()> {
        let mut routes = String::new();
        for number in 0..ADDRESSES {
            let address = arbitrary::address(number);
            match tap_of(resources, address) {
                Some(tap) => writeln!(
                    routes,
                    "route replace {address}/128 dev {tap}\n\
                    neighbour replace {address} lladdr fa:16:3e:00:00:01 dev {tap} nud permanent"
                )?,
                None => writeln!(routes, "route replace {address}/128 via fe80::1 dev {UPLINK}")?,
            }
        }
        self.rig.host.ip_batch(&routes)?;
        self.rig.load(resources)?;
        packets.iter().try_for_each(|packet| self.send(resources, packet))?;
        // Answers, to what was allowed now and before.
        let flows = self.flows.iter().copied().collect::<Vec<_>>();
        flows.into_iter().try_for_each(|flow| self.send(resources, &answer(flow)))
    }

    fn send(&mut self, resources: &Resources, packet: &Packet) -> Result<()> {
        let from = tap_of(resources, packet.source).unwrap_or(UPLINK);
        let to = tap_of(resources, packet.destination).unwrap_or(UPLINK);
        // Not forwarded, or nobody's.
        if from == to {
            return Ok(());
        }
        let flow = flow(packet);
        let answers = flow.filter(|flow| self.flows.contains(&reverse(flow)));
        let first = match answers {
            // SYN meets SYN: the kernel's business alone.
            Some(_) if packet.protocol == Protocol::TCP => return Ok(()),
            Some(_) => Packet {
                source: packet.destination,
                destination: packet.source,
                source_port: packet.destination_port,
                destination_port: packet.source_port,
                ..*packet
            },
            None => *packet,
        };
        // An error about nothing.
        let is_error = packet.protocol == Protocol::ICMP6 && packet.icmp.0 < ECHO_REQUEST;
        let passes = !is_error && verdict(resources, &first);
        let frame = self.rig.frame(from, (packet.source, packet.destination), payload(packet))?;
        self.rig.expect(&format!("{packet:?}"), from, &frame, passes.then_some(to))?;
        if passes && answers.is_none() {
            self.flows.extend(flow);
        }
        self.answers += usize::from(answers.is_some());
        *(if passes { &mut self.passed } else { &mut self.dropped }) += 1;
        Ok(())
    }
}

/// The endpoint of this node that has an address.
fn endpoint(resources: &Resources, address: Ipv6Addr) -> Option<&WorkloadEndpoint> {
    let mut ours = resources.endpoints.values().filter(|endpoint| endpoint.node == NODE);
    ours.find(|endpoint| endpoint.all_addresses().any(|own| own.get() == address))
}

fn tap_of(resources: &Resources, address: Ipv6Addr) -> Option<&str> {
    endpoint(resources, address).map(|endpoint| endpoint.interface.as_str())
}

/// What policy says of the first packet of a flow.
fn verdict(resources: &Resources, packet: &Packet) -> bool {
    [(packet.source, Direction::Egress), (packet.destination, Direction::Ingress)].into_iter().all(
        |(address, direction)| {
            endpoint(resources, address).is_none_or(|endpoint| {
                reference::evaluate(resources, Tunnels::default(), endpoint, direction, packet).allowed
            })
        },
    )
}

/// The flow of a packet, if it is of one.
fn flow(packet: &Packet) -> Option<Flow> {
    let ports = match packet.protocol {
        Protocol::ICMP6 => return None,
        protocol if protocol.has_ports() => (packet.source_port, packet.destination_port),
        _ => (0, 0),
    };
    Some((packet.protocol.0, (packet.source, ports.0), (packet.destination, ports.1)))
}

fn reverse(&(protocol, source, destination): &Flow) -> Flow {
    (protocol, destination, source)
}

/// A packet that answers the first of a flow.
fn answer((protocol, source, destination): Flow) -> Packet {
    Packet {
        source: destination.0,
        destination: source.0,
        protocol: Protocol(protocol),
        source_port: destination.1,
        destination_port: source.1,
        icmp: (0, 0),
    }
}

fn payload(packet: &Packet) -> Payload {
    let (source, destination) = (packet.source_port, packet.destination_port);
    match packet.protocol {
        // SYN.
        Protocol::TCP => Payload::tcp(source, destination, 2, b""),
        Protocol::UDP => Payload::udp(source, destination, b"data"),
        Protocol::ICMP6 => Payload::icmpv6(packet.icmp.0, packet.icmp.1, &[0; 8]),
        protocol => Payload::raw(protocol.0, [0; 16]),
    }
}
