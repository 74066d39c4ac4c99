//! One packet at a time: from the write into a TAP until the frame can be read from the other, on one CPU. Everything
//! between happens inside the two system calls, so nobody has to be woken.

use super::stream::Kind;
use super::tally::{Asked, Tally};
use super::wire::{Between, Reader, Wire, Writer};
use crate::carrier::{SMALL, Setting};
use crate::cpu;
use crate::report::{Metric, Outcome};
use crate::rounds::{Measured, Work, interleave};
use crate::statistics::{Better, quantile};
use anyhow::Result;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub const NAME: &str = "latency";

pub const METRICS: &[Metric] = &[
    Metric { name: "p50", unit: "ns", better: Better::Less },
    Metric { name: "p99", unit: "ns", better: Better::Less },
    Metric { name: "p99.9", unit: "ns", better: Better::Less },
];

/// Bytes of a frame.
const LENGTH: usize = 78;
/// A frame that takes longer is lost.
const PATIENCE: Duration = Duration::from_millis(20);

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Vec<Outcome>> {
    let (rounds, frames) = if quick { (5, 1_000) } else { (25, 20_000) };
    let [cpu, _] = cpu::two()?;
    let mut arms = SMALL.arms(|carrier| {
        let wire = Rc::new(Wire::new(carrier, Kind::Datagram(LENGTH), &Setting::USUAL)?);
        Ok(Box::new(OneByOne { wire, frames, cpu }))
    })?;
    let arms = interleave(NAME, &mut arms, rounds)?;
    let title = format!("one {LENGTH}-byte UDP frame at a time, written and read, {frames} a round");
    Ok(vec![Outcome { name: NAME.to_owned(), title, metrics: METRICS, arms }])
}

/// The work of sending `frames` frames over a wire, each when the one before has arrived.
pub struct OneByOne<B> {
    pub wire: Rc<Wire<B>>,
    pub frames: usize,
    pub cpu: usize,
}

impl<B: Between> Work for OneByOne<B> {
    fn round(&mut self) -> Result<Measured> {
        let (wire, frames) = (self.wire.as_ref(), self.frames);
        if let Some(wrong) = wire.establish()? {
            return Ok(Measured::Rejected(wrong));
        }
        let tally = Tally::take(&wire.between)?;
        let times = cpu::run_on(self.cpu, || {
            let (mut writer, mut reader) = (wire.writer(), wire.reader());
            (0..frames).map(|_| single(&mut writer, &mut reader)).collect::<Result<Vec<_>>>()
        })?;
        let mut times: Vec<f64> = times.into_iter().flatten().collect();
        if times.len() < frames {
            return Ok(Measured::Rejected(format!("{} of {frames} frames arrived exactly", times.len())));
        }
        if let Some(wrong) = tally.wrong(&wire.between, frames as u64, frames as u64, Asked::Known)? {
            return Ok(Measured::Rejected(wrong));
        }
        times.sort_by(f64::total_cmp);
        Ok(Measured::Proven([0.5, 0.99, 0.999].iter().filter_map(|q| quantile(&times, *q)).collect()))
    }
}

/// Sends a frame and waits for it; the time in ns, `None` when it does not come.
pub fn single(writer: &mut Writer<'_>, reader: &mut Reader<'_>) -> Result<Option<f64>> {
    let start = Instant::now();
    writer.send()?;
    loop {
        match reader.receive()? {
            Some(true) => return Ok(Some(start.elapsed().as_nanos() as f64)),
            Some(false) => {}
            None if start.elapsed() > PATIENCE => return Ok(None),
            None => {}
        }
    }
}
