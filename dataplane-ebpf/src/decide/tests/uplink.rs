//! Frames from other hosts.

use super::{
    MAC_A, MAC_B, Origin, ROUTER_MAC, TAP_A, TAP_B, UPLINK_MAC, address, chain_is_legal, frames, is_nobody,
    run, sent_on, stays,
};
use crate::abi::Reason;
use crate::decide::{Action, Hook};
use crate::host::MemoryFrame;
use crate::wire::{Headers, protocol};
use proptest::prelude::*;
use zerocopy::FromBytes;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), gso_size in 0..2000usize) {
        let frame = MemoryFrame { bytes, gso_size, ..MemoryFrame::default() };
        run(Origin::Uplink, &frame, Hook::Xdp);
        run(Origin::Uplink, &frame, Hook::Tc);
    }

    #[test]
    fn what_is_the_hosts_is_neither_touched_nor_counted(frame in frames(Origin::Uplink)) {
        for hook in [Hook::Xdp, Hook::Tc] {
            let seen = run(Origin::Uplink, &frame, hook);
            prop_assert_ne!(seen.action, Action::Reply);
            if seen.action == Action::Pass {
                prop_assert_eq!(&seen.bytes, &frame.bytes);
                prop_assert!(seen.counted.is_empty());
            }
        }
    }

    #[test]
    fn what_is_delivered_is_legal_and_differs_only_as_a_router_makes_it(frame in frames(Origin::Uplink)) {
        for (hook, label) in [(Hook::Xdp, "delivered_xdp"), (Hook::Tc, "delivered_tc")] {
            let seen = run(Origin::Uplink, &frame, hook);
            if let Action::Redirect(ifindex) = seen.action {
                let (before, _) = Headers::ref_from_prefix(&frame.bytes).unwrap();
                let (device, slot, to, vm) = match ifindex == TAP_A {
                    true => (TAP_A, 1, MAC_A, address("2001:db8::1")),
                    false => (TAP_B, 2, MAC_B, address("2001:db8::2")),
                };
                prop_assert_eq!(ifindex, device);
                prop_assert_eq!(before.ethernet.destination, UPLINK_MAC);
                prop_assert_eq!(before.ip.destination(), vm);
                prop_assert!(!stays(before.ip.source()), "sent on from {:?}", before.ip.source());
                prop_assert!(before.ip.hop_limit > 1);
                prop_assert_ne!(before.ip.next_header, protocol::HOP_BY_HOP);
                prop_assert!(chain_is_legal(&frame.bytes[14..]));
                prop_assert_eq!(&seen.bytes, &sent_on(&frame.bytes, to, ROUTER_MAC));
                prop_assert_eq!(seen.counted, [((slot, label), 1)].into());
            }
        }
    }

    #[test]
    fn what_is_dropped_is_illegal_and_counted_to_whom_it_is_for(frame in frames(Origin::Uplink)) {
        for hook in [Hook::Xdp, Hook::Tc] {
            let seen = run(Origin::Uplink, &frame, hook);
            if seen.action == Action::Drop {
                let (headers, _) = Headers::ref_from_prefix(&frame.bytes).unwrap();
                let slot = if headers.ip.destination() == address("2001:db8::1") { 1 } else { 2 };
                let end = 54 + usize::from(headers.ip.payload_len.get());
                let source = headers.ip.source();
                let is_here = ["2001:db8::1", "2001:db8::2"].into_iter().any(|vm| source == address(vm));
                prop_assert!(is_nobody(source) || is_here || !chain_is_legal(&frame.bytes[14..end]));
                prop_assert_eq!(seen.counted.len(), 1);
                let ((of, label), count) = seen.counted.first_key_value().unwrap();
                prop_assert_eq!((*of, *count), (slot, 1));
                prop_assert!(Reason::ALL.iter().any(|reason| reason.label() == *label), "{label}");
            }
        }
    }

    #[test]
    fn the_hooks_never_contradict_each_other(frame in frames(Origin::Uplink)) {
        let (xdp, tc) = (run(Origin::Uplink, &frame, Hook::Xdp), run(Origin::Uplink, &frame, Hook::Tc));
        if xdp.action != Action::Pass {
            prop_assert_eq!(tc.action, xdp.action);
            prop_assert_eq!(tc.bytes, xdp.bytes);
        }
        if xdp.action == Action::Drop {
            prop_assert_eq!(xdp.counted, tc.counted);
        }
    }
}
