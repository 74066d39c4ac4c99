//! `serval routes`: the BGP sessions, the routes to other hosts, and who forwards by them.

use super::{Answer, Format, client, print, status};
use crate::config::Config;
use crate::serve::control::Verb;
use crate::status::{
    Forwarder, NextHopDetail, RoutesQuery, RoutesReport, RoutesState, RoutesStatus, Selection,
};
use ipnet::Ipv6Net;
use std::net::Ipv6Addr;

/// More rows than this are of no use to a person.
const ROWS: usize = 100;

pub(super) fn run(
    config: &Config,
    selection: Selection,
    limit: Option<usize>,
    format: Format,
) -> anyhow::Result<Answer> {
    let run = &config.paths.run;
    let default = if format.json { None } else { Some(ROWS) };
    let limit = limit.map_or(default, |limit| Some(limit).filter(|limit| *limit > 0));
    let verb = Verb::Routes(RoutesQuery { selection, limit });
    let report: RoutesReport = client::ask(run, verb)?.ok_or_else(|| client::not_running(run))?;
    if format.json {
        print::json(&report)?;
    } else {
        print::text(&render(&report))?;
    }
    Ok(Answer::Yes)
}

/// What the argument names: a prefix, or an address.
pub(super) fn selection(text: &str) -> Result<Selection, String> {
    let address = || text.parse::<Ipv6Addr>().map(Selection::Towards);
    match text.parse::<Ipv6Net>() {
        Ok(net) => Ok(Selection::Within(net.trunc())),
        Err(_) => address()
            .map_err(|_| "no IPv6 prefix or address; write one like 2001:db8::/32 or 2001:db8::1".to_owned()),
    }
}

/// The routes as a whole in a line.
pub(super) fn summary(status: &RoutesStatus) -> String {
    let state = match status.state {
        RoutesState::Starting => "being read, ",
        RoutesState::On => "",
        RoutesState::Suspended => "suspended, ",
    };
    let reason = status.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    format!(
        "{state}{} by the fast path, {} by the kernel, {} next hops known, {} overflows, drift {}{reason}",
        status.mirrored, status.kernel, status.next_hops, status.overflows, status.drift
    )
}

fn render(report: &RoutesReport) -> String {
    let mut table = print::table(&["DESTINATION", "FROM", "METRIC", "BY", "NEXT HOPS", "MTU", "WHY"]);
    for route in &report.routes {
        let hops: Vec<String> = route.next_hops.iter().map(next_hop).collect();
        table.add_row([
            route.destination.clone(),
            route.protocol.clone(),
            route.metric.to_string(),
            match route.state {
                Forwarder::Fast => "fast path".to_owned(),
                Forwarder::Kernel => "kernel".to_owned(),
            },
            if hops.is_empty() { "-".to_owned() } else { hops.join("\n") },
            route.mtu.map_or_else(|| "-".to_owned(), |mtu| mtu.to_string()),
            route.reason.clone().unwrap_or_default(),
        ]);
    }
    let mut text = report.bird.as_ref().map_or_else(String::new, |bird| status::sessions(bird) + "\n");
    text += &format!("routes: {}\n{}\n", summary(&report.status), table.trim_fmt());
    let more = report.matching.saturating_sub(report.routes.len());
    if more > 0 {
        text += &format!("and {more} more; name a prefix or an address, or set --limit\n");
    }
    text
}

fn next_hop(hop: &NextHopDetail) -> String {
    let mut text = format!("{} {}", hop.address, hop.interface);
    if hop.weight != 1 {
        text += &format!(" weight {}", hop.weight);
    }
    match (&hop.mac, &hop.reason) {
        (Some(mac), _) => text += &format!(" {mac}{}", if hop.xdp { "" } else { " tc only" }),
        (None, Some(reason)) => text += &format!(" ({reason})"),
        (None, None) => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::RouteDetail;

    #[test]
    fn a_selection_is_a_prefix_or_an_address() {
        assert_eq!(selection("2001:db8::1"), Ok(Selection::Towards("2001:db8::1".parse().unwrap())));
        assert_eq!(selection("2001:db8::1/64"), Ok(Selection::Within("2001:db8::/64".parse().unwrap())));
        for wrong in ["", "192.0.2.1", "2001:db8::/129", "web1"] {
            assert!(selection(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_row_a_route_and_a_line_a_next_hop() {
        let hop = |last: u16, mac: Option<&str>| NextHopDetail {
            address: std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last),
            interface: "eth0".into(),
            weight: last.into(),
            mac: mac.map(str::to_owned),
            xdp: true,
            reason: mac.is_none().then(|| "next hop unresolved".to_owned()),
        };
        let text = render(&RoutesReport {
            status: RoutesStatus {
                state: RoutesState::Suspended,
                reason: Some("policy rules".into()),
                ..RoutesStatus::default()
            },
            bird: None,
            matching: 5,
            routes: vec![
                RouteDetail {
                    destination: "2001:db8::/32".into(),
                    protocol: "bird".into(),
                    metric: 32,
                    mtu: Some(1400),
                    state: Forwarder::Fast,
                    reason: None,
                    next_hops: vec![hop(1, Some("02:00:00:00:00:01")), hop(2, None)],
                },
                RouteDetail {
                    destination: "::1/128".into(),
                    protocol: "kernel".into(),
                    metric: 0,
                    mtu: None,
                    state: Forwarder::Kernel,
                    reason: Some("local".into()),
                    next_hops: vec![],
                },
            ],
        });
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert!(
            lines[0].starts_with("routes: suspended, 0 by the fast path")
                && lines[0].ends_with(": policy rules")
        );
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            words(lines[2]),
            ["2001:db8::/32", "bird", "32", "fast", "path", "fe80::1", "eth0", "02:00:00:00:00:01", "1400"]
        );
        assert_eq!(words(lines[3]), ["fe80::2", "eth0", "weight", "2", "(next", "hop", "unresolved)"]);
        assert_eq!(words(lines[4]), ["::1/128", "kernel", "0", "kernel", "-", "-", "local"]);
        assert_eq!(lines[5], "and 3 more; name a prefix or an address, or set --limit");
    }
}
