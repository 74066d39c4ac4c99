//! The programs on one interface for a look: nothing is pinned, nobody is configured, all IPv6 passes.

use super::hooks::Hooks;
use super::loader::{self, Request};
use super::maps::Maps;
use super::{FastPathError, HookReport, TcMode};
use dataplane_ebpf::abi::{Counters, SLOT_UNCONFIGURED};

/// Attached programs that count and pass; they go when this is dropped.
pub struct Preview {
    ifindex: u32,
    maps: Maps,
    hooks: Hooks,
}

impl Preview {
    /// Attaches all programs to the interface.
    pub fn attach(ifindex: u32) -> Result<(Self, HookReport), FastPathError> {
        let (programs, maps) = loader::load(&Request { pins: None, limit: 1, pass_unconfigured: true })?;
        let mut hooks = Hooks::new(programs, TcMode::Auto, true);
        let report = hooks.attach(ifindex, None);
        Ok((Self { ifindex, maps, hooks }, report))
    }

    /// What was counted so far.
    pub fn counters(&self) -> Result<Counters, FastPathError> {
        self.maps.counters(SLOT_UNCONFIGURED)
    }
}

impl Drop for Preview {
    fn drop(&mut self) {
        if let Err(error) = self.hooks.detach(self.ifindex, None) {
            tracing::warn!("{error}");
        }
    }
}
