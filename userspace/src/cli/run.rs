//! `serval run`: the daemon in the foreground.

use super::Answer;
use crate::config::Config;
use crate::daemon;
use anyhow::Context;

/// Threads: one for the loop that changes the host, one for DHCPv6, advertisements and the control socket.
const THREADS: usize = 2;

pub(super) fn run(config: Config) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(daemon::run(config))?;
    Ok(Answer::Yes)
}
