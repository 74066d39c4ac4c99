//! What makes the host a router, and what it must not cost it: the default route that it has learnt itself.

mod netns;

use netns::{Tap, endpoint, fields, frame, in_namespace, ip, ip_json, our_routes, set_sysctl, sysctl};
use serval::apply::kernel::Kernel;
use serval::apply::links::Watch;
use serval::resource::MacAddress;
use std::collections::BTreeSet;

/// A router on the uplink advertises itself.
fn advertise(tap: &mut Tap) {
    let mac = MacAddress::new([2, 0, 0, 0, 0, 0xfe]).expect("a unicast MAC");
    tap.send(&frame::router_advertisement((mac, mac.link_local())));
}

/// The interfaces that the host has default routes by.
fn default_routes() -> Vec<String> {
    fields(&ip_json("-6 route show default"), "dev")
}

#[test]
fn the_kernel_drops_learnt_default_routes_when_it_becomes_a_router() {
    in_namespace(|| async {
        let mut uplink = Tap::up("uplink");
        advertise(&mut uplink);
        assert_eq!(default_routes(), ["uplink"]);
        set_sysctl("all", "forwarding", "1");
        assert_eq!(default_routes(), [""; 0]);
    });
}

#[test]
fn ours_keeps_them() {
    in_namespace(|| async {
        let mut uplink = Tap::up("uplink");
        let mut tap = Tap::up("tap0");
        let _deaf = Tap::up("deaf");
        set_sysctl("deaf", "accept_ra", "0");
        advertise(&mut uplink);
        assert_eq!(default_routes(), ["uplink"]);
        let kernel = Kernel::open("tap").unwrap();
        // The uplink's accept_ra and the host's forwarding.
        assert_eq!(kernel.prepare_host().await.unwrap(), 2);
        assert_eq!(kernel.prepare_host().await.unwrap(), 0);
        assert_eq!(sysctl("all", "forwarding"), "1");
        assert_eq!(default_routes(), ["uplink"]);
        assert_eq!((sysctl("uplink", "accept_ra"), sysctl("uplink", "forwarding")), ("2".into(), "1".into()));
        assert_eq!(sysctl("deaf", "accept_ra"), "0");
        // It still learns.
        ip("-6 route flush default");
        advertise(&mut uplink);
        assert_eq!(default_routes(), ["uplink"]);
        // Not from a guest: neither on a TAP that was there, nor on a new one that nobody has configured yet.
        ip("-6 route flush default");
        advertise(&mut tap);
        advertise(&mut Tap::up("tap1"));
        assert_eq!(default_routes(), [""; 0]);
    });
}

#[test]
fn a_tap_made_a_router_later_does_not_cost_the_default_route() {
    in_namespace(|| async {
        let kernel = Kernel::open("tap").unwrap();
        kernel.prepare_host().await.unwrap();
        // A host that forwards, but is a host on its uplink: a usual configuration.
        let mut uplink = Tap::up("uplink");
        set_sysctl("uplink", "forwarding", "0");
        advertise(&mut uplink);
        let _tap = Tap::up("tap0");
        set_sysctl("tap0", "forwarding", "0");
        assert_eq!(default_routes(), ["uplink"]);
        let watch = Watch::open().await.unwrap();
        let endpoint = endpoint(watch.facts(), "tap0", "02:00:00:00:00:11", &["2001:db8:1::11"], &[]);
        kernel.apply(&endpoint).await.unwrap();
        assert_eq!(sysctl("tap0", "forwarding"), "1");
        assert_eq!(default_routes(), ["uplink"]);
    });
}

#[test]
fn a_restart_repairs_what_changed_while_nobody_watched() {
    in_namespace(|| async {
        let _tap = Tap::up("tap0");
        let watch = Watch::open().await.unwrap();
        let plan = |addresses: &[&str]| endpoint(watch.facts(), "tap0", "02:00:00:00:00:11", addresses, &[]);
        let before = plan(&["2001:db8:1::11", "2001:db8:1::12"]);
        Kernel::open("tap").unwrap().apply(&before).await.unwrap();
        ip("-6 route del 2001:db8:1::11 dev tap0");
        let kernel = Kernel::open("tap").unwrap();
        let after = plan(&["2001:db8:1::11"]);
        // The route that was lost comes, route and neighbour of the other address go.
        assert_eq!(kernel.apply(&after).await.unwrap().changed, 3);
        assert_eq!(our_routes("tap0"), ["2001:db8:1::11"]);
        assert_eq!(kernel.apply(&after).await.unwrap().changed, 0);
        assert_eq!(kernel.sweep(&BTreeSet::from([after.ifindex])).await.unwrap(), 0);
        assert_eq!(our_routes("tap0"), ["2001:db8:1::11"]);
    });
}
