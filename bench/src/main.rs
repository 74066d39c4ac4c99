//! `cargo xtask bench` runs this: Serval measured against the limit of its hooks, a bare redirect, and against the
//! kernel alone, on this machine and in one run. It makes network namespaces of its own and nothing outside of them;
//! a run leaves a file, in `target/bench` unless told otherwise. Numbers never make it fail.
//!
//! | file | what it holds |
//! |---|---|
//! | `statistics`, `report` | what rounds say, as JSON, tables and HTML; pure |
//! | `rounds`, `progress` | arms take turns, and how far they are |
//! | `carrier` | the arms: what carries frames from one TAP to another |
//! | `policy` | what they ask about frames, in the words of each; pure |
//! | `destinations`, `flows` | where frames go when there are many routes, and to what when there are many flows; pure |
//! | `choice` | how often they go to each; pure |
//! | `measure` | the benchmarks, one file each |

mod bare;
mod carrier;
mod choice;
mod cpu;
mod destinations;
mod flows;
mod machine;
mod measure;
mod policy;
mod progress;
mod report;
mod rounds;
mod statistics;

use anyhow::{Context, Result, bail};
use clap::Parser;
use measure::{BENCHMARKS, Benchmark};
use report::schema::{self, Run};
use report::table;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

#[derive(Parser)]
#[command(
    name = "cargo xtask bench",
    about = "Measures the fast path against a bare redirect and the kernel"
)]
struct Arguments {
    /// Shorter runs: enough to see that all works, not to compare numbers
    #[arg(long)]
    quick: bool,
    /// The file to write; by default a new one in target/bench. The HTML report is beside it
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Say what changed since the run of this file
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Measure nothing: write the report of this file's run again, and compare it if asked to
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "names", "json"])]
    show: Option<PathBuf>,
    /// Only the benchmarks of these names
    names: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    // A file that cannot be compared is found out before anything is measured.
    let earlier = arguments.compare.as_deref().map(read).transpose()?;
    let (mut run, file) = match &arguments.show {
        Some(file) => {
            let run = read(file)?;
            run.measurements.iter().for_each(|measurement| println!("{}", table::render(measurement)));
            (run, file.clone())
        }
        None => {
            let run = measure(arguments)?;
            let file = arguments.json.clone().unwrap_or_else(|| new_file(&run));
            (run, file)
        }
    };
    if let (Some(file), Some(earlier)) = (&arguments.compare, earlier) {
        let comparison = report::compare(&file.display().to_string(), &earlier, &run);
        println!("{}", table::render_comparison(&comparison));
        run.comparison = Some(comparison);
    }
    if run.quick {
        println!("These were quick rounds; leave --quick out for numbers to compare.");
    }
    let page = file.with_extension("html");
    write(&file, &(serde_json::to_string_pretty(&run)? + "\n"))?;
    write(&page, &report::html::page(&run)?)?;
    println!("report: {} and {}", file.display(), page.display());
    Ok(())
}

/// Runs the benchmarks that were asked for.
fn measure(arguments: &Arguments) -> Result<Run> {
    let chosen = choose(&arguments.names)?;
    if let Some(reason) = serval_tests::unavailable() {
        bail!("{reason}");
    }
    if !serval::apply::fastpath::embedded() {
        bail!("this build carries no BPF programs; `cargo xtask bench` makes one that does");
    }
    let mut run = Run {
        schema: schema::VERSION,
        environment: machine::environment(),
        quick: arguments.quick,
        measurements: Vec::new(),
        comparison: None,
    };
    for (number, benchmark) in chosen.iter().enumerate() {
        eprintln!("{} ({} of {})", benchmark.name, number + 1, chosen.len());
        for outcome in (benchmark.run)(arguments.quick).with_context(|| benchmark.name)? {
            let measurement = report::measurement(outcome);
            println!("{}", table::render(&measurement));
            run.measurements.push(measurement);
        }
    }
    run.environment.load_after = machine::load();
    Ok(run)
}

fn choose(names: &[String]) -> Result<Vec<&'static Benchmark>> {
    let known = || BENCHMARKS.iter().map(|benchmark| benchmark.name).collect::<Vec<_>>().join(", ");
    if let Some(name) = names.iter().find(|name| BENCHMARKS.iter().all(|benchmark| benchmark.name != **name))
    {
        bail!("there is no benchmark `{name}`, only {}", known());
    }
    let wanted = |benchmark: &&Benchmark| names.is_empty() || names.iter().any(|name| name == benchmark.name);
    Ok(BENCHMARKS.iter().filter(wanted).collect())
}

fn read(file: &Path) -> Result<Run> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Run::parse(&text).with_context(|| format!("cannot use {}", file.display()))
}

/// Where a run is written unless somebody says where.
fn new_file(run: &Run) -> PathBuf {
    let directory =
        env::var_os("SERVAL_BENCH_DIRECTORY").map_or_else(|| "target/bench".into(), PathBuf::from);
    // Colons are trouble in names of files.
    directory.join(format!("{}-{}.json", run.environment.date.replace(':', ""), run.environment.commit))
}

fn write(file: &Path, text: &str) -> Result<()> {
    let write = || {
        file.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(file, text)
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn benchmarks_are_chosen_by_name() {
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(ToString::to_string).collect() };
        assert_eq!(choose(&[]).unwrap().len(), BENCHMARKS.len());
        assert_eq!(choose(&names(&["bulk"])).unwrap()[0].name, "bulk");
        let error = choose(&names(&["bluk"])).err().unwrap().to_string();
        assert!(error.contains("`bluk`") && error.contains("bulk"), "{error}");
    }
}
