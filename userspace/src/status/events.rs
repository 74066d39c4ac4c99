//! What `serval monitor --json` says of packets, a line each, and what rules are called wherever they are told of. Fields may
//! be added, not renamed.

use crate::plan::policy::{Direction, Origin};
use dataplane_ebpf::wire::protocol;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv6Addr;

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketEvent {
    /// Milliseconds since 1970.
    pub time: u64,
    /// What became of it.
    pub kind: EventKind,
    /// Why it was dropped, by its label in the counters of `serval status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The rule that decided, or logs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleName>,
    /// Where it comes from.
    pub source: Side,
    /// Where it goes.
    pub destination: Side,
    /// Its protocol.
    pub protocol: u8,
    /// Type and code, of ICMPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<(u8, u8)>,
    /// Which hook asked.
    pub hook: EventHook,
    /// It is an ICMPv6 error about a packet of this flow.
    #[serde(default, skip_serializing_if = "is_false")]
    pub error: bool,
    /// It is an answer, whose flow policy was asked about again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub answer: bool,
    /// How many events of the same sender were left out since the one before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suppressed: u32,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// Policy, or what is known of its flow, does not let it pass.
    Denied,
    /// A rule logs it.
    Logged,
    /// It is the first of a flow, and may pass.
    Allowed,
    /// It is one that no VM may send.
    Dropped,
}

/// Where a packet was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventHook {
    /// XDP, where it came in.
    Xdp,
    /// TC, where it came in.
    Tc,
    /// TC, on its way out to the VM.
    Out,
}

/// One end of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// The endpoint of this host that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Address.
    pub address: Ipv6Addr,
    /// Port, or identifier of an echo; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// What a rule is called, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleName {
    /// To the VM, or from it.
    pub direction: Way,
    /// What VMs may not send whatever policy says, if it is that: `VXLAN` or `IP in IP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<String>,
    /// The tier, if it is a tier's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// The policy, if it is a policy's: with its namespace, unless that is `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The profile, if it is a profile's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Its place in the document, from 0; absent: no rule of tier or profile matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
}

/// What a rule did: first packets of flows, and packets that are no flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCount {
    /// The rule.
    #[serde(flatten)]
    pub rule: RuleName,
    /// Packets that it let pass, if it is one that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<u64>,
    /// Packets that it dropped, if it is one that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<u64>,
}

/// A direction, seen from the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// To the VM.
    Ingress,
    /// From the VM.
    Egress,
}

impl From<Direction> for Way {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Ingress => Self::Ingress,
            Direction::Egress => Self::Egress,
        }
    }
}

impl RuleName {
    /// Of a step's origin.
    pub fn new(direction: Direction, origin: &Origin) -> Self {
        let mut name = Self {
            direction: direction.into(),
            tunnel: None,
            tier: None,
            policy: None,
            profile: None,
            rule: None,
        };
        match origin {
            Origin::Tunnel(tunnel) => name.tunnel = Some(tunnel.to_string()),
            Origin::Rule { tier, policy, rule } => {
                name.tier = Some(tier.clone());
                name.policy = Some(policy.to_string());
                name.rule = Some(*rule);
            }
            Origin::TierDefault { tier } => name.tier = Some(tier.clone()),
            Origin::Profile { profile, rule } => {
                name.profile = Some(profile.clone());
                name.rule = Some(*rule);
            }
            Origin::NoProfile => {}
        }
        name
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.direction)?;
        if let Some(tunnel) = &self.tunnel {
            return write!(f, "no VM may send {tunnel}");
        }
        match (&self.tier, &self.policy, &self.profile, self.rule) {
            (Some(tier), Some(policy), _, Some(rule)) => {
                write!(f, "tier {tier}, policy {policy}, rule {rule}")
            }
            (Some(tier), ..) => write!(f, "tier {tier}, no rule matches"),
            (None, _, Some(profile), Some(rule)) => write!(f, "profile {profile}, rule {rule}"),
            (None, ..) => f.write_str("no policy or profile allows it"),
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(endpoint) = &self.endpoint {
            write!(f, "{endpoint} ")?;
        }
        match self.port {
            Some(port) => write!(f, "[{}]:{port}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Denied => "denied",
            Self::Logged => "logged",
            Self::Allowed => "allowed",
            Self::Dropped => "dropped",
        })
    }
}

impl fmt::Display for PacketEvent {
    /// Without the time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, source, destination, .. } = self;
        let hook = match self.hook {
            EventHook::Xdp => "xdp",
            EventHook::Tc => "tc",
            EventHook::Out => "out",
        };
        write!(f, "{kind:7} {} {source} -> {destination}", Protocol(self.protocol))?;
        if let Some((kind, code)) = self.icmp {
            write!(f, " type {kind} code {code}")?;
        }
        if self.error {
            write!(f, " (an ICMPv6 error about it)")?;
        }
        if self.answer {
            write!(f, " (an answer)")?;
        }
        match (&self.rule, &self.reason) {
            (Some(rule), _) => write!(f, ": {rule}")?,
            (None, Some(reason)) => write!(f, ": {reason}")?,
            (None, None) => {}
        }
        write!(f, " [{hook}]")?;
        if self.suppressed > 0 {
            write!(f, " ({} more not told)", self.suppressed)?;
        }
        Ok(())
    }
}

/// A protocol as events name it.
struct Protocol(u8);

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            protocol::FRAGMENT => f.write_str("fragment"),
            number => crate::resource::policy::Protocol(number).fmt(f),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::policy::Tunnel;
    use crate::resource::ScopedName;

    fn event() -> PacketEvent {
        let policy = ScopedName { namespace: Some("openstack".into()), name: "web".into() };
        let origin = Origin::Rule { tier: "default".into(), policy, rule: 2 };
        PacketEvent {
            time: 1,
            kind: EventKind::Denied,
            reason: Some("policy".into()),
            rule: Some(RuleName::new(Direction::Ingress, &origin)),
            source: Side { endpoint: None, address: "2001:db8::9".parse().unwrap(), port: Some(4000) },
            destination: Side {
                endpoint: Some("openstack/web1".into()),
                address: "2001:db8::1".parse().unwrap(),
                port: Some(80),
            },
            protocol: 6,
            icmp: None,
            hook: EventHook::Tc,
            error: false,
            answer: false,
            suppressed: 3,
        }
    }

    #[test]
    fn a_line_says_who_and_why() {
        assert_eq!(
            event().to_string(),
            "denied  TCP [2001:db8::9]:4000 -> openstack/web1 [2001:db8::1]:80: \
             ingress tier default, policy openstack/web, rule 2 [tc] (3 more not told)"
        );
    }

    #[test]
    fn json_is_the_contract() {
        let json = serde_json::to_value(event()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "time": 1, "kind": "denied", "reason": "policy", "protocol": 6, "hook": "tc", "suppressed": 3,
                "rule": {"direction": "ingress", "tier": "default", "policy": "openstack/web", "rule": 2},
                "source": {"address": "2001:db8::9", "port": 4000},
                "destination": {"endpoint": "openstack/web1", "address": "2001:db8::1", "port": 80},
            })
        );
        assert_eq!(serde_json::from_value::<PacketEvent>(json).unwrap(), event());
    }

    #[test]
    fn every_origin_has_words() {
        let words = |origin| RuleName::new(Direction::Egress, &origin).to_string();
        assert_eq!(words(Origin::Tunnel(Tunnel::Ipip)), "egress no VM may send IP in IP");
        assert_eq!(words(Origin::NoProfile), "egress no policy or profile allows it");
        assert_eq!(words(Origin::TierDefault { tier: "a".into() }), "egress tier a, no rule matches");
        let profile = Origin::Profile { profile: "open".into(), rule: 0 };
        assert_eq!(words(profile), "egress profile open, rule 0");
    }
}
