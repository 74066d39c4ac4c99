//! The fast path beside programs of others, and on devices that come and go.

mod fastpath_rig;

use fastpath_rig::{ADVERTISEMENT, Tap, counted, endpoint, in_namespace, run, tcx_programs, xdp_program};
use serval::apply::fastpath::{FastPath, Preview, Settings, TcHook, TcMode, XdpHook};

#[test]
fn a_foreign_xdp_link_stays_and_is_named() {
    in_namespace("foreign-xdp", |rig| {
        let tap = Tap::new("tap1");
        let (foreign, _) = Preview::attach(tap.ifindex).unwrap();
        let theirs = (xdp_program(&tap).unwrap(), tcx_programs(&tap)[0]);

        let mut fastpath = rig.open();
        let report = fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        assert_eq!((report.xdp, report.tc), (XdpHook::Off, TcHook::Tcx));
        let reason = report.reason.unwrap();
        assert!(reason.contains(&format!("program {} (tap_xdp)", theirs.0)), "{reason}");
        assert_eq!(xdp_program(&tap), Some(theirs.0));
        // Ours comes first: a foreign program that accepts a frame must not skip the guard.
        let chain = tcx_programs(&tap);
        assert_eq!((chain.len(), chain[1]), (2, theirs.1));

        drop(foreign);
        let report = fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        assert_eq!((report.xdp, report.reason), (XdpHook::Native, None));
    });
}

#[test]
fn a_foreign_xdp_program_by_netlink_stays() {
    in_namespace("foreign-nl", |rig| {
        let (tap, other) = (Tap::new("tap1"), Tap::new("tap2"));
        let (_preview, _) = Preview::attach(other.ifindex).unwrap();
        let id = xdp_program(&other).unwrap();
        run("bpftool", &["net", "attach", "xdpgeneric", "id", &id.to_string(), "dev", "tap1"]);

        let mut fastpath = rig.open();
        let report = fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        assert_eq!(report.xdp, XdpHook::Off);
        assert!(report.reason.unwrap().contains(&format!("program {id} ")));
        fastpath.remove(tap.ifindex).unwrap();
        assert_eq!(xdp_program(&tap), Some(id));
    });
}

#[test]
fn foreign_filters_stay_on_their_clsact() {
    in_namespace("foreign-tc", |rig| {
        let (tap, other) = (Tap::new("tap1"), Tap::new("tap2"));
        let (_preview, _) = Preview::attach(other.ifindex).unwrap();
        let pin = rig.pin.with_extension("foreign");
        let id = tcx_programs(&other)[0].to_string();
        // A name without a dot, which a BPF file system does not take.
        let pin = pin.to_str().unwrap().replace('.', "-");
        run("bpftool", &["prog", "pin", "id", &id, &pin]);
        run("tc", &["qdisc", "add", "dev", "tap1", "clsact"]);
        run("tc", &["filter", "add", "dev", "tap1", "ingress", "pref", "5", "bpf", "da", "pinned", &pin]);
        std::fs::remove_file(&pin).unwrap();
        let filters = || run("tc", &["filter", "show", "dev", "tap1", "ingress"]);
        let before = filters();

        let mut fastpath = FastPath::open(&Settings { tc: TcMode::Clsact, ..rig.settings() }).unwrap();
        let report = fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        assert_eq!((report.xdp, report.tc), (XdpHook::Native, TcHook::Clsact));
        let with_ours = filters();
        assert!(with_ours.contains("serval_tap_in") && with_ours.contains("pref 5"), "{with_ours}");
        fastpath.remove(tap.ifindex).unwrap();
        assert_eq!(filters(), before);
    });
}

#[test]
fn a_new_device_with_an_old_ifindex_starts_afresh() {
    in_namespace("reuse", |rig| {
        let tap = Tap::new("tap1");
        let ifindex = tap.ifindex;
        let mut fastpath = rig.open();
        fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        tap.send();
        assert!(counted(&fastpath, ifindex) > 0);

        drop(tap);
        let tap = Tap::with_ifindex("tap1", ifindex);
        let report = fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        assert_eq!((report.xdp, report.tc, report.reason), (XdpHook::Native, TcHook::Tcx, None));
        assert_eq!(counted(&fastpath, ifindex), 0);
        assert_eq!([rig.pinned_links().len(), rig.entries("DEVICES")], [3, 1]);
        assert_eq!(xdp_program(&tap), Some(rig.link(&format!("{ifindex}-xdp")).1));

        // The same while no daemon runs.
        tap.send();
        assert!(counted(&fastpath, ifindex) > 0);
        drop(fastpath);
        drop(tap);
        let tap = Tap::with_ifindex("tap1", ifindex);
        let mut fastpath = rig.open();
        let report = fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
        assert_eq!((report.xdp, report.tc, report.reason), (XdpHook::Native, TcHook::Tcx, None));
        assert_eq!(counted(&fastpath, ifindex), 0);
        assert_eq!([rig.pinned_links().len(), rig.entries("DEVICES")], [3, 1]);

        drop(tap);
        fastpath.remove(ifindex).unwrap();
        assert_eq!(rig.pinned_links(), [""; 0]);
        assert_eq!(rig.entries("ENDPOINTS"), 0);
    });
}

#[test]
fn a_preview_lets_pass_and_goes() {
    in_namespace("preview", |_| {
        let tap = Tap::new("tap1");
        let (preview, report) = Preview::attach(tap.ifindex).unwrap();
        assert_eq!((report.xdp, report.tc), (XdpHook::Native, TcHook::Tcx));
        tap.send();
        assert!(preview.counters().unwrap().values.iter().sum::<u64>() > 0);
        drop(preview);
        assert_eq!(xdp_program(&tap), None);
        assert_eq!(tcx_programs(&tap), [0; 0]);
    });
}
