//! One daemon a run directory.

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

/// Name of the lock file in the run directory. It stays when the daemon ends: only who holds the lock counts.
const LOCK: &str = "serval.lock";

/// The run directory is ours until this is dropped or the process ends.
#[derive(Debug)]
pub struct RunLock {
    _file: Flock<File>,
}

impl RunLock {
    /// Makes the run directory, if need be, and locks it. What holds it otherwise is named in the error.
    pub fn acquire(run: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(run).with_context(|| {
            format!("cannot make the run directory {}; run as root or set `run` in [paths]", run.display())
        })?;
        let path = run.join(LOCK);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).with_context(
                || format!("cannot open {}; run as root or set `run` in [paths]", path.display()),
            )?;
        let mut holder = String::new();
        file.read_to_string(&mut holder).with_context(|| format!("cannot read {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0).and_then(|()| rewrite(&mut file)).with_context(|| {
                    format!("cannot write {}; make room on its file system", path.display())
                })?;
                Ok(Self { _file: file })
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => bail!(
                "another serval runs with the run directory {} (process {}); stop it, or set another `run` in [paths]",
                run.display(),
                holder.trim()
            ),
            Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

fn rewrite(file: &mut File) -> std::io::Result<()> {
    use std::io::Seek;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused_and_told_of_the_first() {
        let run = tempfile::tempdir().unwrap();
        let first = RunLock::acquire(run.path()).unwrap();
        let refused = RunLock::acquire(run.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("(process {})", std::process::id())), "{refused}");
        drop(first);
        RunLock::acquire(run.path()).unwrap();
    }
}
