//! The fast path without privileges: a clear error. A process of its own, because aya remembers what the kernel allows.

use dataplane_ebpf::abi::Rate;
use serval::apply::fastpath::{FastPath, FastPathError, Settings, TcMode, UplinkMode, embedded};
use std::path::PathBuf;

#[test]
fn says_which_privileges_are_missing() {
    if !nix::unistd::geteuid().is_root() || !embedded() {
        println!("skipped: needs root to give it up, and a BPF object in this build");
        return;
    }
    let pin = PathBuf::from(format!("/sys/fs/bpf/serval-test-{}-privileges", std::process::id()));
    std::fs::create_dir_all(&pin).expect("a BPF file system");
    let settings = Settings {
        pin: pin.clone(),
        max_endpoints: 8,
        tc: TcMode::Auto,
        xdp: true,
        max_routes: 8,
        uplink: UplinkMode::Tc,
        policed: false,
        host_is_open: false,
        host_is_judged: false,
        max_flows: 1,
        flows_per_endpoint: 1,
        answer_rate: Rate::UNLIMITED,
        host_rate: Rate::UNLIMITED,
    };
    let opened = std::thread::spawn(move || {
        let nobody: libc::uid_t = 65534;
        // SAFETY: the bare system call changes this thread only.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, nobody, nobody, nobody) }, 0);
        FastPath::open(&settings)
    });
    let error = opened.join().expect("no panic").err().expect("not permitted");
    std::fs::remove_dir(&pin).expect("nothing was pinned");
    assert!(matches!(error, FastPathError::Privileges { .. }), "{error:?}");
    assert!(error.to_string().contains("CAP_BPF"), "{error}");
}
