//! One TAP, and three hundred, in a kernel of their own: what `apply::kernel` makes of them, as iproute2 sees it.

mod netns;

use netns::{
    Tap, address_entries, addresses, endpoint, fields, in_namespace, ip, ip_json, neighbours, our_routes,
    set_sysctl, sysctl,
};
use serval::apply::kernel::{Applied, Kernel, KernelError, Obstacle};
use serval::apply::links::Watch;
use serval::plan::{Attached, HostFacts};
use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

const MAC: &str = "02:00:00:00:00:11";
const ADDRESSES: [&str; 2] = ["2001:db8:1::11", "2001:db8:2::11"];
const GATEWAY: &str = "2001:db8:1::1";

async fn facts() -> HostFacts {
    Watch::open().await.expect("the kernel lists its interfaces").facts().clone()
}

async fn tap0() -> Attached {
    endpoint(&facts().await, "tap0", MAC, &ADDRESSES, &[GATEWAY])
}

async fn endpoint_of(name: &str, addresses: &[&str]) -> Attached {
    endpoint(&facts().await, name, "02:00:00:00:00:22", addresses, &[])
}

async fn apply(kernel: &Kernel, endpoint: &Attached) -> Applied {
    kernel.apply(endpoint).await.expect("the kernel takes it")
}

/// Everything is as planned, and a repetition finds nothing to do.
async fn assert_settled(kernel: &Kernel, endpoint: &Attached) {
    let link_local = format!("{}/64", endpoint.gateway);
    let name = endpoint.interface.as_str();
    assert_eq!(addresses(name), [format!("{GATEWAY}/128"), link_local]);
    for entry in address_entries(name) {
        assert_eq!(entry["nodad"], true, "{entry}");
        assert!(entry["tentative"].is_null() && entry["dynamic"].is_null(), "{entry}");
    }
    assert_eq!(our_routes(name), ADDRESSES);
    let mac = endpoint.mac;
    let mut expected: Vec<String> = ADDRESSES.iter().map(|address| format!("{address} {mac}")).collect();
    expected.push(format!("{} {mac}", mac.link_local()));
    assert_eq!(neighbours(name), expected);
    assert_eq!(apply(kernel, endpoint).await, Applied::default());
}

/// Nothing of ours is left, and nothing passes.
fn assert_bare(name: &str) {
    assert_eq!(addresses(name), [""; 0]);
    assert_eq!(our_routes(name), [""; 0]);
    assert_eq!(neighbours(name), [""; 0]);
    assert_eq!(ip_json(&format!("-6 route show table all dev {name}")).len(), 0);
    assert_eq!(sysctl(name, "disable_ipv6"), "1");
}

#[test]
fn a_tap_gets_all_it_needs_and_a_repetition_changes_nothing() {
    in_namespace(|| async {
        let _tap = Tap::up("tap0");
        let kernel = Kernel::open("tap").unwrap();
        kernel.prepare_host().await.unwrap();
        assert_eq!(kernel.prepare_host().await.unwrap(), 0);
        let endpoint = tap0().await;
        let applied = apply(&kernel, &endpoint).await;
        assert!(applied.changed > 0);
        assert_eq!(applied.obstacles, []);
        assert_settled(&kernel, &endpoint).await;
        let expected = [
            ("forwarding", "1"),
            ("accept_ra", "0"),
            ("autoconf", "0"),
            ("addr_gen_mode", "1"),
            ("accept_dad", "0"),
            ("dad_transmits", "0"),
            ("accept_redirects", "0"),
            ("disable_ipv6", "0"),
        ];
        for (name, value) in expected {
            assert_eq!(sysctl("tap0", name), value, "{name}");
        }
        // The kernel uses them: the way to the VM, and its own address on it.
        let way = ip_json("-6 route get fibmatch 2001:db8:1::11");
        assert_eq!((way[0]["dev"].as_str(), way[0]["metric"].as_u64()), (Some("tap0"), Some(16)));
        assert_eq!(ip_json(&format!("-6 route get {GATEWAY}"))[0]["type"], "local");
        let marks = fields(&ip_json("-6 neighbour show dev tap0 nud permanent"), "protocol");
        assert_eq!(marks, ["83"; 3]);
    });
}

#[test]
fn a_tap_that_is_up_long_before_loses_the_kernels_own_link_local() {
    in_namespace(|| async {
        let _tap = Tap::up("tap0");
        let kernels_own = addresses("tap0");
        assert_eq!(kernels_own, [format!("{}/64", tap0().await.gateway)]);
        let kernel = Kernel::open("tap").unwrap();
        let endpoint = tap0().await;
        apply(&kernel, &endpoint).await;
        assert_settled(&kernel, &endpoint).await;

        // The same, when the kernel's own is not even of the TAP's present MAC.
        let _other = Tap::up("tap1");
        let stale = addresses("tap1");
        ip("link set tap1 address 02:00:00:00:00:77");
        assert_eq!(addresses("tap1"), stale);
        let other = endpoint_of("tap1", &["2001:db8:1::22"]).await;
        apply(&kernel, &other).await;
        assert_eq!(addresses("tap1"), [format!("{}/64", other.gateway)]);
    });
}

#[test]
fn down_keeps_the_sysctls_and_up_brings_all_back() {
    in_namespace(|| async {
        let _tap = Tap::new("tap0");
        let kernel = Kernel::open("tap").unwrap();
        let down = tap0().await;
        assert!(!down.admin_up);
        assert!(apply(&kernel, &down).await.changed > 0);
        assert_eq!(apply(&kernel, &down).await.changed, 0);
        ip("link set tap0 up");
        let up = tap0().await;
        apply(&kernel, &up).await;
        assert_settled(&kernel, &up).await;
        ip("link set tap0 down");
        assert_eq!(apply(&kernel, &tap0().await).await, Applied::default());
        // The plan does not know yet that it went down: an error that says so, no harm.
        assert!(matches!(kernel.apply(&up).await, Err(KernelError::Down { .. })));
        ip("link set tap0 up");
        let again = tap0().await;
        apply(&kernel, &again).await;
        assert_settled(&kernel, &again).await;
    });
}

#[test]
fn a_vmm_may_come_after_the_endpoint() {
    in_namespace(|| async {
        ip("tuntap add dev tap0 mode tap");
        ip("link set tap0 up");
        let kernel = Kernel::open("tap").unwrap();
        let endpoint = tap0().await;
        assert!(endpoint.admin_up && !endpoint.carrier);
        assert_eq!(apply(&kernel, &endpoint).await.obstacles, []);
        assert_settled(&kernel, &endpoint).await;
        let vmm = Tap::new("tap0");
        assert!(tap0().await.carrier);
        assert_settled(&kernel, &endpoint).await;
        drop(vmm);
        // A program that another test is just starting may hold the descriptor until it executes.
        let off = async {
            while tap0().await.carrier {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), off).await.expect("the carrier goes with the VMM");
        assert_settled(&kernel, &endpoint).await;
    });
}

#[test]
fn a_new_mac_of_the_tap_moves_the_gateway_and_one_of_the_vm_its_neighbours() {
    in_namespace(|| async {
        let _tap = Tap::up("tap0");
        let kernel = Kernel::open("tap").unwrap();
        apply(&kernel, &tap0().await).await;
        ip("link set tap0 address 02:00:00:00:00:77");
        let moved = tap0().await;
        assert_eq!(moved.gateway.to_string(), "fe80::ff:fe00:77");
        apply(&kernel, &moved).await;
        assert_settled(&kernel, &moved).await;
        let other = endpoint(&facts().await, "tap0", "02:00:00:00:00:22", &ADDRESSES, &[GATEWAY]);
        // Three neighbours change, of which the VM's link-local one is another address now.
        assert_eq!(apply(&kernel, &other).await.changed, 4);
        assert_settled(&kernel, &other).await;
    });
}

#[test]
fn an_address_that_is_dropped_goes_and_one_that_moves_to_another_tap_arrives() {
    in_namespace(|| async {
        let _taps = (Tap::up("tap0"), Tap::up("tap1"));
        let kernel = Kernel::open("tap").unwrap();
        apply(&kernel, &tap0().await).await;
        let facts = facts().await;
        let there = endpoint(&facts, "tap1", "02:00:00:00:00:22", &ADDRESSES[1..], &[GATEWAY]);
        let here = endpoint(&facts, "tap0", MAC, &ADDRESSES[..1], &[]);
        // The new place may come to its turn before the old one.
        assert_eq!(apply(&kernel, &there).await.obstacles, []);
        apply(&kernel, &here).await;
        assert_eq!(
            (our_routes("tap0"), our_routes("tap1")),
            (vec![ADDRESSES[0].into()], vec![ADDRESSES[1].into()])
        );
        assert_eq!(neighbours("tap0").len(), 2);
        assert_eq!(addresses("tap0"), [format!("{}/64", here.gateway)]);
        // The other TAP keeps the gateway address that this one has lost.
        assert_eq!(ip_json(&format!("-6 route get {GATEWAY}"))[0]["type"], "local");
        for endpoint in [&here, &there] {
            assert_eq!(apply(&kernel, endpoint).await, Applied::default());
        }
    });
}

#[test]
fn a_tap_that_vanishes_is_an_error_and_its_successor_is_set_up() {
    in_namespace(|| async {
        let tap = Tap::up("tap0");
        let kernel = Kernel::open("tap").unwrap();
        let first = tap0().await;
        apply(&kernel, &first).await;
        drop(tap);
        assert!(matches!(kernel.apply(&first).await, Err(KernelError::Vanished { .. })));
        assert!(matches!(
            kernel.remove(first.ifindex, &first.interface).await,
            Err(KernelError::Vanished { .. })
        ));
        let _other = Tap::up("tap1");
        let _tap = Tap::up("tap0");
        assert!(matches!(kernel.apply(&first).await, Err(KernelError::Vanished { .. })));
        let second = tap0().await;
        assert_ne!(first.ifindex, second.ifindex);
        apply(&kernel, &second).await;
        assert_settled(&kernel, &second).await;
    });
}

#[test]
fn what_others_put_on_a_tap_stays_and_is_told_when_it_is_in_the_way() {
    in_namespace(|| async {
        let _taps = (Tap::up("tap0"), Tap::up("tap1"));
        let kernel = Kernel::open("tap").unwrap();
        ip("-6 route add 2001:db8:99::/64 dev tap0");
        ip("-6 neighbour add 2001:db8:99::1 lladdr 02:00:00:00:00:99 nud permanent dev tap0");
        ip("-6 address add 2001:db8:98::1/64 dev tap0 nodad");
        ip("-6 route add 2001:db8:1::11 dev tap1 proto static metric 16");
        ip("-6 neighbour add 2001:db8:2::11 lladdr 02:00:00:00:00:99 nud permanent dev tap0");
        let foreign = || {
            let mut all = ip_json("-6 route show 2001:db8:99::/64");
            all.extend(ip_json("-6 neighbour show 2001:db8:99::1"));
            all.extend(
                address_entries("tap0").into_iter().filter(|entry| entry["local"] == "2001:db8:98::1"),
            );
            all.extend(ip_json("-6 route show 2001:db8:1::11"));
            all
        };
        let before = foreign();
        assert_eq!(before.len(), 4);
        let endpoint = tap0().await;
        let facts = facts().await;
        let obstacles = apply(&kernel, &endpoint).await.obstacles;
        let route = Obstacle::Route {
            address: ADDRESSES[0].parse().unwrap(),
            protocol: 4,
            oif: facts.links["tap1"].ifindex,
            metric: 16,
        };
        let neighbour = Obstacle::Neighbour { address: ADDRESSES[1].parse().unwrap(), protocol: 0 };
        assert_eq!(obstacles, [route, neighbour]);
        assert_eq!(foreign(), before);
        assert_eq!(our_routes("tap0"), [ADDRESSES[1]]);
        // It stays an obstacle, not a drift.
        let again = apply(&kernel, &endpoint).await;
        assert_eq!((again.changed, again.obstacles.len()), (0, 2));
        // Gone: all is well.
        ip("-6 route del 2001:db8:1::11 dev tap1");
        ip("-6 neighbour del 2001:db8:2::11 dev tap0");
        assert_eq!(apply(&kernel, &endpoint).await.obstacles, []);
        assert_eq!(apply(&kernel, &endpoint).await, Applied::default());
    });
}

#[test]
fn a_better_route_elsewhere_is_told() {
    in_namespace(|| async {
        let _taps = (Tap::up("tap0"), Tap::up("tap1"));
        let kernel = Kernel::open("tap").unwrap();
        // BIRD's default metric is worse than ours and no obstacle.
        ip("-6 route add 2001:db8:1::11 dev tap1 proto bird metric 32");
        ip("-6 route add 2001:db8:2::11 dev tap1 proto bird metric 8");
        let applied = apply(&kernel, &tap0().await).await;
        assert!(
            matches!(applied.obstacles[..], [Obstacle::Route { protocol: 12, metric: 8, .. }]),
            "{applied:?}"
        );
        ip("-6 route replace prohibit 2001:db8:2::11 metric 8");
        let applied = apply(&kernel, &tap0().await).await;
        assert!(matches!(applied.obstacles[..], [Obstacle::NoRoute { .. }]), "{applied:?}");
    });
}

#[test]
fn remove_leaves_nothing_and_block_closes() {
    in_namespace(|| async {
        let _taps = (Tap::up("tap0"), Tap::up("tap1"));
        let kernel = Kernel::open("tap").unwrap();
        let endpoint = tap0().await;
        // Keeps addresses when the TAP goes down; not when its IPv6 is switched off.
        set_sysctl("tap0", "keep_addr_on_down", "1");
        apply(&kernel, &endpoint).await;
        assert!(kernel.remove(endpoint.ifindex, &endpoint.interface).await.unwrap() > 0);
        assert_bare("tap0");
        assert_eq!(kernel.remove(endpoint.ifindex, &endpoint.interface).await.unwrap(), 0);
        // Back again.
        apply(&kernel, &endpoint).await;
        assert_settled(&kernel, &endpoint).await;

        let facts = facts().await;
        let (ifindex, name) = (facts.links["tap1"].ifindex, "tap1".parse().unwrap());
        assert_eq!(kernel.block(ifindex, &name).await.unwrap(), 1);
        assert_eq!(kernel.block(ifindex, &name).await.unwrap(), 0);
        assert_bare("tap1");
        assert!(matches!(kernel.block(ifindex + 100, &name).await, Err(KernelError::Vanished { .. })));
        // With an MTU below 1280 the kernel has no IPv6 on it at all, which is as closed, and no endpoint's TAP.
        ip("link set tap1 mtu 1000");
        assert_eq!(kernel.block(ifindex, &name).await.unwrap(), 0);
        let small = netns::endpoint(&facts, "tap1", MAC, &ADDRESSES, &[]);
        assert!(matches!(kernel.apply(&small).await, Err(KernelError::NoIpv6 { .. })));
    });
}

#[test]
fn sweep_takes_away_what_an_earlier_run_has_left() {
    in_namespace(|| async {
        let _taps = (Tap::up("tap0"), Tap::up("tap1"));
        let kernel = Kernel::open("tap").unwrap();
        let facts = facts().await;
        let kept = endpoint(&facts, "tap0", MAC, &ADDRESSES, &[GATEWAY]);
        let left = endpoint(&facts, "tap1", "02:00:00:00:00:22", &["2001:db8:1::22"], &[GATEWAY]);
        for outcome in kernel.apply_all([&kept, &left]).await.into_values() {
            assert_eq!(outcome.unwrap().obstacles, []);
        }
        ip("-6 route add 2001:db8:99::/64 dev tap1");
        let keep = BTreeSet::from([kept.ifindex]);
        // A route, two neighbours, two addresses.
        assert_eq!(kernel.sweep(&keep).await.unwrap(), 5);
        assert_eq!(kernel.sweep(&keep).await.unwrap(), 0);
        assert_eq!((our_routes("tap1"), addresses("tap1")), (vec![], vec![]));
        assert_eq!(neighbours("tap1"), [""; 0]);
        assert_eq!(ip_json("-6 route show 2001:db8:99::/64").len(), 1);
        assert_settled(&kernel, &kept).await;
    });
}

#[test]
fn three_hundred_taps_beside_many_routes() {
    in_namespace(|| async {
        const TAPS: u16 = 300;
        const ROUTES: u32 = 20_000;
        let _uplink = Tap::up("uplink");
        let batch = tempfile::NamedTempFile::new().unwrap();
        let routes: String = (0..ROUTES)
            .map(|n| {
                format!(
                    "route add 2001:db8:{:x}:{:x}::/64 dev uplink proto bird metric 32\n",
                    0x100 + n / 256,
                    n % 256
                )
            })
            .collect();
        // Persistent, without a VMM: the end of the namespace takes them all at once.
        let taps: String =
            (0..TAPS).map(|n| format!("tuntap add dev tap{n} mode tap\nlink set tap{n} up\n")).collect();
        std::fs::write(batch.path(), routes + &taps).unwrap();
        ip(&format!("-6 -batch {}", batch.path().display()));
        let kernel = Kernel::open("tap").unwrap();
        kernel.prepare_host().await.unwrap();
        let facts = facts().await;
        let endpoints: Vec<Attached> = (0..TAPS)
            .map(|n| {
                // Four neighbours a TAP: 1200 permanent ones, more than the default gc_thresh3 of 1024.
                let texts = [1, 2, 3].map(|net| format!("2001:db8:{net}::{:x}", n + 0x100));
                let mac = format!("02:00:00:00:{:02x}:{:02x}", n >> 8, n & 0xff);
                endpoint(&facts, &format!("tap{n}"), &mac, &texts.each_ref().map(String::as_str), &[GATEWAY])
            })
            .collect();
        for round in ["first", "second"] {
            let start = Instant::now();
            let outcomes = kernel.apply_all(&endpoints).await;
            println!("{TAPS} TAPs beside {ROUTES} routes, {round} time: {:?}", start.elapsed());
            assert_eq!(outcomes.len(), usize::from(TAPS));
            for outcome in outcomes.into_values() {
                let applied = outcome.unwrap();
                assert_eq!(applied.obstacles, []);
                assert!(round == "first" || applied.changed == 0);
            }
        }
        let start = Instant::now();
        assert_eq!(apply(&kernel, &endpoints[7]).await, Applied::default());
        println!("one of them: {:?}", start.elapsed());
        assert_eq!(our_routes("tap299").len(), 3);
        assert_eq!(neighbours("tap299").len(), 4);
    });
}
