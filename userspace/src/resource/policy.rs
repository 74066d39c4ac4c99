//! Network policy: Calico v3 `NetworkPolicy`, `GlobalNetworkPolicy`, `Tier`, `Profile`, `NetworkSet` and
//! `GlobalNetworkSet`, as far as IPv6 is concerned.
//!
//! The types say what a document says; what that means for a packet is in `plan::policy`.

mod matching;

pub use matching::{Entity, IcmpMatch, Port, PortRange, Protocol};

use super::Selector;
use ipnet::Ipv6Net;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

/// The tier of a policy that names none. It is there without a document, last, and denies.
pub const DEFAULT_TIER: &str = "default";

/// Namespace and name of something that may be global.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopedName {
    /// `metadata.namespace`; `None` when the kind is global.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for ScopedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_deref() {
            None | Some("default") => f.write_str(&self.name),
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// `spec.order`: the smaller comes first, and none is last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Order(pub Option<f64>);

impl Order {
    fn value(self) -> f64 {
        self.0.unwrap_or(f64::INFINITY)
    }
}

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Order {}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Order {
    fn cmp(&self, other: &Self) -> Ordering {
        self.value().total_cmp(&other.value())
    }
}

/// A `NetworkPolicy` or `GlobalNetworkPolicy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name; without a namespace it is global.
    pub name: ScopedName,
    /// `spec.tier`.
    pub tier: String,
    /// `spec.order`: its place in the tier.
    pub order: Order,
    /// The endpoints it is about: `spec.selector`, and what else the document says of them, namespaces included.
    pub selector: Selector,
    /// What it says of packets to the VM, if `spec.types` has that direction.
    pub ingress: Option<Vec<Rule>>,
    /// What it says of packets from the VM, if `spec.types` has that direction.
    pub egress: Option<Vec<Rule>>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What becomes of a packet that matches.
    pub action: Action,
    /// Whether it is about IPv6 at all: `ipVersion`, or `protocol: ICMP`, may say it is not.
    pub ipv6: bool,
    /// `protocol`.
    pub protocol: Option<Protocol>,
    /// `notProtocol`.
    pub not_protocol: Option<Protocol>,
    /// `icmp`.
    pub icmp: Option<IcmpMatch>,
    /// `notICMP`.
    pub not_icmp: Option<IcmpMatch>,
    /// `source`.
    pub source: Entity,
    /// `destination`.
    pub destination: Entity,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// The packet may pass in this direction.
    Allow,
    /// The packet is dropped.
    Deny,
    /// The next tier decides, or the profiles.
    Pass,
    /// The packet is logged, and the next rule decides.
    Log,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "Allow",
            Self::Deny => "Deny",
            Self::Pass => "Pass",
            Self::Log => "Log",
        })
    }
}

/// A `Tier`: policies that are asked one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// `metadata.name`.
    pub name: String,
    /// `spec.order`: its place among the tiers.
    pub order: Order,
    /// `spec.defaultAction` is `Pass`: a packet that no policy of the tier decides about goes on to the next tier.
    /// Otherwise it is dropped.
    pub passes: bool,
}

/// A `Profile`: rules of endpoints that name it, asked after all tiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// `metadata.name`.
    pub name: String,
    /// What it says of packets to the VM.
    pub ingress: Vec<Rule>,
    /// What it says of packets from the VM.
    pub egress: Vec<Rule>,
    /// `spec.labelsToApply`: labels its endpoints have besides their own.
    pub labels: BTreeMap<String, String>,
}

/// A `NetworkSet` or `GlobalNetworkSet`: prefixes with labels, which selectors of rules choose as they choose endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSet {
    /// Its name; without a namespace it is global.
    pub name: ScopedName,
    /// The IPv6 entries of `spec.nets`.
    pub nets: Vec<Ipv6Net>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
}
