//! The benchmarks.

mod announce;
mod arrivals;
mod asker;
mod beside;
mod bulk;
mod change;
mod connections;
mod dhcp6;
mod endpoints;
mod flood;
mod hosts;
mod latency;
mod many;
mod memory;
mod owners;
mod packets;
mod pair;
mod policy;
mod program;
mod queues;
mod routes;
mod solicitations;
mod source;
mod stream;
mod tally;
mod usage;
mod wire;

pub use wire::Between;

use crate::report::Outcome;
use anyhow::Result;

/// A benchmark.
pub struct Benchmark {
    /// Its name on the command line.
    pub name: &'static str,
    /// Runs it, `true`: quickly.
    pub run: fn(bool) -> Result<Vec<Outcome>>,
}

/// All of them.
pub const BENCHMARKS: &[Benchmark] = &[
    Benchmark { name: packets::PACKETS, run: packets::packets },
    Benchmark { name: queues::NAME, run: queues::run },
    Benchmark { name: packets::SEGMENTS, run: packets::segments },
    Benchmark { name: latency::NAME, run: latency::run },
    Benchmark { name: program::NAME, run: program::run },
    Benchmark { name: policy::NAME, run: policy::run },
    Benchmark { name: bulk::NAME, run: bulk::run },
    Benchmark { name: connections::NAME, run: connections::run },
    Benchmark { name: routes::NAME, run: routes::run },
    Benchmark { name: arrivals::NAME, run: arrivals::run },
    Benchmark { name: owners::NAME, run: owners::run },
    Benchmark { name: hosts::NAME, run: hosts::run },
    Benchmark { name: announce::NAME, run: announce::run },
    Benchmark { name: endpoints::NAME, run: endpoints::run },
    Benchmark { name: solicitations::NAME, run: solicitations::run },
    Benchmark { name: dhcp6::NAME, run: dhcp6::run },
    Benchmark { name: beside::NAME, run: beside::run },
    Benchmark { name: change::NAME, run: change::run },
];
