//! Questions that a VM asks by its TAP and that are answered there: how many a second, and how long one takes.

use super::stream::HEADER;
use crate::cpu;
use crate::report::Metric;
use crate::rounds::Measured;
use crate::statistics::{Better, quantile};
use anyhow::{Context, Result, bail, ensure};
use serval_tests::tap::Tap;
use std::time::{Duration, Instant};

pub const METRICS: &[Metric] = &[
    Metric { name: "answers", unit: "1/s", better: Better::More },
    Metric { name: "p50", unit: "ns", better: Better::Less },
    Metric { name: "p99", unit: "ns", better: Better::Less },
];

/// Questions that are asked at once where their number a second is measured.
const WINDOW: usize = 32;
/// How long an answer may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the first question is asked.
const TRIES: u32 = 5;

/// How much is asked in a round, for each of both figures.
#[derive(Clone, Copy)]
pub struct Scale {
    /// Questions, at most.
    pub questions: usize,
    /// For so long, at most.
    pub time: Duration,
}

/// A VM that asks the same again and again.
pub struct Asker {
    tap: Tap,
    question: Vec<u8>,
    answer: Vec<u8>,
}

impl Asker {
    /// Asks `question`, a frame, for the first time, which a daemon that has just been started may not hear. What comes and
    /// is `right` is what has to come each time, byte for byte.
    pub fn new(tap: Tap, question: &[u8], right: impl Fn(&[u8]) -> bool) -> Result<Self> {
        let question = [&[0; HEADER], question].concat();
        let mut others = Vec::new();
        for _ in 0..TRIES {
            tap.write_raw(&question).context("cannot ask")?;
            let end = Instant::now() + PATIENCE;
            while let Some((_, frame)) = tap.read_until(end)? {
                if right(&frame) {
                    return Ok(Self { tap, question, answer: frame });
                }
                others.push(frame);
            }
        }
        bail!("no right answer came within {TRIES} times {PATIENCE:?}, but {others:02x?}")
    }

    /// A round on a CPU. `answered` counts the answers of whoever has to give them.
    pub fn round(&self, scale: Scale, cpu: usize, answered: impl Fn() -> Result<u64>) -> Result<Measured> {
        let mut buffer = vec![0; HEADER + self.answer.len() + 1];
        while self.tap.read_raw(&mut buffer)? > 0 {}
        let before = answered()?;
        let asked = cpu::run_on(cpu, || {
            let many = self.ask(WINDOW, scale)?;
            let single = self.ask(1, scale)?;
            Ok([many, single])
        })?;
        let [many, mut single] = asked;
        let (came, sent) = (many.times.len() + single.times.len(), many.sent + single.sent);
        if came < sent {
            return Ok(Measured::Rejected(format!("{came} of {sent} answers came")));
        }
        let given = answered()? - before;
        if given < sent as u64 {
            return Ok(Measured::Rejected(format!("{given} of {sent} answers were given by who has to")));
        }
        let rate = many.times.len() as f64 / many.took.as_secs_f64();
        single.times.sort_by(f64::total_cmp);
        let [p50, p99] = [0.5, 0.99].map(|share| quantile(&single.times, share).unwrap_or(f64::NAN));
        Ok(Measured::Proven(vec![rate, p50, p99]))
    }

    /// Asks `at_once` questions, and as many again when all are answered.
    fn ask(&self, at_once: usize, scale: Scale) -> Result<Asked> {
        let mut buffer = vec![0; HEADER + self.answer.len() + 1];
        let mut asked = Asked { sent: 0, times: Vec::with_capacity(scale.questions), took: Duration::ZERO };
        let start = Instant::now();
        while asked.sent < scale.questions && asked.took < scale.time && asked.times.len() == asked.sent {
            let begun = Instant::now();
            for _ in 0..at_once {
                let length = self.tap.write_raw(&self.question).context("cannot ask")?;
                ensure!(length == self.question.len(), "the TAP took {length} bytes");
            }
            asked.sent += at_once;
            while asked.times.len() < asked.sent && begun.elapsed() < PATIENCE {
                let length = self.tap.read_raw(&mut buffer).context("cannot read an answer")?;
                if buffer[..length].get(HEADER..) == Some(&self.answer) {
                    asked.times.push(begun.elapsed().as_nanos() as f64);
                }
            }
            asked.took = start.elapsed();
        }
        Ok(asked)
    }
}

/// What came of questions.
struct Asked {
    sent: usize,
    /// How long answers took, in ns.
    times: Vec<f64>,
    took: Duration,
}
