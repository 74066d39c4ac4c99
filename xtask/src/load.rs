//! `cargo xtask load`: the programs on one interface for a look, off again on Ctrl-C.

use crate::build;
use crate::run::Run;
use anyhow::Result;

#[derive(clap::Args)]
pub struct Arguments {
    /// The interface to attach to
    #[arg(long)]
    interface: String,
}

/// Builds, then becomes `serval load`.
pub fn load(arguments: &Arguments) -> Result<()> {
    let built = build::build()?;
    Run::new(built.serval).args(["load", "--interface", &arguments.interface]).become_it()
}
