//! What the daemon says of itself: the contract of `serval status --json` and `serval endpoints --json`. Types only;
//! the daemon fills them, the command line prints them. Fields may be added, not renamed.

mod compare;
mod events;
mod explain;

pub use compare::{
    Change, Comparison, EndpointChange, FieldChange, MemberChange, PolicyChange, SessionChange,
};
pub use events::{EventHook, EventKind, PacketEvent, RuleCount, RuleName, Side, Way};
pub use explain::{
    Carried, DecidedAction, Decision, ExplainQuery, Explanation, FlowState, Judge, Next, SentBy,
};

use crate::apply::bird::BirdStatus;
use crate::apply::fastpath::{TcHook, XdpHook};
pub use crate::apply::routes::{
    Forwarder, NextHopDetail, RouteDetail, RoutesQuery, RoutesReport, RoutesState, RoutesStatus, Selection,
};
use crate::plan::Conflict;
use crate::resource::Problem;
use crate::source::Snapshot;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

/// Answer to `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Our node.
    pub node: String,
    /// Version of the daemon.
    pub version: String,
    /// Everything found at the start has been applied once.
    pub ready: bool,
    /// What does not work on the host as a whole, and what to do.
    pub faults: Vec<String>,
    /// The fast path as a whole.
    pub fast_path: FastPathStatus,
    /// Every endpoint of this node.
    pub endpoints: Vec<EndpointStatus>,
    /// TAPs that forward nothing because no endpoint has them.
    pub blocked: Vec<String>,
    /// The interfaces towards other hosts.
    #[serde(default)]
    pub uplinks: Vec<UplinkStatus>,
    /// Routes to other hosts; absent without a fast path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<RoutesStatus>,
    /// What every rule did that is about an endpoint of this node.
    #[serde(default)]
    pub policies: Vec<RuleCount>,
    /// What is wrong with the resources.
    pub problems: Vec<Problem>,
    /// BIRD; absent when the configuration has no section for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bird: Option<BirdStatus>,
    /// How many things audits found changed behind the daemon's back, and repaired, since its start.
    pub drift: u64,
}

impl Status {
    /// Why the host is not well; empty when it is. An endpoint whose VM is off, and a fast path that was detached on
    /// request, are well.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if !self.ready {
            complaints.push("the daemon is still starting".to_owned());
        }
        complaints.extend(self.faults.iter().cloned());
        if self.fast_path.state == FastPathState::Unavailable {
            complaints.push("the fast path is unavailable".to_owned());
        }
        let errors = self.endpoints.iter().filter(|endpoint| endpoint.state == State::Error).count();
        if errors > 0 {
            complaints.push(format!("{errors} of {} endpoints in error", self.endpoints.len()));
        }
        complaints.extend(self.bird.iter().flat_map(BirdStatus::complaints));
        let problems = self.problems.iter().filter(|problem| problem.is_error()).count();
        if problems > 0 {
            complaints.push(format!("{problems} errors in the resources"));
        }
        complaints
    }
}

/// Whether frames are forwarded by BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FastPathState {
    /// Programs are loaded.
    On,
    /// Taken off by `serval detach`, until the daemon next starts.
    Detached,
    /// This kernel, or what the daemon may do, does not allow it: the kernel forwards alone.
    Unavailable,
}

/// The fast path as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FastPathStatus {
    /// Whether it is there.
    pub state: FastPathState,
    /// Why it is not, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// State of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All that the plan says is in place and the VM's side is open.
    Up,
    /// Its TAP is not there yet, or is being set up.
    Pending,
    /// All is in place, but the TAP is administratively down or no VMM has it open (it is not `IFF_RUNNING`).
    Down,
    /// Something could not be done; `reason` says what.
    Error,
}

/// One endpoint in [`Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Namespace and name.
    pub name: String,
    /// Its TAP.
    pub interface: String,
    /// Its state.
    pub state: State,
    /// Why it is in this state, or what it does without; absent when there is nothing to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What is attached to its TAP.
    pub hooks: Hooks,
    /// All its addresses: leased ones first, then allowed pairs.
    pub addresses: Vec<Ipv6Addr>,
    /// The policies that are about it, in order; absent when policy does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<Vec<String>>,
    /// Its frames.
    pub counters: EndpointCounters,
    /// Seconds until the VM's default route expires, had it heard no further advertisement; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_expires_in: Option<u64>,
}

/// What is attached to a TAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// `native`, `generic` or `off`.
    pub xdp: XdpHook,
    /// `tcx`, `clsact` or `off`.
    pub tc: TcHook,
}

impl Hooks {
    /// Nothing is attached.
    pub const OFF: Self = Self { xdp: XdpHook::Off, tc: TcHook::Off };
}

/// Frames of an endpoint; from and to are the VM's point of view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointCounters {
    /// From the VM, sent on by XDP.
    pub forwarded_xdp: u64,
    /// From the VM, sent on by TC.
    pub forwarded_tc: u64,
    /// From the VM, left to the kernel.
    pub passed: u64,
    /// From the VM, left by XDP to TC.
    pub deferred: u64,
    /// Neighbour solicitations answered by BPF.
    pub answered_ns: u64,
    /// Router solicitations answered, by BPF or by the daemon.
    pub answered_rs: u64,
    /// To the VM, by XDP.
    pub delivered_xdp: u64,
    /// To the VM, by TC.
    pub delivered_tc: u64,
    /// To the VM, by the kernel.
    pub delivered_kernel: u64,
    /// DHCPv6 messages the daemon answered.
    pub dhcp6_replies: u64,
    /// Flows that could not be remembered, because the endpoint's share was used up by others of its own.
    #[serde(default)]
    pub flow_pressure: u64,
    /// From the VM, dropped, by reason; reasons that never occurred are left out.
    pub dropped: BTreeMap<String, u64>,
}

/// One endpoint in the answer to `endpoints`: who it is on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointDetail {
    /// Namespace and name.
    pub name: String,
    /// Its TAP.
    pub interface: String,
    /// Its state.
    pub state: State,
    /// All its addresses: leased ones first, then allowed pairs.
    pub addresses: Vec<Ipv6Addr>,
    /// What the TAP adds; absent as long as it is not there or not ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<AttachedDetail>,
}

/// An endpoint whose TAP is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedDetail {
    /// The TAP's ifindex.
    pub ifindex: u32,
    /// The TAP's MTU in bytes.
    pub mtu: u32,
    /// MAC of the VM.
    pub mac: String,
    /// MAC of its router: of the TAP.
    pub gateway_mac: String,
    /// Link-local address of its router.
    pub gateway: Ipv6Addr,
    /// Further addresses of its router.
    pub gateways: Vec<Ipv6Addr>,
    /// The addresses DHCPv6 leases.
    pub leased: Vec<Ipv6Addr>,
    /// Lifetime of a lease in seconds; 4294967295 is forever.
    pub valid_lifetime: u32,
    /// Router lifetime in seconds.
    pub router_lifetime: u16,
    /// Seconds until the VM's default route expires; absent before the first advertisement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_expires_in: Option<u64>,
}

/// One uplink in [`Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// The interface.
    pub interface: String,
    /// What is attached to it.
    pub hooks: Hooks,
    /// Why a hook is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answer to `detach`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detached {
    /// How many TAPs had the fast path.
    pub taps: usize,
}

/// All that is wrong with the resources: what their files say, and where they contradict each other.
pub fn problems(snapshot: &Snapshot, conflicts: &[Conflict]) -> Vec<Problem> {
    let conflicts = conflicts.iter().filter_map(|conflict| {
        let (file, at) = snapshot.places.get(&conflict.loser)?;
        let mut problem = Problem::at(file, *at, &conflict.message).in_field(conflict.field);
        problem.resource = Some(conflict.loser.to_string());
        problem.severity = conflict.severity;
        Some(problem)
    });
    snapshot.problems.iter().cloned().chain(conflicts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status {
            node: "compute-1".into(),
            version: "0.1.0".into(),
            ready: true,
            faults: vec![],
            fast_path: FastPathStatus { state: FastPathState::On, reason: None },
            endpoints: vec![EndpointStatus {
                name: "web1".into(),
                interface: "tap1".into(),
                state: State::Up,
                reason: None,
                hooks: Hooks { xdp: XdpHook::Native, tc: TcHook::Tcx },
                addresses: vec!["2001:db8::1".parse().unwrap()],
                policies: Some(vec!["sg-web".into()]),
                counters: EndpointCounters {
                    dropped: BTreeMap::from([("source_mac".to_owned(), 3)]),
                    ..EndpointCounters::default()
                },
                router_expires_in: None,
            }],
            blocked: vec![],
            uplinks: vec![UplinkStatus {
                interface: "eth0".into(),
                hooks: Hooks { xdp: XdpHook::Off, tc: TcHook::Tcx },
                reason: None,
            }],
            routes: Some(RoutesStatus { mirrored: 2, kernel: 1, next_hops: 1, ..RoutesStatus::default() }),
            policies: vec![],
            problems: vec![],
            bird: None,
            drift: 0,
        }
    }

    #[test]
    fn json_is_the_contract() {
        let json = serde_json::to_value(status()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "node": "compute-1", "version": "0.1.0", "ready": true, "drift": 0,
                "fast_path": {"state": "on"}, "blocked": [], "problems": [], "policies": [], "faults": [],
                "uplinks": [{"interface": "eth0", "hooks": {"xdp": "off", "tc": "tcx"}}],
                "routes": {
                    "state": "starting", "mirrored": 2, "kernel": 1, "next_hops": 1,
                    "overflows": 0, "audits": 0, "drift": 0,
                },
                "endpoints": [{
                    "name": "web1", "interface": "tap1", "state": "up",
                    "hooks": {"xdp": "native", "tc": "tcx"},
                    "addresses": ["2001:db8::1"], "policies": ["sg-web"],
                    "counters": {
                        "forwarded_xdp": 0, "forwarded_tc": 0, "passed": 0, "deferred": 0,
                        "answered_ns": 0, "answered_rs": 0, "delivered_xdp": 0, "delivered_tc": 0,
                        "delivered_kernel": 0, "dhcp6_replies": 0, "flow_pressure": 0,
                        "dropped": {"source_mac": 3},
                    },
                }],
            })
        );
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status());
    }

    #[test]
    fn only_what_needs_somebody_is_a_complaint() {
        let mut status = status();
        assert!(status.complaints().is_empty());
        for state in [State::Down, State::Pending] {
            status.endpoints[0].state = state;
            assert!(status.complaints().is_empty());
        }
        status.fast_path.state = FastPathState::Detached;
        assert!(status.complaints().is_empty());
        status.endpoints[0].state = State::Error;
        status.fast_path.state = FastPathState::Unavailable;
        assert_eq!(status.complaints().len(), 2);
    }
}
