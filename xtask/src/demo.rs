//! `cargo xtask demo`: VMs on this machine boot into working IPv6 and talk to each other, watched.

use crate::build::{self, cargo};
use crate::setup;
use anyhow::Result;

#[derive(clap::Args)]
pub struct Arguments {
    /// What the demo itself takes; `--help` among them
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Sets up and builds, then becomes `serval-demo`.
pub fn demo(arguments: &Arguments) -> Result<()> {
    setup::setup()?;
    let built = build::build()?;
    built
        .tell(cargo("run"))
        .args(["--release", "--package", "serval-tests", "--bin", "serval-demo", "--"])
        .args(&arguments.rest)
        .become_it()
}
