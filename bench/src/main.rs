//! `cargo xtask bench` runs this: Serval measured against the limit of its hooks, a bare redirect, and against the
//! kernel alone, on this machine and in one run. It makes network namespaces of its own and nothing outside of them;
//! the report goes to `bench/results`. Numbers never make it fail.
//!
//! | file | what it holds |
//! |---|---|
//! | `statistics`, `report` | what rounds say, as JSON and as tables; pure |
//! | `rounds` | arms take turns |
//! | `carrier` | the arms: what carries frames from one TAP to another |
//! | `destinations` | where frames go when there are many routes; pure |
//! | `measure` | the benchmarks, one file each |

mod bare;
mod carrier;
mod cpu;
mod destinations;
mod machine;
mod measure;
mod report;
mod rounds;
mod statistics;

use anyhow::{Context, Result, bail};
use clap::Parser;
use machine::Machine;
use measure::{BENCHMARKS, Benchmark};
use report::Report;
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
    let chosen = choose(&arguments.names)?;
    if let Some(reason) = serval_tests::unavailable() {
        bail!("{reason}");
    }
    if !serval::apply::fastpath::embedded() {
        bail!("this build carries no BPF programs; `cargo xtask bench` makes one that does");
    }
    let mut report =
        Report { format: 2, machine: Machine::here(), quick: arguments.quick, benchmarks: Vec::new() };
    for benchmark in chosen {
        for outcome in (benchmark.run)(arguments.quick).with_context(|| benchmark.name)? {
            println!("{}", outcome.render());
            for series in &outcome.arms {
                if let Some(why) = &series.last_rejection {
                    println!("rejected: {}, {} times, lastly: {why}", series.arm, series.rejected);
                }
            }
            report.benchmarks.push(outcome);
        }
    }
    if arguments.quick {
        println!("These were quick rounds; leave --quick out for numbers to compare.");
    }
    println!("report: {}", write(&report)?.display());
    Ok(())
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

/// Writes the report into a new file; where that is.
fn write(report: &Report) -> Result<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    let file = directory.join(format!("{}-{}.json", report.machine.time, report.machine.commit));
    let write = || -> Result<()> {
        fs::create_dir_all(&directory)?;
        Ok(fs::write(&file, serde_json::to_string_pretty(report)? + "\n")?)
    };
    write().with_context(|| format!("cannot write {}", file.display()))?;
    let here = env::current_dir().unwrap_or_default();
    Ok(file.strip_prefix(here).map(Path::to_owned).unwrap_or(file))
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
