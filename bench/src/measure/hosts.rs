//! From a VM of one host to a VM of another: small packets, one packet at a time, and bulk TCP, by each choice of
//! programs on the uplink. Policy counts and lets everything pass, but for the arm that is the kernel alone.

use super::bulk;
use super::flood::{self, Flood};
use super::latency::{self, OneByOne};
use super::pair::{Cable, Mode, Pair};
use super::stream::Kind;
use crate::cpu;
use crate::report::{KERNEL, Metric, Outcome};
use crate::rounds::{Arm, Measured, Work, interleave};
use crate::statistics::Better;
use anyhow::Result;
use serval_tests::traffic::iperf3;
use std::rc::Rc;

pub const NAME: &str = "hosts";

const KIND: Kind = Kind::Datagram(78);

const BULK: &[Metric] = &[
    bulk::METRICS[0],
    Metric { name: "frames that reach the VM, mean length", unit: "bytes", better: Better::More },
    Metric { name: "of them by the fast path", unit: "%", better: Better::More },
];

/// Length of a round of bulk TCP.
const SECONDS: u32 = 1;
/// Of a hundred frames of bulk TCP, those that the fast path must deliver where it has a TC program. What comes from a
/// VM on the other end of a veth has partial checksums, which XDP leaves to TC.
const FAST_PERCENT: f64 = 95.0;

struct Scale {
    rounds: usize,
    frames: usize,
    singles: usize,
    bulk_rounds: usize,
}

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Vec<Outcome>> {
    let scale = match quick {
        true => Scale { rounds: 3, frames: 5_000, singles: 1_000, bulk_rounds: 1 },
        false => Scale { rounds: 25, frames: 30_000, singles: 10_000, bulk_rounds: 25 },
    };
    let cpus = cpu::two()?;
    let pairs = Mode::ALL.map(|mode| Ok((mode, Rc::new(Pair::new(mode, KIND)?))));
    let pairs = pairs.into_iter().collect::<Result<Vec<_>>>()?;
    let length = KIND.length();

    let mut floods = arms(&pairs, |pair, _| {
        Box::new(Flood { wire: Rc::clone(&pair.wire), opening: None, frames: scale.frames, cpus })
    });
    let packets = Outcome {
        name: format!("{NAME}: packets"),
        title: format!("{length}-byte UDP frames from VM to VM on another host, {} a round", scale.frames),
        metrics: flood::METRICS,
        arms: interleave(NAME, &mut floods, scale.rounds)?,
    };
    let mut singles = arms(&pairs, |pair, _| {
        Box::new(OneByOne { wire: Rc::clone(&pair.wire), frames: scale.singles, cpu: cpus[0] })
    });
    let latency = Outcome {
        name: format!("{NAME}: latency"),
        title: format!("one {length}-byte UDP frame at a time, to a VM on another host"),
        metrics: latency::METRICS,
        arms: interleave(NAME, &mut singles, scale.rounds)?,
    };
    let mut outcomes = vec![packets, latency];
    for cable in [Cable::Cards, Cable::Segments] {
        for (_, pair) in &pairs {
            pair.lay(cable)?;
        }
        let mut bulk = arms(&pairs, |pair, mode| Box::new(Bulk { pair: Rc::clone(pair), mode }));
        outcomes.push(Outcome {
            name: format!("{NAME}: bulk, {}", cable.name()),
            title: format!(
                "TCP between two guests with all offloads, on two hosts with {}, {SECONDS} s a round",
                cable.description()
            ),
            metrics: BULK,
            arms: interleave(NAME, &mut bulk, scale.bulk_rounds)?,
        });
    }
    Ok(outcomes)
}

fn arms(pairs: &[(Mode, Rc<Pair>)], make: impl Fn(&Rc<Pair>, Mode) -> Box<dyn Work>) -> Vec<Arm> {
    let arm = |(mode, pair): &(Mode, Rc<Pair>)| Arm {
        name: mode.name().to_owned(),
        limit: None,
        kernel: KERNEL.to_owned(),
        size: None,
        work: make(pair, *mode),
    };
    pairs.iter().map(arm).collect()
}

/// The work of sending TCP for a while.
struct Bulk {
    pair: Rc<Pair>,
    mode: Mode,
}

impl Work for Bulk {
    fn round(&mut self) -> Result<Measured> {
        let [from, to] = &self.pair.guests;
        let (counts, delivered) = (to.counts().to_vm, self.pair.delivered()?);
        let bulk = iperf3(&from.namespace, self.pair.server(), SECONDS)?;
        let (after, delivered_after) = (to.counts().to_vm, self.pair.delivered()?);
        let (frames, bytes) = (after.frames - counts.frames, after.bytes - counts.bytes);
        let percent = (delivered_after - delivered) as f64 * 100.0 / frames.max(1) as f64;
        if !matches!(self.mode, Mode::Xdp | Mode::Kernel | Mode::Detached) && percent < FAST_PERCENT {
            return Ok(Measured::Rejected(format!(
                "the fast path delivered {percent:.0} % of {frames} frames"
            )));
        }
        let mean = bytes as f64 / frames.max(1) as f64;
        Ok(Measured::Proven(vec![bulk.bits_per_second / 1e9, mean, percent]))
    }
}
