//! What programs and kernel cost without the TAP that frames are written into: the kernel makes frames of its own, hands
//! them to the program that is attached, and their way ends at a TAP that is full. The generator is in every figure, so it
//! flatters nobody against the kernel, and us against a bare redirect.

use super::source::Source;
use super::stream::{From, Kind, Stream};
use super::tally::{Asked, Tally};
use super::wire::Wire;
use crate::bare::{FRAME_LEN, Varies};
use crate::carrier::{Contest, Path, SMALL, Setting};
use crate::cpu;
use crate::report::{Metric, Outcome};
use crate::rounds::{Measured, Work, interleave};
use crate::statistics::Better;
use anyhow::Result;
use std::rc::Rc;

pub const NAME: &str = "program";

pub const METRICS: &[Metric] = &[Metric { name: "CPU a packet", unit: "ns", better: Better::Less }];

/// The frames that are made.
pub const KIND: Kind = Kind::Datagram(FRAME_LEN);
/// Frames that must come through before the TAP is filled.
const SAMPLE: u32 = 64;

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Vec<Outcome>> {
    Ok(vec![alone(NAME, "to a TAP that is full", SMALL, &Setting::USUAL, quick)?])
}

/// Frames of the first TAP; `to`: where their way ends.
pub fn alone(name: &str, to: &str, contest: Contest, setting: &Setting, quick: bool) -> Result<Outcome> {
    let (rounds, frames) = if quick { (5, 20_000) } else { (25, 200_000) };
    let [cpu, _] = cpu::two()?;
    let mut arms = contest.arms(|carrier| {
        let wire = Rc::new(Wire::new(carrier, KIND, setting)?);
        let varies = wire.way.varies();
        Ok(Box::new(Live::new(wire, varies, Asked::Known, frames, cpu)?))
    })?;
    let arms = interleave(name, &mut arms, rounds)?;
    let title = format!("{FRAME_LEN}-byte UDP frames, made by the kernel, {to}, {frames} a round");
    Ok(Outcome { name: name.to_owned(), title, metrics: METRICS, arms })
}

/// The work of forwarding `frames` frames that the kernel makes.
pub struct Live {
    wire: Rc<Wire<Path>>,
    source: Source,
    /// Where flows are to be known.
    opening: Option<Opening>,
    asked: Asked,
    frames: u32,
}

impl Live {
    /// Frames are those of the wire and vary, in flows that are known or new.
    pub fn new(wire: Rc<Wire<Path>>, varies: Varies, asked: Asked, frames: u32, cpu: usize) -> Result<Self> {
        let varies = match asked {
            Asked::Known => varies,
            Asked::New => varies.in_turn(),
        };
        let source = Source::new(&wire.between, From::Near, wire.stream.frame(), varies, cpu)?;
        let opening = match asked {
            Asked::Known => Opening::new(&wire, varies, cpu)?,
            Asked::New => None,
        };
        Ok(Self { wire, source, opening, asked, frames })
    }

    /// Has flows known, or none; what was wrong, if anything was.
    fn begin(&mut self) -> Result<Option<String>> {
        self.wire.between.forget_flows()?;
        if self.asked == Asked::New {
            self.wire.drain()?;
            return Ok(None);
        }
        let wrong = self.wire.establish()?;
        if let Some(opening) = &mut self.opening {
            opening.send()?;
            self.wire.drain()?;
        }
        Ok(wrong)
    }
}

/// How many flows begin: every frame once, and its answer.
pub struct Opening {
    count: u32,
    sources: [Source; 2],
}

impl Opening {
    /// Of the flows of a wire; `None`: its frames do not vary.
    pub fn new(wire: &Wire<Path>, varies: Varies, cpu: usize) -> Result<Option<Self>> {
        let Some(count) = varies.count() else { return Ok(None) };
        let (answer, each) = (Stream::new(KIND, &wire.way.back()), varies.in_turn());
        let first = Source::new(&wire.between, From::Near, wire.stream.frame(), each, cpu)?;
        let second = Source::new(&wire.between, From::Far, answer.frame(), each.answered(), cpu)?;
        Ok(Some(Self { count, sources: [first, second] }))
    }

    /// Sends all of them; most are lost at TAPs that nobody reads, which is behind all that remembers flows.
    pub fn send(&mut self) -> Result<()> {
        for source in &mut self.sources {
            source.send(self.count)?;
        }
        Ok(())
    }
}

impl Work for Live {
    fn round(&mut self) -> Result<Measured> {
        if let Some(wrong) = self.begin()? {
            return Ok(Measured::Rejected(wrong));
        }
        self.source.send(SAMPLE)?;
        let came = self.wire.drain()?;
        if came < SAMPLE as usize {
            return Ok(Measured::Rejected(format!("{came} of {SAMPLE} frames of a sample arrived exactly")));
        }
        self.source.send(KIND.queue() as u32)?;
        let tally = Tally::take(&self.wire.between)?;
        let cost = self.source.send(self.frames)?;
        let frames = u64::from(self.frames);
        if let Some(wrong) = tally.wrong(&self.wire.between, frames, frames, self.asked)? {
            return Ok(Measured::Rejected(wrong));
        }
        Ok(Measured::Proven(vec![cost / f64::from(self.frames)]))
    }
}
