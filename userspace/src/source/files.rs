//! Reading the directory: its files in order, each parsed again only when its bytes changed.

use super::state::{Listing, Parsed};
use crate::resource::Problem;
use crate::resource::document::{self, FILE_LIMIT, Format};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files as they were last read.
#[derive(Debug, Default)]
pub(super) struct Files {
    cache: BTreeMap<PathBuf, (Vec<u8>, Parsed)>,
}

impl Files {
    /// Reads every file of `directory` that is for us; `directory` may also be a single file.
    pub fn read(&mut self, directory: &Path) -> Listing {
        let paths = list(directory).map_err(|error| Problem::file(directory, &explain(&error)))?;
        let mut before = std::mem::take(&mut self.cache);
        let mut listing = Vec::new();
        for path in paths {
            let Some(format) = Format::of(&path) else { continue };
            let parsed = match read(&path) {
                Ok(None) => continue,
                Ok(Some(bytes)) => {
                    let cached = before.remove(&path).filter(|(old, _)| *old == bytes);
                    let (bytes, parsed) = cached.unwrap_or_else(|| {
                        let parsed = Arc::new(document::parse(&path, format, &bytes));
                        (bytes, parsed)
                    });
                    self.cache.insert(path.clone(), (bytes, parsed.clone()));
                    parsed
                }
                Err(error) => Arc::new(Err(Problem::file(&path, &explain(&error)))),
            };
            listing.push((path, parsed));
        }
        Ok(listing)
    }
}

/// Paths of what is not hidden, sorted.
fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    if fs::metadata(directory)?.is_file() {
        return Ok(vec![directory.to_owned()]);
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") {
            paths.push(directory.join(name));
        }
    }
    paths.sort();
    Ok(paths)
}

/// The bytes of a file, one more than [`FILE_LIMIT`] at most; `None` for a directory and what has just been deleted.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Opening a FIFO for reading waits for a writer, unless told not to.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Ok(None);
    }
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "does not exist; create it".to_owned(),
        ErrorKind::PermissionDenied => format!("{error}; let the user that runs serval read it"),
        _ => error.to_string(),
    }
}
