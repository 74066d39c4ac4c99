//! Arms take turns, round by round, so that whatever else the machine does meets all of them alike.

use crate::progress::Progress;
use crate::report::{Round, Series, Size};
use anyhow::{Context, Result};
use std::time::Instant;

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
    /// Where it is on a line over size.
    pub size: Option<Size>,
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
    let mut progress = Progress::new(name, arms.len(), rounds + 1);
    let mut series: Vec<Series> = arms.iter().map(Series::new).collect();
    for number in 0..=rounds {
        // Nobody is always the one after the slowest.
        for offset in 0..series.len() {
            let at = (number + offset) % series.len();
            let (arm, series) = (&mut arms[at], &mut series[at]);
            progress.begin(&arm.name);
            let start = Instant::now();
            let round = try_round(arm.work.as_mut()).with_context(|| format!("{name}, {}", arm.name))?;
            progress.done(at, start.elapsed());
            if number > 0 {
                series.rounds.push(round);
            }
        }
    }
    Ok(series)
}

fn try_round(work: &mut dyn Work) -> Result<Round> {
    let mut round = Round::default();
    for _ in 0..TRIES {
        match work.round()? {
            Measured::Proven(values) if values.iter().all(|value| value.is_finite()) => {
                round.values = Some(values);
                break;
            }
            Measured::Proven(values) => round.rejected.push(format!("measured {values:?}")),
            Measured::Rejected(why) => round.rejected.push(why),
        }
    }
    Ok(round)
}

impl Series {
    fn new(arm: &Arm) -> Self {
        let Arm { name, limit, kernel, size, .. } = arm;
        Self {
            arm: name.clone(),
            limit: limit.clone(),
            kernel: kernel.clone(),
            size: size.clone(),
            rounds: Vec::new(),
        }
    }
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
            size: None,
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
        assert!(series.iter().all(|series| series.rounds == vec![Round::proven(vec![1.0]); 2]));
    }

    #[test]
    fn a_rejected_round_is_tried_again_and_counted() {
        let no = || Measured::Rejected("lost".to_owned());
        // Taken from the end: the warm-up, one rejection, then nothing but rejections.
        let (series, _) =
            run(vec![no(), no(), no(), Measured::Proven(vec![2.0]), no(), Measured::Proven(vec![9.0])]);
        let rejected = |times| vec!["lost".to_owned(); times];
        let first = Round { values: Some(vec![2.0]), rejected: rejected(1) };
        assert_eq!(series[0].rounds, [first, Round { values: None, rejected: rejected(3) }]);
        assert_eq!(series[1].rounds, vec![Round::proven(vec![1.0]); 2]);
    }

    #[test]
    fn what_is_no_number_is_rejected() {
        let (series, _) = run(vec![Measured::Proven(vec![f64::NAN]), Measured::Proven(vec![1.0])]);
        let expected = Round { values: Some(vec![1.0]), rejected: vec!["measured [NaN]".to_owned()] };
        assert_eq!(series[0].rounds[0], expected);
    }
}
