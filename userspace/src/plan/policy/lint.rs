//! What is legal in policy and hardly meant: for whoever is about to make a change. Whatever is said here is used as it
//! stands.

use super::labels::Labelled;
use super::{Direction, Policies, order};
use crate::plan::Conflict;
use crate::resource::policy::{DEFAULT_TIER, Entity, Policy, Rule};
use crate::resource::{ResourceId, Resources, Severity, WorkloadEndpoint};

/// All that is odd about policy, and the endpoints of `node` that are closed against their policies' word.
pub fn lint(resources: &Resources, node: &str, policies: &Policies) -> Vec<Conflict> {
    let labelled = Labelled::new(resources);
    let tiers = order::tiers(resources);
    let ours = resources.endpoints.values().filter(|endpoint| endpoint.node == node);
    let endpoints = ours.filter_map(|endpoint| {
        let fault = policies.endpoints.get(&endpoint.name).and_then(|policy| policy.fault.clone());
        let id = ResourceId::WorkloadEndpoint(endpoint.name.clone());
        if let Some(message) = fault {
            return Some(Conflict { severity: Severity::Error, ..note(id, "metadata.labels", message) });
        }
        let applied = order::applied(&tiers, labelled.of(&endpoint.name));
        let message = applied.is_empty().then(|| closed(resources, endpoint))??;
        Some(note(id, "spec.profiles", message))
    });
    endpoints
        .chain(resources.policies.values().flat_map(|policy| of_policy(resources, &labelled, policy)))
        .collect()
}

/// Why an endpoint that no policy selects is closed, if it is.
fn closed(resources: &Resources, endpoint: &WorkloadEndpoint) -> Option<String> {
    let missing = endpoint.profiles.iter().find(|name| !resources.profiles.contains_key(*name));
    let known = endpoint.profiles.iter().any(|name| resources.profiles.contains_key(name));
    match missing {
        _ if known => None,
        Some(name) => Some(format!(
            "no policy selects it, and there is no Profile {name}: nothing may pass to it or from it"
        )),
        None => Some(
            "no policy selects it, and it names no profile: nothing may pass to it or from it".to_owned(),
        ),
    }
}

fn of_policy(resources: &Resources, labelled: &Labelled<'_>, policy: &Policy) -> Vec<Conflict> {
    let id = || ResourceId::Policy(policy.name.clone());
    let mut odd = Vec::new();
    if policy.tier != DEFAULT_TIER && !resources.tiers.contains_key(&policy.tier) {
        odd.push(note(
            id(),
            "spec.tier",
            format!(
                "there is no Tier {}; it is asked after all others and drops what no rule matches",
                policy.tier
            ),
        ));
    }
    let selects = |endpoint| policy.selector.matches(labelled.of(endpoint));
    if !resources.endpoints.keys().any(selects) {
        odd.push(note(id(), "spec.selector", format!("`{}` selects no endpoint", policy.selector)));
    }
    for (direction, field) in [(Direction::Ingress, "spec.ingress"), (Direction::Egress, "spec.egress")] {
        for (number, rule) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
            if let Some(what) = of_rule(labelled, rule) {
                odd.push(note(id(), field, format!("rule {number} {what}")));
            }
        }
    }
    odd
}

/// Why a rule never matches.
fn of_rule(labelled: &Labelled<'_>, rule: &Rule) -> Option<String> {
    if !rule.ipv6 {
        return Some("is about IPv4 only and never matches here".to_owned());
    }
    [("source", &rule.source), ("destination", &rule.destination)].into_iter().find_map(|(end, entity)| {
        let Entity { nets, selector, .. } = entity;
        if nets.as_ref().is_some_and(Vec::is_empty) {
            return Some(format!("never matches: {end}.nets has no IPv6 prefix"));
        }
        let selector = selector.as_ref().filter(|selector| labelled.chosen(selector).is_empty())?;
        Some(format!("matches nobody at present: {end} `{selector}` selects no IPv6 address"))
    })
}

fn note(loser: ResourceId, field: &'static str, message: String) -> Conflict {
    Conflict { loser, field, message, severity: Severity::Note }
}
