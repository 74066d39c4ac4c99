//! What changed between two runs: in the ratios of arms to the limit of their hook and to the kernel, which a machine that
//! was faster or busier in one of them does not change. Absolute values are compared only where there is no such arm.

use super::schema::{Arm, Change, Comparison, Environment, Measurement, Metric, Role, Run, Verdict};
use crate::statistics::{Better, Interval, Shift, Summary, ratios, shift};

/// What changed from `before`, which was read from `file`, to `after`.
pub fn compare(file: &str, before: &Run, after: &Run) -> Comparison {
    let pairs = after.measurements.iter().filter_map(|later| {
        let earlier = before.measurements.iter().find(|earlier| earlier.name == later.name)?;
        Some((earlier, later))
    });
    Comparison {
        file: file.to_owned(),
        environment: before.environment.clone(),
        differences: differences(before, after),
        changes: pairs.clone().flat_map(|(earlier, later)| changes(earlier, later)).collect(),
        unmatched: pairs.flat_map(|(earlier, later)| unmatched(earlier, later)).collect(),
    }
}

fn differences(before: &Run, after: &Run) -> Vec<String> {
    let length = |run: &Run| if run.quick { "quick" } else { "full" }.to_owned();
    let of = |environment: &Environment| {
        let Environment { kernel, cpu, cpus, compiler, linker, .. } = environment.clone();
        [
            ("kernel", kernel),
            ("CPU", cpu),
            ("CPUs", cpus.to_string()),
            ("compiler", compiler),
            ("linker", linker),
        ]
    };
    let pairs = of(&before.environment).into_iter().zip(of(&after.environment));
    let pairs = pairs.map(|((what, before), (_, after))| (what, before, after));
    let pairs = pairs.chain([("rounds", length(before), length(after))]);
    let differ = pairs.filter(|(_, before, after)| before != after);
    differ.map(|(what, before, after)| format!("{what}: {before} then, {after} now")).collect()
}

fn changes(before: &Measurement, after: &Measurement) -> Vec<Change> {
    let mut changes = Vec::new();
    for metric in &after.metrics {
        let (Some(before), Some(after)) = (Of::new(before, metric), Of::new(after, metric)) else { continue };
        for arm in &after.measurement.arms {
            changes
                .extend(after.references(arm).into_iter().filter_map(|to| change(&before, &after, arm, to)));
        }
    }
    changes
}

/// One metric of a measurement.
struct Of<'m> {
    measurement: &'m Measurement,
    metric: &'m Metric,
    /// Its place among the others.
    at: usize,
}

impl<'m> Of<'m> {
    /// The metric of this name and unit, if the measurement has it.
    fn new(measurement: &'m Measurement, metric: &'m Metric) -> Option<Self> {
        let at = measurement.metrics.iter().position(|other| other == metric)?;
        Some(Self { measurement, metric, at })
    }

    fn arm(&self, name: &str) -> Option<&'m Arm> {
        self.measurement.arms.iter().find(|arm| arm.name == name)
    }

    /// What the ratios are to that are compared; `None`: there are none at all, and values are compared. The kernel, which
    /// the others are measured by, is not compared.
    fn references(&self, arm: &'m Arm) -> Vec<Option<&'m str>> {
        let ratios = |arm: &'m Arm| &arm.figures[self.at].ratios;
        if self.measurement.arms.iter().all(|arm| ratios(arm).is_empty()) {
            return vec![None];
        }
        let references = ratios(arm).iter().filter(|ratio| ratio.role != Role::Peer);
        references.map(|ratio| Some(ratio.to.as_str())).collect()
    }

    /// What each round says of an arm: how many times as good as the other it is, or its value.
    fn rounds(&self, arm: &Arm, to: Option<&str>) -> Option<Vec<f64>> {
        let values = arm.values(self.at);
        match to {
            Some(to) => Some(ratios(&values, &self.arm(to)?.values(self.at), self.metric.better)),
            None => Some(values.into_iter().flatten().collect()),
        }
    }
}

fn change(before: &Of<'_>, after: &Of<'_>, arm: &Arm, to: Option<&str>) -> Option<Change> {
    let earlier = before.rounds(before.arm(&arm.name)?, to)?;
    let later = after.rounds(arm, to)?;
    let (medians, metric) = ((Summary::of(&earlier)?.median, Summary::of(&later)?.median), after.metric);
    // Logarithms make factors of differences, so that twice is as far from the same as half.
    let logarithms = |rounds: Vec<f64>| -> Vec<f64> {
        let sign = if to.is_none() && metric.better == Better::Less { -1.0 } else { 1.0 };
        rounds.into_iter().filter(|round| *round > 0.0).map(|round| sign * round.ln()).collect()
    };
    let Shift { estimate, interval } = shift(&logarithms(earlier), &logarithms(later))?;
    let interval = interval.map(|Interval { low, high }| Interval { low: low.exp(), high: high.exp() });
    Some(Change {
        measurement: after.measurement.name.clone(),
        metric: metric.name.clone(),
        arm: arm.name.clone(),
        to: to.map(str::to_owned),
        before: medians.0,
        after: medians.1,
        factor: estimate.exp(),
        interval,
        verdict: verdict(interval),
    })
}

/// A change that may be none is none.
fn verdict(interval: Option<Interval>) -> Verdict {
    match interval {
        None => Verdict::Unknown,
        Some(Interval { low, .. }) if low > 1.0 => Verdict::Faster,
        Some(Interval { high, .. }) if high < 1.0 => Verdict::Slower,
        Some(_) => Verdict::Same,
    }
}

fn unmatched(before: &Measurement, after: &Measurement) -> Vec<String> {
    let only = |arms: &Measurement, others: &Measurement, when: &str| -> Vec<String> {
        let lacks = |arm: &&Arm| others.arms.iter().all(|other| other.name != arm.name);
        let arms = arms.arms.iter().filter(lacks);
        arms.map(|arm| format!("{}: {} ({when})", after.name, arm.name)).collect()
    };
    [only(before, after, "only then"), only(after, before, "only now")].concat()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{outcome, run, series};
    use super::super::{KERNEL, measurement};
    use super::*;

    /// A run in which ours takes these times, and the kernel twice the middle of them, on a machine of this speed.
    fn taking(times: [f64; 6], speed: f64) -> Run {
        let rounds = |times: [f64; 6]| times.map(|time| Some(time / speed));
        let arms = vec![series("serval", None, &rounds(times)), series(KERNEL, None, &rounds([200.0; 6]))];
        let mut outcome = outcome();
        outcome.arms = arms;
        Run { measurements: vec![measurement(outcome)], ..run() }
    }

    const TIMES: [f64; 6] = [98.0, 99.0, 100.0, 100.0, 101.0, 102.0];

    fn only(before: &Run, after: &Run) -> Change {
        let mut changes = compare("before.json", before, after).changes;
        assert_eq!(changes.len(), 1, "{changes:?}");
        changes.remove(0)
    }

    #[test]
    fn a_faster_machine_changes_nothing() {
        let change = only(&taking(TIMES, 1.0), &taking(TIMES, 2.0));
        assert_eq!((change.verdict, change.to.as_deref()), (Verdict::Same, Some(KERNEL)));
        assert!((change.factor - 1.0).abs() < 0.02 && (change.before - 2.0).abs() < 0.01, "{change:?}");
    }

    #[test]
    fn less_time_is_faster_and_more_is_slower() {
        let (slow, fast) = (taking(TIMES, 1.0), taking(TIMES.map(|time| time * 0.8), 1.0));
        let faster = only(&slow, &fast);
        assert_eq!(faster.verdict, Verdict::Faster);
        assert!((faster.factor - 1.25).abs() < 0.02, "{faster:?}");
        let slower = only(&fast, &slow);
        assert_eq!(slower.verdict, Verdict::Slower);
        assert!(slower.interval.is_some_and(|interval| interval.low < 0.8 && 0.8 < interval.high));
    }

    #[test]
    fn without_a_reference_values_are_compared() {
        let alone = |factor: f64| {
            let mut run = taking(TIMES.map(|time| time * factor), 1.0);
            run.measurements[0].arms.truncate(1);
            run.measurements[0].arms[0].figures[0].ratios.clear();
            run
        };
        let change = only(&alone(1.0), &alone(2.0));
        assert_eq!((change.verdict, change.to, change.before), (Verdict::Slower, None, 100.0));
        assert!((change.factor - 0.5).abs() < 0.01);
    }

    #[test]
    fn few_rounds_tell_nothing() {
        let mut few = taking(TIMES, 1.0);
        few.measurements[0].arms.iter_mut().for_each(|arm| arm.rounds.truncate(2));
        assert_eq!(only(&few, &few).verdict, Verdict::Unknown);
    }

    #[test]
    fn what_is_not_in_both_is_named() {
        let (before, mut after) = (run(), run());
        after.measurements[0].arms[3].name = "another".to_owned();
        after.environment.kernel = "6.19.0".to_owned();
        after.quick = true;
        let comparison = compare("before.json", &before, &after);
        assert_eq!(comparison.unmatched, ["packets: peer & <co> (only then)", "packets: another (only now)"]);
        assert_eq!(
            comparison.differences,
            ["kernel: 6.18.0 then, 6.19.0 now", "rounds: full then, quick now"]
        );
        after.measurements[0].name = "other".to_owned();
        assert_eq!(compare("before.json", &before, &after).changes, []);
    }
}
