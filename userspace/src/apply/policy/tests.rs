//! The promise of generations, held in memory against random sequences of policies: wherever an update ends, and whoever
//! goes on from there, packets are judged by what was before or by what is after, never by anything else.

use super::tables::{Numbering, Tables};
use super::update::{Present, Update};
use crate::plan::policy::arbitrary::{NODE, packets, worlds};
use crate::plan::policy::reference::{self, Packet};
use crate::plan::policy::tests::subject;
use crate::plan::policy::{Direction, Tunnels, policies};
use crate::resource::{EndpointName, Resources};
use dataplane_ebpf::abi::{Address, ChainPair};
use dataplane_ebpf::decide::policy::evaluate;
use dataplane_ebpf::host::MemoryPolicies;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A daemon, as far as it writes policy into maps, which are in memory.
#[derive(Default)]
struct Daemon {
    numbering: Numbering,
    wanted: Tables,
}

impl Daemon {
    /// One that starts and finds these maps.
    fn adopting(present: &Present) -> Self {
        let mut daemon = Self::default();
        daemon.numbering.reserve(&present.used());
        daemon
    }

    fn update(&mut self, present: &Present, resources: &Resources) -> (Update, BTreeMap<u32, EndpointName>) {
        let (tables, _) = self.numbering.tables(&policies(resources, NODE, Tunnels::default())).unwrap();
        let attached = taps(&tables);
        let update = Update::new(present, &tables, &pairs(&tables));
        self.wanted = tables;
        (update, attached)
    }
}

/// Endpoints are behind TAPs whose ifindex is in their name.
fn taps(tables: &Tables) -> BTreeMap<u32, EndpointName> {
    let ifindex = |name: &EndpointName| name.name[2..].parse::<u32>().unwrap() + 1;
    tables.endpoints.keys().map(|name| (ifindex(name), name.clone())).collect()
}

fn pairs(tables: &Tables) -> BTreeMap<u32, ChainPair> {
    taps(tables).into_iter().map(|(ifindex, name)| (ifindex, tables.endpoints[&name])).collect()
}

/// The steps of an update, each as the maps may be found after it.
fn stages(present: &Present, update: &Update) -> Vec<Present> {
    let mut stages = vec![present.clone()];
    let mut stage = present.clone();
    let mut note = |stage: &Present| stages.push(stage.clone());
    // Maps in their order, and within a map any part of its entries.
    macro_rules! write {
        ($($map:ident),*) => { $(
            for (number, entry) in update.$map.iter().enumerate() {
                stage.$map.extend([*entry]);
                if number == update.$map.len() / 2 || number + 1 == update.$map.len() {
                    note(&stage);
                }
            }
        )* };
    }
    write!(vectors, steps, services, peers, chains, identities, policies);
    stages
}

/// What the hooks read.
fn memory(present: &Present) -> MemoryPolicies {
    let at = |policy: &dataplane_ebpf::abi::EndpointPolicy| *policy.at(present.generation);
    let memory = MemoryPolicies {
        endpoints: present.policies.iter().map(|(ifindex, policy)| (*ifindex, at(policy))).collect(),
        chains: present.chains.clone(),
        identities: present
            .identities
            .iter()
            .map(|(net, identity)| ((Address::new(net.addr().octets()), net.prefix_len()), *identity))
            .collect(),
        peers: present.peers.clone(),
        services: present.services.clone(),
        vectors: present.vectors.clone(),
        steps: present.steps.clone(),
        ..MemoryPolicies::default()
    };
    memory.generation.set(present.generation);
    memory
}

/// Whether every packet gets the verdict of these resources, as far as endpoints are known to both.
fn check(present: &Present, resources: &Resources, packets: &[Packet]) -> Result<(), TestCaseError> {
    let memory = memory(present);
    let endpoints = resources.endpoints.values().filter(|endpoint| endpoint.node == NODE);
    for endpoint in endpoints {
        let ifindex: u32 = endpoint.name.name[2..].parse::<u32>().unwrap() + 1;
        let Some(pair) = memory.endpoints.get(&ifindex) else {
            return Err(TestCaseError::fail(format!("{} has no chains", endpoint.name)));
        };
        for packet in packets {
            let (source, destination) =
                (Address::new(packet.source.octets()), Address::new(packet.destination.octets()));
            for (direction, chain) in [(Direction::Ingress, pair.ingress), (Direction::Egress, pair.egress)] {
                let found = evaluate(&memory, chain, &subject(packet, &source, &destination)).allowed;
                let expected =
                    reference::evaluate(resources, Tunnels::default(), endpoint, direction, packet).allowed;
                prop_assert_eq!(found, expected, "{} {:?} {:?}", endpoint.name, direction, packet);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_update_counts_whole_or_not_at_all(
        sequence in vec((worlds(), any::<bool>()), 1..5),
        packets in vec(packets(), 1..12),
    ) {
        let mut present = Present::default();
        let mut daemon = Daemon::adopting(&present);
        let mut before: Option<&Resources> = None;
        for (resources, dies) in &sequence {
            let (update, _) = daemon.update(&present, resources);
            let stages = stages(&present, &update);
            if let Some(before) = before {
                for stage in &stages {
                    check(stage, before, &packets)?;
                }
            }
            if *dies {
                // Killed just before it changes over; the next one finds that.
                present = stages.last().unwrap().clone();
                daemon = Daemon::adopting(&present);
                let (update, _) = daemon.update(&present, resources);
                if let Some(before) = before {
                    for stage in self::stages(&present, &update) {
                        check(&stage, before, &packets)?;
                    }
                }
                present.write(&update);
                check(&present, resources, &packets)?;
                present.remove(&update.garbage);
            } else {
                present.write(&update);
                check(&present, resources, &packets)?;
                present.remove(&update.garbage);
            }
            daemon.numbering.keep(&daemon.wanted);
            check(&present, resources, &packets)?;
            // Nothing is left of before, and there is nothing to do.
            let again = Update::new(&present, &daemon.wanted, &pairs(&daemon.wanted));
            prop_assert!(again.is_empty(), "{:?}", again);
            let (again, _) = daemon.update(&present, resources);
            prop_assert!(again.is_empty(), "{:?}", again);
            before = Some(resources);
        }
    }
}

/// A thousand endpoints on one host, a hundred policies of ten rules each, of which ten are about every endpoint.
fn large_host() -> Resources {
    use crate::resource::policy::{
        Action, Entity, Order, Policy, Port, PortRange, Protocol, Rule, ScopedName,
    };
    use crate::resource::{HostAddress, Resource, WorkloadEndpoint};
    let mut resources = Resources::default();
    for number in 0..1000u16 {
        let address = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, number);
        resources.insert(Resource::WorkloadEndpoint(WorkloadEndpoint {
            name: EndpointName { namespace: "openstack".into(), name: format!("vm{number}") },
            node: NODE.to_owned(),
            interface: format!("tap{number}").parse().unwrap(),
            mac: "fa:16:3e:00:00:01".parse().unwrap(),
            addresses: vec![HostAddress::new(address).unwrap()],
            allowed_pairs: Vec::new(),
            gateway: None,
            labels: (0..10)
                .map(|group| (format!("sg-{}", (number + group * 7) % 100), String::new()))
                .collect(),
            profiles: Vec::new(),
            ports: Vec::new(),
            network_id: None,
            fqdn: None,
        }));
    }
    for number in 0..100u16 {
        let rule = |port: u16| Rule {
            action: Action::Allow,
            ipv6: true,
            protocol: Some(Protocol::TCP),
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: Entity {
                selector: Some(format!("has(sg-{})", (number + port) % 100).parse().unwrap()),
                ..Entity::default()
            },
            destination: Entity {
                ports: vec![Port::Range(PortRange::new(port, port).unwrap())],
                ..Entity::default()
            },
        };
        resources.insert(Resource::Policy(Policy {
            name: ScopedName { namespace: None, name: format!("sg-{number}") },
            tier: "default".to_owned(),
            order: Order::default(),
            selector: format!("has(sg-{number})").parse().unwrap(),
            ingress: Some((0..10).map(|port| rule(8000 + port)).collect()),
            egress: Some(vec![Rule { source: Entity::default(), ..rule(9000) }]),
        }));
    }
    resources
}

/// Prints how long it takes; what that is depends on the machine and the build.
#[test]
fn a_large_host_is_compiled_and_a_small_change_of_it_is_small() {
    let mut resources = large_host();
    let mut present = Present::default();
    let mut daemon = Daemon::adopting(&present);
    let start = std::time::Instant::now();
    let (update, _) = daemon.update(&present, &resources);
    println!("1,000 endpoints with 100 policies: {:?} for {} entries", start.elapsed(), update.entries());
    present.write(&update);
    // A member leaves a set that every hundredth rule speaks of.
    let (_, endpoint) = resources.endpoints.first_key_value().unwrap();
    let mut endpoint = endpoint.clone();
    endpoint.node = "elsewhere".to_owned();
    endpoint.labels.pop_last();
    resources.endpoints.insert(endpoint.name.clone(), endpoint);
    let start = std::time::Instant::now();
    let (update, _) = daemon.update(&present, &resources);
    println!("one member less: {:?} for {} entries", start.elapsed(), update.entries());
    assert!(update.chains.is_empty() && update.steps.is_empty(), "chains were written again");
    assert!(update.identities.len() == 1, "{:?}", update.identities);
}
