//! What `status` and `endpoints` say of an endpoint: pure, from the plan and what is known of its TAP.

use super::ledger::{Entry, Role};
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
    /// What the daemon itself said to the VM.
    pub served: ServeStats,
}

/// One endpoint in the answer to `status`. `fast_path` says whether there is one at all.
pub fn status(
    name: &EndpointName,
    plan: &EndpointPlan,
    fast_path: bool,
    evidence: &Evidence<'_>,
) -> EndpointStatus {
    let (state, reason) = judge(plan, fast_path, evidence.entry);
    let (interface, addresses) = identity(plan);
    EndpointStatus {
        name: name.to_string(),
        interface: interface.to_string(),
        state,
        reason,
        hooks: evidence.entry.map_or(Hooks::OFF, |entry| hooks(&entry.hooks)),
        addresses: plain(addresses),
        counters: counters(&evidence.counters, &evidence.served),
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
        state: judge(plan, fast_path, evidence.entry).0,
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
fn judge(plan: &EndpointPlan, fast_path: bool, entry: Option<&Entry<HookReport>>) -> (State, Option<String>) {
    let attached = match plan {
        EndpointPlan::Pending { interface, .. } => {
            return (State::Pending, Some(format!("waiting for TAP {interface}")));
        }
        EndpointPlan::Rejected { reason, .. } => return (State::Error, Some(reason.clone())),
        EndpointPlan::Attached(attached) => attached,
    };
    let Some(entry) = entry.filter(|entry| is_made(entry, attached)) else {
        return (State::Pending, Some(format!("{} is being set up", attached.interface)));
    };
    let hooks = &entry.hooks;
    let interface = &attached.interface;
    if let Some(fault) = &entry.fault {
        (State::Error, Some(fault.message.clone()))
    } else if fast_path && (hooks.xdp, hooks.tc) == (XdpHook::Off, TcHook::Off) {
        (State::Error, Some(hooks.reason.clone().unwrap_or_else(|| "no hook could be attached".to_owned())))
    } else if !attached.admin_up {
        (State::Down, Some(format!("{interface} is administratively down")))
    } else if !attached.carrier {
        (State::Down, Some(format!("{interface} has no carrier: no VMM has it open")))
    } else {
        (State::Up, hooks.reason.clone())
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

fn counters(counters: &Counters, served: &ServeStats) -> EndpointCounters {
    let dropped = Reason::ALL.iter().map(|reason| (reason.label().to_owned(), counters.dropped(*reason)));
    EndpointCounters {
        forwarded_xdp: counters.get(Counter::ForwardedXdp),
        forwarded_tc: counters.get(Counter::ForwardedTc),
        passed: counters.get(Counter::Passed),
        deferred: counters.get(Counter::Deferred),
        answered_ns: counters.get(Counter::AnsweredNs),
        answered_rs: counters.get(Counter::AnsweredRs) + served.solicitations_answered,
        delivered_xdp: counters.get(Counter::DeliveredXdp),
        delivered_tc: counters.get(Counter::DeliveredTc),
        delivered_kernel: counters.get(Counter::DeliveredKernel),
        dhcp6_replies: served.dhcp6_replies,
        dropped: dropped.filter(|(_, count)| *count > 0).collect(),
    }
}
