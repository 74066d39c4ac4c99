//! The file that a run leaves. Whoever changes what is in it raises [`VERSION`]: files of other versions are refused, as
//! figures that were taken otherwise must not be compared without notice.

use crate::statistics::{Better, Interval, Summary};
use serde::{Deserialize, Serialize};

/// Version of everything in this file.
pub const VERSION: u32 = 3;

/// Everything that one run found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// [`VERSION`] of who wrote it.
    pub schema: u32,
    /// Where it ran, and what.
    pub environment: Environment,
    /// Shorter rounds: the numbers are not worth comparing.
    pub quick: bool,
    /// The measurements, in the order they ran.
    pub measurements: Vec<Measurement>,
    /// What changed since an earlier run, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

/// The machine and the programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// When it began, in UTC (RFC 3339).
    pub date: String,
    /// Commit of the sources.
    pub commit: String,
    /// The sources were edited since.
    pub dirty: bool,
    /// The command that was given.
    pub command: String,
    /// Kernel release.
    pub kernel: String,
    /// CPU model.
    pub cpu: String,
    /// CPUs that we may use.
    pub cpus: usize,
    /// Memory of the machine, in MiB.
    pub memory: Option<u64>,
    /// Compiler of the BPF programs.
    pub compiler: String,
    /// Their linker.
    pub linker: String,
    /// Load average over one minute before the first round: others that share the CPUs.
    pub load_before: Option<f64>,
    /// And after the last one, where we are in it ourselves.
    pub load_after: Option<f64>,
}

/// What one measurement found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Its name: of the benchmark on the command line, and what part of it.
    pub name: String,
    /// What it did.
    pub title: String,
    /// What was measured, in the order of the values of a round and of the figures of an arm.
    pub metrics: Vec<Metric>,
    /// Who took part.
    pub arms: Vec<Arm>,
}

/// Something that is measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// What it is.
    pub name: String,
    /// In what.
    pub unit: String,
    /// Which way it is good.
    pub better: Better,
}

/// One of several ways to do the same work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// Its name.
    pub name: String,
    /// Name of the arm that nothing on its hook can beat.
    pub limit: Option<String>,
    /// Name of the arm that has the kernel do the same, without BPF programs.
    pub kernel: String,
    /// Where it is on a line over how much there was of something.
    pub size: Option<Size>,
    /// What the rounds say, by metric.
    pub figures: Vec<Figure>,
    /// All rounds that count.
    pub rounds: Vec<Round>,
}

/// Where an arm is on a line over size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// The line: what its arms have in common.
    pub line: String,
    /// Of what there is more and more: routes, rules.
    pub of: String,
    /// How many there were.
    pub count: u64,
}

/// One round of one arm.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// A value for each metric; `None` when the arm did not prove its work.
    pub values: Option<Vec<f64>>,
    /// Why tries were thrown away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<String>,
}

impl Round {
    /// A round in which nothing went wrong.
    pub fn proven(values: Vec<f64>) -> Self {
        Self { values: Some(values), rejected: Vec::new() }
    }
}

/// What the rounds of an arm say of one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The values; `None` without a valid round.
    pub summary: Option<Summary>,
    /// How many times as good as others the arm is.
    pub ratios: Vec<Ratio>,
}

/// How many times as good as another arm one is, in the same rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The other arm.
    pub to: String,
    /// What that is to this one.
    pub role: Role,
    /// The ratios of all rounds that both have.
    pub summary: Summary,
    /// Where the true median is, with a confidence of 95 %; `None`: too few rounds to say.
    pub interval: Option<Interval>,
}

/// What an arm is to one that is compared with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Nothing on this hook can beat it.
    Limit,
    /// The kernel without BPF programs.
    Kernel,
    /// Another way to do the same.
    Peer,
}

/// What changed since an earlier run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The file of the earlier run.
    pub file: String,
    /// Where it ran, and what.
    pub environment: Environment,
    /// What was not the same for both runs, and may be why the figures are not.
    pub differences: Vec<String>,
    /// Of each arm that both have.
    pub changes: Vec<Change>,
    /// Arms that only the earlier run has, or only the later one, after the name of their measurement.
    pub unmatched: Vec<String>,
}

/// What changed in one arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The measurement.
    pub measurement: String,
    /// The metric.
    pub metric: String,
    /// The arm.
    pub arm: String,
    /// The arm that its ratio is to; `None`: there is none in this measurement, and the values themselves are compared.
    pub to: Option<String>,
    /// The earlier median of ratios, or of values.
    pub before: f64,
    /// The later one.
    pub after: f64,
    /// How many times as good it has become.
    pub factor: f64,
    /// Where that is, with a confidence of 95 %; `None`: too few rounds to say.
    pub interval: Option<Interval>,
    /// What that means.
    pub verdict: Verdict,
}

/// What a change means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It became better.
    Faster,
    /// It became worse.
    Slower,
    /// As far as these rounds tell, nothing changed.
    Same,
    /// There are too few rounds to say.
    Unknown,
}

impl Verdict {
    /// As the file has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::Same => "same",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a file is not the report of a run.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is something else.
    #[error("it is no report of `cargo xtask bench`: {0}")]
    Alien(#[from] serde_json::Error),
    /// It is from an older or newer build.
    #[error(
        "it has schema version {found}, and this build compares version {VERSION}: measure that commit again with the \
         benchmarks of this one, or go to a commit with the benchmarks of that one"
    )]
    Version {
        /// What it has.
        found: u64,
    },
}

impl Run {
    /// Reads the file of a run.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Versioned {
            // Up to version 2 it was called format.
            #[serde(alias = "format")]
            schema: u64,
        }
        let Versioned { schema: found } = serde_json::from_str(text)?;
        if found != u64::from(VERSION) {
            return Err(Unreadable::Version { found });
        }
        Ok(serde_json::from_str(text)?)
    }
}

impl Arm {
    /// The values of one metric, round by round.
    pub fn values(&self, metric: usize) -> Vec<Option<f64>> {
        self.rounds.iter().map(|round| round.values.as_ref()?.get(metric).copied()).collect()
    }

    /// Tries that were thrown away, and why the last of them was.
    pub fn rejected(&self) -> (usize, Option<&str>) {
        let mut reasons = self.rounds.iter().flat_map(|round| &round.rejected);
        (reasons.clone().count(), reasons.next_back().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_run_is_read_as_it_was_written() {
        let mut run = run();
        run.comparison = Some(super::super::compare("earlier.json", &run, &run));
        let text = serde_json::to_string_pretty(&run).unwrap();
        assert_eq!(Run::parse(&text).unwrap(), run);
    }

    #[test]
    fn other_versions_are_refused_with_what_to_do() {
        for text in [r#"{"format": 2, "machine": {}}"#, r#"{"schema": 2}"#] {
            let error = Run::parse(text).unwrap_err().to_string();
            assert!(error.contains("version 2") && error.contains("measure that commit again"), "{error}");
        }
        for text in ["", "[]", "{}", r#"{"schema": 3}"#, r#"{"schema": "3"}"#] {
            let error = Run::parse(text).unwrap_err().to_string();
            assert!(error.contains("no report of `cargo xtask bench`"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn values_are_read_to_the_last_bit(values in prop::collection::vec(prop::num::f64::NORMAL, 0..20)) {
            let round = Round { values: Some(values), rejected: vec!["\"<&\u{7}".to_owned()] };
            let text = serde_json::to_string(&round).unwrap();
            prop_assert_eq!(serde_json::from_str::<Round>(&text).unwrap(), round);
        }
    }
}
