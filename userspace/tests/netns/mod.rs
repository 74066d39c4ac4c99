//! A network namespace of its own for a test, TAPs in it, and what iproute2 says about it.

#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

pub mod frame;

use serde_json::Value;
use serval::plan::{Attached, HostFacts, NetworkSettings};
use serval::resource::{HostAddress, MacAddress};
use std::ffi::{c_int, c_short};
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

/// Runs `test` in a new network namespace, on a thread and runtime of its own. Says why when it can't.
pub fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: a network namespace needs root");
        return;
    }
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        ip("link set lo up");
        // A current-thread runtime: everything runs in this thread's namespace.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` and wants it to succeed.
pub fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `ip -json -details`; every entry without what the kernel counts or times.
pub fn ip_json(arguments: &str) -> Vec<Value> {
    let text = ip(&format!("-json -details {arguments}"));
    let entries: Vec<Value> = match text.trim() {
        "" => Vec::new(),
        text => serde_json::from_str(text).unwrap(),
    };
    entries.into_iter().filter(|entry| entry.as_object().is_some_and(|fields| !fields.is_empty())).collect()
}

/// The values of `field` of all `entries`.
pub fn fields(entries: &[Value], field: &str) -> Vec<String> {
    entries.iter().filter_map(|entry| entry[field].as_str()).map(str::to_owned).collect()
}

/// IPv6 addresses on `interface`, with prefix length, sorted.
pub fn addresses(interface: &str) -> Vec<String> {
    let mut all: Vec<String> = address_entries(interface)
        .iter()
        .map(|entry| format!("{}/{}", entry["local"].as_str().unwrap(), entry["prefixlen"]))
        .collect();
    all.sort();
    all
}

/// IPv6 addresses on `interface` as iproute2 tells them.
pub fn address_entries(interface: &str) -> Vec<Value> {
    ip_json(&format!("-6 address show dev {interface}"))
        .iter()
        .flat_map(|link| link["addr_info"].as_array().cloned().unwrap_or_default())
        .filter(|entry| entry["local"].is_string())
        .collect()
}

/// Destinations of routes with our protocol number via `interface`, sorted.
pub fn our_routes(interface: &str) -> Vec<String> {
    let mut all = fields(&ip_json(&format!("-6 route show table all dev {interface} proto 83")), "dst");
    all.sort();
    all
}

/// Permanent neighbours on `interface` as `address MAC`, sorted.
pub fn neighbours(interface: &str) -> Vec<String> {
    let mut all: Vec<String> = ip_json(&format!("-6 neighbour show dev {interface} nud permanent"))
        .iter()
        .map(|entry| format!("{} {}", entry["dst"].as_str().unwrap(), entry["lladdr"].as_str().unwrap()))
        .collect();
    all.sort();
    all
}

/// An IPv6 sysctl of `interface`.
pub fn sysctl(interface: &str, name: &str) -> String {
    std::fs::read_to_string(sysctl_path(interface, name)).unwrap().trim_end().to_owned()
}

/// Sets an IPv6 sysctl of `interface`.
pub fn set_sysctl(interface: &str, name: &str, value: &str) {
    std::fs::write(sysctl_path(interface, name), value).unwrap();
}

fn sysctl_path(interface: &str, name: &str) -> String {
    format!("/proc/sys/net/ipv6/conf/{interface}/{name}")
}

#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: c_short,
    padding: [u8; 22],
}

nix::ioctl_write_int!(set_interface, b'T', 202);

/// A TAP (or, for routed packets, a TUN) that exists as long as this value.
pub struct Tap {
    pub file: File,
    pub name: String,
}

impl Tap {
    /// Makes one; it is down.
    pub fn new(name: &str) -> Self {
        Self::with(name, libc::IFF_TAP)
    }

    /// Makes one of type `kind`.
    pub fn with(name: &str, kind: c_int) -> Self {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .unwrap();
        let mut request = InterfaceRequest { name: [0; libc::IFNAMSIZ], flags: 0, padding: [0; 22] };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        request.flags = (kind | libc::IFF_NO_PI) as c_short;
        // SAFETY: TUNSETIFF takes a pointer to `struct ifreq`, whose 40 bytes `request` has; it outlives the call.
        unsafe { set_interface(file.as_raw_fd(), (&raw const request) as libc::c_ulong) }.unwrap();
        Self { file, name: name.to_owned() }
    }

    /// Makes one and sets it up.
    pub fn up(name: &str) -> Self {
        let tap = Self::new(name);
        ip(&format!("link set {name} up"));
        tap
    }
}

/// An endpoint behind the TAP `name`, as the plan would have it after `facts`.
pub fn endpoint(facts: &HostFacts, name: &str, mac: &str, addresses: &[&str], gateways: &[&str]) -> Attached {
    let link = &facts.links[name];
    let hosts = |texts: &[&str]| -> Vec<HostAddress> {
        texts.iter().map(|text| HostAddress::new(text.parse().unwrap()).unwrap()).collect()
    };
    let mac: MacAddress = mac.parse().unwrap();
    let gateway_mac = link.mac.unwrap();
    Attached {
        interface: name.parse().unwrap(),
        ifindex: link.ifindex,
        admin_up: link.admin_up,
        carrier: link.carrier,
        mtu: link.mtu,
        mac,
        gateway_mac,
        gateway: gateway_mac.link_local(),
        gateways: hosts(gateways),
        leased: hosts(addresses),
        addresses: hosts(addresses),
        network: NetworkSettings::default(),
    }
}
