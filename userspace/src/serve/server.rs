//! The task that serves: it owns the sockets and the timer, asks [`State`] what to do and does it.
//!
//! Nothing here ends the daemon. A socket that cannot be opened or fails is a problem that [`Server::problems`] tells and
//! that is tried again every second; the others go on.

use super::link::Link;
use super::snoop::Snoop;
use super::socket::{Buffer, Listener, Memberships, Received};
use super::state::{Outgoing, ServeStats, State};
use crate::config::Duid;
use crate::plan::Attached;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Endpoints with a TAP, by ifindex.
pub type Endpoints = Arc<BTreeMap<u32, Attached>>;

/// DHCPv6 and router advertisements for all endpoints. Ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What the task works on and others look at.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    problems: Mutex<BTreeMap<Part, String>>,
}

/// A part that can fail by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Link,
    Dhcp6,
    Solicitations,
    Neighbours,
    Memberships,
}

impl Server {
    /// Starts to serve `endpoints` and what becomes of them, on the current tokio runtime.
    pub fn start(endpoints: watch::Receiver<Endpoints>, server_duid: Duid) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(server_duid)),
            problems: Mutex::new(BTreeMap::new()),
        });
        let task = tokio::spawn(Task::new(Arc::clone(&shared)).run(endpoints));
        Self { shared, task }
    }

    /// Counters of one endpoint; `None` when it is not served.
    pub fn stats(&self, ifindex: u32) -> Option<ServeStats> {
        self.shared.state().stats(ifindex, Instant::now())
    }

    /// What does not work at the moment, and what to do about it.
    pub fn problems(&self) -> Vec<String> {
        lock(&self.shared.problems).values().cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Notes that a part fails, or works again.
    fn note(&self, part: Part, problem: Option<String>) {
        let mut problems = lock(&self.problems);
        match problem {
            Some(problem) if problems.get(&part) == Some(&problem) => {}
            Some(problem) => {
                tracing::error!("{problem}");
                problems.insert(part, problem);
            }
            None if problems.remove(&part).is_some() => tracing::info!("{part:?} works again"),
            None => {}
        }
    }
}

/// What the locks guard is whole after any statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sockets, as far as they could be opened.
struct Task {
    shared: Arc<Shared>,
    link: Option<Link>,
    dhcp6: Option<Listener>,
    solicitations: Option<Listener>,
    neighbours: Option<Snoop>,
    memberships: Memberships,
    /// Interfaces where joining the groups of servers failed.
    not_joined: BTreeSet<u32>,
    /// When what failed is tried again. Kept here, as a deadline that began anew with every event would never come
    /// while VMs send.
    retry: Instant,
    buffer: Buffer,
}

/// What woke the task up.
enum Event {
    Endpoints,
    Due,
    Dhcp6(io::Result<()>),
    Solicitations(io::Result<()>),
    Neighbours(io::Result<()>),
    Retry,
}

impl Task {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            link: None,
            dhcp6: None,
            solicitations: None,
            neighbours: None,
            memberships: Memberships::default(),
            not_joined: BTreeSet::new(),
            retry: Instant::now(),
            buffer: Buffer::default(),
        }
    }

    async fn run(mut self, mut endpoints: watch::Receiver<Endpoints>) {
        self.repair();
        endpoints.mark_changed();
        loop {
            let due = self.shared.state().next_due();
            let event = tokio::select! {
                changed = endpoints.changed() => match changed {
                    Ok(()) => Event::Endpoints,
                    // The daemon is going.
                    Err(_) => return,
                },
                () = sleep_until(due) => Event::Due,
                result = readable(self.dhcp6.as_ref()) => Event::Dhcp6(result),
                result = readable(self.solicitations.as_ref()) => Event::Solicitations(result),
                result = solicited(self.neighbours.as_ref()) => Event::Neighbours(result),
                () = sleep_until(self.is_broken().then_some(self.retry)) => Event::Retry,
            };
            match event {
                Event::Endpoints => {
                    let endpoints = Arc::clone(&endpoints.borrow_and_update());
                    self.set_endpoints(&endpoints);
                }
                Event::Due => self.advertise(),
                Event::Dhcp6(result) => self.answer_dhcp6(result),
                Event::Solicitations(result) => self.answer_solicitations(result),
                Event::Neighbours(result) => self.answer_neighbours(result),
                Event::Retry => self.repair(),
            }
        }
    }

    fn set_endpoints(&mut self, endpoints: &BTreeMap<u32, Attached>) {
        let change = self.shared.state().set_endpoints(endpoints, Instant::now());
        for ifindex in change.gone {
            self.memberships.leave(ifindex);
            self.not_joined.remove(&ifindex);
        }
        self.not_joined.extend(change.current);
        // A TAP may vanish before the plan knows, so only what fails again in a while is told.
        match self.join() {
            Some(_) => self.retry = self.retry.max(Instant::now() + RETRY),
            None => self.shared.note(Part::Memberships, None),
        }
        self.send(change.withdrawals);
        self.advertise();
    }

    fn advertise(&self) {
        let due = self.shared.state().advertisements(Instant::now());
        self.send(due);
    }

    fn answer_dhcp6(&mut self, readable: io::Result<()>) {
        let answer = |state: &mut State, received: &Received<'_>| state.dhcp6(received, Instant::now());
        if let Err(error) = readable.and_then(|()| self.answer(Part::Dhcp6, answer)) {
            self.dhcp6 = None;
            self.shared.note(
                Part::Dhcp6,
                Some(format!("DHCPv6: receiving fails: {error}; opened again every second")),
            );
        }
    }

    fn answer_solicitations(&mut self, readable: io::Result<()>) {
        let answer = |state: &mut State, received: &Received<'_>| state.solicited(received, Instant::now());
        if let Err(error) = readable.and_then(|()| self.answer(Part::Solicitations, answer)) {
            self.solicitations = None;
            let problem =
                format!("router solicitations: receiving fails: {error}; opened again every second");
            self.shared.note(Part::Solicitations, Some(problem));
        }
    }

    fn answer_neighbours(&mut self, readable: io::Result<()>) {
        let mut answers = vec![];
        let result = readable.and_then(|()| match &self.neighbours {
            Some(neighbours) => neighbours.read(&mut self.buffer, |ifindex, frame| {
                answers.extend(self.shared.state().neighbour_solicited(ifindex, frame, Instant::now()));
            }),
            None => Ok(()),
        });
        self.send(answers);
        if let Err(error) = result {
            self.neighbours = None;
            let problem =
                format!("neighbour solicitations: receiving fails: {error}; opened again every second");
            self.shared.note(Part::Neighbours, Some(problem));
        }
    }

    /// Reads a batch and sends what `answer` says to it.
    fn answer(
        &mut self,
        part: Part,
        answer: impl Fn(&mut State, &Received<'_>) -> Option<Outgoing>,
    ) -> io::Result<()> {
        let listener = if part == Part::Dhcp6 { &self.dhcp6 } else { &self.solicitations };
        let mut answers = vec![];
        let result = match listener {
            Some(listener) => listener.read(&mut self.buffer, |received| {
                answers.extend(answer(&mut self.shared.state(), &received));
            }),
            None => Ok(()),
        };
        self.send(answers);
        result
    }

    fn send(&self, outgoing: Vec<Outgoing>) {
        for outgoing in outgoing {
            let result = match &self.link {
                Some(link) => link.send(outgoing.ifindex, &outgoing.frame),
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            self.shared.state().settle(&outgoing, &result, Instant::now(), fastrand::f64());
        }
    }

    fn is_broken(&self) -> bool {
        !self.not_joined.is_empty()
            || self.link.is_none()
            || self.dhcp6.is_none()
            || self.solicitations.is_none()
            || self.neighbours.is_none()
    }

    /// Opens and joins what is not.
    fn repair(&mut self) {
        let shared = &self.shared;
        open(shared, Part::Link, &mut self.link, Link::open, |error| {
            format!("cannot open a packet socket to send to VMs: {error}; the daemon needs CAP_NET_RAW")
        });
        open(shared, Part::Dhcp6, &mut self.dhcp6, Listener::dhcp6, |error| {
            format!(
                "DHCPv6: cannot listen on UDP port 547: {error}; VMs get no address until the program that has \
                 the port (`ss -ulpn sport = 547` shows it) is stopped; tried again every second"
            )
        });
        open(shared, Part::Solicitations, &mut self.solicitations, Listener::solicitations, |error| {
            format!(
                "cannot open an ICMPv6 socket for router solicitations: {error}; the daemon needs CAP_NET_RAW"
            )
        });
        open(shared, Part::Neighbours, &mut self.neighbours, Snoop::open, |error| {
            format!(
                "cannot open a packet socket for neighbour solicitations: {error}; the daemon needs CAP_NET_RAW"
            )
        });
        let problem = self.join();
        self.shared.note(Part::Memberships, problem);
        self.retry = Instant::now() + RETRY;
    }

    /// Joins where that is still to be done; what does not work. An interface that has vanished is no problem: the
    /// plan will say so.
    fn join(&mut self) -> Option<String> {
        let mut failed = Vec::new();
        self.not_joined.retain(|ifindex| match self.memberships.join(*ifindex) {
            Ok(()) => false,
            Err(error) => {
                if error.raw_os_error() != Some(libc::ENODEV) {
                    failed.push((*ifindex, error));
                }
                true
            }
        });
        failed.last().map(|(ifindex, error)| {
            let count = failed.len();
            format!(
                "DHCPv6: cannot join the groups of servers on {count} interfaces, among them number {ifindex}: {error}; \
                 is IPv6 enabled there, and net.core.optmem_max at least 20480? Tried again every second"
            )
        })
    }
}

fn open<T>(
    shared: &Shared,
    part: Part,
    slot: &mut Option<T>,
    open: impl Fn() -> io::Result<T>,
    problem: impl Fn(&io::Error) -> String,
) {
    if slot.is_some() {
        return;
    }
    let opened = open();
    shared.note(part, opened.as_ref().err().map(problem));
    *slot = opened.ok();
}

async fn readable(listener: Option<&Listener>) -> io::Result<()> {
    match listener {
        Some(listener) => listener.readable().await,
        None => std::future::pending().await,
    }
}

async fn solicited(neighbours: Option<&Snoop>) -> io::Result<()> {
    match neighbours {
        Some(neighbours) => neighbours.readable().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No kernel gives such a number unasked.
    const GONE: u32 = i32::MAX as u32;

    fn shared() -> Arc<Shared> {
        let state = Mutex::new(State::new(Duid::default()));
        Arc::new(Shared { state, problems: Mutex::default() })
    }

    #[test]
    fn a_tap_that_has_vanished_is_tried_again_in_silence() {
        let mut task = Task::new(shared());
        task.not_joined.insert(GONE);
        assert_eq!(task.join(), None);
        assert!(task.is_broken() && task.not_joined.contains(&GONE), "until the plan says that it is gone");
    }
}
