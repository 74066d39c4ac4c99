//! What holds for every frame whatsoever: nothing is edited but what is answered or sent on, the two hooks never
//! contradict each other, and no frame leaves with an address or MAC that is not its sender's.

use super::{Action, Hook, from_vm};
use crate::abi::{Address, Advertisement, Endpoint, Mac, Owner, Reason, endpoint_flags, owner_flags};
use crate::host::{MemoryFrame, MemoryTables};
use crate::wire::{Headers, L4_OFFSET, protocol, pseudo_header};
use proptest::prelude::*;
use std::net::Ipv6Addr;
use zerocopy::FromBytes;

const TAP_A: u32 = 7;
const TAP_B: u32 = 8;
const MAC_A: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 1];
const MAC_B: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 2];
const ROUTER_MAC: [u8; 6] = [0, 0x61, 0xfe, 0xed, 0xca, 0xfe];
const ROUTER: &str = "fe80::261:feff:feed:cafe";
const ADDRESSES: [&str; 11] = [
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8::ffff",
    "2001:db8::dead",
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
    tables.devices.insert(TAP_B);
    tables
}

/// Frames that get past the first checks often enough to reach the last ones.
fn frames() -> impl Strategy<Value = MemoryFrame> {
    let numbers = [protocol::TCP, protocol::UDP, protocol::ICMP6, 0, 43, 44, 51, 59, 60, 50, 253];
    let mac = prop_oneof![8 => Just(MAC_A), 1 => Just(MAC_B), 1 => any::<[u8; 6]>()];
    let to = prop_oneof![8 => Just(ROUTER_MAC), 1 => any::<[u8; 6]>()];
    let ethertype = prop_oneof![12 => Just([0x86, 0xdd]), 1 => Just([0x81, 0]), 1 => any::<[u8; 2]>()];
    let next = prop::sample::select(numbers.to_vec());
    let pair = (prop::sample::select(ADDRESSES.to_vec()), prop::sample::select(ADDRESSES.to_vec()));
    let hop_limit = prop_oneof![Just(255u8), Just(64), Just(1), Just(0)];
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..120),
        (130u8..140, prop::sample::select(ADDRESSES.to_vec()), prop::collection::vec(any::<[u8; 8]>(), 0..4))
            .prop_map(|(kind, target, options)| {
                [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &address(target).octets(), &options.concat()].concat()
            }),
    ];
    let length = prop_oneof![10 => Just(None), 1 => any::<u16>().prop_map(Some)];
    (mac, to, ethertype, next, pair, hop_limit, payload, length, any::<bool>(), 0..3usize).prop_map(
        |(mac, to, ethertype, next, (source, destination), hop_limit, mut payload, length, fix, gso)| {
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
            MemoryFrame { bytes, gso_size: [0, 0, 1400][gso], vlan: None }
        },
    )
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

fn run(frame: &MemoryFrame, hook: Hook) -> Seen {
    let tables = tables();
    let mut frame = frame.clone();
    if hook == Hook::Xdp {
        frame.gso_size = 0;
    }
    let action = from_vm(&mut frame, &tables, TAP_A, hook);
    Seen { action, bytes: frame.bytes, counted: tables.counted() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), gso_size in 0..2000usize) {
        let frame = MemoryFrame { bytes, gso_size, vlan: None };
        run(&frame, Hook::Xdp);
        run(&frame, Hook::Tc);
    }

    #[test]
    fn what_is_handed_on_is_untouched(frame in frames()) {
        for hook in [Hook::Xdp, Hook::Tc] {
            let seen = run(&frame, hook);
            if seen.action == Action::Pass {
                prop_assert_eq!(&seen.bytes, &frame.bytes);
            }
        }
    }

    #[test]
    fn what_is_sent_on_is_the_senders_and_differs_only_as_a_router_makes_it(frame in frames()) {
        for hook in [Hook::Xdp, Hook::Tc] {
            let seen = run(&frame, hook);
            if let Action::Redirect(ifindex) = seen.action {
                let (before, _) = Headers::ref_from_prefix(&frame.bytes).unwrap();
                let (after, _) = Headers::ref_from_prefix(&seen.bytes).unwrap();
                prop_assert_eq!(ifindex, TAP_B);
                prop_assert_eq!(before.ethernet.source, MAC_A);
                prop_assert_eq!(before.ip.source(), address("2001:db8::1"));
                prop_assert_eq!(before.ip.destination(), address("2001:db8::2"));
                prop_assert!(before.ip.hop_limit > 1);
                let mut expected = frame.bytes.clone();
                expected[..6].copy_from_slice(&MAC_B);
                expected[6..12].copy_from_slice(&ROUTER_MAC);
                expected[21] -= 1;
                prop_assert_eq!(&seen.bytes, &expected);
                prop_assert_eq!(after.ip.hop_limit, before.ip.hop_limit - 1);
            }
        }
    }

    #[test]
    fn an_answer_is_the_routers_and_its_checksum_is_right(frame in frames()) {
        for hook in [Hook::Xdp, Hook::Tc] {
            let seen = run(&frame, hook);
            if seen.action == Action::Reply && seen.counted.contains_key(&(1, "answered_ns")) {
                let (reply, payload) = Headers::ref_from_prefix(&seen.bytes).unwrap();
                prop_assert_eq!(seen.bytes.len(), 86);
                prop_assert_eq!(reply.ethernet.source, ROUTER_MAC);
                prop_assert_eq!(reply.ip.hop_limit, 255);
                prop_assert!(reply.ip.source() != address("2001:db8::1"), "the VM's own address");
                let pseudo = pseudo_header(reply.ip.source(), reply.ip.destination(), 32, protocol::ICMP6);
                prop_assert!(pseudo.add_sum(sum(payload)).is_valid());
                prop_assert_eq!(&seen.bytes[L4_OFFSET..L4_OFFSET + 2], &[136, 0]);
            }
        }
    }

    #[test]
    fn the_hooks_never_contradict_each_other(frame in frames()) {
        let (xdp, tc) = (run(&frame, Hook::Xdp), run(&frame, Hook::Tc));
        match xdp.action {
            Action::Pass => {}
            Action::Drop => {
                prop_assert_eq!(tc.action, Action::Drop);
                prop_assert_eq!(xdp.counted, tc.counted);
            }
            Action::Reply | Action::Redirect(_) => {
                prop_assert_eq!(tc.action, xdp.action);
                prop_assert_eq!(tc.bytes, xdp.bytes);
            }
        }
    }

    #[test]
    fn every_frame_is_counted_once(frame in frames()) {
        for hook in [Hook::Xdp, Hook::Tc] {
            let seen = run(&frame, hook);
            let of_sender: u64 =
                seen.counted.iter().filter(|((_, label), _)| !label.starts_with("delivered")).map(|(_, n)| n).sum();
            prop_assert_eq!(of_sender, 1);
            if seen.action == Action::Drop {
                prop_assert!(Reason::ALL.iter().any(|r| seen.counted.keys().any(|(_, label)| *label == r.label())));
            }
        }
    }
}
