//! `serval load`: the programs on one interface for a look. They count and let everything pass, and go on Ctrl-C.

use crate::apply::fastpath::Preview;
use anyhow::Context;
use dataplane_ebpf::abi::{Counter, Counters, Reason};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Attaches the programs to `interface` and prints their counters every second until Ctrl-C or SIGTERM.
pub fn run(interface: &str) -> anyhow::Result<()> {
    let ifindex = nix::net::if_::if_nametoindex(interface)
        .with_context(|| format!("no interface `{interface}`; `ip link` lists them"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(watch(interface, ifindex))
}

async fn watch(interface: &str, ifindex: u32) -> anyhow::Result<()> {
    // Before anything is attached: from here on a signal ends the loop, not the process.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    let (preview, report) =
        Preview::attach(ifindex).with_context(|| format!("cannot attach to `{interface}`"))?;
    println!("{interface}: xdp {}, tc {}", report.xdp, report.tc);
    if let Some(reason) = report.reason {
        println!("{interface}: {reason}");
    }
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = second.tick() => println!("{}", line(&preview.counters()?)),
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    drop(preview);
    println!("{interface}: detached");
    Ok(())
}

/// The counters that are not zero, by their words.
fn line(counters: &Counters) -> String {
    let counted = Counter::ALL.iter().map(|c| (c.label().to_owned(), counters.get(*c)));
    let dropped = Reason::ALL.iter().map(|r| (format!("dropped:{}", r.label()), counters.dropped(*r)));
    let words: Vec<String> =
        counted.chain(dropped).filter(|(_, n)| *n > 0).map(|(label, n)| format!("{label} {n}")).collect();
    if words.is_empty() { "no frames yet".to_owned() } else { words.join("  ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_what_was_counted() {
        let mut counters = Counters::default();
        assert_eq!(line(&counters), "no frames yet");
        counters.values[Counter::Passed.index()] = 3;
        counters.values[Reason::Vlan.index()] = 1;
        assert_eq!(line(&counters), "passed 3  dropped:vlan 1");
    }
}
