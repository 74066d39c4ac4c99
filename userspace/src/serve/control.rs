//! The control socket: how `serval status` and the other verbs ask the running daemon.
//!
//! A client sends one line of JSON and gets one line of JSON: `{"verb": "status"}` -> `{"ok": {...}}` or
//! `{"error": "..."}`. Only root may connect (mode 0600 from the moment the socket exists). A client that sends garbage,
//! too much, or nothing, costs its own connection and no more. To `monitor`, a line comes for every event, as long as the
//! client listens.

use super::monitor::{Listener, Monitor, MonitorQuery};
use crate::status::{ExplainQuery, RoutesQuery};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::WriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Name of the socket in the run directory.
pub const SOCKET: &str = "control.sock";

/// Longest request line in bytes.
const REQUEST_CAPACITY: u64 = 16_384;
/// How long a client may take to send its request or to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many clients are served at once; more wait in the listen queue.
const CLIENTS: usize = 32;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Which verb.
    pub verb: Verb,
}

/// The verbs that the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// How the daemon and its endpoints are.
    Status,
    /// Who the endpoints are.
    Endpoints,
    /// The routes to other hosts, and who speaks for them.
    Routes(RoutesQuery),
    /// What would become of a packet.
    Explain(ExplainQuery),
    /// What a directory of resources would change, did it count.
    Compare {
        /// The directory.
        directory: PathBuf,
    },
    /// What becomes of packets, as it happens.
    Monitor(MonitorQuery),
    /// Take the fast path off.
    Detach,
}

/// What it gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// The answer.
    Ok(serde_json::Value),
    /// Why there is none.
    Error(String),
}

/// A request on its way to the daemon, and the way back.
pub type Call = (Verb, oneshot::Sender<Reply>);

/// The socket in the run directory, replacing one that an earlier daemon left. The caller holds the run directory's
/// lock, so nobody else listens there.
pub fn bind(run: &Path) -> io::Result<UnixListener> {
    let path = run.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    // The mode of the unbound socket is the one bind() gives the file (unix_bind_bsd), so it is never open to others.
    nix::sys::stat::fchmod(socket.as_fd(), nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    socket.bind(&socket2::SockAddr::unix(&path)?)?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(socket)))
}

/// Takes the socket's name away, so that clients hear at once that nobody is there.
pub fn unbind(run: &Path) {
    if let Err(error) = std::fs::remove_file(run.join(SOCKET)) {
        tracing::debug!("the control socket stays: {error}");
    }
}

/// Serves clients until the daemon is gone.
pub async fn serve(listener: UnixListener, daemon: mpsc::Sender<Call>, monitor: Monitor) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((client, _)) => {
                let (daemon, monitor) = (daemon.clone(), monitor.clone());
                tokio::spawn(async move {
                    if let Err(error) = converse(client, &daemon, &monitor).await {
                        tracing::debug!("control client: {error}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors: the connection stays queued, so a loop without a pause would spin.
                tracing::warn!("control socket: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(mut client: UnixStream, daemon: &mpsc::Sender<Call>, monitor: &Monitor) -> io::Result<()> {
    let (reader, mut writer) = client.split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader.take(REQUEST_CAPACITY));
    tokio::time::timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await??;
    let reply = match parse(&line) {
        Ok(Request { verb: Verb::Monitor(query) }) => {
            return stream(&mut reader, &mut writer, monitor.listen(query)).await;
        }
        Ok(Request { verb }) => ask(verb, daemon).await,
        Err(message) => Reply::Error(message),
    };
    say(&mut writer, &reply).await?;
    writer.shutdown().await
}

/// Writes a line.
async fn say(writer: &mut WriteHalf<'_>, what: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(what)?;
    text.push(b'\n');
    tokio::time::timeout(PATIENCE, writer.write_all(&text)).await?
}

/// Tells a client what it wants to hear, until it has gone: it says nothing more itself.
async fn stream(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut WriteHalf<'_>,
    mut listener: Listener,
) -> io::Result<()> {
    // It listens from here on.
    say(writer, &Reply::Ok(serde_json::Value::Null)).await?;
    let mut word = [0];
    loop {
        tokio::select! {
            event = listener.next() => match event {
                Some(event) => say(writer, &*event).await?,
                None => return Ok(()),
            },
            gone = reader.read(&mut word) => return gone.map(drop),
        }
    }
}

fn parse(line: &[u8]) -> Result<Request, String> {
    if line.last() != Some(&b'\n') {
        return Err(format!("a request is one line of at most {REQUEST_CAPACITY} bytes"));
    }
    serde_json::from_slice(line).map_err(|error| format!("no request: {error}"))
}

async fn ask(verb: Verb, daemon: &mpsc::Sender<Call>) -> Reply {
    let (answer, answered) = oneshot::channel();
    let gone = || Reply::Error("the daemon is stopping".to_owned());
    match daemon.send((verb, answer)).await {
        Ok(()) => answered.await.unwrap_or_else(|_| gone()),
        Err(_) => gone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tokio::task::JoinHandle;

    /// A daemon that answers every call with its name.
    fn daemon(run: &Path) -> (JoinHandle<()>, JoinHandle<()>) {
        let (calls, mut called) = mpsc::channel::<Call>(4);
        let listener = bind(run).unwrap();
        let answering = tokio::spawn(async move {
            while let Some((verb, answer)) = called.recv().await {
                let reply = Reply::Ok(serde_json::to_value(verb).unwrap());
                drop(answer.send(reply));
            }
        });
        (tokio::spawn(serve(listener, calls, Monitor::default())), answering)
    }

    async fn talk(run: &Path, request: &[u8]) -> Reply {
        let mut client = UnixStream::connect(run.join(SOCKET)).await.unwrap();
        client.write_all(request).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    #[tokio::test]
    async fn answers_requests_and_refuses_garbage() {
        let run = tempfile::tempdir().unwrap();
        let _daemon = daemon(run.path());
        let ok = talk(run.path(), b"{\"verb\":\"status\"}\n").await;
        assert_eq!(ok, Reply::Ok("status".into()));
        let long = [b' '; REQUEST_CAPACITY as usize];
        for garbage in [
            b"".as_slice(),
            b"{\"verb\":\"status\"}",
            b"\n",
            b"\xff\xfe\n",
            b"{\"verb\":\"reboot\"}\n",
            b"{\"verb\":\"status\",\"x\":1}\n",
            &long,
        ] {
            assert!(matches!(talk(run.path(), garbage).await, Reply::Error(_)), "{garbage:?}");
        }
    }

    #[tokio::test]
    async fn silent_clients_do_not_keep_others_out() {
        let run = tempfile::tempdir().unwrap();
        let _daemon = daemon(run.path());
        let mut silent = Vec::new();
        for _ in 0..CLIENTS - 1 {
            silent.push(UnixStream::connect(run.path().join(SOCKET)).await.unwrap());
        }
        assert!(matches!(talk(run.path(), b"{\"verb\":\"endpoints\"}\n").await, Reply::Ok(_)));
    }

    #[tokio::test]
    async fn only_the_owner_may_connect_and_a_stale_socket_is_replaced() {
        let run = tempfile::tempdir().unwrap();
        drop(bind(run.path()).unwrap());
        let _listener = bind(run.path()).unwrap();
        let mode = std::fs::metadata(run.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
