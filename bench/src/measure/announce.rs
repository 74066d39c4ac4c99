//! From the announcement of many routes by BGP until the kernel's FIB has them, and until the fast path's maps have them;
//! and back. A BIRD of its own announces them to that of a host, which the daemon runs.

use super::usage;
use crate::destinations::FACTOR;
use crate::report::{Metric, Outcome, Round, Series};
use crate::statistics::Better;
use anyhow::{Context, Result, ensure};
use serval_tests::host::Host;
use serval_tests::netns::Namespace;
use serval_tests::process::Running;
use serval_tests::wait::eventually;
use std::fs;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const NAME: &str = "announce";

const METRICS: &[Metric] = &[
    Metric { name: "until the FIB has it", unit: "s", better: Better::Less },
    Metric { name: "until the maps have it", unit: "s", better: Better::Less },
    Metric { name: "CPU of the daemon", unit: "s", better: Better::Less },
    Metric { name: "memory of the daemon (RSS)", unit: "MiB", better: Better::Less },
];

/// How many routes.
const ROUTES: u32 = 100_000;
const UPLINK: &str = "up0";
/// AS and address of the host, and of who announces.
const HOST: (u32, Ipv6Addr) = (64_512, Ipv6Addr::new(0x2001, 0xdb8, 0xfab, 0, 0, 0, 0, 1));
const PEER: (u32, Ipv6Addr) = (65_000, Ipv6Addr::new(0x2001, 0xdb8, 0xfab, 0, 0, 0, 0, 2));
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether all is there: each look takes a millisecond or two of a CPU.
const PAUSE: Duration = Duration::from_millis(25);

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Vec<Outcome>> {
    let rounds = if quick { 1 } else { 7 };
    let scene = Scene::new()?;
    let mut arms = ["announced", "withdrawn"].map(Series::alone);
    for _ in 0..rounds {
        for (series, there) in arms.iter_mut().zip([true, false]) {
            series.rounds.push(Round::proven(scene.change(there)?));
        }
    }
    let title = format!(
        "{} /128 routes announced by BGP to a host's BIRD, and withdrawn; looked at every {} ms",
        ROUTES,
        PAUSE.as_millis()
    );
    Ok(vec![Outcome { name: NAME.to_owned(), title, metrics: METRICS, arms: arms.into() }])
}

/// A host with its daemon and BIRD, and who announces to it.
struct Scene {
    host: Host,
    peer: Namespace,
    directory: TempDir,
    _bird: Running,
}

impl Scene {
    fn new() -> Result<Self> {
        let mut host = Host::new("bench-host")?;
        let peer = Namespace::new("bench-peer")?;
        let inside = &host.namespace;
        inside.ip(&format!("link add {UPLINK} type veth peer name {UPLINK} netns {}", peer.path()))?;
        for (namespace, (_, address)) in [(host.namespace.as_ref(), HOST), (&peer, PEER)] {
            namespace.ip(&format!("link set {UPLINK} up"))?;
            namespace.ip(&format!("address add {address}/64 dev {UPLINK} nodad"))?;
        }
        let directory = TempDir::with_prefix("serval-bench.")?;
        fs::write(directory.path().join("bird.conf"), announcer())?;
        let mut command = peer.command("bird");
        command.arg("-f").arg("-c").arg(directory.path().join("bird.conf"));
        command.arg("-s").arg(socket(&directory)).arg("-P").arg(directory.path().join("bird.pid"));
        let bird = Running::start("the BIRD that announces", command)?;

        host.keep_quiet();
        host.configure(&format!(
            "[bird]\nas = {}\n[[bird.peers]]\nname = \"peer\"\naddress = \"{}\"\nas = {}\n",
            HOST.0, PEER.1, PEER.0
        ))?;
        host.start()?;
        let scene = Self { host, peer, directory, _bird: bird };
        eventually("a session with the BIRD that announces", PATIENCE, || {
            let status = scene.host.status()?.0;
            let state = status.pointer("/bird/peers/0/state").and_then(|state| state.as_str());
            Ok((state == Some("established")).then_some(()))
        })?;
        Ok(scene)
    }

    /// Has all routes announced or withdrawn; a value for each metric.
    fn change(&self, there: bool) -> Result<Vec<f64>> {
        let (fib, maps, cpu) = (self.fib()?, self.host.status()?.mirrored(), usage::cpu(&self.host)?);
        let count = u64::from(ROUTES);
        let reached = |before: u64, now: u64| match there {
            true => now >= before + count,
            false => now + count <= before,
        };
        let start = Instant::now();
        let verb = if there { "enable" } else { "disable" };
        self.peer.run(&format!("birdc -s {} {verb} vms", socket(&self.directory).display()))?;
        let (mut in_fib, mut in_maps) = (None, None);
        while in_fib.is_none() || in_maps.is_none() {
            ensure!(
                start.elapsed() < PATIENCE,
                "not all routes were {verb}d within {PATIENCE:?}: {} of the kernel's, {}",
                self.fib()?,
                self.host.status()?.0
            );
            sleep(PAUSE);
            if in_fib.is_none() && reached(fib, self.fib()?) {
                in_fib = Some(start.elapsed());
            }
            if in_maps.is_none() && reached(maps, self.host.status()?.mirrored()) {
                in_maps = Some(start.elapsed());
            }
        }
        self.prove(if there { ROUTES as usize } else { 0 })?;
        let seconds = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64();
        Ok(vec![seconds(in_fib), seconds(in_maps), usage::cpu(&self.host)? - cpu, usage::memory(&self.host)?])
    }

    /// The kernel has exactly as many routes of BIRD, and the daemon found nothing to repair.
    fn prove(&self, count: usize) -> Result<()> {
        let routes = self.host.namespace.ip("-6 route show proto bird")?.lines().count();
        ensure!(routes == count, "the kernel has {routes} routes of BIRD instead of {count}");
        let status = self.host.status()?.0;
        let drift = status.pointer("/routes/drift").and_then(|drift| drift.as_u64());
        ensure!(drift == Some(0), "the maps were not what the kernel's tables say: {status}");
        Ok(())
    }

    /// Routes that the kernel has, of any kind.
    fn fib(&self) -> Result<u64> {
        let text =
            self.host.namespace.enter(|| Ok(fs::read_to_string("/proc/thread-self/net/rt6_stats")?))?;
        // fib_nodes, fib_route_nodes, fib_rt_alloc, fib_rt_entries ...
        let entries = text.split_whitespace().nth(3).context("rt6_stats is too short")?;
        u64::from_str_radix(entries, 16).with_context(|| format!("rt6_stats: {text}"))
    }
}

/// One of the addresses, which are spread over a /64.
fn address(number: u32) -> Ipv6Addr {
    const PREFIX: u128 = 0x2001_0db8_005e_0001 << 64;
    Ipv6Addr::from(PREFIX | u128::from(number.wrapping_mul(FACTOR)))
}

fn socket(directory: &TempDir) -> PathBuf {
    directory.path().join("bird.ctl")
}

/// The configuration of the BIRD that announces: all routes in a protocol that is still disabled.
fn announcer() -> String {
    let ((host_as, host), (peer_as, peer)) = (HOST, PEER);
    let mut text = format!(
        "log stderr all;\nrouter id 192.0.2.2;\nprotocol device {{}}\n\
         protocol bgp host {{\n  local {peer} as {peer_as};\n  neighbor {host} as {host_as};\n  \
         connect retry time 1;\n  connect delay time 1;\n  \
         ipv6 {{ import none; export all; next hop self; }};\n}}\n\
         protocol static vms {{\n  disabled;\n  ipv6;\n"
    );
    for number in 0..ROUTES {
        text += &format!("  route {}/128 unreachable;\n", address(number));
    }
    text + "}\n"
}
