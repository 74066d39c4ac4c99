//! What the daemon of a host uses.

use anyhow::{Context, Result};
use serval_tests::host::Host;
use std::fs;

/// Ticks a second, in which the kernel tells CPU time (USER_HZ).
const TICKS: f64 = 100.0;

/// CPU time so far, in seconds.
pub fn cpu(host: &Host) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{}/stat", host.pid()?))?;
    // Fields 14 and 15, utime and stime; the second is a name in parentheses (proc_pid_stat(5)).
    let (_, fields) = text.rsplit_once(')').context("/proc/PID/stat without a name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| Ok(field.parse::<f64>()?));
    Ok(ticks.sum::<Result<f64>>()? / TICKS)
}

/// Memory that it holds, in MiB.
pub fn memory(host: &Host) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{}/status", host.pid()?))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().with_context(|| line.to_owned())?;
    Ok(kib / 1024.0)
}
