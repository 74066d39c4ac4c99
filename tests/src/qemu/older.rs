//! Tests once more on an older kernel: Debian's, in a VM whose user space is the calling test binary and what it runs.

use super::GuestKernel;
use super::archive::{Archive, file_names, read};
use crate::leftovers;
use crate::process::Running;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long all tests may take: QEMU emulates the processor, and this machine may be busy.
const LIMIT: Duration = Duration::from_secs(1_200);

/// What stands in front of the exit code of the test binary.
const END: &str = "serval-end ";

/// Interfaces, both kinds of hooks on them, and the copies of directories that namespaces have.
const MODULES: [&str; 5] = [
    "drivers/net/tun.ko",
    "drivers/net/veth.ko",
    "fs/overlayfs/overlay.ko",
    "net/sched/cls_bpf.ko",
    "net/sched/sch_ingress.ko",
];

const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
for module in MODULES; do insmod /modules/$module; done
export PATH=/bin SERVAL_PATIENCE=20 SERVAL_BPF_OBJECT=/serval/object SERVAL_BIN=/serval/serval
exec </dev/null >/dev/ttyS1 2>&1
uname -r
/serval/tests --test-threads 1 --nocapture --exact TESTS
echo "ENDING$?"
poweroff -f
"#;

/// Runs `tests` of the calling test binary on the kernel that `cargo xtask setup` unpacks, with the BPF object, the daemon if
/// `serval` is given, and `programs` of this machine. Fails with all they said unless they pass; says which kernel it was.
pub fn passes(tests: &[&str], object: &Path, serval: Option<&Path>, programs: &[&str]) -> Result<String> {
    let kernel = GuestKernel::find()?;
    let directory = leftovers::directory("older")?;
    let initramfs = directory.path().join("initramfs");
    fs::write(&initramfs, user_space(&kernel, tests, object, serval, programs)?)?;
    let console = directory.path().join("console");

    let mut command = Command::new(crate::qemu());
    command.args(["-m", "1024"]).stdin(Stdio::null());
    kernel.boot(&mut command, &initramfs, &console);
    let process = Running::start("QEMU with an older kernel", command)?;
    let end = process
        .wait_line(LIMIT, |line| line.starts_with(END))
        .with_context(|| fs::read_to_string(&console).unwrap_or_else(|error| error.to_string()))?;
    let said = process.log();
    let passed = format!("test result: ok. {} passed", tests.len());
    if end != format!("{END}0") || !said.iter().any(|line| line.starts_with(&passed)) {
        bail!("not all of {tests:?} passed:\n{}", said.join("\n"));
    }
    said.into_iter().next().context("the VM did not say which kernel it runs")
}

fn user_space(
    kernel: &GuestKernel,
    tests: &[&str],
    object: &Path,
    serval: Option<&Path>,
    programs: &[&str],
) -> Result<Vec<u8>> {
    let mut archive = Archive::with_busybox()?;
    for directory in ["run", "etc"] {
        archive.directory(directory);
    }
    archive.modules(&kernel.modules, &MODULES)?;
    archive.file("serval/object", &read(object)?);
    let own = std::env::current_exe()?;
    let mut executables = vec![("serval/tests".to_owned(), own)];
    executables.extend(serval.map(|serval| ("serval/serval".to_owned(), serval.to_owned())));
    for program in programs {
        executables.push((format!("bin/{program}"), find(program)?));
    }
    for (place, path) in executables {
        archive.libraries(&path)?;
        archive.file(&place, &read(&path)?);
    }
    let init = INIT
        .replace("MODULES", &file_names(&MODULES))
        .replace("TESTS", &tests.join(" "))
        .replace("ENDING", END);
    archive.file("init", init.as_bytes());
    Ok(archive.finish())
}

/// A program in PATH or in the directories of administration programs.
fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
        .with_context(|| format!("no {program} in PATH: run `cargo xtask setup`"))
}
