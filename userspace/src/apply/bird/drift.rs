//! Where BIRD's table and the kernel's differ: routes that BIRD wants in the kernel and that are missing there, and routes
//! in the kernel under BIRD's name that it does not know. Only looks: BIRD itself puts both right at its next scan of the
//! kernel's table, and is the only one that can without tearing at routes that are in use.
//!
//! What somebody changes is noticed by what the kernel notifies, and a few destinations are compared one by one. When
//! many change at once, which BIRD does all the time, the numbers of routes are compared as soon as that is over, and the
//! routes only if the numbers differ. Now and then all are compared, for what was there before we listened.

use super::control::{Connection, ControlError};
use super::fib::Fib;
use super::news::{Heard, MANY, News};
use super::report::Report;
use super::status::listed;
use crate::cause::in_one_line;
use crate::plan::bird::SERVAL_KERNEL;
use ipnet::Ipv6Net;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// How long to listen before looking: what belongs together comes together.
const TOGETHER: Duration = Duration::from_millis(100);

/// How long many changes must be over before the tables are compared.
const QUIET: Duration = Duration::from_secs(1);

/// How long to wait for a BIRD that cannot be asked at present.
const ABSENCE: Duration = Duration::from_secs(5);

/// How long a difference must last to be none of a change that is under way.
const CONFIRMATION: Duration = Duration::from_secs(1);

/// How often everything is compared: with 100,000 routes that takes some 300 ms.
const COMPARISON: Duration = Duration::from_secs(600);

/// How often a difference that lasts is looked at again.
const AGAIN: Duration = Duration::from_secs(10);

/// How BIRD and the kernel differ about a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// BIRD's route is not in the kernel.
    Missing,
    /// A route under BIRD's name that it does not know.
    Stray,
}

/// What is known of differences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Drift {
    /// At present.
    pub differences: BTreeMap<Ipv6Net, Difference>,
    /// How many there have been.
    pub found: u64,
}

/// The one who looks.
pub(super) struct Watch {
    socket: PathBuf,
    publish: watch::Sender<Report>,
    drift: Drift,
    /// When to compare next.
    due: Instant,
    /// From when on a comparison is one of all routes, whatever their number.
    thorough: Instant,
}

/// Why one cannot look at present.
#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error("{0}")]
    Bird(#[from] ControlError),
    #[error("it has been started and is reading what there is")]
    Recovering,
    #[error("it has no configuration of serval's")]
    Foreign,
    #[error("the kernel's routes: {0}")]
    Kernel(#[from] io::Error),
}

impl Watch {
    /// Looks at the BIRD at `socket`.
    pub fn new(socket: PathBuf, publish: watch::Sender<Report>) -> Self {
        let now = Instant::now();
        Self { socket, publish, drift: Drift::default(), due: now + QUIET, thorough: now }
    }

    /// Works as long as it is polled, in the network namespace of the thread that does so first.
    pub async fn run(mut self) {
        if let Err(error) = self.work().await {
            tracing::warn!("whether BIRD's routes are in the kernel is not watched: {error}");
        }
        std::future::pending().await
    }

    async fn work(&mut self) -> io::Result<()> {
        let (fib, news) = (Fib::open()?, News::open()?);
        loop {
            let looked = tokio::select! {
                heard = news.wait() => {
                    heard?;
                    sleep(TOGETHER).await;
                    match news.drain()? {
                        Heard::Few(changed) => self.look(changed, &fib, &news).await,
                        Heard::Many => {
                            self.due = Instant::now() + QUIET;
                            Ok(())
                        }
                    }
                }
                () = sleep_until(self.due) => self.compare(&fib).await,
            };
            if let Err(obstacle) = looked {
                tracing::debug!("BIRD's routes cannot be compared at present: {}", in_one_line(&obstacle));
                let now = Instant::now();
                (self.due, self.thorough) = (now + ABSENCE, now);
            }
        }
    }

    /// Looks at destinations that have changed. BIRD answers between two pieces of work, so the kernel has told of all it
    /// had done before it answered.
    async fn look(
        &mut self,
        mut changed: BTreeMap<Ipv6Net, bool>,
        fib: &Fib,
        news: &News,
    ) -> Result<(), Obstacle> {
        let mut bird = self.ask().await?;
        let mut wanted = BTreeMap::new();
        for destination in changed.keys() {
            wanted.insert(*destination, bird.is_exported(SERVAL_KERNEL, *destination).await?);
        }
        match news.drain()? {
            Heard::Few(later) => changed.extend(later),
            Heard::Many => {
                self.due = Instant::now() + QUIET;
                return Ok(());
            }
        }
        // What has changed only now is judged by what BIRD says now.
        let differing = changed.into_iter().filter(|(at, there)| wanted.get(at) != Some(there));
        let suspects: BTreeSet<Ipv6Net> =
            differing.map(|(at, _)| at).chain(self.drift.differences.keys().copied()).collect();
        self.judge(suspects, &mut bird, fib).await?;
        if !self.drift.differences.is_empty() {
            self.due = self.due.min(Instant::now() + AGAIN);
        }
        Ok(())
    }

    /// Compares all routes: by their number, and one by one if that differs or it is time to.
    async fn compare(&mut self, fib: &Fib) -> Result<(), Obstacle> {
        let mut bird = self.ask().await?;
        let kernel = bird.protocol(SERVAL_KERNEL).await?.ok_or(Obstacle::Foreign)?;
        let there = fib.destinations().await?;
        let mut suspects: BTreeSet<Ipv6Net> = self.drift.differences.keys().copied().collect();
        let thorough = self.thorough <= Instant::now();
        if thorough || there.len() as u64 != kernel.exported {
            let wanted = bird.exported(SERVAL_KERNEL).await?;
            suspects.extend(wanted.symmetric_difference(&there));
        }
        if !suspects.is_empty() {
            sleep(CONFIRMATION).await;
        }
        self.judge(suspects, &mut bird, fib).await?;
        let next = Instant::now() + COMPARISON;
        if thorough {
            self.thorough = next;
        }
        self.due = if self.drift.differences.is_empty() { next } else { Instant::now() + AGAIN };
        Ok(())
    }

    /// Finds out how BIRD and the kernel differ about `suspects`, and makes that known.
    async fn judge(
        &mut self,
        suspects: BTreeSet<Ipv6Net>,
        bird: &mut Connection,
        fib: &Fib,
    ) -> Result<(), Obstacle> {
        if suspects.is_empty() {
            return Ok(());
        }
        let wanted = exported(&suspects, bird).await?;
        let there = fib.destinations().await?;
        // What BIRD has changed meanwhile is no difference.
        let still = exported(&suspects, bird).await?;
        let difference = |at: &Ipv6Net| match (wanted.contains(at), there.contains(at), still.contains(at)) {
            (true, false, true) => Some(Difference::Missing),
            (false, true, false) => Some(Difference::Stray),
            _ => None,
        };
        let found = suspects.into_iter().filter_map(|at| Some((at, difference(&at)?))).collect();
        self.tell(found);
        Ok(())
    }

    fn tell(&mut self, found: BTreeMap<Ipv6Net, Difference>) {
        let before = std::mem::replace(&mut self.drift.differences, found);
        let now = &self.drift.differences;
        let news = now.iter().filter(|(at, difference)| before.get(at) != Some(difference)).count();
        if news > 0 {
            let (missing, stray) = self.drift.listed();
            tracing::warn!(
                "BIRD's routes and the kernel's differ; missing: {}; stray: {}; BIRD puts that right",
                listed(&missing),
                listed(&stray)
            );
        } else if now.is_empty() && !before.is_empty() {
            tracing::info!("BIRD's routes and the kernel's agree again");
        }
        self.drift.found += news as u64;
        self.publish.send_modify(|report| report.drift = self.drift.clone());
    }

    async fn ask(&self) -> Result<Connection, Obstacle> {
        let mut bird = Connection::open(&self.socket).await?;
        bird.restrict().await?;
        if bird.daemon().await?.recovering { Err(Obstacle::Recovering) } else { Ok(bird) }
    }
}

impl Drift {
    /// The destinations: missing ones, and stray ones.
    pub fn listed(&self) -> (Vec<Ipv6Net>, Vec<Ipv6Net>) {
        let of = |kind| {
            let all = self.differences.iter();
            all.filter(|(_, difference)| **difference == kind).map(|(at, _)| *at).collect()
        };
        (of(Difference::Missing), of(Difference::Stray))
    }
}

/// Which of `destinations` BIRD wants in the kernel.
async fn exported(
    destinations: &BTreeSet<Ipv6Net>,
    bird: &mut Connection,
) -> Result<BTreeSet<Ipv6Net>, ControlError> {
    if destinations.len() > MANY {
        return bird.exported(SERVAL_KERNEL).await;
    }
    let mut wanted = BTreeSet::new();
    for destination in destinations {
        if bird.is_exported(SERVAL_KERNEL, *destination).await? {
            wanted.insert(*destination);
        }
    }
    Ok(wanted)
}
