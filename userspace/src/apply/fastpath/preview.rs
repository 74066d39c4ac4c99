//! The programs on one interface for a look: nothing is pinned, nobody is configured, all IPv6 passes.

use super::hooks::Hooks;
use super::loader::{self, Request};
use super::maps::Maps;
use super::pins::Role;
use super::{FastPathError, HookReport, TcMode, UplinkMode};
use dataplane_ebpf::abi::{Counters, Rate, SLOT_UNCONFIGURED};

/// Attached programs that count and pass; they go when this is dropped.
pub struct Preview {
    ifindex: u32,
    maps: Maps,
    hooks: Hooks,
}

impl Preview {
    /// Attaches all programs to the interface.
    pub fn attach(ifindex: u32) -> Result<(Self, HookReport), FastPathError> {
        let request = Request {
            pins: None,
            limit: 1,
            routes: 1,
            flows: 1,
            policed: false,
            host_is_open: false,
            host_is_judged: false,
            pass_unconfigured: true,
            answer_rate: Rate::UNLIMITED,
            host_rate: Rate::UNLIMITED,
        };
        let loaded = loader::load(&request)?;
        let mut hooks = Hooks::new(loaded.programs, TcMode::Auto, true, UplinkMode::Off);
        let report = hooks.attach(ifindex, Role::Tap, None);
        Ok((Self { ifindex, maps: loaded.maps, hooks }, report))
    }

    /// What was counted so far.
    pub fn counters(&self) -> Result<Counters, FastPathError> {
        self.maps.counters(SLOT_UNCONFIGURED)
    }
}

impl Drop for Preview {
    fn drop(&mut self) {
        if let Err(error) = self.hooks.detach(self.ifindex, Role::Tap, None) {
            tracing::warn!("{error}");
        }
    }
}
