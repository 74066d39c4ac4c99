//! Small packets from TAP to TAP, by one queue and by two, as a VM with as many virtual CPUs sends and receives them: for
//! each queue a thread on a CPU of its own, which writes some frames of one flow and then reads what has come by its queue
//! of the other TAP. With two, both CPUs forward at the same time.

use super::flood::DELIVERED_PERCENT;
use super::program::KIND;
use super::tally::{Asked, Tally};
use super::wire::{Reader, Wire, Writer};
use crate::carrier::{Carrier, Path, SMALL, Setting};
use crate::cpu;
use crate::report::{Metric, Outcome, Size};
use crate::rounds::{Arm, Measured, Work, interleave};
use crate::statistics::Better;
use anyhow::{Context, Result};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

pub const NAME: &str = "queues";

const METRICS: &[Metric] = &[
    Metric { name: "a frame", unit: "ns", better: Better::Less },
    Metric { name: "CPU a frame, written and read", unit: "ns", better: Better::Less },
];

/// Who takes part.
const CARRIERS: [Carrier; 5] =
    [Carrier::Serval, Carrier::BareXdp, Carrier::ServalTc, Carrier::BareTc, Carrier::Kernel];
/// Frames that are written before reading.
const BURST: usize = 32;

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Vec<Outcome>> {
    let (rounds, frames) = if quick { (5, 5_000) } else { (25, 60_000) };
    let cpus = cpu::two()?;
    let mut arms = Vec::new();
    for queues in 1..=cpus.len() {
        for carrier in CARRIERS {
            arms.push(arm(carrier, &cpus[..queues], frames).with_context(|| name(carrier, queues))?);
        }
    }
    let title = format!(
        "{}-byte UDP frames from TAP to TAP, {frames} a round and queue, a CPU a queue",
        KIND.length()
    );
    let arms = interleave(NAME, &mut arms, rounds)?;
    Ok(vec![Outcome { name: NAME.to_owned(), title, metrics: METRICS, arms }])
}

fn arm(carrier: Carrier, cpus: &[usize], frames: usize) -> Result<Arm> {
    let queues = cpus.len();
    let setting = Setting { queues, ..Setting::USUAL };
    let wire = Wire::with_queues(carrier, KIND, &setting)?;
    Ok(Arm {
        name: name(carrier, queues),
        limit: SMALL.limit(carrier).map(|limit| name(limit, queues)),
        kernel: name(Carrier::Kernel, queues),
        size: Some(Size { line: carrier.name().to_owned(), of: "queues".to_owned(), count: queues as u64 }),
        work: Box::new(Queues { wire, cpus: cpus.to_vec(), frames }),
    })
}

fn name(carrier: Carrier, queues: usize) -> String {
    format!("{}, {queues} queue{}", carrier.name(), if queues == 1 { "" } else { "s" })
}

/// The work of sending `frames` frames by each queue of a wire.
struct Queues {
    wire: Wire<Path>,
    /// One for each queue.
    cpus: Vec<usize>,
    frames: usize,
}

impl Work for Queues {
    fn round(&mut self) -> Result<Measured> {
        let Self { wire, cpus, frames } = self;
        if let Some(wrong) = wire.establish()? {
            return Ok(Measured::Rejected(wrong));
        }
        let tally = Tally::take(&wire.between)?;
        let (start, writing) = (Barrier::new(cpus.len()), AtomicUsize::new(cpus.len()));
        let turns = std::thread::scope(|scope| {
            let begin = |(queue, cpu): (usize, &usize)| {
                let (wire, start, writing, frames) = (&*wire, &start, &writing, *frames);
                cpu::spawn_on(scope, *cpu, move || turn(wire, queue, frames, start, writing))
            };
            let threads = cpus.iter().enumerate().map(begin).collect::<Result<Vec<_>>>()?;
            threads.into_iter().map(cpu::join).collect::<Result<Vec<_>>>()
        })?;

        let sent = *frames * cpus.len();
        let exact: usize = turns.iter().map(|turn| turn.exact).sum();
        let enough = sent * DELIVERED_PERCENT / 100;
        if exact < enough {
            return Ok(Measured::Rejected(format!("{exact} of {sent} frames arrived exactly")));
        }
        if let Some(wrong) = tally.wrong(&wire.between, sent as u64, enough as u64, Asked::Known)? {
            return Ok(Measured::Rejected(wrong));
        }
        let begin = turns.iter().map(|turn| turn.begin).min();
        let end = turns.iter().map(|turn| turn.end).max();
        let elapsed = end.zip(begin).map(|(end, begin)| end - begin).context("a TAP without a queue")?;
        let cpu: f64 = turns.iter().map(|turn| turn.cpu).sum();
        Ok(Measured::Proven(vec![elapsed.as_nanos() as f64 / exact as f64, cpu / exact as f64]))
    }
}

/// What a thread has done.
struct Turn {
    begin: Instant,
    end: Instant,
    /// CPU time in ns.
    cpu: f64,
    exact: usize,
}

/// Writes frames by one queue, and reads what comes by it until `writing` says that nobody writes any more.
fn turn(
    wire: &Wire<Path>,
    queue: usize,
    frames: usize,
    start: &Barrier,
    writing: &AtomicUsize,
) -> Result<Turn> {
    let (mut writer, mut reader) = (wire.queue_writer(queue), wire.queue_reader(queue));
    start.wait();
    let (before, begin) = (cpu::thread_time()?, Instant::now());
    let exchanged = exchange(&mut writer, &mut reader, frames);
    let (mut end, cpu) = (Instant::now(), cpu::thread_time()? - before);
    // Whatever became of it: the others wait for it.
    writing.fetch_sub(1, Ordering::Release);
    let mut exact = exchanged?;
    loop {
        let over = writing.load(Ordering::Acquire) == 0;
        let came = reader.drain()?;
        if came > 0 {
            exact += came;
            end = Instant::now();
        }
        if over {
            return Ok(Turn { begin, end, cpu, exact });
        }
    }
}

/// Writes frames, and reads what comes in between and after; how many of them were just so.
fn exchange(writer: &mut Writer<'_>, reader: &mut Reader<'_>, frames: usize) -> Result<usize> {
    let mut exact = 0;
    for number in 1..=frames {
        writer.send()?;
        if number % BURST == 0 {
            exact += reader.drain()?;
        }
    }
    Ok(exact + reader.drain()?)
}
