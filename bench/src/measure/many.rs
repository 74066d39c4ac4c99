//! Small packets of a VM that go to one of many, end to end and without the TAP that they are written into. Every packet
//! is to another destination, chosen at random, so that of many hardly any is in a cache; and by very many routes also as
//! packets go in life: a few destinations have most of them (Zipf's law).

use super::flood::{self, Flood};
use super::program::{self, KIND, Live, Opening};
use super::tally::Asked;
use super::wire::Wire;
use crate::bare::{Variants, Varies};
use crate::carrier::{Carrier, Far, Path, SMALL, Setting};
use crate::choice::Popularity;
use crate::cpu;
use crate::destinations::Destinations;
use crate::report::{Outcome, Size};
use crate::rounds::{Arm, Work, interleave};
use anyhow::{Context, Result};
use std::rc::Rc;

/// With so many routes it matters how often packets go by each.
const VERY_MANY: u32 = 100_000;

/// A benchmark.
pub struct Many {
    /// Its name.
    pub name: &'static str,
    /// What they are, for plots.
    pub of: &'static str,
    /// What packets arrive at.
    pub to: &'static str,
    /// Where packets go, by arm.
    pub sets: Vec<Far>,
    /// Who takes part.
    pub carriers: Vec<Carrier>,
    /// Rounds.
    pub rounds: usize,
    /// Frames of a round, end to end and made by the kernel.
    pub frames: (usize, u32),
}

impl Many {
    /// Runs it.
    pub fn run(&self) -> Result<Vec<Outcome>> {
        let (cpus, (frames, live)) = (cpu::two()?, self.frames);
        let mut lanes = self.lanes()?;
        let mut arms = self.arms(&lanes, |lane| {
            let opening = Opening::new(&lane.wire, lane.varies(), cpus[0])?;
            Ok(Box::new(Flood { wire: Rc::clone(&lane.wire), opening, frames, cpus }))
        })?;
        let (name, to, length) = (self.name, self.to, KIND.length());
        let end_to_end = Outcome {
            name: format!("{name}: end to end"),
            title: format!("{length}-byte UDP frames from TAP to {to}, {frames} a round"),
            metrics: flood::METRICS,
            arms: interleave(name, &mut arms, self.rounds)?,
        };
        drop(arms);
        let skewed: Vec<Lane> = lanes.iter().filter_map(Lane::skewed).collect();
        lanes.extend(skewed);
        let mut arms = self.arms(&lanes, |lane| {
            let wire = Rc::clone(&lane.wire);
            Ok(Box::new(Live::new(wire, lane.varies(), Asked::Known, live, cpus[0])?))
        })?;
        let alone = Outcome {
            name: format!("{name}: {}", program::NAME),
            title: format!(
                "{length}-byte UDP frames, made by the kernel, to {to} that is full, {live} a round"
            ),
            metrics: program::METRICS,
            arms: interleave(name, &mut arms, self.rounds)?,
        };
        Ok(vec![end_to_end, alone])
    }

    /// Every carrier with every set; bare redirects, which know no destinations, once.
    fn lanes(&self) -> Result<Vec<Lane>> {
        let mut lanes = Vec::new();
        for (number, far) in self.sets.iter().enumerate() {
            for carrier in &self.carriers {
                if number > 0 && !carrier.routes() {
                    continue;
                }
                let flows = far.destinations().map_or(1, |destinations| destinations.count);
                let setting = Setting { far: *far, flows, ..Setting::USUAL };
                let wire = Wire::new(*carrier, KIND, &setting).with_context(|| name(*carrier, *far))?;
                lanes.push(Lane { carrier: *carrier, far: *far, wire: Rc::new(wire) });
            }
        }
        Ok(lanes)
    }

    fn arms(&self, lanes: &[Lane], mut make: impl FnMut(&Lane) -> Result<Box<dyn Work>>) -> Result<Vec<Arm>> {
        let arm = |lane: &Lane| {
            let Lane { carrier, far, .. } = *lane;
            Ok(Arm {
                name: name(carrier, far),
                limit: SMALL.limit(carrier).map(|limit| name(limit, far)),
                kernel: name(Carrier::Kernel, far),
                size: self.size(carrier, far),
                work: make(lane).with_context(|| name(carrier, far))?,
            })
        };
        lanes.iter().map(arm).collect()
    }

    fn size(&self, carrier: Carrier, far: Far) -> Option<Size> {
        let Destinations { count, width, popularity } = far.destinations()?;
        let line = match far {
            Far::Uplink(_) => format!("{}, /{}", carrier.name(), width.bits()),
            Far::Endpoint | Far::Crowd | Far::Arrival | Far::Endpoints(_) => carrier.name().to_owned(),
        };
        (carrier.routes() && popularity == Popularity::Even).then(|| Size {
            line,
            of: self.of.to_owned(),
            count: u64::from(count),
        })
    }
}

/// A carrier with its destinations.
struct Lane {
    carrier: Carrier,
    far: Far,
    wire: Rc<Wire<Path>>,
}

impl Lane {
    /// How frames that the kernel makes differ.
    fn varies(&self) -> Varies {
        Varies::at_random(self.far.destinations().map_or(Variants::One, Variants::Destinations))
    }

    /// The same where a few destinations have most packets, if there are so many routes that it matters.
    fn skewed(&self) -> Option<Self> {
        let Far::Uplink(to) = self.far else { return None };
        let far = Far::Uplink(Destinations { popularity: Popularity::Zipf, ..to });
        let matters = self.carrier.routes() && to.count >= VERY_MANY;
        matters.then(|| Self { far, wire: Rc::clone(&self.wire), ..*self })
    }
}

fn name(carrier: Carrier, far: Far) -> String {
    let name = carrier.name();
    match far {
        _ if !carrier.routes() => name.to_owned(),
        Far::Endpoint | Far::Crowd | Far::Arrival => name.to_owned(),
        Far::Endpoints(to) => {
            format!("{name}, {} endpoint{}", to.count, if to.count == 1 { "" } else { "s" })
        }
        Far::Uplink(to) => {
            format!("{name}, {} x /{}{}", to.count, to.width.bits(), to.popularity.suffix())
        }
    }
}
