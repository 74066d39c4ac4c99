//! The watched directory: waits for events, reads again, and yields when the directory says something else.

use super::events::Events;
use super::files::Files;
use super::memory::Memory;
use super::state::{Listing, State};
use super::{Problem, Severity, Snapshot};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// A change is taken up when nothing more has come for so long,
const QUIET: Duration = Duration::from_millis(5);
/// or when so long has gone by since its first event.
const PATIENCE: Duration = Duration::from_millis(20);
/// How often the directory is read when changes may go unheard.
const POLL: Duration = Duration::from_secs(1);

/// A directory of resources and the last good state of each.
pub struct Watch {
    directory: PathBuf,
    reader: Arc<Mutex<Reader>>,
    state: State,
    snapshot: Snapshot,
    events: Events,
    /// Changes may go unheard.
    deaf: bool,
    /// Something was heard and the directory has not been read since.
    stale: bool,
}

/// What reading works on.
struct Reader {
    files: Files,
    memory: Option<Memory>,
}

impl Watch {
    /// Reads `directory`, which need not exist, and begins to watch it.
    pub fn open(directory: &Path) -> Self {
        Self::start(directory, None)
    }

    /// The same, with what was good when an earlier process watched: `memory` is the file that is kept in.
    pub fn resume(directory: &Path, memory: &Path) -> Self {
        Self::start(directory, Some(Memory::open(memory)))
    }

    fn start(directory: &Path, memory: Option<Memory>) -> Self {
        let mut state = State::default();
        if let Some(memory) = &memory {
            state.merge(Ok(memory.files()));
        }
        let mut watch = Self {
            directory: directory.to_owned(),
            reader: Arc::new(Mutex::new(Reader { files: Files::default(), memory })),
            state,
            snapshot: Snapshot::default(),
            events: Events::open(directory),
            deaf: false,
            stale: false,
        };
        let hint = watch.listen();
        let listing = watch.read()();
        watch.take(listing, hint);
        watch
    }

    /// What the directory says.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Waits until the directory says something else. May be dropped and called again without losing a change.
    pub async fn changed(&mut self) {
        loop {
            if !self.stale {
                self.wait().await;
            }
            // Listen before reading: what changes after the reading is heard.
            let hint = self.listen();
            let reading = tokio::task::spawn_blocking(self.read());
            let Ok(listing) = reading.await else {
                // The runtime is ending, or the reader panicked and said so.
                self.stale = false;
                continue;
            };
            self.stale = false;
            if self.take(listing, hint) {
                return;
            }
        }
    }

    async fn wait(&mut self) {
        let heard = self.events.heard();
        let poll = if self.deaf { POLL } else { Duration::MAX };
        tokio::select! {
            () = heard.woken() => {}
            () = sleep(poll) => {}
        }
        // Remembered at once: the wait below may be dropped, and what was heard is not heard again.
        self.stale = true;
        let end = Instant::now() + PATIENCE;
        while timeout_at(end.min(Instant::now() + QUIET), heard.woken()).await.is_ok() {}
    }

    fn listen(&mut self) -> Option<Problem> {
        let trouble = self.events.listen().err();
        self.deaf = trouble.is_some();
        trouble.map(|what_to_do| Problem {
            severity: Severity::Note,
            ..Problem::file(
                &self.directory,
                &format!("changes are noticed within a second only; {what_to_do}"),
            )
        })
    }

    fn read(&self) -> impl FnOnce() -> Listing + Send + 'static {
        let (reader, directory, writing) =
            (self.reader.clone(), self.directory.clone(), self.events.writing());
        move || reader.lock().unwrap_or_else(PoisonError::into_inner).read(&directory, &writing)
    }

    /// Whether the directory says something else than before.
    fn take(&mut self, listing: Listing, hint: Option<Problem>) -> bool {
        let mut snapshot = self.state.merge(listing);
        snapshot.problems.extend(hint);
        let changed = snapshot != self.snapshot;
        self.snapshot = snapshot;
        changed
    }
}

impl Reader {
    fn read(&mut self, directory: &Path, writing: &BTreeSet<PathBuf>) -> Listing {
        let listing = self.files.read(directory, writing)?;
        if let Some(memory) = &mut self.memory {
            memory.learn(&self.files);
        }
        Ok(listing)
    }
}
