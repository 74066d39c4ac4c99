//! A connection to BIRD's control socket: one command at a time, one reply each.

use super::reply::{NoReply, Reply};
use super::table::{Daemon, Protocol};
use ipnet::Ipv6Net;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long BIRD may take for a reply: it answers between two pieces of work, each of some milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest line.
const LINE: usize = 1 << 16;

/// A connection that has been greeted.
#[derive(Debug)]
pub(super) struct Connection {
    stream: BufReader<UnixStream>,
    version: String,
}

/// Why BIRD did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("no BIRD answers at {}: {source}", socket.display())]
    Connect {
        /// The control socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to BIRD broke: {0}")]
    Broken(#[source] io::Error),
    /// It is there, and says nothing.
    #[error("BIRD does not answer: it has too much to do, or has been stopped")]
    Silent,
    /// What listens is no BIRD.
    #[error("what listens there does not speak as BIRD does: {0}")]
    Foreign(String),
    /// It says no.
    #[error("BIRD refuses `{command}`: {message}")]
    Refused {
        /// What it was told.
        command: String,
        /// The code of its answer.
        code: u16,
        /// Its own words.
        message: String,
    },
}

impl ControlError {
    /// Whether nobody listens, so that a BIRD may be started there.
    pub fn is_absence(&self) -> bool {
        let Self::Connect { source, .. } = self else { return false };
        matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
    }
}

impl From<NoReply> for ControlError {
    fn from(error: NoReply) -> Self {
        Self::Foreign(error.to_string())
    }
}

/// Code of the greeting.
const WELCOME: u16 = 1;
/// `configure confirm` found nothing to confirm.
const NOTHING_TO_DO: u16 = 19;
/// `show protocols` found no protocol of that name.
const NO_MATCH: [u16; 3] = [8003, 9001, 9002];
/// `show route` found no such destination.
const NO_ROUTE: u16 = 8001;

impl Connection {
    pub async fn open(socket: &Path) -> Result<Self, ControlError> {
        let connect = UnixStream::connect(socket);
        let stream =
            connect.await.map_err(|source| ControlError::Connect { socket: socket.to_owned(), source })?;
        let mut connection = Self { stream: BufReader::new(stream), version: String::new() };
        let greeting = connection.reply(|_| {}).await?;
        // "BIRD 2.0.12 ready."
        let version = greeting.text().strip_prefix("BIRD ").and_then(|rest| rest.split(' ').next());
        match version {
            Some(version) if greeting.code() == WELCOME => connection.version = version.to_owned(),
            _ => return Err(ControlError::Foreign(format!("its greeting is `{}`", greeting.text()))),
        }
        Ok(connection)
    }

    /// Gives up the right to change anything, for this connection.
    pub async fn restrict(&mut self) -> Result<(), ControlError> {
        self.ask("restrict").await.map(drop)
    }

    /// BIRD's version, as it greets with it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Has BIRD read a configuration and say whether it would take it.
    pub async fn check(&mut self, file: &Path) -> Result<(), ControlError> {
        self.ask(&format!("configure check \"{}\"", file.display())).await.map(drop)
    }

    /// Loads a configuration that BIRD takes back by itself unless it is confirmed within `undo`.
    pub async fn configure(&mut self, file: &Path, undo: Duration) -> Result<(), ControlError> {
        let command = format!("configure \"{}\" timeout {}", file.display(), undo.as_secs());
        self.ask(&command).await.map(drop)
    }

    /// Confirms what was loaded; false when it was too late.
    pub async fn confirm(&mut self) -> Result<bool, ControlError> {
        Ok(self.ask("configure confirm").await?.code() != NOTHING_TO_DO)
    }

    /// Takes back what was loaded.
    pub async fn undo(&mut self) -> Result<(), ControlError> {
        self.ask("configure undo").await.map(drop)
    }

    /// Switches the protocols off whose names `pattern` matches, if there are any.
    pub async fn disable(&mut self, pattern: &str) -> Result<(), ControlError> {
        match self.ask(&format!("disable \"{pattern}\"")).await {
            Err(ControlError::Refused { code, .. }) if NO_MATCH.contains(&code) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Ends BIRD.
    pub async fn down(&mut self) -> Result<(), ControlError> {
        match self.ask("down").await {
            // It may be gone before it has said so.
            Err(ControlError::Broken(_)) => Ok(()),
            other => other.map(drop),
        }
    }

    /// All protocols with their details.
    pub async fn protocols(&mut self) -> Result<Vec<Protocol>, ControlError> {
        Ok(Protocol::list(&self.ask("show protocols all").await?))
    }

    /// All protocols, without their details.
    pub async fn names(&mut self) -> Result<Vec<Protocol>, ControlError> {
        Ok(Protocol::list(&self.ask("show protocols").await?))
    }

    /// One protocol with its details, if there is one of that name.
    pub async fn protocol(&mut self, name: &str) -> Result<Option<Protocol>, ControlError> {
        match self.ask(&format!("show protocols all \"{name}\"")).await {
            Err(ControlError::Refused { code, .. }) if NO_MATCH.contains(&code) => Ok(None),
            other => Ok(Protocol::list(&other?).into_iter().next()),
        }
    }

    /// The daemon as a whole.
    pub async fn daemon(&mut self) -> Result<Daemon, ControlError> {
        Ok(Daemon::of(&self.ask("show status").await?))
    }

    /// Has BIRD read again what `protocol` gives it: of a kernel protocol, the whole table, after which it also puts right
    /// what it finds there of its own.
    pub async fn reload(&mut self, protocol: &str) -> Result<(), ControlError> {
        self.ask(&format!("reload in \"{protocol}\"")).await.map(drop)
    }

    /// Whether BIRD has a route to `destination` among those of a `selection`, in its words.
    pub async fn has_route(&mut self, selection: &str, destination: Ipv6Net) -> Result<bool, ControlError> {
        match self.ask(&format!("show route {destination} {selection}")).await {
            Err(ControlError::Refused { code: NO_ROUTE, .. }) => Ok(false),
            other => Ok(other?.rows.iter().any(|row| leads_to(&row.text) == Some(destination))),
        }
    }

    /// Where the routes of a `selection` lead. Of a hundred thousand, only this much is kept.
    pub async fn routes(&mut self, selection: &str) -> Result<BTreeSet<Ipv6Net>, ControlError> {
        let mut destinations = BTreeSet::new();
        self.read(&format!("show route {selection}"), |reply| {
            destinations.extend(reply.rows.last().and_then(|row| leads_to(&row.text)));
            // The last row is needed to understand the next.
            reply.rows.drain(..reply.rows.len().saturating_sub(1));
        })
        .await?;
        Ok(destinations)
    }

    /// Waits until BIRD closes the connection: it has ended.
    pub async fn closed(&mut self) {
        // It says nothing here that was not asked for.
        while let Ok(Some(_)) = self.line().await {}
    }

    async fn ask(&mut self, command: &str) -> Result<Reply, ControlError> {
        self.read(command, |_| {}).await
    }

    /// Asks, and shows `each` the reply with every row that comes.
    async fn read(&mut self, command: &str, each: impl FnMut(&mut Reply)) -> Result<Reply, ControlError> {
        let line = format!("{command}\n");
        self.stream.get_mut().write_all(line.as_bytes()).await.map_err(ControlError::Broken)?;
        let reply = self.reply(each).await?;
        if reply.is_refusal() {
            return Err(ControlError::Refused {
                command: command.to_owned(),
                code: reply.code(),
                message: reply.text().to_owned(),
            });
        }
        Ok(reply)
    }

    async fn reply(&mut self, mut each: impl FnMut(&mut Reply)) -> Result<Reply, ControlError> {
        let mut reply = Reply::default();
        loop {
            let line = timeout(PATIENCE, self.line()).await.map_err(|_| ControlError::Silent)??;
            let line = line.ok_or_else(|| ControlError::Broken(io::ErrorKind::UnexpectedEof.into()))?;
            let last = reply.take(&line)?;
            each(&mut reply);
            if last {
                return Ok(reply);
            }
        }
    }

    /// A line without its end; `None` at the end of the connection.
    async fn line(&mut self) -> Result<Option<String>, ControlError> {
        let mut line = Vec::new();
        loop {
            let read = self.stream.fill_buf().await.map_err(ControlError::Broken)?;
            if read.is_empty() {
                return Ok(None);
            }
            let end = read.iter().position(|&b| b == b'\n');
            line.extend_from_slice(&read[..end.unwrap_or(read.len())]);
            let used = end.map_or(read.len(), |end| end + 1);
            self.stream.consume(used);
            if end.is_some() {
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            if line.len() > LINE {
                return Err(ControlError::Foreign("a line without end".to_owned()));
            }
        }
    }
}

/// Where the route of a row leads. Rows about its further ways, and the heading, begin otherwise.
fn leads_to(row: &str) -> Option<Ipv6Net> {
    row.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixListener;

    /// A BIRD that answers each command with the next of `replies`.
    fn bird(greeting: &'static str, replies: Vec<&'static str>) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("bird.ctl");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(greeting.as_bytes()).await.unwrap();
            for reply in replies {
                let mut command = [0; 256];
                assert!(stream.read(&mut command).await.unwrap() > 0);
                // In two pieces, as a busy BIRD writes.
                let (a, b) = reply.split_at(reply.len() / 2);
                stream.write_all(a.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
                stream.write_all(b.as_bytes()).await.unwrap();
            }
        });
        (directory, socket)
    }

    #[tokio::test]
    async fn a_refusal_is_birds_own_line() {
        let (_directory, socket) = bird(
            "0001 BIRD 2.0.12 ready.\n",
            vec!["0002-Reading configuration from f\n8002 f:1:20 syntax error\n"],
        );
        let mut connection = Connection::open(&socket).await.unwrap();
        assert_eq!(connection.version(), "2.0.12");
        let error = connection.check(Path::new("/f")).await.unwrap_err();
        assert_eq!(error.to_string(), "BIRD refuses `configure check \"/f\"`: f:1:20 syntax error");
        assert!(matches!(error, ControlError::Refused { code: 8002, .. }));
    }

    #[tokio::test]
    async fn a_restricted_connection_says_so() {
        let (_directory, socket) =
            bird("0001 BIRD 1.6.8 ready.\n", vec!["0016 Access restricted\n", "8007 Access denied\n"]);
        let mut connection = Connection::open(&socket).await.unwrap();
        connection.restrict().await.unwrap();
        assert!(matches!(connection.down().await, Err(ControlError::Refused { code: 8007, .. })));
    }

    #[tokio::test]
    async fn a_late_confirmation_and_an_unknown_protocol_are_answers() {
        let (_directory, socket) = bird(
            "0001 BIRD 2.0.12 ready.\n",
            vec!["0018 Reconfiguration confirmed\n", "0019 Nothing to do\n", "8003 No protocols match\n"],
        );
        let mut connection = Connection::open(&socket).await.unwrap();
        assert!(connection.confirm().await.unwrap());
        assert!(!connection.confirm().await.unwrap());
        assert_eq!(connection.protocol("x").await.unwrap(), None);
    }

    #[tokio::test]
    async fn routes_are_told_by_where_they_lead() {
        let (_directory, socket) = bird(
            "0001 BIRD 2.0.12 ready.\n",
            vec![
                "1007-Table master6:\n 2001:db8::1/128      unicast [b 09:06:03.179] * (200)\n \tvia fd00::8 on up0 weight 1\n\
                 1007-2001:db8::/32 unreachable [a 09:06:03.179] * (200)\n                      unicast [c 09:06:03.179] (100)\n0000 \n",
                "1007-2001:db8::1/128 via fd00::8 on up0 [b 09:06:03] * (100)\n0000 \n",
                "0000 \n",
                "8001 Network not found\n",
            ],
        );
        let mut connection = Connection::open(&socket).await.unwrap();
        let [host, net] = ["2001:db8::1/128", "2001:db8::/32"].map(|text| text.parse().unwrap());
        assert_eq!(connection.routes("export k").await.unwrap(), BTreeSet::from([host, net]));
        assert!(connection.has_route("export k", host).await.unwrap());
        assert!(!connection.has_route("export k", host).await.unwrap());
        assert!(!connection.has_route("export k", host).await.unwrap());
    }

    #[tokio::test]
    async fn an_end_in_the_middle_is_an_error_and_an_end_when_idle_is_seen() {
        let (_directory, socket) = bird("0001 BIRD 2.0.12 ready.\n", vec!["1000-BIRD 2.0.12\n"]);
        let mut connection = Connection::open(&socket).await.unwrap();
        assert!(matches!(connection.daemon().await, Err(ControlError::Broken(_))));
        connection.closed().await;
    }

    #[tokio::test]
    async fn what_is_no_bird_is_told_from_one_that_is_not_there() {
        let (_directory, socket) = bird("220 mail.example ESMTP\n", vec![]);
        assert!(matches!(Connection::open(&socket).await, Err(ControlError::Foreign(_))));
        let error = Connection::open(Path::new("/nowhere/bird.ctl")).await.unwrap_err();
        assert!(error.is_absence());
        assert!(error.to_string().starts_with("no BIRD answers at /nowhere/bird.ctl: "), "{error}");
    }
}
