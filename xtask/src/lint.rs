//! `cargo xtask lint`: format and clippy, for the host and, where its compiler is there, for BPF. Warnings are errors.

use crate::build::cargo;
use crate::toolchain::Toolchain;
use anyhow::Result;

/// Checks everything that can be checked without running it.
pub fn lint() -> Result<()> {
    cargo("fmt").args(["--all", "--check"]).run()?;
    cargo("clippy").args(["--workspace", "--all-targets", "--", "-Dwarnings"]).run()?;
    match Toolchain::find() {
        Some(toolchain) => toolchain.cargo("clippy").args(["--lib", "--bins", "--", "-Dwarnings"]).run(),
        None => {
            eprintln!("lint: BPF code left out, no compiler for it here: see `cargo xtask setup`");
            Ok(())
        }
    }
}
