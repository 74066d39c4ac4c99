//! Child processes that end with us: started from one thread that lives as long as the process (so that the parent
//! death signal means the process, not the thread), their output collected, killed on drop.

use crate::wait::eventually;
use anyhow::{Context, Result, anyhow, bail};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

type Order = (Command, SyncSender<std::io::Result<Child>>);

/// A running child process.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    log: Arc<Log>,
}

/// What a child has said so far.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Running {
    /// Starts `command`, collecting what it says on standard output and error.
    pub fn start(name: impl Into<String>, mut command: Command) -> Result<Self> {
        let name = name.into();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(command).with_context(|| format!("cannot start {name}"))?;
        let log = Arc::new(Log::default());
        if let Some(pipe) = child.stdout.take() {
            collect(pipe, Arc::clone(&log));
        }
        if let Some(pipe) = child.stderr.take() {
            collect(pipe, Arc::clone(&log));
        }
        Ok(Self { name, child, log })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, if `command` asked for a pipe and nobody has taken it yet.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// All lines it has said so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    /// Waits for a line that `wanted` accepts, from the first line on.
    pub fn wait_line(&self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let end = Instant::now() + limit;
        let mut lines = self.log.lock();
        let mut seen = 0;
        loop {
            if let Some(line) = lines[seen..].iter().find(|line| wanted(line)) {
                return Ok(line.clone());
            }
            seen = lines.len();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "{} did not say what was waited for within {limit:?}:\n{}",
                    self.name,
                    lines.join("\n")
                );
            }
            lines = self.log.grown.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends `signal`.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(pid(self.child.id())?, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Waits until it has ended.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        eventually(&what, limit, || Ok(self.child.try_wait()?))
    }

    /// Asks it to end (SIGTERM) and waits for that.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("cannot end {}: {error:#}", self.name);
        }
    }
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `command` to its end and fails with all it said unless it succeeded.
pub fn run(mut command: Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    succeeded(&format!("{command:?}"), &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts `command` from the thread that lives as long as this process, with SIGKILL as its parent death signal.
fn spawn(mut command: Command) -> Result<Child> {
    static STARTER: OnceLock<Sender<Order>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, incoming) = channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in incoming {
                // Nobody left to take the child: it ends by its drop in `SendError`, and by our own end at the latest.
                drop(reply.send(command.spawn()));
            }
        });
        orders
    });
    // SAFETY: prctl is async-signal-safe and touches nothing of the parent.
    unsafe { command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)) };
    let (reply, child) = sync_channel(1);
    starter.send((command, reply)).map_err(|_| anyhow!("the starter thread is gone"))?;
    Ok(child.recv().context("the starter thread is gone")??)
}

fn collect(pipe: impl Read + Send + 'static, log: Arc<Log>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(|line| line.ok()) {
            log.lock().push(String::from_utf8_lossy(&line).trim_end().to_owned());
            log.grown.notify_all();
        }
    });
}

fn pid(id: u32) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(id)?))
}

fn succeeded(what: &str, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
