//! The proof that a round's frames went the way they should have: by the hook that is measured, as frames of a flow that is
//! known.

use super::wire::Between;
use anyhow::Result;

/// Of a hundred frames of a known flow, those that policy may be asked about.
const ASKED_PERCENT: u64 = 1;

/// What was counted before a round.
pub struct Tally {
    sent_on: Option<u64>,
    judged: Option<u64>,
}

impl Tally {
    /// Reads the counters.
    pub fn take(between: &impl Between) -> Result<Self> {
        Ok(Self { sent_on: between.sent_on()?, judged: between.judged()? })
    }

    /// Reads them again, after `frames` frames of which at least `enough` must have been sent on. What was wrong, if
    /// anything was.
    pub fn wrong(&self, between: &impl Between, frames: u64, enough: u64) -> Result<Option<String>> {
        let now = Self::take(between)?;
        if let (Some(before), Some(after)) = (self.sent_on, now.sent_on)
            && after - before < enough
        {
            return Ok(Some(format!("the hook sent on {} of {frames}", after - before)));
        }
        let (Some(before), Some(after)) = (self.judged, now.judged) else { return Ok(None) };
        let asked = after - before;
        Ok((asked * 100 > frames * ASKED_PERCENT)
            .then(|| format!("policy was asked about {asked} of {frames}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Counts as far as it is told.
    #[derive(Default)]
    struct Counts([AtomicU64; 2]);

    impl Between for Counts {
        fn sent_on(&self) -> Result<Option<u64>> {
            Ok(Some(self.0[0].load(Ordering::Relaxed)))
        }

        fn judged(&self) -> Result<Option<u64>> {
            Ok(Some(self.0[1].load(Ordering::Relaxed)))
        }
    }

    fn wrong(sent_on: u64, judged: u64) -> Option<String> {
        let counts = Counts::default();
        let tally = Tally::take(&counts).unwrap();
        counts.0[0].store(sent_on, Ordering::Relaxed);
        counts.0[1].store(judged, Ordering::Relaxed);
        tally.wrong(&counts, 1000, 990).unwrap()
    }

    #[test]
    fn a_round_counts_when_its_frames_went_by_the_hook_and_belonged_to_a_known_flow() {
        assert_eq!(wrong(990, 10), None);
        assert!(wrong(989, 0).unwrap().contains("989 of 1000"));
        assert!(wrong(1000, 11).unwrap().contains("policy was asked about 11"));
    }
}
