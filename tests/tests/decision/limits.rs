//! What a VM may have answered or handed to the host, on the host build and on the loaded programs: a burst, and then no
//! more, whichever hook is asked; and nothing of it stands in the way of what is forwarded.

use crate::runs::{HOOKS, NOWHERE, Question, in_namespace, on_host, on_kernel};
use dataplane_ebpf::abi::{LINK_LOCALS, Rate};
use dataplane_ebpf::decide::Hook;
use dataplane_ebpf::decide::limit::Limits;
use dataplane_ebpf::host::{MemoryLimits, MemoryTables};
use serval_tests::cases::{GATEWAY, VM_A, VM_B, World, discovery, from_a, link_local_a};
use serval_tests::frame::{Frame, Payload, source_link_layer};
use serval_tests::program::{Origin, Programs};
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

/// At once, and none comes back within the test.
const BURST: u32 = 3;
const HOUR_NS: u64 = 3_600_000_000_000;
const RATE: Rate = Rate { cost: HOUR_NS, capacity: HOUR_NS * BURST as u64 };
/// Addresses are what is asked about.
const PLENTY: Rate = Rate { cost: 1, capacity: HOUR_NS };

const MLD_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// A hook's word for a frame: the one counter that it moved, by label.
type Ask<'a> = &'a mut dyn FnMut(Hook, &Frame) -> Vec<&'static str>;

fn question(frame: &Frame) -> Question {
    Question { origin: Origin::Vm, frame: frame.clone().into(), multicast_spent: false }
}

/// Runs `test` on the host build, then on the loaded programs.
fn on_both(host: Rate, test: impl Fn(Ask<'_>) + Sync) {
    let limited = |tables: MemoryTables| {
        let limits = Limits { answers: RATE, host, now: HOUR_NS };
        MemoryTables { limits: Some(MemoryLimits::new(limits)), ..tables }
    };
    let labels = |seen: crate::runs::Seen| seen.counted.into_keys().map(|(_, label)| label).collect();
    let tables = limited(World::tables(NOWHERE));
    test(&mut |hook, frame| labels(on_host(&tables, hook, &question(frame))));
    in_namespace(|object, devices| {
        let mut programs = Programs::load_limited(object, RATE, host);
        programs.fill(&World::tables(devices));
        test(&mut |hook, frame| labels(on_kernel(&mut programs, hook, &question(frame))));
    });
}

fn who_is_the_router() -> Frame {
    let ask = Payload::neighbour_solicitation(GATEWAY, &[source_link_layer(VM_A.mac)]);
    discovery(link_local_a(), GATEWAY).carrying(ask)
}

fn where_is_a_router() -> Frame {
    discovery(link_local_a(), GATEWAY).carrying(Payload::router_solicitation(&[]))
}

fn listener_report(source: Ipv6Addr) -> Frame {
    discovery(source, MLD_ROUTERS).carrying(Payload::icmpv6(143, 0, &[0; 4]))
}

#[test]
fn both_hooks_answer_out_of_the_same_bucket() {
    on_both(RATE, |ask| {
        assert_eq!(ask(Hook::Xdp, &who_is_the_router()), ["answered_ns"]);
        assert_eq!(ask(Hook::Tc, &who_is_the_router()), ["answered_ns"]);
        assert_eq!(ask(Hook::Xdp, &where_is_a_router()), ["answered_rs"]);
        for hook in HOOKS {
            for frame in [who_is_the_router(), where_is_a_router()] {
                assert_eq!(ask(hook, &frame), ["rate_limited"], "{hook:?}");
            }
            assert_eq!(
                ask(hook, &from_a(VM_B.address).carrying(Payload::udp(1, 2, b"x"))).len(),
                2,
                "what is forwarded has nothing to do with it"
            );
        }
        assert_eq!(ask(Hook::Tc, &listener_report(link_local_a())), ["passed"], "a bucket of its own");
    });
}

#[test]
fn tc_hands_the_host_a_burst_and_then_no_more() {
    on_both(RATE, |ask| {
        let own = Payload::neighbour_solicitation(VM_A.address, &[]);
        let dad =
            discovery(Ipv6Addr::UNSPECIFIED, serval_tests::frame::solicited_node(VM_A.address)).carrying(own);
        let frames = [
            listener_report(link_local_a()),
            dad,
            discovery(link_local_a(), GATEWAY).carrying(Payload::echo_request(1, 1, b"x")),
        ];
        for frame in &frames {
            // What XDP hands to TC is counted there alone.
            for _ in 0..2 * BURST {
                assert_eq!(ask(Hook::Xdp, frame), ["deferred"]);
            }
            assert_eq!(ask(Hook::Tc, frame), ["passed"]);
        }
        for frame in &frames {
            assert_eq!(ask(Hook::Tc, frame), ["host_limited"]);
        }
        // The kernel carries that on, or says why not.
        let last_hop = serval_tests::frame::Ipv6 { hop_limit: 1, ..from_a(VM_B.address) }
            .carrying(Payload::udp(1, 2, b"x"));
        for _ in 0..2 * BURST {
            assert_eq!(ask(Hook::Tc, &last_hop), ["passed"]);
        }
        assert_eq!(ask(Hook::Tc, &who_is_the_router()), ["answered_ns"], "a bucket of its own");
    });
}

#[test]
fn the_host_deals_with_a_few_link_local_addresses_of_a_vm() {
    on_both(PLENTY, |ask| {
        let from = |number: u16| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xbad, number);
        let ping = |number| discovery(from(number), GATEWAY).carrying(Payload::echo_request(1, 1, b"x"));
        assert_eq!(ask(Hook::Tc, &listener_report(link_local_a())), ["passed"]);
        for number in 0..100 {
            let wanted = if usize::from(number) < LINK_LOCALS - 1 { "passed" } else { "link_local_limited" };
            assert_eq!(ask(Hook::Tc, &ping(number)), [wanted], "{number}");
        }
        // Beyond the scope of a link-local source, which the kernel says to it.
        let beyond = serval_tests::frame::Ipv6 { source: from(200), ..from_a(VM_B.address) };
        assert_eq!(ask(Hook::Tc, &beyond.carrying(Payload::udp(1, 2, b"x"))), ["link_local_limited"]);
        assert_eq!(ask(Hook::Tc, &listener_report(link_local_a())), ["passed"], "the real one is known");
        assert_eq!(ask(Hook::Tc, &listener_report(Ipv6Addr::UNSPECIFIED)), ["passed"], "`::` is none");
    });
}

/// On the host build alone, which needs no neighbours; `attacks` shows the same of the kernel's.
#[test]
fn the_kernel_looks_for_a_few_neighbours_of_a_vm() {
    let limits = Limits { answers: RATE, host: RATE, now: HOUR_NS };
    // Without routes that the fast path knows.
    let tables = MemoryTables {
        limits: Some(MemoryLimits::new(limits)),
        routes: BTreeMap::new(),
        ..World::tables(NOWHERE)
    };
    let nowhere = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
    let mut asked = question(&from_a(nowhere).carrying(Payload::udp(1, 2, b"x")));
    asked.frame.needs_neighbour = true;
    assert_eq!(on_host(&tables, Hook::Xdp, &asked).counted, [((VM_A.slot, "deferred"), 1)].into());
    let of_many: Vec<_> = (0..100).map(|_| on_host(&tables, Hook::Tc, &asked).counted).collect();
    let passed = of_many.iter().filter(|counted| counted.contains_key(&(VM_A.slot, "passed"))).count();
    let limited = of_many.iter().filter(|counted| counted.contains_key(&(VM_A.slot, "neighbour_limited")));
    assert_eq!((passed, limited.count()), (40, 60));
    asked.frame.needs_neighbour = false;
    assert_eq!(on_host(&tables, Hook::Tc, &asked).counted, [((VM_A.slot, "passed"), 1)].into());
}
