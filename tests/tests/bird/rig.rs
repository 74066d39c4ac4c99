//! Hosts on one link, each with a BIRD of its own and TAPs whose routes carry Serval's mark.

use anyhow::{Context, Result, bail, ensure};
use serval::apply::bird::{
    Applied, Bird, BirdError, BirdStatus, PeerStatus, Retired, Settings, leave, retire,
};
use serval::config::Config;
use serval::plan::bird::{self, BirdPlan};
use serval::resource::Resources;
use serval::source;
use serval_tests::netns::Namespace;
use serval_tests::process::{self, Running};
use serval_tests::tap::{Options, Tap};
use serval_tests::wait::{eventually, timed};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long anything may take: BGP connects again after some seconds, and this machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// The link between hosts: a bridge in a namespace of its own.
pub struct Link {
    namespace: Namespace,
}

impl Link {
    pub fn new() -> Result<Self> {
        let namespace = Namespace::new("link")?;
        namespace.ip("link add hub type bridge mcast_snooping 0")?;
        namespace.ip("link set hub up")?;
        Ok(Self { namespace })
    }
}

/// A host with its BIRD.
pub struct Host {
    pub namespace: Namespace,
    pub node: String,
    pub directory: TempDir,
    runtime: Option<Runtime>,
    bird: Option<Bird>,
    taps: Vec<Tap>,
}

impl Host {
    /// A host on `link` with the address `fd00::<number>`.
    pub fn new(link: &Link, number: u16) -> Result<Self> {
        let node = format!("n{number}");
        let namespace = Namespace::new(&node)?;
        // Made from outside: only there have both namespaces a name.
        let mut command = Command::new("ip");
        command.args(["link", "add", &node, "netns", link.namespace.name(), "type", "veth"]);
        command.args(["peer", "name", "up0", "netns", namespace.name()]);
        process::run(command)?;
        link.namespace.ip(&format!("link set {node} master hub up"))?;
        namespace.set_sysctl("net/ipv6/conf/all/forwarding", 1)?;
        namespace.set_sysctl("net/ipv6/conf/all/accept_dad", 0)?;
        namespace.ip("link set up0 up")?;
        namespace.ip(&format!("address add fd00::{number:x}/64 dev up0 nodad"))?;
        let directory = tempfile::Builder::new().prefix("serval-test.bird.").tempdir()?;
        fs::create_dir(directory.path().join("resources"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let host = Self { namespace, node, directory, runtime: Some(runtime), bird: None, taps: Vec::new() };
        Ok(host)
    }

    /// Plugs a VM: its TAP, and the route that `serval` gives it.
    pub fn plug(&mut self, tap: &str, address: &str) -> Result<()> {
        let opened = self.namespace.enter(|| Tap::open(tap, Options::default()))?;
        self.taps.push(opened);
        self.namespace.ip(&format!("link set {tap} up"))?;
        self.route(tap, address, 16)
    }

    pub fn route(&self, tap: &str, address: &str, metric: u32) -> Result<()> {
        self.namespace.ip(&format!("-6 route add {address} dev {tap} proto 83 metric {metric}")).map(drop)
    }

    pub fn unroute(&self, address: &str) -> Result<()> {
        self.namespace.ip(&format!("-6 route del {address} proto 83")).map(drop)
    }

    /// Configuration and resources as the daemon would read them.
    pub fn plan(&self, config: &str, resources: &str) -> Result<(BirdPlan, Settings)> {
        let text = config.replace("$DIR", &self.directory.path().display().to_string());
        let config = Config::parse(Path::new("serval.toml"), text.as_bytes())?;
        let config = config.bird.context("no [bird]")?;
        let resources = self.resources(resources)?;
        let host = bird::Host { node: &self.node, tap_prefix: "tap" };
        let plan = bird::plan(&config, host, &resources);
        ensure!(plan.conflicts.is_empty(), "{:?}", plan.conflicts);
        Ok((plan, Settings::of(&config, self.directory.path())))
    }

    fn resources(&self, text: &str) -> Result<Resources> {
        if text.is_empty() {
            return Ok(Resources::default());
        }
        let file = self.directory.path().join("resources/all.yaml");
        fs::write(&file, text)?;
        let snapshot = source::check(&file);
        ensure!(!snapshot.has_errors(), "{:?}", snapshot.problems);
        Ok(snapshot.resources)
    }

    /// Brings BIRD to a configuration, as the daemon does.
    pub fn apply(&mut self, config: &str, resources: &str) -> Result<Result<Applied, BirdError>> {
        let (plan, settings) = self.plan(config, resources)?;
        self.run(async |bird| {
            let bird = bird.get_or_insert_with(|| Bird::spawn(settings));
            Ok(bird.apply(&plan).await)
        })
    }

    /// As [`Self::apply`], and it must work.
    pub fn bring(&mut self, config: &str, resources: &str) -> Result<Applied> {
        Ok(self.apply(config, resources)??)
    }

    /// The daemon ends; BIRD does not.
    pub fn leave(&mut self) -> Result<()> {
        self.bird = None;
        let runtime = self.runtime.take().context("no runtime")?;
        self.namespace.enter(|| {
            runtime.shutdown_timeout(Duration::from_secs(5));
            Ok(())
        })?;
        self.runtime = Some(tokio::runtime::Builder::new_current_thread().enable_all().build()?);
        Ok(())
    }

    pub fn retire(&mut self) -> Result<Retired> {
        let run = self.directory.path().to_owned();
        self.run(async |bird| {
            *bird = None;
            Ok(retire(&run).await?)
        })
    }

    /// There is no section for BIRD any more.
    pub fn give_up(&mut self) -> Result<Retired> {
        let run = self.directory.path().to_owned();
        self.run(async |bird| {
            *bird = None;
            Ok(leave(&run).await?)
        })
    }

    pub fn status(&mut self) -> Result<BirdStatus> {
        self.run(async |bird| Ok(bird.as_ref().context("no BIRD was asked for")?.status().await))
    }

    /// Waits until the status satisfies `wanted`, while the one who looks after BIRD works; says how long that took.
    pub fn wait(
        &mut self,
        what: &str,
        wanted: impl Fn(&BirdStatus) -> bool + Send + Sync,
    ) -> Result<Duration> {
        let node = self.node.clone();
        self.run(async |bird| {
            let bird = bird.as_ref().context("no BIRD was asked for")?;
            let start = std::time::Instant::now();
            loop {
                let status = bird.status().await;
                if wanted(&status) {
                    return Ok(start.elapsed());
                }
                if start.elapsed() > PATIENCE {
                    bail!("{node}: not within {PATIENCE:?}: {what}\n{status:#?}");
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }

    /// Waits until the sessions with these peers are established.
    pub fn wait_peers(&mut self, names: &[&str]) -> Result<Duration> {
        self.wait(&format!("sessions with {names:?}"), |status| {
            names.iter().all(|name| peer(status, name).is_some_and(PeerStatus::is_established))
        })
    }

    /// Waits until the kernel has (or has not) a route of BIRD's to `destination`; its text.
    pub fn wait_route(&self, destination: &str, there: bool) -> Result<(String, Duration)> {
        let what = format!("{}: route to {destination}: {there}", self.node);
        let result = timed(&what, PATIENCE, || {
            let route = self.bird_route(destination)?;
            Ok((route.is_empty() != there).then_some(route))
        });
        result.with_context(|| {
            format!(
                "{}\n{:?}",
                self.namespace.ip("-6 route").unwrap_or_default(),
                self.birdc("show route all")
            )
        })
    }

    /// The kernel's route of BIRD's to `destination`; empty when there is none.
    pub fn bird_route(&self, destination: &str) -> Result<String> {
        self.namespace.ip(&format!("-6 route show exact {destination} proto bird"))
    }

    /// All destinations that BIRD has put into the kernel, sorted.
    pub fn bird_routes(&self) -> Result<Vec<String>> {
        let routes = self.namespace.ip_json("-6 route show proto bird")?;
        let routes = routes.as_array().context("no list")?;
        let mut all: Vec<String> =
            routes.iter().filter_map(|route| route["dst"].as_str()).map(str::to_owned).collect();
        all.sort();
        Ok(all)
    }

    /// Hears every change of IPv6 routes.
    pub fn monitor(&self) -> Result<Running> {
        let mut command = self.namespace.command("ip");
        command.args(["-6", "monitor", "route"]);
        let monitor = Running::start(format!("ip monitor of {}", self.node), command)?;
        eventually("the monitor hears", PATIENCE, || {
            self.namespace.ip("-6 route add blackhole 3fff::/64")?;
            self.namespace.ip("-6 route del blackhole 3fff::/64")?;
            Ok(monitor.log().iter().any(|line| line.contains("3fff::")).then_some(()))
        })?;
        Ok(monitor)
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("bird/bird.ctl")
    }

    pub fn pid(&self) -> Result<String> {
        Ok(fs::read_to_string(self.directory.path().join("bird/bird.pid"))?.trim().to_owned())
    }

    /// Kills BIRD as a crash would, and waits until it is dead.
    pub fn crash(&self) -> Result<()> {
        let pid = self.pid()?;
        self.namespace.run(&format!("kill -9 {pid}"))?;
        eventually("the end of BIRD", PATIENCE, || Ok((!is_alive(&pid)).then_some(())))
    }

    pub fn birdc(&self, command: &str) -> Result<String> {
        self.namespace.run(&format!("birdc -s {} {command}", self.socket().display()))
    }

    /// Runs `work` on the host's runtime, inside its namespace. What works in the background works meanwhile.
    fn run<T: Send>(&mut self, work: impl AsyncFnOnce(&mut Option<Bird>) -> Result<T> + Send) -> Result<T> {
        let Self { namespace, runtime, bird, .. } = self;
        let runtime = runtime.as_ref().context("no runtime")?;
        namespace.enter(|| runtime.block_on(work(bird)))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Ok(pid) = self.pid()
            && let Err(error) = self.namespace.run(&format!("kill -9 {pid}"))
            && !format!("{error:#}").contains("No such process")
        {
            eprintln!("cannot end BIRD of {}: {error:#}", self.node);
        }
    }
}

/// Whether a process runs; one that has ended need not have been waited for.
pub fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// The deletions of routes to VMs among what a monitor has heard.
pub fn deletions(monitor: &Running) -> Vec<String> {
    let log = monitor.log();
    log.into_iter().filter(|line| line.starts_with("Deleted 2001:db8:")).collect()
}

/// The status of one session.
pub fn peer<'a>(status: &'a BirdStatus, name: &str) -> Option<&'a PeerStatus> {
    status.peers.iter().find(|peer| peer.name == name)
}

/// Node resources of hosts `n1` to `n<count>`, as [`Host::new`] numbers them.
pub fn nodes(count: u16) -> String {
    (1..=count).map(|number| node(number, "")).collect()
}

/// The Node resource of one host, with more in `spec.bgp`.
pub fn node(number: u16, more: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{ name: n{number}, labels: {{ name: n{number} }} }}\nspec: {{ bgp: {{ ipv6Address: 'fd00::{number:x}/64'{more} }} }}\n"
    )
}

/// `count` hosts on one link.
pub fn hosts<const COUNT: usize>() -> Result<(Link, [Host; COUNT])> {
    let link = Link::new()?;
    let hosts: Vec<Host> = (1..).take(COUNT).map(|number| Host::new(&link, number)).collect::<Result<_>>()?;
    hosts.try_into().map(|hosts| (link, hosts)).map_err(|_| anyhow::anyhow!("not as many hosts as wanted"))
}

/// Two hosts with this configuration and a VM each, 2001:db8::1 and 2001:db8::2, to which the other has a route.
pub fn meshed(config: &str) -> Result<(Link, [Host; 2])> {
    let (link, [mut n1, mut n2]) = hosts()?;
    n1.plug("tap0", "2001:db8::1")?;
    n2.plug("tap0", "2001:db8::2")?;
    n1.bring(config, &nodes(2))?;
    n2.bring(config, &nodes(2))?;
    n1.wait_route("2001:db8::2", true)?;
    n2.wait_route("2001:db8::1", true)?;
    Ok((link, [n1, n2]))
}
