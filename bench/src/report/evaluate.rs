//! What the rounds of a measurement say.

use super::schema::{Arm, Figure, Measurement, Metric, Ratio, Role};
use super::{Outcome, Series};
use crate::statistics::{Better, Summary, median_interval, ratios};

/// The measurement with its medians and ratios.
pub fn measurement(outcome: Outcome) -> Measurement {
    let Outcome { name, title, metrics, arms: series } = outcome;
    let own = |metric: &super::Metric| Metric {
        name: metric.name.to_owned(),
        unit: metric.unit.to_owned(),
        better: metric.better,
    };
    let metrics: Vec<Metric> = metrics.iter().map(own).collect();
    let mut arms: Vec<Arm> = series.into_iter().map(arm).collect();
    let figures: Vec<Vec<Figure>> = arms
        .iter()
        .map(|arm| metrics.iter().enumerate().map(|(at, metric)| figure(&arms, arm, at, metric)).collect())
        .collect();
    for (arm, figures) in arms.iter_mut().zip(figures) {
        arm.figures = figures;
    }
    Measurement { name, title, metrics, arms }
}

fn arm(Series { arm, limit, kernel, size, rounds }: Series) -> Arm {
    Arm { name: arm, limit, kernel, size, figures: Vec::new(), rounds }
}

fn figure(arms: &[Arm], arm: &Arm, at: usize, metric: &Metric) -> Figure {
    let values: Vec<f64> = arm.values(at).into_iter().flatten().collect();
    let ratio = |other: &Arm| ratio(arm, other, role(arms, arm, other)?, at, metric.better);
    Figure { summary: Summary::of(&values), ratios: arms.iter().filter_map(ratio).collect() }
}

/// What `other` is to `arm`, if they are to be compared.
fn role(arms: &[Arm], arm: &Arm, other: &Arm) -> Option<Role> {
    if other.name == arm.name {
        return None;
    }
    if arm.limit.as_ref() == Some(&other.name) {
        return Some(Role::Limit);
    }
    if arm.kernel == other.name {
        return Some(Role::Kernel);
    }
    let is_limit = arms.iter().any(|arm| arm.limit.as_ref() == Some(&other.name));
    let peer = arm.limit.is_some() && other.limit.is_none() && !is_limit && arm.kernel == other.kernel;
    peer.then_some(Role::Peer)
}

fn ratio(arm: &Arm, other: &Arm, role: Role, metric: usize, better: Better) -> Option<Ratio> {
    let ratios = ratios(&arm.values(metric), &other.values(metric), better);
    let summary = Summary::of(&ratios)?;
    Some(Ratio { to: other.name.clone(), role, summary, interval: median_interval(&ratios) })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{outcome, series};
    use super::*;

    fn to<'f>(figure: &'f Figure, name: &str) -> Option<&'f Ratio> {
        figure.ratios.iter().find(|ratio| ratio.to == name)
    }

    #[test]
    fn ratios_leave_out_rounds_that_one_arm_lacks() {
        let measurement = measurement(outcome());
        let ratio = to(&measurement.arms[0].figures[0], "bare").unwrap();
        assert!((ratio.summary.median - 0.85).abs() < 1e-9, "{ratio:?}");
        assert_eq!((ratio.summary.count, ratio.role, ratio.interval), (2, Role::Limit, None));
    }

    #[test]
    fn ours_are_compared_with_everybody_and_others_with_the_kernel() {
        let measurement = measurement(outcome());
        let roles = |at: usize| {
            let ratios = &measurement.arms[at].figures[0].ratios;
            ratios.iter().map(|ratio| (ratio.to.as_str(), ratio.role)).collect::<Vec<_>>()
        };
        assert_eq!(roles(0), [("bare", Role::Limit), ("kernel", Role::Kernel), ("peer & <co>", Role::Peer)]);
        assert_eq!(roles(1), [("kernel", Role::Kernel)]);
        assert_eq!(roles(2), []);
        assert_eq!(roles(3), [("kernel", Role::Kernel)]);
    }

    #[test]
    fn who_does_other_work_is_not_a_peer() {
        let mut outcome = outcome();
        outcome.arms[3].kernel = "kernel with rules".to_owned();
        assert_eq!(to(&measurement(outcome).arms[0].figures[0], "peer & <co>"), None);
    }

    #[test]
    fn an_arm_without_a_valid_round_has_no_figures() {
        let mut outcome = outcome();
        outcome.arms[0] = series("serval", Some("bare"), &[None]);
        assert_eq!(measurement(outcome).arms[0].figures, [Figure { summary: None, ratios: Vec::new() }]);
    }
}
