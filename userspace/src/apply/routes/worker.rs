//! The thread that mirrors: hears the kernel, tells the state machine, writes the maps.
//!
//! A thread of its own with blocking system calls, since 100,000 routes may arrive at once, and must not keep the daemon
//! from its other work, nor that work keep a failed next hop in the maps.

mod answer;

use super::fib::{Changes, Fib, Limits, Suspension};
use super::hops::Scope;
use super::netdev::Devices;
use super::reader::{Drained, Reader};
use super::report::{RoutesQuery, RoutesReport, RoutesState, RoutesStatus};
use crate::apply::fastpath::{Destination, FastPathError, RouteMaps};
use crate::cause::in_one_line;
use dataplane_ebpf::abi::{self, NextHopGroup};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// Datagrams taken before the maps are written: some 10 ms of work.
const BATCH: usize = 16_384;
/// Time between a read of the tables that missed something and the next, or what one took.
const PAUSE: Duration = Duration::from_millis(100);
/// An answer of the kernel that stops for so long, in milliseconds, has come to a halt.
const STALL: u8 = 200;
/// Time between audits, or this many times what one took.
const AUDIT: Duration = Duration::from_secs(30);
const AUDIT_SHARE: u32 = 100;

/// What the worker is told.
pub enum Command {
    /// XDP may redirect to these, as far as `DEVICES` is concerned.
    Devices(BTreeSet<u32>),
    /// Tell routes.
    Report(RoutesQuery, oneshot::Sender<RoutesReport>),
    /// Look at everything now.
    Audit,
    /// End; what is in the maps stays.
    Stop,
}

/// The thread's state.
pub struct Worker {
    fib: Fib,
    reader: Reader,
    devices: Option<Devices>,
    /// Those in `DEVICES`, and those that take redirected frames.
    listed: BTreeSet<u32>,
    taking: BTreeSet<u32>,
    maps: RouteMaps,
    commands: mpsc::Receiver<Command>,
    wake: Arc<EventFd>,
    status: Arc<Mutex<RoutesStatus>>,
    interfaces: watch::Sender<BTreeSet<u32>>,
    /// The maps are to be compared as a whole.
    comparison: Option<Comparison>,
    /// They have no room for more than the host's own addresses, which policy has to know.
    only_local: bool,
    fault: Option<String>,
    sync: Sync,
    overflows: u64,
    audits: u64,
    drift: u64,
}

/// Why the maps are compared with what they should hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// They are those of an earlier process, or changes could not be written.
    Behind,
    /// Somebody else may have changed them.
    Audit,
}

/// When and why the kernel's tables are read.
struct Sync {
    /// Not before.
    due: Option<Instant>,
    started: Instant,
    /// When the last one may be followed by another.
    rested: Instant,
    /// The one under way is an audit that nothing has disturbed.
    audit: bool,
    /// Something changed without notice since it began.
    overtaken: bool,
    /// Nothing was lost since the last complete one began.
    trusted: bool,
    /// That one was trusted, too, so there is nothing left to find out.
    settled: bool,
}

/// What a worker works with.
pub struct Parts {
    /// The maps.
    pub maps: RouteMaps,
    /// How much they hold.
    pub limits: Limits,
    /// Where packets may leave.
    pub scope: Scope,
    /// The socket.
    pub reader: Reader,
    /// What it is told, and a bell for that.
    pub commands: mpsc::Receiver<Command>,
    /// See `commands`.
    pub wake: Arc<EventFd>,
    /// What it tells.
    pub status: Arc<Mutex<RoutesStatus>>,
    /// The interfaces that routes to other hosts use.
    pub interfaces: watch::Sender<BTreeSet<u32>>,
}

impl Worker {
    /// Adopts what an earlier process left in the maps.
    pub fn new(parts: Parts) -> Result<Self, FastPathError> {
        // Numbers that are in use must not mean something else before the routes that lead to them are rewritten.
        let first_group = parts.maps.groups()?.keys().last().map_or(1, |last| last.wrapping_add(1));
        let devices = Devices::open().inspect_err(|error| {
            tracing::info!("this kernel does not tell which devices take XDP redirects: {error}")
        });
        Ok(Self {
            fib: Fib::new(parts.scope, parts.limits, first_group),
            reader: parts.reader,
            devices: devices.ok(),
            listed: BTreeSet::new(),
            taking: BTreeSet::new(),
            maps: parts.maps,
            commands: parts.commands,
            wake: parts.wake,
            status: parts.status,
            interfaces: parts.interfaces,
            comparison: Some(Comparison::Behind),
            only_local: false,
            fault: None,
            sync: Sync {
                due: Some(Instant::now()),
                started: Instant::now(),
                rested: Instant::now(),
                audit: false,
                overtaken: false,
                trusted: false,
                settled: false,
            },
            overflows: 0,
            audits: 0,
            drift: 0,
        })
    }

    /// Works until it is told to stop, or the socket fails.
    pub fn run(mut self) {
        if let Err(error) = self.work() {
            let fault = format!("the netlink socket that follows routes failed: {error}; restart the daemon");
            tracing::error!("{fault}");
            // Nobody keeps the maps true any more.
            self.abandon(fault);
            self.tell();
        }
    }

    fn work(&mut self) -> io::Result<()> {
        let mut more = false;
        loop {
            self.wait(more)?;
            loop {
                match self.commands.try_recv() {
                    Ok(Command::Stop) | Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
                    Ok(command) => self.obey(command),
                    Err(mpsc::TryRecvError::Empty) => break,
                }
            }
            self.read_devices();
            let drained = self.reader.drain(&mut self.fib, BATCH)?;
            more = drained.more;
            self.keep_in_sync(drained)?;
            self.reader.ask_next()?;
            self.write();
            self.tell();
        }
    }

    fn wait(&mut self, more: bool) -> io::Result<()> {
        let due = self.sync.due.filter(|_| !self.fib.is_syncing());
        let pause = due.map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = match pause {
            _ if more => PollTimeout::ZERO,
            _ if self.fib.is_syncing() => PollTimeout::from(STALL),
            // Rounded up, or it would spin in the last millisecond.
            Some(pause) => PollTimeout::try_from(pause.as_millis() + 1).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        let mut ready = vec![
            PollFd::new(self.reader.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
        ];
        ready.extend(self.devices.as_ref().map(|devices| PollFd::new(devices.as_fd(), PollFlags::POLLIN)));
        let heard = match poll(&mut ready, timeout) {
            Ok(count) => count > 0,
            Err(nix::errno::Errno::EINTR) => true,
            Err(error) => return Err(error.into()),
        };
        if ready[1].any().unwrap_or(false) {
            self.wake.read()?;
        }
        if !heard && !more && self.fib.is_syncing() {
            self.reader.poke()?;
        }
        Ok(())
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Devices(listed) => {
                self.listed = listed;
                self.choose_devices();
            }
            Command::Report(query, answer) => {
                if answer.send(self.report(query)).is_err() {
                    tracing::debug!("who asked for the routes has left");
                }
            }
            Command::Audit => self.sync.due = Some(Instant::now()),
            Command::Stop => {}
        }
    }

    fn read_devices(&mut self) {
        let Some(devices) = &mut self.devices else { return };
        match devices.drain() {
            Ok(None) => return,
            Ok(Some(taking)) => self.taking.clone_from(taking),
            Err(error) => {
                tracing::warn!("which devices take XDP redirects cannot be followed any more: {error}");
                self.devices = None;
                self.taking.clear();
            }
        }
        self.choose_devices();
    }

    fn choose_devices(&mut self) {
        self.fib.hops_mut().set_xdp(self.listed.intersection(&self.taking).copied().collect());
    }

    /// Sees to it that the tables are read when that is needed.
    fn keep_in_sync(&mut self, drained: Drained) -> io::Result<()> {
        let now = Instant::now();
        if drained.lost {
            self.overflows += 1;
            (self.sync.trusted, self.sync.settled) = (false, false);
            tracing::info!("notifications about routes were lost; reading all routes again");
            self.sync.due = Some(now);
        }
        self.sync.audit &= drained.events == 0 && !drained.lost;
        if let Some((complete, differing)) = drained.synced {
            let took = self.sync.started.elapsed();
            tracing::debug!("read all routes in {took:?}, complete: {complete}");
            if complete {
                if self.sync.audit && !drained.more && !differing.is_empty() {
                    tracing::warn!("{} routes were not as the kernel had told", differing.len());
                    self.drift += differing.len() as u64;
                }
                self.comparison = self.comparison.or(Some(Comparison::Audit));
                self.sync.settled = self.sync.trusted && !self.sync.overtaken;
                self.sync.trusted = !drained.lost;
            }
            self.sync.rested = now + PAUSE.max(took);
            let pause = if complete && self.sync.settled { AUDIT.max(took * AUDIT_SHARE) } else { PAUSE };
            // A loss in the last part of it has set its own time.
            self.sync.due = Some(if drained.lost { now } else { now + pause });
        }
        // Routes go without notice when `skip_notify_on_dev_down` is set, and next hop objects always.
        let silent = drained.link_mtu
            || (drained.link_down && (self.fib.hops().has_objects() || skips_notifications()));
        self.sync.overtaken |= silent && self.fib.is_syncing();
        if silent || (self.fib.is_uncertain() && !self.fib.is_syncing()) {
            // At once, but for doubts that come one after the other.
            let soon = if silent { now } else { now.max(self.sync.rested) };
            // What it finds is no surprise.
            self.sync.settled &= !silent;
            self.sync.due = Some(self.sync.due.map_or(soon, |due| due.min(soon)));
        }
        if self.sync.due.is_some_and(|due| due <= now) && !self.fib.is_syncing() {
            let audit = self.sync.settled && !self.fib.is_uncertain();
            self.sync = Sync { due: None, started: now, audit, overtaken: false, ..self.sync };
            self.reader.start_sync(&mut self.fib, self.sync.trusted)?;
        }
        Ok(())
    }

    /// Brings the maps to the state machine.
    fn write(&mut self) {
        if self.fib.suspension() == Some(Suspension::Starting) {
            // What an earlier process left is better than nothing.
            return;
        }
        let changes = self.fib.flush();
        let only_local = self.fib.is_too_much();
        if std::mem::replace(&mut self.only_local, only_local) != only_local {
            self.comparison = Some(Comparison::Behind);
        }
        let outcome = match self.comparison {
            None => self.apply(&changes),
            Some(Comparison::Behind) => self.compare().map(drop),
            Some(Comparison::Audit) => self.apply(&changes).and_then(|()| self.compare()).map(|repaired| {
                self.audits += 1;
                if repaired > 0 {
                    tracing::warn!(
                        "repaired {repaired} entries of the maps of routes that somebody else changed"
                    );
                    self.drift += repaired as u64;
                }
            }),
        };
        match outcome {
            Ok(()) => {
                if self.fault.take().is_some() {
                    tracing::info!("the maps of routes are whole again");
                }
            }
            Err(error) => self.abandon(in_one_line(&error)),
        }
        for (key, probe) in changes.groups.probes {
            if let Err(error) = self.reader.probe(key, probe) {
                tracing::debug!("{} on interface {}: {error}", key.1, key.0);
            }
        }
    }

    fn apply(&mut self, changes: &Changes) -> Result<(), FastPathError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.maps.set_groups(&changes.groups.set)?;
        let (set, left_out): (Vec<_>, Vec<_>) = changes.set.iter().partition(|(_, route)| self.admits(route));
        let left_out = left_out.iter().map(|(prefix, _)| prefix);
        let gone: Vec<Destination> =
            changes.gone.iter().chain(left_out).map(|p| (p.address(), p.length())).collect();
        let set: Vec<(Destination, abi::Route)> =
            set.iter().map(|(p, route)| ((p.address(), p.length()), *route)).collect();
        // First what is gone: it makes room.
        self.maps.remove_routes(&gone)?;
        self.maps.set_routes(&set)?;
        self.maps.remove_groups(&changes.groups.gone)
    }

    /// Whether the maps have room for the route.
    fn admits(&self, route: &abi::Route) -> bool {
        !self.only_local || route.group == abi::Route::LOCAL
    }

    /// Reads the maps and repairs what differs from what they should hold; how much that was.
    fn compare(&mut self) -> Result<usize, FastPathError> {
        let groups = self.fib.hops().written();
        let found_groups = self.maps.groups()?;
        let set_groups = missing(&groups, &found_groups);
        let gone_groups: Vec<u32> = found_groups.into_keys().filter(|n| !groups.contains_key(n)).collect();
        let mut repaired = set_groups.len() + gone_groups.len();
        self.maps.set_groups(&set_groups)?;
        let found = self.maps.routes()?;
        let mut set = Vec::new();
        let mut left = found.len();
        for (prefix, route) in self.fib.written().filter(|(_, route)| self.admits(route)) {
            let key = (prefix.address(), prefix.length());
            match found.get(&key) {
                Some(there) => {
                    left -= 1;
                    if *there != route {
                        set.push((key, route));
                    }
                }
                None => set.push((key, route)),
            }
        }
        if left > 0 {
            let wanted = self.fib.written().filter(|(_, route)| self.admits(route));
            let wanted: BTreeSet<Destination> =
                wanted.map(|(prefix, _)| (prefix.address(), prefix.length())).collect();
            let gone: Vec<Destination> = found.into_keys().filter(|key| !wanted.contains(key)).collect();
            repaired += gone.len();
            self.maps.remove_routes(&gone)?;
        }
        repaired += set.len();
        self.maps.set_routes(&set)?;
        self.maps.remove_groups(&gone_groups)?;
        self.comparison = None;
        Ok(repaired)
    }

    /// The maps cannot be written: whatever is in them, packets are the kernel's until they can.
    fn abandon(&mut self, fault: String) {
        if self.fault.as_ref() != Some(&fault) {
            tracing::warn!("all routes are left to the kernel: {fault}");
        }
        self.fault = Some(fault);
        self.comparison = Some(Comparison::Behind);
        let withdrawn = self.maps.groups().and_then(|groups| {
            let groups: Vec<u32> = groups.into_keys().collect();
            self.maps.remove_groups(&groups)
        });
        if let Err(error) = withdrawn {
            tracing::error!("what the fast path does with routes is not certain: {}", in_one_line(&error));
        }
        let retry = Instant::now() + 10 * PAUSE;
        self.sync.due = Some(self.sync.due.map_or(retry, |due| due.min(retry)));
    }

    fn tell(&mut self) {
        let status = self.status();
        // Both at once: who is told of interfaces asks for the state, and who sees the state must not take interfaces for
        // unused.
        let mut published = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if status.state != RoutesState::Starting
            && let Some(interfaces) = self.fib.hops_mut().take_interfaces()
        {
            self.interfaces.send_if_modified(|told| {
                let news = *told != interfaces;
                *told = interfaces;
                news
            });
        }
        *published = status;
    }
}

/// What of `wanted` is not in `found`.
fn missing(
    wanted: &BTreeMap<u32, NextHopGroup>,
    found: &BTreeMap<u32, NextHopGroup>,
) -> Vec<(u32, NextHopGroup)> {
    let differs = |entry: &(&u32, &NextHopGroup)| found.get(entry.0) != Some(entry.1);
    wanted.iter().filter(differs).map(|(number, group)| (*number, *group)).collect()
}

/// Whether the kernel removes the routes of an interface that goes down without telling.
fn skips_notifications() -> bool {
    let sysctl = "/proc/sys/net/ipv6/route/skip_notify_on_dev_down";
    std::fs::read_to_string(sysctl).is_ok_and(|value| value.trim() != "0")
}
