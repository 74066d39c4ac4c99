//! Reading the directory: its files in order, each parsed again only when its bytes changed.

use super::state::{Listing, Parsed};
use crate::resource::Problem;
use crate::resource::document::{self, Document, FILE_LIMIT, Format};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files as they were last read.
#[derive(Debug, Default)]
pub(super) struct Files {
    cache: BTreeMap<PathBuf, Read>,
}

/// A file as it was last read.
#[derive(Debug)]
struct Read {
    /// `None` when it could not be read.
    bytes: Option<Vec<u8>>,
    parsed: Parsed,
}

impl Files {
    /// Reads every file of `directory` that is for us; `directory` may also be a single file. Those in `writing` still
    /// say what they said before.
    pub fn read(&mut self, directory: &Path, writing: &BTreeSet<PathBuf>) -> Listing {
        let paths = list(directory)?;
        let mut before = std::mem::take(&mut self.cache);
        for (path, format) in paths {
            let known = before.remove(&path);
            let read = if writing.contains(&path) { known } else { read(&path, format, known) };
            if let Some(read) = read {
                self.cache.insert(path, read);
            }
        }
        Ok(self.cache.iter().map(|(path, read)| (path.clone(), read.parsed.clone())).collect())
    }

    /// Every file as it was last read, with its text if that is without an error.
    pub fn texts(&self) -> impl Iterator<Item = (&Path, Option<&str>)> {
        self.cache.iter().map(|(path, read)| {
            let text = read.bytes.as_deref().filter(|_| is_good(&read.parsed));
            (path.as_path(), text.and_then(|bytes| str::from_utf8(bytes).ok()))
        })
    }
}

fn is_good(parsed: &Parsed) -> bool {
    let is_good = |document: &Document| !document.problems.iter().any(Problem::is_error);
    parsed.as_ref().as_ref().is_ok_and(|documents| documents.iter().all(is_good))
}

/// Reads a file and parses it unless it says what it said when it was `known`; `None` when it is not there.
fn read(path: &Path, format: Format, known: Option<Read>) -> Option<Read> {
    match bytes(path) {
        Ok(None) => None,
        Ok(Some(bytes)) => Some(match known {
            Some(read) if read.bytes.as_ref() == Some(&bytes) => read,
            _ => Read { parsed: Arc::new(document::parse(path, format, &bytes)), bytes: Some(bytes) },
        }),
        Err(error) => {
            Some(Read { bytes: None, parsed: Arc::new(Err(Problem::file(path, &explain(&error)))) })
        }
    }
}

/// The files for us: not hidden, with an extension that names a format.
fn list(directory: &Path) -> Result<Vec<(PathBuf, Format)>, Problem> {
    let wrong = |error: io::Error| Problem::file(directory, &explain(&error));
    if fs::metadata(directory).map_err(wrong)?.is_file() {
        let format = Format::of(directory).ok_or_else(|| {
            Problem::file(directory, "neither .yaml, .yml nor .json; rename the file after its format")
        })?;
        return Ok(vec![(directory.to_owned(), format)]);
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(wrong)? {
        let path = directory.join(entry.map_err(wrong)?.file_name());
        if let Some(format) = document_format(&path) {
            paths.push((path, format));
        }
    }
    Ok(paths)
}

/// The format of a file that is for us by its name.
pub(super) fn document_format(path: &Path) -> Option<Format> {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    Format::of(path).filter(|_| !hidden)
}

/// The bytes of a file, one more than [`FILE_LIMIT`] at most; `None` for a directory and what has just been deleted.
fn bytes(path: &Path) -> io::Result<Option<Vec<u8>>> {
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
