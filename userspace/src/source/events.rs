//! Which events of the file system mean that the directory may say something else now, and where to listen for them.

use crate::resource::document::Format;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// How often [`Events::listen`] looks again for what appeared while it was looking.
const ROUNDS: usize = 4;
/// Most symbolic links followed for one file, as the kernel does.
const LINKS: usize = 40;

/// Device and inode.
type Identity = (u64, u64);

/// Listens to the directory, to what it hangs on and to what its files link to.
pub(super) struct Events {
    directory: PathBuf,
    watcher: notify::Result<RecommendedWatcher>,
    heard: Arc<Heard>,
    places: BTreeMap<PathBuf, Identity>,
}

/// What the watcher's thread leaves for us.
#[derive(Default)]
pub(super) struct Heard {
    wake: Notify,
    facts: Mutex<Facts>,
}

#[derive(Debug, Default)]
struct Facts {
    /// Files that somebody has written to and not closed yet.
    writing: BTreeSet<PathBuf>,
    /// Paths that were removed or renamed: a watch on them or below is gone.
    lost: BTreeSet<PathBuf>,
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
        self.wake.notified().await;
    }

    fn hear(&self, directory: &Path, event: notify::Result<Event>) {
        let news = match event {
            Ok(event) => self.facts().take(directory, &event),
            // An error leaves it open what was missed.
            Err(_) => true,
        };
        if news {
            self.wake.notify_one();
        }
    }
}

impl Facts {
    /// Whether the event is news.
    fn take(&mut self, directory: &Path, event: &Event) -> bool {
        if event.need_rescan() {
            self.writing.clear();
            return true;
        }
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                for path in &event.paths {
                    self.writing.remove(path);
                }
            }
            EventKind::Access(_) => return false,
            // Half a file is none: its end is when it is closed.
            EventKind::Modify(ModifyKind::Data(_)) => {
                let files = event.paths.iter().filter(|path| Format::of(path).is_some());
                self.writing.extend(files.cloned());
                return false;
            }
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
                for path in &event.paths {
                    self.writing.remove(path);
                    self.lost.insert(path.clone());
                }
            }
            _ => {}
        }
        event.paths.is_empty() || event.paths.iter().any(|path| self.concerns(directory, path))
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
    /// Begins to listen; [`Events::listen`] says where.
    pub fn open(directory: &Path) -> Self {
        let heard = Arc::new(Heard::default());
        let (thread, place) = (heard.clone(), directory.to_owned());
        let watcher = notify::recommended_watcher(move |event| thread.hear(&place, event));
        Self { directory: directory.to_owned(), watcher, heard, places: BTreeMap::new() }
    }

    /// What was heard.
    pub fn heard(&self) -> Arc<Heard> {
        self.heard.clone()
    }

    /// Files that are being written: what they say now is not meant yet.
    pub fn writing(&self) -> BTreeSet<PathBuf> {
        self.heard.facts().writing.clone()
    }

    /// Listens where it matters now. An error says that changes may go unheard, and what to do.
    pub fn listen(&mut self) -> Result<(), String> {
        let Ok(watcher) = &mut self.watcher else {
            return Err("raise fs.inotify.max_user_instances".to_owned());
        };
        let mut result = Ok(());
        // What appears between looking and listening would go unheard, so look until nothing is new.
        for _ in 0..ROUNDS {
            let (wanted, linked) = places(&self.directory);
            let lost = {
                let mut facts = self.heard.facts();
                facts.linked = linked;
                std::mem::take(&mut facts.lost)
            };
            self.places.retain(|path, identity| {
                let stays =
                    wanted.get(path) == Some(identity) && !lost.iter().any(|lost| path.starts_with(lost));
                if !stays && let Err(error) = watcher.unwatch(path) {
                    tracing::trace!("no watch on {} to end: {error}", path.display());
                }
                stays
            });
            let mut settled = true;
            for (path, identity) in wanted {
                if self.places.contains_key(&path) {
                    continue;
                }
                settled = false;
                match watcher.watch(&path, RecursiveMode::NonRecursive) {
                    Ok(()) => {
                        self.places.insert(path, identity);
                    }
                    Err(error) if matches!(error.kind, notify::ErrorKind::MaxFilesWatch) => {
                        result = Err("raise fs.inotify.max_user_watches".to_owned());
                    }
                    Err(error) => tracing::debug!("cannot watch {}: {error}", path.display()),
                }
            }
            if settled || result.is_err() {
                break;
            }
        }
        result
    }
}

/// Where to listen: the directory itself, the nearest directory above that exists, and those that the directory or its
/// files link into; each inode once, because inotify knows it under one name only. Beside them the linked ones.
fn places(directory: &Path) -> (BTreeMap<PathBuf, Identity>, BTreeSet<PathBuf>) {
    let mut places = Places::default();
    places.add(directory);
    for above in directory.ancestors().skip(1) {
        if places.add(above).is_some() {
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
    by_path: BTreeMap<PathBuf, Identity>,
    by_identity: BTreeMap<Identity, PathBuf>,
    linked: BTreeSet<PathBuf>,
}

impl Places {
    /// Adds a directory that exists; gives the path it is known under.
    fn add(&mut self, directory: &Path) -> Option<PathBuf> {
        let metadata = directory.metadata().ok().filter(|metadata| metadata.is_dir())?;
        let identity = (metadata.dev(), metadata.ino());
        let known = self.by_identity.entry(identity).or_insert_with(|| directory.to_owned());
        self.by_path.insert(known.clone(), identity);
        Some(known.clone())
    }

    /// Adds the directories of all that `path` links to, step by step.
    fn link_targets(&mut self, path: &Path) {
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            let (Ok(target), Some(parent)) = (path.read_link(), path.parent()) else { break };
            path = parent.join(target);
            if let Some(known) = path.parent().and_then(|directory| self.add(directory)) {
                self.linked.insert(known);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{CreateKind, DataChange, RemoveKind};

    fn event(kind: EventKind, path: &str) -> Event {
        Event::new(kind).add_path(path.into())
    }

    #[test]
    fn a_file_says_nothing_until_it_is_closed() {
        let mut facts = Facts::default();
        let directory = Path::new("/etc/serval/resources");
        let file = "/etc/serval/resources/a.yaml";
        let write = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let close = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert!(!facts.take(directory, &event(write, file)));
        assert_eq!(facts.writing.len(), 1);
        assert!(facts.take(directory, &event(close, file)));
        assert_eq!(facts.writing.len(), 0);
        let read = EventKind::Access(AccessKind::Open(AccessMode::Any));
        assert!(!facts.take(directory, &event(read, file)));
    }

    #[test]
    fn neighbours_of_the_directory_are_no_news() {
        let mut facts = Facts::default();
        let directory = Path::new("/etc/serval/resources");
        let create = EventKind::Create(CreateKind::File);
        assert!(!facts.take(directory, &event(create, "/etc/serval/serval.toml")));
        assert!(!facts.take(directory, &event(create, "/etc/passwd")));
        for path in
            ["/etc/serval/resources", "/etc/serval", "/etc/serval/resources/a.yaml", "/srv/linked.yaml"]
        {
            assert!(facts.take(directory, &event(create, path)), "{path}");
        }
        facts.linked.insert("/etc/serval".into());
        assert!(facts.take(directory, &event(create, "/etc/serval/a.yaml")));
        assert!(facts.take(directory, &Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan)));
    }

    #[test]
    fn what_is_removed_takes_its_watch_along() {
        let mut facts = Facts::default();
        let directory = Path::new("/etc/serval/resources");
        assert!(facts.take(directory, &event(EventKind::Remove(RemoveKind::Folder), "/etc/serval")));
        assert!(facts.lost.contains(Path::new("/etc/serval")));
    }
}
