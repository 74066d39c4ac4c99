//! Which resource a document is about, read leniently: also from one that is refused, so that its last good state can
//! be found.

use super::super::{EndpointName, ResourceId, ScopedName};
use super::metadata::is_name;
use super::tree::Node;

/// Of a parsed document.
pub(super) fn of(document: &Node) -> Option<ResourceId> {
    let kind = document.get("kind")?.as_str()?;
    let metadata = document.get("metadata")?;
    let namespace = metadata.get("namespace").and_then(Node::as_str);
    id(kind, metadata.get("name")?.as_str()?, namespace)
}

fn id(kind: &str, name: &str, namespace: Option<&str>) -> Option<ResourceId> {
    let namespace = namespace.unwrap_or("default");
    if !is_name(name) || !is_name(namespace) {
        return None;
    }
    match kind {
        "WorkloadEndpoint" => Some(ResourceId::WorkloadEndpoint(EndpointName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })),
        "Subnet" => Some(ResourceId::Subnet(name.to_owned())),
        "Node" => Some(ResourceId::Node(name.to_owned())),
        "BGPConfiguration" => Some(ResourceId::BgpConfiguration(name.to_owned())),
        "BGPPeer" => Some(ResourceId::BgpPeer(name.to_owned())),
        "NetworkPolicy" => Some(ResourceId::Policy(namespaced(namespace, name))),
        "GlobalNetworkPolicy" => Some(ResourceId::Policy(global(name))),
        "Tier" => Some(ResourceId::Tier(name.to_owned())),
        "Profile" => Some(ResourceId::Profile(name.to_owned())),
        "NetworkSet" => Some(ResourceId::NetworkSet(namespaced(namespace, name))),
        "GlobalNetworkSet" => Some(ResourceId::NetworkSet(global(name))),
        _ => None,
    }
}

fn namespaced(namespace: &str, name: &str) -> ScopedName {
    ScopedName { namespace: Some(namespace.to_owned()), name: name.to_owned() }
}

fn global(name: &str) -> ScopedName {
    ScopedName { namespace: None, name: name.to_owned() }
}

/// Of a document that does not even parse: by the lines `kind:` and, under `metadata:`, `name:` and `namespace:`.
pub(super) fn guess(text: &[u8]) -> Option<ResourceId> {
    let text = String::from_utf8_lossy(text);
    let (mut kind, mut name, mut namespace) = (None, None, None);
    let mut in_metadata = false;
    // Indentation of the keys of `metadata`, which tells them from those of its labels and annotations.
    let mut indentation = None;
    for line in text.lines() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        let Some((key, value)) = content.split_once(':') else { continue };
        if content.starts_with('#') {
            continue;
        }
        let value = plain(value);
        if indent == 0 {
            in_metadata = key == "metadata";
            if key == "kind" {
                kind = value;
            }
        } else if in_metadata && *indentation.get_or_insert(indent) == indent {
            match key {
                "name" => name = value,
                "namespace" => namespace = value,
                _ => {}
            }
        }
        if in_metadata && indent == 0 {
            let flow = content.split_once('{').map_or("", |(_, rest)| rest);
            for (key, value) in flow.split([',', '}']).filter_map(|pair| pair.split_once(':')) {
                match key.trim() {
                    "name" => name = plain(value),
                    "namespace" => namespace = plain(value),
                    _ => {}
                }
            }
        }
    }
    id(kind?, name?, namespace)
}

/// A scalar on one line without quotes and comment.
fn plain(value: &str) -> Option<&str> {
    let value = value.split(" #").next().unwrap_or(value).trim();
    let value = value.trim_matches(['"', '\'']);
    (!value.is_empty()).then_some(value)
}
