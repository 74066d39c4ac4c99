//! The answer to `compare`: what a directory of resources would change on this host.

use super::{RuleName, Way};
use serde::{Deserialize, Serialize};

/// What would change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// How many endpoints there would be.
    pub endpoints: usize,
    /// Those that would be touched.
    pub touched: Vec<EndpointChange>,
    /// Flows are judged again by their next packet, all of the host's; those that are still allowed go on.
    pub flows_judged_again: bool,
    /// BGP sessions that would come, go or change, by name.
    pub sessions: Vec<SessionChange>,
    /// What BIRD is told besides sessions would change.
    pub bgp: bool,
}

impl Comparison {
    /// Nothing would.
    pub fn is_unchanged(&self) -> bool {
        self.touched.is_empty() && self.sessions.is_empty() && !self.bgp
    }
}

/// What becomes of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It comes.
    Added,
    /// It goes.
    Removed,
    /// It is another one.
    Changed,
}

/// What becomes of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointChange {
    /// Namespace and name.
    pub name: String,
    /// What becomes of it.
    pub change: Change,
    /// What becomes of what it is.
    pub fields: Vec<FieldChange>,
    /// What becomes of its policy; of an endpoint that comes or goes this is not said.
    pub policy: Vec<PolicyChange>,
}

/// What becomes of something that an endpoint has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// What it is.
    pub field: String,
    /// As it is; absent when it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// As it would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// What becomes of what an endpoint's packets are asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// Packets to the VM, or from it.
    pub direction: Way,
    /// Rules that come, by their place in the new documents.
    pub come: Vec<RuleName>,
    /// Rules that go, by their place in those of before. One that changes goes and comes.
    pub go: Vec<RuleName>,
    /// Rules that stay are asked in another order.
    pub reordered: bool,
    /// Whom rules that stay are about.
    pub members: Vec<MemberChange>,
}

/// Who joins and leaves those that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberChange {
    /// A selector, or names of ports.
    pub of: String,
    /// How many prefixes come.
    pub joined: usize,
    /// How many go.
    pub left: usize,
}

/// What becomes of a BGP session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionChange {
    /// A node or a peer.
    pub name: String,
    /// What becomes of it.
    pub change: Change,
}
