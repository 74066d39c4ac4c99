//! The VM's whole user space as a cpio archive: busybox, dhclient with its libraries, the virtio modules and an init.

use super::archive::{Archive, file_names, read};
use anyhow::Result;
use std::path::Path;

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
    let mut archive = Archive::with_busybox()?;
    for directory in ["etc/dhcp", "var/lib/dhcp"] {
        archive.directory(directory);
    }
    archive.file("bin/dhclient", &read(Path::new(DHCLIENT))?);
    archive.libraries(Path::new(DHCLIENT))?;
    archive.modules(modules, &MODULES)?;
    let init = INIT.replace("MODULES", &file_names(&MODULES)).replace("READY", READY).replace("ENDING", END);
    archive.file("init", init.as_bytes());
    archive.file("dhclient-script", DHCLIENT_SCRIPT.as_bytes());
    Ok(archive.finish())
}
