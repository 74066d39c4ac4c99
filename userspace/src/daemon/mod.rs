//! The loop that joins all parts; it alone knows all of them.
//!
//! Everything that changes the host is done here, by one task, one step at a time: `ledger` says which step is the most
//! urgent one, `host` takes it. Between two steps the loop looks at what has happened, so a TAP that vanishes is dealt
//! with at once, however many others wait. What can be answered without changing the host (DHCPv6, advertisements,
//! control connections) runs in tasks of its own.

mod adopt;
mod bird;
mod compare;
mod events;
mod explain;
mod host;
mod ledger;
mod lock;
mod notify;
mod policy;
mod report;
mod rests;
mod rules;
mod uplinks;

pub use lock::RunLock;
pub use rules::write as write_rules;

use crate::apply::links;
use crate::config::{Config, XdpMode};
use crate::serve::monitor::Monitor;
use crate::serve::{Server, control};
use crate::source;
use anyhow::Context;
use events::Events;
use host::Host;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// How often everything is looked at although nothing was heard: others may have changed what is ours.
const AUDIT: Duration = Duration::from_secs(30);
/// How long a start waits for what a daemon that has just been killed still holds: the kernel takes a moment to end a
/// process.
const HANDOVER: Duration = Duration::from_secs(1);
/// File in the run directory that remembers what the resources last said without an error.
const LAST_GOOD: &str = "last-good.json";

/// Runs until SIGTERM or SIGINT. What it has set up stays: the VMs do not notice that it ends.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let run_directory = config.paths.run.clone();
    let server_duid = config.dhcp6.server_duid.clone();
    let _lock = RunLock::acquire(&run_directory)?;
    let listener = control::bind(&run_directory)
        .with_context(|| format!("cannot listen on {}", run_directory.join(control::SOCKET).display()))?;

    let mut links = links::Watch::open().await?;
    let mut resources = source::Watch::resume(&config.resources.directory, &run_directory.join(LAST_GOOD));
    let monitor = Monitor::default();
    let mut samples = monitor.samples();
    let (events, mut told) = Events::new(monitor.clone(), config.fastpath.xdp == XdpMode::Auto);
    let mut host = Host::open(config, links.facts().clone(), resources.snapshot().clone(), events).await?;
    let server = Server::start(host.endpoints(), server_duid);
    let mut used = host.used_interfaces();
    let (calls, mut called) = mpsc::channel(8);
    let serving = tokio::spawn(control::serve(listener, calls, monitor));
    let mut audit = tokio::time::interval_at(tokio::time::Instant::now() + AUDIT, AUDIT);
    audit.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut announced = false;

    loop {
        let step = host.next_step(Instant::now());
        let busy = step.is_some();
        if !busy {
            host.settle().await;
            if !std::mem::replace(&mut announced, true) {
                announce();
            }
        }
        let wake = host.wake();
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            touched = links.changed() => {
                let touched = touched?;
                host.see_links(links.facts().clone(), &touched);
            }
            () = resources.changed() => host.see_resources(resources.snapshot().clone()),
            Ok(()) = used.changed() => host.apply_uplinks(),
            Some((verb, client)) = called.recv() => host.answer(verb, client, &server),
            Ok(()) = samples.changed() => host.listen(),
            Some(events) = told.recv() => host.tell_events(&events),
            () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now).into()), if !busy && wake.is_some() => {
                host.end_rests();
            }
            _ = audit.tick(), if !busy => host.audit().await,
            () = std::future::ready(()), if busy => {
                if let Some(step) = step {
                    host.take(step).await;
                }
            }
        }
    }

    serving.abort();
    control::unbind(&run_directory);
    Ok(())
}

fn announce() {
    if let Err(error) = notify::ready() {
        tracing::warn!("cannot tell systemd that the daemon is ready: {error}");
    }
}
