//! The kernel as safety net: addresses, routes, neighbours and sysctls of every endpoint's TAP, so that traffic flows
//! the same way when the fast path is off.
//!
//! Touches rtnetlink and /proc/sys/net/ipv6, both of the network namespace of the *calling thread*: a process that
//! works in another namespace must enter it before its tokio runtime starts, because worker threads inherit it from
//! the thread that spawns them.
//!
//! What is ours carries [`PROTOCOL`]: routes as `rtm_protocol`, neighbours as `NDA_PROTOCOL` (Linux 5.0), addresses as
//! `IFA_PROTO` (Linux 5.18). So a later run recognises what an earlier one has left, and what others have put on a TAP
//! stays. Before 5.18 a gateway address that an endpoint no longer has stays on its TAP until the TAP is blocked or
//! goes down.
//!
//! Permanent neighbours don't count against `net.ipv6.neigh.default.gc_thresh3` since Linux 5.0 (they are exempt from
//! garbage collection), and nothing is resolved dynamically on a TAP: no limit needs raising for many endpoints.

mod error;
mod memory;
mod requests;
mod state;
mod sysctl;

pub use error::{KernelError, Obstacle};

use crate::plan::Attached;
use crate::resource::InterfaceName;
use futures_util::{StreamExt, stream};
use memory::Memory;
use requests::{Lookup, Requests};
use state::{Change, Desired, Route, diff};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Serval's number in `ip route`'s and `ip neigh`'s `proto`: not in linux/rtnetlink.h and not among iproute2's
/// `rt_protos`. It is `S` in ASCII.
pub const PROTOCOL: u8 = 83;

/// Metric of our routes: less than BIRD's default of 32, so that an endpoint of this host is preferred to a route that
/// another host announces for the same address (while a VM migrates), as the fast path prefers it.
pub const METRIC: u32 = 16;

/// How many requests are under way at a time: their answers fit the socket's receive buffer.
const IN_FLIGHT: usize = 32;

/// What bringing a TAP to the plan took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// How many things had to be changed; 0 when all was as it should be.
    pub changed: usize,
    /// What of others keeps the endpoint from working as planned. It has not been touched.
    pub obstacles: Vec<Obstacle>,
}

/// Brings the kernel to the plan. Every method may be repeated at any time, and finds nothing to do then.
pub struct Kernel {
    requests: Requests,
    tap_prefix: String,
    memory: Memory,
}

impl Kernel {
    /// Connects to the kernel, within a tokio runtime. TAPs are the interfaces whose names begin with `tap_prefix`.
    pub fn open(tap_prefix: &str) -> Result<Self, KernelError> {
        let requests = Requests::open().map_err(KernelError::Open)?;
        Ok(Self { requests, tap_prefix: tap_prefix.to_owned(), memory: Memory::default() })
    }

    /// Makes the host an IPv6 router that keeps the default routes it has learnt from router advertisements.
    pub async fn prepare_host(&self) -> Result<usize, KernelError> {
        sysctl::enable_forwarding(&self.tap_prefix)
    }

    /// Brings one TAP to the plan.
    pub async fn apply(&self, endpoint: &Attached) -> Result<Applied, KernelError> {
        let mut outcome = self.apply_all([endpoint]).await;
        outcome.remove(&endpoint.ifindex).unwrap_or_else(|| Ok(Applied::default()))
    }

    /// Brings many TAPs to the plan; the outcome of each by ifindex. One that fails does not keep the others.
    ///
    /// On a TAP that is down only sysctls are set: the kernel takes no routes for it and flushes addresses and
    /// neighbours when it goes down. They come when it is applied again after it has come up.
    pub async fn apply_all<'a>(
        &self,
        endpoints: impl IntoIterator<Item = &'a Attached>,
    ) -> BTreeMap<u32, Result<Applied, KernelError>> {
        let mut taps: BTreeMap<u32, Tap> = BTreeMap::new();
        let mut outcomes = BTreeMap::new();
        for endpoint in endpoints {
            match self.configure(endpoint) {
                Ok(changed) if endpoint.admin_up => {
                    let mut tap = Tap::new(endpoint.interface.as_str(), Desired::of(endpoint));
                    tap.applied.changed = changed;
                    taps.insert(endpoint.ifindex, tap);
                }
                Ok(changed) => {
                    outcomes.insert(endpoint.ifindex, Ok(Applied { changed, obstacles: Vec::new() }));
                }
                Err(error) => {
                    outcomes.insert(endpoint.ifindex, Err(error));
                }
            }
        }
        self.reconcile(&mut taps).await;
        outcomes.extend(taps.into_iter().map(|(ifindex, tap)| (ifindex, tap.outcome())));
        outcomes
    }

    /// The endpoint is gone and its TAP is not: takes everything of ours away, and blocks the TAP.
    pub async fn remove(&self, ifindex: u32, interface: &InterfaceName) -> Result<usize, KernelError> {
        // Blocked first: from then on nothing is forwarded, and the kernel flushes nearly all that is left to remove.
        let blocked = self.block(ifindex, interface).await?;
        let mut taps = BTreeMap::from([(ifindex, Tap::new(interface.as_str(), Desired::default()))]);
        self.reconcile(&mut taps).await;
        let removed = match taps.remove(&ifindex) {
            Some(tap) => tap.outcome()?.changed,
            None => 0,
        };
        Ok(blocked + removed)
    }

    /// A TAP that no endpoint claims: the kernel drops every IPv6 packet from and to it. All IPv6 addresses and routes
    /// on it go, also those of others.
    pub async fn block(&self, ifindex: u32, interface: &InterfaceName) -> Result<usize, KernelError> {
        confirm(ifindex, interface.as_str())?;
        sysctl::block(interface.as_str())
    }

    /// Takes away what carries our mark on interfaces other than `keep`, as an earlier run may have left it.
    pub async fn sweep(&self, keep: &BTreeSet<u32>) -> Result<usize, KernelError> {
        let unreadable = |source| unreadable("all interfaces", source);
        let mut actual = self.requests.observe(None).await.map_err(unreadable)?;
        for (ifindex, routes) in self.requests.our_routes().await.map_err(unreadable)? {
            actual.entry(ifindex).or_default().routes = routes;
        }
        let changes: Vec<(u32, Change)> = actual
            .into_iter()
            .filter(|(ifindex, _)| !keep.contains(ifindex))
            .flat_map(|(ifindex, actual)| {
                let (changes, _) = diff(&Desired::default(), &actual.ours());
                changes.into_iter().map(move |change| (ifindex, change))
            })
            .collect();
        let mut changed = 0;
        for (ifindex, change, outcome) in self.execute(changes).await {
            match outcome.map_err(|source| refused(&format!("interface {ifindex}"), change, source)) {
                Ok(done) => changed += usize::from(done),
                // With the interface all of ours on it went, too.
                Err(KernelError::Vanished { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(changed)
    }

    fn configure(&self, endpoint: &Attached) -> Result<usize, KernelError> {
        let interface = endpoint.interface.as_str();
        confirm(endpoint.ifindex, interface)?;
        sysctl::configure_tap(interface, &self.tap_prefix)
    }

    /// Reads what is there, changes what differs, and reads again what was changed.
    async fn reconcile(&self, taps: &mut BTreeMap<u32, Tap>) {
        let mut changes = self.differences(taps).await;
        changes.sort_by_key(|(_, change)| change.stage());
        let mut changed = BTreeSet::new();
        for stage in changes.chunk_by(|(_, a), (_, b)| a.stage() == b.stage()) {
            for (ifindex, change, outcome) in self.execute(stage.to_vec()).await {
                let Some(tap) = taps.get_mut(&ifindex) else { continue };
                match outcome {
                    Ok(done) => {
                        self.memory.note(ifindex, change);
                        tap.applied.changed += usize::from(done);
                        changed.insert(ifindex);
                    }
                    Err(source) => tap.fail(|interface| refused(interface, change, source)),
                }
            }
        }
        self.verify(taps, &changed).await;
    }

    async fn verify(&self, taps: &mut BTreeMap<u32, Tap>, changed: &BTreeSet<u32>) {
        let mut left: BTreeMap<u32, usize> = BTreeMap::new();
        for (ifindex, change) in self.differences_of(taps, changed).await {
            // A route that could not be set because somebody else's is there is an obstacle, told as such.
            if !matches!(change, Change::AddRoute(_)) {
                *left.entry(ifindex).or_default() += 1;
            }
        }
        for (ifindex, left) in left {
            if let Some(tap) = taps.get_mut(&ifindex) {
                tap.fail(|interface| KernelError::Unsettled { interface: interface.to_owned(), left });
            }
        }
    }

    async fn differences(&self, taps: &mut BTreeMap<u32, Tap>) -> Vec<(u32, Change)> {
        let all = taps.keys().copied().collect();
        self.differences_of(taps, &all).await
    }

    /// What has to change on those of `taps` that are in `which`. A failure is noted in the TAP.
    async fn differences_of(
        &self,
        taps: &mut BTreeMap<u32, Tap>,
        which: &BTreeSet<u32>,
    ) -> Vec<(u32, Change)> {
        let only = match which.len() {
            0 => return Vec::new(),
            1 => which.first().copied(),
            _ => None,
        };
        let observed = match self.memory.load(&self.requests).await {
            Ok(()) => self.requests.observe(only).await,
            Err(error) => Err(error),
        };
        let mut actual = match observed {
            Ok(actual) => actual,
            Err(source) => {
                for (_, tap) in taps.iter_mut().filter(|(ifindex, _)| which.contains(ifindex)) {
                    tap.fail(|interface| unreadable(interface, copy(&source)));
                }
                return Vec::new();
            }
        };
        let mut routes = self.look_up(taps, which).await;
        let mut all = Vec::new();
        for (&ifindex, tap) in taps.iter_mut().filter(|(ifindex, _)| which.contains(ifindex)) {
            let mut actual = actual.remove(&ifindex).unwrap_or_default();
            let (ours, mut obstacles) = routes.remove(&ifindex).unwrap_or_default();
            actual.routes = ours;
            actual.routes.extend(self.memory.stale(ifindex, &tap.desired.routes));
            let (changes, in_the_way) = diff(&tap.desired, &actual);
            obstacles.extend(in_the_way);
            tap.applied.obstacles = obstacles;
            all.extend(changes.into_iter().map(|change| (ifindex, change)));
        }
        all
    }

    /// Asks the kernel which way it takes to every address: routes of ours by that TAP, and what is in their way.
    async fn look_up(
        &self,
        taps: &BTreeMap<u32, Tap>,
        which: &BTreeSet<u32>,
    ) -> BTreeMap<u32, (BTreeSet<Route>, Vec<Obstacle>)> {
        let addresses = taps
            .iter()
            .filter(|(ifindex, _)| which.contains(ifindex))
            .flat_map(|(&ifindex, tap)| tap.desired.routes.iter().map(move |&address| (ifindex, address)));
        let lookups: Vec<_> = stream::iter(addresses)
            .map(async |(ifindex, address)| (ifindex, address, self.requests.lookup(address).await))
            .buffered(IN_FLIGHT)
            .collect()
            .await;
        let mut found: BTreeMap<u32, (BTreeSet<Route>, Vec<Obstacle>)> = BTreeMap::new();
        for (ifindex, address, lookup) in lookups {
            let (ours, obstacles) = found.entry(ifindex).or_default();
            match lookup {
                Ok(there) if there.ours_via(ifindex) => {
                    ours.insert(Route { destination: address, prefix_length: 128, metric: there.metric });
                }
                Ok(Lookup { protocol, oif, metric }) => {
                    obstacles.push(Obstacle::Route { address, protocol, oif, metric });
                }
                Err(error) => obstacles.push(Obstacle::NoRoute { address, reason: error.to_string() }),
            }
        }
        found
    }

    async fn execute(&self, changes: Vec<(u32, Change)>) -> Vec<(u32, Change, io::Result<bool>)> {
        stream::iter(changes)
            .map(async |(ifindex, change)| (ifindex, change, self.requests.change(ifindex, change).await))
            .buffered(IN_FLIGHT)
            .collect()
            .await
    }
}

/// One TAP on its way to the plan.
struct Tap {
    interface: String,
    desired: Desired,
    applied: Applied,
    error: Option<KernelError>,
}

impl Tap {
    fn new(interface: &str, desired: Desired) -> Self {
        Self { interface: interface.to_owned(), desired, applied: Applied::default(), error: None }
    }

    /// The first failure counts; the others mostly follow from it.
    fn fail(&mut self, error: impl FnOnce(&str) -> KernelError) {
        if self.error.is_none() {
            self.error = Some(error(&self.interface));
        }
    }

    fn outcome(self) -> Result<Applied, KernelError> {
        self.error.map_or(Ok(self.applied), Err)
    }
}

/// Sysctls go by name and everything else by ifindex: both must mean the same interface.
fn confirm(ifindex: u32, interface: &str) -> Result<(), KernelError> {
    match nix::net::if_::if_nametoindex(interface) {
        Ok(there) if there == ifindex => Ok(()),
        Ok(_) | Err(nix::Error::ENODEV) => Err(KernelError::Vanished { interface: interface.to_owned() }),
        Err(error) => Err(KernelError::of(interface, || format!("look up {interface}"), error.into())),
    }
}

fn refused(interface: &str, change: Change, source: io::Error) -> KernelError {
    KernelError::of(interface, || format!("{change} on {interface}"), source)
}

fn unreadable(interface: &str, source: io::Error) -> KernelError {
    KernelError::of(interface, || format!("list addresses, neighbours and routes of {interface}"), source)
}

fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}
