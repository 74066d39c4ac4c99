//! The way to other hosts in the case table: every kind of route, and of next hops. Special groups of next hops are
//! reached by an address of their own, [`way`].

use crate::frame::Mac;
use crate::program::INGRESS;
use dataplane_ebpf::abi::{
    self, Address, MAX_NEXT_HOPS, NextHop, NextHopGroup, Route, Uplink, next_hop_flags, uplink_flags,
};
use dataplane_ebpf::host::MemoryTables;
use std::net::Ipv6Addr;

/// MAC of the uplink.
pub const UPLINK_MAC: Mac = [0x02, 0, 0, 0, 0, 0xaa];

/// A next hop.
#[derive(Debug, PartialEq, Eq)]
pub struct Hop {
    /// Its MAC.
    pub mac: Mac,
}

/// Next hops enough for a full group.
pub const HOPS: [Hop; MAX_NEXT_HOPS] = {
    let mut hops = [const { Hop { mac: [0x02, 0, 0, 0, 1, 0] } }; MAX_NEXT_HOPS];
    let mut number = 0;
    while number < MAX_NEXT_HOPS {
        hops[number].mac[5] = number as u8;
        number += 1;
    }
    hops
};
/// Where the default route leads.
pub const NEAR: Hop = Hop { mac: HOPS[0].mac };
/// Where more specific routes lead.
pub const FAR: Hop = Hop { mac: HOPS[1].mac };

/// Groups of next hops.
pub mod group {
    /// None: the route is the kernel's.
    pub const KERNEL: u32 = 0;
    /// [`NEAR`](super::NEAR) alone.
    pub const NEAR: u32 = 1;
    /// [`FAR`](super::FAR) alone.
    pub const FAR: u32 = 2;
    /// The kernel does not know the MAC.
    pub const UNRESOLVED: u32 = 3;
    /// The device does not take what XDP redirects.
    pub const NO_XDP: u32 = 4;
    /// The device's MTU is 1280.
    pub const SMALL: u32 = 5;
    /// XDP has not been told of the device.
    pub const NO_DEVICE: u32 = 6;
    /// The device is the one that the packet came from.
    pub const BACK: u32 = 7;
    /// Two, of which the first takes every flow.
    pub const FIRST_OF_TWO: u32 = 8;
    /// Two, of which the second takes every flow.
    pub const SECOND_OF_TWO: u32 = 9;
    /// Two, of which the second takes every flow and is not resolved.
    pub const SECOND_UNRESOLVED: u32 = 10;
    /// As many as there may be; the last takes every flow.
    pub const LAST_OF_ALL: u32 = 11;
    /// Four with the weights 1, 2, 1 and 4.
    pub const WEIGHTED: u32 = 12;
    /// A group that is not there.
    pub const MISSING: u32 = 99;
}

/// A destination whose route leads to a group.
pub const fn way(group: u32) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xd, group as u16, 0, 0, 0, 1)
}

/// Routes: destination, length, group, MTU.
const ROUTES: [(&str, u8, u32, u32); 11] = [
    ("::", 0, group::NEAR, 0),
    ("2001:db8:ffff::", 48, group::KERNEL, 0),
    ("2001:db8:c::", 48, group::NEAR, 0),
    ("2001:db8:c:2::", 64, group::FAR, 0),
    ("2001:db8:c:2::10", 124, group::KERNEL, 0),
    ("2001:db8:c:2::1", 128, group::NEAR, 0),
    ("2001:db8:c:2::2", 128, group::KERNEL, 0),
    // VM B was on another host, and the route to it is not gone yet.
    ("2001:db8:a::2", 128, group::FAR, 0),
    ("2001:db8:e:1::", 64, group::NEAR, 1400),
    ("2001:db8:e:2::", 64, group::NEAR, 9000),
    ("2001:db8:e:3::1", 128, group::SMALL, 1400),
];

/// Adds the network to the tables; `device` is the way out.
pub fn fill(tables: &mut MemoryTables, device: u32) {
    tables.uplinks.insert(INGRESS, Uplink { mac: abi::Mac::new(UPLINK_MAC), flags: 0 });
    let ways = (group::UNRESOLVED..=group::WEIGHTED).chain([group::MISSING]);
    let ways = ways.map(|number| (way(number), 64, number, 0));
    let routes = ROUTES.map(|(address, length, group, mtu)| {
        (address.parse::<Ipv6Addr>().expect("an address"), length, group, mtu)
    });
    for (address, length, group, mtu) in routes.into_iter().chain(ways) {
        let prefix = Address::from(address);
        let route = Route { group, mtu };
        match length {
            128 => tables.host_routes.insert(prefix, route),
            _ => tables.routes.insert((prefix, length), route),
        };
    }
    let all = next_hop_flags::RESOLVED | next_hop_flags::XDP;
    let hop = |number: usize, upper_bound: u32| NextHop {
        upper_bound,
        ifindex: device,
        mtu: 1500,
        flags: all,
        mac: abi::Mac::new(HOPS[number].mac),
        source_mac: abi::Mac::new(UPLINK_MAC),
    };
    let alone = |change: fn(&mut NextHop)| {
        let mut hop = hop(0, u32::MAX);
        change(&mut hop);
        vec![hop]
    };
    let unresolved = NextHop { flags: next_hop_flags::XDP, ..hop(1, u32::MAX) };
    for (number, hops) in [
        (group::NEAR, alone(|_| ())),
        (group::FAR, vec![hop(1, u32::MAX)]),
        (group::UNRESOLVED, alone(|hop| hop.flags = next_hop_flags::XDP)),
        (group::NO_XDP, alone(|hop| hop.flags = next_hop_flags::RESOLVED)),
        (group::SMALL, alone(|hop| hop.mtu = 1280)),
        (group::NO_DEVICE, alone(|hop| hop.ifindex = u32::MAX - 1)),
        (group::BACK, alone(|hop| hop.ifindex = INGRESS)),
        (group::FIRST_OF_TWO, vec![hop(0, u32::MAX), hop(1, u32::MAX)]),
        (group::SECOND_OF_TWO, vec![hop(0, 0), hop(1, u32::MAX)]),
        (group::SECOND_UNRESOLVED, vec![hop(0, 0), unresolved]),
        (
            group::LAST_OF_ALL,
            (0..MAX_NEXT_HOPS)
                .map(|n| hop(n, if n + 1 == MAX_NEXT_HOPS { u32::MAX } else { n as u32 }))
                .collect(),
        ),
        (
            group::WEIGHTED,
            vec![hop(0, u32::MAX / 8), hop(1, u32::MAX / 8 * 3), hop(2, u32::MAX / 2), hop(3, u32::MAX)],
        ),
    ] {
        tables.next_hops.insert(number, filled(&hops));
    }
}

/// TC is behind XDP on all uplinks.
pub fn steer(tables: &mut MemoryTables) {
    tables.uplinks.values_mut().for_each(|uplink| uplink.flags = uplink_flags::STEERED);
}

/// A group of these next hops.
pub fn filled(hops: &[NextHop]) -> NextHopGroup {
    let mut group = NextHopGroup { count: hops.len() as u32, hops: [NextHop::default(); MAX_NEXT_HOPS] };
    group.hops[..hops.len()].copy_from_slice(hops);
    group
}
