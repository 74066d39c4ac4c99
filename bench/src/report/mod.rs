//! What a run found: handed in by measurements, written as JSON for programs and as tables and HTML for people. Pure.
//!
//! | file | what it holds |
//! |---|---|
//! | here | what a measurement hands in: [`Outcome`], with a [`Series`] of every arm |
//! | `schema` | the file of a run |
//! | `evaluate` | what the rounds of a measurement say: medians, ratios |
//! | `compare` | what changed between two runs |
//! | `table` | the terminal |
//! | `html` | the page |

mod compare;
mod evaluate;
pub mod html;
pub mod schema;
pub mod table;

pub use compare::compare;
pub use evaluate::measurement;
pub use schema::{Round, Size};

use crate::statistics::Better;

/// Something that is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// What it is.
    pub name: &'static str,
    /// In what.
    pub unit: &'static str,
    /// Which way it is good.
    pub better: Better,
}

/// What one measurement found.
#[derive(Debug)]
pub struct Outcome {
    /// Its name: of the benchmark on the command line, and what part of it.
    pub name: String,
    /// What it did.
    pub title: String,
    /// What was measured, in the order of the values.
    pub metrics: &'static [Metric],
    /// Who took part.
    pub arms: Vec<Series>,
}

/// What one arm did, round by round. Rounds of the same number happened next to each other in all arms of a measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name.
    pub arm: String,
    /// Name of the arm that nothing on its hook can beat. Who has one is ours, and compared with everybody.
    pub limit: Option<String>,
    /// Name of the arm that has the kernel do the same, without BPF programs; arms that do the same work have the same.
    pub kernel: String,
    /// Where it is on a line over how much there was of something.
    pub size: Option<Size>,
    /// All rounds that count.
    pub rounds: Vec<Round>,
}

/// Name of the arm that others are compared with where there is only one: the kernel without BPF programs.
pub const KERNEL: &str = "kernel";

impl Series {
    /// An arm that nothing is measured beside, before its first round.
    pub fn alone(arm: impl Into<String>) -> Self {
        Self { arm: arm.into(), limit: None, kernel: KERNEL.to_owned(), size: None, rounds: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::schema::{Environment, Run, VERSION};
    use super::*;

    const METRICS: &[Metric] = &[Metric { name: "time", unit: "ns", better: Better::Less }];

    /// An arm whose invalid rounds lost their frames.
    pub fn series(arm: &str, limit: Option<&str>, values: &[Option<f64>]) -> Series {
        let round = |value: &Option<f64>| match value {
            Some(value) => Round::proven(vec![*value]),
            None => Round { values: None, rejected: vec!["9 of 10 frames arrived".to_owned()] },
        };
        let rounds = values.iter().map(round).collect();
        Series { limit: limit.map(str::to_owned), rounds, ..Series::alone(arm) }
    }

    /// Ours, its limit, the kernel, and another.
    pub fn outcome() -> Outcome {
        let arms = vec![
            series("serval", Some("bare"), &[Some(250.0), Some(250.0), None]),
            series("bare", None, &[Some(200.0), Some(225.0), Some(1.0)]),
            series(KERNEL, None, &[Some(1000.0), Some(1000.0), Some(1000.0)]),
            series("peer & <co>", None, &[Some(500.0), Some(500.0), Some(500.0)]),
        ];
        Outcome { name: "packets".to_owned(), title: "a title".to_owned(), metrics: METRICS, arms }
    }

    /// A run with one measurement.
    pub fn run() -> Run {
        let environment = Environment {
            date: "2026-01-02T03:04:05Z".to_owned(),
            commit: "0123456789ab".to_owned(),
            dirty: true,
            command: "cargo xtask bench".to_owned(),
            kernel: "6.18.0".to_owned(),
            cpu: "Some CPU".to_owned(),
            cpus: 2,
            memory: Some(1024),
            compiler: "rustc 1.95".to_owned(),
            linker: "bpf-linker 0.10".to_owned(),
            load_before: Some(0.1),
            load_after: None,
        };
        let measurements = vec![measurement(outcome())];
        Run { schema: VERSION, environment, quick: false, measurements, comparison: None }
    }
}
