//! `cargo xtask setup`: what building, demo and tests need, installed on Debian by root, and elsewhere said.
//!
//! Into the system go Debian packages (no service of theirs is started or enabled) and a mount of bpffs; all else goes
//! into `target/tools`. The steps that are more than a command are the scripts in `xtask/scripts`.

use crate::run::Run;
use crate::toolchain::{
    BIRD_1, BPF_LINKER, BUILD_PACKAGES, GUEST_KERNEL, LLVM, NIGHTLY, QEMU, TEST_PACKAGES, Toolchain,
    debian_rustc_builds_bpf, linker_is_built, linker_of_setup,
};
use crate::workspace::{bird_1, guest_kernel, is_debian, is_root, program, qemu, root, tools};
use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::fs;

/// Something that is missing here, and the command that brings it.
struct Step {
    brings: String,
    command: Run,
}

/// Installs what is missing, or says what it is and how to get it. Does nothing when all is there.
pub fn setup() -> Result<()> {
    let steps = missing();
    if steps.is_empty() {
        return Ok(());
    }
    if !(is_root() && is_debian()) {
        bail!("{}", instructions(&steps));
    }
    for Step { brings, command } in steps {
        eprintln!("setup: {brings}");
        command.run()?;
    }
    match missing() {
        left if left.is_empty() => Ok(()),
        left => bail!("every command succeeded, but not everything is there. {}", instructions(&left)),
    }
}

/// What is missing, in the order it has to be brought.
fn missing() -> Vec<Step> {
    let steps = if is_debian() {
        vec![
            debian_packages(),
            debian_linker(),
            debian_qemu(),
            debian_guest_kernel(),
            debian_bird_1(),
            bpffs(),
        ]
    } else {
        vec![programs(), rustup_nightly(), rustup_linker(), bpffs()]
    };
    steps.into_iter().flatten().collect()
}

fn instructions(steps: &[Step]) -> String {
    let reason = if is_debian() { "installing it needs root" } else { "this is not Debian" };
    let mut text =
        format!("something is missing, and {reason}; run `cargo xtask setup` as root on Debian, or:");
    for Step { brings, command } in steps {
        text.push_str(&format!("\n  {brings}\n    {command}"));
    }
    text
}

fn debian_packages() -> Option<Step> {
    let installed = installed_packages();
    let absent = |package: &&str| !installed.contains(*package);
    let mut install: Vec<&str> = TEST_PACKAGES.iter().map(|(package, _)| *package).filter(absent).collect();
    if Toolchain::rustup().is_none() {
        // All of them when the compiler is too old: apt brings them up to date.
        let current = debian_rustc_builds_bpf();
        install.extend(BUILD_PACKAGES.iter().copied().filter(|package| !current || absent(package)));
    }
    (!install.is_empty()).then(|| Step {
        brings: format!("Debian packages, as root: {}", install.join(" ")),
        command: script("packages.sh").args(install),
    })
}

fn debian_linker() -> Option<Step> {
    let present = Toolchain::rustup().is_some() || linker_is_built(&linker_of_setup());
    (!present).then(|| Step {
        brings: format!("bpf-linker {BPF_LINKER}, linked with Debian's LLVM {LLVM}"),
        command: script("bpf-linker.sh").args([BPF_LINKER, LLVM]).arg(tools()),
    })
}

fn debian_qemu() -> Option<Step> {
    let directory = qemu();
    (program(QEMU_PROGRAM).is_none() && !directory.is_dir()).then(|| Step {
        brings: format!("QEMU for demo and tests, unpacked from {QEMU}"),
        command: script("qemu.sh").arg(QEMU).arg(directory),
    })
}

fn debian_guest_kernel() -> Option<Step> {
    let directory = guest_kernel();
    (!directory.is_dir()).then(|| Step {
        brings: format!("the kernel of QEMU guests, unpacked from {GUEST_KERNEL}"),
        command: script("guest-kernel.sh").arg(GUEST_KERNEL).arg(directory),
    })
}

fn debian_bird_1() -> Option<Step> {
    let directory = bird_1();
    (!directory.is_dir()).then(|| Step {
        brings: format!("BIRD 1.6 for the tests, unpacked from {BIRD_1}"),
        command: script("unpack.sh").arg(BIRD_1).arg(directory),
    })
}

fn programs() -> Option<Step> {
    let absent: Vec<&str> = TEST_PACKAGES
        .iter()
        .map(|(_, name)| *name)
        .chain([QEMU_PROGRAM])
        .filter(|name| program(name).is_none())
        .collect();
    (!absent.is_empty()).then(|| Step {
        brings: "programs that demo and tests run, from this distribution's package manager".to_owned(),
        command: Run::new("which").args(absent),
    })
}

fn rustup_nightly() -> Option<Step> {
    Toolchain::find().is_none().then(|| Step {
        brings: "a compiler that can build `core` for BPF".to_owned(),
        command: Run::new("rustup").args(["toolchain", "install", NIGHTLY, "--component", "rust-src,clippy"]),
    })
}

fn rustup_linker() -> Option<Step> {
    program("bpf-linker").is_none().then(|| Step {
        brings: "the linker of BPF programs, with the LLVM that the nightly compiler has".to_owned(),
        command: Run::new("cargo").args(["install", "bpf-linker", "--locked", "--version", BPF_LINKER]),
    })
}

fn bpffs() -> Option<Step> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted = mounts.lines().any(|mount| mount.split(' ').nth(1) == Some(BPFFS));
    (!mounted).then(|| Step {
        brings: "the file system that keeps pinned maps and links, as root".to_owned(),
        command: Run::new("mount").args(["-t", "bpf", "bpf", BPFFS]),
    })
}

const QEMU_PROGRAM: &str = "qemu-system-x86_64";
const BPFFS: &str = "/sys/fs/bpf";

fn installed_packages() -> BTreeSet<String> {
    let query = ["--show", "--showformat=${db:Status-Status} ${Package}\\n"];
    let listing = Run::new("dpkg-query").args(query).output().unwrap_or_default();
    listing.lines().filter_map(|line| line.strip_prefix("installed ")).map(str::to_owned).collect()
}

fn script(name: &str) -> Run {
    Run::new("sh").arg(root().join("xtask/scripts").join(name))
}
