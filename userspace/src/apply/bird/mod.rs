//! BIRD: brings it to the plan, keeps it running, and tells what it says.
//!
//! Touches files below `paths.run`/bird, BIRD's control socket, and processes: with [`Mode::Start`] a BIRD is started as
//! a child, in the network namespace of the thread that polls the task, and lives on when we end; the next run finds it
//! by its control socket and takes it over as it is. With [`Mode::Attach`] the system's BIRD is configured, never
//! started and never ended.
//!
//! A configuration is checked by BIRD, loaded with an undo timer, looked at, and confirmed. One that is refused changes
//! nothing. Whether a running BIRD has the wanted configuration is seen by the revision in the description of a
//! protocol, and the text that was loaded as that revision: so it also shows when somebody else has reconfigured it, and
//! a restart of ours reconfigures nothing.
//!
//! Whether its routes are in the kernel, and no others under its name, and whether it has learnt of the VMs here, is watched
//! ([`drift`]).
//!
//! A BIRD that dies is started again, at once the first time, with graceful restart recovery: its routes stay in the
//! kernel (`persist`), and neighbours keep ours.

mod control;
mod difference;
mod drift;
mod error;
mod fib;
mod files;
mod inputs;
mod load;
mod news;
mod process;
mod program;
mod rehearse;
mod reply;
mod report;
mod retire;
mod signatures;
mod status;
mod supervisor;
mod table;

pub use control::ControlError;
pub use error::BirdError;
pub use rehearse::rehearse;
pub use retire::{Retired, leave, retire};
pub use status::{BirdState, BirdStatus, KernelStatus, PeerStatus};

use crate::config::BirdConfig;
use crate::plan::bird::BirdPlan;
use control::Connection;
use drift::Watch;
use files::Files;
use report::Report;
use std::path::{Path, PathBuf};
use std::time::Duration;
use supervisor::{Request, Supervisor};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// How long a status may wait for BIRD.
const STATUS: Duration = Duration::from_secs(3);

/// Which BIRD it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One of our own.
    Start {
        /// The program; `None`: the first suitable one.
        executable: Option<PathBuf>,
    },
    /// The one that the system runs.
    Attach {
        /// Its control socket.
        socket: PathBuf,
    },
}

/// Where BIRD and its files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which BIRD.
    pub mode: Mode,
    /// `paths.run`.
    pub run: PathBuf,
}

impl Settings {
    /// As the configuration has it.
    pub fn of(config: &BirdConfig, run: &Path) -> Self {
        let mode = if config.start {
            Mode::Start { executable: config.executable.clone() }
        } else {
            Mode::Attach { socket: config.control_socket.clone() }
        };
        Self { mode, run: run.to_owned() }
    }

    fn socket(&self) -> PathBuf {
        match &self.mode {
            Mode::Start { .. } => Files::of(&self.run).socket(),
            Mode::Attach { socket } => socket.clone(),
        }
    }
}

/// What bringing BIRD to the plan took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Nothing: it runs what is wanted.
    Unchanged,
    /// It has been reconfigured.
    Loaded,
    /// It has been started.
    Started,
}

/// The one who looks after BIRD, in a task of its own. Clones speak to the same one; it ends with the last of them, and
/// BIRD does not.
#[derive(Clone, Debug)]
pub struct Bird {
    socket: PathBuf,
    requests: mpsc::Sender<Request>,
    report: watch::Receiver<Report>,
}

impl Bird {
    /// Begins to look after BIRD, within a tokio runtime. Nothing is done before the first plan.
    pub fn spawn(settings: Settings) -> Self {
        let socket = settings.socket();
        let (requests, incoming) = mpsc::channel(8);
        let (publish, report) = watch::channel(Report::default());
        let watch = Watch::new(socket.clone(), publish.clone());
        let signatures = signatures::watch(publish.clone());
        let supervisor = Supervisor::new(settings, publish);
        tokio::spawn(async move {
            tokio::select! {
                () = supervisor.run(incoming) => {}
                () = watch.run() => {}
                () = signatures => {}
            }
        });
        Self { socket, requests, report }
    }

    /// Brings BIRD to `plan` and keeps it there. An error is also in the status, and what failed is tried again: whoever
    /// does not care for the outcome need not wait for it.
    pub async fn apply(&self, plan: &BirdPlan) -> Result<Applied, BirdError> {
        let (answer, outcome) = oneshot::channel();
        let request = Request { plan: Box::new(plan.clone()), answer };
        self.requests.send(request).await.map_err(|_| BirdError::Abandoned)?;
        outcome.await.map_err(|_| BirdError::Abandoned)?
    }

    /// What BIRD and the one who looks after it say at this moment.
    pub async fn status(&self) -> BirdStatus {
        let seen = timeout(STATUS, look(&self.socket)).await.unwrap_or(Err(ControlError::Silent));
        self.report.borrow().status(seen)
    }
}

/// BIRD as it is.
struct Seen {
    version: String,
    daemon: table::Daemon,
    protocols: Vec<table::Protocol>,
}

async fn look(socket: &Path) -> Result<Seen, ControlError> {
    let mut connection = Connection::open(socket).await?;
    connection.restrict().await?;
    Ok(Seen {
        version: connection.version().to_owned(),
        daemon: connection.daemon().await?,
        protocols: connection.protocols().await?,
    })
}
