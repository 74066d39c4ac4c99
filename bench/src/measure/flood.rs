//! One CPU writes frames into a TAP as a VMM does, another reads them from the other TAP. How long a frame takes when
//! the next one follows at once, and how much of that the sending CPU works.

use super::program::Opening;
use super::tally::{Asked, Tally};
use super::wire::{Between, Wire};
use crate::cpu;
use crate::report::Metric;
use crate::rounds::{Measured, Work};
use crate::statistics::Better;
use anyhow::Result;
use std::rc::Rc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const METRICS: &[Metric] = &[
    Metric { name: "a frame", unit: "ns", better: Better::Less },
    Metric { name: "CPU of the sender a frame", unit: "ns", better: Better::Less },
];

/// Of a hundred frames, those that must arrive exactly.
pub const DELIVERED_PERCENT: usize = 99;
/// How long the reader waits for frames after the last was sent.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long the reader lets frames come in when it has read all: asking again and again would slow the sender down, and
/// no VMM does it.
const PAUSE: Duration = Duration::from_micros(10);

/// The work of sending `frames` frames over a wire.
pub struct Flood<B> {
    pub wire: Rc<Wire<B>>,
    /// How flows begin that the wire does not open itself.
    pub opening: Option<Opening>,
    pub frames: usize,
    /// For who writes and who reads.
    pub cpus: [usize; 2],
}

impl<B: Between> Work for Flood<B> {
    fn round(&mut self) -> Result<Measured> {
        let wire = Rc::clone(&self.wire);
        let wire = wire.as_ref();
        if let Some(opening) = &mut self.opening {
            opening.send()?;
        }
        if let Some(wrong) = wire.establish()? {
            return Ok(Measured::Rejected(wrong));
        }
        let tally = Tally::take(&wire.between)?;
        let (start, sent) = (Barrier::new(2), AtomicBool::new(false));
        let ([write_cpu, read_cpu], frames) = (self.cpus, self.frames);
        let (written, read) = std::thread::scope(|scope| -> Result<_> {
            let reader = cpu::spawn_on(scope, read_cpu, || {
                start.wait();
                read(wire, frames, &sent)
            })?;
            let writer = cpu::spawn_on(scope, write_cpu, || {
                start.wait();
                let written = write(wire, frames);
                sent.store(true, Ordering::Release);
                written
            })?;
            Ok((cpu::join(writer)?, cpu::join(reader)?))
        })?;

        let enough = frames * DELIVERED_PERCENT / 100;
        if read.exact < enough {
            return Ok(Measured::Rejected(format!("{} of {frames} frames arrived exactly", read.exact)));
        }
        if let Some(wrong) = tally.wrong(&wire.between, frames as u64, enough as u64, Asked::Known)? {
            return Ok(Measured::Rejected(wrong));
        }
        let elapsed = written.end.max(read.last) - written.start;
        Ok(Measured::Proven(vec![elapsed.as_nanos() as f64 / read.exact as f64, written.cpu / frames as f64]))
    }
}

struct Written {
    start: Instant,
    end: Instant,
    cpu: f64,
}

fn write<B: Between>(wire: &Wire<B>, frames: usize) -> Result<Written> {
    let mut writer = wire.writer();
    let before = cpu::thread_time()?;
    let start = Instant::now();
    for _ in 0..frames {
        writer.send()?;
    }
    Ok(Written { start, end: Instant::now(), cpu: cpu::thread_time()? - before })
}

struct Read {
    exact: usize,
    last: Instant,
}

/// Reads until all have come, or none has for a while after the last was sent.
fn read<B: Between>(wire: &Wire<B>, frames: usize, sent: &AtomicBool) -> Result<Read> {
    let mut reader = wire.reader();
    let mut read = Read { exact: 0, last: Instant::now() };
    loop {
        let before = read.exact;
        while read.exact < frames
            && let Some(expected) = reader.receive()?
        {
            read.exact += usize::from(expected);
        }
        let now = Instant::now();
        if read.exact > before {
            read.last = now;
        }
        if read.exact == frames || (sent.load(Ordering::Acquire) && now - read.last > PATIENCE) {
            return Ok(read);
        }
        while now.elapsed() < PAUSE {
            std::hint::spin_loop();
        }
    }
}
