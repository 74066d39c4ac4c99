//! What the kernel counts of TCP segments whose MD5 signature (RFC 2385) is not as agreed. It drops them, so to BIRD a
//! neighbour with another password is like one that does not answer.

use super::report::Report;
use std::fs;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often to look.
const INTERVAL: Duration = Duration::from_secs(2);

/// So long what was counted may be a sign of what is wrong: who connects repeats itself after at most half of it.
const MEMORY: Duration = Duration::from_secs(120);

/// The counters of the network namespace of whoever reads it.
const COUNTERS: &str = "/proc/thread-self/net/netstat";

/// Segments that came to this host and were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    /// Signed otherwise, or not at all, from somebody with whom we have a password.
    wrong: u64,
    /// Signed, from somebody with whom we have none.
    unexpected: u64,
}

/// When segments were last dropped.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signatures {
    before: Option<Counters>,
    wrong: Option<Instant>,
    unexpected: Option<Instant>,
}

/// Looks as long as it is polled, in the network namespace of the thread that does so.
pub(super) async fn watch(publish: watch::Sender<Report>) {
    loop {
        publish.send_modify(|report| report.signatures.look(Instant::now()));
        tokio::time::sleep(INTERVAL).await;
    }
}

impl Signatures {
    fn look(&mut self, now: Instant) {
        match fs::read_to_string(COUNTERS) {
            Ok(text) => self.take(Counters::parse(&text), now),
            Err(error) => tracing::debug!("{COUNTERS}: {error}"),
        }
    }

    fn take(&mut self, counters: Counters, now: Instant) {
        if let Some(before) = self.before.replace(counters) {
            self.wrong = if counters.wrong > before.wrong { Some(now) } else { self.wrong };
            self.unexpected =
                if counters.unexpected > before.unexpected { Some(now) } else { self.unexpected };
        }
    }

    /// Why a session that is not established may be down: whether it has a password, and whether our attempts to connect are
    /// left without an answer.
    pub fn suspicion(&self, password: bool, unanswered: bool, now: Instant) -> Option<&'static str> {
        let lately = |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) < MEMORY);
        match password {
            true if lately(self.wrong) => Some(
                "a neighbour sends segments that are signed with another TCP MD5 password, or not at all: compare the passwords of both ends",
            ),
            // Who is called drops what is signed otherwise, and only there it is counted.
            true if unanswered => Some(
                "no answer: the neighbour is not there, or it has another TCP MD5 password, which its own status tells",
            ),
            false if lately(self.unexpected) => Some(
                "a neighbour sends segments that are signed with a TCP MD5 password, and this session has none: give both ends the same",
            ),
            _ => None,
        }
    }
}

impl Counters {
    /// Two lines for each group: the names, and in the same order the values.
    fn parse(text: &str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let mut counters = Self::default();
        for pair in lines.chunks_exact(2) {
            for (name, value) in pair[0].split_whitespace().zip(pair[1].split_whitespace()) {
                let counter = match name {
                    "TCPMD5Failure" | "TCPMD5NotFound" => &mut counters.wrong,
                    "TCPMD5Unexpected" => &mut counters.unexpected,
                    _ => continue,
                };
                *counter += value.parse::<u64>().unwrap_or(0);
            }
        }
        counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn netstat(failure: u64, not_found: u64, unexpected: u64) -> String {
        format!(
            "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure TCPSpuriousRTOs\n\
             TcpExt: 7 {not_found} {unexpected} {failure} 9\nIpExt: InNoRoutes\nIpExt: 5\n"
        )
    }

    #[test]
    fn only_what_is_counted_lately_is_a_sign() {
        let start = Instant::now();
        let mut signatures = Signatures::default();
        let told = |signatures: &Signatures, at| {
            [true, false].map(|password| signatures.suspicion(password, false, at).unwrap_or_default())
        };
        signatures.take(Counters::parse(&netstat(3, 0, 1)), start);
        assert_eq!(told(&signatures, start), ["", ""]);
        signatures.take(Counters::parse(&netstat(3, 1, 1)), start);
        let [with, without] = told(&signatures, start);
        assert!(with.contains("or not at all") && without.is_empty(), "{with} {without}");
        signatures.take(Counters::parse(&netstat(3, 1, 2)), start);
        assert!(told(&signatures, start)[1].contains("has none"));
        let later = start + MEMORY;
        assert_eq!(told(&signatures, later), ["", ""]);
        signatures.take(Counters::parse(&netstat(4, 1, 2)), later);
        assert!(told(&signatures, later)[0].contains("another TCP MD5 password"));
    }

    #[test]
    fn who_calls_in_vain_with_a_password_is_told_that_it_may_be_the_password() {
        let told = |password| Signatures::default().suspicion(password, true, Instant::now());
        assert!(told(true).is_some_and(|told| told.starts_with("no answer")));
        assert_eq!(told(false), None);
    }

    #[test]
    fn the_kernel_has_these_counters() {
        let text = fs::read_to_string(COUNTERS).unwrap();
        for name in ["TCPMD5NotFound", "TCPMD5Unexpected", "TCPMD5Failure"] {
            assert!(text.contains(name), "{name}");
        }
    }
}
