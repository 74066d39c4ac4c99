//! Where to listen for a directory of resources: looks at directories and links, and opens nothing.

use crate::resource::document::Format;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirEntry;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most symbolic links followed for one file, as the kernel does.
const LINKS: usize = 40;

/// Device and inode.
type Identity = (u64, u64);

/// A directory to listen in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    identity: Identity,
    /// Our files are in it, not only what leads to them.
    pub inside: bool,
}

/// Where to listen: the directory itself, the nearest directory above that exists, and those that the directory or its
/// files link into; each inode once, because inotify knows it under one name only. Beside them the linked ones.
pub(super) fn places(directory: &Path) -> (BTreeMap<PathBuf, Place>, BTreeSet<PathBuf>) {
    let mut places = Places::default();
    places.add(directory, true);
    for above in directory.ancestors().skip(1) {
        if places.add(above, false).is_some() {
            break;
        }
    }
    places.link_targets(directory);
    if let Ok(entries) = directory.read_dir() {
        // The directory knows which entries are links; asking each of a thousand files would take a millisecond.
        let is_link = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_symlink());
        for path in entries.flatten().filter(is_link).map(|entry| entry.path()) {
            if Format::of(&path).is_some() {
                places.link_targets(&path);
            }
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
