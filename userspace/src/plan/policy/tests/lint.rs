//! What is legal and hardly meant.

use super::super::lint::lint;
use super::examples::{NODE, endpoint, global, resources};
use super::*;

fn said(text: &str) -> Vec<String> {
    let resources = resources(text);
    lint(&resources, NODE, &policies(&resources, NODE, Tunnels::default()))
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn what_is_meant_is_not_remarked_on() {
    let profile = "---\napiVersion: projectcalico.org/v3\nkind: Profile\nmetadata: { name: open }\nspec: { ingress: [{ action: Allow }] }\n";
    let world = endpoint("a", 1, "role: web")
        + &endpoint("b", 2, "").replace("spec: { node", "spec: { profiles: [open], node")
        + profile
        + &global("web", "{selector: role == 'web', ingress: [{action: Allow, source: {selector: all()}}]}");
    assert_eq!(said(&world), [""; 0]);
}

#[test]
fn what_hardly_anybody_means_is_remarked_on() {
    let world = endpoint("a", 1, "")
        + &endpoint("b", 2, "").replace("spec: { node", "spec: { profiles: [none], node")
        + &global(
            "first.web",
            "{tier: first, selector: role == 'web', ingress: [{action: Deny, ipVersion: 4}, \
             {action: Deny, source: {nets: [10.0.0.0/8]}}, {action: Allow}], \
             egress: [{action: Allow, destination: {selector: role == 'db'}}]}",
        );
    let policy = "GlobalNetworkPolicy first.web";
    assert_eq!(
        said(&world),
        [
            "WorkloadEndpoint a: spec.profiles: no policy selects it, and it names no profile: nothing may pass to it or from it".to_owned(),
            "WorkloadEndpoint b: spec.profiles: no policy selects it, and there is no Profile none: nothing may pass to it or from it".to_owned(),
            format!("{policy}: spec.tier: there is no Tier first; it is asked after all others and drops what no rule matches"),
            format!("{policy}: spec.selector: `role == 'web'` selects no endpoint"),
            format!("{policy}: spec.ingress: rule 0 is about IPv4 only and never matches here"),
            format!("{policy}: spec.ingress: rule 1 never matches: source.nets has no IPv6 prefix"),
            format!("{policy}: spec.egress: rule 0 matches nobody at present: destination `role == 'db'` selects no IPv6 address"),
        ]
    );
}
