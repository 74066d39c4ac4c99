//! The proof that a round's frames went the way they should have: by the hook that is measured, and asked about by policy
//! or not.

use super::wire::Between;
use anyhow::Result;

/// Of a hundred frames of a known flow, those that policy may be asked about.
const ASKED_PERCENT: u64 = 1;

/// What policy is asked about the frames of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nothing: they belong to flows that are known.
    Known,
    /// Each begins a flow.
    New,
}

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
    pub fn wrong(
        &self,
        between: &impl Between,
        frames: u64,
        enough: u64,
        flows: Asked,
    ) -> Result<Option<String>> {
        if let Some(wrong) = self.not_sent_on(between, frames, enough)? {
            return Ok(Some(wrong));
        }
        let (Some(before), Some(after)) = (self.judged, between.judged()?) else { return Ok(None) };
        let asked = after - before;
        let right = match flows {
            Asked::Known => asked * 100 <= frames * ASKED_PERCENT,
            Asked::New => asked >= enough,
        };
        Ok((!right).then(|| format!("policy was asked about {asked} of {frames}")))
    }

    /// As [`Self::wrong`], whatever policy was asked.
    pub fn not_sent_on(&self, between: &impl Between, frames: u64, enough: u64) -> Result<Option<String>> {
        let (Some(before), Some(after)) = (self.sent_on, between.sent_on()?) else { return Ok(None) };
        let sent_on = after - before;
        Ok((sent_on < enough).then(|| format!("the hook sent on {sent_on} of {frames}")))
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

    fn wrong(sent_on: u64, judged: u64, flows: Asked) -> Option<String> {
        let counts = Counts::default();
        let tally = Tally::take(&counts).unwrap();
        counts.0[0].store(sent_on, Ordering::Relaxed);
        counts.0[1].store(judged, Ordering::Relaxed);
        tally.wrong(&counts, 1000, 990, flows).unwrap()
    }

    #[test]
    fn a_round_counts_when_its_frames_went_by_the_hook_and_policy_was_asked_as_it_should_be() {
        assert_eq!(wrong(990, 10, Asked::Known), None);
        assert_eq!(wrong(990, 990, Asked::New), None);
        assert!(wrong(989, 0, Asked::Known).unwrap().contains("989 of 1000"));
        assert!(wrong(1000, 11, Asked::Known).unwrap().contains("policy was asked about 11"));
        assert!(wrong(1000, 989, Asked::New).unwrap().contains("policy was asked about 989"));
    }
}
