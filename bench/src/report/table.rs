//! Tables on a terminal: ratios first, absolute figures second.

use super::schema::{Arm, Change, Comparison, Measurement, Ratio, Role};
use crate::statistics::{Better, Interval};
use comfy_table::{CellAlignment, Table, presets};

/// The tables of a measurement, and what was thrown away.
pub fn render(measurement: &Measurement) -> String {
    let mut text = format!("{}: {}\n", measurement.name, measurement.title);
    for metric in 0..measurement.metrics.len() {
        text += &format!("{}\n", figures(measurement, metric));
        if let Some(table) = peers(measurement, metric) {
            text += &format!("\n{table}\n");
        }
    }
    for arm in &measurement.arms {
        if let (count, Some(why)) = arm.rejected() {
            text += &format!("rejected: {}, {count} times, lastly: {why}\n", arm.name);
        }
    }
    text
}

/// What changed since an earlier run.
pub fn render_comparison(comparison: &Comparison) -> String {
    let Comparison { file, environment, differences, changes, unmatched } = comparison;
    let mut text = format!("compared with {file} ({}, commit {}):\n", environment.date, environment.commit);
    for line in differences {
        text += &format!("not the same machine or run: {line}\n");
    }
    let header = ["", "", "ratio to", "then", "now", "change", ""].map(str::to_owned).to_vec();
    let rows = changes.iter().map(|change| {
        vec![
            format!("{}, {}", change.measurement, change.metric),
            change.arm.clone(),
            change.to.clone().unwrap_or_else(|| "(absolute)".to_owned()),
            number_text(change.before),
            number_text(change.after),
            change_text(change),
            change.verdict.name().to_owned(),
        ]
    });
    text += &format!("{}\n", table(header, rows));
    for line in unmatched {
        text += &format!("not in both: {line}\n");
    }
    text
}

/// By how much it became better, in percent, with the interval.
pub fn change_text(change: &Change) -> String {
    let percent = |factor: f64| (factor - 1.0) * 100.0;
    let factor = percent(change.factor);
    match change.interval {
        Some(Interval { low, high }) => {
            format!("{factor:+.1} % ({:+.1} to {:+.1})", percent(low), percent(high))
        }
        None => format!("{factor:+.1} %"),
    }
}

/// Every arm against its limit and the kernel, and in absolute figures.
fn figures(measurement: &Measurement, metric: usize) -> Table {
    let of = &measurement.metrics[metric];
    let spread = match of.better {
        Better::Less => "p10 - p90 (less is better)",
        Better::More => "p10 - p90 (more is better)",
    };
    // Columns that would be empty are left out.
    let roles = [(Role::Limit, "of the limit"), (Role::Kernel, "times the kernel")];
    let roles: Vec<_> = roles.into_iter().filter(|(role, _)| has(measurement, metric, *role)).collect();
    let mut header = vec![String::new()];
    header.extend(roles.iter().map(|(_, title)| (*title).to_owned()));
    header.extend([
        format!("{}, {}", of.name, of.unit),
        spread.to_owned(),
        "rounds".to_owned(),
        "rejected".to_owned(),
    ]);
    let rows = measurement.arms.iter().map(|arm| {
        let mut row = vec![arm.name.clone()];
        row.extend(roles.iter().map(|(role, _)| {
            let ratio = arm.figures[metric].ratios.iter().find(|ratio| ratio.role == *role);
            ratio.map_or_else(String::new, ratio_text)
        }));
        row.extend(absolute(arm, metric));
        row
    });
    table(header, rows)
}

fn absolute(arm: &Arm, metric: usize) -> [String; 4] {
    let summary = arm.figures[metric].summary;
    [
        summary.map_or_else(|| "-".to_owned(), |s| number_text(s.median)),
        summary.map_or_else(String::new, |s| range_text(s.p10, s.p90)),
        summary.map_or(0, |s| s.count).to_string(),
        arm.rejected().0.to_string(),
    ]
}

/// Ours against all others that do the same, if there are any.
fn peers(measurement: &Measurement, metric: usize) -> Option<Table> {
    if !has(measurement, metric, Role::Peer) {
        return None;
    }
    let rows = measurement.arms.iter().flat_map(|arm| {
        let ratios = arm.figures[metric].ratios.iter().filter(|ratio| ratio.role == Role::Peer);
        ratios.map(|ratio| vec![arm.name.clone(), ratio_text(ratio), ratio.to.clone()])
    });
    let header = vec![format!("{}:", measurement.metrics[metric].name), "times".to_owned(), "of".to_owned()];
    Some(table(header, rows))
}

fn has(measurement: &Measurement, metric: usize, role: Role) -> bool {
    measurement.arms.iter().any(|arm| arm.figures[metric].ratios.iter().any(|ratio| ratio.role == role))
}

/// A table whose first column is text, and the others numbers.
fn table(header: Vec<String>, rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(header).add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The median, and where it is with a confidence of 95 % unless there were too few rounds to say.
pub fn ratio_text(ratio: &Ratio) -> String {
    match ratio.interval {
        Some(Interval { low, high }) => format!("{:.2} ({low:.2} - {high:.2})", ratio.summary.median),
        None => format!("{:.2}", ratio.summary.median),
    }
}

fn range_text(low: f64, high: f64) -> String {
    format!("{} - {}", number_text(low), number_text(high))
}

/// Three digits or more, as measurements are no better.
pub fn number_text(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{outcome, run, series};
    use super::super::{Outcome, compare, measurement};
    use super::*;

    fn render(outcome: Outcome) -> String {
        super::render(&measurement(outcome))
    }

    /// The words of the first line of a table that begins so, without what separates its columns.
    fn words<'t>(text: &'t str, first: &str) -> Vec<&'t str> {
        let words = |line: &'t str| line.split_whitespace().filter(|word| *word != "|").collect::<Vec<_>>();
        text.lines().map(words).find(|words| words.first() == Some(&first)).unwrap()
    }

    #[test]
    fn table_has_ratios_first_and_says_what_was_rejected() {
        let text = render(outcome());
        let found = words(&text, "serval");
        assert_eq!(found, ["serval", "0.85", "4.00", "250", "250", "-", "250", "2", "1"]);
        assert!(words(&text, "bare").contains(&"200"), "{text}");
        assert!(text.contains("rejected: serval, 1 times, lastly: 9 of 10 frames arrived"), "{text}");
    }

    #[test]
    fn others_that_do_the_same_have_a_table_of_their_own() {
        let text = render(outcome());
        let (_, peers) = text.split_once("times").and_then(|(_, rest)| rest.split_once("| times")).unwrap();
        assert_eq!(words(peers, "serval")[1..], ["2.00", "peer", "&", "<co>"]);
    }

    #[test]
    fn an_arm_without_a_valid_round_is_shown_without_numbers() {
        let mut outcome = outcome();
        outcome.arms[0] = series("serval", Some("bare"), &[None]);
        assert_eq!(words(&render(outcome), "serval"), ["serval", "-", "0", "1"]);
    }

    #[test]
    fn ratios_of_enough_rounds_have_an_interval() {
        let outcome = |rounds: usize| {
            let arm = |name, limit, value| series(name, limit, &vec![Some(value); rounds]);
            let arms = vec![arm("serval", Some("bare"), 250.0), arm("bare", None, 200.0)];
            Outcome { arms, ..outcome() }
        };
        assert_eq!(words(&render(outcome(6)), "serval")[1..5], ["0.80", "(0.80", "-", "0.80)"]);
        assert_eq!(words(&render(outcome(5)), "serval")[1..3], ["0.80", "250"]);
    }

    #[test]
    fn a_comparison_tells_what_changed_and_what_it_was_compared_with() {
        let mut comparison = compare("earlier.json", &run(), &run());
        comparison.changes[0].interval = Some(Interval { low: 0.95, high: 1.1 });
        comparison.unmatched.push("packets: gone (only then)".to_owned());
        let text = render_comparison(&comparison);
        assert!(text.starts_with("compared with earlier.json (2026-01-02T03:04:05Z, commit 0123456789ab)"));
        assert!(text.contains("+0.0 % (-5.0 to +10.0)"), "{text}");
        assert!(text.contains("not in both: packets: gone (only then)"), "{text}");
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([123.4, 56.78, 1.234].map(number_text), ["123", "56.8", "1.23"]);
    }
}
