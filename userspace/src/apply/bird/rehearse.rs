//! Whether BIRD would take a configuration, without a daemon and without a BIRD that runs. Writes a file in a place of
//! its own, and takes it away again.

use super::error::BirdError;
use super::files::Files;
use super::inputs;
use super::program::Program;
use crate::config::BirdConfig;
use crate::plan::bird::{BirdPlan, Inputs, render};
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

/// Has the BIRD that is installed read what would be given to it. What is missing besides, such as passwords, is the
/// answer; a configuration that it refuses is an error.
pub async fn rehearse(config: &BirdConfig, plan: &BirdPlan) -> Result<Vec<String>, BirdError> {
    let (inputs, problems) = inputs::gather(plan, config.start, &Inputs::default());
    let program = Program::find(config.executable.as_deref()).await?;
    let scratch = Scratch::new();
    let files = Files::of(&scratch.0);
    let text = render(plan, &inputs, program.dialect, "rehearsal");
    files.propose(&text, None).map_err(|source| BirdError::File { path: files.candidate(), source })?;
    match program.check(&files.candidate()).await {
        Ok(()) => Ok(problems),
        // The file is gone when somebody reads this; what is in it beyond our own words is named by the line.
        Err(BirdError::Refused { line }) => {
            let line = line.replace(&files.candidate().display().to_string(), "what serval renders");
            Err(BirdError::Refused { line })
        }
        Err(error) => Err(error),
    }
}

/// A directory that goes with this value.
struct Scratch(PathBuf);

impl Scratch {
    /// Its name is nobody's to foresee, and what [`Files::propose`] writes in it is ours to read alone.
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("serval-check-{:016x}", fastrand::u64(..))))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!("{} stays: {error}", self.0.display());
            }
            _ => {}
        }
    }
}
