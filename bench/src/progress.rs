//! How far a benchmark is, and how long the rest will take: on a terminal as a bar, elsewhere as a line now and then.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// Time between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(30);

/// What is shown of rounds that arms do in turn.
pub struct Progress {
    name: String,
    bar: ProgressBar,
    pace: Pace,
    told: Instant,
}

impl Progress {
    /// Of `arms` arms that will do `rounds` rounds each.
    pub fn new(name: &str, arms: usize, rounds: usize) -> Self {
        let template = "{prefix:10} {bar:30} {pos}/{len}{msg}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new((arms * rounds) as u64).with_style(style).with_prefix(name.to_owned());
        Self { name: name.to_owned(), bar, pace: Pace::new(arms, rounds), told: Instant::now() }
    }

    /// A round of this arm begins.
    pub fn begin(&mut self, arm: &str) {
        let left = self.pace.left().map_or_else(String::new, |left| format!(", {} left", text(left)));
        if self.bar.is_hidden() && self.told.elapsed() > PAUSE {
            eprintln!("{}: {} of {} rounds done{left}", self.name, self.bar.position(), self.pace.all());
            self.told = Instant::now();
        }
        self.bar.set_message(format!("{left}: {arm}"));
    }

    /// It took so long.
    pub fn done(&mut self, arm: usize, time: Duration) {
        self.pace.done(arm, time);
        self.bar.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// How long rounds took, by arm: one may take many times as long as another.
struct Pace {
    rounds: u32,
    arms: Vec<Spent>,
}

#[derive(Clone, Default)]
struct Spent {
    rounds: u32,
    time: Duration,
}

impl Pace {
    fn new(arms: usize, rounds: usize) -> Self {
        Self { rounds: u32::try_from(rounds).unwrap_or(u32::MAX), arms: vec![Spent::default(); arms] }
    }

    fn all(&self) -> usize {
        self.arms.len() * self.rounds as usize
    }

    fn done(&mut self, arm: usize, time: Duration) {
        if let Some(spent) = self.arms.get_mut(arm) {
            spent.rounds += 1;
            spent.time += time;
        }
    }

    /// How long the rest will take, if every arm goes on as it did; `None` until each has had a round.
    fn left(&self) -> Option<Duration> {
        let left = |spent: &Spent| {
            Some(spent.time.checked_div(spent.rounds)? * self.rounds.saturating_sub(spent.rounds))
        };
        self.arms.iter().map(left).sum()
    }
}

/// In the two units that matter.
fn text(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_that_of_the_rounds_each_arm_still_has() {
        let mut pace = Pace::new(2, 4);
        assert_eq!(pace.left(), None);
        pace.done(0, Duration::from_secs(10));
        assert_eq!(pace.left(), None);
        pace.done(1, Duration::from_secs(1));
        assert_eq!(pace.left(), Some(Duration::from_secs(3 * 10 + 3)));
        pace.done(0, Duration::from_secs(20));
        assert_eq!(pace.left(), Some(Duration::from_secs(2 * 15 + 3)));
        for arm in [0, 0, 1, 1, 1] {
            pace.done(arm, Duration::from_secs(1));
        }
        assert_eq!(pace.left(), Some(Duration::ZERO));
    }

    #[test]
    fn times_are_told_in_the_units_that_matter() {
        let told = [0, 59, 60, 3599, 3600, 7325].map(|seconds| text(Duration::from_secs(seconds)));
        assert_eq!(told, ["0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "2 h 2 min"]);
    }
}
