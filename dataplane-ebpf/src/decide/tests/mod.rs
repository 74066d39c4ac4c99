//! What holds for every frame whatsoever: nothing is edited but what is answered or sent on, the two hooks never
//! contradict each other, and no frame leaves with an address or MAC that is not its sender's.

mod uplink;
mod vm;

use super::{Action, Hook, from_uplink, from_vm};
use crate::abi::{
    Address, Advertisement, Endpoint, MAX_NEXT_HOPS, Mac, NextHop, NextHopGroup, Owner, Route, Uplink,
    endpoint_flags, next_hop_flags, owner_flags,
};
use crate::host::{MemoryFrame, MemoryTables};
use crate::wire::{protocol, pseudo_header};
use proptest::prelude::*;
use std::net::Ipv6Addr;

const TAP_A: u32 = 7;
const TAP_B: u32 = 8;
const UPLINK: u32 = 9;
const MAC_A: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 1];
const MAC_B: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 2];
const ROUTER_MAC: [u8; 6] = [0, 0x61, 0xfe, 0xed, 0xca, 0xfe];
const UPLINK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const NEXT_HOP_MAC: [u8; 6] = [2, 0, 0, 0, 1, 9];
const ROUTER: &str = "fe80::261:feff:feed:cafe";
const ADDRESSES: [&str; 12] = [
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8::ffff",
    "2001:db8::dead",
    "2001:db8:c::1",
    ROUTER,
    "fe80::1",
    "::",
    "::1",
    "ff02::1",
    "ff02::1:ff00:2",
    "::ffff:192.0.2.1",
];

fn address(text: &str) -> Address {
    text.parse::<Ipv6Addr>().unwrap().into()
}

fn tables() -> MemoryTables {
    let mut tables = MemoryTables::default();
    tables.endpoints.insert(
        TAP_A,
        Endpoint {
            address: address("2001:db8::1"),
            gateway: address(ROUTER),
            mac: Mac::new(MAC_A),
            gateway_mac: Mac::new(ROUTER_MAC),
            mtu: 1500,
            slot: 1,
            flags: endpoint_flags::ADMIN_UP,
        },
    );
    let owner = |ifindex, slot, mac, flags| Owner {
        ifindex,
        mtu: 1500,
        slot,
        flags,
        mac: Mac::new(mac),
        gateway_mac: Mac::new(ROUTER_MAC),
    };
    tables.addresses.insert(address("2001:db8::1"), owner(TAP_A, 1, MAC_A, owner_flags::REACHABLE));
    tables.addresses.insert(address("2001:db8::2"), owner(TAP_B, 2, MAC_B, owner_flags::REACHABLE));
    tables.addresses.insert(address("2001:db8::ffff"), owner(0, 0, ROUTER_MAC, owner_flags::GATEWAY));
    let advertisement = [&[0x33, 0x33, 0, 0, 0, 1][..], &ROUTER_MAC, &[0x86, 0xdd], &[0; 56]].concat();
    tables.answers.insert(TAP_A, Box::new(Advertisement::new(&advertisement).unwrap()));
    let mut hops = [NextHop::default(); MAX_NEXT_HOPS];
    hops[0] = NextHop {
        upper_bound: u32::MAX,
        ifindex: UPLINK,
        mtu: 1500,
        flags: next_hop_flags::RESOLVED | next_hop_flags::XDP,
        mac: Mac::new(NEXT_HOP_MAC),
        source_mac: Mac::new(UPLINK_MAC),
    };
    tables.next_hops.insert(1, NextHopGroup { count: 1, hops });
    // It would take everything, also what must never be sent on.
    tables.routes.insert((Address::UNSPECIFIED, 0), Route { group: 1, mtu: 0 });
    tables.routes.insert((address("2001:db8::"), 48), Route { group: 0, mtu: 0 });
    tables.uplinks.insert(UPLINK, Uplink { mac: Mac::new(UPLINK_MAC), flags: 0 });
    tables.devices.extend([TAP_A, TAP_B, UPLINK]);
    tables
}

/// Where a frame comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Vm,
    Uplink,
}

/// Frames that get past the first checks often enough to reach the last ones.
fn frames(origin: Origin) -> impl Strategy<Value = MemoryFrame> {
    let (sender, receiver, source, destinations) = match origin {
        Origin::Vm => (MAC_A, ROUTER_MAC, "2001:db8::1", ["2001:db8::2", "2001:db8:c::1"]),
        Origin::Uplink => (NEXT_HOP_MAC, UPLINK_MAC, "2001:db8:c::1", ["2001:db8::1", "2001:db8::2"]),
    };
    let mac = prop_oneof![8 => Just(sender), 1 => Just(MAC_B), 1 => any::<[u8; 6]>()];
    let to = prop_oneof![8 => Just(receiver), 1 => any::<[u8; 6]>()];
    let ethertype = prop_oneof![12 => Just([0x86, 0xdd]), 1 => Just([0x81, 0]), 1 => any::<[u8; 2]>()];
    let any_address = || prop::sample::select(ADDRESSES.to_vec());
    let source = prop_oneof![2 => Just(source), 1 => any_address()];
    let destination = prop_oneof![2 => prop::sample::select(destinations.to_vec()), 1 => any_address()];
    let hop_limit = prop_oneof![3 => Just(255u8), 3 => Just(64), 1 => Just(1), 1 => Just(0)];
    let length = prop_oneof![10 => Just(None), 1 => any::<u16>().prop_map(Some)];
    (mac, to, ethertype, contents(), (source, destination), hop_limit, length, any::<bool>(), 0..3usize)
        .prop_map(
            |(
                mac,
                to,
                ethertype,
                (next, mut payload),
                (source, destination),
                hop_limit,
                length,
                fix,
                gso,
            )| {
                let (source, destination) = (address(source), address(destination));
                if fix {
                    fill_checksum(source, destination, next, &mut payload);
                }
                let length = length.unwrap_or(payload.len() as u16);
                let bytes = [
                    &to[..],
                    &mac,
                    &ethertype,
                    &[0x60, 0, 0, 0],
                    &length.to_be_bytes(),
                    &[next, hop_limit],
                    &source.octets(),
                    &destination.octets(),
                    &payload,
                ]
                .concat();
                MemoryFrame { bytes, gso_size: [0, 0, 1400][gso], ..MemoryFrame::default() }
            },
        )
}

/// A protocol number and what follows the fixed header: any bytes, neighbour discovery, or a chain of headers.
fn contents() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let numbers = [protocol::TCP, protocol::UDP, protocol::ICMP6, 0, 43, 44, 51, 59, 60, 50, 253];
    let next = || prop::sample::select(numbers.to_vec());
    let options = prop::collection::vec(any::<[u8; 8]>(), 0..4);
    let discovery = (130u8..140, prop::sample::select(ADDRESSES.to_vec()), options);
    let discovery = discovery.prop_map(|(kind, target, options)| {
        [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &address(target).octets(), &options.concat()].concat()
    });
    let link = (prop::sample::select(vec![0u8, 43, 44, 44, 51, 60]), any::<[u8; 6]>());
    let last = prop_oneof![3 => prop::sample::select(vec![protocol::TCP, protocol::UDP, protocol::ICMP6]), 1 => next()];
    let chain = (prop::collection::vec(link, 0..5), last, prop::collection::vec(any::<u8>(), 0..40));
    let chain = chain.prop_map(|(links, last, rest)| {
        let numbers: Vec<u8> = links.iter().map(|(number, _)| *number).chain([last]).collect();
        let mut bytes = Vec::new();
        for ((number, mut body), next) in links.into_iter().zip(&numbers[1..]) {
            // A first fragment, or the whole packet, as often as a later one.
            if number == protocol::FRAGMENT && body[2] & 1 == 0 {
                (body[0], body[1]) = (0, body[1] & 1);
            }
            bytes.extend([*next, 0]);
            bytes.extend(body);
        }
        (numbers[0], [bytes, rest].concat())
    });
    prop_oneof![
        1 => (next(), prop::collection::vec(any::<u8>(), 0..120)),
        1 => (Just(protocol::ICMP6), discovery),
        3 => chain,
    ]
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum()
}

fn fill_checksum(source: Address, destination: Address, next: u8, payload: &mut [u8]) {
    let at = match next {
        protocol::TCP => 16,
        protocol::UDP => 6,
        protocol::ICMP6 => 2,
        _ => return,
    };
    if payload.len() < at + 2 {
        return;
    }
    if next == protocol::UDP {
        let length = payload.len() as u16;
        payload[4..6].copy_from_slice(&length.to_be_bytes());
    }
    payload[at..at + 2].fill(0);
    let field = pseudo_header(source, destination, payload.len(), next).add_sum(sum(payload)).field();
    payload[at..at + 2].copy_from_slice(&field);
}

struct Seen {
    action: Action,
    bytes: Vec<u8>,
    counted: std::collections::BTreeMap<(u32, &'static str), u64>,
}

fn run(origin: Origin, frame: &MemoryFrame, hook: Hook) -> Seen {
    let tables = tables();
    let mut frame = frame.clone();
    if hook == Hook::Xdp {
        frame.gso_size = 0;
    }
    let action = match origin {
        Origin::Vm => from_vm(&mut frame, &tables, TAP_A, hook),
        Origin::Uplink => from_uplink(&mut frame, &tables, UPLINK, hook),
    };
    Seen { action, bytes: frame.bytes, counted: tables.counted() }
}

/// `before` as a router sends it on.
fn sent_on(before: &[u8], to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    let mut bytes = before.to_vec();
    bytes[..6].copy_from_slice(&to);
    bytes[6..12].copy_from_slice(&from);
    bytes[21] -= 1;
    bytes
}

/// No router forwards from or to this address.
fn stays(address: Address) -> bool {
    address.is_link_local() || is_nobody(address)
}

/// No host has this address.
fn is_nobody(address: Address) -> bool {
    let text = Ipv6Addr::from(address);
    text.is_multicast() || text.is_unspecified() || text.is_loopback() || text.to_ipv4_mapped().is_some()
}

/// The header chain of a packet is one that RFC 8200, RFC 7112 and RFC 5095 allow; read anew, as plainly as can be.
fn chain_is_legal(packet: &[u8]) -> bool {
    let (mut next, mut rest) = (packet[6], &packet[40..]);
    let mut fragment = None;
    for place in 0.. {
        let length = match (next, rest) {
            (0, _) if place > 0 => return false,
            (44, _) if fragment.is_some() => return false,
            (43, [_, _, 0, ..]) => return false,
            (135 | 139 | 140, [behind, ..]) if *behind != 59 || rest.len() < 8 => return false,
            (135 | 139 | 140, [..]) if !rest.is_empty() => break,
            (0 | 43 | 60, [_, length, ..]) => 8 + 8 * usize::from(*length),
            (51, [_, length, ..]) => 8 + 4 * usize::from(*length),
            (44, [_, _, high, low, ..]) => {
                fragment = Some((u16::from_be_bytes([*high, *low]) >> 3, low & 1));
                8
            }
            (0 | 43 | 44 | 51 | 60 | 135 | 139 | 140, _) => return false,
            _ => break,
        };
        if rest.len() < length.max(8) {
            return false;
        }
        (next, rest) = (rest[0], &rest[length..]);
        if fragment.is_some_and(|(offset, _)| offset > 0) {
            return true;
        }
    }
    let needed = match next {
        6 => 20,
        17 | 58 | 136 => 8,
        132 => 12,
        _ => 0,
    };
    fragment != Some((0, 1)) || rest.len() >= needed
}
