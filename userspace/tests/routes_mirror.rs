//! The mirror against the kernel itself: whatever happens to routes, neighbours and interfaces, the maps follow.

mod fastpath_rig;
mod routes_rig;

use fastpath_rig::{in_namespace, run};
use routes_rig::{
    Maps, Mirrored, UPLINKS, expected, ifindex, ip_all, ip_batch, kernel_state, make_uplinks, neighbours,
    settings, sysctl,
};
use serval::apply::routes::{Forwarder, RouteDetail, RoutesQuery, RoutesState, Settings};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// xorshift64*: the same changes in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    /// One change. What is not plain forwarding has metrics of its own: a dump does not show what stands between two
    /// next hops of the same metric, so nobody could tell what to expect.
    fn change(&mut self) -> String {
        let prefix = self.of(&[
            "default",
            "2001:db8::/32",
            "2001:db8:1::/48",
            "2001:db8:1::1",
            "2001:db8:1::2",
            "2001:db8:2::/64",
        ]);
        let metric = self.of(&["16", "32", "1024"]);
        let verb = self.of(&["add", "add", "append", "replace", "replace", "del"]);
        let own = self.of(&["8", "64"]);
        match self.below(20) {
            0 => format!(
                "route {verb} {} {prefix} metric {own}",
                self.of(&["blackhole", "unreachable", "prohibit"])
            ),
            1 => format!("route {verb} {prefix} dev {} metric {own}", self.of(&UPLINKS)),
            2 => format!("route {verb} {prefix} via fe80::1 dev up0 from 2001:db8:f::/48 metric {metric}"),
            13 => {
                let to =
                    self.of(&["encap seg6 mode encap segs fc00::5", "encap seg6 mode inline segs fc00::5"]);
                let (hop, uplink) = (1 + self.below(4), self.of(&UPLINKS));
                format!("route {verb} {prefix} {to} via fe80::{hop} dev {uplink} metric {own}")
            }
            3 => format!("route add local 2001:db8:1::{} dev lo table local", self.of(&["/64", "1"])),
            4 | 5 => format!("route del local 2001:db8:1::{} dev lo table local", self.of(&["/64", "1"])),
            6 => format!("neigh del fe80::{} dev {}", 1 + self.below(4), self.of(&UPLINKS)),
            7 | 8 => format!(
                "neigh replace fe80::{} lladdr 02:00:00:02:00:{:02x} dev {} nud permanent",
                1 + self.below(4),
                self.below(256),
                self.of(&UPLINKS)
            ),
            9..=12 => {
                let hops: Vec<String> = (0..2 + self.below(3))
                    .map(|_| {
                        format!(
                            "nexthop via fe80::{} dev {} weight {}",
                            1 + self.below(4),
                            self.of(&UPLINKS),
                            1 + self.below(3)
                        )
                    })
                    .collect();
                format!("route {verb} {prefix} metric {metric} {}", hops.join(" "))
            }
            _ => {
                let mtu = self.of(&["", "", " mtu 1400"]);
                format!(
                    "route {verb} {prefix} via fe80::{} dev {} metric {metric}{mtu}",
                    1 + self.below(4),
                    self.of(&UPLINKS)
                )
            }
        }
    }
}

#[test]
fn the_maps_follow_random_changes() {
    in_namespace("routes-random", |rig| {
        make_uplinks();
        let mirrored = Mirrored::start(rig, &settings(1024));
        let maps = Maps::open(rig);
        let mut random = Random(0x0005_e7a1_0002);
        let mut fast = 0;
        for round in 0..250 {
            let count = if round % 3 == 0 { 1 } else { 1 + random.below(20) };
            let mut lines: String = (0..count).map(|_| random.change() + "\n").collect();
            if random.below(12) == 0 {
                let uplink = random.of(&UPLINKS);
                lines +=
                    &format!("link set {uplink} {}\n", random.of(&["down", "up", "mtu 1400", "mtu 1500"]));
            }
            ip_batch(&lines);
            maps.eventually(expected);
            fast += expected().values().filter(|(_, ways)| !ways.is_empty()).count();
            if random.below(10) == 0 {
                for uplink in UPLINKS {
                    run("ip", &["link", "set", uplink, "up"]);
                    neighbours(uplink);
                }
            }
        }
        let status = mirrored.mirror.status();
        assert_eq!((status.state, status.overflows, status.drift), (RoutesState::On, 0, 0));
        assert!(fast > 100, "{fast} routes were the fast path's");
    });
}

/// Waits until `met`, and gives what it gives.
fn eventually<T>(what: &str, mut met: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(outcome) = met() {
            return outcome;
        }
        assert!(Instant::now() < deadline, "{what}\n{}", kernel_state());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn routes(mirrored: &Mirrored) -> Vec<RouteDetail> {
    mirrored.mirror.report(RoutesQuery::default()).blocking_recv().expect("the mirror works").routes
}

fn many(count: usize, uplink: &str) -> String {
    (0..count)
        .map(|n| format!("route add 2001:db8:{:x}:{:x}::/64 via fe80::1 dev {uplink}\n", n >> 16, n & 0xffff))
        .collect()
}

#[test]
fn a_hundred_thousand_routes_arrive_in_seconds() {
    const ROUTES: usize = 100_000;
    in_namespace("routes-many", |rig| {
        make_uplinks();
        let mirrored = Mirrored::start(rig, &settings(1 << 20));
        let started = Instant::now();
        ip_all(&many(ROUTES, "up0"));
        let kernel = started.elapsed();
        let mirror = || Some(mirrored.mirror.status()).filter(|status| status.mirrored == ROUTES);
        let status = eventually("all routes are mirrored", mirror);
        let all = started.elapsed();
        println!(
            "{ROUTES} routes: the kernel took them in {kernel:?}, they were in the maps {:?} later, {} overflows",
            all - kernel,
            status.overflows
        );
        assert_eq!(status.next_hops, 1);

        // The next hop moves: one group changes, whatever the number of routes.
        run(
            "ip",
            &[
                "-6",
                "neigh",
                "replace",
                "fe80::1",
                "lladdr",
                "02:00:00:00:00:99",
                "dev",
                "up0",
                "nud",
                "permanent",
            ],
        );
        let moved = |route: &RouteDetail| route.next_hops[0].mac.as_deref() == Some("02:00:00:00:00:99");
        eventually("the next hop's MAC", || {
            let routes = routes(&mirrored);
            let mut fast = routes.iter().filter(|route| route.state == Forwarder::Fast);
            fast.next().is_some_and(moved).then_some(())
        });

        // Another process takes over what is in the maps.
        let Mirrored { fastpath, mirror, .. } = mirrored;
        drop((mirror, fastpath));
        assert_eq!(rig.entries("ROUTES"), ROUTES, "they stay");
        let started = Instant::now();
        let mirrored = Mirrored::start(rig, &settings(1 << 20));
        eventually("all routes are mirrored", || {
            Some(mirrored.mirror.status()).filter(|status| status.mirrored == ROUTES)
        });
        println!("{ROUTES} routes: adopted in {:?}", started.elapsed());
        let started = Instant::now();
        mirrored.mirror.audit();
        eventually("an audit", || mirrored.mirror.status().audits.checked_sub(1));
        println!("{ROUTES} routes: audited in {:?}", started.elapsed());
        assert_eq!(mirrored.mirror.status().drift, 0);
        run("ip", &["link", "set", "up0", "down"]);
        eventually("all routes are gone", || (mirrored.mirror.status().mirrored == 0).then_some(()));
        eventually("the map is empty", || (rig.entries("ROUTES") == 0).then_some(()));
    });
}

#[test]
fn an_overflow_leads_to_a_resync() {
    in_namespace("routes-overflow", |rig| {
        make_uplinks();
        let mirrored = Mirrored::start(rig, &Settings { receive_buffer: 4096, ..settings(65_536) });
        let maps = Maps::open(rig);
        ip_all(&many(20_000, "up0"));
        let changes: String = (0..20_000)
            .map(|n| match n % 3 {
                0 => format!("route del 2001:db8:0:{n:x}::/64\n"),
                1 => format!("route replace 2001:db8:0:{n:x}::/64 via fe80::2 dev up1\n"),
                _ => format!("route append 2001:db8:0:{n:x}::/64 via fe80::2 dev up1\n"),
            })
            .collect();
        ip_batch(&changes);
        let wanted = expected();
        maps.eventually(|| wanted.clone());
        let status = mirrored.mirror.status();
        println!("{} overflows", status.overflows);
        assert!(status.overflows > 0, "the buffer was meant to be too small");
        assert_eq!(status.drift, 0);
    });
}

#[test]
fn somebody_elses_change_of_the_maps_is_drift_and_repaired() {
    in_namespace("routes-drift", |rig| {
        make_uplinks();
        let mirrored = Mirrored::start(rig, &settings(1024));
        let maps = Maps::open(rig);
        ip_all(&many(3, "up0"));
        maps.eventually(expected);
        // The second read after a start compares the maps, too, and would repair them before we look.
        eventually("the first audit", || mirrored.mirror.status().audits.checked_sub(1));
        let map = rig.generation().join("maps/ROUTES");
        let key = [
            "64", "0", "0", "0", "0x20", "0x01", "0x0d", "0xb8", "0", "0", "0", "0", "0", "0", "0", "0", "0",
            "0", "0", "0",
        ];
        run("bpftool", &[&["map", "delete", "pinned", map.to_str().unwrap(), "key"][..], &key].concat());
        assert_ne!(maps.read(), Some(expected()));
        mirrored.mirror.audit();
        maps.eventually(expected);
        eventually("the drift is counted", || (mirrored.mirror.status().drift > 0).then_some(()));
        assert_eq!(mirrored.mirror.status().drift, 1);
    });
}

#[test]
fn policy_rules_leave_all_routes_to_the_kernel() {
    in_namespace("routes-rules", |rig| {
        make_uplinks();
        let mirrored = Mirrored::start(rig, &settings(1024));
        let state = |wanted| {
            eventually("the state", || {
                let status = mirrored.mirror.status();
                (status.state == wanted).then_some(status)
            })
        };
        ip_all(&many(3, "up0"));
        eventually("the routes are mirrored", || (mirrored.mirror.status().mirrored == 3).then_some(()));
        run("ip", &["-6", "rule", "add", "from", "2001:db8::/32", "lookup", "100"]);
        let status = state(RoutesState::Suspended);
        assert!(status.reason.unwrap().contains("ip -6 rule"));
        assert_eq!(status.mirrored, 0);
        assert_eq!(Maps::open(rig).used_groups(), 0);
        assert!(routes(&mirrored).iter().all(|route| route.state == Forwarder::Kernel));
        run("ip", &["-6", "rule", "del", "from", "2001:db8::/32", "lookup", "100"]);
        assert_eq!(state(RoutesState::On).mirrored, 3, "{}", kernel_state());
        assert_eq!(Maps::open(rig).used_groups(), 1);
    });
}

#[test]
fn more_routes_than_fit_are_the_kernels() {
    in_namespace("routes-limit", |rig| {
        make_uplinks();
        run("ip", &["address", "add", "2001:db8:f::1/128", "dev", "lo"]);
        let mirrored = Mirrored::start(rig, &settings(100));
        let maps = Maps::open(rig);
        ip_all(&many(150, "up0"));
        let status = eventually("too many routes", || {
            Some(mirrored.mirror.status()).filter(|status| status.state == RoutesState::Suspended)
        });
        assert!(status.reason.unwrap().contains("`routes` in `[limits]`"));
        assert_eq!(Maps::open(rig).used_groups(), 0);
        // Policy has to know what is the host itself, whether it was so before or becomes so.
        maps.eventually_local(&["2001:db8:f::1"]);
        run("ip", &["address", "add", "2001:db8:f::2/128", "dev", "lo"]);
        maps.eventually_local(&["2001:db8:f::1", "2001:db8:f::2"]);
        run("ip", &["address", "del", "2001:db8:f::1/128", "dev", "lo"]);
        maps.eventually_local(&["2001:db8:f::2"]);
        ip_all(
            &many(150, "up0")
                .replace("route add", "route del")
                .lines()
                .skip(50)
                .map(|line| line.to_owned() + "\n")
                .collect::<String>(),
        );
        maps.eventually(expected);
        assert_eq!(mirrored.mirror.status().mirrored, 50);
    });
}

#[test]
fn the_mtu_of_an_interface_changes_that_of_its_routes() {
    in_namespace("routes-mtu", |rig| {
        make_uplinks();
        let mirrored = Mirrored::start(rig, &settings(1024));
        let maps = Maps::open(rig);
        run("ip", &["-6", "route", "add", "2001:db8::/32", "via", "fe80::1", "dev", "up0", "mtu", "1400"]);
        maps.eventually(expected);
        for mtu in ["1300", "1500", "1280", "9000"] {
            run("ip", &["link", "set", "up0", "mtu", mtu]);
            assert!(run("ip", &["-6", "route", "show", "2001:db8::/32"]).contains(&format!("mtu {mtu}")));
            // Long before the next audit.
            maps.eventually(expected);
        }
        let status = mirrored.mirror.status();
        assert_eq!((status.state, status.drift), (RoutesState::On, 0));
    });
}

#[test]
fn next_hop_objects_are_followed() {
    for compatible in ["1", "0"] {
        in_namespace("routes-objects", |rig| {
            make_uplinks();
            sysctl("net/ipv4/nexthop_compat_mode", compatible);
            let mirrored = Mirrored::start(rig, &settings(1024));
            let ways = |wanted: &[(&str, u32)]| {
                eventually(&format!("{wanted:?}, compatible {compatible}"), || {
                    let route =
                        routes(&mirrored).into_iter().find(|route| route.destination == "2001:db8::/32")?;
                    let mut found: Vec<_> =
                        route.next_hops.iter().map(|hop| (hop.interface.as_str(), hop.weight)).collect();
                    found.sort_unstable();
                    (found == wanted && (route.state == Forwarder::Fast) != wanted.is_empty()).then_some(())
                });
            };
            run("ip", &["nexthop", "add", "id", "1", "via", "fe80::1", "dev", "up0"]);
            run("ip", &["nexthop", "add", "id", "2", "via", "fe80::2", "dev", "up1"]);
            run("ip", &["nexthop", "add", "id", "3", "group", "1/2,3"]);
            run("ip", &["-6", "route", "add", "2001:db8::/32", "nhid", "3"]);
            ways(&[("up0", 1), ("up1", 3)]);
            run("ip", &["nexthop", "replace", "id", "3", "group", "1"]);
            ways(&[("up0", 1)]);
            run("ip", &["-6", "nexthop", "replace", "id", "1", "blackhole"]);
            ways(&[]);
            run("ip", &["nexthop", "replace", "id", "1", "via", "fe80::1", "dev", "up0"]);
            ways(&[("up0", 1)]);
            // Without compatibility the kernel takes the route away and does not say so.
            run("ip", &["link", "set", "up0", "down"]);
            eventually("the route is gone", || {
                (!routes(&mirrored).iter().any(|route| route.destination == "2001:db8::/32")).then_some(())
            });
        });
    }
}

#[test]
fn routes_that_go_without_notice_are_missed() {
    in_namespace("routes-silent", |rig| {
        make_uplinks();
        sysctl("net/ipv6/route/skip_notify_on_dev_down", "1");
        let _mirrored = Mirrored::start(rig, &settings(1024));
        let maps = Maps::open(rig);
        ip_all(&many(10, "up0"));
        maps.eventually(expected);
        run("ip", &["link", "set", "up0", "down"]);
        run("ip", &["link", "set", "up0", "up"]);
        neighbours("up0");
        maps.eventually(expected);
    });
}

#[test]
fn the_kernel_checks_next_hops_that_only_the_fast_path_uses() {
    in_namespace("routes-fresh", |rig| {
        make_uplinks();
        // The far end answers for itself; it is known for a second, then stale.
        let far = run("ip", &["-6", "-br", "address", "show", "dev", "far0"]);
        let router =
            far.split_whitespace().find(|word| word.starts_with("fe80")).unwrap().split('/').next().unwrap();
        sysctl("net/ipv6/neigh/up0/base_reachable_time_ms", "500");
        sysctl("net/ipv6/neigh/up0/delay_first_probe_time", "0");
        let mirrored = Mirrored::start(rig, &settings(1024));
        run("ip", &["-6", "route", "add", "2001:db8::/32", "via", router, "dev", "up0"]);
        let state = || run("ip", &["-6", "neigh", "show", router, "dev", "up0"]);
        let fast = || {
            let route = routes(&mirrored).into_iter().find(|route| route.destination == "2001:db8::/32");
            route.is_some_and(|route| route.state == Forwarder::Fast)
        };
        // Nobody sends a packet, and yet it is resolved, and reachable again and again.
        eventually("resolved", || fast().then_some(()));
        for _ in 0..3 {
            eventually("not reachable for a while", || (!state().contains("REACHABLE")).then_some(()));
            eventually("reachable again", || state().contains("REACHABLE").then_some(()));
            assert!(fast());
        }
        // It falls silent: probes fail, and packets are the kernel's.
        run("ip", &["link", "set", "far0", "arp", "off"]);
        run("ip", &["link", "set", "far0", "address", "02:00:00:00:00:77"]);
        sysctl("net/ipv6/conf/far0/disable_ipv6", "1");
        eventually("failed", || (!fast()).then_some(()));
    });
}

#[test]
fn a_neighbour_that_an_operator_makes_permanent_stays_so() {
    in_namespace("routes-permanent", |rig| {
        make_uplinks();
        let mirrored = Mirrored::start(rig, &settings(1024));
        ip_all(&many(1, "up0"));
        for round in 0..50 {
            // The mirror hears that it is gone, and before it asks the kernel to find it, it is there again.
            let mac = format!("02:00:00:00:02:{round:02x}");
            ip_all(&format!(
                "neigh del fe80::1 dev up0\nneigh replace fe80::1 lladdr {mac} dev up0 nud permanent\n"
            ));
            eventually("the next hop's MAC", || {
                let route =
                    routes(&mirrored).into_iter().find(|route| route.destination == "2001:db8::/64")?;
                (route.next_hops[0].mac.as_deref() == Some(&mac)).then_some(())
            });
            let entry = run("ip", &["-6", "neigh", "show", "fe80::1", "dev", "up0"]);
            assert!(entry.contains(&mac) && entry.contains("PERMANENT"), "round {round}: {entry}");
        }
    });
}

#[test]
fn the_interfaces_that_routes_use_are_told() {
    in_namespace("routes-uplinks", |rig| {
        make_uplinks();
        let mut mirrored = Mirrored::start(rig, &settings(1024));
        let mut told = |wanted: &[&str]| {
            let wanted: BTreeSet<u32> = wanted.iter().map(|name| ifindex(name)).collect();
            eventually("the interfaces", || {
                (*mirrored.interfaces.borrow_and_update() == wanted).then_some(())
            });
        };
        told(&[]);
        run("ip", &["-6", "route", "add", "2001:db8::/32", "via", "fe80::1", "dev", "up1"]);
        told(&["up1"]);
        run("ip", &["-6", "route", "append", "2001:db8::/32", "via", "fe80::1", "dev", "up0"]);
        told(&["up0", "up1"]);
        run("ip", &["-6", "route", "flush", "2001:db8::/32"]);
        told(&[]);
    });
}

#[test]
fn who_is_told_of_interfaces_finds_the_routes_read() {
    in_namespace("routes-told", |rig| {
        make_uplinks();
        run("ip", &["-6", "route", "add", "2001:db8::/32", "via", "fe80::1", "dev", "up1"]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for _ in 0..5 {
            let mut mirrored = Mirrored::start(rig, &settings(1024));
            runtime.block_on(mirrored.interfaces.changed()).expect("the mirror works");
            assert_eq!(mirrored.mirror.status().state, RoutesState::On);
        }
    });
}

#[test]
fn two_mirrors_in_two_namespaces_do_not_meet() {
    in_namespace("routes-one", |rig| {
        make_uplinks();
        let one = Mirrored::start(rig, &settings(1024));
        in_namespace("routes-two", |rig| {
            make_uplinks();
            let two = Mirrored::start(rig, &settings(1024));
            ip_all(&many(3, "up0"));
            eventually("the routes are mirrored", || (two.mirror.status().mirrored == 3).then_some(()));
        });
        ip_all(&many(2, "up0"));
        eventually("the routes are mirrored", || (one.mirror.status().mirrored == 2).then_some(()));
    });
}
