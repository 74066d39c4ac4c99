//! What `status` and `endpoints` say of an endpoint: pure, from the plan and what is known of its TAP.

use super::ledger::{Entry, Role};
use super::policy::PolicyReport;
use crate::apply::fastpath::{HookReport, TcHook, XdpHook};
use crate::plan::{Attached, EndpointPlan};
use crate::resource::{EndpointName, HostAddress, InterfaceName};
use crate::serve::ServeStats;
use crate::status::{AttachedDetail, EndpointCounters, EndpointDetail, EndpointStatus, Hooks, State};
use dataplane_ebpf::abi::{Counter, Counters, Reason};
use std::net::Ipv6Addr;

/// What is known of an endpoint's TAP.
#[derive(Default)]
pub struct Evidence<'a> {
    /// What was done to it.
    pub entry: Option<&'a Entry<HookReport>>,
    /// What the hooks counted.
    pub counters: Counters,
    /// Flows that were not remembered.
    pub flow_pressure: u64,
    /// What the daemon itself said to the VM.
    pub served: ServeStats,
    /// What policy says about it, if it counts.
    pub policy: Option<PolicyReport>,
}

/// One endpoint in the answer to `status`. `fast_path` says whether there is one at all.
pub fn status(
    name: &EndpointName,
    plan: &EndpointPlan,
    fast_path: bool,
    evidence: &Evidence<'_>,
) -> EndpointStatus {
    let (state, reason) = judge(plan, fast_path, evidence);
    let (interface, addresses) = identity(plan);
    EndpointStatus {
        name: name.to_string(),
        interface: interface.to_string(),
        state,
        reason,
        hooks: evidence.entry.map_or(Hooks::OFF, |entry| hooks(&entry.hooks)),
        addresses: plain(addresses),
        policies: evidence.policy.as_ref().map(|policy| policy.applied.clone()),
        counters: counters(evidence),
        router_expires_in: evidence.served.router_expires_in,
    }
}

/// One endpoint in the answer to `endpoints`.
pub fn detail(
    name: &EndpointName,
    plan: &EndpointPlan,
    fast_path: bool,
    evidence: &Evidence<'_>,
) -> EndpointDetail {
    let (interface, addresses) = identity(plan);
    EndpointDetail {
        name: name.to_string(),
        interface: interface.to_string(),
        state: judge(plan, fast_path, evidence).0,
        addresses: plain(addresses),
        attached: match plan {
            EndpointPlan::Attached(attached) => Some(AttachedDetail {
                ifindex: attached.ifindex,
                mtu: attached.mtu,
                mac: attached.mac.to_string(),
                gateway_mac: attached.gateway_mac.to_string(),
                gateway: attached.gateway,
                gateways: plain(&attached.gateways),
                leased: plain(&attached.leased),
                valid_lifetime: attached.network.valid_lifetime,
                router_lifetime: attached.network.router_lifetime,
                router_expires_in: evidence.served.router_expires_in,
            }),
            EndpointPlan::Pending { .. } | EndpointPlan::Rejected { .. } => None,
        },
    }
}

/// The state of an endpoint, and what there is to say about it.
fn judge(plan: &EndpointPlan, fast_path: bool, evidence: &Evidence<'_>) -> (State, Option<String>) {
    let attached = match plan {
        EndpointPlan::Pending { interface, .. } => {
            return (State::Pending, Some(format!("waiting for TAP {interface}")));
        }
        EndpointPlan::Rejected { reason, .. } => return (State::Error, Some(reason.clone())),
        EndpointPlan::Attached(attached) => attached,
    };
    let Some(entry) = evidence.entry.filter(|entry| is_made(entry, attached)) else {
        return (State::Pending, Some(format!("{} is being set up", attached.interface)));
    };
    let HookReport { xdp, tc, reason: without } = &entry.hooks;
    let interface = &attached.interface;
    let also_without = |reason: String| match without {
        Some(without) => format!("{reason}; {without}"),
        None => reason,
    };
    if let Some(fault) = &entry.fault {
        (State::Error, Some(fault.message.clone()))
    } else if let Some(fault) = evidence.policy.as_ref().and_then(|policy| policy.fault.as_ref()) {
        (State::Error, Some(also_without(fault.clone())))
    } else if fast_path && (*xdp, *tc) == (XdpHook::Off, TcHook::Off) {
        (State::Error, Some(without.clone().unwrap_or_else(|| format!("{interface} has no hook"))))
    } else if !attached.admin_up {
        (State::Down, Some(also_without(format!("{interface} is administratively down"))))
    } else if !attached.carrier {
        (State::Down, Some(also_without(format!("{interface} has no carrier: no VMM has it open"))))
    } else {
        (State::Up, without.clone())
    }
}

fn is_made(entry: &Entry<HookReport>, attached: &Attached) -> bool {
    matches!(&entry.role, Role::Attached(made) if **made == *attached)
}

fn identity(plan: &EndpointPlan) -> (&InterfaceName, &[HostAddress]) {
    match plan {
        EndpointPlan::Attached(attached) => (&attached.interface, &attached.addresses),
        EndpointPlan::Pending { interface, addresses }
        | EndpointPlan::Rejected { interface, addresses, .. } => (interface, addresses),
    }
}

fn plain(addresses: &[HostAddress]) -> Vec<Ipv6Addr> {
    addresses.iter().map(|address| address.get()).collect()
}

fn hooks(report: &HookReport) -> Hooks {
    Hooks { xdp: report.xdp, tc: report.tc }
}

fn counters(evidence: &Evidence<'_>) -> EndpointCounters {
    let Evidence { counters, served, flow_pressure, .. } = evidence;
    let dropped = Reason::ALL.iter().map(|reason| (reason.label().to_owned(), counters.dropped(*reason)));
    EndpointCounters {
        forwarded_xdp: counters.get(Counter::ForwardedXdp),
        forwarded_tc: counters.get(Counter::ForwardedTc),
        passed: counters.get(Counter::Passed),
        deferred: counters.get(Counter::Deferred),
        answered_ns: counters.get(Counter::AnsweredNs) + served.neighbours_answered,
        answered_rs: counters.get(Counter::AnsweredRs) + served.solicitations_answered,
        delivered_xdp: counters.get(Counter::DeliveredXdp),
        delivered_tc: counters.get(Counter::DeliveredTc),
        delivered_kernel: counters.get(Counter::DeliveredKernel),
        dhcp6_replies: served.dhcp6_replies,
        flow_pressure: *flow_pressure,
        dropped: dropped.filter(|(_, count)| *count > 0).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::ledger::Ledger;
    use crate::daemon::ledger::tests::attached;
    use std::time::Instant;

    const GOOD: HookReport = HookReport { xdp: XdpHook::Native, tc: TcHook::Tcx, reason: None };

    fn name() -> EndpointName {
        EndpointName { namespace: "openstack".into(), name: "web1".into() }
    }

    /// What is said of an endpoint whose TAP was made with this outcome.
    fn judged(
        plan: Attached,
        made: Attached,
        hooks: HookReport,
        outcome: Result<(), String>,
    ) -> (State, String) {
        let mut ledger = Ledger::default();
        let role = Role::Attached(Box::new(made));
        ledger.made(1, role, hooks, outcome.map_err(Into::into), Instant::now());
        let evidence = Evidence { entry: ledger.get(1), ..Evidence::default() };
        let status = status(&name(), &EndpointPlan::Attached(plan), true, &evidence);
        (status.state, status.reason.unwrap_or_default())
    }

    #[test]
    fn up_is_only_what_is_in_place_and_running() {
        let tap = || attached(1, &["2001:db8::1"]);
        let ok = Ok(());
        assert_eq!(judged(tap(), tap(), GOOD, ok.clone()), (State::Up, String::new()));
        let down = || Attached { admin_up: false, ..tap() };
        assert_eq!(judged(down(), down(), GOOD, ok.clone()).0, State::Down);
        let unused = || Attached { carrier: false, ..tap() };
        assert_eq!(judged(unused(), unused(), GOOD, ok.clone()).0, State::Down);
        assert_eq!(judged(tap(), down(), GOOD, ok.clone()), (State::Pending, "tap1 is being set up".into()));
        assert_eq!(judged(tap(), tap(), GOOD, Err("full".into())), (State::Error, "full".into()));
        let foreign = || Some("xdp: somebody else's".to_owned());
        let without_xdp = HookReport { xdp: XdpHook::Off, tc: TcHook::Tcx, reason: foreign() };
        assert_eq!(judged(tap(), tap(), without_xdp.clone(), ok.clone()), (State::Up, foreign().unwrap()));
        let (state, reason) = judged(down(), down(), without_xdp, ok.clone());
        assert_eq!(state, State::Down);
        assert_eq!(reason, "tap1 is administratively down; xdp: somebody else's");
        let without_any = HookReport { xdp: XdpHook::Off, tc: TcHook::Off, reason: foreign() };
        assert_eq!(judged(tap(), tap(), without_any, ok), (State::Error, foreign().unwrap()));
    }

    #[test]
    fn without_a_fast_path_the_kernel_is_enough() {
        let mut ledger = Ledger::default();
        let tap = attached(1, &["2001:db8::1"]);
        let off = HookReport { xdp: XdpHook::Off, tc: TcHook::Off, reason: None };
        ledger.made(1, Role::Attached(Box::new(tap.clone())), off, Ok(()), Instant::now());
        let evidence = Evidence { entry: ledger.get(1), ..Evidence::default() };
        let status = status(&name(), &EndpointPlan::Attached(tap), false, &evidence);
        assert_eq!((status.state, status.reason), (State::Up, None));
    }

    #[test]
    fn only_reasons_that_occurred_are_listed() {
        let mut counted = Counters::default();
        counted.values[Counter::ForwardedTc.index()] = 5;
        counted.values[Counter::AnsweredRs.index()] = 1;
        counted.values[Reason::Vlan.index()] = 2;
        let served = ServeStats { dhcp6_replies: 4, solicitations_answered: 2, ..ServeStats::default() };
        let counters = counters(&Evidence { counters: counted, served, ..Evidence::default() });
        assert_eq!((counters.forwarded_tc, counters.answered_rs, counters.dhcp6_replies), (5, 3, 4));
        assert_eq!(counters.dropped, [("vlan".to_owned(), 2)].into());
    }
}
