//! What many noisy rounds say: quantiles, and ratios of what was measured in the same round. Pure.

use serde::{Deserialize, Serialize};

/// Which way a value is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Time, memory.
    Less,
    /// Throughput.
    More,
}

/// Middle and spread of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Half of the values are below.
    pub median: f64,
    /// A tenth of the values is below.
    pub p10: f64,
    /// Nine tenths of the values are below.
    pub p90: f64,
    /// How many there were.
    pub count: usize,
}

impl Summary {
    /// `None` when there are no values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |q| quantile(&sorted, q);
        Some(Self { median: at(0.5)?, p10: at(0.1)?, p90: at(0.9)?, count: sorted.len() })
    }
}

/// The value below which `q` of the sorted values are, interpolated.
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let place = q * sorted.len().checked_sub(1)? as f64;
    let below = place.floor() as usize;
    let low = sorted.get(below)?;
    let high = sorted.get(below + 1).unwrap_or(low);
    Some(low + (high - low) * (place - place.floor()))
}

/// Where a value is, with a confidence of 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Not below this.
    pub low: f64,
    /// Not above this.
    pub high: f64,
}

/// How often an interval may be wrong at each of its ends.
const TAIL: f64 = 0.025;

/// Where the median is of what the values are a sample of: between the two values that the number of those below the true
/// median, which is binomial whatever the distribution, lets be its neighbours. Exact for few values, where a bootstrap
/// claims too much, and no outlier moves it. `None` for less than six values, which cannot say so much.
pub fn median_interval(values: &[f64]) -> Option<Interval> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    // From the chance that none is below up to that of one more than the interval leaves out.
    let mut chance = 0.5_f64.powi(i32::try_from(count).ok()?);
    let (mut sum, mut below) = (chance, 0);
    while sum <= TAIL {
        chance *= (count - below) as f64 / (below + 1) as f64;
        sum += chance;
        below += 1;
    }
    let outside = below.checked_sub(1)?;
    Some(Interval { low: sorted[outside], high: sorted[count - 1 - outside] })
}

/// By how much the values of one sample are greater than those of another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shift {
    /// The best guess.
    pub estimate: f64,
    /// Where the true one is; `None`: too few values to say.
    pub interval: Option<Interval>,
}

/// By how much `after` is greater than `before`: the median of all differences between one of each (Hodges and Lehmann),
/// with the interval of those shifts that Mann and Whitney's test does not refuse (Moses).
///
/// Not a bootstrap, because that is too sure of itself with the five to twenty-five rounds that there are, and needs
/// random numbers, so the same two files would not always say the same. This is exact for few values whatever their
/// distribution, and a round in which the machine did something else moves it no more than any other round does. It
/// asks that both samples be spread alike, which the same arm in two runs is, on the logarithms of ratios.
pub fn shift(before: &[f64], after: &[f64]) -> Option<Shift> {
    let mut differences: Vec<f64> =
        after.iter().flat_map(|after| before.iter().map(move |before| after - before)).collect();
    differences.sort_by(f64::total_cmp);
    let interval = refused_ranks(before.len(), after.len()).and_then(|refused| {
        let (low, high) = (differences.get(refused)?, differences.get(differences.len() - 1 - refused)?);
        Some(Interval { low: *low, high: *high })
    });
    Some(Shift { estimate: quantile(&differences, 0.5)?, interval })
}

/// How many of the smallest differences, and of the greatest, are outside of the interval: one more than the greatest U of
/// Mann and Whitney's test that is refused. `None`: none is.
fn refused_ranks(before: usize, after: usize) -> Option<usize> {
    /// Values of both samples up to which the distribution of U is counted out; beyond, it is normal to the last digit
    /// that matters.
    const EXACT: usize = 50;
    let (m, n) = (before as f64, after as f64);
    if before.max(after) > EXACT {
        const NORMAL: f64 = 1.959_964;
        return Some((m * n / 2.0 - NORMAL * (m * n * (m + n + 1.0) / 12.0).sqrt()).max(0.0) as usize);
    }
    let refused = counted_ranks(before, after);
    (refused > 0).then_some(refused)
}

/// Values of U, from the least, whose chances together are not above [`TAIL`].
fn counted_ranks(before: usize, after: usize) -> usize {
    let chances = distribution_of_u(before, after);
    let sums = chances.iter().scan(0.0, |sum, chance| {
        *sum += chance;
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= TAIL).count()
}

/// The chance of every U when both samples are of the same distribution. The greatest of all values is of the one sample or
/// of the other; without it, there is one less of those.
fn distribution_of_u(before: usize, after: usize) -> Vec<f64> {
    // By how many there are of `after`, for one number of `before`.
    let mut row: Vec<Vec<f64>> = vec![vec![1.0]; after + 1];
    for m in 1..=before {
        let mut next = vec![vec![1.0]];
        for n in 1..=after {
            let (of_after, of_before) = (n as f64 / (m + n) as f64, m as f64 / (m + n) as f64);
            let mut chances = vec![0.0; m * n + 1];
            for (u, chance) in next[n - 1].iter().enumerate() {
                // A greatest value of `after` is above all `m` of `before`.
                chances[u + m] += of_after * chance;
            }
            for (u, chance) in row[n].iter().enumerate() {
                chances[u] += of_before * chance;
            }
            next.push(chances);
        }
        row = next;
    }
    row.pop().unwrap_or_default()
}

/// How many times as good as `reference` the values are, round by round: 2 is twice as fast. Rounds that lack either
/// are left out, as are those without a ratio, of nothing to nothing.
pub fn ratios(values: &[Option<f64>], reference: &[Option<f64>], better: Better) -> Vec<f64> {
    let both = values.iter().zip(reference).filter_map(|(value, reference)| Some(((*value)?, (*reference)?)));
    both.map(|(value, reference)| match better {
        Better::Less => reference / value,
        Better::More => value / reference,
    })
    .filter(|ratio| ratio.is_finite())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_interpolate() {
        let values = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(quantile(&values, 0.0), Some(1.0));
        assert_eq!(quantile(&values, 0.5), Some(2.5));
        assert_eq!(quantile(&values, 1.0), Some(4.0));
        assert_eq!(quantile(&[7.0], 0.9), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn summary_does_not_depend_on_order_and_outliers() {
        let summary = Summary::of(&[9000.0, 5.0, 4.0, 6.0, 5.0]).unwrap();
        assert_eq!((summary.median, summary.count), (5.0, 5));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn ratios_are_of_the_same_round_and_above_one_for_the_better() {
        let (ours, reference) = ([Some(100.0), None, Some(50.0)], [Some(200.0), Some(1.0), Some(200.0)]);
        assert_eq!(ratios(&ours, &reference, Better::Less), [2.0, 4.0]);
        assert_eq!(ratios(&ours, &reference, Better::More), [0.5, 0.25]);
        assert_eq!(ratios(&[Some(0.0)], &[Some(0.0)], Better::More), [0.0; 0]);
    }

    /// The number of values and which one of them, from each end, is an end of the interval (tables of the sign test).
    #[test]
    fn interval_of_the_median_is_that_of_the_tables() {
        for (count, rank) in
            [(6, 1), (9, 2), (10, 2), (11, 2), (15, 4), (20, 6), (25, 8), (50, 18), (100, 40)]
        {
            let values: Vec<f64> = (1..=count).rev().map(f64::from).collect();
            let expected = Interval { low: f64::from(rank), high: f64::from(count + 1 - rank) };
            assert_eq!(median_interval(&values), Some(expected), "{count} values");
        }
        assert_eq!(median_interval(&[1.0; 5]), None);
        assert_eq!(median_interval(&[]), None);
    }

    /// The greatest U that is refused (tables of Mann and Whitney's test, two-sided, 5 %), and one more.
    #[test]
    fn refused_ranks_are_those_of_the_tables() {
        let tables = [
            ((4, 4), 0),
            ((5, 5), 2),
            ((5, 8), 6),
            ((8, 5), 6),
            ((10, 10), 23),
            ((20, 20), 127),
            ((2, 20), 2),
        ];
        for ((before, after), u) in tables {
            assert_eq!(refused_ranks(before, after), Some(u + 1), "{before} and {after} values");
        }
        assert_eq!(refused_ranks(3, 3), None);
    }

    #[test]
    fn the_normal_distribution_goes_on_where_counting_ends() {
        let exact = counted_ranks(60, 60);
        let normal = refused_ranks(60, 60).unwrap();
        assert!(exact.abs_diff(normal) <= 2, "{exact} {normal}");
    }

    #[test]
    fn shift_is_the_median_of_differences() {
        let shift = shift(&[1.0, 2.0, 3.0], &[11.0, 12.0, 13.0]).unwrap();
        assert_eq!(shift, Shift { estimate: 10.0, interval: None });
        assert_eq!(super::shift(&[], &[1.0]), None);
        let (before, after): (Vec<f64>, Vec<f64>) =
            (1..=5).map(|v| (f64::from(v), f64::from(v) + 10.0)).unzip();
        // 25 differences of 6 to 14; three are left out at each end.
        let interval = super::shift(&before, &after).unwrap().interval.unwrap();
        assert_eq!((interval.low, interval.high), (8.0, 12.0));
    }

    fn values() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(1.0..1e6, 1..30)
    }

    proptest! {
        #[test]
        fn quantiles_are_in_order_and_within_the_values(values in values()) {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let summary = Summary::of(&values).unwrap();
            prop_assert!(sorted[0] <= summary.p10 && summary.p10 <= summary.median);
            prop_assert!(summary.median <= summary.p90 && summary.p90 <= sorted[sorted.len() - 1]);
        }

        #[test]
        fn an_interval_holds_its_median(values in values()) {
            let median = Summary::of(&values).unwrap().median;
            if let Some(Interval { low, high }) = median_interval(&values) {
                prop_assert!(low <= median && median <= high);
            }
            prop_assert_eq!(median_interval(&values).is_some(), values.len() >= 6);
        }

        #[test]
        fn a_shift_is_found_and_its_opposite_the_other_way_round(before in values(), after in values()) {
            let (there, back) = (shift(&before, &after).unwrap(), shift(&after, &before).unwrap());
            prop_assert!((there.estimate + back.estimate).abs() <= 1e-6);
            prop_assert_eq!(there.interval.is_some(), back.interval.is_some());
            if let (Some(there), Some(back)) = (there.interval, back.interval) {
                prop_assert!((there.low + back.high).abs() <= 1e-6 && (there.high + back.low).abs() <= 1e-6);
            }
        }

        #[test]
        fn ratios_of_one_to_the_other_and_back_make_one(pairs in prop::collection::vec((1.0..1e6, 1.0..1e6), 1..60)) {
            let (ours, theirs): (Vec<_>, Vec<_>) = pairs.into_iter().map(|(a, b): (f64, f64)| (Some(a), Some(b))).unzip();
            for better in [Better::Less, Better::More] {
                let (there, back) = (ratios(&ours, &theirs, better), ratios(&theirs, &ours, better));
                prop_assert!(there.iter().zip(&back).all(|(there, back)| (there * back - 1.0).abs() < 1e-9));
            }
        }
    }

    /// Rounds as they are measured, skewed and with outliers: hardly any interval may leave out that nothing
    /// changed, and none that all is a tenth more.
    #[test]
    fn intervals_are_wrong_as_seldom_as_they_say() {
        let mut random = 1_u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 40) as f64 / (1 << 24) as f64
        };
        let mut rounds = |factor: f64| -> Vec<f64> {
            let mut one = || (1.0 + 0.05 * next() * next()) * if next() > 0.9 { 3.0 } else { 1.0 };
            (0..25).map(|_| (factor * one()).ln()).collect()
        };
        let (mut wrong, mut missed) = (0, 0);
        for _ in 0..300 {
            let before = rounds(1.0);
            let same = shift(&before, &rounds(1.0)).unwrap().interval.unwrap();
            wrong += u32::from(same.low > 0.0 || same.high < 0.0);
            let more = shift(&before, &rounds(1.1)).unwrap().interval.unwrap();
            missed += u32::from(more.low <= 0.0);
        }
        assert!((3..=30).contains(&wrong), "{wrong} of 300");
        assert_eq!(missed, 0);
    }
}
