//! A network namespace, TAPs and a pin directory of its own for each fast path test; all gone at its end.
#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a helper of tests may panic")]

use dataplane_ebpf::abi::Rate;
use serde_json::Value;
use serval::apply::fastpath::{FastPath, Settings, TcMode, UplinkMode, embedded};
use serval::plan::{Attached, NetworkSettings};
use serval::resource::{HostAddress, MacAddress};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs `test` as root on a thread in a new network namespace; says why if it cannot.
pub fn in_namespace(name: &str, test: impl FnOnce(&Rig) + Send) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    if !embedded() {
        println!("skipped: no BPF object in this build; `cargo xtask test` makes one");
        return;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a new network namespace");
            // The kernel's own multicast to the TAPs would be counted, too.
            fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
                .expect("a sysctl of the namespace");
            let pin = PathBuf::from(format!("/sys/fs/bpf/serval-test-{}-{name}", std::process::id()));
            test(&Rig { pin });
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// What a test has of its own.
pub struct Rig {
    /// Its pin directory.
    pub pin: PathBuf,
}

impl Drop for Rig {
    fn drop(&mut self) {
        remove_tree(&self.pin);
    }
}

impl Rig {
    /// Settings with room for a few endpoints.
    pub fn settings(&self) -> Settings {
        Settings {
            pin: self.pin.clone(),
            max_endpoints: 8,
            tc: TcMode::Auto,
            xdp: true,
            max_routes: 1024,
            uplink: UplinkMode::Tc,
            policed: false,
            host_is_open: false,
            host_is_judged: false,
            max_flows: 1024,
            flows_per_endpoint: 16,
            answer_rate: Rate::UNLIMITED,
            host_rate: Rate::UNLIMITED,
        }
    }

    /// The directory of what is pinned by programs of this version.
    pub fn generation(&self) -> PathBuf {
        self.pin.join(format!("v{}", dataplane_ebpf::abi::VERSION))
    }

    /// A fast path with these settings.
    pub fn open(&self) -> FastPath {
        FastPath::open(&self.settings()).expect("opens")
    }

    /// What is pinned as links of the current generation.
    pub fn pinned_links(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.generation().join("links"))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Link id and program id of a pinned link.
    pub fn link(&self, name: &str) -> (u64, u64) {
        let path = self.generation().join("links").join(name);
        let link = run_json("bpftool", &["-j", "link", "show", "pinned", path.to_str().unwrap()]);
        (link["id"].as_u64().unwrap(), link["prog_id"].as_u64().unwrap())
    }

    /// Number of entries of a pinned map.
    pub fn entries(&self, map: &str) -> usize {
        let path = self.generation().join("maps").join(map);
        let dump = run_json("bpftool", &["-j", "map", "dump", "pinned", path.to_str().unwrap()]);
        // Entries that vanish while they are dumped, as of a per-device map, carry an error instead of a value.
        dump.as_array().map_or(0, |entries| entries.iter().filter(|e| e["value"]["error"].is_null()).count())
    }
}

/// A TAP as a VMM holds it; the device goes when this is dropped.
pub struct Tap {
    /// The queue.
    pub file: File,
    /// Name of the interface.
    pub name: String,
    /// Its ifindex.
    pub ifindex: u32,
}

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETIFINDEX: libc::c_ulong = 0x4004_54da;

impl Tap {
    /// A TAP that is up.
    pub fn new(name: &str) -> Self {
        Self::with_ifindex(name, 0)
    }

    /// A TAP that is up and has this ifindex; 0 leaves the choice to the kernel.
    pub fn with_ifindex(name: &str, ifindex: u32) -> Self {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .expect("/dev/net/tun");
        if ifindex != 0 {
            let value = ifindex as libc::c_int;
            // SAFETY: the ioctl reads one int.
            assert_eq!(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFINDEX, &raw const value) }, 0);
        }
        // SAFETY: all zero is a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the ioctl reads and writes an ifreq.
        assert_eq!(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) }, 0);
        run("ip", &["link", "set", name, "up"]);
        let ifindex = nix::net::if_::if_nametoindex(name).expect("the TAP is there");
        Self { file, name: name.to_owned(), ifindex }
    }

    /// The VM sends an IPv6 frame that goes nowhere.
    pub fn send(&self) {
        let mut frame = vec![0u8; 14 + 40];
        frame[..6].copy_from_slice(&[0xfe, 0x16, 0x3e, 0, 0, 1]);
        frame[6..12].copy_from_slice(&[2, 2, 2, 2, 2, 2]);
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[14] = 0x60;
        frame[14 + 6] = 59;
        frame[14 + 7] = 64;
        (&self.file).write_all(&frame).expect("the TAP takes a frame");
    }
}

/// An endpoint on `tap` with addresses 2001:db8::`n`:1 and 2, and gateway 2001:db8::1.
pub fn endpoint(tap: &Tap, n: u8) -> Attached {
    let gateway_mac = MacAddress::new([0xfe, 0x16, 0x3e, 0, 0, n]).unwrap();
    let address = |text: String| HostAddress::new(text.parse().unwrap()).unwrap();
    Attached {
        interface: tap.name.parse().unwrap(),
        ifindex: tap.ifindex,
        admin_up: true,
        carrier: true,
        mtu: 1500,
        mac: MacAddress::new([0xfa, 0x16, 0x3e, 0, 0, n]).unwrap(),
        gateway_mac,
        gateway: gateway_mac.link_local(),
        gateways: vec![address("2001:db8::1".to_owned())],
        leased: vec![address(format!("2001:db8::{n:x}:1"))],
        addresses: vec![address(format!("2001:db8::{n:x}:1")), address(format!("2001:db8::{n:x}:2"))],
        network: NetworkSettings::default(),
    }
}

/// A router advertisement to store: the fast path does not look into it.
pub const ADVERTISEMENT: &[u8] = &[0x33; 86];

/// All that was counted on an interface.
pub fn counted(fastpath: &FastPath, ifindex: u32) -> u64 {
    fastpath.counters(ifindex).unwrap().expect("an endpoint").values.iter().sum()
}

/// Id of the XDP program on an interface as `ip` sees it.
pub fn xdp_program(tap: &Tap) -> Option<u64> {
    run_json("ip", &["-j", "-d", "link", "show", &tap.name])[0]["xdp"]["prog"]["id"].as_u64()
}

/// Ids of the tcx programs of an interface, in order.
pub fn tcx_programs(tap: &Tap) -> Vec<u32> {
    use aya::programs::{SchedClassifier, TcAttachType};
    let (_, programs) =
        SchedClassifier::query_tcx(&tap.name, TcAttachType::Ingress).expect("this kernel has tcx");
    programs.iter().map(|program| program.id()).collect()
}

/// Output of a command that must succeed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}{error}");
    text
}

/// Its JSON output.
pub fn run_json(program: &str, arguments: &[&str]) -> Value {
    let text = run(program, arguments);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{program} {arguments:?}: {e}: {text}"))
}

fn remove_tree(path: &Path) {
    if path.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            remove_tree(&entry.path());
        }
        fs::remove_dir(path).unwrap_or_else(|e| eprintln!("{}: {e}", path.display()));
    } else if path.exists() {
        fs::remove_file(path).unwrap_or_else(|e| eprintln!("{}: {e}", path.display()));
    }
}
