//! What a directory of resources would change on this host: read and planned as if it counted, and nothing applied. Takes
//! as long as reading and compiling do, so it is not for the daemon's loop.

use crate::config::Config;
use crate::plan::bird::{self, BirdPlan};
use crate::plan::policy::review::{ChainChange, SetSource, review};
use crate::plan::policy::{Direction, policies};
use crate::plan::{self, Attached, EndpointPlan, HostFacts, Plan};
use crate::resource::{EndpointName, Resources, WorkloadEndpoint};
use crate::source;
use crate::status::{
    Change, Comparison, EndpointChange, FieldChange, MemberChange, PolicyChange, RuleName, SessionChange,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What counts at present.
#[derive(Clone, Debug)]
pub struct Present {
    /// The host's configuration.
    pub config: Config,
    /// Its interfaces.
    pub facts: HostFacts,
    /// All resources, as they were last good.
    pub resources: Resources,
}

/// Compares what counts with what `directory` says; an error says why that is not possible.
pub fn compare(present: &Present, directory: &Path) -> Result<Comparison, String> {
    let snapshot = source::check(directory);
    if let Some(problem) = snapshot.problems.iter().find(|problem| problem.is_error()) {
        return Err(format!("it would be refused: {problem}"));
    }
    Ok(present.compare(&snapshot.resources))
}

impl Present {
    fn compare(&self, resources: &Resources) -> Comparison {
        let (now, then) = (&self.resources, resources);
        let (plan_now, plan_then) = (self.plan(now), self.plan(then));
        let mut policy = if self.config.policy.enforce {
            let Config { node, policy, .. } = &self.config;
            let compiled = |resources| policies(resources, node, (*policy).into());
            review(&compiled(now), &compiled(then))
        } else {
            BTreeMap::new()
        };
        let names: BTreeSet<&EndpointName> =
            plan_now.endpoints.keys().chain(plan_then.endpoints.keys()).collect();
        let mut judged = false;
        let mut touched = Vec::new();
        for name in names {
            let (before, after) = (described(now, &plan_now, name), described(then, &plan_then, name));
            let policy: Vec<_> = policy.remove(name).into_iter().flatten().map(policy_change).collect();
            let change = match (&before, &after) {
                (None, _) => Change::Added,
                (_, None) => Change::Removed,
                (Some(before), Some(after)) if before == after && policy.is_empty() => continue,
                _ => Change::Changed,
            };
            judged |= change != Change::Changed || !policy.is_empty();
            let fields = field_changes(before.unwrap_or_default(), after.unwrap_or_default());
            touched.push(EndpointChange { name: name.to_string(), change, fields, policy });
        }
        let (sessions, bgp) = self.compare_bgp(now, then);
        Comparison {
            endpoints: plan_then.endpoints.len(),
            touched,
            flows_judged_again: judged && self.config.policy.enforce,
            sessions,
            bgp,
        }
    }

    fn plan(&self, resources: &Resources) -> Plan {
        let Config { node, tap_prefix, .. } = &self.config;
        plan::plan(resources, &self.facts, plan::Settings { node, tap_prefix })
    }

    fn compare_bgp(&self, now: &Resources, then: &Resources) -> (Vec<SessionChange>, bool) {
        let Some(config) = &self.config.bird else { return (Vec::new(), false) };
        let host = bird::Host { node: &self.config.node, tap_prefix: &self.config.tap_prefix };
        let (mut now, mut then) = (bird::plan(config, host, now), bird::plan(config, host, then));
        let sessions = |plan: &mut BirdPlan| {
            let sessions = std::mem::take(&mut plan.sessions).into_iter();
            sessions.map(|session| (session.protocol.clone(), session)).collect::<BTreeMap<_, _>>()
        };
        let (before, mut after) = (sessions(&mut now), sessions(&mut then));
        let mut changes = Vec::new();
        for (protocol, session) in before {
            let change = match after.remove(&protocol) {
                None => Change::Removed,
                Some(other) if other != session => Change::Changed,
                Some(_) => continue,
            };
            changes.push(SessionChange { name: session.name, change });
        }
        let added = after.into_values();
        changes.extend(added.map(|session| SessionChange { name: session.name, change: Change::Added }));
        // What is wrong with resources, and odd, is told elsewhere.
        for plan in [&mut now, &mut then] {
            (plan.conflicts, plan.notes) = (Vec::new(), Vec::new());
        }
        (changes, now != then)
    }
}

/// What an endpoint of this host is, field by field; `None`: there is none of this name.
fn described(
    resources: &Resources,
    plan: &Plan,
    name: &EndpointName,
) -> Option<BTreeMap<&'static str, String>> {
    let planned = plan.endpoints.get(name)?;
    let WorkloadEndpoint { interface, mac, .. } = resources.endpoints.get(name)?;
    let mut fields = BTreeMap::from([("interface", interface.to_string()), ("MAC", mac.to_string())]);
    match planned {
        EndpointPlan::Pending { addresses, .. } => {
            fields.insert("addresses", list(addresses));
        }
        EndpointPlan::Rejected { addresses, reason, .. } => {
            fields.extend([("addresses", list(addresses)), ("refused", reason.clone())]);
        }
        EndpointPlan::Attached(Attached { addresses, leased, gateways, network, .. }) => fields.extend([
            ("addresses", list(addresses)),
            ("leased", list(leased)),
            ("gateways", list(gateways)),
            ("DNS servers", list(&network.dns_servers)),
            ("search domains", list(&network.search_domains)),
            ("NTP servers", list(&network.ntp_servers)),
            ("FQDN", network.fqdn.clone().unwrap_or_default()),
            ("lifetime of leases", network.valid_lifetime.to_string()),
            ("lifetime of the router", network.router_lifetime.to_string()),
        ]),
    }
    fields.retain(|_, value| !value.is_empty());
    Some(fields)
}

fn list(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn field_changes(
    mut before: BTreeMap<&'static str, String>,
    after: BTreeMap<&'static str, String>,
) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    for (field, value) in after {
        let was = before.remove(field);
        if was.as_ref() != Some(&value) {
            changes.push(FieldChange { field: field.to_owned(), before: was, after: Some(value) });
        }
    }
    let gone = before.into_iter();
    changes.extend(gone.map(|(field, was)| FieldChange {
        field: field.to_owned(),
        before: Some(was),
        after: None,
    }));
    changes
}

fn policy_change((direction, change): (Direction, ChainChange)) -> PolicyChange {
    let rules = |origins: &[_]| origins.iter().map(|origin| RuleName::new(direction, origin)).collect();
    let ChainChange { come, go, reordered, members } = change;
    PolicyChange {
        direction: direction.into(),
        come: rules(&come),
        go: rules(&go),
        reordered,
        members: members
            .into_iter()
            .map(|member| MemberChange {
                of: match member.of {
                    SetSource::Selector(selector) => selector.to_string(),
                    SetSource::Ports(names) => format!("ports called {}", names.join(", ")),
                },
                joined: member.joined,
                left: member.left,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::document::{Content, Format, parse};

    fn resources(documents: &str) -> Resources {
        let mut resources = Resources::default();
        for document in parse(Path::new("f"), Format::Yaml, documents.as_bytes()).unwrap() {
            match document.content {
                Content::Resource(resource) => resources.insert(*resource),
                other => panic!("{other:?}: {:?}", document.problems),
            }
        }
        resources
    }

    fn node(name: &str, number: u8) -> String {
        format!(
            "---\napiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{ name: {name} }}\n\
             spec: {{ bgp: {{ ipv6Address: '2001:db8:f::{number}' }} }}\n"
        )
    }

    fn endpoint(name: &str, tap: &str, address: &str) -> String {
        format!(
            "---\napiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {{ name: {name} }}\n\
             spec: {{ node: n1, interfaceName: {tap}, mac: 'fa:16:3e:00:00:01', ipNetworks: ['{address}/128'] }}\n"
        )
    }

    /// What other documents would change where `before` counts.
    fn compared(before: &str, after: &str) -> Comparison {
        let config = Config::parse(Path::new("f"), b"node = \"n1\"\n[bird]\n").unwrap();
        let present = Present { config, facts: HostFacts::default(), resources: resources(before) };
        present.compare(&resources(after))
    }

    #[test]
    fn what_counts_already_changes_nothing() {
        let world = node("n1", 1) + &node("n2", 2) + &endpoint("a", "tap1", "2001:db8::1");
        let comparison = compared(&world, &world);
        assert!(comparison.is_unchanged() && !comparison.flows_judged_again, "{comparison:?}");
        assert_eq!(comparison.endpoints, 1);
    }

    #[test]
    fn an_endpoint_whose_tap_is_not_there_yet_changes_too() {
        let other = endpoint("b", "tap2", "2001:db8::2");
        let before = endpoint("a", "tap1", "2001:db8::1") + &other;
        let after = endpoint("a", "tap2", "2001:db8::3") + &other;
        let comparison = compared(&before, &after);
        let names: Vec<_> = comparison.touched.iter().map(|change| change.name.as_str()).collect();
        // The TAP is the first's by name, and refused to the other.
        assert_eq!(names, ["a", "b"]);
        let field = |field: &str, before: Option<&str>, after: Option<&str>| FieldChange {
            field: field.to_owned(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        let wanted = [
            field("addresses", Some("2001:db8::1"), Some("2001:db8::3")),
            field("interface", Some("tap1"), Some("tap2")),
        ];
        assert_eq!(comparison.touched[0].fields, wanted);
        let [refused] = &comparison.touched[1].fields[..] else { panic!("{comparison:?}") };
        assert!(refused.field == "refused" && refused.before.is_none(), "{refused:?}");
    }

    #[test]
    fn bgp_sessions_come_go_and_change() {
        let before = node("n1", 1) + &node("n2", 2) + &node("n3", 3);
        let after = node("n1", 1) + &node("n3", 33) + &node("n4", 4);
        let comparison = compared(&before, &after);
        let mut sessions: Vec<_> =
            comparison.sessions.iter().map(|session| (session.name.as_str(), session.change)).collect();
        sessions.sort_unstable_by_key(|(name, _)| *name);
        assert_eq!(sessions, [("n2", Change::Removed), ("n3", Change::Changed), ("n4", Change::Added)]);
        assert!(comparison.touched.is_empty() && !comparison.bgp && !comparison.is_unchanged());
    }
}
