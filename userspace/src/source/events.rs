//! Which events of the file system mean that the directory may say something else now, and where to listen for them.
//!
//! This is inotify by `nix`, not the crate `notify`: its thread takes a request for a watch only when no event is left, so
//! somebody who writes beside the directory without pause (a log, say) kept the daemon from starting.

use super::files::document_format;
use super::places::{Place, places};
use crate::resource::document::Format;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// What matters around the directory: what comes, goes, is renamed or may be read now. Not what is written to files
/// there, which may be many and never rest.
const AROUND: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);
/// What matters where the files are.
const INSIDE: AddWatchFlags = AROUND.union(AddWatchFlags::IN_MODIFY).union(AddWatchFlags::IN_CLOSE_WRITE);
/// Most batches of events taken in at once: who writes without pause must not keep us.
const BATCHES: usize = 64;
/// How often [`Events::listen`] looks again for what appeared while it was looking.
const ROUNDS: usize = 4;

/// Listens to the directory, to what it hangs on and to what its files link to.
pub(super) struct Events {
    heard: Arc<Heard>,
    places: BTreeMap<PathBuf, (Place, WatchDescriptor)>,
}

/// What the kernel tells, and what came of it.
pub(super) struct Heard {
    directory: PathBuf,
    /// An error when the kernel gives none.
    inotify: io::Result<AsyncFd<Descriptor>>,
    wake: Notify,
    facts: Mutex<Facts>,
}

struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[derive(Debug, Default)]
struct Facts {
    /// Where the kernel listens for us.
    watched: BTreeMap<WatchDescriptor, PathBuf>,
    /// Files that somebody has written to and not closed yet.
    writing: BTreeSet<PathBuf>,
    /// Documents that came or went since the last reading and may be half of a change: a file that was made is not
    /// written yet, and one that is gone may be about to be replaced.
    halves: BTreeSet<PathBuf>,
    /// Since the last reading a document was closed by its writer or moved into place.
    complete: bool,
    /// Directories outside that files link into.
    linked: BTreeSet<PathBuf>,
}

impl Heard {
    fn facts(&self) -> MutexGuard<'_, Facts> {
        // The facts are sets: whatever a panicking thread left is still valid.
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the directory may say something else. Nothing is lost when the future is dropped.
    pub async fn woken(&self) {
        tokio::select! {
            () = self.wake.notified() => {}
            () = self.news() => {}
        }
    }

    /// Whether all that was heard since the last reading are documents that are complete: nothing is gained by waiting.
    pub fn is_complete(&self) -> bool {
        let facts = self.facts();
        facts.complete && facts.halves.is_empty()
    }

    async fn news(&self) {
        let Ok(inotify) = &self.inotify else { return std::future::pending().await };
        loop {
            let Ok(mut guard) = inotify.readable().await else {
                // The runtime is ending.
                return std::future::pending().await;
            };
            match guard.try_io(|descriptor| Ok(descriptor.get_ref().0.read_events()?)) {
                Ok(Ok(events)) if !self.take(&events) => {}
                // An error leaves it open what was missed.
                Ok(_) => return,
                Err(_would_block) => {}
            }
        }
    }

    /// Takes in what the kernel has to tell already.
    fn catch_up(&self) {
        let Ok(inotify) = &self.inotify else { return };
        for _ in 0..BATCHES {
            let Ok(events) = inotify.get_ref().0.read_events() else { return };
            if self.take(&events) {
                self.wake.notify_one();
            }
        }
    }

    /// Whether there is news among the events.
    fn take(&self, events: &[InotifyEvent]) -> bool {
        let mut facts = self.facts();
        let mut news = false;
        for event in events {
            news |= facts.take(&self.directory, event);
        }
        news
    }
}

impl Facts {
    /// Whether the event is news.
    fn take(&mut self, directory: &Path, event: &InotifyEvent) -> bool {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            self.writing.clear();
            self.complete = false;
            return true;
        }
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            // The directory is gone, or we have ended the watch ourselves.
            return self.watched.remove(&event.wd).is_some();
        }
        let Some(place) = self.watched.get(&event.wd) else { return false };
        let path = event.name.as_ref().map_or_else(|| place.clone(), |name| place.join(name));
        self.happened(directory, event.mask, path)
    }

    /// Whether it is news what happened to `path`.
    fn happened(&mut self, directory: &Path, what: AddWatchFlags, path: PathBuf) -> bool {
        if what.contains(AddWatchFlags::IN_MODIFY) {
            // Half a file is none: its end is when it is closed.
            if Format::of(&path).is_some() {
                self.writing.insert(path);
            }
            return false;
        }
        let ends = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM;
        if what.intersects(ends) {
            self.writing.remove(&path);
        }
        let news = self.concerns(directory, &path);
        if news && document_format(&path).is_some() {
            if what.intersects(AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO) {
                self.halves.remove(&path);
                self.complete = true;
            } else if what.intersects(AddWatchFlags::IN_CREATE | ends) {
                self.halves.insert(path);
            }
        }
        news
    }

    /// Whether `path` is the directory, something in it or above it, or beside the target of a link. What else happens
    /// in the directories above is not ours.
    fn concerns(&self, directory: &Path, path: &Path) -> bool {
        let Some(parent) = path.parent() else { return true };
        parent == directory
            || directory.starts_with(path)
            || !directory.starts_with(parent)
            || self.linked.contains(parent)
    }
}

impl Events {
    /// Begins to listen, within a tokio runtime; [`Events::listen`] says where.
    pub fn open(directory: &Path) -> Self {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .map_err(io::Error::from)
            .and_then(|inotify| watched_by_tokio(Descriptor(inotify)));
        let (wake, facts) = (Notify::new(), Mutex::default());
        let heard = Arc::new(Heard { directory: directory.to_owned(), inotify, wake, facts });
        Self { heard, places: BTreeMap::new() }
    }

    /// What was heard.
    pub fn heard(&self) -> Arc<Heard> {
        self.heard.clone()
    }

    /// A reading begins: what is heard from now on is for the next one. Says which files are being written: what they
    /// say now is not meant yet.
    pub fn begin_reading(&self) -> BTreeSet<PathBuf> {
        self.heard.catch_up();
        let mut facts = self.heard.facts();
        facts.halves.clear();
        facts.complete = false;
        facts.writing.clone()
    }

    /// Listens where it matters now. An error says that changes may go unheard, and what to do.
    pub fn listen(&mut self) -> Result<(), String> {
        let heard = &self.heard;
        let Ok(inotify) = heard.inotify.as_ref().map(|inotify| &inotify.get_ref().0) else {
            return Err("raise fs.inotify.max_user_instances".to_owned());
        };
        // What appears between looking and listening would go unheard, so look until nothing is new.
        for _ in 0..ROUNDS {
            heard.catch_up();
            let (wanted, linked) = places(&heard.directory);
            let mut facts = heard.facts();
            facts.linked = linked;
            self.places.retain(|path, (place, watch)| {
                let stays = wanted.get(path) == Some(place) && facts.watched.contains_key(watch);
                if !stays
                    && facts.watched.remove(watch).is_some()
                    && let Err(error) = inotify.rm_watch(*watch)
                {
                    tracing::trace!("no watch on {} to end: {error}", path.display());
                }
                stays
            });
            let mut settled = true;
            for (path, place) in wanted {
                if self.places.contains_key(&path) {
                    continue;
                }
                settled = false;
                match inotify.add_watch(&path, if place.inside { INSIDE } else { AROUND }) {
                    Ok(watch) => {
                        facts.watched.insert(watch, path.clone());
                        self.places.insert(path, (place, watch));
                    }
                    Err(Errno::ENOSPC) => return Err("raise fs.inotify.max_user_watches".to_owned()),
                    Err(error) => tracing::debug!("cannot watch {}: {error}", path.display()),
                }
            }
            if settled {
                break;
            }
        }
        Ok(())
    }
}

fn watched_by_tokio(descriptor: Descriptor) -> io::Result<AsyncFd<Descriptor>> {
    // SAFETY: `Descriptor` owns its file descriptor, never changes it, and closes it only when it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    Ok(registered?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATE: AddWatchFlags = AddWatchFlags::IN_CREATE;

    #[test]
    fn a_file_says_nothing_until_it_is_closed() {
        let mut facts = Facts::default();
        let directory = Path::new("/etc/serval/resources");
        let file = Path::new("/etc/serval/resources/a.yaml");
        assert!(!facts.happened(directory, AddWatchFlags::IN_MODIFY, file.to_owned()));
        assert_eq!(facts.writing.len(), 1);
        assert!(facts.happened(directory, AddWatchFlags::IN_CLOSE_WRITE, file.to_owned()));
        assert_eq!(facts.writing.len(), 0);
    }

    #[test]
    fn what_is_complete_need_not_wait_for_more() {
        const CLOSED: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE;
        const TO: AddWatchFlags = AddWatchFlags::IN_MOVED_TO;
        const FROM: AddWatchFlags = AddWatchFlags::IN_MOVED_FROM;
        const GONE: AddWatchFlags = AddWatchFlags::IN_DELETE;
        let cases: &[(&[(AddWatchFlags, &str)], bool)] = &[
            (&[(TO, "a.yaml")], true),
            (&[(CREATE, "a.yaml")], false),
            (&[(CREATE, "a.yaml"), (CLOSED, "a.yaml")], true),
            // A draft beside the document is no half of anything.
            (&[(CREATE, ".a.yaml"), (CLOSED, ".a.yaml"), (FROM, ".a.yaml"), (TO, "a.yaml")], true),
            // Who removes a file may be about to put another in its place, or under another name.
            (&[(GONE, "a.yaml")], false),
            (&[(GONE, "a.yaml"), (TO, "b.yaml")], false),
            (&[(FROM, "a.yaml"), (TO, "a.yaml~"), (CREATE, "a.yaml"), (CLOSED, "a.yaml")], true),
            (&[(TO, "b.yaml"), (CREATE, "a.yaml")], false),
            (&[(TO, "..data")], false),
        ];
        let directory = Path::new("/etc/serval/resources");
        for (events, complete) in cases {
            let heard = Heard {
                directory: directory.to_owned(),
                inotify: Err(io::ErrorKind::Unsupported.into()),
                wake: Notify::new(),
                facts: Mutex::default(),
            };
            for (what, name) in *events {
                heard.facts().happened(directory, *what, directory.join(name));
            }
            assert_eq!(heard.is_complete(), *complete, "{events:?}");
            let events = Events { heard: Arc::new(heard), places: BTreeMap::new() };
            events.begin_reading();
            assert!(!events.heard.is_complete(), "what was read is nothing to read again for");
        }
    }

    #[test]
    fn neighbours_of_the_directory_are_no_news() {
        let mut facts = Facts::default();
        let directory = Path::new("/etc/serval/resources");
        for path in ["/etc/serval/serval.toml", "/etc/passwd"] {
            assert!(!facts.happened(directory, CREATE, path.into()), "{path}");
        }
        for path in
            ["/etc/serval/resources", "/etc/serval", "/etc/serval/resources/a.yaml", "/srv/linked.yaml"]
        {
            assert!(facts.happened(directory, CREATE, path.into()), "{path}");
        }
        facts.linked.insert("/etc/serval".into());
        assert!(facts.happened(directory, CREATE, "/etc/serval/a.yaml".into()));
    }

    #[tokio::test]
    async fn a_directory_that_is_removed_takes_its_watch_along() {
        let d = tempfile::tempdir().unwrap();
        let directory = d.path().join("resources");
        std::fs::create_dir(&directory).unwrap();
        let mut events = Events::open(&directory);
        events.listen().unwrap();
        assert_eq!(events.heard.facts().watched.len(), 2);
        std::fs::remove_dir(&directory).unwrap();
        events.heard.woken().await;
        events.listen().unwrap();
        assert_eq!(events.heard.facts().watched.len(), 1);
        assert_eq!(events.places.len(), 1);
        std::fs::create_dir(&directory).unwrap();
        events.heard.woken().await;
        events.listen().unwrap();
        assert_eq!(events.places.len(), 2);
    }
}
