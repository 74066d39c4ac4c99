//! A chain of steps as chains of nftables.
//!
//! A chain of nftables is jumped to: `return` is allowed, `drop` is denied. Where steps are passed over (`GoTo`), the chain
//! is cut into parts, and a bit of the packet's mark says on return that the next part decides: jumps from part to part
//! would nest as deep as there are tiers, and the kernel allows 16 and checks every way through them.

use super::Text;
use super::matching::alternatives;
use super::sets::AddressSets;
use crate::plan::policy::{Chain, Origin, Step, StepAction};
use std::collections::BTreeSet;
use std::fmt;

/// The bit of a packet's mark that says, between two parts of a chain, that the next one decides. It is zero before and
/// after.
const PASSED: u32 = 0x0080_0000;

/// Longest comment of a rule; the kernel takes 127 bytes of a log's prefix, the program 128 of a comment.
const LONGEST: usize = 100;

/// Of which packets a chain is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Of this one.
    Packet,
    /// Of the one that this answers: the first packet of its flow.
    Answer,
}

/// The name of a chain.
pub(super) fn name(number: usize, view: View) -> String {
    match view {
        View::Packet => format!("policy_{number}"),
        View::Answer => format!("policy_{number}_answer"),
    }
}

/// Writes the chain of that number.
pub(super) fn render(number: usize, chain: &Chain, view: View, sets: &mut AddressSets<'_>, text: &mut Text) {
    let name = name(number, view);
    let parts = parts(chain);
    let mut begin = 0;
    let mut jumps = Vec::new();
    for (part, &end) in parts.iter().enumerate() {
        let is_last = part + 1 == parts.len();
        let part_name = if parts.len() == 1 { name.clone() } else { format!("{name}_part_{part}") };
        let mut rules = Vec::new();
        for step in &chain.steps[begin..end] {
            let before = rules.len();
            rule(step, end, view, sets, &mut rules);
            let is_final = !matches!(step.action, StepAction::Log(_))
                && rules.get(before).is_some_and(|rule| rule.always);
            if is_final {
                break;
            }
        }
        let mut lines: Vec<String> = rules.into_iter().map(|rule| rule.text).collect();
        // What nothing has decided about comes to the next part, or was forgotten.
        lines.push(if is_last { "drop".to_owned() } else { pass() });
        text.block(format_args!("chain {part_name}"), lines);
        jumps.push(format!("jump {part_name}"));
        if !is_last {
            jumps.push(format!("meta mark & {PASSED:#x} == 0 return"));
            jumps.push(format!("meta mark set meta mark & {:#x}", !PASSED));
        }
        begin = end;
    }
    if parts.len() > 1 {
        text.block(format_args!("chain {name}"), jumps);
    }
}

/// Where the parts of a chain end: at every step that is gone to, and at the end.
fn parts(chain: &Chain) -> Vec<usize> {
    let targets = chain.steps.iter().filter_map(|step| match step.action {
        StepAction::GoTo(to) => Some(to),
        StepAction::Allow | StepAction::Deny | StepAction::Log(_) => None,
    });
    let end = chain.steps.len();
    targets.filter(|to| *to < end).chain([end]).collect::<BTreeSet<_>>().into_iter().collect()
}

/// One rule.
struct Rule {
    text: String,
    /// Every packet matches it.
    always: bool,
}

/// Adds the rules of a step of a part that ends at `end`.
fn rule(step: &Step, end: usize, view: View, sets: &mut AddressSets<'_>, rules: &mut Vec<Rule>) {
    let origin = Printable(&step.origin);
    let action = match step.action {
        StepAction::Allow => format!("counter return comment \"{origin}\""),
        StepAction::Deny => format!("counter drop comment \"{origin}\""),
        StepAction::GoTo(to) if to == end => format!("counter {} comment \"{origin}\"", pass()),
        // No chain is built so; were it, nothing must get through.
        StepAction::GoTo(_) => "drop".to_owned(),
        StepAction::Log(_) => {
            format!("limit rate 10/second burst 20 packets log prefix \"serval: {origin} \" level info")
        }
    };
    for conditions in alternatives(&step.matching, view, sets) {
        let always = conditions.is_empty();
        let text = conditions.into_iter().chain([action.clone()]).collect::<Vec<_>>().join(" ");
        rules.push(Rule { text, always });
    }
}

fn pass() -> String {
    format!("meta mark set meta mark | {PASSED:#x} return")
}

/// Where a step comes from, in characters that need no quoting and not too many of them.
struct Printable<'a>(&'a Origin);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            Origin::Tunnel(tunnel) => format!("{tunnel} from a VM"),
            Origin::Rule { tier, policy, rule } => format!("tier {tier}, policy {policy}, rule {rule}"),
            Origin::TierDefault { tier } => format!("end of tier {tier}"),
            Origin::Profile { profile, rule } => format!("profile {profile}, rule {rule}"),
            Origin::NoProfile => "no policy or profile allows it".to_owned(),
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || " ,./_-".contains(c);
        text.chars().take(LONGEST).try_for_each(|c| fmt::Write::write_char(f, if legal(c) { c } else { '?' }))
    }
}
