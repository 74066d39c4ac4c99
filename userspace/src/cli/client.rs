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
    Ok(converse(run, verb)?.map(|(answer, _)| answer))
}

/// The lines that the daemon sends in answer to `verb`, as long as it runs; `None` when no daemon runs.
pub fn follow<T: DeserializeOwned>(
    run: &Path,
    verb: Verb,
) -> anyhow::Result<Option<impl Iterator<Item = anyhow::Result<T>>>> {
    let Some(((), reader)) = converse(run, verb)? else { return Ok(None) };
    reader.get_ref().set_read_timeout(None)?;
    let lines = reader.lines().map(|line| {
        serde_json::from_str(&line.context("the daemon cannot be heard any more")?).context(OTHER_VERSION)
    });
    Ok(Some(lines))
}

/// What to tell whoever cannot read what the daemon says.
const OTHER_VERSION: &str = "the daemon is of another version; restart it with this binary";

/// The daemon's first line in answer to `verb`, and the connection for what follows.
fn converse<T: DeserializeOwned>(
    run: &Path,
    verb: Verb,
) -> anyhow::Result<Option<(T, BufReader<UnixStream>)>> {
    let socket = run.join(SOCKET);
    let stream = match UnixStream::connect(&socket) {
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
    let (line, reader) = exchange(stream, &Request { verb }).with_context(unanswered)?;
    match serde_json::from_str(&line).with_context(unanswered)? {
        Reply::Ok(answer) => Ok(Some((serde_json::from_value(answer).context(OTHER_VERSION)?, reader))),
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

fn exchange(mut stream: UnixStream, request: &Request) -> std::io::Result<(String, BufReader<UnixStream>)> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    stream.write_all(&text)?;
    let mut line = String::new();
    let mut reader = BufReader::new(stream);
    reader.read_line(&mut line)?;
    Ok((line, reader))
}
