//! A host: a namespace with directories of its own in which a real `serval run` works.

mod bird;
mod documents;
mod inventory;
mod status;

pub use bird::{bgp_event, session};
pub use documents::{Endpoint, Subnet, policy};
pub use inventory::Inventory;
pub use status::{EndpointStatus, RouteReport, Status, UplinkStatus};

use crate::leftovers;
use crate::netns::Namespace;
use crate::process::Running;
use crate::wait::timed;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// How long anything may take that the contract wants within 100 ms: this machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long the daemon may take to start: attaching tcx takes 26 ms a hook.
const START: Duration = Duration::from_secs(30);

/// A host with its daemon, if it runs.
#[derive(Debug)]
pub struct Host {
    /// The host's inside.
    pub namespace: Arc<Namespace>,
    node: String,
    directory: TempDir,
    /// What the daemon is started by, if not by itself.
    wrapper: Vec<String>,
    daemon: Option<Running>,
    log: Vec<String>,
    tells: bool,
    policed: bool,
}

impl Host {
    /// Makes a host that has no daemon yet, and on which everything passes that policy would decide about.
    pub fn new(label: &str) -> Result<Self> {
        Self::make(label, false)
    }

    /// Makes a host that has no daemon yet, and on which policy counts.
    pub fn policed(label: &str) -> Result<Self> {
        Self::make(label, true)
    }

    fn make(label: &str, policed: bool) -> Result<Self> {
        let host = Self {
            namespace: Arc::new(Namespace::new(label)?),
            node: format!("{label}.test"),
            directory: leftovers::directory(label)?,
            wrapper: Vec::new(),
            daemon: None,
            log: Vec::new(),
            tells: true,
            policed,
        };
        fs::create_dir(host.resources())?;
        host.configure("")?;
        Ok(host)
    }

    /// Makes a host and starts its daemon.
    pub fn started(label: &str) -> Result<Self> {
        let mut host = Self::new(label)?;
        host.start()?;
        Ok(host)
    }

    /// Starts the daemon by another program from now on: its name and arguments.
    pub fn wrap(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
    }

    /// Keeps the daemon's log to itself when the host is dropped; by default it is printed, for tests that failed.
    pub fn keep_quiet(&mut self) {
        self.tells = false;
    }

    /// Its node name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The watched directory.
    pub fn resources(&self) -> PathBuf {
        self.directory.path().join("resources")
    }

    /// The directory of pins, on a bpffs that only this host sees.
    pub fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf").join("serval")
    }

    /// Writes the host configuration: what every host has, and `more` TOML in front of its tables.
    pub fn configure(&self, more: &str) -> Result<()> {
        let policy = if self.policed { "" } else { "[policy]\nenforce = false\n" };
        let text = format!(
            "node = \"{}\"\n{more}\n{policy}[resources]\ndirectory = \"{}\"\n[paths]\nrun = \"{}\"\npin = \"{}\"\n",
            self.node,
            self.resources().display(),
            self.directory.path().join("run").display(),
            self.pins().display(),
        );
        fs::write(self.configuration(), text).context("cannot write the configuration")
    }

    /// The configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.directory.path().join("serval.toml")
    }

    /// Writes a file into the watched directory in one step, as a careful writer does.
    pub fn put(&self, file: &str, text: impl AsRef<[u8]>) -> Result<()> {
        let draft = self.directory.path().join("draft");
        fs::write(&draft, text)?;
        fs::rename(&draft, self.resources().join(file)).with_context(|| format!("cannot put {file}"))
    }

    /// Removes a file from the watched directory.
    pub fn remove(&self, file: &str) -> Result<()> {
        fs::remove_file(self.resources().join(file)).with_context(|| format!("cannot remove {file}"))
    }

    /// Writes `NAME.yaml` with a WorkloadEndpoint of this node.
    pub fn put_endpoint(&self, endpoint: &Endpoint) -> Result<()> {
        self.put(&format!("{}.yaml", endpoint.name), endpoint.document(&self.node))
    }

    /// Removes `NAME.yaml`.
    pub fn remove_endpoint(&self, name: &str) -> Result<()> {
        self.remove(&format!("{name}.yaml"))
    }

    /// Starts the daemon without waiting for it.
    pub fn launch(&mut self) -> Result<()> {
        if self.daemon.is_some() {
            bail!("the daemon of {} already runs", self.node);
        }
        let daemon = program()?.into_os_string();
        let mut words = self.wrapper.iter().map(OsString::from).chain([daemon]);
        let mut command = self.namespace.command(words.next().context("no program")?);
        command.args(words).arg("run").arg("--config").arg(self.configuration());
        self.daemon = Some(Running::start(format!("serval run on {}", self.node), command)?);
        Ok(())
    }

    /// Starts the daemon and waits until it is ready; says how long that took.
    pub fn start(&mut self) -> Result<Duration> {
        self.launch()?;
        self.wait_ready()
    }

    /// Waits until the launched daemon is ready; says how long that took.
    pub fn wait_ready(&mut self) -> Result<Duration> {
        let what = format!("the daemon of {} ready", self.node);
        let ready = timed(&what, START, || {
            let daemon = self.daemon.as_mut().context("the daemon was not launched")?;
            if !daemon.is_alive()? {
                bail!("the daemon ended");
            }
            Ok(self.try_status()?.filter(Status::ready).map(drop))
        });
        Ok(ready.with_context(|| self.log().join("\n"))?.1)
    }

    /// Waits for the daemon's end by itself.
    pub fn wait_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let status = self.daemon_mut()?.wait(limit);
        self.let_go();
        status
    }

    /// Stops the daemon as an administrator does (SIGTERM).
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let status = self.daemon_mut()?.terminate(PATIENCE);
        self.let_go();
        status
    }

    /// Kills the daemon (SIGKILL).
    pub fn kill(&mut self) -> Result<()> {
        self.daemon_mut()?.kill()?;
        self.let_go();
        Ok(())
    }

    /// Process id of the daemon, or of the program it is started by.
    pub fn pid(&self) -> Result<u32> {
        let daemon = self.daemon.as_ref();
        Ok(daemon.with_context(|| format!("the daemon of {} does not run", self.node))?.pid())
    }

    /// Sends the daemon a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.daemon_mut()?.signal(signal)
    }

    /// Runs `serval` with the host's configuration and returns whatever comes of it.
    pub fn serval(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.namespace.command(program()?);
        command.args(arguments).arg("--config").arg(self.configuration());
        command.output().with_context(|| format!("cannot run serval {}", arguments.join(" ")))
    }

    /// Starts a verb of `serval` that goes on by itself, with the host's configuration.
    pub fn start_verb(&self, arguments: &[&str]) -> Result<Running> {
        let mut command = self.namespace.command(program()?);
        command.args(arguments).arg("--config").arg(self.configuration());
        Running::start(format!("serval {} on {}", arguments.join(" "), self.node), command)
    }

    /// `serval status --json`.
    pub fn status(&self) -> Result<Status> {
        self.try_status()?.with_context(|| format!("no daemon answers on {}", self.node))
    }

    /// What `serval routes --json` says of a destination, as it is written there; `None`: nothing.
    pub fn route(&self, destination: &str) -> Result<Option<RouteReport>> {
        let output = self.serval(&["routes", "--json"])?;
        RouteReport::find(&output.stdout, destination)
    }

    /// The status of one endpoint.
    pub fn endpoint(&self, name: &str) -> Result<EndpointStatus> {
        let status = self.status()?;
        status.endpoint(name).with_context(|| format!("status has no endpoint {name}: {status:?}"))
    }

    /// Waits until `status` satisfies `wanted`; says how long that took.
    pub fn wait_status(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Result<Duration> {
        let waited = timed(what, PATIENCE, || Ok(self.try_status()?.filter(&wanted).map(drop)));
        Ok(waited.with_context(|| format!("{:?}\n{}", self.try_status(), self.log().join("\n")))?.1)
    }

    /// Waits until an endpoint is in `state`; says how long that took.
    pub fn wait_state(&self, name: &str, state: &str) -> Result<Duration> {
        self.wait_status(&format!("{name} {state}"), |status| {
            status.endpoint(name).is_some_and(|endpoint| endpoint.state() == state)
        })
    }

    /// Everything daemons of this host have said so far.
    pub fn log(&self) -> Vec<String> {
        let current = self.daemon.as_ref().map(Running::log).unwrap_or_default();
        [self.log.clone(), current].concat()
    }

    /// `None` when no daemon answers.
    fn try_status(&self) -> Result<Option<Status>> {
        let output = self.serval(&["status", "--json"])?;
        if output.stdout.is_empty() {
            return Ok(None);
        }
        Status::parse(&output.stdout).map(Some)
    }

    fn daemon_mut(&mut self) -> Result<&mut Running> {
        self.daemon.as_mut().with_context(|| format!("the daemon of {} does not run", self.node))
    }

    /// Forgets a daemon that has ended, but not what it said.
    fn let_go(&mut self) {
        self.log = self.log();
        self.daemon = None;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.tells {
            for line in self.log() {
                println!("{}: {line}", self.node);
            }
        }
    }
}

/// Waits until `probe`, a look at the host, holds; says how long that took.
pub fn wait(what: &str, mut probe: impl FnMut() -> Result<bool>) -> Result<Duration> {
    Ok(timed(what, PATIENCE, || Ok(probe()?.then_some(())))?.1)
}

/// The daemon under test: `SERVAL_BIN`, else the release build of this workspace.
pub fn program() -> Result<PathBuf> {
    let path =
        std::env::var_os("SERVAL_BIN").map_or_else(|| crate::target().join("release/serval"), PathBuf::from);
    path.canonicalize()
        .with_context(|| format!("no {}: run `cargo xtask build`, or set SERVAL_BIN", path.display()))
}
