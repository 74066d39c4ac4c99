//! Waiting for state that announces itself by no event.

use anyhow::{Result, bail};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// How often state without an event is looked at.
const PERIOD: Duration = Duration::from_millis(1);

/// Asks `probe` every millisecond until it has an answer; after `limit` an error says `what` did not come.
pub fn eventually<T>(what: &str, limit: Duration, probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    every(PERIOD, what, limit, probe)
}

/// How many times longer than usual everything may take here: `SERVAL_PATIENCE`, which is set where QEMU emulates the processor.
fn patience() -> u32 {
    static PATIENCE: OnceLock<u32> = OnceLock::new();
    *PATIENCE.get_or_init(|| {
        let set = std::env::var("SERVAL_PATIENCE").ok();
        set.map_or(1, |factor| factor.parse().expect("SERVAL_PATIENCE is a number"))
    })
}

/// As [`eventually`], for what takes seconds and costs a process to look at: asks once in `period`.
pub fn every<T>(
    period: Duration,
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let limit = limit * patience();
    let start = Instant::now();
    loop {
        if let Some(answer) = probe()? {
            return Ok(answer);
        }
        if start.elapsed() >= limit {
            bail!("not within {limit:?}: {what}");
        }
        thread::sleep(period);
    }
}

/// As [`eventually`], and says how long it took.
pub fn timed<T>(
    what: &str,
    limit: Duration,
    probe: impl FnMut() -> Result<Option<T>>,
) -> Result<(T, Duration)> {
    let start = Instant::now();
    let answer = eventually(what, limit, probe)?;
    Ok((answer, start.elapsed()))
}
