//! What was good, for the next start: a daemon that is restarted while a document is bad goes on with its last good
//! state, as the one before it did.
//!
//! Kept are the texts of files, each as it last was without an error, because a text can be read by any version of this
//! program. A file of several documents that is never without an error leaves its last good text as a whole; what one of
//! its documents became since then is not kept.

use super::files::Files;
use super::state::Parsed;
use crate::resource::document::{self, Format};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The last good texts, and the file they are kept in.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    texts: BTreeMap<String, String>,
}

impl Memory {
    /// Recalls what `path` holds. Nothing is fine, and so is what cannot be read: it costs the memory only.
    pub fn open(path: &Path) -> Self {
        let texts = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!("{}: what was good before is forgotten: {error}", path.display());
                BTreeMap::new()
            }),
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!("{}: what was good before is forgotten: {error}", path.display());
                }
                BTreeMap::new()
            }
        };
        Self { path: path.to_owned(), texts }
    }

    /// The files as they were last good.
    pub fn files(&self) -> Vec<(PathBuf, Parsed)> {
        let parsed = |(path, text): (&String, &String)| {
            let path = PathBuf::from(path);
            let format = Format::of(&path)?;
            let parsed = document::parse(&path, format, text.as_bytes());
            Some((path, Arc::new(parsed)))
        };
        self.texts.iter().filter_map(parsed).collect()
    }

    /// Remembers `files` as they are, where they are good, and forgets those that are gone.
    pub fn learn(&mut self, files: &Files) {
        let mut texts = BTreeMap::new();
        for (path, good) in files.texts() {
            // Such a file is rare enough to do without memory.
            let Some(name) = path.to_str() else { continue };
            let text = match good {
                Some(text) => Some(text.to_owned()),
                None => self.texts.get(name).cloned(),
            };
            texts.extend(text.map(|text| (name.to_owned(), text)));
        }
        if texts != self.texts {
            self.texts = texts;
            if let Err(error) = self.write() {
                tracing::warn!("{}: a restart will not know what was good: {error}", self.path.display());
            }
        }
    }

    /// Replaces the file as a whole, so that it is never seen half written. Resources are nobody else's to read.
    fn write(&self) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(&self.texts)?)?;
        fs::rename(&new, &self.path)
    }
}
