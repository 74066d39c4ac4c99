//! Getting a running BIRD to the wanted configuration: check, load with a way back, look, confirm.

use super::control::{Connection, ControlError};
use super::error::BirdError;
use super::files::Files;
use crate::plan::bird::{REVISION_MARK, SERVAL_DEVICE};
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// After so long BIRD takes back what was not confirmed.
const UNDO: Duration = Duration::from_secs(30);

/// How long it may take until a new configuration is in effect: protocols that change go down first.
const EFFECT: Duration = Duration::from_secs(10);

/// How often to look, as BIRD does not tell.
const LOOK: Duration = Duration::from_millis(20);

/// What a running BIRD shows of its configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Running {
    /// Name of its protocol for interfaces, if it can be written without quotes.
    pub device: Option<String>,
    /// The revision, if the configuration is one of ours.
    pub revision: Option<String>,
}

/// Asks a running BIRD for its configuration.
pub(super) async fn running(connection: &mut Connection) -> Result<Running, ControlError> {
    let mut device = connection.protocol(SERVAL_DEVICE).await?;
    if device.is_none() {
        let protocols = connection.names().await?;
        if let Some(other) = protocols.into_iter().find(|protocol| protocol.kind == "Device") {
            device = connection.protocol(&other.name).await?;
        }
    }
    let Some(device) = device else { return Ok(Running::default()) };
    let revision = device.description.and_then(|text| text.strip_prefix(REVISION_MARK).map(str::to_owned));
    let plain = |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    Ok(Running { device: Some(device.name).filter(plain), revision })
}

/// Loads the candidate, which is `revision`. An error means that BIRD runs what it ran before, or will soon.
pub(super) async fn load(socket: &Path, files: &Files, revision: &str) -> Result<(), BirdError> {
    let candidate = files.candidate();
    let mut connection = Connection::open(socket).await?;
    connection.check(&candidate).await.map_err(refused)?;
    connection.configure(&candidate, UNDO).await.map_err(refused)?;
    // Over a new connection: what cannot be reached any more must not be confirmed.
    if !in_effect(socket, revision).await? {
        connection.undo().await?;
        return Err(BirdError::NotInEffect);
    }
    if !connection.confirm().await? {
        return Err(BirdError::Late);
    }
    files.adopt().map_err(|source| BirdError::File { path: files.current(), source })
}

/// Waits until BIRD runs `wanted`.
pub(super) async fn in_effect(socket: &Path, wanted: &str) -> Result<bool, ControlError> {
    let mut connection = Connection::open(socket).await?;
    connection.restrict().await?;
    let end = Instant::now() + EFFECT;
    loop {
        if running(&mut connection).await?.revision.as_deref() == Some(wanted) {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        sleep(LOOK).await;
    }
}

/// A refusal of a configuration is its own kind of error.
fn refused(error: ControlError) -> BirdError {
    match error {
        ControlError::Refused { message, .. } => BirdError::Refused { line: message },
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::UnixListener;
    use tokio::task::JoinHandle;

    /// A BIRD that takes a configuration, and then answers nobody who comes anew. Gives what it was told.
    fn that_cannot_be_reached_again(socket: PathBuf) -> JoinHandle<Vec<String>> {
        let listener = UnixListener::bind(socket).unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            drop(listener);
            let mut stream = BufReader::new(stream);
            stream.write_all(b"0001 BIRD 2.0.12 ready.\n").await.unwrap();
            let mut told = Vec::new();
            let mut line = String::new();
            while stream.read_line(&mut line).await.unwrap() > 0 {
                let reply =
                    if line.contains("check") { "0020 Configuration OK\n" } else { "0003 Reconfigured\n" };
                stream.write_all(reply.as_bytes()).await.unwrap();
                told.push(std::mem::take(&mut line).trim().to_owned());
            }
            told
        })
    }

    #[tokio::test]
    async fn what_cuts_bird_off_is_left_to_its_undo_timer() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::of(directory.path());
        files.propose("the text", None).unwrap();
        let bird = that_cannot_be_reached_again(files.socket());
        let outcome = load(&files.socket(), &files, "0123").await;
        assert!(matches!(outcome, Err(BirdError::Control(_))), "{outcome:?}");
        let file = files.candidate().display().to_string();
        let wanted = [format!("configure check \"{file}\""), format!("configure \"{file}\" timeout 30")];
        assert_eq!(bird.await.unwrap(), wanted, "nothing is confirmed");
        assert_eq!(files.taken().unwrap(), None, "nor taken for what it runs");
    }
}
