//! The guard and the policy of this host's endpoints as nftables rules, for hosts and times without BPF. Pure: from the
//! same chains that are compiled for the data plane to a text that `nft -f` takes.
//!
//! [`matching`]: what a step matches -> [`steps`]: a chain, as chains of nftables -> [`hooks`]: where packets meet them,
//! in the order and with the exemptions of the data plane's `decide`, and within its [`limits`]. What differs: flows are conntrack's, and packets
//! are asked rule by rule. The cost of a packet does not grow with the number of endpoints: its TAP's chain is found in a
//! map, its addresses in sets, and endpoints with equal chains share them.

mod hooks;
mod limits;
mod matching;
mod sets;
mod steps;
#[cfg(test)]
mod tests;

use super::Plan;
use super::policy::{Chain, Policies};
use crate::config::LimitsConfig;
use sets::AddressSets;
use std::collections::BTreeMap;
use std::fmt;
use steps::View;

/// The table that is ours, in family `ip6`: what is not IPv6 is none of our business.
pub const TABLE: &str = "serval";

/// Bits of a conntrack entry's mark that say under which policy its flow was allowed.
const GENERATION_MASK: u32 = 0xffff_ff00;

/// What the rules need of the host configuration.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// A TAP whose name starts with this is a VM's, and is closed as long as no endpoint has it.
    pub tap_prefix: &'a str,
    /// VMs may talk to the host as far as their own policy allows; else only what every VM needs is let through.
    pub host_is_open: bool,
    /// What the host itself sends to VMs is judged by their own policy.
    pub host_is_judged: bool,
    /// How much of a VM gets to the host itself.
    pub limits: &'a LimitsConfig,
}

/// One policy of several that were in effect one after the other. A flow that was allowed under another is judged again
/// by its next packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u32);

impl Generation {
    /// The generation of a time in seconds, later than `last`. Numbers come again after half a year, when no conntrack
    /// entry is left that nobody has looked at since.
    pub fn at(seconds: u64, last: Option<Self>) -> Self {
        let this = Self::wrapped(seconds);
        // Two in one second, or a clock that was set back.
        last.filter(|last| this.0 <= last.0).map_or(this, |last| Self::wrapped(u64::from(last.0) + 1))
    }

    /// The generation of rules that [`Ruleset::text`] wrote, as the kernel lists them.
    pub fn of_listing(listing: &str) -> Option<Self> {
        let (_, rest) = listing.split_once(hooks::GENERATION_CHAIN)?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok().map(Self)
    }

    fn wrapped(number: u64) -> Self {
        // 0 is the mark of a flow that nobody has judged.
        Self(u32::try_from(number % u64::from(GENERATION_MASK >> 8)).unwrap_or(0) + 1)
    }

    /// The bits under [`GENERATION_MASK`].
    fn mark(self) -> u32 {
        self.0 << 8 & GENERATION_MASK
    }
}

/// The rules, all but the number of their generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    body: String,
}

impl Ruleset {
    /// What `nft -f` takes: replaces our table, if there is one, by this in one transaction.
    pub fn text(&self, generation: Generation) -> String {
        let Self { body } = self;
        format!(
            "define judged = {:#010x}\n\n\
             table ip6 {TABLE}\ndelete table ip6 {TABLE}\n\n\
             table ip6 {TABLE} {{\n\tchain {}{} {{\n\t}}\n{body}}}\n",
            generation.mark(),
            hooks::GENERATION_CHAIN,
            generation.0,
        )
    }
}

/// The rules for the endpoints whose TAPs are there. `None`: policy does not count, and there are guard and limits alone.
pub fn ruleset(policies: Option<&Policies>, plan: &Plan, settings: Settings<'_>) -> Ruleset {
    let policed = policies.is_some();
    let nobody = Policies::default();
    let policies = policies.unwrap_or(&nobody);
    let mut known: BTreeMap<&Chain, usize> = BTreeMap::new();
    let mut chain_of = |chain| {
        let next = known.len();
        *known.entry(chain).or_insert(next)
    };
    let taps = plan
        .attached()
        .map(|(name, attached)| {
            let policy = policies.endpoints.get(name);
            let chains = policy.map(|policy| hooks::Chains {
                ingress: chain_of(&policy.ingress),
                egress: chain_of(&policy.egress),
            });
            hooks::Tap { attached, chains }
        })
        .collect();

    let mut sets = AddressSets::new(&policies.sets);
    let mut chains: Vec<_> = known.into_iter().map(|(chain, number)| (number, chain)).collect();
    chains.sort_unstable_by_key(|(number, _)| *number);
    let mut rules = Text::default();
    for (number, chain) in chains {
        for view in [View::Packet, View::Answer] {
            steps::render(number, chain, view, &mut sets, &mut rules);
        }
    }
    let mut text = Text::default();
    sets.render(&mut text);
    text.0.push_str(&rules.0);
    hooks::render(&hooks::Hooks { taps, blocked: &plan.blocked, policed, settings }, &mut text);
    Ruleset { body: text.0 }
}

/// A text of blocks within the table.
#[derive(Debug, Default)]
struct Text(String);

impl Text {
    /// A block with its lines.
    fn block(&mut self, head: impl fmt::Display, lines: impl IntoIterator<Item = String>) {
        self.0.push_str(&format!("\n\t{head} {{\n"));
        for line in lines {
            self.0.push_str(&format!("\t\t{line}\n"));
        }
        self.0.push_str("\t}\n");
    }
}

/// Things in a row, with commas.
fn list(items: impl IntoIterator<Item = impl fmt::Display>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
