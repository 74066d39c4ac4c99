//! What can go wrong with the fast path, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why the fast path cannot be opened, or an endpoint cannot have it.
#[derive(Debug, thiserror::Error)]
pub enum FastPathError {
    /// The binary was built without the BPF object.
    #[error("this binary was built without its BPF programs; build it with `cargo xtask build`")]
    NoObject,
    /// The embedded object is no BPF object that this kernel or aya can read.
    #[error("the BPF object cannot be read; rebuild it with `cargo xtask build`")]
    Object(#[source] aya::EbpfError),
    /// A program or map of the object is absent or of another type.
    #[error("the BPF object has no {kind} `{name}`; rebuild it with `cargo xtask build`")]
    Incomplete {
        /// `map` or `program`.
        kind: &'static str,
        /// Its name in `dataplane_ebpf::abi::names`.
        name: &'static str,
    },
    /// The verifier refused a program.
    #[error(
        "the kernel refuses BPF program `{program}`; report this with the kernel version, and run without the fast \
         path meanwhile. The verifier says:\n{log}"
    )]
    Verifier {
        /// The program.
        program: &'static str,
        /// Why, in the words of the verifier.
        log: String,
        /// What the system call returned.
        #[source]
        source: io::Error,
    },
    /// `EPERM` or `EACCES`.
    #[error(
        "{what}: not permitted; run as root, or give the service CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (CAP_SYS_ADMIN \
         before Linux 5.8)"
    )]
    Privileges {
        /// What was tried.
        what: String,
        /// What the system call returned.
        #[source]
        source: io::Error,
    },
    /// Maps are too large for the memory lock limit.
    #[error(
        "a BPF map does not fit in the memory lock limit (RLIMIT_MEMLOCK), which counts on this kernel (before Linux \
         5.11); set LimitMEMLOCK=infinity for the service"
    )]
    MemoryLock(#[source] io::Error),
    /// `ENOMEM` for a map.
    #[error("the kernel has no memory for the BPF maps; lower `endpoints` in `[limits]`")]
    Memory(#[source] io::Error),
    /// `ENOSYS`: a kernel without BPF.
    #[error(
        "this kernel has no BPF (CONFIG_BPF_SYSCALL); the fast path stays off and the kernel forwards alone"
    )]
    NoBpf(#[source] io::Error),
    /// The kernel cannot use the BTF that describes the programs.
    #[error("this kernel cannot use the type information of the BPF programs (CONFIG_DEBUG_INFO_BTF)")]
    Btf(#[source] aya::EbpfError),
    /// The pin directory is not on a BPF file system.
    #[error(
        "`{path}` is not on a BPF file system; `mount -t bpf bpf /sys/fs/bpf`, or set `pin` in `[paths]` to a \
         directory below one"
    )]
    NoBpffs {
        /// The pin directory.
        path: PathBuf,
        /// Why mounting one was refused, if it was tried.
        #[source]
        source: Option<io::Error>,
    },
    /// Another process holds the pin directory.
    #[error("`{path}` is in use by another serval; give each its own `pin` in `[paths]`")]
    PinInUse {
        /// The pin directory.
        path: PathBuf,
    },
    /// A file operation below the pin directory failed.
    #[error("{what} `{path}`")]
    Pin {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// More endpoints or addresses than the maps hold.
    #[error(
        "`{interface}` does not fit: map {map} holds {capacity} entries; raise `endpoints` in `[limits]` (now {limit}) \
         and restart"
    )]
    Full {
        /// The endpoint's TAP.
        interface: String,
        /// The map that is full.
        map: &'static str,
        /// Its capacity.
        capacity: u32,
        /// The limit that set it.
        limit: u32,
    },
    /// The rendered router advertisement is too long for its map value.
    #[error(
        "the router advertisement of `{interface}` has {length} bytes, {capacity} are possible; give its Subnet fewer \
         DNS servers or search domains"
    )]
    AdvertisementTooLong {
        /// The endpoint's TAP.
        interface: String,
        /// Bytes of the frame.
        length: usize,
        /// Bytes that fit.
        capacity: usize,
    },
    /// The TAP vanished meanwhile.
    #[error("interface {ifindex} is gone")]
    NoDevice {
        /// Its ifindex.
        ifindex: u32,
    },
    /// A map operation failed.
    #[error("map {map}: {what}")]
    Map {
        /// The map.
        map: &'static str,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A link or filter operation failed.
    #[error("{what} on interface {ifindex}")]
    Hook {
        /// What was tried.
        what: &'static str,
        /// Where.
        ifindex: u32,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}
