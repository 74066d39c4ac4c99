//! `serval detach`: takes the fast path off, once nftables rules judge in its place. By the daemon if one runs; else by
//! what it left pinned.

use super::{Answer, Format, client, print};
use crate::apply::fastpath;
use crate::config::Config;
use crate::daemon::{self, RunLock};
use crate::serve::control::Verb;
use crate::status::Detached;

pub(super) fn run(config: &Config, format: Format) -> anyhow::Result<Answer> {
    let run = &config.paths.run;
    let detached: Detached = match client::ask(run, Verb::Detach)? {
        Some(detached) => detached,
        None => {
            // No daemon may start and attach while we take off.
            let _lock = RunLock::acquire(run)?;
            // What judges instead is there before the hooks go.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(daemon::write_rules(config))?;
            Detached { taps: fastpath::detach_pinned(&config.paths.pin)? }
        }
    };
    if format.json {
        print::json(&detached)?;
    } else {
        print::text(&format!(
            "the fast path is off on {} TAPs; the kernel forwards alone until the daemon is restarted\n",
            detached.taps
        ))?;
    }
    Ok(Answer::Yes)
}
