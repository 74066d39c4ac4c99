//! The policy of the stories, as documents that are compiled as the daemon does.

use super::super::world::{Devices, World};
use super::super::{VM_A, VM_B, VM_C};
use super::Who;
use crate::frame::{GATEWAY_MAC, mac_text};
use crate::program::INGRESS;
use dataplane_ebpf::abi::{Address, Endpoint, Mac, endpoint_flags};
use dataplane_ebpf::host::{MemoryPolicies, MemoryTables};
use serval::plan::policy::{Tunnels, memory, policies};
use serval::resource::Resources;
use serval::resource::document::{Content, Format, parse};
use std::fmt::Write as _;
use std::path::Path;

/// VM A may send to all, and hears nobody but who answers.
macro_rules! client {
    () => {
        "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: { name: client }
spec:
  selector: role == 'client'
  types: [Ingress, Egress]
  egress: [{ action: Allow }]
"
    };
}

/// Policy in the beginning.
pub const POLICIES: &str = concat!(
    client!(),
    "---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: { name: server }
spec:
  selector: role == 'server'
  types: [Ingress, Egress]
  ingress:
    - { action: Allow, protocol: TCP, destination: { ports: [80] } }
    - { action: Allow, protocol: UDP, destination: { ports: [5000] } }
    - { action: Allow, protocol: SCTP, destination: { ports: [9] } }
    - { action: Allow, protocol: UDPLite }
    - { action: Allow, protocol: ICMPv6, icmp: { type: 128 } }
    - { action: Allow, protocol: ICMPv6, icmp: { type: 139, code: 0 } }
    - { action: Allow, protocol: 50 }
"
);

/// VM B offers nothing any more.
pub const CLOSED_SERVER: &str = client!();

/// What VM A and VM B have does not change, but what VM C has.
pub const LOUD_NEIGHBOUR: &str = concat!(
    client!(),
    "---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: { name: neighbour }
spec: { selector: role == 'closed', types: [Egress], egress: [{ action: Allow }] }
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: { name: server }
spec:
  selector: role == 'server'
  types: [Ingress, Egress]
  ingress:
    - { action: Allow, protocol: TCP, destination: { ports: [80] } }
    - { action: Allow, protocol: UDP, destination: { ports: [5000] } }
"
);

/// The tables of the case table, with policy.
pub fn tables(devices: Devices) -> MemoryTables {
    let mut tables = World::tables(devices);
    tables.policies = Some(compile(POLICIES, devices));
    policed(&mut tables, devices);
    tables
}

/// VMs B and C send, too.
pub fn policed(tables: &mut MemoryTables, devices: Devices) {
    tables.devices.insert(INGRESS);
    let a = tables.endpoints[&INGRESS];
    for (vm, ifindex) in [(&VM_B, devices.b), (&VM_C, devices.c)] {
        let endpoint = Endpoint {
            address: Address::from(vm.address),
            mac: Mac::new(vm.mac),
            gateway_mac: Mac::new(GATEWAY_MAC),
            mtu: vm.mtu,
            slot: vm.slot,
            flags: endpoint_flags::ADMIN_UP,
            ..a
        };
        tables.endpoints.insert(ifindex, endpoint);
    }
}

/// The tables of these documents.
pub fn compile(documents: &str, devices: Devices) -> MemoryPolicies {
    let mut text = documents.to_owned();
    for (name, vm, role) in [("a", &VM_A, "client"), ("b", &VM_B, "server"), ("c", &VM_C, "closed")] {
        write!(
            text,
            "---\napiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {{ name: {name}, labels: {{ role: {role} }} }}\n\
             spec: {{ node: here, interfaceName: tap{name}, mac: '{}', ipNetworks: ['{}/128', '{}/128'] }}\n",
            mac_text(vm.mac),
            vm.address,
            vm.second
        )
        .expect("a string takes it");
    }
    let mut resources = Resources::default();
    for document in parse(Path::new("story.yaml"), Format::Yaml, text.as_bytes()).expect("documents") {
        match document.content {
            Content::Resource(resource) => resources.insert(*resource),
            other => panic!("{other:?}: {:?}", document.problems),
        }
    }
    let ifindex = |name: &str| match name {
        "a" => Some(Who::A.ifindex(devices)),
        "b" => Some(Who::B.ifindex(devices)),
        "c" => Some(Who::C.ifindex(devices)),
        _ => None,
    };
    memory::of(&policies(&resources, "here", Tunnels::default()), |name| ifindex(&name.name))
}
