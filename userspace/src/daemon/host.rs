//! The host as the daemon holds it: plan, ledger, and the two targets that steps go to.
//!
//! The order within a step keeps the promise that a TAP without a complete configuration forwards nothing: to open a
//! TAP, policy is in the maps first, then the endpoint, then the hooks, and then the kernel's routes, which without the
//! hooks would let everything pass; to close it, the kernel stops forwarding for it first, and the hooks, which still drop
//! everything, go last.

mod answer;
mod tap;

use super::adopt;
use super::bird::Routing;
use super::events::{Events, Names};
use super::ledger::{Ledger, Role, Step};
use super::policy::Policing;
use super::rests::Rests;
use super::rules::Rules;
use super::uplinks::Uplinks;
use crate::apply::fastpath::{self, FastPath, HookReport, TcHook, XdpHook};
use crate::apply::kernel::Kernel;
use crate::cause::in_one_line;
use crate::config::Config;
use crate::plan::policy::{Direction, Origin};
use crate::plan::{self, Attached, HostFacts, Plan};
use crate::resource::{InterfaceName, Problem};
use crate::serve::Endpoints;
use crate::source::Snapshot;
use crate::status::{Detached, FastPathState, FastPathStatus};
use dataplane_ebpf::abi::{Event, event_kinds};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// While many steps are taken, those who serve the endpoints hear of them this often.
const PUBLISH: Duration = Duration::from_millis(50);

/// Everything the daemon knows and holds.
pub struct Host {
    config: Config,
    facts: HostFacts,
    snapshot: Arc<Snapshot>,
    plan: Plan,
    ledger: Ledger<HookReport>,
    /// What the ledger asked for last and has not been done: to be asked again when plan or ledger change otherwise than
    /// by these steps.
    steps: VecDeque<Step>,
    kernel: Kernel,
    /// Why the host as a whole does not route, and what to do.
    host_fault: Option<String>,
    fast_path: Result<FastPath, FastPathStatus>,
    routing: Routing,
    uplinks: Uplinks,
    events: Events,
    policing: Policing,
    rules: Rules,
    rests: Rests,
    /// Without a fast path of ours there may be the programs of an earlier daemon.
    inherited: bool,
    endpoints: watch::Sender<Endpoints>,
    published: Instant,
    /// The resource directory could be read once. Before that nobody knows whose a TAP is, and nothing is touched.
    known: bool,
    /// All that was found at the start has been applied once, and what an earlier daemon left besides is gone.
    ready: bool,
    drift: u64,
}

impl Host {
    /// Prepares the host and adopts what an earlier daemon left. Steps follow.
    pub async fn open(
        config: Config,
        facts: HostFacts,
        snapshot: Arc<Snapshot>,
        events: Events,
    ) -> anyhow::Result<Self> {
        let mut host = Self {
            kernel: Kernel::open(&config.tap_prefix)?,
            fast_path: adopt::fast_path(&config).await,
            routing: Routing::open(&config),
            uplinks: Uplinks::new(),
            events,
            policing: Policing::new(config.policy),
            rules: Rules::new(),
            rests: Rests::default(),
            inherited: true,
            config,
            facts,
            snapshot: Arc::default(),
            plan: Plan::default(),
            ledger: Ledger::default(),
            steps: VecDeque::new(),
            host_fault: None,
            endpoints: watch::Sender::default(),
            published: Instant::now(),
            known: false,
            ready: false,
            drift: 0,
        };
        host.prepare().await;
        if let Ok(fast_path) = &mut host.fast_path {
            host.policing.open(fast_path);
        }
        host.see_resources(snapshot);
        host.follow_routes();
        Ok(host)
    }

    /// The endpoints as they come and go, for those who serve them.
    pub fn endpoints(&self) -> watch::Receiver<Endpoints> {
        self.endpoints.subscribe()
    }

    /// The interfaces changed.
    pub fn see_links(&mut self, facts: HostFacts, touched: &BTreeSet<u32>) {
        self.facts = facts;
        self.steps.clear();
        self.ledger.touch(touched);
        self.replan();
        self.apply_uplinks();
    }

    /// The interfaces that routes to other hosts use, as that changes.
    pub fn used_interfaces(&self) -> watch::Receiver<BTreeSet<u32>> {
        self.uplinks.used()
    }

    /// Brings the uplinks up to date.
    pub fn apply_uplinks(&mut self) {
        if let Ok(fast_path) = &mut self.fast_path {
            self.uplinks.apply(&self.config, &self.facts, fast_path);
        }
    }

    /// The resources changed.
    pub fn see_resources(&mut self, snapshot: Arc<Snapshot>) {
        for problem in &snapshot.problems {
            if !self.snapshot.problems.contains(problem) {
                tracing::warn!("{problem}");
            }
        }
        let directory = &self.config.resources.directory;
        let unreadable = |p: &Problem| p.is_error() && !p.kept && p.line.is_none() && p.file == *directory;
        self.known |= !snapshot.problems.iter().any(unreadable);
        self.snapshot = snapshot;
        if self.known {
            self.policing.see_resources(&self.snapshot.resources, &self.config.node);
        }
        self.replan();
    }

    /// The most urgent step.
    pub fn next_step(&mut self, now: Instant) -> Option<Step> {
        if self.steps.is_empty() {
            self.steps = self.ledger.steps(&self.plan, now).into();
        }
        self.steps.front().cloned()
    }

    /// When something that failed is to be tried again.
    pub fn wake(&self) -> Option<Instant> {
        [self.ledger.wake(), self.policing.wake(), self.rests.wake()].into_iter().flatten().min()
    }

    /// Takes the most urgent step.
    pub async fn take(&mut self, step: Step) {
        self.steps.pop_front();
        let now = Instant::now;
        match step {
            Step::Remove(ifindex, interface) => {
                let result = self.close(ifindex).await;
                self.ledger.removed(ifindex, result.map(|_| ()), now());
                self.tell(ifindex, &interface);
            }
            Step::Make(ifindex, role) => {
                let (hooks, result) = match &role {
                    Role::Blocked(_) => (off(), self.close(ifindex).await),
                    Role::Attached(attached) => self.open_tap(attached).await,
                };
                let interface = role.interface().clone();
                let is_audit = self.ledger.is_audit(ifindex, &role);
                if is_audit {
                    self.note_drift(result.as_ref().copied().unwrap_or(0), interface.as_str());
                }
                self.ledger.made(ifindex, role, hooks, result.map(|_| ()), now());
                if !is_audit {
                    self.tell(ifindex, &interface);
                }
            }
        }
        if self.published.elapsed() >= PUBLISH {
            self.publish();
        }
    }

    /// There is no step to take at the moment. The first time, all that was found at the start has been applied, and
    /// what else an earlier daemon left can go.
    pub async fn settle(&mut self) {
        self.publish();
        self.policing.collect();
        if self.known && self.fast_path.is_ok() {
            self.rules.remove();
        }
        if self.ready || !self.known {
            return;
        }
        self.ready = true;
        let keep: BTreeSet<u32> = self.plan.attached().map(|(_, attached)| attached.ifindex).collect();
        match self.kernel.sweep(&keep).await {
            Ok(0) => {}
            Ok(swept) => tracing::info!("removed {swept} routes, neighbours and addresses of an earlier run"),
            Err(error) => tracing::warn!("what an earlier run left in the kernel stays: {error}"),
        }
        if let Ok(fast_path) = &mut self.fast_path {
            match fast_path.retain(&keep) {
                Ok(gone) if gone.is_empty() => {}
                Ok(gone) => {
                    tracing::info!("removed the fast path of {} interfaces of an earlier run", gone.len())
                }
                Err(error) => {
                    tracing::warn!("what an earlier run left of the fast path stays: {}", in_one_line(&error))
                }
            }
        }
    }

    /// Looks at everything that is ours, and repairs what others changed.
    pub async fn audit(&mut self) {
        let repaired = self.prepare().await;
        self.note_drift(repaired, "the host");
        match &mut self.fast_path {
            Ok(fast_path) if self.ready => match fast_path.verify() {
                Ok(repaired) => self.note_drift(repaired, "the fast path"),
                Err(error) => tracing::warn!("cannot verify the fast path: {}", in_one_line(&error)),
            },
            Err(status) if status.state == FastPathState::Unavailable => match adopt::open(&self.config) {
                Ok(mut fast_path) => {
                    self.policing.open(&mut fast_path);
                    self.policing.apply(&self.plan);
                    self.fast_path = Ok(fast_path);
                    self.follow_routes();
                    let taps = self.ledger.attached().map(|(ifindex, _)| ifindex).collect();
                    self.ledger.touch(&taps);
                }
                Err(error) => status.reason = Some(in_one_line(&error)),
            },
            Ok(_) | Err(_) => {}
        }
        let repaired = self.policing.audit(&self.plan);
        self.note_drift(repaired, "policy");
        let repaired = self.rules.audit();
        self.note_drift(repaired, "nftables");
        self.keep_rules();
        self.uplinks.audit();
        self.apply_uplinks();
        self.steps.clear();
        self.ledger.audit();
    }

    /// Whoever listens to what becomes of packets wants to hear something else.
    pub fn listen(&mut self) {
        self.events.listen();
    }

    /// The hooks tell of packets.
    pub fn tell_events(&mut self, events: &[Event]) {
        self.events.tell(events, &HostNames { plan: &self.plan, policing: &self.policing });
        for event in events.iter().filter(|event| event.kind == event_kinds::COPIED) {
            self.see_copy(event.from_ifindex);
        }
    }

    fn replan(&mut self) {
        if !self.known {
            return;
        }
        self.steps.clear();
        let settings = plan::Settings { node: &self.config.node, tap_prefix: &self.config.tap_prefix };
        let before =
            std::mem::replace(&mut self.plan, plan::plan(&self.snapshot.resources, &self.facts, settings));
        for conflict in &self.plan.conflicts {
            if !before.conflicts.contains(conflict) {
                tracing::warn!("{conflict}");
            }
        }
        self.policing.apply(&self.plan);
        self.keep_rules();
        self.routing.replan(&self.config, &self.snapshot.resources);
    }

    /// Without a fast path, rules judge in its place.
    fn keep_rules(&mut self) {
        if self.known && self.fast_path.is_err() {
            let judged = self.rules.keep(&self.config, self.policing.policies(), &self.plan);
            // Programs of an earlier daemon would go on with what that one knew.
            if judged && std::mem::take(&mut self.inherited) {
                adopt::take_off(&self.config);
            }
        }
    }

    /// Makes the host a router; how many things that took.
    async fn prepare(&mut self) -> usize {
        match self.kernel.prepare_host().await {
            Ok(changed) => {
                self.host_fault = None;
                changed
            }
            Err(error) => {
                let fault = error.to_string();
                if self.host_fault.as_ref() != Some(&fault) {
                    tracing::error!("{fault}");
                }
                self.host_fault = Some(fault);
                0
            }
        }
    }

    /// There is a fast path, so routes to other hosts are mirrored into its maps.
    fn follow_routes(&mut self) {
        if let Ok(fast_path) = &mut self.fast_path {
            self.events.follow(fast_path);
            self.uplinks.start(&self.config, fast_path);
            self.uplinks.apply(&self.config, &self.facts, fast_path);
        }
    }

    fn detach(&mut self) -> anyhow::Result<Detached> {
        if self.known {
            self.rules.replace_hooks(&self.config, self.policing.policies(), &self.plan)?;
        }
        self.uplinks.stop();
        self.policing.stop();
        self.rests = Rests::default();
        let detached = FastPathStatus {
            state: FastPathState::Detached,
            reason: Some("taken off by `serval detach`; restart the daemon to put it back".to_owned()),
        };
        let taps = match std::mem::replace(&mut self.fast_path, Err(detached)) {
            Ok(fast_path) => fast_path.detach()?,
            Err(_) => fastpath::detach_pinned(&self.config.paths.pin)?,
        };
        self.ledger.hooks_mut().for_each(|hooks| *hooks = off());
        Ok(Detached { taps })
    }

    fn publish(&mut self) {
        self.published = Instant::now();
        let now: BTreeMap<u32, Attached> =
            self.ledger.attached().map(|(ifindex, attached)| (ifindex, attached.clone())).collect();
        self.endpoints.send_if_modified(|published| {
            let news = **published != now;
            if news {
                *published = Arc::new(now);
            }
            news
        });
    }

    fn note_drift(&mut self, repaired: usize, what: &str) {
        if repaired > 0 {
            tracing::warn!("{what}: somebody else changed what is ours; repaired ({repaired})");
            self.drift += repaired as u64;
        }
    }

    fn tell(&self, ifindex: u32, interface: &InterfaceName) {
        let entry = self.ledger.get(ifindex);
        match entry.and_then(|entry| entry.fault.as_ref()) {
            Some(fault) if fault.is_news() => tracing::warn!("{interface}: {}", fault.message),
            Some(fault) => tracing::debug!("{interface}: {}", fault.message),
            None => match entry.map(|entry| (&entry.role, &entry.hooks)) {
                Some((Role::Attached(_), hooks)) => {
                    tracing::info!("{interface}: set up, xdp {}, tc {}", hooks.xdp, hooks.tc);
                }
                Some((Role::Blocked(_), _)) => tracing::info!("{interface}: blocked, as no endpoint has it"),
                None => tracing::info!("{interface}: gone"),
            },
        }
    }
}

/// What numbers in events stand for on this host.
struct HostNames<'a> {
    plan: &'a Plan,
    policing: &'a Policing,
}

impl Names for HostNames<'_> {
    fn endpoint(&self, ifindex: u32) -> Option<String> {
        let of = |(_, attached): &(_, &Attached)| attached.ifindex == ifindex;
        self.plan.attached().find(of).map(|(name, _)| name.to_string())
    }

    fn step(&self, chain: u32, step: u32) -> Option<(Direction, Origin)> {
        self.policing.step(chain, step)
    }
}

fn off() -> HookReport {
    HookReport { xdp: XdpHook::Off, tc: TcHook::Off, reason: None }
}
