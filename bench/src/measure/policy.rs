//! What policy costs, by the length of its list, by the size of a set, and by how many flows there are, when flows are known
//! and when every packet begins one; as `program` measures, without the TAP that frames are written into. Everybody obeys
//! the same policy, and must prove it: what is known is not asked about, and what is new is, by each packet.
//!
//! New flows are the kernel's best case: its table of connections is emptied before each round. Ours is full, and each flow
//! displaces another.

use super::program::{self, KIND, Live};
use super::tally::Asked;
use super::wire::Wire;
use crate::bare::{Variants, Varies};
use crate::carrier::{Carrier, Path, SMALL, Setting};
use crate::choice::Popularity;
use crate::cpu;
use crate::flows::{ENDLESS, Flows};
use crate::policy::Policy;
use crate::report::{KERNEL, Metric, Outcome, Round, Series, Size};
use crate::rounds::{Arm, interleave};
use crate::statistics::Better;
use anyhow::{Context, Result};
use std::rc::Rc;

pub const NAME: &str = "policy";

const VERDICT: &[Metric] = &[Metric { name: "times as fast", unit: "ratio", better: Better::More }];

/// Lengths of the list; a quick run has less.
const RULES: &[u32] = &[1, 10, 100, 1_000];
const RULES_QUICK: &[u32] = &[1, 10, 1_000];
/// Size of the large set.
const MEMBERS: u32 = 10_000;
/// How many flows are known.
const FLOWS: &[u32] = &[1, 1_000, 100_000];
const FLOWS_QUICK: &[u32] = &[1, 100_000];
/// Who knows policy.
const POLICED: [Carrier; 4] = [Carrier::Serval, Carrier::ServalTc, Carrier::Ip6tables, Carrier::Nftables];
/// Who does not.
const OTHERS: [Carrier; 3] = [Carrier::BareXdp, Carrier::BareTc, Carrier::Kernel];

/// An arm and what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lane {
    carrier: Carrier,
    policy: Policy,
    flows: Flows,
}

impl Lane {
    const fn usual(carrier: Carrier) -> Self {
        Self { carrier, policy: Policy::USUAL, flows: Flows::new(1) }
    }

    fn name(self, varied: Varied) -> String {
        let name = self.carrier.name();
        if OTHERS.contains(&self.carrier) {
            return name.to_owned();
        }
        match varied {
            Varied::Rules if self.policy.members > Policy::USUAL.members => {
                format!("{name}, {}, set of {}", counted(self.policy.rules, "rule"), self.policy.members)
            }
            Varied::Rules => format!("{name}, {}", counted(self.policy.rules, "rule")),
            Varied::Flows => {
                format!("{name}, {}{}", counted(self.flows.count, "flow"), self.flows.popularity.suffix())
            }
        }
    }

    /// Who has the kernel do the same.
    fn kernel(self, varied: Varied) -> String {
        if OTHERS.contains(&self.carrier) {
            return KERNEL.to_owned();
        }
        Self { carrier: Carrier::Ip6tables, ..self }.name(varied)
    }

    fn size(self, varied: Varied) -> Option<Size> {
        let (of, count) = match varied {
            _ if OTHERS.contains(&self.carrier) => return None,
            Varied::Rules if self.policy.members > Policy::USUAL.members => return None,
            Varied::Rules => ("rules", self.policy.rules),
            Varied::Flows if self.flows.popularity != Popularity::Even => return None,
            Varied::Flows => ("flows", self.flows.count),
        };
        Some(Size { line: self.carrier.name().to_owned(), of: of.to_owned(), count: u64::from(count) })
    }
}

fn counted(count: u32, of: &str) -> String {
    format!("{count} {of}{}", if count == 1 { "" } else { "s" })
}

/// Wires that are there: parts share them, as each takes seconds to make.
#[derive(Default)]
struct Wires(Vec<(Carrier, Policy, u32, Rc<Wire<Path>>)>);

impl Wires {
    /// One on which this many flows can be known.
    fn get(&mut self, carrier: Carrier, policy: Policy, flows: u32) -> Result<Rc<Wire<Path>>> {
        // The kernel's table is large enough, and so is ours for what a VM has where nothing else is said.
        let quota =
            if matches!(carrier, Carrier::Serval | Carrier::ServalTc) && flows > 1_000 { flows } else { 1 };
        let is_it = |wire: &&(Carrier, Policy, u32, _)| (wire.0, wire.1, wire.2) == (carrier, policy, quota);
        if let Some((.., wire)) = self.0.iter().find(is_it) {
            return Ok(Rc::clone(wire));
        }
        let setting = Setting { policy, flows: quota, ..Setting::USUAL };
        let wire = Rc::new(Wire::with_flows(carrier, KIND, &setting, Flows::new(ENDLESS))?);
        self.0.push((carrier, policy, quota, Rc::clone(&wire)));
        Ok(wire)
    }
}

/// What differs between the arms of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Varied {
    Rules,
    Flows,
}

/// A part: a table of its own.
struct Part {
    name: &'static str,
    what: &'static str,
    asked: Asked,
    varied: Varied,
    lanes: Vec<Lane>,
}

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Vec<Outcome>> {
    let (rounds, frames) = if quick { (3, 5_000) } else { (25, 60_000) };
    let [cpu, _] = cpu::two()?;
    let mut wires = Wires::default();
    let mut outcomes = Vec::new();
    for part in parts(quick) {
        let outcome = part.run(&mut wires, rounds, frames, cpu)?;
        let verdict = verdict(&part, &outcome.arms);
        outcomes.extend([outcome, verdict]);
    }
    Ok(outcomes)
}

fn parts(quick: bool) -> [Part; 3] {
    let (rules, flows) = if quick { (RULES_QUICK, FLOWS_QUICK) } else { (RULES, FLOWS) };
    let others = OTHERS.map(Lane::usual);
    let by_rules = rules.iter().flat_map(|rules| {
        POLICED
            .map(|carrier| Lane { policy: Policy { rules: *rules, ..Policy::USUAL }, ..Lane::usual(carrier) })
    });
    let by_rules: Vec<Lane> = by_rules.chain(others).collect();
    let large = POLICED
        .map(|carrier| Lane { policy: Policy { members: MEMBERS, ..Policy::USUAL }, ..Lane::usual(carrier) });
    // Of very many flows, a few have most packets.
    let skewed = flows.iter().copied().max().map(|count| Flows { count, popularity: Popularity::Zipf });
    let by_flows = flows
        .iter()
        .map(|count| Flows::new(*count))
        .chain(skewed)
        .flat_map(|flows| POLICED.map(|carrier| Lane { flows, ..Lane::usual(carrier) }));
    [
        Part {
            name: "known flow",
            what: "of a known flow",
            asked: Asked::Known,
            varied: Varied::Rules,
            lanes: by_rules.clone(),
        },
        Part {
            name: "new flows",
            what: "that each begin a flow",
            asked: Asked::New,
            varied: Varied::Rules,
            lanes: by_rules
                .into_iter()
                .chain(large)
                .map(|lane| Lane { flows: Flows::new(ENDLESS), ..lane })
                .collect(),
        },
        Part {
            name: "known flows",
            what: "of known flows, each of another one at random",
            asked: Asked::Known,
            varied: Varied::Flows,
            lanes: by_flows.chain(others).collect(),
        },
    ]
}

impl Part {
    fn run(&self, wires: &mut Wires, rounds: usize, frames: u32, cpu: usize) -> Result<Outcome> {
        let mut arm = |lane: &Lane| {
            let name = lane.name(self.varied);
            // What is new displaces what is old: the quota stays as it is.
            let remembered = if self.asked == Asked::New { 1 } else { lane.flows.count };
            let wire = wires.get(lane.carrier, lane.policy, remembered).with_context(|| name.clone())?;
            let varies = Varies::at_random(Variants::Flows(lane.flows));
            let work = Live::new(wire, varies, self.asked, frames, cpu).with_context(|| name.clone())?;
            Ok(Arm {
                limit: SMALL.limit(lane.carrier).map(|limit| limit.name().to_owned()),
                kernel: lane.kernel(self.varied),
                size: lane.size(self.varied),
                work: Box::new(work),
                name,
            })
        };
        let mut arms = self.lanes.iter().map(&mut arm).collect::<Result<Vec<_>>>()?;
        Ok(Outcome {
            name: format!("{NAME}: {}", self.name),
            title: format!(
                "{}-byte UDP frames {}, made by the kernel, to a TAP that is full, {frames} a round",
                KIND.length(),
                self.what
            ),
            metrics: program::METRICS,
            arms: interleave(NAME, &mut arms, rounds)?,
        })
    }
}

/// What was hoped for, and what is.
fn verdict(part: &Part, arms: &[Series]) -> Outcome {
    let usual = |carrier| Lane::usual(carrier).name(part.varied);
    let rules = |carrier, rules| {
        Lane { policy: Policy { rules, ..Policy::USUAL }, ..Lane::usual(carrier) }.name(part.varied)
    };
    let flows = |carrier, count| Lane { flows: Flows::new(count), ..Lane::usual(carrier) }.name(part.varied);
    let ours = [
        (Carrier::Serval, "XDP", 6.0, Carrier::BareXdp, 0.6),
        (Carrier::ServalTc, "TC", 1.9, Carrier::BareTc, 0.85),
    ];
    let mut pairs = Vec::new();
    for (carrier, hook, goal, bare, share) in ours {
        for rival in [Carrier::Ip6tables, Carrier::Nftables] {
            let name = format!("{hook} to {}, goal {goal}", rival.name());
            pairs.push((name, usual(carrier), usual(rival)));
        }
        match (part.varied, part.asked) {
            (Varied::Rules, Asked::Known) => {
                pairs.push((format!("{hook} to bare, goal {share}"), usual(carrier), usual(bare)));
                let name = format!("{hook}, 1000 rules to 1, goal 0.95");
                pairs.push((name, rules(carrier, 1_000), rules(carrier, 1)));
            }
            (Varied::Rules, Asked::New) => {
                let name = format!("{hook}, 1000 rules to 10, goal 0.77");
                pairs.push((name, rules(carrier, 1_000), rules(carrier, 10)));
            }
            (Varied::Flows, _) => {
                let name = format!("{hook}, 100000 flows to 1, goal 0.5");
                pairs.push((name, flows(carrier, 100_000), flows(carrier, 1)));
            }
        }
    }
    Outcome {
        name: format!("{NAME}: {}, verdict", part.name),
        title: format!("how many times as fast, in the same rounds, with {} rules", Policy::USUAL.rules),
        metrics: VERDICT,
        arms: pairs
            .into_iter()
            .map(|(name, arm, to)| ratio(name, find(arms, &arm), find(arms, &to)))
            .collect(),
    }
}

fn find<'a>(arms: &'a [Series], name: &str) -> Option<&'a Series> {
    arms.iter().find(|series| series.arm == name)
}

/// How many times as fast as another an arm is, round by round; a round counts that both have.
fn ratio(name: String, arm: Option<&Series>, to: Option<&Series>) -> Series {
    let value = |round: &Round| round.values.as_ref()?.first().copied();
    let rounds = match (arm, to) {
        (Some(arm), Some(to)) => arm
            .rounds
            .iter()
            .zip(&to.rounds)
            .map(|(arm, to)| match (value(arm), value(to)) {
                (Some(arm), Some(to)) => Round::proven(vec![to / arm]),
                _ => Round::default(),
            })
            .collect(),
        _ => Vec::new(),
    };
    Series { rounds, ..Series::alone(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_finds_its_arms() {
        for part in parts(false).into_iter().chain(parts(true)) {
            let arms: Vec<Series> = part
                .lanes
                .iter()
                .map(|lane| Series {
                    rounds: vec![Round::proven(vec![2.0])],
                    ..Series::alone(lane.name(part.varied))
                })
                .collect();
            for (number, series) in arms.iter().enumerate() {
                assert!(arms[..number].iter().all(|other| other.arm != series.arm), "twice: {}", series.arm);
            }
            let verdict = verdict(&part, &arms);
            assert!(verdict.arms.len() >= 6);
            for arm in verdict.arms {
                assert_eq!(arm.rounds, [Round::proven(vec![1.0])], "{}", arm.arm);
            }
        }
    }

    #[test]
    fn a_verdict_is_above_one_for_the_faster_and_needs_both() {
        let series = |values: &[Option<f64>]| {
            let round =
                |value: &Option<f64>| Round { values: value.map(|value| vec![value]), rejected: Vec::new() };
            Series { rounds: values.iter().map(round).collect(), ..Series::alone("") }
        };
        let (fast, slow) = (series(&[Some(100.0), None]), series(&[Some(400.0), Some(1.0)]));
        let verdict = ratio("fast to slow".to_owned(), Some(&fast), Some(&slow));
        assert_eq!(verdict.rounds, [Round::proven(vec![4.0]), Round::default()]);
        assert!(ratio(String::new(), None, Some(&slow)).rounds.is_empty());
    }
}
