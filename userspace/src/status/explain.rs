//! What `serval explain` asks and is told. Fields may be added, not renamed.

use super::{RouteDetail, RuleName, Side};
use serde::{Deserialize, Serialize};
use std::net::Ipv6Addr;

/// The packet that is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExplainQuery {
    /// In words.
    Packet {
        /// Who sends it: the name of an endpoint, or an address.
        from: String,
        /// Whom it is for.
        to: String,
        /// What it carries.
        upper: Carried,
    },
    /// As bytes.
    Frame {
        /// The TAP that it comes in on.
        interface: String,
        /// The bytes in hexadecimal.
        bytes: String,
    },
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Protocol.
    pub protocol: u8,
    /// Source port, or identifier of an echo.
    pub source_port: u16,
    /// Destination port, of what has ports.
    pub port: u16,
    /// Type and code, of ICMPv6.
    pub icmp: (u8, u8),
}

/// What would become of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Who judges packets at present.
    #[serde(default)]
    pub judge: Judge,
    /// It may pass.
    pub allowed: bool,
    /// Why not, by its label in the counters of `serval status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where it comes from.
    pub source: Side,
    /// Where it goes.
    pub destination: Side,
    /// What policy says, in the order in which it is asked; empty when it is not asked.
    pub decisions: Vec<Decision>,
    /// What is known of its flow.
    pub flow: FlowState,
    /// Who sends it on; absent when it does not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<SentBy>,
    /// Where it goes next, as far as the fast path says; absent when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Next>,
    /// The route to its destination, if that is no endpoint of this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteDetail>,
}

/// Who judges packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Judge {
    /// The hooks: their programs have been asked.
    #[default]
    Programs,
    /// Rules of nftables, as there is no fast path: the policy that they are made of has been asked.
    Nftables,
    /// Nobody: there is no fast path, and policy does not count.
    Nobody,
}

/// What one chain of rules says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Whose policy it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What happens.
    pub action: DecidedAction,
    /// The rule.
    pub rule: RuleName,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecidedAction {
    /// It lets the packet pass.
    Allow,
    /// It does not.
    Deny,
    /// It logs it.
    Log,
}

/// What is known of a packet's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowState {
    /// Nothing: policy decides.
    None,
    /// It is allowed, and policy is not asked.
    Known,
    /// It was allowed; policy is asked again, because it has changed since.
    Asked,
}

/// Who sends a packet on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SentBy {
    /// The hooks.
    Fast,
    /// The kernel.
    Kernel,
}

/// The next node on a packet's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// The interface that it leaves by.
    pub interface: String,
    /// MAC of the next node.
    pub mac: String,
    /// The endpoint that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The router that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<Ipv6Addr>,
}
