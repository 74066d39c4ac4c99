//! `serval check`: whether the daemon would take configuration and resources as they are, and BIRD what becomes of them;
//! and what they would change. Reads files, and has BIRD read one, and a daemon that runs compare. Neither daemon nor BIRD
//! need run, and nothing changes if they do.

use super::{Answer, Format, client, print};
use crate::apply::{self, bird::BirdError};
use crate::cause::in_one_line;
use crate::config::{BirdConfig, Config, ConfigError, DEFAULT_FILE};
use crate::plan::bird::{self, BirdPlan};
use crate::plan::policy::{lint, policies};
use crate::plan::{self, HostFacts, Settings};
use crate::resource::Problem;
use crate::serve::control::Verb;
use crate::source::Directory;
use crate::status::{
    self, Change, Comparison, EndpointChange, FieldChange, MemberChange, PolicyChange, SessionChange,
};
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// What `serval check --json` prints.
#[derive(Debug, Serialize)]
struct Checked {
    /// What is wrong or odd.
    problems: Vec<Problem>,
    /// What would change; absent when it would be refused, and when no daemon says.
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<Comparison>,
}

/// `file` is where the configuration is from, and `resources` what is looked at in place of its directory.
pub(super) fn run(
    file: &Path,
    config: Result<Config, ConfigError>,
    resources: Option<&Path>,
    format: Format,
) -> anyhow::Result<Answer> {
    let (problems, mut summary, config) = match config {
        Ok(mut config) => {
            if let Some(resources) = resources {
                config.resources.directory = resources.to_owned();
            }
            let (problems, summary) = check(file, &config)?;
            (problems, summary, Some(config))
        }
        Err(error) => (vec![problem(error)], String::new(), None),
    };
    let refused = problems.iter().any(Problem::is_error);
    let mut comparison = None;
    if let Some(config) = config.filter(|_| !refused) {
        match compare(&config) {
            Ok(compared) => comparison = compared,
            Err(error) => {
                let note = in_one_line(error.as_ref());
                summary.push_str(&format!("note: what would change is not known: {note}\n"));
            }
        }
    }
    if format.json {
        print::json(&Checked { problems, comparison })?;
    } else {
        let lines: Vec<_> = problems.iter().map(|problem| format!("{problem}\n")).collect();
        print::text(&lines.concat())?;
        if !refused {
            print::text(&summary)?;
            print::text(&comparison.as_ref().map(render).unwrap_or_default())?;
        }
    }
    Ok(if refused { Answer::No } else { Answer::Yes })
}

/// What the running daemon says of the directory; `None`: none runs.
fn compare(config: &Config) -> anyhow::Result<Option<Comparison>> {
    // The daemon works elsewhere.
    let directory = std::path::absolute(&config.resources.directory)?;
    client::ask(&config.paths.run, Verb::Compare { directory })
}

fn problem(error: ConfigError) -> Problem {
    match error {
        ConfigError::Content(problem) => problem,
        ConfigError::Read { file, source } => Problem::file(
            &file,
            &format!("{source}; name another file with --config, or none for the defaults"),
        ),
        ConfigError::Node(_) => Problem::file(Path::new(DEFAULT_FILE), &error.to_string()),
    }
}

/// What is wrong, and what there is when nothing is.
fn check(file: &Path, config: &Config) -> anyhow::Result<(Vec<Problem>, String)> {
    let snapshot = Directory::read(&config.resources.directory);
    let settings = Settings { node: &config.node, tap_prefix: &config.tap_prefix };
    // Conflicts do not depend on the host, so no host is needed to find them.
    let plan = plan::plan(&snapshot.resources, &HostFacts::default(), settings);
    let mut summary = format!(
        "good: {} endpoints on node {}, {} on others, {} subnets",
        plan.endpoints.len(),
        config.node,
        snapshot.resources.endpoints.len() - plan.endpoints.len(),
        snapshot.resources.subnets.len(),
    );
    let mut conflicts = plan.conflicts;
    if config.policy.enforce {
        let policies = policies(&snapshot.resources, &config.node, config.policy.into());
        conflicts.append(&mut lint::lint(&snapshot.resources, &config.node, &policies));
    }
    let (mut notes, mut refusals) = (Vec::new(), Vec::new());
    if let Some(bird) = &config.bird {
        let host = bird::Host { node: &config.node, tap_prefix: &config.tap_prefix };
        let mut plan = bird::plan(bird, host, &snapshot.resources);
        summary.push_str(&format!(", {} BGP sessions", plan.sessions.len()));
        conflicts.append(&mut plan.conflicts);
        notes.append(&mut plan.notes);
        let (problems, unknown) = rehearse(file, bird, &plan)?;
        refusals = problems;
        notes.extend(unknown);
    }
    summary.push('\n');
    summary.extend(notes.iter().map(|note| format!("note: {note}\n")));
    let problems = status::problems(&snapshot, &conflicts).into_iter().chain(refusals).collect();
    Ok((problems, summary))
}

/// Has BIRD read what it would be given: what is wrong with that, and what could not be found out.
fn rehearse(
    file: &Path,
    config: &BirdConfig,
    plan: &BirdPlan,
) -> anyhow::Result<(Vec<Problem>, Vec<String>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let problem = |message: &str| Problem::file(file, message).in_field("bird");
    match runtime.block_on(apply::bird::rehearse(config, plan)) {
        // Passwords are root's to read.
        Ok(problems) if !nix::unistd::geteuid().is_root() => Ok((Vec::new(), problems)),
        Ok(problems) => Ok((problems.iter().map(|message| problem(message)).collect(), Vec::new())),
        Err(BirdError::Absent) => {
            Ok((Vec::new(), vec!["no BIRD is installed that could check its configuration".to_owned()]))
        }
        Err(error) => Ok((vec![problem(&in_one_line(&error))], Vec::new())),
    }
}

fn render(comparison: &Comparison) -> String {
    let Comparison { endpoints, touched, flows_judged_again, sessions, bgp } = comparison;
    if comparison.is_unchanged() {
        return "nothing would change: it says what counts already\n".to_owned();
    }
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |what: &str| writeln!(text, "{what}").unwrap_or(());
    line(&format!("endpoints that would be touched: {}; there would be {endpoints}", touched.len()));
    for EndpointChange { name, change, fields, policy } in touched {
        line(&format!("{name}: {}", word(*change)));
        for FieldChange { field, before, after } in fields {
            line(&match (before, after) {
                (Some(before), Some(after)) => format!("  {field}: {before} -> {after}"),
                (Some(before), None) => format!("  - {field}: {before}"),
                (None, after) => format!("  + {field}: {}", after.as_deref().unwrap_or_default()),
            });
        }
        for PolicyChange { direction, come, go, reordered, members } in policy {
            go.iter().for_each(|rule| line(&format!("  - {rule}")));
            come.iter().for_each(|rule| line(&format!("  + {rule}")));
            if *reordered {
                line(&format!("  {direction}: the same rules in another order"));
            }
            for MemberChange { of, joined, left } in members {
                line(&format!("  {direction}: {of}: {joined} addresses join, {left} leave"));
            }
        }
    }
    if *flows_judged_again {
        line("flows: all are judged again by their next packet; those still allowed go on");
    }
    for SessionChange { name, change } in sessions {
        line(&format!("BGP session {name}: {}", word(*change)));
    }
    if *bgp {
        line("BIRD: settings besides sessions change");
    }
    text
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed => "changed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::policy::{Direction, Origin};
    use crate::status::RuleName;

    #[test]
    fn what_would_change_is_said_endpoint_by_endpoint() {
        let nothing = Comparison { endpoints: 3, ..Comparison::default() };
        assert_eq!(render(&nothing), "nothing would change: it says what counts already\n");
        let mac = FieldChange { field: "MAC".into(), before: Some("a".into()), after: Some("b".into()) };
        let tier = Origin::TierDefault { tier: "default".into() };
        let policy = PolicyChange {
            direction: Direction::Ingress.into(),
            come: vec![RuleName::new(Direction::Ingress, &tier)],
            go: vec![RuleName::new(Direction::Ingress, &Origin::Profile { profile: "open".into(), rule: 0 })],
            reordered: false,
            members: vec![MemberChange { of: "role == \"lb\"".into(), joined: 1, left: 2 }],
        };
        let text = render(&Comparison {
            endpoints: 3,
            touched: vec![EndpointChange {
                name: "web1".into(),
                change: Change::Changed,
                fields: vec![mac],
                policy: vec![policy],
            }],
            flows_judged_again: true,
            sessions: vec![SessionChange { name: "tor".into(), change: Change::Added }],
            bgp: false,
        });
        assert_eq!(
            text,
            "endpoints that would be touched: 1; there would be 3\n\
             web1: changed\n  MAC: a -> b\n  - ingress profile open, rule 0\n\
             \x20 + ingress tier default, no rule matches\n\
             \x20 ingress: role == \"lb\": 1 addresses join, 2 leave\n\
             flows: all are judged again by their next packet; those still allowed go on\n\
             BGP session tor: added\n"
        );
    }
}
