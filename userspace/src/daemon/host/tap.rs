//! What is done to one TAP: opened for its endpoint, closed, or rid of XDP for a while.

use super::{Host, off};
use crate::apply::fastpath::{HookReport, TcHook};
use crate::apply::kernel::KernelError;
use crate::cause::in_one_line;
use crate::daemon::ledger::Failure;
use crate::plan::Attached;
use crate::resource::InterfaceName;
use crate::serve::advertise;
use dataplane_ebpf::abi::Counter;
use std::time::Instant;

impl Host {
    /// Opens a TAP for its endpoint, or sees that it is as planned: maps, hooks, kernel. How many things had to be
    /// changed. A kernel that refuses does not keep the hooks off: they guard. A TAP that cannot
    /// have them is closed, if policy counts: nobody would judge.
    pub(super) async fn open_tap(&mut self, attached: &Attached) -> (HookReport, Result<usize, Failure>) {
        let mut faults = Vec::new();
        let mut hooks = off();
        if let Ok(fast_path) = &mut self.fast_path {
            // Blocks for the kernel's grace periods, and may: this is the main thread, and all else runs on workers.
            match fast_path.apply(attached, &advertise::render(attached)) {
                Ok(report) => hooks = report,
                Err(error) => {
                    faults.push(in_one_line(&error));
                    let before =
                        self.ledger.get(attached.ifindex).filter(|_| fast_path.has(attached.ifindex));
                    hooks = before.map_or_else(off, |entry| entry.hooks.clone());
                }
            }
        }
        // What XDP does not finish is judged at TC, and so is what the kernel delivers.
        if self.fast_path.is_ok() && hooks.tc == TcHook::Off && self.config.policy.enforce {
            faults.extend(hooks.reason);
            faults.extend(self.close(attached.ifindex).await.err().map(|failure| failure.message));
            let message =
                format!("closed, as nothing but its hooks keeps up its policy: {}", faults.join("; "));
            return (off(), Err(message.into()));
        }
        let mut changed = 0;
        let mut passes = false;
        match self.kernel.apply(attached).await {
            Ok(applied) => {
                changed = applied.changed;
                faults.extend(applied.obstacles.iter().map(ToString::to_string));
            }
            Err(error) => {
                passes = matches!(error, KernelError::Vanished { .. } | KernelError::Down { .. });
                faults.push(error.to_string());
            }
        }
        let message = faults.join("; ");
        (hooks, if faults.is_empty() { Ok(changed) } else { Err(Failure { message, passes }) })
    }

    /// Takes everything of ours from an interface, which may be gone; how many things that took.
    pub(super) async fn close(&mut self, ifindex: u32) -> Result<usize, Failure> {
        let link = self.facts.links.iter().find(|(_, link)| link.ifindex == ifindex);
        let mut faults = Vec::new();
        let mut changed = 0;
        // The name it has at present, which need not be the one we met it under.
        if let Some(interface) = link.and_then(|(name, _)| name.parse::<InterfaceName>().ok()) {
            match self.kernel.remove(ifindex, &interface).await {
                Ok(removed) => changed = removed,
                Err(KernelError::Vanished { .. }) => {}
                Err(error) => faults.push(error.to_string()),
            }
        }
        self.rests.forget(ifindex);
        if let Ok(fast_path) = &mut self.fast_path
            && let Err(error) = fast_path.remove(ifindex)
        {
            faults.push(in_one_line(&error));
        }
        if faults.is_empty() { Ok(changed) } else { Err(faults.join("; ").into()) }
    }

    /// The kernel copies frames of this TAP for XDP, which may be better off without.
    pub(super) fn see_copy(&mut self, ifindex: u32) {
        let Some(Ok(Some(counters))) = self.fast_path.as_ref().ok().map(|path| path.counters(ifindex)) else {
            return;
        };
        if self.rests.copied(ifindex, counters.get(Counter::ForwardedXdp), Instant::now()) {
            self.rest(ifindex, true);
        }
    }

    /// Puts XDP back where it has rested for long enough.
    pub fn end_rests(&mut self) {
        for ifindex in self.rests.ended(Instant::now()) {
            self.rest(ifindex, false);
        }
    }

    fn rest(&mut self, ifindex: u32, rests: bool) {
        let Ok(fast_path) = &mut self.fast_path else { return };
        if let Some(report) = fast_path.rest(ifindex, rests)
            && let Some(hooks) = self.ledger.hooks_of(ifindex)
        {
            tracing::debug!("ifindex {ifindex}: xdp {}, tc {}", report.xdp, report.tc);
            *hooks = report;
        }
    }
}
