//! Where things are, and what this user and machine can do.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().skip(1).take(1).collect()
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |directory| root().join(directory))
}

/// Where `setup` puts what it does not install into the system.
pub fn tools() -> PathBuf {
    target().join("tools")
}

/// The kernel that QEMU guests boot: `boot/vmlinuz-*` and `lib/modules/*` of its Debian package.
pub fn guest_kernel() -> PathBuf {
    tools().join("guest-kernel")
}

/// QEMU as its Debian package has it, and the program `qemu-system-x86_64` that runs it from there.
pub fn qemu() -> PathBuf {
    tools().join("qemu")
}

/// BIRD 1.6 as its Debian package has it, for tests: `usr/sbin/bird6`.
pub fn bird_1() -> PathBuf {
    tools().join("bird-1")
}

/// Are we root?
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Is this Debian itself, whose packages `setup` knows?
pub fn is_debian() -> bool {
    fs::read_to_string("/etc/os-release").is_ok_and(|text| text.lines().any(|line| line == "ID=debian"))
}

/// The first file `name` in PATH or in the directories of administration programs.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}
