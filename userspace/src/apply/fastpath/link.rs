//! BPF links by system call: create, update, pin, look at, detach.
//!
//! aya has links too, but falls back to netlink silently, attaches TC by interface name only (a name may change its
//! owner in between) and does not say on which interface a link is; adoption needs all of that. The structures below
//! are the beginnings of `union bpf_attr` (include/uapi/linux/bpf.h); the kernel takes the rest as zero.

use super::grace_period::Hurry;
use super::syscall::{bpf, bpf_fd};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

const BPF_F_BEFORE: u32 = 1 << 3;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// `lo` has this ifindex in every network namespace.
const LOOPBACK: u32 = 1;

/// Where a link attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// XDP in the driver.
    XdpNative,
    /// XDP on the skb, for drivers without XDP.
    XdpGeneric,
    /// tcx ingress, before all other programs.
    TcxIngress,
    /// tcx egress, before all other programs.
    TcxEgress,
}

impl Attachment {
    /// `enum bpf_attach_type`.
    const fn attach_type(self) -> u32 {
        match self {
            Self::XdpNative | Self::XdpGeneric => 37,
            Self::TcxIngress => 46,
            Self::TcxEgress => 47,
        }
    }

    /// The kernel waits for a grace period before it says that it is attached.
    const fn waits(self) -> bool {
        matches!(self, Self::TcxIngress | Self::TcxEgress)
    }

    /// A tcx program that passes a frame ends the chain, so a program behind a foreign one could be skipped. The guard
    /// must not be: it is the first. Ours hands on with `TCX_NEXT`, so the foreign programs still see what it passes.
    const fn flags(self) -> u32 {
        match self {
            Self::XdpNative => XDP_FLAGS_DRV_MODE,
            Self::XdpGeneric => XDP_FLAGS_SKB_MODE,
            Self::TcxIngress | Self::TcxEgress => BPF_F_BEFORE,
        }
    }
}

/// What the kernel says of a link: the beginning of `struct bpf_link_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkInfo {
    /// `enum bpf_link_type`.
    pub kind: u32,
    /// The link's id.
    pub id: u32,
    /// The id of its program.
    pub program: u32,
    reserved: u32,
    /// XDP and tcx: the interface; 0 when that is gone or the link was detached by force.
    pub ifindex: u32,
    attach_type: u32,
}

/// An attached program; it stays attached as long as the link is open or pinned.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
}

impl Link {
    /// Attaches `program` to the interface.
    pub fn create(program: BorrowedFd<'_>, ifindex: u32, attachment: Attachment) -> io::Result<Self> {
        #[repr(C)]
        struct Create {
            program: i32,
            ifindex: u32,
            attach_type: u32,
            flags: u32,
            relative: u32,
            padding: u32,
            revision: u64,
        }
        let mut attr = Create {
            program: program.as_raw_fd(),
            ifindex,
            attach_type: attachment.attach_type(),
            flags: attachment.flags(),
            relative: 0,
            padding: 0,
            revision: 0,
        };
        let _hurry = attachment.waits().then(Hurry::begin);
        // SAFETY: the structure is the one of this command.
        unsafe { bpf_fd(BPF_LINK_CREATE, &mut attr) }.map(|fd| Self { fd })
    }

    /// Opens a pinned link; `None` when nothing is pinned there.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut attr = Object { path: path.as_ptr() as u64, fd: 0, flags: 0 };
        // SAFETY: the structure is the one of this command, and `path` outlives the call.
        match unsafe { bpf_fd(BPF_OBJ_GET, &mut attr) } {
            Ok(fd) => Ok(Some(Self { fd })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Pins the link, so that it outlives this process.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut attr = Object { path: path.as_ptr() as u64, fd: self.fd.as_raw_fd(), flags: 0 };
        // SAFETY: the structure is the one of this command, and `path` outlives the call.
        unsafe { bpf(BPF_OBJ_PIN, &mut attr) }.map(drop)
    }

    /// Replaces the program atomically: every frame meets the old or the new one.
    pub fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        #[repr(C)]
        struct Update {
            link: i32,
            program: i32,
            flags: u32,
            old_program: u32,
        }
        let mut attr =
            Update { link: self.fd.as_raw_fd(), program: program.as_raw_fd(), flags: 0, old_program: 0 };
        // SAFETY: the structure is the one of this command.
        unsafe { bpf(BPF_LINK_UPDATE, &mut attr) }.map(drop)
    }

    /// What the kernel says of it.
    pub fn info(&self) -> io::Result<LinkInfo> {
        info(self.fd.as_fd())
    }

    /// Detaches it, whoever else holds it open.
    pub fn detach(&self) -> io::Result<()> {
        let mut attr: u32 = self.fd.as_raw_fd() as u32;
        let _hurry = Hurry::begin();
        // SAFETY: the command takes the descriptor alone.
        match unsafe { bpf(BPF_LINK_DETACH, &mut attr) } {
            // The interface is gone, and with it the attachment.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// Whether this kernel has tcx (6.6 and later): older ones do not know the attach type.
pub fn tcx_supported() -> bool {
    #[repr(C)]
    #[derive(Default)]
    struct Query {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        programs: u64,
        count: u32,
        padding: u32,
        program_flags: u64,
        links: u64,
        link_flags: u64,
        revision: u64,
    }
    let mut attr =
        Query { target: LOOPBACK, attach_type: Attachment::TcxIngress.attach_type(), ..Query::default() };
    // SAFETY: the structure is the one of this command, and asks for no arrays.
    match unsafe { bpf(BPF_PROG_QUERY, &mut attr) } {
        Ok(_) => true,
        // `lo` without any tcx program.
        Err(error) => error.raw_os_error() == Some(libc::ENOENT),
    }
}

fn info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    #[repr(C)]
    struct Info {
        fd: i32,
        length: u32,
        info: u64,
    }
    let mut info = LinkInfo::default();
    let mut attr =
        Info { fd: fd.as_raw_fd(), length: size_of::<LinkInfo>() as u32, info: (&raw mut info) as u64 };
    // SAFETY: the structure is the one of this command; the kernel writes at most `length` bytes to `info`.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info)
}

/// For `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
#[repr(C)]
struct Object {
    path: u64,
    fd: i32,
    flags: u32,
}
