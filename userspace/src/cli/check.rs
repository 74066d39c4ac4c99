//! `serval check`: whether the daemon would take configuration and resources as they are, and BIRD what becomes of them.
//! Reads files, and has BIRD read one; neither daemon nor BIRD need run, and if they do they do not notice.

use super::{Answer, Format, print};
use crate::apply::{self, bird::BirdError};
use crate::cause::in_one_line;
use crate::config::{BirdConfig, Config, ConfigError, DEFAULT_FILE};
use crate::plan::bird::{self, BirdPlan};
use crate::plan::{self, HostFacts, Settings};
use crate::resource::Problem;
use crate::source::Directory;
use crate::status;
use std::path::Path;

/// `file` is where the configuration is from.
pub(super) fn run(
    file: &Path,
    config: Result<Config, ConfigError>,
    format: Format,
) -> anyhow::Result<Answer> {
    let (problems, summary) = match config {
        Ok(config) => check(file, &config)?,
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
