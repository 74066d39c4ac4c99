//! What is told of BIRD: a part of `serval status --json`. Fields may be added, not renamed.

use super::difference::told;
use super::table::Protocol;
use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};
use std::net::Ipv6Addr;

/// State of a session that exchanges routes.
const ESTABLISHED: &str = "established";

/// State of a session that has called its neighbour and has had no answer.
const CONNECT: &str = "connect";

/// BIRD on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BirdStatus {
    /// Whether it runs.
    pub state: BirdState,
    /// What is wrong, in BIRD's own words where it has any; absent when all is as planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What is left out of its configuration, and what is odd in it.
    pub problems: Vec<String>,
    /// Its version, when it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its BGP identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_id: Option<String>,
    /// When it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// How often it had to be started again since the daemon's start.
    pub restarts: u64,
    /// Its routes in the kernel, and the kernel's in it; absent when it does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelStatus>,
    /// Addresses of VMs of this host that are announced to nobody, because they lie outside `bird.networks`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unannounced: Vec<Ipv6Addr>,
    /// Its sessions, by name.
    pub peers: Vec<PeerStatus>,
}

/// Routes between BIRD and the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelStatus {
    /// How many it wants there.
    pub exported: u64,
    /// Those that are not there; of many, the first.
    pub missing: Vec<Ipv6Net>,
    /// Routes there under its name that it does not know; of many, the first.
    pub stray: Vec<Ipv6Net>,
    /// VMs of this host that it has not learnt of, so nobody else has; of many, the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlearnt: Vec<Ipv6Net>,
    /// What it has learnt as a VM of this host and is none any more; of many, the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<Ipv6Net>,
    /// How many there are of all these.
    pub differing: u64,
    /// How many there have been since the daemon's start. BIRD is asked at once to put them right.
    pub drift: u64,
}

/// Whether BIRD runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BirdState {
    /// It runs.
    Up,
    /// It runs, and has not heard from all neighbours since it was started; the kernel's routes are those of before.
    Recovering,
    /// It runs, and has too much to do to answer: for seconds, after a restart with many routes.
    Busy,
    /// It does not run.
    Down,
}

/// A BGP session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The node or peer.
    pub name: String,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv6Addr>,
    /// Its AS.
    #[serde(rename = "as", default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<u32>,
    /// State of the session in lower case, as BGP calls it: `established`, `active` and so on.
    pub state: String,
    /// Since when.
    pub since: String,
    /// Routes accepted from it.
    pub imported: u64,
    /// Routes announced to it.
    pub exported: u64,
    /// Of those accepted from it, the ones that are the best of their destinations.
    #[serde(default)]
    pub preferred: u64,
    /// Its last error and what else may be wrong, while it is not established.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl BirdStatus {
    /// Why BIRD is not well; empty when it is. A neighbour that is down may be down for a reason of its own, and is told
    /// by its state.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if let Some(reason) = &self.reason {
            complaints.push(format!("BIRD: {reason}"));
        }
        if let Some(kernel) = self.kernel.as_ref().filter(|kernel| kernel.differing > 0) {
            complaints.push(format!(
                "BIRD: {} of its routes and the kernel's differ: {}; it has been asked to put that right",
                kernel.differing,
                told([&kernel.missing, &kernel.stray, &kernel.unlearnt, &kernel.stale]),
            ));
        }
        complaints.extend(self.problems.iter().map(|problem| format!("BIRD: {problem}")));
        complaints
    }
}

impl PeerStatus {
    /// Whether routes are exchanged.
    pub fn is_established(&self) -> bool {
        self.state == ESTABLISHED
    }

    /// Whether the neighbour has been called and has not answered.
    pub(super) fn is_unanswered(&self) -> bool {
        self.state == CONNECT
    }

    /// A session that BIRD does not have.
    pub(super) fn absent() -> Self {
        Self {
            name: String::new(),
            address: None,
            as_number: None,
            state: "absent".to_owned(),
            since: String::new(),
            imported: 0,
            exported: 0,
            preferred: 0,
            reason: None,
        }
    }

    /// A session as BIRD tells it, under its protocol's name.
    pub(super) fn of(protocol: &Protocol) -> Self {
        let bgp = protocol.bgp.clone().unwrap_or_default();
        let state = bgp.state.to_ascii_lowercase();
        Self {
            name: protocol.name.clone(),
            address: bgp.neighbour,
            as_number: bgp.remote_as,
            reason: bgp.last_error.filter(|_| state != ESTABLISHED),
            state,
            since: protocol.since.clone(),
            imported: protocol.imported,
            exported: protocol.exported,
            preferred: protocol.preferred,
        }
    }
}

/// The first of many destinations.
pub(super) fn listed(destinations: &[Ipv6Net]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = destinations.iter().take(SHOWN).map(ToString::to_string).collect();
    match destinations.len().checked_sub(SHOWN) {
        None | Some(0) => shown.join(", "),
        Some(_) => format!("{} and more", shown.join(", ")),
    }
}
