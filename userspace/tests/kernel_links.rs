//! The watch over interfaces against the kernel's own: everything that can happen to a TAP is seen, and soon.

mod netns;

use netns::{Tap, in_namespace, ip};
use serval::apply::links::Watch;
use serval::plan::LinkFacts;
use std::time::{Duration, Instant};

/// Waits until the facts of `name` fit; the time it took.
async fn until(watch: &mut Watch, name: &str, fit: impl Fn(Option<&LinkFacts>) -> bool) -> Duration {
    let start = Instant::now();
    let wait = async {
        while !fit(watch.facts().links.get(name)) {
            watch.changed().await.expect("the socket works");
        }
    };
    tokio::time::timeout(Duration::from_secs(5), wait).await.expect("the kernel tells of every change");
    start.elapsed()
}

#[test]
fn sees_all_that_happens_to_a_tap() {
    in_namespace(|| async {
        let mut watch = Watch::open().await.unwrap();
        assert_eq!(watch.facts().links.keys().collect::<Vec<_>>(), ["lo"]);

        let tap = Tap::new("tap0");
        until(&mut watch, "tap0", |link| link.is_some_and(|link| link.tap && !link.admin_up)).await;
        let first = watch.facts().links["tap0"].ifindex;

        ip("link set tap0 up");
        let took =
            until(&mut watch, "tap0", |link| link.is_some_and(|link| link.admin_up && link.carrier)).await;
        println!("up was seen {took:?} after `ip` had ended");
        ip("link set tap0 mtu 9000");
        until(&mut watch, "tap0", |link| link.is_some_and(|link| link.mtu == 9000)).await;
        ip("link set tap0 address 02:00:00:00:00:77");
        let mac = Some("02:00:00:00:00:77".parse().unwrap());
        until(&mut watch, "tap0", |link| link.is_some_and(|link| link.mac == mac)).await;
        ip("link set tap0 carrier off");
        until(&mut watch, "tap0", |link| link.is_some_and(|link| link.admin_up && !link.carrier)).await;

        ip("link set tap0 down");
        until(&mut watch, "tap0", |link| link.is_some_and(|link| !link.admin_up)).await;
        ip("link set tap0 name other");
        until(&mut watch, "tap0", |link| link.is_none()).await;
        assert_eq!(watch.facts().links["other"].ifindex, first);

        let again = Tap::new("tap0");
        until(&mut watch, "tap0", |link| link.is_some_and(|link| link.ifindex != first)).await;
        drop((tap, again));
        until(&mut watch, "tap0", |link| link.is_none()).await;
        until(&mut watch, "other", |link| link.is_none()).await;
        assert_eq!(watch.facts().links.keys().collect::<Vec<_>>(), ["lo"]);
    });
}

#[test]
fn only_ethernet_tuns_are_taps() {
    in_namespace(|| async {
        let _tun = Tap::with("tun0", libc::IFF_TUN);
        let _tap = Tap::new("tap0");
        ip("link add veth0 type veth peer name veth1");
        let watch = Watch::open().await.unwrap();
        let links = &watch.facts().links;
        assert!(links["tap0"].tap);
        assert!(!links["tun0"].tap);
        assert!(!links["veth0"].tap && links["veth0"].mac.is_some());
        assert_eq!(links["lo"].mac, None);
    });
}

#[test]
fn leaving_a_bridge_does_not_make_a_tap_vanish() {
    in_namespace(|| async {
        let _tap = Tap::up("tap0");
        ip("link add bridge0 type bridge");
        let mut watch = Watch::open().await.unwrap();
        ip("link set tap0 master bridge0");
        ip("link set tap0 nomaster");
        // Later than both in the kernel's order.
        ip("link set tap0 mtu 9000");
        let ifindex = watch.facts().links["tap0"].ifindex;
        loop {
            watch.changed().await.unwrap();
            let link = watch.facts().links.get("tap0").expect("it was there all the time");
            assert_eq!(link.ifindex, ifindex);
            if link.mtu == 9000 {
                break;
            }
        }
    });
}

#[test]
fn a_bounce_is_told_although_nothing_seems_changed() {
    in_namespace(|| async {
        let _tap = Tap::up("tap0");
        let mut watch = Watch::open().await.unwrap();
        let before = watch.facts().clone();
        ip("link set tap0 down");
        ip("link set tap0 up");
        let touched = watch.changed().await.unwrap();
        assert!(touched.contains(&before.links["tap0"].ifindex));
        assert_eq!(*watch.facts(), before);
    });
}

#[test]
fn an_overflow_of_notifications_ends_in_the_truth() {
    in_namespace(|| async {
        let gone = Tap::new("tap-gone");
        let stays = Tap::up("tap-stays");
        let mut watch = Watch::open().await.unwrap();
        let stays_index = watch.facts().links["tap-stays"].ifindex;
        let mut taps: Vec<Tap> = (0..50).map(|n| Tap::new(&format!("tap{n}"))).collect();
        // Thousands of notifications that nobody reads: more than any receive buffer holds.
        let names: String = (0..50).map(|n| format!("link set tap{n} up\nlink set tap{n} down\n")).collect();
        let batch = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(batch.path(), names.repeat(40)).unwrap();
        ip(&format!("-batch {}", batch.path().display()));
        drop(gone);
        ip("link set tap-stays down");
        ip("link set tap-stays up");
        drop(taps.pop());
        let touched = watch.changed().await.unwrap();
        assert!(touched.contains(&stays_index), "what happened to it may have been lost");
        // What came after the overflow is told as well, possibly as a further change.
        until(&mut watch, "tap-gone", |link| link.is_none()).await;
        until(&mut watch, "tap49", |link| link.is_none()).await;
        until(&mut watch, "tap48", |link| link.is_some_and(|link| !link.admin_up)).await;
        assert_eq!(watch.facts().links.len(), 51);
        drop((taps, stays));
    });
}
