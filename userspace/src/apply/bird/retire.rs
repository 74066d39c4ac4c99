//! Ending a BIRD of our own for good, when this host is to speak BGP no more.

use super::control::Connection;
use super::error::BirdError;
use super::fib::Fib;
use super::files::Files;
use super::process;
use crate::plan::bird::{AGGREGATES, SESSION_PREFIXES};
use std::fmt;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long protocols may take to go down: all their routes are withdrawn.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often to look.
const LOOK: Duration = Duration::from_millis(20);

/// What there was to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retired {
    /// Nothing.
    Nothing,
    /// A BIRD, and its routes with it.
    Bird,
    /// So many routes that one had left in the kernel when it died.
    Routes(usize),
}

impl fmt::Display for Retired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("there is no BIRD of serval's"),
            Self::Bird => f.write_str("the BIRD that serval had started has been ended"),
            Self::Routes(count) => {
                write!(f, "{count} routes of a BIRD that had died are gone from the kernel")
            }
        }
    }
}

/// Ends the BIRD that an earlier configuration had us start below `run`, if there is one: neighbours are told, the routes
/// that came from them leave the kernel, and then BIRD ends. One that has died has left its routes, and they go.
pub async fn retire(run: &Path) -> Result<Retired, BirdError> {
    let files = Files::of(run);
    let retired = match Connection::open(&files.socket()).await {
        Ok(connection) => {
            end(connection, &files).await?;
            Retired::Bird
        }
        Err(error) if error.is_absence() => bury(&files).await?,
        Err(error) => return Err(error.into()),
    };
    if retired != Retired::Nothing {
        // Else the next one would take the routes in the kernel for its own.
        files.forget().map_err(|source| BirdError::File { path: files.current(), source })?;
    }
    Ok(retired)
}

/// As [`retire`], when nobody is to be configured any more: our files, which have passwords in them, go as well. What a
/// BIRD that the system runs has been given stays in effect until the system restarts it.
pub async fn leave(run: &Path) -> Result<Retired, BirdError> {
    let retired = retire(run).await?;
    let files = Files::of(run);
    files.forget().map_err(|source| BirdError::File { path: files.current(), source })?;
    Ok(retired)
}

async fn end(mut connection: Connection, files: &Files) -> Result<(), BirdError> {
    // One by one: an end as such leaves all routes in the kernel, as a restart must.
    for prefix in SESSION_PREFIXES {
        connection.disable(&format!("{prefix}_*")).await?;
    }
    connection.disable(AGGREGATES).await?;
    let end = Instant::now() + PATIENCE;
    let leaves = |name: &str| {
        name == AGGREGATES || SESSION_PREFIXES.iter().any(|prefix| name.starts_with(&format!("{prefix}_")))
    };
    while Instant::now() < end {
        let protocols = connection.protocols().await?;
        if protocols.iter().all(|protocol| protocol.state == "down" || !leaves(&protocol.name)) {
            break;
        }
        sleep(LOOK).await;
    }
    connection.down().await?;
    if !process::ended(files, PATIENCE).await {
        tracing::warn!("BIRD has not ended within {} s after it was told to", PATIENCE.as_secs());
    }
    // What it had from elsewhere, such as from the extra file.
    sweep().await.map(drop)
}

/// Nobody answers: takes away what a BIRD of ours that died, or cannot be reached, has left in the kernel.
async fn bury(files: &Files) -> Result<Retired, BirdError> {
    let lost = process::end_lost(files).await;
    // One that ends in good order takes this file with it.
    let died = files.pid().exists();
    if lost == 0 && !died {
        return Ok(Retired::Nothing);
    }
    let swept = sweep().await?;
    match std::fs::remove_file(files.pid()) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(BirdError::File { path: files.pid(), source })
        }
        _ => Ok(Retired::Routes(swept)),
    }
}

/// Takes BIRD's routes from the kernel, unless another BIRD runs here: it is the one to tell which are its own.
async fn sweep() -> Result<usize, BirdError> {
    if process::any_runs() { Ok(0) } else { Ok(Fib::open()?.sweep().await?) }
}
