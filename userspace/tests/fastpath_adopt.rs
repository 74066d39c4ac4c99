//! What outlives the daemon: a restart adopts it, repairs it, or takes it away.

mod fastpath_rig;

use aya::maps::{Array, Map, MapData};
use dataplane_ebpf::abi::{EPOCH_OF_FORWARDING, Mac, NextHopGroup, Route, names};
use fastpath_rig::{ADVERTISEMENT, Tap, counted, endpoint, in_namespace, run, tcx_programs, xdp_program};
use serval::apply::fastpath::{FastPath, FastPathError, Settings, TcMode, detach_pinned};
use serval::plan::Attached;
use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_restart_keeps_links_and_counters_and_replaces_programs() {
    in_namespace("restart", |rig| {
        let tap = Tap::new("tap1");
        let mut fastpath = rig.open();
        fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        tap.send();
        let count = counted(&fastpath, tap.ifindex);
        let names = rig.pinned_links();
        let before: Vec<_> = names.iter().map(|name| rig.link(name)).collect();

        drop(fastpath);
        assert_eq!(xdp_program(&tap), Some(before[2].1), "a daemon that dies leaves its programs");
        let mut fastpath = rig.open();
        fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        let after: Vec<_> = names.iter().map(|name| rig.link(name)).collect();
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(before.0, after.0, "the same link");
            assert_ne!(before.1, after.1, "a new program");
        }
        assert_eq!(counted(&fastpath, tap.ifindex), count);
        assert!(fastpath.retain(&BTreeSet::from([tap.ifindex])).unwrap().is_empty());
        assert_eq!(tcx_programs(&tap).len(), 1);
    });
}

/// What flows remember of their ways counts for one epoch of forwarding.
#[test]
fn every_change_of_forwarding_begins_an_epoch_and_nothing_else_does() {
    in_namespace("epoch", |rig| {
        let tap = Tap::new("tap1");
        let mut fastpath = rig.open();
        let epoch = || {
            let map = MapData::from_pin(rig.generation().join("maps").join(names::GENERATION)).unwrap();
            let map: Array<_, u64> = Map::Array(map).try_into().unwrap();
            map.get(&EPOCH_OF_FORWARDING, 0).unwrap()
        };
        let mut last = epoch();
        assert!(last > 0, "without an epoch nothing is remembered");
        let mut begins = |what: &str, expected: bool| {
            let now = epoch();
            assert_eq!(now > last, expected, "{what}: {last}, then {now}");
            last = now;
        };
        fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        begins("an endpoint comes", true);
        fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        begins("nothing has changed", false);
        fastpath.apply(&Attached { mtu: 1400, ..endpoint(&tap, 1) }, ADVERTISEMENT).unwrap();
        begins("an MTU changes", true);
        fastpath.apply_uplinks(&[(1, Mac::new([2; 6]))].into()).unwrap();
        begins("an uplink comes", true);
        let routes = fastpath.take_routes().unwrap();
        routes.set_groups(&[(1, NextHopGroup::NONE)]).unwrap();
        begins("next hops change", true);
        routes.remove_groups(&[1]).unwrap();
        begins("next hops go", true);
        for length in [64, 128] {
            let prefix = ("2001:db8:9::".parse().unwrap(), length);
            routes.set_routes(&[(prefix, Route { group: 1, mtu: 0 })]).unwrap();
            begins("a route comes", true);
            routes.remove_routes(&[prefix]).unwrap();
            begins("a route goes", true);
        }
        routes.set_routes(&[]).unwrap();
        begins("no route comes", false);
        fastpath.remove(tap.ifindex).unwrap();
        begins("an endpoint goes", true);
        drop((fastpath, routes));
        drop(rig.open());
        begins("another process takes over", true);
    });
}

#[test]
fn a_restart_under_traffic_misses_no_frame_with_xdp() {
    restart_under_traffic("traffic-xdp", true, TcMode::Auto);
}

#[test]
fn a_restart_under_traffic_misses_no_frame_with_tcx() {
    restart_under_traffic("traffic-tcx", false, TcMode::Tcx);
}

#[test]
fn a_restart_under_traffic_misses_no_frame_with_clsact() {
    restart_under_traffic("traffic-clsact", false, TcMode::Clsact);
}

fn restart_under_traffic(name: &str, xdp: bool, tc: TcMode) {
    in_namespace(name, |rig| {
        let tap = Tap::new("tap1");
        let start = || {
            let mut fastpath = FastPath::open(&Settings { xdp, tc, ..rig.settings() }).expect("opens");
            fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).expect("applies");
            fastpath
        };
        drop(start());
        let stop = AtomicBool::new(false);
        let sent = std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    tap.send();
                    sent += 1;
                }
                sent
            });
            drop(start());
            stop.store(true, Ordering::Relaxed);
            sender.join().expect("no panic")
        });
        assert!(sent > 0);
        assert_eq!(counted(&start(), tap.ifindex), sent, "each frame met one program, and was counted once");
    });
}

#[test]
fn a_restart_takes_away_what_is_no_longer_planned() {
    in_namespace("retain", |rig| {
        let (one, two, three) = (Tap::new("tap1"), Tap::new("tap2"), Tap::new("tap3"));
        let mut fastpath = rig.open();
        for (tap, n) in [(&one, 1), (&two, 2), (&three, 3)] {
            fastpath.apply(&endpoint(tap, n), ADVERTISEMENT).unwrap();
        }
        drop(fastpath);
        // Its device goes while no daemon runs.
        let gone = three.ifindex;
        drop(three);

        let mut fastpath = rig.open();
        let mut alone = endpoint(&one, 1);
        alone.gateways.clear();
        fastpath.apply(&alone, ADVERTISEMENT).unwrap();
        assert_eq!(
            fastpath.retain(&BTreeSet::from([one.ifindex])).unwrap(),
            BTreeSet::from([two.ifindex, gone])
        );
        let left = ["ENDPOINTS", "ADDRESSES", "ANSWERS", "DEVICES"].map(|map| rig.entries(map));
        assert_eq!(left, [1, 2, 1, 1]);
        assert_eq!(rig.pinned_links().len(), 3);
        assert_eq!(xdp_program(&two), None);
    });
}

#[test]
fn a_restart_makes_room_before_it_needs_it() {
    in_namespace("room", |rig| {
        let (one, two) = (Tap::new("tap1"), Tap::new("tap2"));
        let settings = Settings { max_endpoints: 1, ..rig.settings() };
        let mut fastpath = FastPath::open(&settings).unwrap();
        fastpath.apply(&endpoint(&one, 1), ADVERTISEMENT).unwrap();
        drop(fastpath);

        let mut fastpath = FastPath::open(&settings).unwrap();
        assert_eq!(fastpath.retain(&BTreeSet::from([two.ifindex])).unwrap(), BTreeSet::from([one.ifindex]));
        fastpath.apply(&endpoint(&two, 2), ADVERTISEMENT).unwrap();
        assert_eq!([rig.entries("ENDPOINTS"), rig.entries("ADDRESSES")], [1, 3]);
    });
}

#[test]
fn another_limit_gets_new_maps_while_the_old_programs_go_on() {
    in_namespace("limit", |rig| {
        let (one, two) = (Tap::new("tap1"), Tap::new("tap2"));
        let mut fastpath = rig.open();
        fastpath.apply(&endpoint(&one, 1), ADVERTISEMENT).unwrap();
        fastpath.apply(&endpoint(&two, 2), ADVERTISEMENT).unwrap();
        let name = format!("{}-xdp", one.ifindex);
        let before = rig.link(&name);
        drop(fastpath);

        let mut fastpath = FastPath::open(&Settings { max_endpoints: 16, ..rig.settings() }).unwrap();
        assert_eq!(xdp_program(&one), Some(before.1), "not replaced before its maps are full");
        fastpath.apply(&endpoint(&one, 1), ADVERTISEMENT).unwrap();
        assert_eq!(rig.link(&name).0, before.0, "the same link");
        assert_ne!(rig.link(&name).1, before.1);
        assert!(xdp_program(&two).is_some());
        fastpath.retain(&BTreeSet::from([one.ifindex])).unwrap();
        assert_eq!(xdp_program(&two), None);
        let generations: Vec<_> = fs::read_dir(&rig.pin).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(generations, [rig.generation().file_name().unwrap().to_str().unwrap()]);
    });
}

#[test]
fn links_of_another_abi_are_taken_over() {
    in_namespace("abi", |rig| {
        let tap = Tap::new("tap1");
        let mut fastpath = rig.open();
        fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        let name = format!("{}-in", tap.ifindex);
        let before = rig.link(&name);
        drop(fastpath);
        fs::rename(rig.generation(), rig.pin.join("v0")).unwrap();

        let mut fastpath = rig.open();
        fastpath.retain(&BTreeSet::from([tap.ifindex])).unwrap();
        assert!(rig.pin.join("v0").exists(), "still in use");
        fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        assert_eq!(rig.link(&name).0, before.0);
        assert!(!rig.pin.join("v0").exists());
        assert_eq!(tcx_programs(&tap), [u32::try_from(rig.link(&name).1).unwrap()]);
    });
}

#[test]
fn verify_repairs_what_somebody_changed() {
    in_namespace("drift", |rig| {
        let tap = Tap::new("tap1");
        let mut fastpath = rig.open();
        fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        let map = rig.generation().join("maps/ENDPOINTS");
        let key = tap.ifindex.to_ne_bytes().map(|b| b.to_string());
        let mut arguments = vec!["map", "delete", "pinned", map.to_str().unwrap(), "key"];
        arguments.extend(key.iter().map(String::as_str));
        run("bpftool", &arguments);
        let pin = rig.generation().join("links").join(format!("{}-xdp", tap.ifindex));
        run("bpftool", &["link", "detach", "pinned", pin.to_str().unwrap()]);
        assert_eq!(xdp_program(&tap), None);

        assert_eq!(fastpath.verify().unwrap(), 2);
        assert_eq!(rig.entries("ENDPOINTS"), 1);
        assert!(xdp_program(&tap).is_some());
        assert_eq!(fastpath.verify().unwrap(), 0);
    });
}

#[test]
fn verify_puts_filters_back() {
    in_namespace("drift-tc", |rig| {
        let tap = Tap::new("tap1");
        let mut fastpath = FastPath::open(&Settings { tc: TcMode::Clsact, ..rig.settings() }).unwrap();
        fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        run("tc", &["filter", "del", "dev", "tap1", "egress"]);
        assert_eq!(fastpath.verify().unwrap(), 1);
        assert!(run("tc", &["filter", "show", "dev", "tap1", "egress"]).contains("serval_tap_out"));

        drop(fastpath);
        assert_eq!(detach_pinned(&rig.pin).unwrap(), 1);
        assert_eq!(run("tc", &["filter", "show", "dev", "tap1", "ingress"]), "");
    });
}

#[test]
fn detaching_by_pins_alone_takes_all_off() {
    in_namespace("pins", |rig| {
        let tap = Tap::new("tap1");
        let mut fastpath = rig.open();
        fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        assert!(matches!(detach_pinned(&rig.pin), Err(FastPathError::PinInUse { .. })));
        assert!(matches!(FastPath::open(&rig.settings()), Err(FastPathError::PinInUse { .. })));
        drop(fastpath);

        assert_eq!(detach_pinned(&rig.pin).unwrap(), 1);
        assert_eq!(xdp_program(&tap), None);
        assert_eq!(tcx_programs(&tap), [0; 0]);
        assert!(!rig.pin.exists());
        assert_eq!(detach_pinned(&rig.pin).unwrap(), 0);
    });
}
