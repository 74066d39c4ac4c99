//! When the next advertisement of one endpoint is due (RFC 4861 section 6.2.4), and how long its guest's route lasts.
//!
//! Time and chance are passed in. Two deviations from RFC 4861, both because a TAP has one VM behind it and not a shared
//! link: a changed advertisement is sent at once, without the 3 s that keep multicast advertisements apart, and a
//! solicitation is answered without random delay.
//!
//! There is no final advertisement of lifetime 0: the daemon may stop, the router (kernel and fast path) does not.

use super::{max_interval, min_interval};
use std::time::{Duration, Instant};

/// `MAX_INITIAL_RTR_ADVERTISEMENTS`.
const INITIAL_ADVERTISEMENTS: u8 = 3;
/// `MAX_INITIAL_RTR_ADVERT_INTERVAL`.
const INITIAL_INTERVAL: Duration = Duration::from_secs(16);
/// `MIN_DELAY_BETWEEN_RAS`.
const MULTICAST_GAP: Duration = Duration::from_secs(3);
/// How soon a send that failed (interface down, queue full) is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The advertisements of one endpoint.
#[derive(Clone, Debug)]
pub struct Schedule {
    router_lifetime: u16,
    due: Option<Instant>,
    initial_left: u8,
    last_multicast: Option<Instant>,
    route_expires: Option<Instant>,
}

impl Schedule {
    /// An endpoint that was just attached; `listening` when its TAP is up and has a carrier.
    pub fn new(router_lifetime: u16, listening: bool, now: Instant) -> Self {
        let mut schedule =
            Self { router_lifetime, due: None, initial_left: 0, last_multicast: None, route_expires: None };
        if listening {
            schedule.start(now);
        }
        schedule
    }

    /// Whether the TAP is up and has a carrier. Coming up starts anew, as another guest may have taken the TAP; without
    /// a listener nothing is sent, but a guest that lost its carrier for a moment still counts its route down.
    pub fn set_listening(&mut self, listening: bool, now: Instant) {
        match (listening, self.due) {
            (true, None) => self.start(now),
            (false, Some(_)) => self.due = None,
            _ => {}
        }
    }

    /// What the advertisement says has changed: the guest hears of it at once.
    pub fn set_changed(&mut self, router_lifetime: u16, now: Instant) {
        self.router_lifetime = router_lifetime;
        if self.due.is_some() {
            self.start(now);
        }
    }

    /// A solicitation that can only be answered by multicast came in. Such answers are 3 s apart (RFC 4861 section
    /// 6.2.6).
    pub fn solicited(&mut self, now: Instant) {
        let earliest = self.last_multicast.map_or(now, |last| now.max(last + MULTICAST_GAP));
        self.due = self.due.map(|due| due.min(earliest));
    }

    /// When the next advertisement is to be sent; `None` while nobody listens.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// It was sent to all nodes. `chance` in 0..1 spreads the next one over its interval, so that the endpoints of a host
    /// don't fall into step.
    pub fn sent(&mut self, now: Instant, chance: f64) {
        let max = max_interval(self.router_lifetime);
        let min = min_interval(max);
        let mut wait = min + (max - min).mul_f64(chance.clamp(0.0, 1.0));
        self.initial_left = self.initial_left.saturating_sub(1);
        if self.initial_left > 0 {
            wait = wait.min(INITIAL_INTERVAL);
        }
        self.due = Some(now + wait);
        self.last_multicast = Some(now);
        self.answered(now);
    }

    /// It was sent to the guest's own address, out of turn.
    pub fn answered(&mut self, now: Instant) {
        self.route_expires = Some(now + Duration::from_secs(self.router_lifetime.into()));
    }

    /// It could not be sent.
    pub fn failed(&mut self, now: Instant) {
        self.due = Some(now + RETRY);
    }

    /// Seconds until the guest's default route expires if no further advertisement reaches it; `None` before the first.
    /// Answers of the hooks are not seen here, so the guest may have longer.
    pub fn seconds_left(&self, now: Instant) -> Option<u64> {
        self.route_expires.map(|expires| expires.saturating_duration_since(now).as_secs())
    }

    fn start(&mut self, now: Instant) {
        self.due = Some(now);
        self.initial_left = INITIAL_ADVERTISEMENTS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn three_soon_and_then_within_the_interval() {
        let start = Instant::now();
        let mut schedule = Schedule::new(9000, true, start);
        assert_eq!(schedule.due(), Some(start));
        schedule.sent(start, 0.0);
        assert_eq!(schedule.due(), Some(start + seconds(16)));
        schedule.sent(start + seconds(16), 0.9);
        assert_eq!(schedule.due(), Some(start + seconds(32)));
        schedule.sent(start + seconds(32), 0.0);
        assert_eq!(schedule.due(), Some(start + seconds(32 + 200)));
        schedule.sent(start + seconds(232), 0.5);
        assert_eq!(schedule.due(), Some(start + seconds(232 + 400)));
    }

    #[test]
    fn silent_without_a_listener_and_anew_with_one() {
        let start = Instant::now();
        let mut schedule = Schedule::new(9000, false, start);
        assert_eq!((schedule.due(), schedule.seconds_left(start)), (None, None));
        schedule.set_changed(1800, start);
        assert_eq!(schedule.due(), None);
        schedule.set_listening(true, start + seconds(5));
        assert_eq!(schedule.due(), Some(start + seconds(5)));
        schedule.sent(start + seconds(5), 0.0);
        schedule.set_listening(true, start + seconds(6));
        assert_eq!(schedule.due(), Some(start + seconds(21)), "still up is no news");
        schedule.set_listening(false, start + seconds(7));
        assert_eq!(schedule.due(), None);
        assert_eq!(schedule.seconds_left(start + seconds(7)), Some(1798));
        schedule.set_listening(true, start + seconds(8));
        assert_eq!(schedule.due(), Some(start + seconds(8)));
    }

    #[test]
    fn a_change_is_sent_at_once_and_repeated_soon() {
        let start = Instant::now();
        let mut schedule = Schedule::new(9000, true, start);
        for n in 0..5 {
            schedule.sent(start + seconds(n), 1.0);
        }
        schedule.set_changed(30, start + seconds(5));
        assert_eq!(schedule.due(), Some(start + seconds(5)));
        schedule.sent(start + seconds(5), 1.0);
        assert_eq!(schedule.due(), Some(start + seconds(15)));
        assert_eq!(schedule.seconds_left(start + seconds(7)), Some(28));
        assert_eq!(schedule.seconds_left(start + seconds(70)), Some(0));
    }

    #[test]
    fn multicast_answers_are_three_seconds_apart() {
        let start = Instant::now();
        let mut schedule = Schedule::new(9000, true, start);
        for n in 0..4 {
            schedule.sent(start + seconds(n), 1.0);
        }
        schedule.solicited(start + seconds(4));
        assert_eq!(schedule.due(), Some(start + seconds(6)));
        schedule.solicited(start + seconds(5));
        assert_eq!(schedule.due(), Some(start + seconds(6)));
        schedule.sent(start + seconds(6), 1.0);
        schedule.solicited(start + seconds(60));
        assert_eq!(schedule.due(), Some(start + seconds(60)));
    }

    #[test]
    fn an_answer_prolongs_the_route_and_changes_no_turn() {
        let start = Instant::now();
        let mut schedule = Schedule::new(9000, true, start);
        schedule.sent(start, 0.0);
        let due = schedule.due();
        schedule.answered(start + seconds(10));
        assert_eq!(schedule.due(), due);
        assert_eq!(schedule.seconds_left(start + seconds(11)), Some(8999));
    }

    #[test]
    fn a_failure_is_retried_soon() {
        let start = Instant::now();
        let mut schedule = Schedule::new(9000, true, start);
        schedule.failed(start);
        assert_eq!(schedule.due(), Some(start + RETRY));
        assert_eq!(schedule.seconds_left(start), None);
        schedule.sent(start + RETRY, 1.0);
        assert_eq!(schedule.due(), Some(start + RETRY + INITIAL_INTERVAL));
    }

    proptest! {
        /// Two advertisements in a row may be lost and the route is still there when the third is due.
        #[test]
        fn no_route_expires(router_lifetime in 12u16.., chances in proptest::collection::vec(0.0..1.0f64, 3..50)) {
            let start = Instant::now();
            let mut schedule = Schedule::new(router_lifetime, true, start);
            let mut sent = vec![];
            for chance in chances {
                let now = schedule.due().unwrap();
                schedule.sent(now, chance);
                sent.push(now);
                let wait = schedule.due().unwrap() - now;
                prop_assert!(wait >= seconds(3) && wait <= seconds(600));
            }
            for three in sent.windows(3) {
                prop_assert!(three[2] - three[0] < seconds(router_lifetime.into()));
            }
        }
    }
}
