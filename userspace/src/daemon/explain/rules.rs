//! What would become of a packet where rules of nftables judge: the policy that they are made of is asked, as are the few
//! things that `plan::nftables` says besides. Pure.

use super::place;
use crate::plan::policy::reference::Packet;
use crate::plan::policy::{Direction, Origin, Policies, StepAction};
use crate::plan::{Attached, Plan};
use crate::resource::policy::Protocol;
use crate::resource::{EndpointName, Resources};
use crate::status::{
    Carried, DecidedAction, Decision, ExplainQuery, Explanation, FlowState, Judge, RuleName, SentBy, Side,
};
use dataplane_ebpf::abi::Reason;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

/// What the rules are made of.
pub struct Judged {
    /// All resources.
    pub resources: Resources,
    /// This host.
    pub plan: Plan,
    /// Its policy; `None`: it does not count.
    pub policies: Option<Policies>,
    /// The host's own addresses.
    pub host: BTreeSet<Ipv6Addr>,
    /// What VMs send to the host is judged by their policy.
    pub host_is_open: bool,
    /// What the host itself sends to VMs is judged by their own policy.
    pub host_is_judged: bool,
}

/// What becomes of the first packet of a flow.
struct Verdict {
    allowed: bool,
    reason: Option<Reason>,
    decisions: Vec<Decision>,
}

impl Judged {
    /// What would become of the packet, were it the first of its flow.
    pub fn explain(&self, query: &ExplainQuery) -> Result<Explanation, String> {
        let ExplainQuery::Packet { from, to, upper } = query else {
            return Err(
                "there is no fast path whose programs could be asked about a frame; say --from and --to"
                    .to_owned(),
            );
        };
        let endpoints: BTreeMap<u32, (EndpointName, Attached)> = self
            .plan
            .attached()
            .map(|(name, attached)| (attached.ifindex, (name.clone(), attached.clone())))
            .collect();
        let (sender, source) = place(from, &self.resources, &endpoints)?;
        let (receiver, destination) = place(to, &self.resources, &endpoints)?;
        if sender.is_none() && receiver.is_none() {
            return Err(format!("neither {source} nor {destination} is an endpoint of this host"));
        }
        let of = |ifindex: Option<u32>| ifindex.and_then(|ifindex| endpoints.get(&ifindex));
        let verdict = match &self.policies {
            None => Verdict { allowed: true, reason: None, decisions: Vec::new() },
            Some(policies) => {
                let ends = (source, destination);
                self.judge(policies, of(sender), of(receiver), ends, *upper)
            }
        };
        let Verdict { allowed, reason, decisions } = verdict;
        let side = |ifindex, address| Side {
            endpoint: of(ifindex).map(|(name, _)| name.to_string()),
            address,
            port: None,
        };
        Ok(Explanation {
            judge: if self.policies.is_some() { Judge::Nftables } else { Judge::Nobody },
            allowed,
            reason: reason.map(|reason| reason.label().to_owned()),
            source: side(sender, source),
            destination: side(receiver, destination),
            decisions,
            flow: FlowState::None,
            by: allowed.then_some(SentBy::Kernel),
            next: None,
            route: None,
        })
    }

    /// The order is that of `plan::nftables::hooks`.
    fn judge(
        &self,
        policies: &Policies,
        sender: Option<&(EndpointName, Attached)>,
        receiver: Option<&(EndpointName, Attached)>,
        ends: (Ipv6Addr, Ipv6Addr),
        upper: Carried,
    ) -> Verdict {
        let at_once =
            |reason: Option<Reason>| Verdict { allowed: reason.is_none(), reason, decisions: Vec::new() };
        let to_host = sender.filter(|(_, attached)| receiver.is_none() && self.is_host(attached, ends.1));
        if to_host.is_some() && every_vm_needs(upper) {
            return at_once(None);
        }
        let from_host = receiver.filter(|(_, attached)| sender.is_none() && self.is_host(attached, ends.0));
        if from_host.is_some() && (!self.host_is_judged || every_host_owes(upper)) {
            return at_once(None);
        }
        if upper.protocol == Protocol::ICMP6.0 && upper.icmp.0 < INFORMATIONAL {
            return at_once(Some(Reason::UnrelatedError));
        }
        if to_host.is_some() && !self.host_is_open {
            return at_once(Some(Reason::HostClosed));
        }
        let asked = sender.map(|(name, _)| (name, Direction::Egress)).into_iter();
        let asked = asked.chain(receiver.map(|(name, _)| (name, Direction::Ingress)));
        let mut decisions = Vec::new();
        for (name, direction) in asked {
            let (allowed, said) = ask(policies, name, direction, ends, upper);
            let endpoint = Some(name.to_string());
            decisions.extend(said.into_iter().map(|(action, origin)| Decision {
                endpoint: endpoint.clone(),
                action,
                rule: RuleName::new(direction, &origin),
            }));
            if !allowed {
                return Verdict { allowed: false, reason: Some(Reason::Policy), decisions };
            }
        }
        Verdict { allowed: true, reason: None, decisions }
    }

    fn is_host(&self, attached: &Attached, address: Ipv6Addr) -> bool {
        let gateways = attached.gateways.iter().map(|gateway| gateway.get());
        gateways.chain([attached.gateway]).any(|own| own == address) || self.host.contains(&address)
    }
}

/// Types of ICMPv6 from here on are no errors.
const INFORMATIONAL: u8 = 128;

/// What VMs may say to the host whatever policy says: multicast listeners, discovery, DHCPv6, DNS.
fn every_vm_needs(upper: Carried) -> bool {
    let Carried { protocol, source_port, port, icmp: (kind, _) } = upper;
    match Protocol(protocol) {
        Protocol::ICMP6 => matches!(kind, 130..=133 | 135 | 136 | 143),
        Protocol::UDP => port == 53 || (source_port, port) == (546, 547),
        _ => false,
    }
}

/// What the host may say to VMs whatever policy says: the other side of it, and errors about what it could not forward.
fn every_host_owes(upper: Carried) -> bool {
    let Carried { protocol, source_port, port, icmp: (kind, _) } = upper;
    match Protocol(protocol) {
        Protocol::ICMP6 => matches!(kind, 0..INFORMATIONAL | 130..=132 | 134..=136 | 143),
        Protocol::UDP => source_port == 53 || (source_port, port) == (547, 546),
        _ => false,
    }
}

/// What one chain says: its verdict, and the rules that log and decide.
fn ask(
    policies: &Policies,
    name: &EndpointName,
    direction: Direction,
    (source, destination): (Ipv6Addr, Ipv6Addr),
    upper: Carried,
) -> (bool, Vec<(DecidedAction, Origin)>) {
    let Some(policy) = policies.endpoints.get(name) else { return (false, Vec::new()) };
    let chain = if direction == Direction::Ingress { &policy.ingress } else { &policy.egress };
    let packet = Packet {
        source,
        destination,
        protocol: Protocol(upper.protocol),
        source_port: upper.source_port,
        destination_port: upper.port,
        icmp: upper.icmp,
    };
    let mut said: Vec<_> = chain
        .asked(&policies.sets, &packet)
        .into_iter()
        .map(|step| {
            let action = match step.action {
                StepAction::Allow => DecidedAction::Allow,
                StepAction::Log(_) => DecidedAction::Log,
                StepAction::Deny | StepAction::GoTo(_) => DecidedAction::Deny,
            };
            (action, step.origin.clone())
        })
        .collect();
    // A rule may be several steps.
    said.dedup();
    (said.last().is_some_and(|(action, _)| *action == DecidedAction::Allow), said)
}
