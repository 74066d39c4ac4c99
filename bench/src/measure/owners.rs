//! Small packets of a VM to one of many VMs of its own host. All of them are behind one TAP, so that what differs is how
//! long it takes to find out whose an address is: by the maps of the fast path, by /128 routes and permanent neighbours,
//! by the elements of nftables' sets.

use super::many::Many;
use crate::carrier::{Carrier, Far};
use crate::destinations::{Destinations, Width};
use crate::report::Outcome;
use anyhow::Result;

pub const NAME: &str = "owners";

/// Who takes part.
const CARRIERS: [Carrier; 8] = [
    Carrier::Serval,
    Carrier::BareXdp,
    Carrier::ServalTc,
    Carrier::BareTc,
    Carrier::FibXdpDirect,
    Carrier::FibTcDirect,
    Carrier::Kernel,
    Carrier::Nftables,
];

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Vec<Outcome>> {
    let counts: &[u32] = if quick { &[1, 10_000] } else { &[1, 1_000, 100_000] };
    Many {
        name: NAME,
        of: "endpoints",
        to: "a TAP",
        sets: counts.iter().map(|count| Far::Endpoints(Destinations::new(*count, Width::Host))).collect(),
        carriers: CARRIERS.to_vec(),
        rounds: if quick { 2 } else { 9 },
        frames: if quick { (5_000, 20_000) } else { (60_000, 100_000) },
    }
    .run()
}
