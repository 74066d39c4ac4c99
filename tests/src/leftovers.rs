//! Everything the rig makes outside its own process carries the process id in its name, so that a run that was killed
//! is swept by the next one.

use crate::netns;
use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::path::PathBuf;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};
use tempfile::TempDir;

/// Names are `serval-test.<pid>.<counter>.<label>`.
const PREFIX: &str = "serval-test.";

/// Whose leftovers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// This process.
    Us,
    /// One that runs no more.
    Dead,
    /// Another run.
    Other,
}

/// A name that no other namespace or directory has.
pub(crate) fn name(label: &str) -> String {
    static SWEEP: Once = Once::new();
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    SWEEP.call_once(|| {
        if let Err(error) = remove(Owner::Dead) {
            eprintln!("cannot sweep what an earlier run left: {error:#}");
        }
    });
    format!("{PREFIX}{}.{}.{label}", process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// A directory that is gone when the value is dropped.
pub(crate) fn directory(label: &str) -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix(&format!("{}.", name(label))).tempdir()?)
}

/// Removes what this process has made, for when it must end without dropping its values.
pub fn remove_own() -> Result<()> {
    remove(Owner::Us)
}

/// Names of what this process has made and not removed yet.
pub fn own() -> Result<Vec<String>> {
    let directories =
        directories()?.into_iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
    let mut names: Vec<_> = netns::names()?.into_iter().chain(directories).collect();
    names.retain(|name| owner(name) == Some(Owner::Us));
    Ok(names)
}

/// Removes all it can; the error tells of each that stays.
fn remove(whose: Owner) -> Result<()> {
    let mut stay = Vec::new();
    for name in netns::names()?.iter().filter(|name| owner(name) == Some(whose)) {
        if let Err(error) = netns::remove(name) {
            stay.push(format!("{name}: {error:#}"));
        }
    }
    for path in directories()? {
        if path.file_name().and_then(|name| owner(name.to_str()?)) == Some(whose)
            && let Err(error) = fs::remove_dir_all(&path)
        {
            stay.push(format!("{}: {error}", path.display()));
        }
    }
    ensure!(stay.is_empty(), "{}", stay.join("; "));
    Ok(())
}

/// Whether a name is one of the rig's, of whatever process.
pub(crate) fn is_ours(name: &str) -> bool {
    owner(name).is_some()
}

/// Whose a name is; `None` when it is none of the rig's.
fn owner(name: &str) -> Option<Owner> {
    let pid = name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok()?;
    if u32::try_from(pid) == Ok(process::id()) {
        return Some(Owner::Us);
    }
    let dead = kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH);
    Some(if dead { Owner::Dead } else { Owner::Other })
}

fn directories() -> Result<Vec<PathBuf>> {
    let mut directories = Vec::new();
    for entry in fs::read_dir(env::temp_dir())? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_ours) {
            directories.push(entry.path());
        }
    }
    Ok(directories)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn names_say_whose_they_are() {
        assert_eq!(owner(&name("x")), Some(Owner::Us));
        // Process 1 always runs; no pid is larger than 2^22 (PID_MAX_LIMIT).
        assert_eq!(owner("serval-test.1.0.x"), Some(Owner::Other));
        assert_eq!(owner("serval-test.4194305.0.x"), Some(Owner::Dead));
        assert_eq!(owner("serval-test.x"), None);
        assert_eq!(owner("somebody-else"), None);
    }

    #[test]
    fn what_cannot_be_removed_keeps_nothing_else() -> Result<()> {
        crate::require_rig!();
        let busy = "serval-test.4194305.0.busy";
        let path = Path::new("/run/netns").join(busy);
        // A namespace is a file that is bound over.
        fs::create_dir_all(&path)?;
        let other = env::temp_dir().join("serval-test.4194305.1.other");
        fs::create_dir_all(&other)?;
        let swept = remove(Owner::Dead);
        fs::remove_dir(&path)?;
        assert!(swept.unwrap_err().to_string().contains(busy));
        assert!(!other.exists());
        Ok(())
    }
}
