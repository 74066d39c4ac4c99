//! One packet at a time: from the write into a TAP until the frame can be read from the other, on one CPU. Everything
//! between happens inside the two system calls, so nobody has to be woken.

use super::wire::{Kind, Wire};
use crate::carrier::Carrier;
use crate::cpu;
use crate::report::{Metric, Outcome};
use crate::rounds::{Arm, Measured, interleave};
use crate::statistics::{Better, quantile};
use anyhow::Result;
use std::time::{Duration, Instant};

pub const NAME: &str = "latency";

const ARMS: [(Carrier, Option<Carrier>); 5] = [
    (Carrier::Serval, Some(Carrier::BareXdp)),
    (Carrier::BareXdp, None),
    (Carrier::ServalTc, Some(Carrier::BareTc)),
    (Carrier::BareTc, None),
    (Carrier::Kernel, None),
];

const METRICS: &[Metric] = &[
    Metric { name: "p50", unit: "ns", better: Better::Less },
    Metric { name: "p99", unit: "ns", better: Better::Less },
];

/// Bytes of a frame.
const LENGTH: usize = 78;
/// A frame that takes longer is lost.
const PATIENCE: Duration = Duration::from_millis(20);

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Outcome> {
    let (rounds, frames) = if quick { (5, 1_000) } else { (25, 20_000) };
    let [cpu, _] = cpu::two()?;
    let mut arms = Vec::new();
    for (carrier, limit) in ARMS {
        let wire = Wire::new(carrier, Kind::Datagram(LENGTH))?;
        arms.push(Box::new(Single { wire, limit, frames, cpu }) as Box<dyn Arm>);
    }
    let arms = interleave(NAME, &mut arms, rounds)?;
    let title = format!("one {LENGTH}-byte UDP frame at a time, written and read, {frames} a round");
    Ok(Outcome { name: NAME, title, metrics: METRICS, arms })
}

struct Single {
    wire: Wire,
    limit: Option<Carrier>,
    frames: usize,
    cpu: usize,
}

impl Arm for Single {
    fn name(&self) -> &'static str {
        self.wire.path.carrier.name()
    }

    fn limit(&self) -> Option<&'static str> {
        self.limit.map(Carrier::name)
    }

    fn round(&mut self) -> Result<Measured> {
        self.wire.drain()?;
        let times = cpu::run_on(self.cpu, || {
            (0..self.frames).map(|_| single(&self.wire)).collect::<Result<Vec<_>>>()
        })?;
        let mut times: Vec<f64> = times.into_iter().flatten().collect();
        if times.len() < self.frames {
            return Ok(Measured::Rejected(format!(
                "{} of {} frames arrived exactly",
                times.len(),
                self.frames
            )));
        }
        times.sort_by(f64::total_cmp);
        Ok(Measured::Proven([0.5, 0.99].iter().filter_map(|q| quantile(&times, *q)).collect()))
    }
}

/// Sends a frame and waits for it; the time in ns, `None` when it does not come.
fn single(wire: &Wire) -> Result<Option<f64>> {
    let mut buffer = [0; 256];
    let start = Instant::now();
    wire.send()?;
    loop {
        match wire.receive(&mut buffer)? {
            Some(true) => return Ok(Some(start.elapsed().as_nanos() as f64)),
            Some(false) => {}
            None if start.elapsed() > PATIENCE => return Ok(None),
            None => {}
        }
    }
}
