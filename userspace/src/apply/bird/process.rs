//! Processes that are BIRDs in our network namespace, as /proc tells. A control socket says the same for those that can
//! be reached; this finds those that cannot, because their run directory was wiped.

use super::files::Files;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long the kernel may take to end a process.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often to look.
const LOOK: Duration = Duration::from_millis(5);

/// What programs of BIRD are called.
const NAMES: [&str; 2] = ["bird", "bird6"];

/// Ends BIRDs that were started with our files and whose control socket is gone, as a crash would: neighbours keep
/// our routes then, and the routes in the kernel stay. How many there were.
pub(super) async fn end_lost(files: &Files) -> usize {
    let lost: Vec<Pid> = of_our_namespace().filter(|pid| serves(*pid, &files.socket())).collect();
    for pid in &lost {
        tracing::warn!(
            "ending a BIRD (process {pid}) whose control socket {} is gone",
            files.socket().display()
        );
        if let Err(error) = kill(*pid, Signal::SIGKILL) {
            tracing::warn!("cannot end process {pid}: {error}");
        }
    }
    if !lost.is_empty() && !ended(files, PATIENCE).await {
        tracing::warn!("a BIRD that was killed does not end");
    }
    lost.len()
}

/// Waits until no BIRD that was started with our files is left; false when that took longer than `limit`.
pub(super) async fn ended(files: &Files, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    while of_our_namespace().any(|pid| serves(pid, &files.socket())) {
        if Instant::now() >= end {
            return false;
        }
        sleep(LOOK).await;
    }
    true
}

/// Whether any BIRD runs in our network namespace, whoever started it.
pub(super) fn any_runs() -> bool {
    of_our_namespace().any(|pid| {
        let program = arguments(pid).into_iter().next().map(PathBuf::from);
        program.is_some_and(|path| NAMES.iter().any(|name| path.file_name() == Some(OsStr::new(name))))
    })
}

/// Whether a process was started to listen at `socket`. A process that has ended has no arguments.
fn serves(pid: Pid, socket: &Path) -> bool {
    let arguments = arguments(pid);
    arguments.windows(2).any(|pair| pair[0] == "-s" && Path::new(&pair[1]) == socket)
}

fn arguments(pid: Pid) -> Vec<std::ffi::OsString> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|&byte| byte == 0).map(|argument| OsStr::from_bytes(argument).to_owned()).collect()
}

/// Processes in the network namespace of this thread. Others may use the same paths, in a mount namespace of their own.
fn of_our_namespace() -> impl Iterator<Item = Pid> {
    let ours = fs::read_link("/proc/thread-self/ns/net").ok();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
        .filter(move |pid| ours.is_some() && fs::read_link(format!("/proc/{pid}/ns/net")).ok() == ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    /// A process that looks like BIRD from outside.
    fn disguised(name: &str, socket: &Path) -> Child {
        let mut command = Command::new("sh");
        command.arg0(name).args(["-c", "read wait; exit", "-s"]).arg(socket);
        command.stdin(Stdio::piped()).spawn().unwrap()
    }

    #[tokio::test]
    async fn only_who_was_started_for_our_socket_is_ended() {
        let [run, elsewhere] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let files = Files::of(run.path());
        assert_eq!(end_lost(&files).await, 0);
        let mut lost = disguised("bird", &files.socket());
        let mut other = disguised("/usr/sbin/bird6", &Files::of(elsewhere.path()).socket());
        assert!(any_runs());
        // Until it is what it looks like: between fork and exec it is us.
        while !serves(Pid::from_raw(lost.id().cast_signed()), &files.socket()) {
            sleep(LOOK).await;
        }
        assert_eq!(end_lost(&files).await, 1);
        assert!(!lost.wait().unwrap().success());
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
