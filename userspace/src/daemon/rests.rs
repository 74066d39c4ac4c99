//! When XDP on a TAP costs more than it saves, and rests. Pure: time comes in as an argument.
//!
//! The kernel copies a frame that is longer than a page before it asks XDP, which can only leave it to TC: such a frame is
//! to be cut into segments. What XDP saves, it saves on small frames. While a VM sends so many long ones that
//! the copies cost more, XDP is taken off its TAP, and TC, which judges and forwards all the same, does everything. Nobody
//! counts what is not copied, so after a while XDP is put back to see.

use dataplane_ebpf::abi::COPIES_PER_EVENT;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Frames that XDP has to finish for each that is copied, to be worth it: copying 64 KiB takes some 10 µs, and a small
/// frame takes 0.6 µs less by XDP than by TC.
const WORTH: u64 = 16;
/// Frames copied within [`WINDOW`] before anything is done: fewer cost next to nothing.
const LEAST: u64 = 2 * COPIES_PER_EVENT as u64;
/// How long copies are added up.
const WINDOW: Duration = Duration::from_secs(1);
/// How long XDP rests before it is tried again.
const REST: Duration = Duration::from_secs(10);

/// The TAPs whose VMs send long frames, by ifindex.
#[derive(Debug, Default)]
pub struct Rests {
    taps: BTreeMap<u32, Tap>,
}

#[derive(Clone, Copy, Debug)]
enum Tap {
    /// XDP is on, and the kernel copies.
    Copying {
        /// When the first copy was told of,
        since: Instant,
        /// what XDP had finished by then,
        finished: u64,
        /// and how many were copied since.
        copied: u64,
    },
    /// XDP is off.
    Resting { until: Instant },
}

impl Rests {
    /// The kernel told of a copy, which stands for [`COPIES_PER_EVENT`]. `finished`: frames that XDP has finished on this TAP
    /// so far. Whether it shall rest from now on.
    pub fn copied(&mut self, ifindex: u32, finished: u64, now: Instant) -> bool {
        let afresh = Tap::Copying { since: now, finished, copied: 0 };
        let Some(tap) = self.taps.get_mut(&ifindex) else {
            self.taps.insert(ifindex, afresh);
            return false;
        };
        match tap {
            // Told before XDP was off.
            Tap::Resting { .. } => false,
            Tap::Copying { since, .. } if now.duration_since(*since) > WINDOW => {
                *tap = afresh;
                false
            }
            Tap::Copying { finished: before, copied, .. } => {
                *copied += u64::from(COPIES_PER_EVENT);
                let saved = finished.saturating_sub(*before);
                let rests = *copied >= LEAST && saved < *copied * WORTH;
                if rests {
                    *tap = Tap::Resting { until: now + REST };
                }
                rests
            }
        }
    }

    /// TAPs whose rest has ended. They are forgotten.
    pub fn ended(&mut self, now: Instant) -> Vec<u32> {
        let over = |_: &u32, tap: &mut Tap| matches!(tap, Tap::Resting { until } if *until <= now);
        self.taps.extract_if(.., over).map(|(ifindex, _)| ifindex).collect()
    }

    /// When the next rest ends.
    pub fn wake(&self) -> Option<Instant> {
        let until = |tap: &Tap| match tap {
            Tap::Resting { until } => Some(*until),
            Tap::Copying { .. } => None,
        };
        self.taps.values().filter_map(until).min()
    }

    /// The TAP is gone, or another.
    pub fn forget(&mut self, ifindex: u32) {
        self.taps.remove(&ifindex);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAP: u32 = 7;
    const SOON: Duration = Duration::from_millis(100);

    /// What comes of copies that are told of at an interval, while XDP finishes so many frames in between.
    fn told(
        rests: &mut Rests,
        copies: usize,
        every: Duration,
        finished: u64,
        start: Instant,
    ) -> Option<Instant> {
        let mut now = start;
        let mut sum = 0;
        for _ in 0..copies {
            if rests.copied(TAP, sum, now) {
                return Some(now);
            }
            now += every;
            sum += finished;
        }
        None
    }

    #[test]
    fn xdp_rests_while_long_frames_come_and_is_tried_again() {
        let (mut rests, start) = (Rests::default(), Instant::now());
        let at = told(&mut rests, 10, SOON, 100, start).expect("rests");
        assert_eq!(at, start + 2 * SOON, "as soon as two intervals are full");
        assert!(!rests.copied(TAP, 0, at), "what was told before it took effect");
        assert_eq!(rests.wake(), Some(at + REST));
        assert!(rests.ended(at + REST - SOON).is_empty());
        assert_eq!(rests.ended(at + REST), [TAP]);
        assert_eq!(rests.wake(), None);
        assert!(told(&mut rests, 10, SOON, 100, at + REST).is_some(), "they still come");
    }

    #[test]
    fn xdp_goes_on_when_it_is_worth_the_copies() {
        let finished = WORTH * u64::from(COPIES_PER_EVENT);
        let (mut rests, start) = (Rests::default(), Instant::now());
        assert_eq!(told(&mut rests, 100, SOON, finished, start), None);
        assert!(told(&mut rests, 100, SOON, finished / 2, start + 100 * SOON).is_some());
    }

    #[test]
    fn a_few_long_frames_now_and_then_are_nothing() {
        let (mut rests, start) = (Rests::default(), Instant::now());
        assert_eq!(told(&mut rests, 100, Duration::from_millis(600), 0, start), None);
    }

    #[test]
    fn a_tap_that_is_gone_is_forgotten() {
        let (mut rests, start) = (Rests::default(), Instant::now());
        assert!(told(&mut rests, 10, SOON, 0, start).is_some());
        rests.forget(TAP);
        assert_eq!(rests.wake(), None);
    }
}
