//! What many noisy rounds say: quantiles, and ratios of what was measured in the same round. Pure.

use serde::Serialize;

/// Which way a value is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Time, memory.
    Less,
    /// Throughput.
    More,
}

/// Middle and spread of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
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
}
