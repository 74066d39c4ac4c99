//! Which events of the file system mean that the directory may say something else now, and where to listen for them.
//!
//! This is inotify by `nix`, not the crate `notify`: its thread takes a request for a watch only when no event is left, so
//! somebody who writes beside the directory without pause (a log, say) kept the daemon from starting.

use crate::resource::document::Format;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
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
/// Most symbolic links followed for one file, as the kernel does.
const LINKS: usize = 40;

/// Device and inode.
type Identity = (u64, u64);

/// A directory to listen in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    identity: Identity,
    /// Our files are in it, not only what leads to them.
    inside: bool,
}

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
        self.concerns(directory, &path)
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

    /// Files that are being written: what they say now is not meant yet.
    pub fn writing(&self) -> BTreeSet<PathBuf> {
        self.heard.catch_up();
        self.heard.facts().writing.clone()
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

/// Where to listen: the directory itself, the nearest directory above that exists, and those that the directory or its
/// files link into; each inode once, because inotify knows it under one name only. Beside them the linked ones.
fn places(directory: &Path) -> (BTreeMap<PathBuf, Place>, BTreeSet<PathBuf>) {
    let mut places = Places::default();
    places.add(directory, true);
    for above in directory.ancestors().skip(1) {
        if places.add(above, false).is_some() {
            break;
        }
    }
    places.link_targets(directory);
    if let Ok(entries) = directory.read_dir() {
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| Format::of(path).is_some()) {
            places.link_targets(&path);
        }
    }
    (places.by_path, places.linked)
}

#[derive(Default)]
struct Places {
    by_path: BTreeMap<PathBuf, Place>,
    by_identity: BTreeMap<Identity, PathBuf>,
    linked: BTreeSet<PathBuf>,
}

impl Places {
    /// Adds a directory that exists; gives the path it is known under.
    fn add(&mut self, directory: &Path, inside: bool) -> Option<PathBuf> {
        let metadata = directory.metadata().ok().filter(|metadata| metadata.is_dir())?;
        let identity = (metadata.dev(), metadata.ino());
        let known = self.by_identity.entry(identity).or_insert_with(|| directory.to_owned());
        let place = self.by_path.entry(known.clone()).or_insert(Place { identity, inside });
        place.inside |= inside;
        Some(known.clone())
    }

    /// Adds the directories of all that `path` links to, step by step.
    fn link_targets(&mut self, path: &Path) {
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            let (Ok(target), Some(parent)) = (path.read_link(), path.parent()) else { break };
            path = parent.join(target);
            if let Some(known) = path.parent().and_then(|directory| self.add(directory, true)) {
                self.linked.insert(known);
            }
        }
    }
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
