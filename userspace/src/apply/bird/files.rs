//! The files that we and BIRD share, all in one directory below `paths.run`. They have passwords in them: nobody but
//! root and BIRD may read them.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where they are.
#[derive(Clone, Debug)]
pub(super) struct Files {
    directory: PathBuf,
}

impl Files {
    pub fn of(run: &Path) -> Self {
        Self { directory: run.join("bird") }
    }

    /// Control socket of a BIRD of our own.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("bird.ctl")
    }

    /// Process id of a BIRD of our own.
    pub fn pid(&self) -> PathBuf {
        self.directory.join("bird.pid")
    }

    /// The configuration that BIRD has taken.
    pub fn current(&self) -> PathBuf {
        self.directory.join("bird.conf")
    }

    /// The configuration that BIRD is to take.
    pub fn candidate(&self) -> PathBuf {
        self.directory.join("bird.conf.new")
    }

    /// Writes the candidate. `reader`: the group that must be able to read it besides root.
    pub fn propose(&self, text: &str, reader: Option<u32>) -> io::Result<()> {
        match DirBuilder::new().recursive(true).mode(0o711).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let path = self.candidate();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        if let Some(group) = reader.filter(|&group| group != 0) {
            std::os::unix::fs::fchown(&file, None, Some(group))?;
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o640))?;
        }
        file.write_all(text.as_bytes())?;
        // A crash of the host must not leave half a file: BIRD would be started with it.
        file.sync_all()
    }

    /// The candidate has been taken.
    pub fn adopt(&self) -> io::Result<()> {
        fs::rename(self.candidate(), self.current())
    }

    /// Takes away what has been taken and what has not: passwords are in it.
    pub fn forget(&self) -> io::Result<()> {
        for path in [self.candidate(), self.current()] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The text that BIRD has taken, if one has been.
    pub fn taken(&self) -> io::Result<Option<String>> {
        match fs::read_to_string(self.current()) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The group of who listens at `socket`: BIRD gives its socket to the user it runs as.
pub(super) fn group_of(socket: &Path) -> Option<u32> {
    fs::metadata(socket).ok().map(|metadata| metadata.gid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_is_private_and_replaces_what_was_taken() {
        let run = tempfile::tempdir().unwrap();
        let files = Files::of(run.path());
        assert_eq!(files.taken().unwrap(), None);
        for text in ["one", "two"] {
            files.propose(text, None).unwrap();
            assert_eq!(fs::metadata(files.candidate()).unwrap().mode() & 0o7777, 0o600);
            files.adopt().unwrap();
            assert_eq!(files.taken().unwrap().as_deref(), Some(text));
            assert!(!files.candidate().exists());
        }
        files.propose("three", None).unwrap();
        for _ in 0..2 {
            files.forget().unwrap();
            assert!(!files.candidate().exists() && !files.current().exists());
        }
    }

    #[test]
    fn a_candidate_that_was_left_behind_is_not_written_through() {
        let run = tempfile::tempdir().unwrap();
        let files = Files::of(run.path());
        let elsewhere = run.path().join("elsewhere");
        fs::write(&elsewhere, "kept").unwrap();
        fs::create_dir(run.path().join("bird")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, files.candidate()).unwrap();
        files.propose("new", None).unwrap();
        assert_eq!(fs::read_to_string(elsewhere).unwrap(), "kept");
    }
}
