//! `serval check`: whether the daemon would take configuration and resources as they are. Reads files and nothing else.

use super::{Answer, Format, print};
use crate::config::{Config, ConfigError, DEFAULT_FILE};
use crate::plan::{self, HostFacts, Settings, bird};
use crate::resource::Problem;
use crate::source::Directory;
use crate::status;
use std::path::Path;

pub(super) fn run(config: Result<Config, ConfigError>, format: Format) -> anyhow::Result<Answer> {
    let (problems, summary) = match config {
        Ok(config) => check(&config),
        Err(error) => (vec![problem(error)], String::new()),
    };
    if format.json {
        print::json(&problems)?;
    } else {
        let lines: Vec<_> = problems.iter().map(|problem| format!("{problem}\n")).collect();
        print::text(&lines.concat())?;
    }
    if problems.iter().any(Problem::is_error) {
        return Ok(Answer::No);
    }
    if !format.json {
        print::text(&summary)?;
    }
    Ok(Answer::Yes)
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
fn check(config: &Config) -> (Vec<Problem>, String) {
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
    let mut notes = Vec::new();
    if let Some(bird) = &config.bird {
        let host = bird::Host { node: &config.node, tap_prefix: &config.tap_prefix };
        let plan = bird::plan(bird, host, &snapshot.resources);
        summary.push_str(&format!(", {} BGP sessions", plan.sessions.len()));
        conflicts.extend(plan.conflicts);
        notes = plan.notes;
    }
    summary.push('\n');
    summary.extend(notes.iter().map(|note| format!("note: {note}\n")));
    (status::problems(&snapshot, &conflicts), summary)
}
