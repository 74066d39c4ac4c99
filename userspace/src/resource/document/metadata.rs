//! `metadata`, which every kind has, and the names in it.

use super::fields::{Field, Fields};
use super::tree::Value;
use std::collections::BTreeMap;

/// What kinds use of `metadata`.
pub(super) struct Metadata<'a> {
    pub name: Option<&'a str>,
    pub namespace: Option<&'a str>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<&'a str, Field<'a>>,
}

/// Reads `metadata` of a document.
pub(super) fn read<'a>(document: &mut Fields<'a>) -> Metadata<'a> {
    let mut metadata =
        Metadata { name: None, namespace: None, labels: BTreeMap::new(), annotations: BTreeMap::new() };
    let Some(field) = document.required("metadata") else { return metadata };
    let mut fields = field.fields();
    metadata.name = fields.required("name").and_then(|field| name(&field));
    metadata.namespace = fields.optional("namespace").and_then(|field| name(&field));
    if let Some(field) = fields.optional("labels") {
        metadata.labels = labels(&field);
    }
    if let Some(field) = fields.optional("annotations") {
        metadata.annotations = field.entries().into_iter().collect();
    }
    // The rest of Kubernetes' ObjectMeta, which `calicoctl get -o yaml` and etcd show.
    fields.accept(&[
        "clusterName",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    ]);
    fields.end();
    metadata
}

/// Labels. A value may be `null`: Neutron writes that for a project without parent.
pub(super) fn labels(field: &Field<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, field) in field.entries() {
        let value = if matches!(field.node.value, Value::Null) { Some("") } else { field.string() };
        if let Some(value) = value {
            labels.insert(key.to_owned(), value.to_owned());
        }
    }
    labels
}

/// A name of a resource, namespace or node. Wider than Kubernetes' rule, because OpenStack host names go into it.
pub(super) fn name<'a>(field: &Field<'a>) -> Option<&'a str> {
    let text = field.string()?;
    if is_name(text) {
        Some(text)
    } else {
        field.error(format!("`{text}` is no name: 1 to 253 letters, digits, `-`, `_` or `.`"));
        None
    }
}

/// Whether `text` may be a name.
pub(super) fn is_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A DNS name in lower case without the final dot (RFC 1035 section 2.3.1, with `_`).
pub(super) fn domain(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let legal = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if name.len() <= 253 && name.split('.').all(legal) {
        Ok(name.to_ascii_lowercase())
    } else {
        Err(format!("`{text}` is no domain name; write one like openstack.example"))
    }
}
