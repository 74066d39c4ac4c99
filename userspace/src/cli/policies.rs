//! `serval policies`: the rules that are about endpoints of this host, and what each has done.

use super::{Answer, Format, client, print};
use crate::config::Config;
use crate::serve::control::Verb;
use crate::status::{RuleCount, Status};

pub(super) fn run(config: &Config, format: Format) -> anyhow::Result<Answer> {
    let run = &config.paths.run;
    let status: Status = client::ask(run, Verb::Status)?.ok_or_else(|| client::not_running(run))?;
    if format.json {
        print::json(&status.policies)?;
    } else {
        print::text(&render(&status.policies))?;
    }
    Ok(Answer::Yes)
}

fn render(rules: &[RuleCount]) -> String {
    let mut table = print::table(&["DIRECTION", "TIER", "POLICY", "RULE", "ALLOWED", "DENIED"]);
    for RuleCount { rule, allowed, denied } in rules {
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let or_none = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
        let policy = match (&rule.policy, &rule.profile, &rule.tunnel) {
            (Some(policy), ..) => policy.clone(),
            (None, Some(profile), _) => format!("profile {profile}"),
            (None, None, Some(tunnel)) => format!("no {tunnel}"),
            (None, None, None) => "-".to_owned(),
        };
        let place = match rule.rule {
            Some(rule) => rule.to_string(),
            None if rule.tunnel.is_some() => "-".to_owned(),
            None => "no rule matches".to_owned(),
        };
        table.add_row([
            rule.direction.to_string(),
            or_none(&rule.tier),
            policy,
            place,
            number(*allowed),
            number(*denied),
        ]);
    }
    format!("{}\n", table.trim_fmt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::policy::{Direction, Origin, Tunnel};
    use crate::resource::ScopedName;
    use crate::status::RuleName;

    #[test]
    fn a_row_a_rule() {
        let policy = ScopedName { namespace: None, name: "web".into() };
        let rule = |direction, origin, allowed, denied| RuleCount {
            rule: RuleName::new(direction, &origin),
            allowed,
            denied,
        };
        let web = Origin::Rule { tier: "default".into(), policy, rule: 0 };
        let text = render(&[
            rule(Direction::Ingress, web, Some(3), None),
            rule(Direction::Egress, Origin::TierDefault { tier: "default".into() }, None, Some(4)),
            rule(Direction::Egress, Origin::Tunnel(Tunnel::Vxlan), None, Some(6)),
            rule(Direction::Egress, Origin::Profile { profile: "open".into(), rule: 1 }, Some(5), None),
        ]);
        let rows: Vec<Vec<&str>> =
            text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["ingress", "default", "web", "0", "3", "-"]);
        assert_eq!(rows[1], ["egress", "default", "-", "no", "rule", "matches", "-", "4"]);
        assert_eq!(rows[2], ["egress", "-", "no", "VXLAN", "-", "-", "6"]);
        assert_eq!(rows[3], ["egress", "-", "profile", "open", "1", "5", "-"]);
    }
}
