//! One measurement on the page.

use super::super::schema::{Arm, Comparison, Measurement, Metric, Ratio, Role};
use super::super::table::{number_text, ratio_text};
use super::palette::Ink;
use super::plots::{self, Bar, Distribution, Line};
use super::{anchor, escape};
use crate::report::schema::Verdict;
use crate::statistics::{Better, Interval};
use anyhow::Result;

/// The section of a measurement, with what changed in it.
pub fn section(measurement: &Measurement, comparison: Option<&Comparison>) -> Result<String> {
    let metrics = measurement.metrics.iter().enumerate().map(|(at, metric)| {
        let direction = match metric.better {
            Better::Less => "less is better",
            Better::More => "more is better",
        };
        let plots = [
            ratios(measurement, at, Role::Kernel, "times the kernel")?,
            ratios(measurement, at, Role::Limit, "of the limit")?,
            ratios(measurement, at, Role::Peer, "times others")?,
            lines(measurement, at, metric)?,
            distributions(measurement, at, metric)?,
            comparison.map_or_else(|| Ok(String::new()), |all| changes(measurement, metric, all))?,
        ];
        Ok(format!(
            "<h3>{} <span class=\"quiet\">({}, {direction})</span></h3>\n<div class=\"plots\">{}</div>\n\
             <details><summary>Figures</summary><div class=\"wide\">{}</div></details>\n",
            escape(&metric.name),
            escape(&metric.unit),
            plots.concat(),
            table(measurement, at, metric),
        ))
    });
    Ok(format!(
        "<section id=\"{}\"><h2>{}</h2><p class=\"quiet\">{}</p>\n{}{}</section>\n",
        anchor(&measurement.name),
        escape(&measurement.name),
        escape(&measurement.title),
        metrics.collect::<Result<String>>()?,
        rejected(measurement),
    ))
}

/// In which colour an arm is drawn. Where no hook has a limit, everybody but the kernel is ours.
fn ink(measurement: &Measurement, arm: &Arm) -> Ink {
    let arms = || measurement.arms.iter();
    if arms().any(|other| other.kernel == arm.name) {
        Ink::Kernel
    } else if arms().any(|other| other.limit.as_ref() == Some(&arm.name)) {
        Ink::Limit
    } else if arm.limit.is_some() || arms().all(|other| other.limit.is_none()) {
        Ink::Ours
    } else {
        Ink::Peer
    }
}

fn figure(caption: &str, svg: &str) -> String {
    format!("<figure><figcaption>{}</figcaption>{svg}</figure>\n", escape(caption))
}

fn ratios(measurement: &Measurement, at: usize, role: Role, caption: &str) -> Result<String> {
    let bar = |arm: &Arm, ratio: &Ratio| Bar {
        label: if role == Role::Peer { format!("{} : {}", arm.name, ratio.to) } else { arm.name.clone() },
        ink: ink(measurement, arm),
        value: ratio.summary.median,
        interval: ratio.interval,
    };
    let of_arm = |arm| with_role(arm, at, role).map(move |ratio| bar(arm, ratio));
    let bars: Vec<Bar> = measurement.arms.iter().flat_map(of_arm).collect();
    if bars.is_empty() {
        return Ok(String::new());
    }
    Ok(figure(caption, &plots::bars(&bars)?))
}

fn with_role(arm: &Arm, at: usize, role: Role) -> impl Iterator<Item = &Ratio> {
    arm.figures[at].ratios.iter().filter(move |ratio| ratio.role == role)
}

fn distributions(measurement: &Measurement, at: usize, metric: &Metric) -> Result<String> {
    let row = |arm: &Arm| Distribution {
        label: arm.name.clone(),
        ink: ink(measurement, arm),
        values: arm.values(at).into_iter().flatten().collect(),
        summary: arm.figures[at].summary,
    };
    let rows: Vec<Distribution> = measurement.arms.iter().map(row).collect();
    Ok(figure(&format!("all rounds, {}", metric.unit), &plots::distributions(&rows, number_text)?))
}

/// Lines over size, a plot for each thing that there is more and more of.
fn lines(measurement: &Measurement, at: usize, metric: &Metric) -> Result<String> {
    let mut of: Vec<(&str, Vec<Line>)> = Vec::new();
    for arm in &measurement.arms {
        let (Some(size), Some(summary)) = (&arm.size, arm.figures[at].summary) else { continue };
        let point = (size.count.max(1) as f64, summary);
        let place = of.iter().position(|(what, _)| *what == size.of).unwrap_or_else(|| {
            of.push((&size.of, Vec::new()));
            of.len() - 1
        });
        let lines = &mut of[place].1;
        match lines.iter_mut().find(|line| line.label == size.line) {
            Some(line) => line.points.push(point),
            None => {
                lines.push(Line { label: size.line.clone(), ink: ink(measurement, arm), points: vec![point] })
            }
        }
    }
    let plots = of.into_iter().map(|(of, mut lines)| {
        for line in &mut lines {
            line.points.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        }
        Ok(figure(&format!("by number of {of}, {}", metric.unit), &plots::lines(&lines, of)?))
    });
    plots.collect()
}

fn changes(measurement: &Measurement, metric: &Metric, comparison: &Comparison) -> Result<String> {
    let percent = |factor: f64| (factor - 1.0) * 100.0;
    let of_metric = comparison
        .changes
        .iter()
        .filter(|change| change.measurement == measurement.name && change.metric == metric.name);
    let bars: Vec<Bar> = of_metric
        .map(|change| Bar {
            label: match &change.to {
                Some(to) => format!("{} : {to}", change.arm),
                None => change.arm.clone(),
            },
            ink: match change.verdict {
                Verdict::Faster => Ink::Faster,
                Verdict::Slower => Ink::Slower,
                Verdict::Same | Verdict::Unknown => Ink::Quiet,
            },
            value: percent(change.factor),
            interval: change
                .interval
                .map(|Interval { low, high }| Interval { low: percent(low), high: percent(high) }),
        })
        .collect();
    if bars.is_empty() {
        return Ok(String::new());
    }
    Ok(figure("change since the earlier run, more is better", &plots::changes(&bars)?))
}

fn table(measurement: &Measurement, at: usize, metric: &Metric) -> String {
    let rows = measurement.arms.iter().map(|arm| {
        let summary = arm.figures[at].summary;
        let ratio = |role| {
            let texts = with_role(arm, at, role).map(|ratio| match role {
                Role::Peer => format!("{} of {}", ratio_text(ratio), ratio.to),
                Role::Limit | Role::Kernel => ratio_text(ratio),
            });
            texts.map(|text| escape(&text)).collect::<Vec<_>>().join("<br/>")
        };
        let (median, spread) = summary.map_or_else(
            || ("-".to_owned(), String::new()),
            |s| (number_text(s.median), format!("{} - {}", number_text(s.p10), number_text(s.p90))),
        );
        format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{median}</td><td>{spread}</td><td>{}</td><td>{}</td></tr>\n",
            escape(&arm.name),
            ratio(Role::Kernel),
            ratio(Role::Limit),
            ratio(Role::Peer),
            summary.map_or(0, |summary| summary.count),
            arm.rejected().0,
        )
    });
    format!(
        "<table><tr><th>arm</th><th>times the kernel</th><th>of the limit</th><th>times others</th><th>{}, {}</th>\
         <th>p10 - p90</th><th>rounds</th><th>rejected</th></tr>\n{}</table>",
        escape(&metric.name),
        escape(&metric.unit),
        rows.collect::<String>(),
    )
}

/// Tries that were thrown away, and why the last of them was.
fn rejected(measurement: &Measurement) -> String {
    let lines = measurement.arms.iter().filter_map(|arm| {
        let (count, why) = arm.rejected();
        Some(format!(
            "<p class=\"warning\">{}: {count} tries rejected, lastly: {}</p>\n",
            escape(&arm.name),
            escape(why?)
        ))
    });
    lines.collect()
}
