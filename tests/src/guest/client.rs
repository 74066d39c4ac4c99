//! DHCPv6 clients as guests run them, in the foreground, ended on drop.

use super::KernelGuest;
use crate::process::Running;
use anyhow::Result;

/// ISC dhclient with Debian's own script, started when the guest has a link-local address, as ifupdown does.
pub fn dhclient(guest: &KernelGuest) -> Result<Running> {
    guest.wait_link_local()?;
    let mut command = guest.namespace.command("/sbin/dhclient");
    command.args(["-6", "-d", "-v", "-lf", "/run/dhclient.leases", "-pf", "/run/dhclient.pid", "eth0"]);
    Running::start("dhclient", command)
}

/// dhcpcd, which handles router advertisements itself instead of the kernel.
pub fn dhcpcd(guest: &KernelGuest) -> Result<Running> {
    let mut command = guest.namespace.command("dhcpcd");
    command.args(["--nobackground", "--debug", "--ipv6only", "--nodev", "eth0"]);
    Running::start("dhcpcd", command)
}
