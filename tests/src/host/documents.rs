//! Resource documents as the cloud writes them.

use crate::frame::{Mac, mac_text};
use std::net::Ipv6Addr;

/// A WorkloadEndpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name, in the namespace `default`.
    pub name: String,
    /// Its TAP.
    pub tap: String,
    /// MAC of the VM.
    pub mac: Mac,
    /// What is leased.
    pub addresses: Vec<Ipv6Addr>,
    /// Labels, besides `vm` with its name.
    pub labels: Vec<(String, String)>,
}

/// A Subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Its name.
    pub name: String,
    /// Its prefix.
    pub cidr: String,
    /// More lines of its `spec`, as YAML without indentation.
    pub more: Vec<String>,
}

impl Endpoint {
    /// An endpoint with one address, on the TAP `tap` + its name.
    pub fn new(name: &str, mac: Mac, address: Ipv6Addr) -> Self {
        Self {
            name: name.to_owned(),
            tap: format!("tap{name}"),
            mac,
            addresses: vec![address],
            labels: Vec::new(),
        }
    }

    /// The document, on `node`.
    pub fn document(&self, node: &str) -> String {
        let addresses: Vec<_> = self.addresses.iter().map(|address| format!("{address}/128")).collect();
        let labels: String = self.labels.iter().map(|(label, value)| format!(", {label}: {value}")).collect();
        format!(
            "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata:\n  name: {0}\n  labels: {{ vm: {0}{labels} }}\n\
             spec:\n  node: {node}\n  interfaceName: {1}\n  mac: {2}\n  ipNetworks: [{3}]\n",
            self.name,
            self.tap,
            mac_text(self.mac),
            addresses.iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", "),
        )
    }
}

/// A GlobalNetworkPolicy for whom `selector` chooses, with more of its `spec` as YAML in one line.
pub fn policy(name: &str, selector: &str, more: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{ name: {name} }}\n\
         spec: {{ selector: \"{selector}\", {more} }}\n"
    )
}

impl Subnet {
    /// A Subnet with nothing but its prefix.
    pub fn new(name: &str, cidr: &str) -> Self {
        Self { name: name.to_owned(), cidr: cidr.to_owned(), more: Vec::new() }
    }

    /// The document.
    pub fn document(&self) -> String {
        let more: String = self.more.iter().map(|line| format!("  {line}\n")).collect();
        format!(
            "apiVersion: serval/v1\nkind: Subnet\nmetadata:\n  name: {}\nspec:\n  cidr: {}\n{more}",
            self.name, self.cidr,
        )
    }
}
