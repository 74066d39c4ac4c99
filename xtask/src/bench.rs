//! `cargo xtask bench`: the fast path measured against a bare redirect on each hook and against the kernel alone.

use crate::build::{self, cargo};
use crate::setup;
use anyhow::Result;

#[derive(clap::Args)]
pub struct Arguments {
    /// Shorter runs: enough to see that all works, not to compare numbers
    #[arg(long)]
    quick: bool,
    /// Only the benchmarks of these names
    names: Vec<String>,
}

/// Sets up and builds, then becomes `serval-bench`.
pub fn bench(arguments: &Arguments) -> Result<()> {
    setup::setup()?;
    let built = build::build()?;
    built
        .tell(cargo("run"))
        .args(["--release", "--package", "serval-bench", "--"])
        .args(arguments.quick.then_some("--quick"))
        .args(&arguments.names)
        .become_it()
}
