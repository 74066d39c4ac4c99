//! The rig that tests, demo and bench share: network namespaces, TAPs opened as a VMM opens them, guests (a real
//! kernel stack, a raw harness, a real VM), and a real `serval run`. It touches namespaces of its own and nothing in
//! the one it was started in; what it makes is gone when its values are dropped, and what a killed run left behind is
//! swept by the next.
//!
//! Frames are built and checked by [`frame`], which shares no code with the data plane, so that a mistake there is not
//! repeated here.

pub mod bgp;
pub mod cases;
pub mod cloud;
pub mod fabric;
pub mod foreign;
pub mod frame;
pub mod guest;
pub mod host;
pub mod leftovers;
pub mod netns;
pub mod process;
pub mod program;
pub mod qemu;
pub mod racks;
pub mod scene;
pub mod stream;
pub mod tap;
pub mod traffic;
pub mod wait;
pub mod wire;

use std::path::{Path, PathBuf};

/// Cargo's target directory, where builds and what `cargo xtask setup` fetches are.
fn target() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// The QEMU that `cargo xtask setup` has unpacked, or the name of the one that is installed.
pub fn qemu() -> PathBuf {
    let unpacked = target().join("tools/qemu/qemu-system-x86_64").canonicalize();
    unpacked.unwrap_or_else(|_| "qemu-system-x86_64".into())
}

/// The `bird6` of BIRD 1.6 that `cargo xtask setup` has unpacked, or one that is installed.
pub fn bird_1() -> Option<PathBuf> {
    let unpacked = target().join("tools/bird-1/usr/sbin/bird6").canonicalize().ok();
    unpacked.or_else(|| Some(PathBuf::from("/usr/sbin/bird6")).filter(|path| path.is_file()))
}

/// Why the rig cannot work here, if it cannot.
pub fn unavailable() -> Option<&'static str> {
    (!nix::unistd::geteuid().is_root()).then_some("needs root: namespaces, TAPs and BPF programs are made")
}

/// Leaves the calling test with the reason printed when the rig cannot work here.
#[macro_export]
macro_rules! require_rig {
    () => {
        if let Some(reason) = $crate::unavailable() {
            eprintln!("skipped: {reason}");
            return Ok(());
        }
    };
}
