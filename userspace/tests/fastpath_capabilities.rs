//! The capabilities that the service unit gives are enough. A process of its own, because aya remembers what the kernel
//! allows.

mod fastpath_rig;

use fastpath_rig::{ADVERTISEMENT, Tap, endpoint, in_namespace};
use serval::apply::fastpath::{TcHook, XdpHook};
use std::collections::BTreeSet;

const CAP_NET_ADMIN: u32 = 12;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

#[test]
fn three_capabilities_are_enough() {
    in_namespace("capabilities", |rig| {
        let (tap, foreign) = (Tap::new("tap1"), Tap::new("tap2"));
        keep_only(&[CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF]);
        for _ in 0..2 {
            let mut fastpath = rig.open();
            let report = fastpath.apply(&endpoint(&tap, 1), ADVERTISEMENT).unwrap();
            assert_eq!((report.xdp, report.tc, report.reason), (XdpHook::Native, TcHook::Tcx, None));
            fastpath.apply(&endpoint(&foreign, 2), ADVERTISEMENT).unwrap();
            fastpath.remove(foreign.ifindex).unwrap();
            fastpath.retain(&BTreeSet::from([tap.ifindex])).unwrap();
            assert_eq!(fastpath.verify().unwrap(), 0);
        }
        assert_eq!(rig.open().detach().unwrap(), 1);
        assert!(!rig.pin.exists());
    });
}

/// Drops all other capabilities of this thread.
fn keep_only(capabilities: &[u32]) {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    for capability in capabilities {
        let word = &mut data[(capability / 32) as usize];
        word.effective |= 1 << (capability % 32);
        word.permitted |= 1 << (capability % 32);
    }
    // SAFETY: the structures are those of version 3, and the call changes this thread only.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    assert_eq!(result, 0, "capset");
}
