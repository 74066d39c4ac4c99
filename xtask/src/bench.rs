//! `cargo xtask bench`: the fast path measured against a bare redirect on each hook and against the kernel alone.

use crate::build::{self, cargo};
use crate::setup;
use crate::toolchain::Toolchain;
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
    let toolchain = Toolchain::require()?;
    toolchain.cargo("build").args(["--release", "--bin", "serval-bare"]).run()?;
    let [compiler, linker] = toolchain.versions()?;
    built
        .tell(cargo("run"))
        .env("SERVAL_BARE_OBJECT", built.object.with_file_name("serval-bare"))
        .env("SERVAL_BPF_COMPILER", compiler)
        .env("SERVAL_BPF_LINKER", linker)
        .args(["--release", "--package", "serval-bench", "--"])
        .args(arguments.quick.then_some("--quick"))
        .args(&arguments.names)
        .become_it()
}
