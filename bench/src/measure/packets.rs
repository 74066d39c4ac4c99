//! From TAP to TAP: one CPU writes as a VMM does, another reads. How long a frame takes when the next one follows at
//! once, and how much of that the sending CPU works.

use super::wire::{Kind, Wire};
use crate::carrier::{Carrier, Hook};
use crate::cpu;
use crate::report::{Metric, Outcome};
use crate::rounds::{Arm, Measured, interleave};
use crate::statistics::Better;
use anyhow::Result;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Name of the benchmark with small packets.
pub const PACKETS: &str = "packets";
/// Name of the benchmark with large ones.
pub const SEGMENTS: &str = "segments";

const METRICS: &[Metric] = &[
    Metric { name: "a frame", unit: "ns", better: Better::Less },
    Metric { name: "CPU of the sender a frame", unit: "ns", better: Better::Less },
];

/// Of a hundred frames, those that must arrive exactly.
const DELIVERED_PERCENT: usize = 99;
/// How long the reader waits for frames after the last was sent.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long the reader lets frames come in when it has read all: asking again and again would slow the sender down, and
/// no VMM does it.
const PAUSE: Duration = Duration::from_micros(10);

/// Small packets, where every one is work.
pub fn packets(quick: bool) -> Result<Outcome> {
    let arms = [
        (Carrier::Serval, Some(Carrier::BareXdp)),
        (Carrier::BareXdp, None),
        (Carrier::ServalTc, Some(Carrier::BareTc)),
        (Carrier::BareTc, None),
        (Carrier::Kernel, None),
    ];
    run(PACKETS, Kind::Datagram(78), Hook::First, &arms, if quick { (5, 5_000) } else { (25, 60_000) })
}

/// Bulk data as guests send it, where copies are work. XDP cannot send such frames on, so all is up to TC.
pub fn segments(quick: bool) -> Result<Outcome> {
    let arms = [
        (Carrier::Serval, Some(Carrier::BareTc)),
        (Carrier::ServalTc, Some(Carrier::BareTc)),
        (Carrier::BareTc, None),
        (Carrier::Kernel, None),
    ];
    run(SEGMENTS, Kind::Segments(60_000), Hook::Tc, &arms, if quick { (5, 500) } else { (25, 3_000) })
}

fn run(
    name: &'static str,
    kind: Kind,
    hook: Hook,
    arms: &[(Carrier, Option<Carrier>)],
    (rounds, frames): (usize, usize),
) -> Result<Outcome> {
    let cpus = cpu::two()?;
    let mut senders = Vec::new();
    for (carrier, limit) in arms {
        let wire = Wire::new(*carrier, kind)?;
        senders.push(Box::new(Sender { wire, limit: *limit, hook, frames, cpus }) as Box<dyn Arm>);
    }
    let arms = interleave(name, &mut senders, rounds)?;
    let what = match kind {
        Kind::Datagram(length) => format!("{length}-byte UDP frames"),
        Kind::Segments(length) => format!("TCP frames of {length} bytes to be cut into segments"),
    };
    let title = format!("{what} from TAP to TAP, {frames} a round, reader on another CPU");
    Ok(Outcome { name, title, metrics: METRICS, arms })
}

struct Sender {
    wire: Wire,
    limit: Option<Carrier>,
    /// Which hook must send the frames on.
    hook: Hook,
    frames: usize,
    cpus: [usize; 2],
}

impl Arm for Sender {
    fn name(&self) -> &'static str {
        self.wire.path.carrier.name()
    }

    fn limit(&self) -> Option<&'static str> {
        self.limit.map(Carrier::name)
    }

    fn round(&mut self) -> Result<Measured> {
        let wire = &self.wire;
        wire.drain()?;
        let before = wire.path.sent_on(self.hook)?;
        let (start, sent) = (Barrier::new(2), AtomicBool::new(false));
        let [write_cpu, read_cpu] = self.cpus;
        let (written, read) = std::thread::scope(|scope| -> Result<_> {
            let reader = cpu::spawn_on(scope, read_cpu, || {
                start.wait();
                read(wire, self.frames, &sent)
            })?;
            let writer = cpu::spawn_on(scope, write_cpu, || {
                start.wait();
                let written = write(wire, self.frames);
                sent.store(true, Ordering::Release);
                written
            })?;
            Ok((cpu::join(writer)?, cpu::join(reader)?))
        })?;

        let enough = self.frames * DELIVERED_PERCENT / 100;
        if read.exact < enough {
            return Ok(Measured::Rejected(format!(
                "{} of {} frames arrived exactly",
                read.exact, self.frames
            )));
        }
        if let (Some(before), Some(after)) = (before, wire.path.sent_on(self.hook)?)
            && after - before < enough as u64
        {
            return Ok(Measured::Rejected(format!("the hook sent on {} of {}", after - before, self.frames)));
        }
        let elapsed = written.end.max(read.last) - written.start;
        Ok(Measured::Proven(vec![
            elapsed.as_nanos() as f64 / read.exact as f64,
            written.cpu / self.frames as f64,
        ]))
    }
}

struct Written {
    start: Instant,
    end: Instant,
    cpu: f64,
}

fn write(wire: &Wire, frames: usize) -> Result<Written> {
    let before = cpu::thread_time()?;
    let start = Instant::now();
    for _ in 0..frames {
        wire.send()?;
    }
    Ok(Written { start, end: Instant::now(), cpu: cpu::thread_time()? - before })
}

struct Read {
    exact: usize,
    last: Instant,
}

/// Reads until all have come, or none has for a while after the last was sent.
fn read(wire: &Wire, frames: usize, sent: &AtomicBool) -> Result<Read> {
    let mut buffer = wire.buffer();
    let mut read = Read { exact: 0, last: Instant::now() };
    loop {
        let before = read.exact;
        while read.exact < frames
            && let Some(expected) = wire.receive(&mut buffer)?
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
