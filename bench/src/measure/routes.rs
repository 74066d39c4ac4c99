//! Small packets of a VM to other hosts, by one route and by many.

use super::many::Many;
use crate::carrier::{Carrier, Far, SMALL};
use crate::destinations::{Destinations, Width};
use crate::report::Outcome;
use anyhow::Result;

pub const NAME: &str = "routes";

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Vec<Outcome>> {
    let counts: &[u32] = if quick { &[1, 100_000] } else { &[1, 1_000, 100_000] };
    let routes = |width| counts.iter().map(move |count| Far::Uplink(Destinations::new(*count, width)));
    // Those with rules of somebody else know two VMs, and a bridge no routes.
    let leads_there = |carrier: &Carrier| !carrier.has_rules() && *carrier != Carrier::Bridge;
    Many {
        name: NAME,
        of: "routes",
        to: "an uplink (a TAP)",
        sets: [Width::Host, Width::Prefix].into_iter().flat_map(routes).collect(),
        carriers: SMALL.carriers.iter().copied().filter(leads_there).collect(),
        rounds: if quick { 3 } else { 15 },
        frames: if quick { (5_000, 20_000) } else { (60_000, 100_000) },
    }
    .run()
}
