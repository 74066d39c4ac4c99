//! `cargo xtask build`: the BPF object, and the `serval` binary that carries it.

use crate::run::Run;
use crate::toolchain::{BPF_TARGET, Toolchain};
use crate::workspace::{guest_kernel, target};
use anyhow::Result;
use std::path::PathBuf;

/// What was built.
pub struct Built {
    /// The BPF programs.
    pub object: PathBuf,
    /// The daemon and command line, with the object inside.
    pub serval: PathBuf,
}

impl Built {
    /// Tells a build script and a program where these are (`userspace/build.rs` embeds the object), and what
    /// `setup` unpacked.
    pub fn tell(&self, run: Run) -> Run {
        run.env("SERVAL_BPF_OBJECT", &self.object)
            .env("SERVAL_BIN", &self.serval)
            .env("SERVAL_GUEST_KERNEL", guest_kernel())
    }
}

/// Builds both in release mode and says with what and where.
pub fn build() -> Result<Built> {
    let toolchain = Toolchain::require()?;
    let object = target().join("bpf").join(BPF_TARGET).join("release/serval-hooks");
    toolchain.cargo("build").args(["--release", "--bin", "serval-hooks"]).run()?;

    let built = Built { object, serval: target().join("release/serval") };
    built.tell(cargo("build")).args(["--release", "--package", "serval"]).run()?;

    eprintln!("BPF compiler: {toolchain}");
    eprintln!("BPF programs: {}", built.object.display());
    eprintln!("serval:       {}", built.serval.display());
    Ok(built)
}

/// Cargo's `verb` for the host, with the compiler of the cargo that runs us.
pub fn cargo(verb: &str) -> Run {
    Run::new("cargo").arg(verb)
}
