//! Network namespaces that are gone when their value is dropped.
//!
//! Each comes with a mount namespace in which /sys shows its own interfaces, /sys/fs/bpf is a bpffs of its own, and
//! what DHCP clients and daemons write to (/etc, /run, /var/lib/dhcp*) is a throw-away copy. The network namespace is
//! bound under /run/netns, so `ip netns exec NAME …` works for a look from outside.

use crate::leftovers;
use crate::process;
use crate::wait::eventually;
use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Seek, Write};
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const NONE: Option<&str> = None;

/// Where iproute2 looks for named namespaces.
const DIRECTORY: &str = "/run/netns";

/// A network namespace with a mount namespace that fits it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handles: Arc<Handles>,
}

#[derive(Debug)]
struct Handles {
    network: File,
    mounts: File,
}

impl Namespace {
    /// Makes an empty namespace with `lo` up; `label` is a part of its name.
    pub fn new(label: &str) -> Result<Self> {
        let name = leftovers::name(label);
        let handles = on_thread(|| make(&name)).with_context(|| format!("cannot make namespace {name}"))?;
        let namespace = Self { name, handles: Arc::new(handles) };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path to it that works in any mount namespace, as `ip link … netns PATH` takes it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.handles.network.as_raw_fd())
    }

    /// Runs `work` on a thread inside the namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread(|| {
            // A thread that shares its root and working directory with others may not change its mounts.
            unshare(CloneFlags::CLONE_FS)?;
            self.handles.join()?;
            work()
        })
    }

    /// A command that will run inside the namespace. Its working directory is `/`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let handles = Arc::clone(&self.handles);
        // SAFETY: setns is a plain system call, and the descriptors live as long as the command.
        unsafe { command.pre_exec(move || Ok(handles.join()?)) };
        command
    }

    /// Runs a shell-like line (split at spaces) to its end; an error has all it said.
    pub fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split_ascii_whitespace();
        let mut command = self.command(words.next().context("an empty command line")?);
        command.args(words);
        process::run(command).with_context(|| format!("`{line}` in {}", self.name))
    }

    /// Runs `ip` with the words of `line`.
    pub fn ip(&self, line: &str) -> Result<String> {
        self.run(&format!("ip {line}"))
    }

    /// Runs every line of `lines` as words of `ip`, in one process.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        let mut input = tempfile::tempfile()?;
        input.write_all(lines.as_bytes())?;
        input.rewind()?;
        let mut command = self.command("ip");
        command.args(["-6", "-batch", "-"]).stdin(input);
        process::run(command).map(drop).with_context(|| format!("`ip -batch` in {}", self.name))
    }

    /// Runs `ip -json` with the words of `line`.
    pub fn ip_json(&self, line: &str) -> Result<serde_json::Value> {
        let text = self.ip(&format!("-json {line}"))?;
        // iproute2 prints nothing at all for some empty lists.
        if text.trim().is_empty() {
            return Ok(serde_json::Value::Array(Vec::new()));
        }
        serde_json::from_str(&text).with_context(|| format!("`ip -json {line}` printed {text:?}"))
    }

    /// Adds a /128 to an interface and returns when packets to it arrive: the kernel adds its route a moment later.
    pub fn add_address(&self, interface: &str, address: Ipv6Addr) -> Result<()> {
        self.ip(&format!("address add {address}/128 dev {interface} nodad"))?;
        eventually(&format!("the local route of {address}"), Duration::from_secs(5), || {
            let routes = self.ip(&format!("-6 route show table local {address}"))?;
            Ok((!routes.is_empty()).then_some(()))
        })
    }

    /// Writes a sysctl, named like `net/ipv6/conf/all/forwarding`.
    pub fn set_sysctl(&self, name: &str, value: impl ToString) -> Result<()> {
        let value = value.to_string();
        self.enter(|| {
            fs::write(Path::new("/proc/sys").join(name), &value)
                .with_context(|| format!("sysctl {name}={value}"))
        })
    }

    /// Reads a sysctl.
    pub fn sysctl(&self, name: &str) -> Result<String> {
        self.enter(|| {
            let text = fs::read_to_string(Path::new("/proc/sys").join(name));
            Ok(text.with_context(|| format!("sysctl {name}"))?.trim_end().to_owned())
        })
    }

    /// IPv6 packets that the kernel itself has forwarded, bypassed by BPF that redirects (`Ip6OutForwDatagrams`).
    pub fn kernel_forwarded(&self) -> Result<u64> {
        self.ipv6_counter("Ip6OutForwDatagrams")
    }

    /// A counter of the kernel's IPv6, by its name in `/proc/net/snmp6`.
    pub fn ipv6_counter(&self, name: &str) -> Result<u64> {
        self.enter(|| {
            let counters = fs::read_to_string("/proc/thread-self/net/snmp6")?;
            let line = counters.lines().find_map(|line| line.strip_prefix(name));
            line.with_context(|| format!("no {name}"))?
                .trim()
                .parse()
                .with_context(|| format!("{name} is no number"))
        })
    }

    /// The ifindex of an interface, if it is there.
    pub fn ifindex(&self, interface: &str) -> Result<Option<u32>> {
        self.enter(|| match nix::net::if_::if_nametoindex(interface) {
            Ok(index) => Ok(Some(index)),
            Err(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error.into()),
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.name) {
            eprintln!("cannot remove namespace {}: {error:#}", self.name);
        }
    }
}

impl Handles {
    /// Moves the calling thread, which must share its root with no other, into the namespaces.
    fn join(&self) -> nix::Result<()> {
        setns(&self.network, CloneFlags::CLONE_NEWNET)?;
        setns(&self.mounts, CloneFlags::CLONE_NEWNS)
    }
}

/// Makes the namespaces on the calling thread, which is of no use for anything else afterwards.
fn make(name: &str) -> Result<Handles> {
    let path = path(name);
    unshare(CloneFlags::CLONE_NEWNET).context("unshare the network")?;
    fs::create_dir_all(DIRECTORY)?;
    File::create_new(&path)?;
    let network = "/proc/thread-self/ns/net";
    if let Err(error) = mount(Some(network), &path, NONE, MsFlags::MS_BIND, NONE) {
        fs::remove_file(&path)?;
        return Err(error).with_context(|| format!("bind {network} to {}", path.display()));
    }
    let made = isolate_mounts().and_then(|()| {
        Ok(Handles { network: File::open(network)?, mounts: File::open("/proc/thread-self/ns/mnt")? })
    });
    if made.is_err() {
        remove(name)?;
    }
    made
}

/// Gives the calling thread, already in its network namespace, the mounts that fit it.
fn isolate_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare the mounts")?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE).context("detach mount propagation")?;
    // Copies of other namespaces' handles would keep them alive as long as this one.
    for name in names()? {
        match umount2(&path(&name), MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => return Err(error).with_context(|| format!("let go of {name}")),
        }
    }
    mount_new("tmpfs", "/run", "mode=755")?;
    fs::create_dir("/run/etc")?;
    fs::create_dir("/run/etc.work")?;
    mount_new("overlay", "/etc", "lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc.work")?;
    for state in ["/var/lib/dhcp", "/var/lib/dhcpcd"] {
        if Path::new(state).is_dir() {
            mount_new("tmpfs", state, "mode=755")?;
        }
    }
    mount_new("sysfs", "/sys", "")?;
    mount_new("bpf", "/sys/fs/bpf", "mode=700")
}

fn mount_new(kind: &str, target: &str, options: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(kind), target, Some(kind), flags, Some(options))
        .with_context(|| format!("mount {kind} on {target}"))
}

/// Names of all the rig's namespaces, of whatever process.
pub(crate) fn names() -> Result<Vec<String>> {
    if !Path::new(DIRECTORY).is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(DIRECTORY)? {
        names.extend(entry?.file_name().into_string().ok().filter(|name| leftovers::is_ours(name)));
    }
    Ok(names)
}

/// Ends what still runs in a namespace, daemonised helpers of DHCP clients among it, and takes its name away. Another
/// run that sweeps at the same time may be faster.
pub(crate) fn remove(name: &str) -> Result<()> {
    let path = path(name);
    end_processes(&path)?;
    match umount2(&path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(error) => return Err(error).with_context(|| format!("unmount {}", path.display())),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Kills every process, ourselves excepted, whose network namespace is the one bound to `path`.
fn end_processes(path: &Path) -> Result<()> {
    let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    let Ok(namespace) = identity(path) else { return Ok(()) };
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok().map(Pid::from_raw))
        else {
            continue;
        };
        // A process that has ended meanwhile has no namespace.
        let inside = identity(&entry.path().join("ns/net")).is_ok_and(|of_process| of_process == namespace);
        if inside && pid != Pid::this() {
            match kill(pid, Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).with_context(|| format!("end process {pid}")),
            }
        }
    }
    Ok(())
}

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("namespace".to_owned()).spawn_scoped(scope, work);
        thread
            .map_err(|error| anyhow!("cannot start a thread: {error}"))?
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))
    })
}
