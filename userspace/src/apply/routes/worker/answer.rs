//! What the worker says of routes to whoever asks.

use super::Worker;
use crate::apply::routes::event::Why;
use crate::apply::routes::fib::{RouteView, Suspension};
use crate::apply::routes::hops::View;
use crate::apply::routes::prefix::Prefix;
use crate::apply::routes::report::{
    self, Forwarder, NextHopDetail, RouteDetail, RoutesQuery, RoutesReport, RoutesState, RoutesStatus,
    Selection,
};

impl Worker {
    /// Routes as a whole.
    pub(super) fn status(&self) -> RoutesStatus {
        let (state, reason) = match (self.fib.suspension(), &self.fault) {
            (_, Some(fault)) => (RoutesState::Suspended, Some(fault.clone())),
            (Some(Suspension::Starting), None) => (RoutesState::Starting, None),
            (Some(Suspension::PolicyRules), None) => (
                RoutesState::Suspended,
                Some(
                    "policy rules other than the default ones (`ip -6 rule`) decide about routes: all are the kernel's"
                        .to_owned(),
                ),
            ),
            (Some(Suspension::TooManyRoutes), None) => (
                RoutesState::Suspended,
                Some(
                    "more routes than the maps hold: all are the kernel's; raise `routes` in `[limits]` and restart"
                        .to_owned(),
                ),
            ),
            (None, None) => (RoutesState::On, None),
        };
        let (mirrored, kernel) = self.fib.counts();
        let next_hops = self.fib.hops().usable();
        RoutesStatus {
            state,
            reason,
            mirrored,
            kernel,
            next_hops,
            overflows: self.overflows,
            audits: self.audits,
            drift: self.drift,
        }
    }

    /// The routes that are asked for.
    pub(super) fn report(&self, query: RoutesQuery) -> RoutesReport {
        let mut views: Box<dyn Iterator<Item = RouteView> + '_> = match query.selection {
            Selection::Towards(address) => Box::new(self.fib.towards(address)),
            Selection::Within(net) => match Prefix::new(net.addr(), net.prefix_len()) {
                Some(prefix) => Box::new(self.fib.within(prefix)),
                None => Box::new(std::iter::empty()),
            },
            Selection::All => Box::new(self.fib.within(Prefix::ALL)),
        };
        let limit = query.limit.unwrap_or(usize::MAX);
        let routes: Vec<RouteDetail> = views.by_ref().take(limit).map(|view| self.detail(view)).collect();
        RoutesReport { status: self.status(), bird: None, matching: routes.len() + views.count(), routes }
    }

    fn detail(&self, view: RouteView) -> RouteDetail {
        let hops = view.hops.as_deref().unwrap_or_default();
        let fast = hops.iter().any(|hop| hop.mac.is_some())
            && self.status.lock().is_ok_and(|s| s.state == RoutesState::On);
        let why = match &view.hops {
            Err(why) => Some(*why),
            Ok(hops) => hops.iter().find_map(|hop| hop.why),
        };
        let next_hop = |hop: &View| NextHopDetail {
            address: hop.hop.gateway,
            interface: match self.fib.hops().link(hop.hop.ifindex) {
                Some(link) => link.name.clone(),
                None => hop.hop.ifindex.to_string(),
            },
            weight: hop.hop.weight,
            mac: hop.mac.map(|mac| report::mac(&mac.octets())),
            xdp: hop.xdp,
            reason: hop.why.as_ref().map(Why::to_string),
        };
        RouteDetail {
            destination: view.prefix.to_string(),
            metric: view.metric,
            protocol: report::protocol(view.protocol),
            mtu: Some(view.mtu).filter(|mtu| *mtu != 0),
            state: if fast { Forwarder::Fast } else { Forwarder::Kernel },
            reason: why.filter(|_| !fast).map(|why| why.to_string()),
            next_hops: hops.iter().map(next_hop).collect(),
        }
    }
}
