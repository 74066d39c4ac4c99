//! Documents: text to resources, with file, line and field in every error. Pure: bytes in, resources and problems out.
//!
//! A YAML file is a stream of documents, a JSON file is one value. A document is a resource, a list of resources (an
//! array, or a `List` kind as calicoctl prints it), or a key with its value as networking-calico writes them to etcd.

mod bgp;
mod bgp_configuration;
mod bgp_peer;
mod endpoint;
mod etcd;
mod fields;
mod identity;
mod metadata;
mod network_set;
mod node;
mod policy;
mod profile;
mod rule;
mod subnet;
mod tier;
mod tree;
mod yaml;

#[cfg(test)]
mod tests;

use super::{Position, Problem, Resource, ResourceId, Severity};
use fields::{Faults, Field, Fields};
use std::path::Path;
use tree::{Node, Value};

/// Largest file in bytes: about 2500 endpoints.
pub const FILE_LIMIT: usize = 4 << 20;

/// `apiVersion` of Calico's kinds.
const CALICO: &str = "projectcalico.org/v3";
/// `apiVersion` of our kinds.
const SERVAL: &str = "serval/v1";

/// Calico's kinds that this version accepts and does not use.
const UNUSED: &[&str] = &[
    "BGPFilter",
    "ClusterInformation",
    "FelixConfiguration",
    "HostEndpoint",
    "IPPool",
    "IPReservation",
    "KubeControllersConfiguration",
    "LiveMigration",
    "StagedGlobalNetworkPolicy",
    "StagedKubernetesNetworkPolicy",
    "StagedNetworkPolicy",
];

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `.yaml`, `.yml`.
    Yaml,
    /// `.json`.
    Json,
}

impl Format {
    /// By the file's extension; `None` when the file is not for us.
    pub fn of(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()? {
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// What a document says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A valid resource.
    Resource(Box<Resource>),
    /// Something valid that this version does not use.
    Unused,
    /// Nothing that can be used; [`Document::problems`] say why.
    Refused,
}

/// One document of a file, good or bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Where it begins.
    pub at: Position,
    /// Which resource it is, as far as a document that is refused lets that be seen.
    pub id: Option<ResourceId>,
    /// What it says.
    pub content: Content,
    /// Errors if it is refused, and notes.
    pub problems: Vec<Problem>,
}

/// Parses a file. An error concerns the file as a whole.
pub fn parse(file: &Path, format: Format, bytes: &[u8]) -> Result<Vec<Document>, Problem> {
    if bytes.len() > FILE_LIMIT {
        let message =
            format!("larger than {} MiB; spread the resources over several files", FILE_LIMIT >> 20);
        return Err(Problem::file(file, &message));
    }
    if bytes.trim_ascii().is_empty() {
        return Err(Problem::file(file, "the file is empty; write a resource into it or delete it"));
    }
    match format {
        Format::Yaml => Ok(yaml_stream(file, bytes)),
        Format::Json => json_value(file, bytes),
    }
}

fn yaml_stream(file: &Path, bytes: &[u8]) -> Vec<Document> {
    let mut documents = Vec::new();
    for chunk in yaml::split(bytes) {
        match text(chunk.text, chunk.first_line).and_then(|text| yaml::parse(text, chunk.first_line)) {
            Ok(Some(root)) => resources(file, &root, "", &mut documents),
            Ok(None) => {}
            Err(error) => documents.push(Document {
                at: error.at,
                id: identity::guess(chunk.text),
                content: Content::Refused,
                problems: vec![Problem::at(file, error.at, &error.message)],
            }),
        }
    }
    documents
}

fn text(bytes: &[u8], first_line: u32) -> Result<&str, yaml::SyntaxError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned();
        yaml::SyntaxError {
            at: yaml::end_of(&before, first_line),
            message: "not UTF-8; save the file as UTF-8".to_owned(),
        }
    })
}

/// JSON is checked as JSON, and then read as the YAML it also is (YAML 1.2.2 section 1.3), which keeps the places.
fn json_value(file: &Path, bytes: &[u8]) -> Result<Vec<Document>, Problem> {
    let refuse = |error: yaml::SyntaxError| Problem::at(file, error.at, &error.message);
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = text(bytes, 1).map_err(refuse)?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let at = Position { line: number(error.line()), column: number(error.column()) };
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or(&message);
        Problem::at(file, at, &format!("not JSON: {message}"))
    })?;
    let mut documents = Vec::new();
    if let Some(root) = yaml::parse(text, 1).map_err(refuse)? {
        resources(file, &root, "", &mut documents);
    }
    Ok(documents)
}

/// Reads a document, and each of a list of documents by itself.
fn resources(file: &Path, node: &Node, path: &str, documents: &mut Vec<Document>) {
    if let Value::List(items) = &node.value {
        for (i, item) in items.iter().enumerate() {
            resources(file, item, &format!("{path}[{i}]"), documents);
        }
        return;
    }
    let kind = node.get("kind").and_then(Node::as_str);
    if let (Some(kind), Some(Node { value: Value::List(items), .. })) = (kind, node.get("items"))
        && kind.ends_with("List")
    {
        for (i, item) in items.iter().enumerate() {
            let dot = if path.is_empty() { "" } else { "." };
            resources(file, item, &format!("{path}{dot}items[{i}]"), documents);
        }
        return;
    }
    documents.push(document(file, node, path));
}

fn document(file: &Path, node: &Node, path: &str) -> Document {
    let faults = Faults::default();
    let field = Field::new(node, path, &faults);
    let (id, content) = match etcd::key(node) {
        Some(key) => etcd::read(&field, key),
        None => (identity::of(node), resource(&field)),
    };
    let faults = faults.into_list();
    let refused = faults.iter().any(|fault| fault.severity == Severity::Error);
    let name = id.as_ref().map(ResourceId::to_string);
    let problems = faults.into_iter().map(|fault| Problem {
        resource: name.clone(),
        severity: fault.severity,
        ..Problem::at(file, fault.at, &fault.message).in_field(&fault.field)
    });
    Document {
        at: node.at,
        id,
        problems: problems.collect(),
        content: if refused { Content::Refused } else { content },
    }
}

/// Reads a resource of any kind. A fault makes the result meaningless.
fn resource(document: &Field<'_>) -> Content {
    let mut fields = document.fields();
    let version = fields.required("apiVersion");
    let Some(kind_field) = fields.required("kind") else { return Content::Refused };
    let Some(kind) = kind_field.string() else { return Content::Refused };
    let right_version =
        |expected: &str| match version.as_ref().and_then(|field| Some((field, field.string()?))) {
            Some((field, version)) if version != expected => {
                field.error(format!("`{version}` is not the apiVersion of a {kind}; write {expected}"));
            }
            _ => {}
        };
    match kind {
        "WorkloadEndpoint" => {
            right_version(CALICO);
            content(read(fields, endpoint::read).map(Resource::WorkloadEndpoint))
        }
        "Node" => {
            right_version(CALICO);
            content(read(fields, node::read).map(Resource::Node))
        }
        "BGPConfiguration" => {
            right_version(CALICO);
            content(read(fields, bgp_configuration::read).map(Resource::BgpConfiguration))
        }
        "BGPPeer" => {
            right_version(CALICO);
            content(read(fields, bgp_peer::read).map(Resource::BgpPeer))
        }
        "NetworkPolicy" => {
            right_version(CALICO);
            read(fields, policy::read_namespaced).unwrap_or(Content::Refused)
        }
        "GlobalNetworkPolicy" => {
            right_version(CALICO);
            read(fields, policy::read_global).unwrap_or(Content::Refused)
        }
        "Tier" => {
            right_version(CALICO);
            content(read(fields, tier::read).map(Resource::Tier))
        }
        "Profile" => {
            right_version(CALICO);
            content(read(fields, profile::read).map(Resource::Profile))
        }
        "NetworkSet" => {
            right_version(CALICO);
            content(read(fields, network_set::read_namespaced).map(Resource::NetworkSet))
        }
        "GlobalNetworkSet" => {
            right_version(CALICO);
            content(read(fields, network_set::read_global).map(Resource::NetworkSet))
        }
        "Subnet" => {
            right_version(SERVAL);
            content(read(fields, subnet::read).map(Resource::Subnet))
        }
        kind if UNUSED.contains(&kind) => {
            right_version(CALICO);
            kind_field.note(format!("{kind} is not used by this version"));
            Content::Unused
        }
        kind => {
            kind_field.error(format!(
                "unknown kind `{kind}`; used are WorkloadEndpoint, NetworkPolicy, GlobalNetworkPolicy, Tier, Profile, NetworkSet, GlobalNetworkSet, Node, BGPConfiguration and BGPPeer ({CALICO}), and Subnet ({SERVAL})"
            ));
            Content::Refused
        }
    }
}

/// Reads one kind's fields and refuses the others.
fn read<'a, T>(mut fields: Fields<'a>, kind: fn(&mut Fields<'a>) -> Option<T>) -> Option<T> {
    let read = kind(&mut fields);
    fields.end();
    read
}

fn content(resource: Option<Resource>) -> Content {
    resource.map_or(Content::Refused, |resource| Content::Resource(Box::new(resource)))
}
