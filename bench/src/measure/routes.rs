//! Small packets of a VM to other hosts, by one route and by many, end to end and without the TAP that they are written
//! into. Every packet is to another destination, chosen at random, so that of many routes hardly any is in a cache.

use super::flood::{self, Flood};
use super::program::{self, KIND, Live, Opening};
use super::tally::Asked;
use super::wire::Wire;
use crate::carrier::{Carrier, Far, Path, ROUTED, Setting};
use crate::cpu;
use crate::destinations::{Destinations, Width};
use crate::report::{Outcome, Size};
use crate::rounds::{Arm, Work, interleave};
use anyhow::{Context, Result};
use std::rc::Rc;

pub const NAME: &str = "routes";

/// How many routes there are.
const COUNTS: &[u32] = &[1, 1_000, 100_000];
const COUNTS_QUICK: &[u32] = &[1, 100_000];

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Vec<Outcome>> {
    let (rounds, frames, live) = if quick { (3, 5_000, 20_000) } else { (25, 60_000, 100_000) };
    let cpus = cpu::two()?;
    let lanes = lanes(if quick { COUNTS_QUICK } else { COUNTS })?;
    let length = KIND.length();
    let mut arms = arms(&lanes, |wire| {
        let opening = Opening::new(&wire, wire.way.varies(), cpus[0])?;
        Ok(Box::new(Flood { wire, opening, frames, cpus }))
    })?;
    let end_to_end = Outcome {
        name: format!("{NAME}: end to end"),
        title: format!("{length}-byte UDP frames from TAP to uplink (a TAP), {frames} a round"),
        metrics: flood::METRICS,
        arms: interleave(NAME, &mut arms, rounds)?,
    };
    drop(arms);
    let mut arms = self::arms(&lanes, |wire| {
        let varies = wire.way.varies();
        Ok(Box::new(Live::new(wire, varies, Asked::Known, live, cpus[0])?))
    })?;
    let alone = Outcome {
        name: format!("{NAME}: {}", program::NAME),
        title: format!(
            "{length}-byte UDP frames, made by the kernel, to an uplink (a TAP) that is full, {live} a round"
        ),
        metrics: program::METRICS,
        arms: interleave(NAME, &mut arms, rounds)?,
    };
    Ok(vec![end_to_end, alone])
}

/// A carrier with its routes.
struct Lane {
    name: String,
    limit: Option<String>,
    kernel: String,
    size: Option<Size>,
    wire: Rc<Wire<Path>>,
}

/// Every carrier with every set of routes; bare redirects, which know no routes, once.
fn lanes(counts: &[u32]) -> Result<Vec<Lane>> {
    let widths = [Width::Host, Width::Prefix];
    let sets = widths
        .into_iter()
        .flat_map(|width| counts.iter().map(move |count| Destinations { count: *count, width }));
    let mut lanes = Vec::new();
    for (number, destinations) in sets.enumerate() {
        for carrier in ROUTED.carriers {
            if number > 0 && !carrier.routes() {
                continue;
            }
            let name = name(*carrier, destinations);
            let setting =
                Setting { far: Far::Uplink(destinations), flows: destinations.count, ..Setting::USUAL };
            let wire = Wire::new(*carrier, KIND, &setting).with_context(|| name.clone())?;
            lanes.push(Lane {
                name,
                limit: ROUTED.limit(*carrier).map(|limit| self::name(limit, destinations)),
                kernel: self::name(Carrier::Kernel, destinations),
                size: carrier.routes().then(|| size(*carrier, destinations)),
                wire: Rc::new(wire),
            });
        }
    }
    Ok(lanes)
}

fn name(carrier: Carrier, Destinations { count, width }: Destinations) -> String {
    if !carrier.routes() {
        return carrier.name().to_owned();
    }
    format!("{}, {count} x /{}", carrier.name(), width.bits())
}

fn size(carrier: Carrier, Destinations { count, width }: Destinations) -> Size {
    Size {
        line: format!("{}, /{}", carrier.name(), width.bits()),
        of: "routes".to_owned(),
        count: u64::from(count),
    }
}

fn arms(lanes: &[Lane], mut make: impl FnMut(Rc<Wire<Path>>) -> Result<Box<dyn Work>>) -> Result<Vec<Arm>> {
    let arm = |lane: &Lane| {
        Ok(Arm {
            name: lane.name.clone(),
            limit: lane.limit.clone(),
            kernel: lane.kernel.clone(),
            size: lane.size.clone(),
            work: make(Rc::clone(&lane.wire))?,
        })
    };
    lanes.iter().map(arm).collect()
}
