//! Arms take turns, round by round, so that whatever else the machine does meets all of them alike.

use crate::report::Series;
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

/// Tries of an arm in one round before the round goes on without it.
const TRIES: u32 = 3;

/// One of several ways to do the same work.
pub struct Arm {
    /// Its name.
    pub name: String,
    /// Name of the arm that nothing on its hook can beat.
    pub limit: Option<String>,
    /// Name of the arm that has the kernel do the same.
    pub kernel: String,
    /// The work.
    pub work: Box<dyn Work>,
}

/// Work that can be done again and again.
pub trait Work {
    /// Does it once.
    fn round(&mut self) -> Result<Measured>;
}

/// What a round gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Measured {
    /// The work was done and proven; a value for each metric.
    Proven(Vec<f64>),
    /// It was not, and why.
    Rejected(String),
}

/// Lets every arm do `rounds` rounds, after one that does not count.
pub fn interleave(name: &str, arms: &mut [Arm], rounds: usize) -> Result<Vec<Series>> {
    let bar = ProgressBar::new(((rounds + 1) * arms.len()) as u64).with_style(style());
    bar.set_prefix(name.to_owned());
    let mut series: Vec<Series> = arms.iter().map(Series::new).collect();
    for number in 0..=rounds {
        // Nobody is always the one after the slowest.
        for offset in 0..series.len() {
            let at = (number + offset) % series.len();
            let (arm, series) = (&mut arms[at], &mut series[at]);
            bar.set_message(arm.name.clone());
            let values =
                try_round(arm.work.as_mut(), series).with_context(|| format!("{name}, {}", arm.name))?;
            if number > 0 {
                series.rounds.push(values);
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(series)
}

fn try_round(work: &mut dyn Work, series: &mut Series) -> Result<Option<Vec<f64>>> {
    for _ in 0..TRIES {
        match work.round()? {
            Measured::Proven(values) => return Ok(Some(values)),
            Measured::Rejected(why) => {
                series.rejected += 1;
                series.last_rejection = Some(why);
            }
        }
    }
    Ok(None)
}

impl Series {
    fn new(arm: &Arm) -> Self {
        Self {
            arm: arm.name.clone(),
            limit: arm.limit.clone(),
            kernel: arm.kernel.clone(),
            rounds: Vec::new(),
            rejected: 0,
            last_rejection: None,
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:10} {bar:30} {pos}/{len}, {eta} left: {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    struct Scripted {
        name: &'static str,
        answers: Vec<Measured>,
        log: Rc<RefCell<Vec<&'static str>>>,
    }

    impl Work for Scripted {
        fn round(&mut self) -> Result<Measured> {
            self.log.borrow_mut().push(self.name);
            Ok(self.answers.pop().unwrap_or(Measured::Proven(vec![1.0])))
        }
    }

    fn run(answers: Vec<Measured>) -> (Vec<Series>, Vec<&'static str>) {
        let log = Rc::<RefCell<Vec<_>>>::default();
        let arm = |name: &'static str, answers| Arm {
            name: name.to_owned(),
            limit: None,
            kernel: "kernel".to_owned(),
            work: Box::new(Scripted { name, answers, log: Rc::clone(&log) }),
        };
        let mut arms = [arm("a", answers), arm("b", Vec::new())];
        let series = interleave("test", &mut arms, 2).unwrap();
        (series, log.take())
    }

    #[test]
    fn arms_take_turns_and_the_first_round_does_not_count() {
        let (series, log) = run(Vec::new());
        assert_eq!(log, ["a", "b", "b", "a", "a", "b"]);
        assert!(series.iter().all(|series| series.rounds.len() == 2 && series.rejected == 0));
    }

    #[test]
    fn a_rejected_round_is_tried_again_and_counted() {
        let no = || Measured::Rejected("lost".to_owned());
        // Taken from the end: the warm-up, one rejection, then nothing but rejections.
        let (series, _) =
            run(vec![no(), no(), no(), Measured::Proven(vec![2.0]), no(), Measured::Proven(vec![9.0])]);
        assert_eq!(series[0].rounds, [Some(vec![2.0]), None]);
        assert_eq!((series[0].rejected, series[0].last_rejection.as_deref()), (4, Some("lost")));
        assert_eq!(series[1].rounds, [Some(vec![1.0]), Some(vec![1.0])]);
    }
}
