//! What is true of this host, as the plan sees it.

use crate::resource::MacAddress;
use std::collections::BTreeMap;

/// A network interface as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFacts {
    /// Its ifindex.
    pub ifindex: u32,
    /// Its MAC; `None` when it has none or one that is not a host's.
    pub mac: Option<MacAddress>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// `IFF_UP`.
    pub admin_up: bool,
    /// `IFF_LOWER_UP`.
    pub carrier: bool,
    /// It is a TAP: `IFLA_INFO_KIND` is `tun` and it has an Ethernet address.
    pub tap: bool,
}

/// What is true of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Interfaces by name.
    pub links: BTreeMap<String, LinkFacts>,
}
