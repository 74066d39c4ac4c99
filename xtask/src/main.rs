//! `cargo xtask <verb>`: everything a person types to build, see, test and measure Serval. One file a verb.
//!
//! Nothing here touches packets or BPF: a verb prepares what it needs, then runs cargo or the program that was built.

mod bench;
mod build;
mod demo;
mod lint;
mod load;
mod run;
mod setup;
mod space;
mod test;
mod toolchain;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Builds, shows, tests and measures Serval")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install all that building, demo and tests need (Debian, as root); elsewhere say what is missing
    Setup,
    /// Build the BPF programs and the `serval` binary that carries them
    Build,
    /// Watch VMs boot into working IPv6 and talk through the fast path
    Demo(demo::Arguments),
    /// Run every test that this user and machine can run
    Test(test::Arguments),
    /// Check the format and lint host code and BPF code; a warning is an error
    #[command(visible_alias = "clippy")]
    Lint,
    /// Attach the programs to one interface, show its counters, and take them off on Ctrl-C
    Load(load::Arguments),
    /// Measure the fast path against a bare redirect and the kernel
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Setup => setup::setup(),
        Verb::Build => build::build().map(|_| ()),
        Verb::Demo(arguments) => demo::demo(&arguments),
        Verb::Test(arguments) => test::test(&arguments),
        Verb::Lint => lint::lint(),
        Verb::Load(arguments) => load::load(&arguments),
        Verb::Bench(arguments) => bench::bench(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
