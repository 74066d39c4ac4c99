//! What a run found: as JSON for programs, as tables for people. Pure.

use crate::machine::Machine;
use crate::statistics::{Better, Summary, ratios};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// Everything that one run found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of this format.
    pub format: u32,
    /// Where it ran, and what.
    pub machine: Machine,
    /// Shorter rounds: the numbers are not worth comparing.
    pub quick: bool,
    /// The benchmarks, in the order they ran.
    pub benchmarks: Vec<Outcome>,
}

/// Something that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Metric {
    /// What it is.
    pub name: &'static str,
    /// In what.
    pub unit: &'static str,
    /// Which way it is good.
    pub better: Better,
}

/// What one benchmark found.
#[derive(Debug, Serialize)]
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

/// What one arm did, round by round.
#[derive(Debug, Serialize)]
pub struct Series {
    /// Its name.
    pub arm: String,
    /// Name of the arm that nothing on its hook can beat.
    pub limit: Option<String>,
    /// Name of the arm that has the kernel do the same, without BPF programs.
    pub kernel: String,
    /// A value for each metric; `None` for a round in which the arm did not prove its work.
    pub rounds: Vec<Option<Vec<f64>>>,
    /// Tries that were thrown away because the arm did not prove its work.
    pub rejected: u32,
    /// What was wrong with the last of them.
    pub last_rejection: Option<String>,
}

/// Name of the arm that others are compared with where there is only one: the kernel without BPF programs.
pub const KERNEL: &str = "kernel";

impl Series {
    fn values(&self, metric: usize) -> Vec<Option<f64>> {
        self.rounds.iter().map(|round| round.as_ref()?.get(metric).copied()).collect()
    }
}

impl Outcome {
    /// How many times as good as the arm `reference` an arm is.
    pub fn ratio(&self, metric: usize, series: &Series, reference: &str) -> Option<Summary> {
        let reference = self.arms.iter().find(|other| other.arm == reference)?;
        let better = self.metrics.get(metric)?.better;
        Summary::of(&ratios(&series.values(metric), &reference.values(metric), better))
    }

    /// The tables of this benchmark.
    pub fn render(&self) -> String {
        let tables = (0..self.metrics.len()).map(|metric| self.table(metric));
        format!("{}: {}\n{}\n", self.name, self.title, tables.collect::<Vec<_>>().join("\n"))
    }

    fn table(&self, metric: usize) -> String {
        let Metric { name, unit, better } = self.metrics[metric];
        let value = format!("{name}, {unit}");
        let spread = match better {
            Better::Less => "p10 - p90 (less is better)",
            Better::More => "p10 - p90 (more is better)",
        };
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        // Columns that would be empty are left out.
        let has_limit = self.arms.iter().any(|series| series.limit.is_some());
        let has_kernel = self.arms.iter().any(|series| series.arm == series.kernel);
        let columns = |of_limit, of_kernel, rest: [String; 4], name| {
            let ratios = [(has_limit, of_limit), (has_kernel, of_kernel)].into_iter().filter(|(has, _)| *has);
            [name].into_iter().chain(ratios.map(|(_, text)| text)).chain(rest)
        };
        let rest = [value, spread.to_owned(), "rounds".to_owned(), "rejected".to_owned()];
        table.set_header(columns(
            "of the limit".to_owned(),
            "times the kernel".to_owned(),
            rest,
            String::new(),
        ));
        for series in &self.arms {
            let ratio =
                |reference| self.ratio(metric, series, reference).map_or_else(String::new, ratio_text);
            let of_limit = series.limit.as_ref().map_or_else(String::new, |limit| ratio(limit));
            let values: Vec<f64> = series.values(metric).into_iter().flatten().collect();
            let summary = Summary::of(&values);
            let rest = [
                summary.map_or_else(|| "-".to_owned(), |s| number_text(s.median)),
                summary.map_or_else(String::new, |s| range_text(s.p10, s.p90)),
                values.len().to_string(),
                series.rejected.to_string(),
            ];
            table.add_row(columns(of_limit, ratio(&series.kernel), rest, series.arm.clone()));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }
}

fn ratio_text(ratio: Summary) -> String {
    format!("{:.2} ({:.2} - {:.2})", ratio.median, ratio.p10, ratio.p90)
}

fn range_text(low: f64, high: f64) -> String {
    format!("{} - {}", number_text(low), number_text(high))
}

/// Three digits or more, as measurements are no better.
fn number_text(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &[Metric] = &[Metric { name: "time", unit: "ns", better: Better::Less }];

    fn series(arm: &'static str, limit: Option<&'static str>, values: &[Option<f64>]) -> Series {
        let rounds = values.iter().map(|value| value.map(|value| vec![value])).collect();
        let (arm, limit, kernel) = (arm.to_owned(), limit.map(str::to_owned), KERNEL.to_owned());
        Series { arm, limit, kernel, rounds, rejected: 1, last_rejection: None }
    }

    fn outcome() -> Outcome {
        let arms = vec![
            series("serval", Some("bare"), &[Some(250.0), Some(250.0), None]),
            series("bare", None, &[Some(200.0), Some(225.0), Some(1.0)]),
            series(KERNEL, None, &[Some(1000.0), Some(1000.0), Some(1000.0)]),
        ];
        Outcome { name: "packets".to_owned(), title: "a title".to_owned(), metrics: METRICS, arms }
    }

    /// The words of a line of a table, without what separates its columns.
    fn words(line: &str) -> Vec<&str> {
        line.split_whitespace().filter(|word| *word != "|").collect()
    }

    #[test]
    fn ratios_leave_out_rounds_that_one_arm_lacks() {
        let outcome = outcome();
        let ratio = outcome.ratio(0, &outcome.arms[0], "bare").unwrap();
        assert!((ratio.median - 0.85).abs() < 1e-9, "{ratio:?}");
        assert_eq!(ratio.count, 2);
        assert_eq!(outcome.ratio(0, &outcome.arms[0], "nobody"), None);
    }

    #[test]
    fn table_has_ratios_first_and_says_what_was_rejected() {
        let text = outcome().render();
        let line = text.lines().find(|line| line.contains("serval")).unwrap();
        let found = words(line);
        assert_eq!(found[..9], ["serval", "0.85", "(0.81", "-", "0.89)", "4.00", "(4.00", "-", "4.00)"]);
        assert_eq!(found[9..], ["250", "250", "-", "250", "2", "1"]);
        let limit = text.lines().find(|line| words(line).first() == Some(&"bare")).unwrap();
        assert!(limit.contains("200"), "{limit}");
    }

    #[test]
    fn an_arm_without_a_valid_round_is_shown_without_numbers() {
        let mut outcome = outcome();
        outcome.arms[0] = series("serval", Some("bare"), &[None]);
        let text = outcome.render();
        let line = text.lines().find(|line| line.contains("serval")).unwrap();
        assert_eq!(words(line), ["serval", "-", "0", "1"]);
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([123.4, 56.78, 1.234].map(number_text), ["123", "56.8", "1.23"]);
    }
}
