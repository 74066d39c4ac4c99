//! What is known of BIRD, joined with what it says itself: pure.

use super::Seen;
use super::control::ControlError;
use super::difference::{Difference, Drift};
use super::signatures::Signatures;
use super::status::{BirdState, BirdStatus, KernelStatus, PeerStatus};
use crate::cause::in_one_line;
use crate::plan::bird::{BirdPlan, SERVAL_KERNEL};
use std::time::{Duration, Instant};

/// What the one who looks after BIRD knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub trouble: Option<Trouble>,
    pub problems: Vec<String>,
    pub plan: Option<Box<BirdPlan>>,
    pub restarts: u64,
    pub drift: Drift,
    pub signatures: Signatures,
}

/// Why BIRD could not be brought to the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It does not answer.
    Silent { since: Instant },
    /// Anything else.
    Fault(String),
}

/// So many differences of a kind are told one by one.
const LISTED: usize = 16;

/// How long a BIRD may be silent before that is a fault: with 100,000 routes it is for some 15 s after a restart.
const BUSY: Duration = Duration::from_secs(120);

impl Report {
    /// Joins what is known with what BIRD says.
    pub fn status(&self, seen: Result<Seen, ControlError>) -> BirdStatus {
        let now = Instant::now();
        let state = match &seen {
            Ok(seen) if seen.daemon.recovering => BirdState::Recovering,
            Ok(_) => BirdState::Up,
            Err(ControlError::Silent) => BirdState::Busy,
            Err(_) => BirdState::Down,
        };
        let (seen, unseen) = match seen {
            Ok(seen) => (Some(seen), None),
            Err(ControlError::Silent) => (None, None),
            Err(error) => (None, Some(in_one_line(&error))),
        };
        BirdStatus {
            state,
            reason: self.fault(now).or(unseen),
            problems: self.problems.clone(),
            version: seen.as_ref().map(|seen| seen.version.clone()),
            router_id: seen.as_ref().and_then(|seen| seen.daemon.router_id.clone()),
            since: seen.as_ref().and_then(|seen| seen.daemon.started.clone()),
            restarts: self.restarts,
            kernel: seen.as_ref().and_then(|seen| self.kernel(seen)),
            unannounced: Vec::new(),
            peers: self.peers(seen.as_ref(), now),
        }
    }

    fn kernel(&self, seen: &Seen) -> Option<KernelStatus> {
        let kernel = seen.protocols.iter().find(|protocol| protocol.name == SERVAL_KERNEL)?;
        let first = |kind| {
            let mut all = self.drift.of(kind);
            all.truncate(LISTED);
            all
        };
        Some(KernelStatus {
            exported: kernel.exported,
            missing: first(Difference::Missing),
            stray: first(Difference::Stray),
            unlearnt: first(Difference::Unlearnt),
            stale: first(Difference::Stale),
            differing: self.drift.differences.len() as u64,
            drift: self.drift.found,
        })
    }

    fn fault(&self, now: Instant) -> Option<String> {
        match &self.trouble {
            Some(Trouble::Fault(fault)) => Some(fault.clone()),
            Some(Trouble::Silent { since }) => {
                let silence = now.saturating_duration_since(*since);
                (silence > BUSY)
                    .then(|| format!("{}, for {} s already", ControlError::Silent, silence.as_secs()))
            }
            None => None,
        }
    }

    /// The sessions of the plan, and those that BIRD has besides.
    fn peers(&self, seen: Option<&Seen>, now: Instant) -> Vec<PeerStatus> {
        let protocols = seen.map(|seen| seen.protocols.as_slice()).unwrap_or_default();
        let sessions = self.plan.as_ref().map(|plan| plan.sessions.as_slice()).unwrap_or_default();
        let planned = sessions.iter().map(|session| {
            let protocol = protocols.iter().find(|protocol| protocol.name == session.protocol);
            let peer = protocol.map_or_else(PeerStatus::absent, PeerStatus::of);
            let suspicion = protocol.filter(|_| !peer.is_established()).and_then(|_| {
                self.signatures.suspicion(session.password.is_some(), peer.is_unanswered(), now)
            });
            let reasons = peer.reason.as_deref().into_iter().chain(suspicion).collect::<Vec<_>>();
            PeerStatus {
                name: session.name.clone(),
                address: Some(session.neighbour),
                as_number: Some(session.remote_as.get()),
                reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
                ..peer
            }
        });
        let others = protocols.iter().filter(|protocol| {
            protocol.bgp.is_some() && sessions.iter().all(|session| session.protocol != protocol.name)
        });
        let mut peers: Vec<PeerStatus> = planned.chain(others.map(PeerStatus::of)).collect();
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        peers
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{Daemon, Protocol, Session};
    use super::*;
    use crate::config::Config;
    use crate::plan::bird::{Host, plan};
    use crate::resource::Resources;
    use std::path::{Path, PathBuf};

    fn report() -> Report {
        let text = b"[bird]\npeers = [{ name = 'b', address = 'fd00::2' }, { name = 'a', address = 'fd00::1', as = 65000 }]";
        let config = Config::parse(Path::new("f"), text).unwrap().bird.unwrap();
        let plan = plan(&config, Host { node: "n", tap_prefix: "tap" }, &Resources::default());
        Report { plan: Some(Box::new(plan)), ..Report::default() }
    }

    fn protocol(name: &str, state: &str, last_error: Option<&str>) -> Protocol {
        let bgp = Session {
            state: state.to_owned(),
            last_error: last_error.map(str::to_owned),
            ..Session::default()
        };
        Protocol {
            name: name.to_owned(),
            kind: "BGP".to_owned(),
            bgp: Some(bgp),
            imported: 7,
            ..Protocol::default()
        }
    }

    fn seen(protocols: Vec<Protocol>, recovering: bool) -> Result<Seen, ControlError> {
        let daemon = Daemon { recovering, ..Daemon::default() };
        Ok(Seen { version: "2.0.12".to_owned(), daemon, protocols })
    }

    #[test]
    fn sessions_are_those_of_the_plan_and_what_bird_has_besides() {
        let protocols = vec![
            protocol("peer_a", "Established", Some("an old one")),
            protocol("operators", "Active", Some("Socket: Connection refused")),
        ];
        let status = report().status(seen(protocols, false));
        let show = |peer: &PeerStatus| {
            (peer.name.clone(), peer.state.clone(), peer.as_number, peer.imported, peer.reason.clone())
        };
        assert_eq!(
            status.peers.iter().map(show).collect::<Vec<_>>(),
            [
                ("a".to_owned(), "established".to_owned(), Some(65_000), 7, None),
                ("b".to_owned(), "absent".to_owned(), Some(64_512), 0, None),
                (
                    "operators".to_owned(),
                    "active".to_owned(),
                    None,
                    7,
                    Some("Socket: Connection refused".to_owned())
                ),
            ]
        );
        assert_eq!((status.state, status.complaints()), (BirdState::Up, Vec::new()));
    }

    #[test]
    fn of_many_differences_the_first_are_told_and_all_are_counted() {
        let net = |n: u16| format!("2001:db8::{n:x}/128").parse().unwrap();
        let mut report = report();
        report.drift.differences = (0..20).map(|n| (Difference::Missing, net(n))).collect();
        report.drift.differences.insert((Difference::Unlearnt, net(99)));
        let kernel = Protocol { name: SERVAL_KERNEL.to_owned(), ..Protocol::default() };
        let told = report.status(seen(vec![kernel], false)).kernel.unwrap();
        assert_eq!((told.missing.len(), told.unlearnt, told.differing), (LISTED, vec![net(99)], 21));
    }

    #[test]
    fn a_session_with_a_wrong_password_says_what_it_may_be() {
        let text = b"[bird]\npeers = [{ name = 'a', address = 'fd00::1', password_file = '/p' }, { name = 'b', address = 'fd00::2' }]";
        let config = Config::parse(Path::new("f"), text).unwrap().bird.unwrap();
        let plan = plan(&config, Host { node: "n", tap_prefix: "tap" }, &Resources::default());
        let report = Report { plan: Some(Box::new(plan)), ..Report::default() };
        let reasons = |a, b| {
            let protocols = vec![protocol("peer_a", a, Some("an old one")), protocol("peer_b", b, None)];
            report
                .status(seen(protocols, false))
                .peers
                .into_iter()
                .map(|peer| peer.reason)
                .collect::<Vec<_>>()
        };
        let told = reasons("Connect", "Connect");
        assert!(told[0].as_ref().is_some_and(|told| told.starts_with("an old one; no answer")), "{told:?}");
        assert_eq!(told[1], None);
        assert_eq!(reasons("Established", "Established"), [None, None]);
    }

    #[test]
    fn a_bird_that_is_silent_is_not_one_that_is_gone() {
        let absent = ControlError::Connect {
            socket: PathBuf::from("/s"),
            source: std::io::ErrorKind::NotFound.into(),
        };
        for (seen, expected) in [
            (seen(Vec::new(), true), BirdState::Recovering),
            (Err(ControlError::Silent), BirdState::Busy),
            (Err(absent), BirdState::Down),
        ] {
            assert_eq!(report().status(seen).state, expected);
        }
    }

    #[test]
    fn a_bird_that_loads_routes_is_well_until_that_takes_too_long() {
        let since = Instant::now();
        let report = Report { trouble: Some(Trouble::Silent { since }), ..report() };
        assert_eq!(report.status(Err(ControlError::Silent)).complaints(), [""; 0]);
        let fault = report.fault(since + BUSY + Duration::from_secs(1)).unwrap();
        assert!(fault.ends_with("for 121 s already"), "{fault}");
    }

    #[test]
    fn what_failed_counts_more_than_what_is_seen() {
        let trouble = Some(Trouble::Fault("refused".to_owned()));
        let report = Report { trouble, problems: vec!["odd".to_owned()], ..report() };
        let status = report.status(Err(ControlError::Silent));
        assert_eq!(status.reason.as_deref(), Some("refused"));
        assert_eq!(status.complaints(), ["BIRD: refused", "BIRD: odd"]);
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<BirdStatus>(&json).unwrap(), status);
        assert!(json.contains("\"state\":\"busy\""), "{json}");
    }
}
