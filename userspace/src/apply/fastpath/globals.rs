//! What the programs are told when they are loaded. Touches the clock and /proc of the calling thread.

use super::loader::Request;
use super::trace;
use aya::EbpfLoader;
use dataplane_ebpf::abi::{self, Rate, names};
use nix::time::{ClockId, clock_getres};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// What the programs are told when they are loaded.
#[derive(Clone, Copy, Debug)]
pub struct Globals {
    pass_unconfigured: u32,
    policed: u32,
    host_is_open: u32,
    host_is_judged: u32,
    mark: u32,
    tick: u64,
    answer_rate: Rate,
    host_rate: Rate,
    log_level: u8,
}

impl Globals {
    /// As `request` says.
    pub fn new(request: &Request<'_>) -> Self {
        Self {
            pass_unconfigured: u32::from(request.pass_unconfigured),
            policed: u32::from(request.policed),
            host_is_open: u32::from(request.host_is_open),
            host_is_judged: u32::from(request.host_is_judged),
            mark: mark(),
            tick: tick(),
            answer_rate: request.answer_rate,
            host_rate: request.host_rate,
            log_level: trace::level(),
        }
    }

    /// The same, and nothing is logged.
    pub fn silent(self) -> Self {
        Self { log_level: 0, ..self }
    }

    /// Of an object whose programs are told.
    pub fn loader(&self) -> EbpfLoader<'_> {
        let mut loader = EbpfLoader::new();
        loader.override_global(names::PASS_UNCONFIGURED, &self.pass_unconfigured, true);
        loader.override_global(names::POLICED, &self.policed, true);
        loader.override_global(names::HOST_IS_OPEN, &self.host_is_open, true);
        loader.override_global(names::HOST_IS_JUDGED, &self.host_is_judged, true);
        loader.override_global(names::MARK, &self.mark, true);
        loader.override_global(names::TICK, &self.tick, true);
        loader.override_global(names::ANSWER_RATE, &self.answer_rate, true);
        loader.override_global(names::HOST_RATE, &self.host_rate, true);
        loader.override_global(aya_log::LEVEL, &self.log_level, true);
        loader
    }
}

/// See [`names::MARK`]: that of this network namespace, the same after a restart.
fn mark() -> u32 {
    let namespace = std::fs::metadata("/proc/thread-self/ns/net").map(|namespace| namespace.ino());
    namespace.map_or(abi::MARK, |inode| (inode as u32 & 0x7fff).max(1) << 1)
}

/// See [`names::TICK`]: the kernel says it as the resolution of its coarse clocks, which every kernel has.
pub fn tick() -> u64 {
    let resolution = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map(Duration::from);
    resolution.map_or(abi::TICK, |resolution| resolution.as_nanos() as u64)
}
