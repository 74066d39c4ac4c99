//! Programs of somebody else on an interface, which Serval must leave alone.

use crate::netns::Namespace;
use anyhow::{Context, Result};
use nix::errno::Errno;
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Where the program is pinned for `ip` to find it.
const PIN: &str = "/sys/fs/bpf/foreign";

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;

/// `r0 = 2; exit`: XDP_PASS, or TC_ACT_SHOT.
const ANSWER_2: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];

/// The first fields of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

/// The first fields of `union bpf_attr` for `BPF_OBJ_PIN`.
#[repr(C)]
struct Pin {
    path: u64,
    object: i32,
    flags: u32,
}

/// Attaches an XDP program that passes everything to `interface`, as `ip link` does.
pub fn attach_xdp(namespace: &Namespace, interface: &str) -> Result<()> {
    pin(namespace, BPF_PROG_TYPE_XDP)?;
    namespace.ip(&format!("link set dev {interface} xdp pinned {PIN}")).map(drop)
}

/// Attaches a TC program that drops everything to the ingress of `interface`, behind whatever comes before preference 5.
pub fn attach_filter(namespace: &Namespace, interface: &str) -> Result<()> {
    pin(namespace, BPF_PROG_TYPE_SCHED_CLS)?;
    namespace.run(&format!("tc qdisc add dev {interface} clsact"))?;
    namespace.run(&format!("tc filter add dev {interface} ingress pref 5 bpf da pinned {PIN}")).map(drop)
}

/// Attaches TC programs for IPv4 where Serval's are for everything: the kernel takes one protocol a preference.
pub fn take_first_place(namespace: &Namespace, interface: &str) -> Result<()> {
    pin(namespace, BPF_PROG_TYPE_SCHED_CLS)?;
    namespace.run(&format!("tc qdisc add dev {interface} clsact"))?;
    for side in ["ingress", "egress"] {
        let filter = format!("{side} protocol ip pref 1 bpf da pinned {PIN}");
        namespace.run(&format!("tc filter add dev {interface} {filter}"))?;
    }
    Ok(())
}

/// Loads the program as one of this type and pins it.
fn pin(namespace: &Namespace, kind: u32) -> Result<()> {
    namespace.enter(|| {
        let license = CString::new("GPL")?;
        let load = Load {
            kind,
            instructions: u32::try_from(ANSWER_2.len())?,
            code: ANSWER_2.as_ptr() as u64,
            license: license.as_ptr() as u64,
        };
        let program = bpf(BPF_PROG_LOAD, &load).context("cannot load a foreign program")?;
        // SAFETY: the kernel has just given us this descriptor.
        let program = unsafe { OwnedFd::from_raw_fd(i32::try_from(program)?) };
        let path = CString::new(PIN)?;
        let pin = Pin { path: path.as_ptr() as u64, object: program.as_raw_fd(), flags: 0 };
        bpf(BPF_OBJ_PIN, &pin).context("cannot pin a foreign program")?;
        Ok(())
    })
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> nix::Result<libc::c_long> {
    // SAFETY: `attributes` begins as `union bpf_attr` does for `command`, its size is said, and what it points to lives.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    })
}
