//! `serval endpoints`: who the endpoints are on the wire.

use super::{Answer, Format, client, print, status};
use crate::config::Config;
use crate::serve::control::Verb;
use crate::status::EndpointDetail;
use std::net::Ipv6Addr;

pub(super) fn run(config: &Config, format: Format) -> anyhow::Result<Answer> {
    let run = &config.paths.run;
    let endpoints: Vec<EndpointDetail> =
        client::ask(run, Verb::Endpoints)?.ok_or_else(|| client::not_running(run))?;
    if format.json {
        print::json(&endpoints)?;
    } else {
        print::text(&format!("{}\n", render(&endpoints)))?;
    }
    Ok(Answer::Yes)
}

fn render(endpoints: &[EndpointDetail]) -> String {
    let mut table = print::table(&[
        "ENDPOINT",
        "TAP",
        "INDEX",
        "STATE",
        "MTU",
        "MAC",
        "LEASED",
        "ALSO ALLOWED",
        "LEASE",
        "GATEWAY",
        "GATEWAY MAC",
        "ROUTE LEFT",
    ]);
    for endpoint in endpoints {
        let mut row = vec![endpoint.name.clone(), endpoint.interface.clone()];
        let state = status::state(endpoint.state).to_owned();
        match &endpoint.attached {
            Some(tap) => {
                let allowed: Vec<_> = endpoint
                    .addresses
                    .iter()
                    .filter(|address| !tap.leased.contains(address))
                    .copied()
                    .collect();
                let gateways: Vec<_> = [tap.gateway].into_iter().chain(tap.gateways.clone()).collect();
                row.extend([
                    tap.ifindex.to_string(),
                    state,
                    tap.mtu.to_string(),
                    tap.mac.clone(),
                    lines(&tap.leased),
                    lines(&allowed),
                    lifetime(tap.valid_lifetime),
                    lines(&gateways),
                    tap.gateway_mac.clone(),
                    tap.router_expires_in.map_or_else(|| "-".to_owned(), print::duration),
                ]);
            }
            None => {
                row.extend([
                    "-".to_owned(),
                    state,
                    "-".to_owned(),
                    "-".to_owned(),
                    lines(&endpoint.addresses),
                ]);
            }
        }
        table.add_row(row);
    }
    table.trim_fmt()
}

fn lines(addresses: &[Ipv6Addr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn lifetime(seconds: u32) -> String {
    if seconds == u32::MAX { "forever".to_owned() } else { print::duration(seconds.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{AttachedDetail, State};

    #[test]
    fn shows_leased_and_allowed_apart() {
        let endpoint = |name: &str, attached| EndpointDetail {
            name: name.into(),
            interface: "tap1".into(),
            state: State::Up,
            addresses: vec!["2001:db8::1".parse().unwrap(), "2001:db8::beef".parse().unwrap()],
            attached,
        };
        let text = render(&[
            endpoint(
                "web1",
                Some(AttachedDetail {
                    ifindex: 7,
                    mtu: 1500,
                    mac: "fa:16:3e:00:00:01".into(),
                    gateway_mac: "fe:16:3e:00:00:01".into(),
                    gateway: "fe80::1".parse().unwrap(),
                    gateways: vec!["2001:db8::ff".parse().unwrap()],
                    leased: vec!["2001:db8::1".parse().unwrap()],
                    valid_lifetime: u32::MAX,
                    router_lifetime: 9_000,
                    router_expires_in: None,
                }),
            ),
            endpoint("web2", None),
        ]);
        let web1 = text.lines().find(|line| line.contains("web1")).unwrap();
        let columns: Vec<_> = web1.split_whitespace().collect();
        assert_eq!(
            columns,
            [
                "web1",
                "tap1",
                "7",
                "up",
                "1500",
                "fa:16:3e:00:00:01",
                "2001:db8::1",
                "2001:db8::beef",
                "forever",
                "fe80::1",
                "fe:16:3e:00:00:01",
                "-"
            ]
        );
        assert!(text.contains("web2") && text.contains("2001:db8::ff"));
    }
}
