//! The watched directory: waits for events, reads again, and yields when the directory says something else.

use super::events::Events;
use super::files::Files;
use super::memory::Memory;
use super::state::{Listing, State};
use super::{Problem, Severity, Snapshot};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

/// What may be half of a change is taken up when nothing more has come for so long,
const QUIET: Duration = Duration::from_millis(5);
/// or when so long has gone by since its first event. A change that is complete is taken up at once if so long has gone by
/// since the last reading: many that come one after the other are few readings.
const PATIENCE: Duration = Duration::from_millis(20);
/// How often the directory is read when changes may go unheard.
const POLL: Duration = Duration::from_secs(1);

/// A directory of resources and the last good state of each.
pub struct Watch {
    directory: PathBuf,
    reader: Arc<Mutex<Reader>>,
    state: State,
    snapshot: Arc<Snapshot>,
    events: Events,
    /// Changes may go unheard, and what to do about it.
    deaf: Option<Problem>,
    /// Something was heard and no reading has begun since.
    stale: bool,
    /// The reading that is under way.
    reading: Option<JoinHandle<Listing>>,
    /// When the last one ended.
    read: Instant,
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
            snapshot: Arc::default(),
            events: Events::open(directory),
            deaf: None,
            stale: false,
            reading: None,
            read: Instant::now(),
        };
        watch.listen();
        let listing = watch.read()();
        if listing.is_ok() {
            watch.learn()();
        }
        watch.take(listing);
        watch
    }

    /// What the directory says.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Waits until the directory says something else. May be dropped and called again without losing a change, or a reading
    /// that is under way.
    pub async fn changed(&mut self) {
        loop {
            let reading = match &mut self.reading {
                Some(reading) => reading,
                None => {
                    if !self.stale {
                        self.wait().await;
                    }
                    // Listen before reading: what changes after the reading is heard.
                    self.listen();
                    let read = self.read();
                    self.stale = false;
                    self.reading.insert(tokio::task::spawn_blocking(read))
                }
            };
            let outcome = reading.await;
            self.reading = None;
            self.read = Instant::now();
            // Without a listing the runtime is ending, or the reader panicked and said so.
            let Ok(listing) = outcome else { continue };
            if listing.is_ok() {
                // Nobody need wait for that.
                tokio::task::spawn_blocking(self.learn());
            }
            if self.take(listing) {
                return;
            }
        }
    }

    async fn wait(&mut self) {
        let heard = self.events.heard();
        let poll = if self.deaf.is_some() { POLL } else { Duration::MAX };
        tokio::select! {
            () = heard.woken() => {}
            () = sleep(poll) => {}
        }
        // Remembered at once: the wait below may be dropped, and what was heard is not heard again.
        self.stale = true;
        let end = Instant::now() + PATIENCE;
        while !(heard.is_complete() && self.read.elapsed() >= PATIENCE)
            && timeout_at(end.min(Instant::now() + QUIET), heard.woken()).await.is_ok()
        {}
    }

    fn listen(&mut self) {
        self.deaf = self.events.listen().err().map(|what_to_do| Problem {
            severity: Severity::Note,
            ..Problem::file(
                &self.directory,
                &format!("changes are noticed within a second only; {what_to_do}"),
            )
        });
    }

    fn read(&self) -> impl FnOnce() -> Listing + Send + 'static {
        let (reader, directory, writing) =
            (self.reader.clone(), self.directory.clone(), self.events.begin_reading());
        move || lock(&reader).files.read(&directory, &writing)
    }

    /// Remembers what is good, for the next start.
    fn learn(&self) -> impl FnOnce() + Send + 'static {
        let reader = self.reader.clone();
        move || lock(&reader).learn()
    }

    /// Whether the directory says something else than before.
    fn take(&mut self, listing: Listing) -> bool {
        let mut snapshot = self.state.merge(listing);
        snapshot.problems.extend(self.deaf.clone());
        let changed = snapshot != *self.snapshot;
        if changed {
            self.snapshot = Arc::new(snapshot);
        }
        changed
    }
}

impl Reader {
    fn learn(&mut self) {
        if let Some(memory) = &mut self.memory {
            memory.learn(&self.files);
        }
    }
}

/// A panicking reader leaves files that are read again, and no others.
fn lock(reader: &Mutex<Reader>) -> MutexGuard<'_, Reader> {
    reader.lock().unwrap_or_else(PoisonError::into_inner)
}
