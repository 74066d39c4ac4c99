//! A real VM: QEMU without hardware help, Debian's cloud kernel, and an initramfs of our own that asks for router and
//! address as any guest does and runs commands that come by a serial line.

mod archive;
mod initramfs;
pub mod older;

use crate::frame::{GATEWAY_MAC, Mac, mac_text};
use crate::leftovers;
use crate::netns::Namespace;
use crate::process::Running;
use crate::wait::eventually;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::Write;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long the VM may take to reach user space; two seconds are usual.
const BOOT: Duration = Duration::from_secs(90);

/// A booted VM; its end of the serial line takes one command at a time.
#[derive(Debug)]
pub struct Vm {
    process: Running,
    commands: ChildStdin,
    number: u32,
    directory: TempDir,
}

/// What a command in the VM has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit code.
    pub code: i32,
    /// Standard output and error.
    pub text: String,
}

impl Vm {
    /// Boots a VM whose virtio-net device is the TAP `tap`, which QEMU opens in `host`; returns when it takes commands.
    /// Its kernel solicits a router and dhclient asks for an address from the start.
    pub fn boot(host: &Arc<Namespace>, tap: &str, mac: Mac) -> Result<Self> {
        let kernel = GuestKernel::find()?;
        let directory = leftovers::directory(tap)?;
        let initramfs = directory.path().join("initramfs");
        fs::write(&initramfs, initramfs::build(&kernel.modules)?)?;
        let console = directory.path().join("console");

        let mut command = host.command(crate::qemu());
        command.args(["-m", "256"]);
        kernel.boot(&mut command, &initramfs, &console);
        command.args(["-netdev", &format!("tap,id=net,ifname={tap},script=no,downscript=no,vhost=off")]);
        command.args(["-device", &format!("virtio-net-pci,netdev=net,romfile=,mac={}", mac_text(mac))]);
        command.stdin(Stdio::piped());
        let mut process = Running::start(format!("QEMU on {tap}"), command)?;
        let commands = process.take_stdin().context("QEMU has no standard input")?;
        let mut vm = Self { process, commands, number: 0, directory };

        eventually(&format!("QEMU's TAP {tap}"), Duration::from_secs(10), || {
            if !vm.process.is_alive()? {
                bail!("QEMU ended:\n{}", vm.process.log().join("\n"));
            }
            host.ifindex(tap)
        })?;
        host.ip(&format!("link set {tap} address {} up", mac_text(GATEWAY_MAC)))?;
        vm.process.wait_line(BOOT, |line| line == initramfs::READY).with_context(|| vm.console())?;
        Ok(vm)
    }

    /// Runs a line of shell in the VM.
    pub fn run(&mut self, line: &str, limit: Duration) -> Result<Output> {
        self.number += 1;
        let end = format!("{}{} ", initramfs::END, self.number);
        let from = self.process.log().len();
        writeln!(self.commands, "{} {line}", self.number).with_context(|| self.console())?;
        let last = self
            .process
            .wait_line(limit, |line| line.starts_with(&end))
            .with_context(|| format!("`{line}` in the VM"))?;
        let code = last[end.len()..].parse().with_context(|| format!("the VM's answer {last}"))?;
        let said = self.process.log().into_iter().skip(from).take_while(|line| !line.starts_with(&end));
        Ok(Output { code, text: said.collect::<Vec<_>>().join("\n") })
    }

    /// Runs a line of shell in the VM until it succeeds.
    pub fn run_until(&mut self, line: &str, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            let output = self.run(line, limit)?;
            if output.code == 0 {
                return Ok(output.text);
            }
            if Instant::now() > end {
                bail!("`{line}` in the VM did not succeed within {limit:?}: {}", output.text);
            }
        }
    }

    /// Waits until the VM has `address` and duplicate address detection is past.
    pub fn wait_address(&mut self, address: Ipv6Addr, limit: Duration) -> Result<()> {
        let digits = address.octets().map(|octet| format!("{octet:02x}")).concat();
        // Address, interface, prefix length, scope, flags: permanent, and not tentative.
        let line = format!("grep -q '^{digits} .. .. .. 80 *eth0$' /proc/net/if_inet6");
        let waited = self.run_until(&line, limit);
        waited.map(drop).with_context(|| {
            self.run("cat /tmp/dhclient.log", limit).map_or_else(|e| e.to_string(), |o| o.text)
        })
    }

    /// What the VM's kernel has printed.
    pub fn console(&self) -> String {
        fs::read(self.directory.path().join("console"))
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .unwrap_or_else(|error| format!("no console output: {error}"))
    }
}

/// The kernel that VMs boot: Debian's cloud kernel, unpacked, not installed.
struct GuestKernel {
    image: PathBuf,
    modules: PathBuf,
}

impl GuestKernel {
    /// Looks under `SERVAL_GUEST_KERNEL`, else where `cargo xtask setup` unpacks it.
    fn find() -> Result<Self> {
        let root = std::env::var_os("SERVAL_GUEST_KERNEL")
            .map_or_else(|| crate::target().join("tools/guest-kernel"), PathBuf::from);
        let missing = || {
            format!(
                "no guest kernel in {}: run `cargo xtask setup`, or set SERVAL_GUEST_KERNEL",
                root.display()
            )
        };
        let root = root.canonicalize().with_context(missing)?;
        let image = only_entry(&root.join("boot"), "vmlinuz-").with_context(missing)?;
        let modules = only_entry(&root.join("lib/modules"), "").with_context(missing)?;
        Ok(Self { image, modules })
    }

    /// The arguments of a QEMU that boots it, with a file for what it prints and a serial line on standard input and output.
    fn boot(&self, qemu: &mut Command, initramfs: &Path, console: &Path) {
        qemu.args(["-accel", "tcg", "-cpu", "max", "-no-reboot", "-nodefaults", "-display", "none"]);
        qemu.arg("-kernel").arg(&self.image).arg("-initrd").arg(initramfs);
        qemu.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"]);
        qemu.args(["-serial", &format!("file:{}", console.display()), "-serial", "stdio"]);
    }
}

/// The last entry of `directory` whose name begins with `prefix`.
fn only_entry(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.push(entry.path());
        }
    }
    found.into_iter().max().with_context(|| format!("no {prefix}* in {}", directory.display()))
}
