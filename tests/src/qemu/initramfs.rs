//! The VM's whole user space as a cpio archive: busybox, dhclient with its libraries, the virtio modules and an init.

use crate::process;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What init prints when it takes commands.
pub(super) const READY: &str = "serval-ready";

/// What stands in front of a command's number and exit code when it has ended.
pub(super) const END: &str = "serval-end ";

/// In the order of their dependencies; paths are below the modules' directory.
const MODULES: [&str; 8] = [
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "net/core/failover.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
];

const BUSYBOX: &str = "/bin/busybox";
const DHCLIENT: &str = "/sbin/dhclient";

/// Brings `eth0` up (its kernel then solicits a router), starts dhclient and answers commands: a number and a line of
/// shell each.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
for module in MODULES; do insmod /modules/$module; done
ip link set lo up
ip link set eth0 up
{
    # Permanent and no longer tentative, which dhclient itself does not wait for.
    until grep -q '^fe80.* 80 *eth0$' /proc/net/if_inet6; do usleep 20000; done
    exec dhclient -6 -d -sf /dhclient-script -lf /tmp/leases -pf /tmp/dhclient.pid eth0
} >/tmp/dhclient.log 2>&1 </dev/null &
stty -F /dev/ttyS1 raw -echo
exec </dev/ttyS1 >/dev/ttyS1 2>&1
echo READY
while read -r number line; do
    sh -c "$line" </dev/null
    echo "ENDING$number $?"
done
"#;

/// What dhclient runs on a change: an address as DHCPv6 gives it, without a prefix.
const DHCLIENT_SCRIPT: &str = r#"#!/bin/busybox sh
case $reason in
BOUND6 | RENEW6 | REBIND6)
    ip -6 address add $new_ip6_address/128 dev $interface ;;
EXPIRE6 | RELEASE6 | STOP6)
    ip -6 address del $old_ip6_address/128 dev $interface ;;
esac
exit 0
"#;

/// Builds the archive from this machine's busybox and dhclient and the guest kernel's modules.
pub(super) fn build(modules: &Path) -> Result<Vec<u8>> {
    let mut archive = Cpio::default();
    for directory in ["dev", "proc", "sys", "tmp", "bin", "modules", "etc/dhcp", "var/lib/dhcp"] {
        archive.directory(directory);
    }
    archive.device("dev/console", 5, 1);
    archive.file("bin/busybox", &read(Path::new(BUSYBOX))?);
    archive.file("bin/dhclient", &read(Path::new(DHCLIENT))?);
    for library in libraries(DHCLIENT)? {
        archive.file(&library.to_string_lossy(), &read(&library)?);
    }
    for module in MODULES {
        archive.file(&format!("modules/{}", file_name(module)), &read(&modules.join("kernel").join(module))?);
    }
    let init = INIT
        .replace("MODULES", &MODULES.map(file_name).join(" "))
        .replace("READY", READY)
        .replace("ENDING", END);
    archive.file("init", init.as_bytes());
    archive.file("dhclient-script", DHCLIENT_SCRIPT.as_bytes());
    Ok(archive.finish())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("the VM needs {}: run `cargo xtask setup`", path.display()))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The shared libraries of `program` with its loader, as `ldd` finds them.
fn libraries(program: &str) -> Result<Vec<PathBuf>> {
    let mut command = Command::new("ldd");
    command.arg(program);
    let listing = process::run(command)?;
    Ok(listing.split_ascii_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// A cpio archive in the "newc" format (kernel: Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
    directories: BTreeSet<PathBuf>,
}

impl Cpio {
    const DIRECTORY: u32 = 0o040_755;
    const FILE: u32 = 0o100_755;
    const CHARACTER_DEVICE: u32 = 0o020_600;

    /// Adds a directory with its parents, once.
    fn directory(&mut self, path: &str) {
        let path = Path::new(path.trim_start_matches('/'));
        let mut missing: Vec<_> = path.ancestors().filter(|a| !a.as_os_str().is_empty()).collect();
        missing.reverse();
        for directory in missing {
            if self.directories.insert(directory.to_owned()) {
                self.entry(&directory.to_string_lossy(), Self::DIRECTORY, &[], (0, 0));
            }
        }
    }

    fn file(&mut self, path: &str, content: &[u8]) {
        let path = path.trim_start_matches('/');
        if let Some(parent) = Path::new(path).parent() {
            self.directory(&parent.to_string_lossy());
        }
        self.entry(path, Self::FILE, content, (0, 0));
    }

    fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, Self::CHARACTER_DEVICE, &[], (major, minor));
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], (major, minor): (u32, u32)) {
        self.entries += 1;
        // inode, mode, uid, gid, links, mtime, size, device (2), device it stands for (2), name's length, check
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            length(content.len()),
            0,
            0,
            major,
            minor,
            length(path.len() + 1),
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes().chain([0]));
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Nothing here comes near 4 GiB; a length that did would make an archive the kernel refuses.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Cpio::default();
        archive.file("/a/b", b"hello");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let names: Vec<_> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(names.len(), 3, "directory, file, trailer: {text}");
        assert!(names.iter().all(|at| at % 4 == 0));
        assert_eq!(&text[110..111], "a");
        let file = names[1];
        assert_eq!(&text[file + 54..file + 62], "00000005");
        assert_eq!(&text[file + 110..file + 114], "a/b\0");
    }
}
