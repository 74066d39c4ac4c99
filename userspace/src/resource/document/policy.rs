//! Calico's `NetworkPolicy` and `GlobalNetworkPolicy`, as calicoctl and networking-calico write them.

use super::super::policy::{DEFAULT_TIER, Order, Policy, ScopedName};
use super::super::selector::Selector;
use super::fields::{Field, Fields};
use super::rule::{self, CONSEQUENCE};
use super::tree::Value;
use super::{Content, metadata};
use crate::resource::Resource;

/// Reads a `NetworkPolicy`.
pub(super) fn read_namespaced(document: &mut Fields<'_>) -> Option<Content> {
    let metadata = metadata::read(document);
    let namespace = metadata.namespace.unwrap_or("default");
    let mut spec = document.required("spec")?.fields();
    let scope = Selector::in_namespace(namespace);
    let name =
        metadata.name.map(|name| ScopedName { namespace: Some(namespace.to_owned()), name: name.to_owned() });
    let policy = policy(&mut spec, name, scope);
    spec.end();
    Some(content(policy?))
}

/// Reads a `GlobalNetworkPolicy`. One that is not about workloads is valid and not used.
pub(super) fn read_global(document: &mut Fields<'_>) -> Option<Content> {
    let metadata = metadata::read(document);
    let mut spec = document.required("spec")?.fields();
    let scope = match spec.optional("namespaceSelector").filter(|field| field.node.as_str() != Some("")) {
        Some(field) => field.parse::<Selector>().map(|selector| selector.of_namespaces()),
        None => Some(Selector::All),
    };
    let mut of_hosts = false;
    for key in ["doNotTrack", "preDNAT"] {
        if let Some(field) = spec.optional(key)
            && field.boolean() == Some(true)
        {
            field.note("such a policy is about host endpoints only, and is not used");
            of_hosts = true;
        }
    }
    // About host endpoints, too: to workloads it always applies.
    spec.accept(&["applyOnForward"]);
    let name = metadata.name.map(|name| ScopedName { namespace: None, name: name.to_owned() });
    let policy = policy(&mut spec, name, scope.unwrap_or(Selector::All));
    spec.end();
    let policy = policy?;
    Some(if of_hosts { Content::Unused } else { content(policy) })
}

/// What both kinds have in `spec`.
fn policy(spec: &mut Fields<'_>, name: Option<ScopedName>, scope: Selector) -> Option<Policy> {
    let namespace = name.as_ref().and_then(|name| name.namespace.as_deref());
    let tier = match spec.optional("tier").filter(|field| field.node.as_str() != Some("")) {
        Some(field) => metadata::name(&field).map(str::to_owned),
        None => Some(DEFAULT_TIER.to_owned()),
    };
    let order = match spec.optional("order") {
        Some(field) => order(&field),
        None => Some(Order::default()),
    };
    let selector = match spec.optional("selector") {
        Some(field) => field.parse::<Selector>(),
        None => Some(Selector::All),
    };
    let accounts =
        match spec.optional("serviceAccountSelector").filter(|field| field.node.as_str() != Some("")) {
            Some(field) => field.parse::<Selector>().map(|selector| selector.of_service_accounts()),
            None => Some(Selector::All),
        };
    let (is_ingress, is_egress) = types(spec);
    let ingress = spec.optional("ingress").map(|field| rule::list(&field, namespace)).unwrap_or_default();
    let egress = spec.optional("egress").map(|field| rule::list(&field, namespace)).unwrap_or_default();
    spec.accept(&["performanceHints"]);
    Some(Policy {
        name: name?,
        tier: tier?,
        order: order?,
        selector: scope.and(selector?).and(accounts?),
        ingress: is_ingress.then_some(ingress),
        egress: is_egress.then_some(egress),
    })
}

fn content(policy: Policy) -> Content {
    Content::Resource(Box::new(Resource::Policy(policy)))
}

/// `spec.types`: the directions the policy governs. None in the document means both: calicoctl writes what its own
/// rule finds, but what is in etcd without it, like every policy of a security group, governs both.
fn types(spec: &mut Fields<'_>) -> (bool, bool) {
    let Some(field) = spec.optional("types").filter(|field| !field.is_empty()) else { return (true, true) };
    let (mut ingress, mut egress) = (false, false);
    for entry in field.list() {
        match entry.string().map(str::to_ascii_lowercase).as_deref() {
            Some("ingress") => ingress = true,
            Some("egress") => egress = true,
            Some(_) => entry.error(format!("there are Ingress and Egress; {CONSEQUENCE}")),
            None => {}
        }
    }
    (ingress, egress)
}

/// `order`: any number.
pub(super) fn order(field: &Field<'_>) -> Option<Order> {
    let number = match &field.node.value {
        Value::Number(text) => text.parse::<f64>().ok().filter(|number| number.is_finite()),
        _ => None,
    };
    if number.is_none() {
        field.error(format!("expected a number, found {}", field.node.describe()));
    }
    number.map(|number| Order(Some(number)))
}
