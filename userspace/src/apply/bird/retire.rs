//! Ending a BIRD of our own for good, when this host is to speak BGP no more.

use super::control::Connection;
use super::error::BirdError;
use super::files::Files;
use crate::plan::bird::{AGGREGATES, SESSION_PREFIXES};
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long protocols may take to go down: all their routes are withdrawn.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often to look.
const LOOK: Duration = Duration::from_millis(20);

/// Ends the BIRD that an earlier configuration had us start below `run`, if there is one: neighbours are told, the routes
/// that came from them leave the kernel, and then BIRD ends. True if there was one.
pub async fn retire(run: &Path) -> Result<bool, BirdError> {
    let files = Files::of(run);
    let mut connection = match Connection::open(&files.socket()).await {
        Ok(connection) => connection,
        Err(error) if error.is_absence() => return Ok(false),
        Err(error) => return Err(error.into()),
    };
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
    let gone = async {
        while Connection::open(&files.socket()).await.is_ok() {
            sleep(LOOK).await
        }
    };
    if tokio::time::timeout(PATIENCE, gone).await.is_err() {
        tracing::warn!("BIRD has not ended within {} s after it was told to", PATIENCE.as_secs());
    }
    // Else the next one would take the routes in the kernel for its own.
    match std::fs::remove_file(files.current()) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(BirdError::File { path: files.current(), source })
        }
        _ => Ok(true),
    }
}
