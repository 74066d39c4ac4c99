//! IPv6 settings of the host and of single interfaces, through /proc/sys/net/ipv6.
//!
//! `/proc/sys/net` shows the network namespace of the thread that opens the file. Files are therefore opened on the
//! calling thread, never handed to another one; a write waits for the kernel's RTNL lock, exactly as every netlink
//! request does.

use super::error::KernelError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const CONF: &str = "/proc/sys/net/ipv6/conf";

/// What a TAP of an endpoint is set to, in this order.
///
/// No sysctl is needed against redirects to the guest: the kernel sends one only when a packet leaves by the
/// interface it came in by, and a TAP leads to one guest. `proxy_ndp` does nothing without an entry for every
/// address and TAP, so it is left alone.
const TAP: [(&str, &str); 8] = [
    // No link-local address of the kernel's own making (IN6_ADDR_GEN_MODE_NONE), which would run DAD against the
    // guest, and would stay when the MAC changes. Before `disable_ipv6` is lifted, which makes one.
    ("addr_gen_mode", "1"),
    // A guest is no router of ours.
    ("accept_ra", "0"),
    ("autoconf", "0"),
    ("accept_redirects", "0"),
    // Our addresses are ours: no guest can take one from us by claiming it first.
    ("accept_dad", "0"),
    ("dad_transmits", "0"),
    // Also sets the router flag in the kernel's neighbour advertisements.
    ("forwarding", "1"),
    // Last: a TAP forwards nothing before it is wholly set up.
    ("disable_ipv6", "0"),
];

/// Sets the sysctls of an endpoint's TAP. `tap_prefix` marks TAPs, where nothing is learnt from router
/// advertisements.
pub(super) fn configure_tap(interface: &str, tap_prefix: &str) -> Result<usize, KernelError> {
    let directory = interface_directory(interface)?;
    let mut changed = 0;
    for (name, value) in TAP {
        let path = directory.join(name);
        if matches(&path, value).map_err(|error| of_interface(interface, error))? {
            continue;
        }
        if name == "forwarding" {
            changed += keep_learned_routes(tap_prefix)?;
        }
        write(&path, value).map_err(|error| of_interface(interface, error))?;
        changed += 1;
    }
    Ok(changed)
}

/// Makes the kernel drop every IPv6 packet from and to the interface; its routes, neighbours and addresses go.
pub(super) fn block(interface: &str) -> Result<usize, KernelError> {
    let directory = match interface_directory(interface) {
        // An interface without IPv6 forwards none.
        Err(KernelError::NoIpv6 { .. }) => return Ok(0),
        directory => directory?,
    };
    set(&directory.join("disable_ipv6"), "1").map_err(|error| of_interface(interface, error))
}

/// Makes the host a router.
pub(super) fn enable_forwarding(tap_prefix: &str) -> Result<usize, KernelError> {
    let path = Path::new(CONF).join("all/forwarding");
    if !path.exists() {
        return Err(KernelError::HostWithoutIpv6 { path });
    }
    if matches(&path, "1")? {
        return Ok(0);
    }
    // `default` follows `all` here. Its accept_ra stays as it is: 1, which together with forwarding means "no". Were
    // it 2, a guest's advertisements would count on every new TAP until we have got to it.
    let kept = keep_learned_routes(tap_prefix)?;
    write(&path, "1")?;
    Ok(kept + 1)
}

/// Sets `accept_ra=2` where router advertisements are listened to now.
///
/// Whenever `forwarding` is set to 1, on any interface, the kernel throws away all default routes that it has learnt
/// from router advertisements, save those of interfaces with `accept_ra=2` (`rt6_purge_dflt_routers`), and an
/// interface with `forwarding=1` learns none unless `accept_ra` is 2 (`ipv6_accept_ra`). A host that has its default
/// route from its uplink's router would be cut off. Where advertisements don't count now, they do not count afterwards.
fn keep_learned_routes(tap_prefix: &str) -> Result<usize, KernelError> {
    let read = |source| KernelError::Sysctl { action: "read", path: CONF.into(), source };
    let mut changed = 0;
    for entry in fs::read_dir(CONF).map_err(read)? {
        let entry = entry.map_err(read)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if matches!(&*name, "all" | "default" | "lo") || name.starts_with(tap_prefix) {
            continue;
        }
        let accept_ra = entry.path().join("accept_ra");
        let listens = || {
            Ok(matches(&accept_ra, "1")?
                && matches(&entry.path().join("forwarding"), "0")?
                && set(&accept_ra, "2")? == 1)
        };
        match listens() {
            Ok(true) => {
                tracing::info!(
                    interface = %name,
                    "set accept_ra=2, so that the default route from its router stays while this host forwards"
                );
                changed += 1;
            }
            Ok(false) => {}
            // Interfaces come and go.
            Err(KernelError::Sysctl { source, .. }) if is_gone(&source) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(changed)
}

fn interface_directory(interface: &str) -> Result<PathBuf, KernelError> {
    let directory = Path::new(CONF).join(interface);
    // The kernel gives interfaces of these two names no directory; those that are there mean all interfaces.
    if matches!(interface, "all" | "default") || !directory.exists() {
        return Err(KernelError::NoIpv6 { interface: interface.to_owned() });
    }
    Ok(directory)
}

fn set(path: &Path, value: &str) -> Result<usize, KernelError> {
    if matches(path, value)? {
        return Ok(0);
    }
    write(path, value)?;
    Ok(1)
}

fn matches(path: &Path, value: &str) -> Result<bool, KernelError> {
    let read = |source| KernelError::Sysctl { action: "read", path: path.to_owned(), source };
    Ok(fs::read_to_string(path).map_err(read)?.trim_end() == value)
}

fn write(path: &Path, value: &str) -> Result<(), KernelError> {
    fs::write(path, value).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => {
            KernelError::NotPermitted { action: format!("set {} to {value}", path.display()) }
        }
        _ => KernelError::Sysctl { action: "set", path: path.to_owned(), source },
    })
}

fn of_interface(interface: &str, error: KernelError) -> KernelError {
    match error {
        KernelError::Sysctl { source, .. } if is_gone(&source) => {
            KernelError::Vanished { interface: interface.to_owned() }
        }
        error => error,
    }
}

/// What procfs says of the file of an interface that is gone, or is going.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}
