//! What outlives the process: names below the pin directory of a BPF file system.
//!
//! ```text
//! <pin>/v1/maps/ENDPOINTS ...      maps of ABI version 1
//! <pin>/v1/links/7-xdp, 7-in, 7-out   links of the interface with ifindex 7
//! <pin>/v1/links/7-clsact/         directory as a mark: our filters are on clsact of interface 7
//! <pin>/v1/links/7-qdisc/          the clsact qdisc itself is ours, too
//! <pin>/v1/links/3-uplink-xdp ...     the same for an uplink
//! ```
//!
//! Every other `v<n>` below `<pin>` is an older generation: another ABI, or maps that no longer fit and were set aside as
//! `v1-retired-<n>`. Its programs go on with its maps until each link has moved to the current one.

use super::FastPathError;
use dataplane_ebpf::abi;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::MsFlags;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Where distributions mount the BPF file system.
const BPFFS: &str = "/sys/fs/bpf";
/// Marks what belongs to an uplink.
const UPLINK: &str = "uplink-";

/// What an interface is to us: this decides which programs it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A VM is behind it.
    Tap,
    /// Other hosts are behind it.
    Uplink,
}

/// What can be pinned for an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// The XDP link.
    Xdp,
    /// The tcx ingress link.
    In,
    /// The tcx egress link.
    Out,
    /// Mark: our filters are on clsact.
    Clsact,
    /// Mark: we added the clsact qdisc.
    Qdisc,
}

impl Pin {
    const ALL: [Self; 5] = [Self::Xdp, Self::In, Self::Out, Self::Clsact, Self::Qdisc];

    const fn suffix(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::In => "in",
            Self::Out => "out",
            Self::Clsact => "clsact",
            Self::Qdisc => "qdisc",
        }
    }

    /// `7-xdp` or `7-uplink-xdp`, and back.
    fn name(self, ifindex: u32, role: Role) -> String {
        match role {
            Role::Tap => format!("{ifindex}-{}", self.suffix()),
            Role::Uplink => format!("{ifindex}-{UPLINK}{}", self.suffix()),
        }
    }

    fn parse(name: &str) -> Option<(u32, Role, Self)> {
        let (ifindex, rest) = name.split_once('-')?;
        let (role, suffix) = match rest.strip_prefix(UPLINK) {
            Some(suffix) => (Role::Uplink, suffix),
            None => (Role::Tap, rest),
        };
        let pin = Self::ALL.into_iter().find(|pin| pin.suffix() == suffix)?;
        Some((ifindex.parse().ok()?, role, pin))
    }
}

/// The pin directory, held by this process alone.
#[derive(Debug)]
pub struct Pins {
    root: PathBuf,
    _lock: Flock<File>,
}

impl Pins {
    /// Opens the pin directory and makes it if need be, the mount of the BPF file system included.
    pub fn open(root: &Path) -> Result<Self, FastPathError> {
        ensure_bpffs(root)?;
        fs::create_dir_all(root).map_err(at("cannot create", root))?;
        Self::lock(root)
    }

    /// Opens the pin directory if it is there.
    pub fn open_existing(root: &Path) -> Result<Option<Self>, FastPathError> {
        if root.is_dir() { Self::lock(root).map(Some) } else { Ok(None) }
    }

    fn lock(root: &Path) -> Result<Self, FastPathError> {
        let directory = File::open(root).map_err(at("cannot open", root))?;
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { root: root.to_owned(), _lock: lock }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                Err(FastPathError::PinInUse { path: root.to_owned() })
            }
            Err((_, errno)) => Err(at("cannot lock", root)(errno.into())),
        }
    }

    /// Makes the directories of the current generation.
    pub fn prepare(&self) -> Result<(), FastPathError> {
        for directory in [self.current().join("maps"), self.current().join("links")] {
            fs::create_dir_all(&directory).map_err(at("cannot create", &directory))?;
        }
        Ok(())
    }

    /// Where a map of the current generation is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.current().join("maps").join(name)
    }

    /// Where a link of the current generation is pinned.
    pub fn link(&self, ifindex: u32, role: Role, pin: Pin) -> PathBuf {
        self.current().join("links").join(pin.name(ifindex, role))
    }

    /// Where a link may be pinned: first the current generation, then older ones.
    pub fn candidates(&self, ifindex: u32, role: Role, pin: Pin) -> Result<Vec<PathBuf>, FastPathError> {
        let name = pin.name(ifindex, role);
        let generations = self.generations()?.into_iter();
        Ok(generations.map(|dir| dir.join("links").join(&name)).filter(|p| p.exists()).collect())
    }

    /// Every interface for which something is pinned in this role, in any generation.
    pub fn interfaces(&self, role: Role) -> Result<BTreeSet<u32>, FastPathError> {
        let mut found = BTreeSet::new();
        for generation in self.generations()? {
            let names = list(&generation.join("links"))?;
            let parsed = names.iter().filter_map(|name| Pin::parse(name));
            found.extend(parsed.filter(|(_, of, _)| *of == role).map(|(ifindex, ..)| ifindex));
        }
        Ok(found)
    }

    /// Sets the current generation aside, because its maps do not fit.
    pub fn retire(&self) -> Result<(), FastPathError> {
        let current = self.current();
        let free =
            (0..).map(|n| self.root.join(format!("{}-retired-{n}", current_name()))).find(|p| !p.exists());
        if let Some(free) = free {
            fs::rename(&current, &free).map_err(at("cannot set aside", &current))?;
        }
        Ok(())
    }

    /// Removes the older generations. What is still attached by them is detached.
    pub fn remove_older(&self) -> Result<(), FastPathError> {
        let current = self.current();
        self.generations()?.iter().filter(|dir| **dir != current).try_for_each(|dir| remove_tree(dir))
    }

    /// Removes all generations, and the pin directory itself unless it holds something else.
    pub fn remove_all(self) -> Result<(), FastPathError> {
        self.generations()?.iter().try_for_each(|dir| remove_tree(dir))?;
        if list(&self.root)?.is_empty() && self.root != Path::new(BPFFS) {
            remove(&self.root)
        } else {
            Ok(())
        }
    }

    /// The current generation and the older ones, in this order.
    fn generations(&self) -> Result<Vec<PathBuf>, FastPathError> {
        let current = self.current();
        let mut generations = vec![current.clone()];
        let names = list(&self.root)?.into_iter().filter(|name| is_generation(name));
        generations.extend(names.map(|name| self.root.join(name)).filter(|dir| *dir != current));
        Ok(generations)
    }

    fn current(&self) -> PathBuf {
        self.root.join(current_name())
    }
}

/// Removes a pin or a mark; nothing there is fine.
pub fn remove(path: &Path) -> Result<(), FastPathError> {
    let result = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("cannot remove", path)(error)),
        _ => Ok(()),
    }
}

/// Leaves a mark: an empty directory, because a BPF file system has no plain files.
pub fn mark(path: &Path) -> Result<(), FastPathError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(at("cannot create", path)(error)),
        _ => Ok(()),
    }
}

/// Adds what was tried on which path to an error.
pub fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FastPathError {
    let path = path.to_owned();
    move |source| match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            FastPathError::Privileges { what: format!("{what} `{}`", path.display()), source }
        }
        _ => FastPathError::Pin { what, path, source },
    }
}

fn current_name() -> String {
    format!("v{}", abi::VERSION)
}

/// `v1` or `v1-retired-0`: what else is in the directory is not ours, even if somebody gave us the whole file system.
fn is_generation(name: &str) -> bool {
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    name.strip_prefix('v').is_some_and(|rest| match rest.split_once("-retired-") {
        Some((version, number)) => is_number(version) && is_number(number),
        None => is_number(rest),
    })
}

fn list(directory: &Path) -> Result<Vec<String>, FastPathError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(at("cannot list", directory))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(at("cannot list", directory))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// `remove_dir_all` of the standard library opens files, which a BPF file system refuses.
fn remove_tree(path: &Path) -> Result<(), FastPathError> {
    if path.is_dir() {
        for name in list(path)? {
            remove_tree(&path.join(name))?;
        }
    }
    remove(path)
}

/// Checks that `root` is or will be on a BPF file system, and mounts the usual one if it is not.
fn ensure_bpffs(root: &Path) -> Result<(), FastPathError> {
    if on_bpffs(root) {
        return Ok(());
    }
    let missing = |source| FastPathError::NoBpffs { path: root.to_owned(), source };
    if !root.starts_with(BPFFS) {
        return Err(missing(None));
    }
    nix::mount::mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
        .map_err(|errno| missing(Some(errno.into())))?;
    if fs::read_link("/proc/self/ns/mnt").ok() == fs::read_link("/proc/1/ns/mnt").ok() {
        tracing::info!("mounted the BPF file system on {BPFFS}");
    } else {
        tracing::warn!(
            "mounted the BPF file system on {BPFFS} of this mount namespace: what is pinned goes when the namespace ends"
        );
    }
    if on_bpffs(root) { Ok(()) } else { Err(missing(None)) }
}

/// Whether the nearest directory that exists is on a BPF file system.
fn on_bpffs(path: &Path) -> bool {
    path.ancestors()
        .find_map(|ancestor| statfs(ancestor).ok())
        .is_some_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_back_and_forth() {
        for pin in Pin::ALL {
            for role in [Role::Tap, Role::Uplink] {
                assert_eq!(Pin::parse(&pin.name(7, role)), Some((7, role, pin)));
            }
        }
        for name in ["", "7", "7-", "-xdp", "x-xdp", "7-xdp2", "7-uplink-", "4294967296-xdp"] {
            assert_eq!(Pin::parse(name), None, "{name}");
        }
    }

    #[test]
    fn only_our_directories_are_generations() {
        assert!(["v0", "v12", "v1-retired-0"].into_iter().all(is_generation));
        assert!(!["v", "vm1", "v1-retired-", "v1-old", "tc", "1"].into_iter().any(is_generation));
    }

    #[test]
    fn elsewhere_is_no_bpffs() {
        let directory = tempfile::tempdir().unwrap();
        let error = Pins::open(&directory.path().join("pin")).unwrap_err();
        assert!(matches!(error, FastPathError::NoBpffs { source: None, .. }), "{error}");
        assert!(error.to_string().contains("mount -t bpf bpf /sys/fs/bpf"));
    }
}
