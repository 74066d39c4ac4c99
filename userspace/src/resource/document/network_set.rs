//! Calico's `NetworkSet` and `GlobalNetworkSet`.

use super::super::policy::{NetworkSet, ScopedName};
use super::fields::Fields;
use super::metadata::{self, Metadata};
use super::rule;

/// Reads a `NetworkSet`; `None` when a fault was reported.
pub(super) fn read_namespaced(document: &mut Fields<'_>) -> Option<NetworkSet> {
    let metadata = metadata::read(document);
    let namespace = metadata.namespace.unwrap_or("default").to_owned();
    read(document, metadata, Some(namespace))
}

/// Reads a `GlobalNetworkSet`; `None` when a fault was reported.
pub(super) fn read_global(document: &mut Fields<'_>) -> Option<NetworkSet> {
    let metadata = metadata::read(document);
    read(document, metadata, None)
}

fn read(document: &mut Fields<'_>, metadata: Metadata<'_>, namespace: Option<String>) -> Option<NetworkSet> {
    let mut nets = Vec::new();
    if let Some(field) = document.optional("spec") {
        let mut spec = field.fields();
        if let Some(field) = spec.optional("nets") {
            nets = rule::prefixes(&field);
        }
        spec.end();
    }
    let name = ScopedName { namespace, name: metadata.name?.to_owned() };
    Some(NetworkSet { name, nets, labels: metadata.labels })
}
