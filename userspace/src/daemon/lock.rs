//! One daemon a run directory.

use super::HANDOVER;
use anyhow::{Context, anyhow};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::Instant;

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
        let mut file = lock(file).map_err(|errno| match errno {
            Errno::EWOULDBLOCK => anyhow!(
                "another serval runs with the run directory {} (process {}); stop it, or set another `run` in [paths]",
                run.display(),
                holder.trim()
            ),
            errno => anyhow!(errno).context(format!("cannot lock {}", path.display())),
        })?;
        file.set_len(0)
            .and_then(|()| rewrite(&mut file))
            .with_context(|| format!("cannot write {}; make room on its file system", path.display()))?;
        Ok(Self { _file: file })
    }
}

/// Locks `file`. A daemon that has just been killed may hold it for a moment more.
fn lock(mut file: File) -> Result<Flock<File>, Errno> {
    let end = Instant::now() + HANDOVER;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((unlocked, Errno::EWOULDBLOCK)) if Instant::now() < end => file = unlocked,
            Err((_, errno)) => return Err(errno),
        }
        std::thread::sleep(HANDOVER / 20);
    }
}

fn rewrite(file: &mut File) -> std::io::Result<()> {
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
        let ending = std::thread::spawn(move || drop(first));
        RunLock::acquire(run.path()).unwrap();
        ending.join().unwrap();
    }
}
