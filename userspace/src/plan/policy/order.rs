//! Which policies an endpoint is subject to, in the order in which they are asked.

use super::Direction;
use super::labels::Labels;
use crate::resource::Resources;
use crate::resource::policy::{DEFAULT_TIER, Order, Policy, Rule};
use std::collections::BTreeMap;

/// The order of the default tier, where no document gives it another (as libcalico creates it).
const DEFAULT_ORDER: f64 = 1_000_000.0;

/// A tier with its policies, in order.
#[derive(Debug)]
pub(super) struct TierPolicies<'a> {
    /// Its name.
    pub name: &'a str,
    /// A packet that no policy decides about goes on.
    pub passes: bool,
    /// Its policies.
    pub policies: Vec<&'a Policy>,
}

impl Policy {
    /// What it says of a direction, if it governs it.
    pub(super) fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// All tiers that have policies, in order: by `order`, then name; those that no document defines come last.
pub(super) fn tiers(resources: &Resources) -> Vec<TierPolicies<'_>> {
    let mut by_tier: BTreeMap<&str, Vec<&Policy>> = BTreeMap::new();
    for policy in resources.policies.values() {
        by_tier.entry(&policy.tier).or_default().push(policy);
    }
    let place = |name: &str| match resources.tiers.get(name) {
        Some(tier) => (false, tier.order),
        None if name == DEFAULT_TIER => (false, Order(Some(DEFAULT_ORDER))),
        None => (true, Order::default()),
    };
    let mut tiers: Vec<_> = by_tier
        .into_iter()
        .map(|(name, mut policies)| {
            policies.sort_by_cached_key(|policy| (policy.order, sort_name(policy)));
            let passes = resources.tiers.get(name).is_some_and(|tier| tier.passes);
            TierPolicies { name, passes, policies }
        })
        .collect();
    tiers.sort_by(|a, b| (place(a.name), a.name).cmp(&(place(b.name), b.name)));
    tiers
}

/// What breaks a tie: `name/namespace/kind`, as one text (Felix compares it like that).
fn sort_name(policy: &Policy) -> String {
    let kind = if policy.name.namespace.is_some() { "NetworkPolicy" } else { "GlobalNetworkPolicy" };
    let name = policy.name.name.strip_prefix("default.").unwrap_or(&policy.name.name);
    format!("{name}/{}/{kind}", policy.name.namespace.as_deref().unwrap_or_default())
}

/// The tiers and policies that are about an endpoint with these labels.
pub(super) fn applied<'a>(tiers: &[TierPolicies<'a>], labels: &Labels) -> Vec<TierPolicies<'a>> {
    let about = |tier: &TierPolicies<'a>| TierPolicies {
        name: tier.name,
        passes: tier.passes,
        policies: tier.policies.iter().copied().filter(|policy| policy.selector.matches(labels)).collect(),
    };
    tiers.iter().map(about).filter(|tier| !tier.policies.is_empty()).collect()
}
