//! Where and when the measuring threads run: pinned to a CPU, and not put aside for ordinary programs meanwhile.

use anyhow::{Context, Result, anyhow};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use std::panic::resume_unwind;
use std::thread::{Builder, Scope, ScopedJoinHandle};

const THIS_THREAD: Pid = Pid::from_raw(0);

/// Two CPUs that we may use: for the one who sends and the one who receives.
pub fn two() -> Result<[usize; 2]> {
    let allowed = sched_getaffinity(THIS_THREAD).context("cannot read which CPUs we may use")?;
    let mut cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    match (cpus.next(), cpus.next()) {
        (Some(first), Some(second)) => Ok([first, second]),
        _ => Err(anyhow!("needs two CPUs")),
    }
}

/// Runs `work` on a thread of its own that has `cpu` before every ordinary program. Keep it short: nobody else gets
/// the CPU meanwhile.
pub fn spawn_on<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    cpu: usize,
    work: impl FnOnce() -> Result<T> + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, Result<T>>> {
    let claimed = move || {
        claim(cpu)?;
        work()
    };
    Builder::new().name("measure".to_owned()).spawn_scoped(scope, claimed).context("cannot start a thread")
}

/// As [`spawn_on`], to its end.
pub fn run_on<T: Send>(cpu: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| join(spawn_on(scope, cpu, work)?))
}

/// What the thread gives.
pub fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// CPU time of the calling thread in ns; what others take in between is not in it.
pub fn thread_time() -> Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64)
}

fn claim(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(THIS_THREAD, &set).with_context(|| format!("cannot run on CPU {cpu}"))?;
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the argument lives through the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
    nix::errno::Errno::result(result).context("cannot get real-time priority (SCHED_FIFO)")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_time_grows_with_work() {
        let before = thread_time().unwrap();
        let mut value = 1u64;
        for step in 0..1_000_000u64 {
            value = std::hint::black_box(value.wrapping_mul(3) ^ step);
        }
        assert!(value != 0 && thread_time().unwrap() > before);
    }
}
