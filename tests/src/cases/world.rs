//! Who is there in the case table: VM A, which sends, behind the loopback device, and three others. The loopback device is
//! the uplink as well, for what other hosts send; `network` has the way to those.

use super::network;
use crate::frame::{GATEWAY_MAC, Ipv6, Mac, Payload, link_local, multicast_mac};
use crate::program::INGRESS;
use dataplane_ebpf::abi::{self, Address, Advertisement, Endpoint, Owner, endpoint_flags, owner_flags};
use dataplane_ebpf::host::MemoryTables;
use std::net::Ipv6Addr;

/// A VM.
#[derive(Debug)]
pub struct Vm {
    /// Counter slot.
    pub slot: u32,
    /// Its MAC.
    pub mac: Mac,
    /// Its address.
    pub address: Ipv6Addr,
    /// Its second address.
    pub second: Ipv6Addr,
    /// MTU of its TAP.
    pub mtu: u32,
}

const fn vm(n: u8, mtu: u32) -> Vm {
    let tail = n as u16;
    Vm {
        slot: n as u32,
        mac: [0xfa, 0x16, 0x3e, 0, 0, n],
        address: Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, tail),
        second: Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, tail),
        mtu,
    }
}

/// The sender.
pub const VM_A: Vm = vm(1, 1500);
/// A receiver.
pub const VM_B: Vm = vm(2, 1500);
/// A receiver with the smallest MTU.
pub const VM_C: Vm = vm(3, 1280);
/// A receiver whose TAP is down.
pub const VM_D: Vm = vm(4, 1500);

/// Link-local address of the TAP: the router.
pub const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x261, 0xfeff, 0xfeed, 0xcafe);
/// The router's configured address.
pub const GATEWAY_GLOBAL: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0xffff);
/// Somewhere else in the world.
pub const ELSEWHERE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
/// `ff02::1`
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// `ff02::2`
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Interfaces that frames leave by.
#[derive(Clone, Copy, Debug)]
pub struct Devices {
    /// TAP of VM B.
    pub b: u32,
    /// TAP of VM C.
    pub c: u32,
    /// The way to other hosts.
    pub uplink: u32,
}

/// Builds the tables.
#[derive(Debug)]
pub struct World;

impl World {
    /// The tables that all cases assume.
    pub fn tables(devices: Devices) -> MemoryTables {
        let mut tables = MemoryTables { epoch: 1, ..MemoryTables::default() };
        let endpoint = Endpoint {
            address: VM_A.address.into(),
            gateway: GATEWAY.into(),
            mac: abi::Mac::new(VM_A.mac),
            gateway_mac: abi::Mac::new(GATEWAY_MAC),
            mtu: VM_A.mtu,
            slot: VM_A.slot,
            flags: endpoint_flags::ADMIN_UP,
        };
        tables.endpoints.insert(INGRESS, endpoint);
        // VM D's TAP has an ifindex, but it is neither reachable nor a device to redirect to.
        for (vm, ifindex, flags) in [
            (&VM_A, INGRESS, owner_flags::REACHABLE),
            (&VM_B, devices.b, owner_flags::REACHABLE),
            (&VM_C, devices.c, owner_flags::REACHABLE),
            (&VM_D, u32::MAX, 0),
        ] {
            for address in [vm.address, vm.second] {
                tables.addresses.insert(address.into(), owner(vm, ifindex, flags));
            }
        }
        let gateway = Owner { flags: owner_flags::GATEWAY, ..owner(&VM_A, 0, 0) };
        tables.addresses.insert(Address::from(GATEWAY_GLOBAL), gateway);
        let rendered = advertisement().bytes;
        let value = Advertisement::new(&rendered).expect("short enough");
        tables.answers.insert(INGRESS, Box::new(value));
        tables.devices.extend([devices.b, devices.c, devices.uplink]);
        network::fill(&mut tables, devices.uplink);
        tables
    }
}

fn owner(vm: &Vm, ifindex: u32, flags: u32) -> Owner {
    Owner {
        ifindex,
        mtu: vm.mtu,
        slot: vm.slot,
        flags,
        mac: abi::Mac::new(vm.mac),
        gateway_mac: abi::Mac::new(GATEWAY_MAC),
    }
}

/// Headers of what VM A sends to its router's MAC.
pub fn from_a(destination: Ipv6Addr) -> Ipv6 {
    Ipv6 { source: VM_A.address, destination, ..Ipv6::new(VM_A.mac, GATEWAY_MAC) }
}

/// Headers of neighbour discovery from VM A: hop limit 255, to the multicast MAC if the destination is a group.
pub fn discovery(source: Ipv6Addr, destination: Ipv6Addr) -> Ipv6 {
    let destination_mac = if destination.is_multicast() { multicast_mac(destination) } else { GATEWAY_MAC };
    Ipv6 { source, destination, hop_limit: 255, ..Ipv6::new(VM_A.mac, destination_mac) }
}

/// Link-local address of VM A.
pub fn link_local_a() -> Ipv6Addr {
    link_local(VM_A.mac)
}

/// The router advertisement as userspace rendered it: to all nodes.
pub fn advertisement() -> crate::frame::Frame {
    advertisement_to(ALL_NODES, multicast_mac(ALL_NODES))
}

/// The router advertisement to one address.
pub fn advertisement_to(destination: Ipv6Addr, destination_mac: Mac) -> crate::frame::Frame {
    let body = [
        // Hop limit 64, flags M and O, lifetime 9000 s, reachable and retransmission time unspecified.
        [64, 0xc0, 0x23, 0x28, 0, 0, 0, 0, 0, 0, 0, 0].as_slice(),
        &crate::frame::source_link_layer(GATEWAY_MAC),
        // MTU 1500.
        &[5, 1, 0, 0, 0, 0, 0x05, 0xdc],
        // One DNS server for 1800 s (RFC 8106).
        &[25, 3, 0, 0, 0, 0, 0x07, 0x08],
        &ELSEWHERE.octets(),
    ]
    .concat();
    Ipv6 { source: GATEWAY, destination, hop_limit: 255, ..Ipv6::new(GATEWAY_MAC, destination_mac) }
        .carrying(Payload::icmpv6(134, 0, &body))
}
