//! `serval status`: how the daemon and its endpoints are.

use super::{Answer, Format, client, print};
use crate::apply::bird::{BirdState, BirdStatus};
use crate::config::Config;
use crate::serve::control::Verb;
use crate::status::{EndpointStatus, FastPathState, State, Status};
use std::fmt::Write;

pub(super) fn run(config: &Config, format: Format) -> anyhow::Result<Answer> {
    let run = &config.paths.run;
    let status: Status = client::ask(run, Verb::Status)?.ok_or_else(|| client::not_running(run))?;
    if format.json {
        print::json(&status)?;
    } else {
        print::text(&render(&status))?;
    }
    Ok(if status.complaints().is_empty() { Answer::Yes } else { Answer::No })
}

fn render(status: &Status) -> String {
    let mut text = format!(
        "node {}, serval {}, {}, fast path {}, drift {}\n",
        status.node,
        status.version,
        if status.ready { "ready" } else { "starting" },
        match status.fast_path.state {
            FastPathState::On => "on",
            FastPathState::Detached => "detached",
            FastPathState::Unavailable => "unavailable",
        },
        status.drift,
    );
    let mut line = |prefix: &str, what: &str| {
        // Writing to a String cannot fail.
        writeln!(text, "{prefix}{what}").unwrap_or(());
    };
    for fault in &status.faults {
        line("host: ", fault);
    }
    if let Some(reason) = &status.fast_path.reason {
        line("fast path: ", reason);
    }
    if !status.endpoints.is_empty() {
        line("\n", &table(&status.endpoints));
    }
    for endpoint in &status.endpoints {
        if let Some(reason) = &endpoint.reason {
            line(&format!("{}: ", endpoint.name), reason);
        }
        if let Some(policies) = &endpoint.policies {
            line(&format!("{}: policies: ", endpoint.name), &listed(policies));
        }
        if endpoint.counters.flow_pressure > 0 {
            let flows = endpoint.counters.flow_pressure;
            line(
                &format!("{}: ", endpoint.name),
                &format!("{flows} flows were not remembered: its share is used up"),
            );
        }
        if let Some(reasons) = dropped(endpoint) {
            line(&format!("{}: dropped ", endpoint.name), &reasons);
        }
    }
    for uplink in &status.uplinks {
        let reason = uplink.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        line("uplink ", &format!("{} {}/{}{reason}", uplink.interface, uplink.hooks.xdp, uplink.hooks.tc));
    }
    if let Some(routes) = &status.routes {
        line("routes: ", &super::routes::summary(routes));
    }
    if let Some(bird) = &status.bird {
        line("\n", sessions(bird).trim_end());
        for complaint in bird.complaints() {
            line("", &complaint);
        }
    }
    if !status.blocked.is_empty() {
        line("blocked, as no endpoint has them: ", &status.blocked.join(" "));
    }
    for problem in &status.problems {
        line("", &problem.to_string());
    }
    text
}

/// BIRD and its sessions.
pub(super) fn sessions(bird: &BirdStatus) -> String {
    let mut text = summary(bird) + "\n";
    if !bird.peers.is_empty() {
        text += &format!("{}\n", peers(bird));
    }
    if !bird.unannounced.is_empty() {
        let addresses: Vec<String> = bird.unannounced.iter().map(ToString::to_string).collect();
        text += &format!("not announced, being outside bird.networks: {}\n", addresses.join(" "));
    }
    for peer in &bird.peers {
        if let Some(reason) = &peer.reason {
            text += &format!("{}: {reason}\n", peer.name);
        }
    }
    text
}

/// BIRD as a whole in a line.
fn summary(bird: &BirdStatus) -> String {
    let version = bird.version.as_ref().map_or_else(String::new, |version| format!(" {version}"));
    let state = match bird.state {
        BirdState::Up => "up",
        BirdState::Recovering => "recovering, routes stay as they were until its neighbours have spoken",
        BirdState::Busy => "busy, loading routes",
        BirdState::Down => "down",
    };
    let mut line = format!("BIRD{version} {state}");
    for (word, value) in [(", since", &bird.since), (", router id", &bird.router_id)] {
        if let Some(value) = value {
            line += &format!("{word} {value}");
        }
    }
    if let Some(kernel) = &bird.kernel {
        line += &format!(", {} routes for the kernel, drift {}", kernel.exported, kernel.drift);
    }
    if bird.restarts > 0 {
        line += &format!(", started again {} times", bird.restarts);
    }
    line
}

fn peers(bird: &BirdStatus) -> String {
    let mut table =
        print::table(&["BGP PEER", "ADDRESS", "AS", "STATE", "SINCE", "IMPORTED", "BEST", "EXPORTED"]);
    let known = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    for peer in &bird.peers {
        table.add_row([
            peer.name.clone(),
            known(peer.address.map(|address| address.to_string())),
            known(peer.as_number.map(|number| number.to_string())),
            peer.state.clone(),
            peer.since.clone(),
            peer.imported.to_string(),
            peer.preferred.to_string(),
            peer.exported.to_string(),
        ]);
    }
    table.trim_fmt()
}

fn table(endpoints: &[EndpointStatus]) -> String {
    let mut table = print::table(&[
        "ENDPOINT",
        "TAP",
        "STATE",
        "HOOKS",
        "FROM VM xdp/tc/kernel",
        "TO VM xdp/tc/kernel",
        "ANSWERED ns/rs/dhcp6",
        "DROPPED",
        "ROUTE LEFT",
        "ADDRESSES",
    ]);
    for endpoint in endpoints {
        let counters = &endpoint.counters;
        let triple = |a: u64, b: u64, c: u64| format!("{a}/{b}/{c}");
        let addresses: Vec<_> = endpoint.addresses.iter().map(ToString::to_string).collect();
        table.add_row([
            endpoint.name.clone(),
            endpoint.interface.clone(),
            state(endpoint.state).to_owned(),
            format!("{}/{}", endpoint.hooks.xdp, endpoint.hooks.tc),
            triple(counters.forwarded_xdp, counters.forwarded_tc, counters.passed),
            triple(counters.delivered_xdp, counters.delivered_tc, counters.delivered_kernel),
            triple(counters.answered_ns, counters.answered_rs, counters.dhcp6_replies),
            counters.dropped.values().sum::<u64>().to_string(),
            endpoint.router_expires_in.map_or_else(|| "-".to_owned(), print::duration),
            addresses.join("\n"),
        ]);
    }
    table.trim_fmt()
}

/// The policies of an endpoint.
fn listed(policies: &[String]) -> String {
    if policies.is_empty() { "none, so its profiles decide".to_owned() } else { policies.join(", ") }
}

fn dropped(endpoint: &EndpointStatus) -> Option<String> {
    let reasons: Vec<_> =
        endpoint.counters.dropped.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    (!reasons.is_empty()).then(|| reasons.join(", "))
}

/// The word of the contract.
pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Up => "up",
        State::Pending => "pending",
        State::Down => "down",
        State::Error => "error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{Position, Problem};
    use crate::status::{EndpointCounters, FastPathStatus, Hooks};
    use std::path::Path;

    #[test]
    fn says_what_a_person_needs() {
        let problem = Problem {
            resource: Some("Subnet s".into()),
            kept: true,
            ..Problem::at(Path::new("a.yaml"), Position { line: 3, column: 1 }, "bad").in_field("spec.cidr")
        };
        let text = render(&Status {
            node: "compute-1".into(),
            version: "0.1.0".into(),
            ready: true,
            faults: vec![],
            fast_path: FastPathStatus { state: FastPathState::Unavailable, reason: Some("no BTF".into()) },
            endpoints: vec![EndpointStatus {
                name: "web1".into(),
                interface: "tap1".into(),
                state: State::Error,
                reason: Some("no room".into()),
                hooks: Hooks::OFF,
                addresses: vec!["2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap()],
                policies: Some(vec!["sg-web".into(), "sg-ssh".into()]),
                counters: EndpointCounters {
                    forwarded_xdp: 7,
                    dropped: [("source_mac".to_owned(), 3)].into(),
                    ..EndpointCounters::default()
                },
                router_expires_in: Some(8_999),
            }],
            uplinks: vec![],
            routes: None,
            blocked: vec!["tap9".into()],
            policies: vec![],
            problems: vec![problem],
            bird: None,
            drift: 2,
        });
        for expected in [
            "node compute-1, serval 0.1.0, ready, fast path unavailable, drift 2\nfast path: no BTF\n",
            "web1",
            "error",
            "off/off",
            "7/0/0",
            "2 h 29 min",
            "2001:db8::2",
            "web1: no room\n",
            "web1: policies: sg-web, sg-ssh\n",
            "web1: dropped source_mac 3\n",
            "blocked, as no endpoint has them: tap9\n",
            "a.yaml:3:1: Subnet s: spec.cidr: bad (kept: last good state)\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }
}
