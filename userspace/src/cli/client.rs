//! Asks the running daemon over its control socket.

use crate::serve::control::{Reply, Request, SOCKET, Verb};
use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long the daemon may take: it may be in the middle of attaching hooks.
const PATIENCE: Duration = Duration::from_secs(30);

/// The daemon's answer to `verb`; `None` when no daemon runs.
pub fn ask<T: DeserializeOwned>(run: &Path, verb: Verb) -> anyhow::Result<Option<T>> {
    let socket = run.join(SOCKET);
    let mut stream = match UnixStream::connect(&socket) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot ask the daemon at {}; are you root?", socket.display()));
        }
    };
    let unanswered = || format!("the daemon at {} does not answer", socket.display());
    let line = exchange(&mut stream, Request { verb }).with_context(unanswered)?;
    match serde_json::from_str(&line).with_context(unanswered)? {
        Reply::Ok(answer) => {
            let answer = serde_json::from_value(answer)
                .context("the daemon is of another version; restart it with this binary")?;
            Ok(Some(answer))
        }
        Reply::Error(message) => bail!("the daemon refuses: {message}"),
    }
}

/// What to tell whoever needs a daemon.
pub fn not_running(run: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "no daemon runs with the run directory {}; start one with `serval run`, or name its configuration with --config",
        run.display()
    )
}

fn exchange(stream: &mut UnixStream, request: Request) -> std::io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut text = serde_json::to_vec(&request)?;
    text.push(b'\n');
    stream.write_all(&text)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}
