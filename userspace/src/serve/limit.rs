//! A token bucket: how many answers one VM may cause, so that its flood does not keep the daemon from the others.

use std::time::{Duration, Instant};

/// Answers a second in the long run.
const RATE: u32 = 20;
/// Answers at once.
const BURST: u32 = 50;

/// Fills with time up to [`BURST`] answers.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// When the bucket was, or will be, empty.
    empty: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn new(now: Instant) -> Self {
        Self { empty: now.checked_sub(full()).unwrap_or(now) }
    }

    /// Takes one answer out of it; `false` when there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        let empty = self.empty.max(now.checked_sub(full()).unwrap_or(self.empty)) + cost();
        let allowed = empty <= now;
        if allowed {
            self.empty = empty;
        }
        allowed
    }
}

fn cost() -> Duration {
    Duration::from_secs(1) / RATE
}

fn full() -> Duration {
    cost() * BURST
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bucket: &mut Bucket, now: Instant) -> usize {
        (0..1000).filter(|_| bucket.take(now)).count()
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Instant::now() + Duration::from_secs(1000);
        let mut bucket = Bucket::new(start);
        assert_eq!(taken(&mut bucket, start), 50);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(49)), 0);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(50)), 1);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(1050)), 20);
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(3600)), 50);
    }
}
