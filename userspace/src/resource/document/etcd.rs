//! Keys and values as networking-calico writes them to etcd: `{"key": "/calico/...", "value": {...}}`.

use super::super::{Resource, ResourceId};
use super::fields::Field;
use super::tree::{Node, Value};
use super::{Content, identity, metadata, resource, subnet};

/// The key, when a document has this form.
pub(super) fn key(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Map(entries) if entries.len() == 2 => {
            node.get("value")?;
            node.get("key")?.as_str()
        }
        _ => None,
    }
}

/// Reads the value according to its key.
pub(super) fn read(document: &Field<'_>, key: &str) -> (Option<ResourceId>, Content) {
    let mut fields = document.fields();
    let key_field = fields.required("key");
    let value = fields.required("value");
    fields.end();
    let (Some(key_field), Some(value)) = (key_field, value) else { return (None, Content::Refused) };
    if key.starts_with("/calico/resources/v3/projectcalico.org/") {
        return (identity::of(value.node), resource(&value));
    }
    if let Some(name) = subnet_name(key) {
        if !metadata::is_name(name) {
            key_field.error("the subnet's id, the last part of the key, is no name");
            return (None, Content::Refused);
        }
        let content = match subnet::read_etcd(&value, name) {
            Some(subnet) => Content::Resource(Box::new(Resource::Subnet(subnet))),
            None => Content::Unused,
        };
        return (Some(ResourceId::Subnet(name.to_owned())), content);
    }
    if key.starts_with("/calico/") {
        key_field.note("not used by this version");
        return (None, Content::Unused);
    }
    key_field.error("not a key of Calico's: those begin with /calico/");
    (None, Content::Refused)
}

/// The subnet's id in `/calico/dhcp/v2/<region>/subnet/<id>`.
fn subnet_name(key: &str) -> Option<&str> {
    let (_region, rest) = key.strip_prefix("/calico/dhcp/v2/")?.split_once('/')?;
    rest.strip_prefix("subnet/")
}
