//! `cargo xtask bench`: the fast path measured against a bare redirect on each hook and against the kernel alone.

use crate::build::{self, cargo};
use crate::setup;
use crate::toolchain::Toolchain;
use crate::workspace::target;
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::path::{self, Path, PathBuf};

#[derive(clap::Args)]
pub struct Arguments {
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

/// Sets up and builds, then becomes `serval-bench`.
pub fn bench(arguments: &Arguments) -> Result<()> {
    let compare = file("--compare", arguments.compare.as_deref())?;
    if let Some(run) = &arguments.show {
        let program = cargo("run").args(["--release", "--package", "serval-bench", "--"]);
        return program.args(file("--show", Some(run))?).args(compare).become_it();
    }
    setup::setup()?;
    let built = build::build()?;
    let toolchain = Toolchain::require()?;
    toolchain.cargo("build").args(["--release", "--bin", "serval-bare"]).run()?;
    let [compiler, linker] = toolchain.versions()?;
    built
        .tell(cargo("run"))
        .env("SERVAL_BARE_OBJECT", built.object.with_file_name("serval-bare"))
        .env("SERVAL_BPF_COMPILER", compiler)
        .env("SERVAL_BPF_LINKER", linker)
        .args(["--release", "--package", "serval-bench", "--"])
        .env("SERVAL_BENCH_COMMAND", command())
        .env("SERVAL_BENCH_DIRECTORY", target().join("bench"))
        .args(arguments.quick.then_some("--quick"))
        .args(file("--json", arguments.json.as_deref())?)
        .args(compare)
        .args(&arguments.names)
        .become_it()
}

/// What a person typed, for the report.
fn command() -> String {
    let words = std::env::args_os().skip(1).map(|word| format!(" {}", word.to_string_lossy()));
    format!("cargo xtask{}", words.collect::<String>())
}

/// An option with a file that is named from where the person is, as the program runs elsewhere.
fn file(option: &str, file: Option<&Path>) -> Result<Vec<OsString>> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let absolute = path::absolute(file).with_context(|| format!("{option}: no such path"))?;
    Ok(vec![option.into(), absolute.into()])
}
