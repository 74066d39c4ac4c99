//! The fast path on fresh TAPs: attach, update, admin down, limits, remove.

mod fastpath_rig;

use fastpath_rig::{ADVERTISEMENT, Tap, counted, endpoint, in_namespace, run, tcx_programs, xdp_program};
use serval::apply::fastpath::{FastPath, FastPathError, HookReport, Settings, TcHook, TcMode, XdpHook};
use serval::resource::HostAddress;

const BEST: HookReport = HookReport { xdp: XdpHook::Native, tc: TcHook::Tcx, reason: None };

#[test]
fn attaches_all_hooks_and_fills_all_maps() {
    in_namespace("attach", |rig| {
        let tap = Tap::new("tap1");
        let mut fastpath = rig.open();
        assert_eq!(fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap(), BEST);
        assert_eq!(rig.pinned_links().len(), 3);
        assert_eq!(xdp_program(&tap), Some(rig.link(&format!("{}-xdp", tap.ifindex)).1));
        assert_eq!(tcx_programs(&tap).len(), 1);
        let filled = ["ENDPOINTS", "ADDRESSES", "ANSWERS", "DEVICES"].map(|map| rig.entries(map));
        assert_eq!(filled, [1, 3, 1, 1]);

        tap.send();
        assert!(counted(&fastpath, tap.ifindex) > 0);
        assert_eq!(fastpath.counters(9999).unwrap(), None);
    });
}

#[test]
fn applying_again_changes_nothing() {
    in_namespace("again", |rig| {
        let tap = Tap::new("tap1");
        let mut fastpath = rig.open();
        fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        let names = rig.pinned_links();
        let before: Vec<_> = names.iter().map(|name| rig.link(name)).collect();
        tap.send();
        let count = counted(&fastpath, tap.ifindex);
        assert_eq!(fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap(), BEST);
        assert_eq!(rig.pinned_links(), names);
        assert_eq!(names.iter().map(|name| rig.link(name)).collect::<Vec<_>>(), before);
        assert_eq!(counted(&fastpath, tap.ifindex), count);
        assert_eq!(fastpath.verify().unwrap(), 0);
    });
}

#[test]
fn removing_leaves_nothing() {
    in_namespace("remove", |rig| {
        let (one, two) = (Tap::new("tap1"), Tap::new("tap2"));
        let mut fastpath = rig.open();
        fastpath.apply(&endpoint(&one, 1), ADVERTISEMENT).unwrap();
        fastpath.apply(&endpoint(&two, 2), ADVERTISEMENT).unwrap();
        one.send();

        fastpath.remove(one.ifindex).unwrap();
        assert_eq!(xdp_program(&one), None);
        assert_eq!(tcx_programs(&one), [0; 0]);
        // Two addresses of the other, and the gateway they shared.
        assert_eq!(rig.entries("ADDRESSES"), 3);
        assert_eq!(rig.pinned_links().len(), 3);
        assert_eq!(fastpath.counters(one.ifindex).unwrap(), None);

        fastpath.remove(two.ifindex).unwrap();
        let left = ["ENDPOINTS", "ADDRESSES", "ANSWERS", "DEVICES"].map(|map| rig.entries(map));
        assert_eq!(left, [0; 4]);
        assert_eq!(rig.pinned_links(), [""; 0]);

        // The slot that counted is given out again, and starts at 0.
        fastpath.apply(&endpoint(&two, 2), ADVERTISEMENT).unwrap();
        assert_eq!(counted(&fastpath, two.ifindex), 0);
        assert_eq!(fastpath.detach().unwrap(), 1);
        assert!(!rig.pin.exists());
        assert_eq!(xdp_program(&two), None);
    });
}

#[test]
fn admin_down_is_a_flag_not_a_detach() {
    in_namespace("down", |rig| {
        let tap = Tap::new("tap1");
        let mut fastpath = rig.open();
        let up = endpoint(&tap, 1);
        fastpath.apply(&up, ADVERTISEMENT).unwrap();
        let down = serval::plan::Attached { admin_up: false, ..up.clone() };
        assert_eq!(fastpath.apply(&down, ADVERTISEMENT).unwrap(), BEST);
        assert_eq!([rig.entries("ENDPOINTS"), rig.entries("ADDRESSES"), rig.entries("DEVICES")], [1, 3, 0]);
        fastpath.apply(&up, ADVERTISEMENT).unwrap();
        assert_eq!(rig.entries("DEVICES"), 1);
    });
}

#[test]
fn addresses_that_are_given_up_are_removed() {
    in_namespace("addresses", |rig| {
        let tap = Tap::new("tap1");
        let mut fastpath = rig.open();
        let mut changing = endpoint(&tap, 1);
        fastpath.apply(&changing, ADVERTISEMENT).unwrap();
        changing.addresses.pop();
        changing.gateways.clear();
        fastpath.apply(&changing, &[]).unwrap();
        assert_eq!([rig.entries("ADDRESSES"), rig.entries("ANSWERS")], [1, 0]);
    });
}

#[test]
fn clsact_where_it_is_asked_for() {
    in_namespace("clsact", |rig| {
        let tap = Tap::new("tap1");
        let settings = Settings { tc: TcMode::Clsact, ..rig.settings() };
        let mut fastpath = FastPath::open(&settings).unwrap();
        let report = fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        assert_eq!(report, HookReport { tc: TcHook::Clsact, ..BEST });
        let filter = || run("tc", &["filter", "show", "dev", "tap1", "ingress"]);
        assert!(filter().contains("serval_tap_in"));
        assert!(run("tc", &["filter", "show", "dev", "tap1", "egress"]).contains("serval_tap_out"));
        let before = filter();
        fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        assert_eq!(filter(), before);

        // The next start has tcx: the filters go when the links are on.
        drop(fastpath);
        let mut fastpath = rig.open();
        assert_eq!(fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap(), BEST);
        assert_eq!(filter(), "");
        assert!(!run("tc", &["qdisc", "show", "dev", "tap1"]).contains("clsact"));

        // And back.
        drop(fastpath);
        let mut fastpath = FastPath::open(&settings).unwrap();
        fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        assert_eq!(tcx_programs(&tap), [0; 0]);
        fastpath.remove(tap.ifindex).unwrap();
        assert_eq!(filter(), "");
        assert!(!run("tc", &["qdisc", "show", "dev", "tap1"]).contains("clsact"));
        assert_eq!(rig.pinned_links(), [""; 0]);
    });
}

#[test]
fn without_xdp_tc_does_the_work() {
    in_namespace("no-xdp", |rig| {
        let tap = Tap::new("tap1");
        let mut fastpath = FastPath::open(&Settings { xdp: false, ..rig.settings() }).unwrap();
        let report = fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        assert_eq!((report.xdp, report.tc), (XdpHook::Off, TcHook::Tcx));
        assert_eq!(xdp_program(&tap), None);
        tap.send();
        assert!(counted(&fastpath, tap.ifindex) > 0);
    });
}

#[test]
fn what_does_not_fit_harms_nobody() {
    in_namespace("full", |rig| {
        let (one, two) = (Tap::new("tap1"), Tap::new("tap2"));
        let mut fastpath = FastPath::open(&Settings { max_endpoints: 1, ..rig.settings() }).unwrap();
        fastpath.apply(&endpoint(&one, 1), ADVERTISEMENT).unwrap();
        let error = fastpath.apply(&endpoint(&two, 2), ADVERTISEMENT).unwrap_err();
        assert!(matches!(error, FastPathError::Full { map: "ENDPOINTS", limit: 1, .. }), "{error}");
        assert!(error.to_string().contains("`endpoints` in `[limits]`"), "{error}");
        assert_eq!(xdp_program(&two), None);
        assert_eq!(rig.entries("ADDRESSES"), 3);

        // 68 addresses fit; an update to more leaves the endpoint as it was.
        let mut many = endpoint(&one, 1);
        many.addresses.extend(
            (0x100..0x180).map(|n| HostAddress::new(format!("2001:db8::1:{n:x}").parse().unwrap()).unwrap()),
        );
        let error = fastpath.apply(&many, ADVERTISEMENT).unwrap_err();
        assert!(matches!(error, FastPathError::Full { map: "ADDRESSES", .. }), "{error}");
        assert_eq!([rig.entries("ADDRESSES"), rig.entries("ENDPOINTS")], [3, 1]);
        assert_eq!(fastpath.apply(&endpoint(&one, 1), ADVERTISEMENT).unwrap(), BEST);

        fastpath.remove(one.ifindex).unwrap();
        assert_eq!(fastpath.apply(&endpoint(&two, 2), ADVERTISEMENT).unwrap(), BEST);
    });
}

#[test]
fn a_tap_that_is_gone_is_an_error_and_leaves_nothing() {
    in_namespace("gone", |rig| {
        let tap = Tap::new("tap1");
        let plan = endpoint(&tap, 1);
        let mut fastpath = rig.open();
        drop(tap);
        let error = fastpath.apply(&plan, ADVERTISEMENT).unwrap_err();
        assert!(matches!(error, FastPathError::NoDevice { .. }), "{error}");
        let left = ["ENDPOINTS", "ADDRESSES", "ANSWERS", "DEVICES"].map(|map| rig.entries(map));
        assert_eq!(left, [0; 4]);
    });
}
