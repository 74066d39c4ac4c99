//! `serval explain`: what would become of a packet, and by which rule. The answer is no when it would not pass.

use super::{Answer, Format, client, print};
use crate::config::Config;
use crate::resource::policy::Protocol;
use crate::serve::control::Verb;
use crate::status::{Carried, DecidedAction, ExplainQuery, Explanation, FlowState, Judge, SentBy};
use std::fmt::Write;

/// Port of a client, where none is named.
const SOURCE_PORT: u16 = 40_000;
/// Type of an ICMPv6 echo request.
const ECHO_REQUEST: u8 = 128;

/// The packet.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Packet {
    /// Who sends it: an endpoint, or an address
    #[arg(long, value_name = "ENDPOINT|ADDRESS", requires = "to", required_unless_present = "frame")]
    from: Option<String>,
    /// Whom it is for
    #[arg(long, value_name = "ENDPOINT|ADDRESS", requires = "from")]
    to: Option<String>,
    /// Its protocol, by name or number [default: TCP with a port, else ICMPv6]
    #[arg(long, value_name = "PROTOCOL", conflicts_with = "icmp")]
    protocol: Option<Protocol>,
    /// Its destination port
    #[arg(long, value_name = "PORT", conflicts_with = "icmp")]
    port: Option<u16>,
    /// Its source port [default: 40000]
    #[arg(long, value_name = "PORT")]
    source_port: Option<u16>,
    /// It is ICMPv6 of this type and code [default: an echo request]
    #[arg(long, value_name = "TYPE[/CODE]", value_parser = type_and_code)]
    icmp: Option<(u8, u8)>,
    /// A whole frame from a VM, in hexadecimal
    #[arg(long, value_name = "HEX", requires = "interface", conflicts_with_all = ["from", "to", "protocol", "port", "source_port", "icmp"])]
    frame: Option<String>,
    /// The TAP that the frame comes from
    #[arg(long, value_name = "TAP", requires = "frame")]
    interface: Option<String>,
}

pub(super) fn run(config: &Config, packet: &Packet, format: Format) -> anyhow::Result<Answer> {
    let run = &config.paths.run;
    let answer: Option<Explanation> = client::ask(run, Verb::Explain(packet.query()))?;
    let explanation = answer.ok_or_else(|| client::not_running(run))?;
    if format.json {
        print::json(&explanation)?;
    } else {
        print::text(&render(&explanation))?;
    }
    Ok(if explanation.allowed { Answer::Yes } else { Answer::No })
}

impl Packet {
    fn query(&self) -> ExplainQuery {
        if let (Some(bytes), Some(interface)) = (&self.frame, &self.interface) {
            return ExplainQuery::Frame { interface: interface.clone(), bytes: bytes.clone() };
        }
        let default = if self.port.is_some() { Protocol::TCP } else { Protocol::ICMP6 };
        let Protocol(protocol) = self.protocol.unwrap_or(default);
        ExplainQuery::Packet {
            // The command line is not taken without them.
            from: self.from.clone().unwrap_or_default(),
            to: self.to.clone().unwrap_or_default(),
            upper: Carried {
                protocol,
                source_port: self.source_port.unwrap_or(SOURCE_PORT),
                port: self.port.unwrap_or(0),
                icmp: self.icmp.unwrap_or((ECHO_REQUEST, 0)),
            },
        }
    }
}

fn type_and_code(text: &str) -> Result<(u8, u8), String> {
    let (kind, code) = text.split_once('/').unwrap_or((text, "0"));
    let number = |text: &str| text.parse::<u8>();
    match (number(kind), number(code)) {
        (Ok(kind), Ok(code)) => Ok((kind, code)),
        _ => Err("no ICMPv6 type and code; write one like 128 or 1/4".to_owned()),
    }
}

fn render(explanation: &Explanation) -> String {
    let Explanation { judge, allowed, reason, source, destination, decisions, flow, by, next, route } =
        explanation;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |what: &str| writeln!(text, "{what}").unwrap_or(());
    let verdict = if *allowed { "allowed" } else { "denied" };
    let reason = reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    line(&format!("{verdict}{reason}: {source} -> {destination}"));
    line(match (judge, flow) {
        (Judge::Nftables, _) => {
            "judged by nftables, as there is no fast path; what conntrack knows of its flow is not looked at"
        }
        (Judge::Nobody, _) => "judged by nobody: there is no fast path, and policy does not count",
        (Judge::Programs, FlowState::None) => "flow: none is known; policy decides",
        (Judge::Programs, FlowState::Known) => "flow: known and allowed; policy is not asked",
        (Judge::Programs, FlowState::Asked) => "flow: known; policy is asked again",
    });
    for decision in decisions {
        let action = match decision.action {
            DecidedAction::Allow => "allows",
            DecidedAction::Deny => "denies",
            DecidedAction::Log => "logs",
        };
        let endpoint = decision.endpoint.as_deref().unwrap_or("?");
        line(&format!("{endpoint} {action} it: {}", decision.rule));
    }
    match (by, next) {
        (Some(SentBy::Kernel), _) => line("sent on by the kernel"),
        (Some(SentBy::Fast), Some(next)) => {
            let who = match (&next.endpoint, next.router) {
                (Some(endpoint), _) => endpoint.clone(),
                (None, Some(router)) => router.to_string(),
                (None, None) => "?".to_owned(),
            };
            line(&format!("sent on by the hooks: {} to {who}, {}", next.interface, next.mac));
        }
        (Some(SentBy::Fast), None) => line("sent on by the hooks"),
        (None, _) => {}
    }
    if let Some(route) = route {
        let hops: Vec<String> =
            route.next_hops.iter().map(|hop| format!("{} {}", hop.address, hop.interface)).collect();
        let hops = if hops.is_empty() { String::new() } else { format!(" by {}", hops.join(", ")) };
        line(&format!("route: {} from {}{hops}", route.destination, route.protocol));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::policy::{Direction, Origin};
    use crate::status::{Decision, RuleName, Side};
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        packet: Packet,
    }

    fn query(line: &[&str]) -> Result<ExplainQuery, clap::Error> {
        Line::try_parse_from([&["explain"], line].concat()).map(|line| line.packet.query())
    }

    #[test]
    fn words_make_a_packet() {
        let carried = |line: &[&str]| match query(
            &[&["--from", "web1", "--to", "2001:db8::1"], line].concat(),
        )
        .unwrap()
        {
            ExplainQuery::Packet { upper, .. } => upper,
            ExplainQuery::Frame { .. } => panic!("no frame was given"),
        };
        let ping = Carried { protocol: 58, source_port: SOURCE_PORT, port: 0, icmp: (128, 0) };
        assert_eq!(carried(&[]), ping);
        assert_eq!(carried(&["--icmp", "1/4"]), Carried { icmp: (1, 4), ..ping });
        assert_eq!(carried(&["--port", "80"]), Carried { protocol: 6, port: 80, ..ping });
        let udp = ["--protocol", "udp", "--port", "53", "--source-port", "9"];
        assert_eq!(carried(&udp), Carried { protocol: 17, port: 53, source_port: 9, ..ping });
    }

    #[test]
    fn half_a_packet_is_misuse() {
        for line in [
            [].as_slice(),
            &["--from", "web1"],
            &["--frame", "00"],
            &["--interface", "tap1"],
            &["--frame", "00", "--interface", "tap1", "--port", "1"],
            &["--from", "a", "--to", "b", "--icmp", "x"],
        ] {
            assert_eq!(query(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
    }

    #[test]
    fn an_answer_names_rule_and_way() {
        let side = |endpoint: &str, address: &str| Side {
            endpoint: Some(endpoint.to_owned()),
            address: address.parse().unwrap(),
            port: None,
        };
        let text = render(&Explanation {
            judge: Judge::Programs,
            allowed: false,
            reason: Some("policy".into()),
            source: side("web1", "2001:db8::1"),
            destination: side("db1", "2001:db8::2"),
            decisions: vec![Decision {
                endpoint: Some("web1".into()),
                action: DecidedAction::Deny,
                rule: RuleName::new(Direction::Egress, &Origin::NoProfile),
            }],
            flow: FlowState::None,
            by: None,
            next: None,
            route: None,
        });
        assert_eq!(
            text,
            "denied (policy): web1 2001:db8::1 -> db1 2001:db8::2\n\
             flow: none is known; policy decides\n\
             web1 denies it: egress no policy or profile allows it\n"
        );
    }
}
