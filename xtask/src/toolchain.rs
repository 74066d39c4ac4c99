//! Every version in one place, and the search for a compiler set that builds BPF.
//!
//! Stable Rust has no `core` for BPF. Two sets do: rustup's nightly with `rust-src`, which builds `core` itself, and
//! Debian's `rustc-web`, which comes with it. Compiler, LLVM and bpf-linker must fit: bpf-linker reads the bitcode of
//! its own LLVM and older ones only. aya's versions are in the workspace's Cargo.toml.

use crate::run::Run;
use crate::workspace;
use anyhow::{Context, Result};
use std::fmt;
use std::path::{Path, PathBuf};

/// The bpf-linker that `setup` builds.
pub const BPF_LINKER: &str = "0.13.0";
/// The LLVM of Debian's `rustc-web`, which bpf-linker is linked with.
pub const LLVM: &str = "22";
/// The rustup toolchain that is used when it has `rust-src`.
pub const NIGHTLY: &str = "nightly";
/// What BPF code is compiled for.
pub const BPF_TARGET: &str = "bpfel-unknown-none";

/// Debian packages that build BPF programs.
pub const BUILD_PACKAGES: &[&str] = &[
    "cargo-web",
    "gcc",
    "libc6-dev",
    "libpolly-22-dev",
    "libstd-rust-web-dev-bpf",
    "libxml2-dev",
    "libzstd-dev",
    "llvm-22-dev",
    "rust-web-clippy",
    "rustc-web",
    "zlib1g-dev",
];

/// Debian packages that demo, tests and benchmarks use, and a program of each to look for where there is no dpkg.
/// `dhcpcd-base`, not `dhcpcd5`: the latter brings a service that would configure the machine's own interfaces.
pub const TEST_PACKAGES: &[(&str, &str)] = &[
    ("bird2", "birdc"),
    ("bpftool", "bpftool"),
    ("busybox-static", "busybox"),
    ("cpio", "cpio"),
    ("dhcpcd-base", "dhcpcd"),
    ("dnsmasq-base", "dnsmasq"),
    ("ethtool", "ethtool"),
    ("iperf3", "iperf3"),
    ("iproute2", "ip"),
    ("ipset", "ipset"),
    ("iptables", "ip6tables"),
    ("iputils-ping", "ping"),
    ("isc-dhcp-client", "dhclient"),
    ("kmod", "modprobe"),
    ("ndisc6", "rdisc6"),
    ("nftables", "nft"),
    ("python3-scapy", "scapy"),
    ("radvd", "radvd"),
    ("tcpdump", "tcpdump"),
    ("thc-ipv6", "atk6-fake_router26"),
    ("zstd", "zstd"),
];

/// Debian's kernel for virtual machines, which QEMU guests boot: unpacked, never installed.
pub const GUEST_KERNEL: &str = "linux-image-cloud-amd64";

/// Debian's package of QEMU, which is unpacked where none is installed.
pub const QEMU: &str = "qemu-system-x86";

/// Debian's package of BIRD 1.6, which the tests run besides BIRD 2: unpacked, because both cannot be installed.
pub const BIRD_1: &str = "bird";

/// With which compiler flags BPF programs are built: BTF needs debug info, and the packet parser reads words at odd
/// offsets, which BPF's JITs turn into plain loads where LLVM would otherwise compose them of bytes.
const BPF_FLAGS: &str =
    "-Cdebuginfo=2 -Clink-arg=--btf -Clink-arg=--cpu-features=+allows-misaligned-mem-access";

/// A compiler set that builds BPF.
pub struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

enum Compiler {
    Rustup,
    Debian,
}

impl Toolchain {
    /// The first complete set: rustup's, else Debian's.
    pub fn find() -> Option<Self> {
        Self::rustup().or_else(Self::debian)
    }

    /// As [`Self::find`]; without one, the error says how to get one.
    pub fn require() -> Result<Self> {
        Self::find().context("no compiler for BPF here: `cargo xtask setup` installs one, or says how to")
    }

    /// Rustup's set, when nightly, its `rust-src` and a bpf-linker are there.
    pub fn rustup() -> Option<Self> {
        let linker = workspace::program("bpf-linker")?;
        let sysroot =
            Run::new("rustup").args(["run", NIGHTLY, "rustc", "--print", "sysroot"]).output().ok()?;
        let core = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/src/lib.rs");
        core.is_file().then_some(Self { compiler: Compiler::Rustup, linker })
    }

    fn debian() -> Option<Self> {
        let linker = linker_of_setup();
        let complete = debian_rustc_builds_bpf() && linker_is_built(&linker);
        complete.then_some(Self { compiler: Compiler::Debian, linker })
    }

    /// What compiler and linker say they are.
    pub fn versions(&self) -> Result<[String; 2]> {
        let compiler = match self.compiler {
            Compiler::Rustup => Run::new("rustup").args(["run", NIGHTLY, "rustc", "--version"]),
            Compiler::Debian => Run::new("/usr/bin/rustc").arg("--version"),
        };
        Ok([compiler.output()?, Run::new(&self.linker).arg("--version").output()?])
    }

    /// Cargo's `verb` for the BPF target, free of what the cargo that runs us left in the environment.
    pub fn cargo(&self, verb: &str) -> Run {
        let run = match (&self.compiler, verb) {
            (Compiler::Rustup, _) => {
                Run::new("rustup").args(["run", NIGHTLY, "cargo", verb]).args(["-Z", "build-std=core"])
            }
            // `cargo clippy` would look into ~/.cargo/bin first and find rustup's.
            (Compiler::Debian, "clippy") => {
                Run::new("/usr/bin/cargo-clippy").arg(verb).env("CARGO", "/usr/bin/cargo")
            }
            (Compiler::Debian, _) => Run::new("/usr/bin/cargo").arg(verb),
        };
        let run = run.without_env(is_compilers).env("RUSTFLAGS", BPF_FLAGS);
        let run = match self.compiler {
            Compiler::Rustup => run,
            // aya-ebpf uses unstable features of the compiler.
            Compiler::Debian => run.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1"),
        };
        run.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker)
            .args(["--package", "dataplane-ebpf", "--target", BPF_TARGET, "--target-dir"])
            .arg(workspace::target().join("bpf"))
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let compiler = match self.compiler {
            Compiler::Rustup => "rustup's nightly with rust-src",
            Compiler::Debian => "Debian's rustc-web (/usr/bin/rustc)",
        };
        write!(f, "{compiler}, linker {}", self.linker.display())
    }
}

/// The bpf-linker that `setup` builds.
pub fn linker_of_setup() -> PathBuf {
    workspace::tools().join("bin/bpf-linker")
}

/// Is `linker` there, in our version, and can it run?
pub fn linker_is_built(linker: &Path) -> bool {
    Run::new(linker).arg("--version").output().is_ok_and(|text| text == format!("bpf-linker {BPF_LINKER}"))
}

/// Is Debian's rustc at least the one that the workspace asks for, and has it a `core` for BPF?
pub fn debian_rustc_builds_bpf() -> bool {
    let Ok(version) = Run::new("/usr/bin/rustc").arg("--version").output() else { return false };
    let recent = version
        .split_whitespace()
        .nth(1)
        .and_then(minor)
        .zip(minor(env!("CARGO_PKG_RUST_VERSION")))
        .is_some_and(|(have, need)| have >= need);
    recent && Path::new("/usr/lib/rustlib").join(BPF_TARGET).is_dir()
}

/// The `95` of `1.95.0`.
fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("1.")?.split('.').next()?.parse().ok()
}

/// Does this variable tell cargo, rustc or rustup which compiler to take and how to call it?
fn is_compilers(variable: &str) -> bool {
    let chosen_by_the_user = ["CARGO_HOME", "CARGO_BUILD_JOBS", "RUST_BACKTRACE", "RUSTUP_HOME"];
    let access = ["CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_"];
    let compilers = ["CARGO", "CLIPPY_", "RUST", "LD_LIBRARY_PATH"];
    !chosen_by_the_user.contains(&variable)
        && !access.iter().any(|prefix| variable.starts_with(prefix))
        && compilers.iter().any(|prefix| variable.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_minor_versions_as_numbers() {
        assert_eq!(minor("1.96.0"), Some(96));
        assert_eq!(minor("1.100.1-nightly"), Some(100));
        assert_eq!(minor("2.0.0"), None);
    }

    #[test]
    fn tells_the_outer_cargo_from_the_user() {
        for variable in ["CARGO", "CARGO_ENCODED_RUSTFLAGS", "RUSTC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"] {
            assert!(is_compilers(variable), "{variable}");
        }
        for variable in ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_REGISTRIES_X_INDEX", "HOME", "PATH"] {
            assert!(!is_compilers(variable), "{variable}");
        }
    }
}
