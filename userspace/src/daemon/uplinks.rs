//! The side towards other hosts: uplinks, and the mirror of the kernel's routes.

use crate::apply::fastpath::{FastPath, HookReport, TcHook, XdpHook};
use crate::apply::routes::{self, Mirror, RoutesQuery, RoutesReport, RoutesState, RoutesStatus};
use crate::cause::in_one_line;
use crate::config::Config;
use crate::plan::{self, HostFacts, Uplink};
use crate::status::{Hooks, UplinkStatus};
use dataplane_ebpf::abi::Mac;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::{oneshot, watch};

/// The uplinks and the mirror.
pub struct Uplinks {
    /// The mirror at work, or why there is none; `None` without a fast path.
    mirror: Option<Result<Mirror, String>>,
    /// The interfaces that routes use.
    used: watch::Sender<BTreeSet<u32>>,
    /// Those that routes have used since the start and that are still there: a route that comes and goes shall not take
    /// the programs along each time.
    kept: BTreeSet<u32>,
    applied: BTreeMap<u32, (Uplink, HookReport)>,
    /// Something failed, and is tried again at the next occasion.
    unfinished: bool,
}

impl Uplinks {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            mirror: None,
            used: watch::Sender::default(),
            kept: BTreeSet::new(),
            applied: BTreeMap::new(),
            unfinished: true,
        }
    }

    /// The interfaces that routes to other hosts use, as that changes; what is known by now counts as a change.
    pub fn used(&self) -> watch::Receiver<BTreeSet<u32>> {
        let mut used = self.used.subscribe();
        used.mark_changed();
        used
    }

    /// There is a fast path: begins to mirror routes into its maps.
    pub fn start(&mut self, config: &Config, fast_path: &mut FastPath) {
        let Some(maps) = fast_path.take_routes() else { return };
        let settings = routes::Settings {
            max_routes: config.limits.routes,
            uplinks: config.uplinks.clone(),
            tap_prefix: config.tap_prefix.clone(),
            receive_buffer: routes::Settings::RECEIVE_BUFFER,
        };
        let mirror = Mirror::start(maps, &settings, self.used.clone());
        self.mirror = Some(mirror.map_err(|error| {
            let reason = in_one_line(&error);
            tracing::warn!("all routes to other hosts are the kernel's: {reason}");
            reason
        }));
    }

    /// The uplinks by ifindex.
    pub fn applied(&self) -> impl Iterator<Item = (u32, &plan::Uplink)> {
        self.applied.iter().map(|(ifindex, (uplink, _))| (*ifindex, uplink))
    }

    /// The fast path ends.
    pub fn stop(&mut self) {
        self.mirror = None;
        self.kept.clear();
        self.applied.clear();
        self.unfinished = true;
    }

    /// Brings the uplinks to what configuration, interfaces and routes say.
    pub fn apply(&mut self, config: &Config, facts: &HostFacts, fast_path: &mut FastPath) {
        let starting = self.routes().is_some_and(|routes| routes.state == RoutesState::Starting);
        if starting && config.uplinks.is_empty() {
            // Nobody knows yet; what an earlier daemon left goes on.
            return;
        }
        self.kept.extend(self.used.borrow().iter());
        self.kept.retain(|ifindex| facts.links.values().any(|link| link.ifindex == *ifindex));
        let wanted = plan::uplinks(facts, &config.uplinks, &self.kept, &config.tap_prefix);
        let settled = wanted.keys().eq(self.applied.keys())
            && wanted.iter().all(|(ifindex, uplink)| self.applied[ifindex].0 == *uplink);
        if settled && !self.unfinished {
            return;
        }
        let macs: BTreeMap<u32, Mac> =
            wanted.iter().map(|(ifindex, uplink)| (*ifindex, Mac::new(uplink.mac.octets()))).collect();
        let outcomes = match fast_path.apply_uplinks(&macs) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                tracing::warn!("uplinks: {}", in_one_line(&error));
                self.unfinished = true;
                return;
            }
        };
        self.unfinished = outcomes.values().any(Result::is_err);
        let before = std::mem::take(&mut self.applied);
        for ((ifindex, uplink), outcome) in wanted.into_iter().zip(outcomes.into_values()) {
            let report = outcome.unwrap_or_else(|error| HookReport {
                xdp: XdpHook::Off,
                tc: TcHook::Off,
                reason: Some(in_one_line(&error)),
            });
            let now = (uplink, report);
            if before.get(&ifindex) != Some(&now) {
                let (uplink, report) = &now;
                tracing::info!("{}: uplink, xdp {}, tc {}", uplink.interface, report.xdp, report.tc);
            }
            self.applied.insert(ifindex, now);
        }
        if let Some(Ok(mirror)) = &self.mirror {
            let devices = self.applied.keys().copied();
            mirror.set_devices(devices.filter(|ifindex| fast_path.is_uplink_device(*ifindex)).collect());
        }
    }

    /// The next [`apply`](Self::apply) looks at every uplink: what others attached may be gone, or have come.
    pub fn audit(&mut self) {
        self.unfinished = true;
    }

    /// The uplinks, for `status`.
    pub fn status(&self) -> Vec<UplinkStatus> {
        let uplinks = self.applied.values();
        uplinks
            .map(|(uplink, report)| UplinkStatus {
                interface: uplink.interface.to_string(),
                hooks: Hooks { xdp: report.xdp, tc: report.tc },
                reason: report.reason.clone(),
            })
            .collect()
    }

    /// The routes as a whole, for `status`.
    pub fn routes(&self) -> Option<RoutesStatus> {
        self.mirror.as_ref().map(|mirror| match mirror {
            Ok(mirror) => mirror.status(),
            Err(reason) => RoutesStatus {
                state: RoutesState::Suspended,
                reason: Some(reason.clone()),
                ..RoutesStatus::default()
            },
        })
    }

    /// Routes, as soon as the mirror has collected them; or why there are none.
    pub fn report(&self, query: RoutesQuery) -> Result<oneshot::Receiver<RoutesReport>, String> {
        match &self.mirror {
            Some(Ok(mirror)) => Ok(mirror.report(query)),
            Some(Err(reason)) => Err(reason.clone()),
            None => Err("there is no fast path; the kernel forwards alone (see `serval status`)".to_owned()),
        }
    }
}
