//! Traffic between guests: ping and iperf3, with what they measured.

use crate::netns::Namespace;
use crate::process::{Running, run};
use anyhow::{Context, Result};
use serde_json::Value;
use std::net::Ipv6Addr;
use std::time::Duration;

/// What `ping` counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Requests sent.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
}

/// What `iperf3` measured.
#[derive(Clone, Copy, Debug)]
pub struct Bulk {
    /// Payload that arrived, in bits a second.
    pub bits_per_second: f64,
    /// TCP segments sent again.
    pub retransmits: u64,
}

/// Sends `count` echo requests from `from`, one every `interval`.
pub fn ping(from: &Namespace, to: Ipv6Addr, count: u32, interval: Duration) -> Result<Ping> {
    let mut command = from.command("ping");
    command.args(["-6", "-q", "-n", "-W", "2"]);
    command.args(["-c", &count.to_string(), "-i", &interval.as_secs_f64().to_string(), &to.to_string()]);
    let output = command.output().context("cannot run ping")?;
    parse_ping(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("ping {to} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Finds `5 packets transmitted, 5 received` (iputils) or `5 packets received` (busybox).
pub fn parse_ping(text: &str) -> Option<Ping> {
    let line = text.lines().find(|line| line.contains("packets transmitted"))?;
    let mut numbers = line.split(", ").map(|part| part.split(' ').next().and_then(|word| word.parse().ok()));
    Some(Ping { sent: numbers.next()??, received: numbers.next()?? })
}

/// Who answers an echo request, and what: `ping` says `From ADDRESS … TEXT` of errors and `64 bytes from ADDRESS` else.
pub fn answer(from: &Namespace, to: Ipv6Addr, options: &str) -> Result<(Ipv6Addr, String)> {
    let mut command = from.command("ping");
    command
        .args(["-6", "-n", "-c", "1", "-W", "5"])
        .args(options.split_ascii_whitespace())
        .arg(to.to_string());
    let output = command.output().context("cannot run ping")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| {
        line.strip_prefix("From ").or(line.split_once(" bytes from ").map(|(_, rest)| rest))
    });
    let line = line.with_context(|| format!("ping {options} {to}: no answer: {text}"))?;
    let (who, what) = line.split_once(' ').context("ping says no more than who")?;
    let what = what.split_once("icmp_seq=1 ").map_or(what, |(_, what)| what);
    Ok((who.trim_end_matches(':').parse().with_context(|| format!("`{who}`"))?, what.to_owned()))
}

/// Starts an iperf3 server in `at` that is ready when this returns.
pub fn iperf3_server(at: &Namespace) -> Result<Running> {
    let mut command = at.command("iperf3");
    command.args(["--server", "--forceflush"]);
    let server = Running::start("iperf3 --server", command)?;
    server.wait_line(Duration::from_secs(10), |line| line.contains("Server listening"))?;
    Ok(server)
}

/// Sends TCP from `from` to the server at `to` for `seconds`.
pub fn iperf3(from: &Namespace, to: Ipv6Addr, seconds: u32) -> Result<Bulk> {
    let mut command = from.command("iperf3");
    command.args(["--json", "--client", &to.to_string(), "--time", &seconds.to_string()]);
    let report: Value = serde_json::from_str(&run(command)?).context("iperf3 printed no JSON")?;
    let number = |path: &str| report.pointer(path).with_context(|| format!("iperf3 did not report {path}"));
    Ok(Bulk {
        bits_per_second: number("/end/sum_received/bits_per_second")?.as_f64().unwrap_or_default(),
        retransmits: number("/end/sum_sent/retransmits")?.as_u64().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_pings_are_understood() {
        let iputils = "PING ::1 56 data bytes\n\n--- ::1 ping statistics ---\n\
                       5 packets transmitted, 4 received, 20% packet loss, time 4ms\n";
        assert_eq!(parse_ping(iputils), Some(Ping { sent: 5, received: 4 }));
        let busybox = "3 packets transmitted, 3 packets received, 0% packet loss\n";
        assert_eq!(parse_ping(busybox), Some(Ping { sent: 3, received: 3 }));
        assert_eq!(parse_ping("ping: unknown host"), None);
    }
}
