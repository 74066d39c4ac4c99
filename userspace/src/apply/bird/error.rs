//! Why BIRD does not do what is planned.

use super::control::ControlError;
use std::io;
use std::path::PathBuf;

/// Why BIRD does not do what is planned.
#[derive(Debug, thiserror::Error)]
pub enum BirdError {
    /// There is no BIRD here.
    #[error("no BIRD is installed; install bird2, or set bird.executable")]
    Absent,
    /// The program cannot be run.
    #[error("cannot run {}: {source}", path.display())]
    Execute {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program is another one.
    #[error("{} is no BIRD; set bird.executable", path.display())]
    NoBird {
        /// The program.
        path: PathBuf,
    },
    /// It does not take the configuration. The one it has stays.
    #[error("BIRD refuses its configuration: {line}")]
    Refused {
        /// Its own words.
        line: String,
    },
    /// It took the configuration and does not run it.
    #[error("BIRD took its configuration and does not run it; it has been told to go back to the one before")]
    NotInEffect,
    /// It has gone back to the configuration of before.
    #[error("BIRD has gone back to its configuration of before, because the confirmation came too late")]
    Late,
    /// It ended before it answered.
    #[error("BIRD ended right after its start ({0}); its log says why")]
    Ended(String),
    /// A file of ours.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel's routes cannot be read, or not be changed.
    #[error("BIRD's routes in the kernel: {0}")]
    Kernel(#[from] io::Error),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Our own task that looks after it is gone.
    #[error("nobody looks after BIRD any more; restart serval")]
    Abandoned,
}
