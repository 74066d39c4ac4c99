//! Where resources come from: a watched directory. Reads files and watches them; writes nothing but its memory.
//!
//! `state` decides, without I/O, what becomes of what was good before; `files` reads; `events` listens, in
//! the `places` that matter; `memory` keeps what was
//! good for the next start; [`Watch`] joins them.

mod events;
mod files;
mod memory;
mod places;
mod state;
mod watch;

#[cfg(test)]
mod tests;

pub use crate::resource::{Position, Problem, Severity};
pub use watch::Watch;

use crate::resource::{ResourceId, Resources};
use state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a directory says, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// All valid resources, and the last good state of those that turned bad.
    pub resources: Resources,
    /// Where the document is that defines each of them, though it may have turned bad.
    pub places: BTreeMap<ResourceId, (PathBuf, Position)>,
    /// What is wrong, in order of files and lines.
    pub problems: Vec<Problem>,
}

impl Snapshot {
    /// Whether something is refused; notes do not count.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(Problem::is_error)
    }
}

/// A directory of resources, read once. [`Watch`] reads it whenever it changes.
pub struct Directory;

impl Directory {
    /// Reads `path` once, knowing nothing of before.
    pub fn read(path: &Path) -> Snapshot {
        State::default().merge(files::Files::default().read(path, &BTreeSet::new()))
    }
}

/// Reads a directory or a single file once, for `serval check`.
pub fn check(path: &Path) -> Snapshot {
    Directory::read(path)
}
