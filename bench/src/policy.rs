//! The policy of a measurement, which every arm that knows policy obeys in its own words: as Calico documents
//! ([`documents`](Policy::documents)), as Felix writes it for ip6tables ([`felix`]), and as a plain nftables ruleset
//! ([`nftables`]). Pure.
//!
//! The VMs may send anything. Who may reach them is a list of rules, of which the last lets in whoever is in a set, as
//! the default security group of OpenStack does. None before it matches the frames that are measured: a list that ends
//! early would be a short one. A rule that does not match is told from the address alone, which is cheapest for who asks
//! one rule after the other.

pub mod felix;
pub mod nftables;

use crate::carrier::{ALL, End};
use anyhow::{Result, anyhow, bail, ensure};
use serval::plan::policy::{Policies, Tunnels, policies};
use serval::resource::document::{Content, Format, parse};
use serval::resource::{EndpointName, Resources};
use serval_tests::frame::mac_text;
use std::net::Ipv6Addr;
use std::path::Path;

/// How long the list is, and how large the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Rules for packets to a VM, the last one included.
    pub rules: u32,
    /// Addresses in the set of the last rule, those of the VMs included.
    pub members: u32,
    /// How many VMs it is about, of [`ALL`].
    pub vms: usize,
}

/// The node whose endpoints they are.
const NODE: &str = "bench";
/// Label of the VMs and of the set.
const ROLE: &str = "role == 'vm'";

impl Policy {
    /// What a VM of a cloud has where nothing else is said.
    pub const USUAL: Self = Self { rules: 10, members: 2, vms: 2 };
    /// The same with two more VMs.
    pub const CROWD: Self = Self { members: 4, vms: 4, ..Self::USUAL };

    /// The VMs that it is about.
    pub fn vms(self) -> &'static [End] {
        &ALL[..self.vms.min(ALL.len())]
    }

    /// Source prefixes and destination ports of all rules but the last.
    pub fn others(self) -> impl Iterator<Item = (String, u16)> {
        let rule = |number: u32| {
            let prefix = Ipv6Addr::from(0x2001_0db8_f000_0000_u128 << 64 | u128::from(number) << 64);
            (format!("{prefix}/64"), 1024 + (number % 50_000) as u16)
        };
        (0..self.rules.saturating_sub(1)).map(rule)
    }

    /// Addresses in the set.
    pub fn members(self) -> impl Iterator<Item = Ipv6Addr> {
        let others = (0..self.members.saturating_sub(self.vms().len() as u32))
            .map(|number| Ipv6Addr::from(0x2001_0db8_e000_0000_u128 << 64 | u128::from(number)));
        self.vms().iter().map(|end| end.address).chain(others)
    }

    /// As an operator writes it.
    pub fn documents(self) -> String {
        let mut text = String::new();
        for end in self.vms() {
            let (tap, mac, address) = (end.tap, mac_text(end.mac), end.address);
            text += &format!(
                "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {{ name: {tap}, labels: {{ role: vm }} }}\n\
                     spec: {{ node: {NODE}, interfaceName: {tap}, mac: '{mac}', ipNetworks: ['{address}/128'] }}\n---\n"
            );
        }
        let nets: Vec<String> =
            self.members().skip(self.vms().len()).map(|address| format!("'{address}/128'")).collect();
        if !nets.is_empty() {
            text += &format!(
                "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {{ name: members, labels: {{ role: vm }} }}\n\
                     spec: {{ nets: [{}] }}\n---\n",
                nets.join(", ")
            );
        }
        text += &format!(
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{ name: bench }}\n\
                 spec:\n  selector: {ROLE}\n  types: [Ingress, Egress]\n  egress: [{{ action: Allow }}]\n  ingress:\n"
        );
        for (prefix, port) in self.others() {
            text += &format!(
                "    - {{ action: Allow, protocol: UDP, source: {{ nets: ['{prefix}'] }}, destination: {{ ports: [{port}] }} }}\n"
            );
        }
        text += &format!("    - {{ action: Allow, source: {{ selector: \"{ROLE}\" }} }}\n");
        text
    }

    /// As the daemon compiles it.
    pub fn compiled(self) -> Result<Policies> {
        let mut resources = Resources::default();
        let documents = parse(Path::new("bench.yaml"), Format::Yaml, self.documents().as_bytes());
        for document in documents.map_err(|problem| anyhow!("documents of the measurement: {problem:?}"))? {
            ensure!(document.problems.is_empty(), "a document of the measurement: {:?}", document.problems);
            match document.content {
                Content::Resource(resource) => resources.insert(*resource),
                other => bail!("a document of the measurement is no resource: {other:?}"),
            }
        }
        Ok(policies(&resources, NODE, Tunnels::default()))
    }
}

/// The endpoint of an end, if it has one there.
pub fn endpoint<'a>(policies: &'a Policies, tap: &str) -> Option<&'a EndpointName> {
    policies.endpoints.keys().find(|name| name.name == tap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_compile_for_all_vms() {
        let (short, long) =
            (Policy { rules: 1, ..Policy::USUAL }, Policy { rules: 1000, members: 10_000, ..Policy::USUAL });
        for policy in [short, Policy::USUAL, long, Policy::CROWD] {
            let compiled = policy.compiled().unwrap();
            assert_eq!(compiled.endpoints.len(), policy.vms);
            for end in policy.vms() {
                let name = endpoint(&compiled, end.tap).unwrap();
                let chains = &compiled.endpoints[name];
                assert_eq!(chains.applied.len(), 1);
                assert!(chains.ingress.steps.len() >= policy.rules as usize, "{policy:?}");
            }
        }
    }

    #[test]
    fn only_the_last_rule_is_about_the_vms() {
        let policy = Policy { rules: 1000, members: 100, ..Policy::USUAL };
        assert_eq!((policy.others().count(), policy.members().count()), (999, 100));
        for (prefix, _) in policy.others() {
            assert!(prefix.starts_with("2001:db8:f000"), "{prefix}");
        }
        assert!(policy.vms().iter().all(|end| policy.members().any(|member| member == end.address)));
    }
}
