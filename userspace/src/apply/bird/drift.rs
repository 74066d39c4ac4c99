//! Where BIRD's table and the kernel's differ, in both directions ([`Side`]): what BIRD wants in the kernel or has there under
//! its name, and the VMs that it should have learnt of from there. BIRD itself puts it right, as it alone can without
//! tearing at routes that are in use. It does so when it reads the kernel's table, every 20 s or when it is asked to.
//!
//! What somebody changes is noticed by what the kernel notifies, and a few destinations are compared one by one. When
//! many change at once, which BIRD does all the time, the numbers of routes are compared as soon as that is over, and the
//! routes only if the numbers differ. Now and then all are compared, for what was there before we listened.

use super::control::{Connection, ControlError};
use super::difference::{Difference, Drift, Side};
use super::fib::Fib;
use super::news::{Heard, MANY, News};
use super::report::Report;
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

/// Time between two requests to put differences right. With 100,000 routes BIRD works for some 300 ms at one.
const PACE: Duration = Duration::from_secs(2);

/// A destination about which they may differ.
type Suspects = BTreeSet<(Side, Ipv6Net)>;

/// The one who looks.
pub(super) struct Watch {
    socket: PathBuf,
    publish: watch::Sender<Report>,
    drift: Drift,
    /// When to compare next.
    due: Instant,
    /// From when on a comparison is one of all routes, whatever their number.
    thorough: Instant,
    /// When BIRD was last asked to put something right.
    asked: Option<Instant>,
    /// It is to be asked again.
    unasked: bool,
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
        Self {
            socket,
            publish,
            drift: Drift::default(),
            due: now + QUIET,
            thorough: now,
            asked: None,
            unasked: false,
        }
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
            let remedy = self.asked.map_or_else(Instant::now, |asked| asked + PACE);
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
                () = sleep_until(remedy), if self.unasked => self.remedy().await,
                () = sleep_until(self.due) => self.compare(&fib).await,
            };
            if let Err(obstacle) = looked {
                tracing::debug!("BIRD's routes cannot be compared at present: {}", in_one_line(&obstacle));
                let now = Instant::now();
                (self.due, self.thorough) = (now + ABSENCE, now);
            }
        }
    }

    /// Looks at destinations that have changed. BIRD answers between two pieces of work, so the kernel has told of all that
    /// BIRD had done before it answered.
    async fn look(
        &mut self,
        mut changed: BTreeMap<(Side, Ipv6Net), bool>,
        fib: &Fib,
        news: &News,
    ) -> Result<(), Obstacle> {
        let mut bird = self.ask().await?;
        let mut in_bird = BTreeMap::new();
        for (side, destination) in changed.keys() {
            in_bird.insert((*side, *destination), bird.has_route(&side.selection(), *destination).await?);
        }
        match news.drain()? {
            Heard::Few(later) => changed.extend(later),
            Heard::Many => {
                self.due = Instant::now() + QUIET;
                return Ok(());
            }
        }
        // What has changed only now is judged by what BIRD says now.
        let differing = changed.into_iter().filter(|(at, there)| in_bird.get(at) != Some(there));
        let mut suspects: Suspects = differing.map(|(at, _)| at).collect();
        if suspects.iter().any(|(side, _)| *side == Side::Learnt) {
            // It may only not have come to it yet.
            sleep(CONFIRMATION).await;
        }
        suspects.extend(self.suspected());
        self.judge(suspects, &mut bird, fib).await?;
        if !self.drift.differences.is_empty() {
            self.due = self.due.min(Instant::now() + AGAIN);
        }
        Ok(())
    }

    /// Compares all routes: by their number, and one by one if that differs or it is time to. What BIRD learns are the VMs of
    /// this host, which are never too many for the latter.
    async fn compare(&mut self, fib: &Fib) -> Result<(), Obstacle> {
        let mut bird = self.ask().await?;
        let kernel = bird.protocol(SERVAL_KERNEL).await?.ok_or(Obstacle::Foreign)?;
        let mut suspects = self.suspected();
        let thorough = self.thorough <= Instant::now();
        for side in Side::ALL {
            let there = fib.destinations(side).await?;
            if thorough || side == Side::Learnt || there.len() as u64 != kernel.exported {
                let in_bird = bird.routes(&side.selection()).await?;
                suspects.extend(in_bird.symmetric_difference(&there).map(|at| (side, *at)));
            }
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
    async fn judge(&mut self, suspects: Suspects, bird: &mut Connection, fib: &Fib) -> Result<(), Obstacle> {
        let mut found = BTreeSet::new();
        for side in Side::ALL {
            let of_side = suspects.iter().filter(|(of, _)| *of == side);
            let destinations: BTreeSet<Ipv6Net> = of_side.map(|(_, at)| *at).collect();
            if destinations.is_empty() {
                continue;
            }
            let before = among(&destinations, side, bird).await?;
            let there = fib.destinations(side).await?;
            let after = among(&destinations, side, bird).await?;
            // What BIRD has changed meanwhile is no difference.
            let steady = destinations.into_iter().filter(|at| before.contains(at) == after.contains(at));
            found.extend(steady.filter_map(|at| {
                side.difference(before.contains(&at), there.contains(&at)).map(|difference| (difference, at))
            }));
        }
        if !suspects.is_empty() {
            self.tell(found);
        }
        Ok(())
    }

    /// Has BIRD read the kernel's table at once.
    async fn remedy(&mut self) -> Result<(), Obstacle> {
        self.asked = Some(Instant::now());
        self.open().await?.reload(SERVAL_KERNEL).await?;
        self.unasked = false;
        // What it learns is no news of the kernel's.
        self.due = self.due.min(Instant::now() + CONFIRMATION);
        Ok(())
    }

    /// About what they have differed until now.
    fn suspected(&self) -> Suspects {
        self.drift.differences.iter().map(|(difference, at)| (difference.side(), *at)).collect()
    }

    fn tell(&mut self, found: BTreeSet<(Difference, Ipv6Net)>) {
        let before = std::mem::replace(&mut self.drift.differences, found);
        let now = &self.drift.differences;
        let news = now.difference(&before).count();
        if news > 0 {
            tracing::warn!(
                "BIRD's routes and the kernel's differ: {}; asking BIRD to put that right",
                self.drift.told()
            );
        } else if now.is_empty() && !before.is_empty() {
            tracing::info!("BIRD's routes and the kernel's agree again");
        }
        self.unasked = !now.is_empty() && (self.unasked || news > 0);
        self.drift.found += news as u64;
        self.publish.send_modify(|report| report.drift = self.drift.clone());
    }

    /// To look, and no more.
    async fn ask(&self) -> Result<Connection, Obstacle> {
        let mut bird = self.open().await?;
        bird.restrict().await?;
        Ok(bird)
    }

    async fn open(&self) -> Result<Connection, Obstacle> {
        let mut bird = Connection::open(&self.socket).await?;
        if bird.daemon().await?.recovering { Err(Obstacle::Recovering) } else { Ok(bird) }
    }
}

/// To which of `destinations` BIRD has routes of a side.
async fn among(
    destinations: &BTreeSet<Ipv6Net>,
    side: Side,
    bird: &mut Connection,
) -> Result<BTreeSet<Ipv6Net>, ControlError> {
    if destinations.len() > MANY {
        return bird.routes(&side.selection()).await;
    }
    let mut found = BTreeSet::new();
    for destination in destinations {
        if bird.has_route(&side.selection(), *destination).await? {
            found.insert(*destination);
        }
    }
    Ok(found)
}
