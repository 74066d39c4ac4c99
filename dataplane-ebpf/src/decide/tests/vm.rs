//! Frames from a VM.

use super::{
    MAC_A, MAC_B, NEXT_HOP_MAC, Origin, ROUTER_MAC, TAP_B, UPLINK, UPLINK_MAC, address, chain_is_legal,
    frames, run, sent_on, stays, sum,
};
use crate::abi::Reason;
use crate::decide::{Action, Hook};
use crate::host::MemoryFrame;
use crate::wire::{Headers, L4_OFFSET, protocol, pseudo_header};
use proptest::prelude::*;
use zerocopy::FromBytes;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), gso_size in 0..2000usize) {
        let frame = MemoryFrame { bytes, gso_size, ..MemoryFrame::default() };
        run(Origin::Vm, &frame, Hook::Xdp);
        run(Origin::Vm, &frame, Hook::Tc);
    }

    #[test]
    fn what_is_handed_on_is_untouched(frame in frames(Origin::Vm)) {
        for hook in [Hook::Xdp, Hook::Tc] {
            let seen = run(Origin::Vm, &frame, hook);
            if seen.action == Action::Pass {
                prop_assert_eq!(&seen.bytes, &frame.bytes);
            }
        }
    }

    #[test]
    fn what_is_sent_on_is_the_senders_and_differs_only_as_a_router_makes_it(frame in frames(Origin::Vm)) {
        for hook in [Hook::Xdp, Hook::Tc] {
            let seen = run(Origin::Vm, &frame, hook);
            if let Action::Redirect(ifindex) = seen.action {
                let (before, _) = Headers::ref_from_prefix(&frame.bytes).unwrap();
                let destination = before.ip.destination();
                let (device, to, from) = match destination == address("2001:db8::2") {
                    true => (TAP_B, MAC_B, ROUTER_MAC),
                    false => (UPLINK, NEXT_HOP_MAC, UPLINK_MAC),
                };
                prop_assert_eq!(ifindex, device);
                prop_assert_eq!(before.ethernet.source, MAC_A);
                prop_assert_eq!(before.ip.source(), address("2001:db8::1"));
                prop_assert!(!stays(destination), "{destination:?} is sent on");
                prop_assert!(before.ip.hop_limit > 1);
                prop_assert_ne!(before.ip.next_header, protocol::HOP_BY_HOP);
                prop_assert!(chain_is_legal(&frame.bytes[14..]));
                prop_assert_eq!(&seen.bytes, &sent_on(&frame.bytes, to, from));
            }
        }
    }

    #[test]
    fn an_answer_is_the_routers_and_its_checksum_is_right(frame in frames(Origin::Vm)) {
        for hook in [Hook::Xdp, Hook::Tc] {
            let seen = run(Origin::Vm, &frame, hook);
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
    fn the_hooks_never_contradict_each_other(frame in frames(Origin::Vm)) {
        let (xdp, tc) = (run(Origin::Vm, &frame, Hook::Xdp), run(Origin::Vm, &frame, Hook::Tc));
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
    fn every_frame_is_counted_once(frame in frames(Origin::Vm)) {
        for hook in [Hook::Xdp, Hook::Tc] {
            let seen = run(Origin::Vm, &frame, hook);
            let of_sender: u64 =
                seen.counted.iter().filter(|((_, label), _)| !label.starts_with("delivered")).map(|(_, n)| n).sum();
            prop_assert_eq!(of_sender, 1);
            if seen.action == Action::Drop {
                prop_assert!(Reason::ALL.iter().any(|r| seen.counted.keys().any(|(_, label)| *label == r.label())));
            }
        }
    }
}
