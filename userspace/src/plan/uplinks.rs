//! Which interfaces are uplinks.

use super::HostFacts;
use crate::resource::{InterfaceName, MacAddress};
use std::collections::{BTreeMap, BTreeSet};

/// An interface towards other hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub interface: InterfaceName,
    /// Its MAC.
    pub mac: MacAddress,
}

/// The uplinks by ifindex: those that are `configured`, or when none is, those that routes to other hosts use. Only what
/// is up and carries Ethernet frames can be one, and a VM's TAP is none.
pub fn uplinks(
    facts: &HostFacts,
    configured: &[InterfaceName],
    used: &BTreeSet<u32>,
    tap_prefix: &str,
) -> BTreeMap<u32, Uplink> {
    let wanted = |name: &str, ifindex: u32| match configured {
        [] => used.contains(&ifindex),
        names => names.iter().any(|configured| configured.as_str() == name),
    };
    let links = facts
        .links
        .iter()
        .filter(|(name, link)| link.admin_up && !name.starts_with(tap_prefix) && wanted(name, link.ifindex));
    links
        .filter_map(|(name, link)| {
            Some((link.ifindex, Uplink { interface: name.parse().ok()?, mac: link.mac? }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::LinkFacts;

    #[test]
    fn configured_ones_or_those_that_routes_use() {
        let link = |ifindex, admin_up, mac: Option<&str>| LinkFacts {
            ifindex,
            mac: mac.map(|mac| mac.parse().unwrap()),
            mtu: 1500,
            admin_up,
            carrier: true,
            tap: false,
        };
        let mac = Some("02:00:00:00:00:01");
        let facts = HostFacts {
            links: [
                ("eth0", link(2, true, mac)),
                ("eth1", link(3, true, mac)),
                ("eth2", link(4, false, mac)),
                ("lo", link(1, true, None)),
                ("tap0", link(5, true, mac)),
            ]
            .map(|(name, link)| (name.to_owned(), link))
            .into(),
        };
        let names = |configured: &[&str], used: &[u32]| -> Vec<String> {
            let configured: Vec<InterfaceName> =
                configured.iter().map(|name| name.parse().unwrap()).collect();
            let found = uplinks(&facts, &configured, &used.iter().copied().collect(), "tap");
            found.into_values().map(|uplink| uplink.interface.to_string()).collect()
        };
        assert_eq!(names(&[], &[]), [""; 0]);
        assert_eq!(names(&[], &[1, 2, 4, 5, 9]), ["eth0"]);
        assert_eq!(names(&["eth1", "eth2", "lo", "tap0", "gone"], &[2]), ["eth1"]);
    }
}
