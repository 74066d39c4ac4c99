//! Routes to other hosts: the kernel's FIB, mirrored into the data plane's maps, whoever put it there.
//!
//! | file | what it holds |
//! |---|---|
//! | `prefix`, `event` | prefixes, and what the kernel says, reduced to what forwarding needs |
//! | `message` | rtnetlink messages -> events, pure |
//! | `hops` | sets of next hops -> groups of the map `NEXT_HOPS`, pure |
//! | `fib` | routes -> the maps `HOST_ROUTES` and `ROUTES`, pure |
//! | `reader` | the rtnetlink socket: dumps and notifications |
//! | `netdev` | which devices take frames that XDP redirects |
//! | `worker` | the thread that joins them and writes the maps |
//! | `report` | what it says of itself |

mod event;
mod fib;
mod hops;
mod message;
mod netdev;
mod prefix;
mod reader;
mod report;
mod worker;

pub use report::{
    Forwarder, NextHopDetail, RouteDetail, RoutesQuery, RoutesReport, RoutesState, RoutesStatus, Selection,
};

use crate::apply::fastpath::{FastPathError, NEXT_HOP_GROUPS, RouteMaps};
use crate::resource::InterfaceName;
use fib::Limits;
use hops::Scope;
use nix::sys::eventfd::{EfdFlags, EventFd};
use reader::Reader;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use tokio::sync::{oneshot, watch};
use worker::{Command, Parts, Worker};

/// What the host configuration says about routes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most routes at a time: the size of the maps.
    pub max_routes: u32,
    /// Routes by other interfaces are the kernel's; empty: none are for that.
    pub uplinks: Vec<InterfaceName>,
    /// Interfaces whose names begin so are TAPs.
    pub tap_prefix: String,
    /// How much the kernel queues for us, in bytes.
    pub receive_buffer: usize,
}

impl Settings {
    /// Enough for some 50,000 routes that come while nobody reads.
    pub const RECEIVE_BUFFER: usize = 64 << 20;
}

/// Why the FIB is not mirrored.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// No socket, thread or the like.
    #[error("cannot follow the kernel's routes: {0}")]
    System(#[from] io::Error),
    /// The maps cannot be read.
    #[error(transparent)]
    Maps(#[from] FastPathError),
}

/// The mirror, at work in a thread of its own until this is dropped. What is in the maps then stays there.
pub struct Mirror {
    commands: mpsc::Sender<Command>,
    bell: Arc<EventFd>,
    status: Arc<Mutex<RoutesStatus>>,
    thread: Option<JoinHandle<()>>,
}

impl Mirror {
    /// Begins, in the network namespace of the calling thread. `interfaces` is told which interfaces routes use.
    pub fn start(
        maps: RouteMaps,
        settings: &Settings,
        interfaces: watch::Sender<BTreeSet<u32>>,
    ) -> Result<Self, MirrorError> {
        let (commands, receiver) = mpsc::channel();
        let bell =
            EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(io::Error::from)?;
        let bell = Arc::new(bell);
        let status = Arc::new(Mutex::new(RoutesStatus::default()));
        let worker = Worker::new(Parts {
            maps,
            limits: Limits { routes: settings.max_routes as usize, groups: NEXT_HOP_GROUPS as usize },
            scope: Scope {
                tap_prefix: settings.tap_prefix.clone(),
                uplinks: settings.uplinks.iter().map(ToString::to_string).collect(),
            },
            reader: Reader::open(settings.receive_buffer)?,
            commands: receiver,
            wake: Arc::clone(&bell),
            status: Arc::clone(&status),
            interfaces,
        })?;
        let thread = thread::Builder::new().name("routes".to_owned()).spawn(move || worker.run())?;
        Ok(Self { commands, bell, status, thread: Some(thread) })
    }

    /// XDP may redirect to these uplinks, as far as the map `DEVICES` is concerned.
    pub fn set_devices(&self, devices: BTreeSet<u32>) {
        self.tell(Command::Devices(devices));
    }

    /// Reads everything and repairs what differs, now rather than when it is due.
    pub fn audit(&self) {
        self.tell(Command::Audit);
    }

    /// Routes as a whole.
    pub fn status(&self) -> RoutesStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Routes, when the mirror gets to it; an error when it has ended.
    pub fn report(&self, query: RoutesQuery) -> oneshot::Receiver<RoutesReport> {
        let (sender, receiver) = oneshot::channel();
        self.tell(Command::Report(query, sender));
        receiver
    }

    /// A worker that has ended has said why.
    fn tell(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::debug!("routes are not followed any more");
        } else if let Err(error) = self.bell.write(1) {
            tracing::warn!("the thread that follows routes cannot be woken: {error}");
        }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.tell(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that followed routes has panicked");
        }
    }
}
