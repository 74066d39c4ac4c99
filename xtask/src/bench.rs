//! `cargo xtask bench`: the fast path measured against a bare redirect on each hook and against the kernel alone.

use crate::build::{self, cargo};
use crate::run::Run;
use crate::setup;
use crate::toolchain::Toolchain;
use crate::workspace::target;
use anyhow::Result;
use std::ffi::{OsStr, OsString};

/// Options of `serval-bench` with which it measures nothing, and needs no programs.
const LOOKS: &[&str] = &["--show", "--help", "-h"];

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// What `serval-bench` takes; `--help` among them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

/// Sets up and builds, then becomes `serval-bench`.
pub fn bench(arguments: &Arguments) -> Result<()> {
    if arguments.rest.iter().any(|word| only_looks(word)) {
        return become_bench(cargo("run"), arguments);
    }
    setup::setup()?;
    let built = build::build()?;
    let toolchain = Toolchain::require()?;
    toolchain.cargo("build").args(["--release", "--bin", "serval-bare"]).run()?;
    let [compiler, linker] = toolchain.versions()?;
    let run = built
        .tell(cargo("run"))
        .env("SERVAL_BARE_OBJECT", built.object.with_file_name("serval-bare"))
        .env("SERVAL_BPF_COMPILER", compiler)
        .env("SERVAL_BPF_LINKER", linker)
        .env("SERVAL_BENCH_COMMAND", command())
        .env("SERVAL_BENCH_DIRECTORY", target().join("bench"));
    become_bench(run, arguments)
}

/// Files are named from where the person is.
fn become_bench(run: Run, arguments: &Arguments) -> Result<()> {
    run.here().args(["--release", "--package", "serval-bench", "--"]).args(&arguments.rest).become_it()
}

fn only_looks(word: &OsStr) -> bool {
    let option = word.to_str().and_then(|word| word.split('=').next());
    option.is_some_and(|option| LOOKS.contains(&option))
}

/// What a person typed, for the report.
fn command() -> String {
    let words = std::env::args_os().skip(1).map(|word| format!(" {}", word.to_string_lossy()));
    format!("cargo xtask{}", words.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_at_a_run_needs_no_programs_and_a_measurement_does() {
        let looks = ["--show", "--show=run.json", "-h", "--help"];
        assert!(looks.into_iter().all(|word| only_looks(OsStr::new(word))));
        let measures = ["--quick", "--compare=run.json", "show", "packets"];
        assert!(!measures.into_iter().any(|word| only_looks(OsStr::new(word))));
    }
}
