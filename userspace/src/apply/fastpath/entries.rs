//! What the maps hold for an endpoint: a pure function of the plan.

use super::FastPathError;
use crate::plan::Attached;
use dataplane_ebpf::abi::{
    ADVERTISEMENT_CAPACITY, Address, Advertisement, Endpoint, Mac, Owner, SLOT_UNCONFIGURED, endpoint_flags,
    owner_flags,
};
use dataplane_ebpf::host::MemoryTables;
use std::collections::{BTreeMap, BTreeSet};

/// Value of `ADDRESSES` for a gateway address. It is the host's, so it is the same for all endpoints that share it.
pub const GATEWAY: Owner = Owner {
    ifindex: 0,
    mtu: 0,
    slot: 0,
    flags: owner_flags::GATEWAY,
    mac: Mac::new([0; 6]),
    gateway_mac: Mac::new([0; 6]),
};

/// The map entries of one endpoint.
#[derive(Clone)]
pub struct Entries {
    /// Its `ENDPOINTS` value.
    pub endpoint: Endpoint,
    /// Its `ADDRESSES` values.
    pub owners: BTreeMap<Address, Owner>,
    /// Its gateway addresses, which it may share with others.
    pub gateways: BTreeSet<Address>,
    /// Its `ANSWERS` value; without one, the daemon answers its solicitations.
    pub answer: Option<Advertisement>,
    /// XDP may redirect to it: it is in `DEVICES`.
    pub reachable: bool,
}

impl Entries {
    /// What the maps hold for `attached`, counted in `slot`, with `advertisement` as its router advertisement frame.
    pub fn new(attached: &Attached, slot: u32, advertisement: &[u8]) -> Result<Self, FastPathError> {
        let too_long = || FastPathError::AdvertisementTooLong {
            interface: attached.interface.to_string(),
            length: advertisement.len(),
            capacity: ADVERTISEMENT_CAPACITY,
        };
        let answer = match advertisement {
            [] => None,
            frame => Some(Advertisement::new(frame).ok_or_else(too_long)?),
        };
        Ok(Self { answer, ..Self::without_answer(attached, slot) })
    }

    fn without_answer(attached: &Attached, slot: u32) -> Self {
        let (mac, gateway_mac) = (Mac::new(attached.mac.octets()), Mac::new(attached.gateway_mac.octets()));
        let up = attached.admin_up;
        let owner = Owner {
            ifindex: attached.ifindex,
            mtu: attached.mtu,
            slot,
            flags: if up { owner_flags::REACHABLE } else { 0 },
            mac,
            gateway_mac,
        };
        let gateways: BTreeSet<Address> = attached.gateways.iter().map(|a| a.get().into()).collect();
        // An address that is also a gateway's stays the host's: a VM must not get what others send to their router.
        let owned =
            || attached.addresses.iter().map(|a| Address::from(a.get())).filter(|a| !gateways.contains(a));
        let owners = owned().map(|a| (a, owner)).collect();
        let endpoint = Endpoint {
            address: owned().next().unwrap_or(Address::UNSPECIFIED),
            gateway: attached.gateway.into(),
            mac,
            gateway_mac,
            mtu: attached.mtu,
            slot,
            flags: if up { endpoint_flags::ADMIN_UP } else { 0 },
        };
        Self { endpoint, owners, gateways, answer: None, reachable: up }
    }
}

/// `ENDPOINTS` and `ADDRESSES` of these endpoints in memory, for deciding as the hooks do where there are none.
pub fn in_memory<'a>(endpoints: impl IntoIterator<Item = &'a Attached>) -> MemoryTables {
    let mut tables = MemoryTables::default();
    let mut gateways = BTreeSet::new();
    for attached in endpoints {
        let entries = Entries::without_answer(attached, SLOT_UNCONFIGURED);
        tables.endpoints.insert(attached.ifindex, entries.endpoint);
        tables.addresses.extend(entries.owners);
        gateways.extend(entries.gateways);
    }
    tables.addresses.extend(gateways.into_iter().map(|address| (address, GATEWAY)));
    tables
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::NetworkSettings;
    use crate::resource::{HostAddress, MacAddress};

    fn address(text: &str) -> HostAddress {
        HostAddress::new(text.parse().unwrap()).unwrap()
    }

    fn attached() -> Attached {
        let gateway_mac: MacAddress = "fe:16:3e:00:00:01".parse().unwrap();
        Attached {
            interface: "tap1".parse().unwrap(),
            ifindex: 7,
            admin_up: true,
            carrier: true,
            mtu: 1500,
            mac: "fa:16:3e:00:00:01".parse().unwrap(),
            gateway_mac,
            gateway: gateway_mac.link_local(),
            gateways: vec![address("2001:db8::1")],
            leased: vec![address("2001:db8::10")],
            addresses: vec![address("2001:db8::10"), address("2001:db8::11")],
            network: NetworkSettings::default(),
        }
    }

    #[test]
    fn an_endpoint_that_is_up_is_reachable_under_its_addresses() {
        let entries = Entries::new(&attached(), 3, &[1, 2, 3]).unwrap();
        assert_eq!(entries.endpoint.flags, endpoint_flags::ADMIN_UP);
        assert_eq!(entries.endpoint.slot, 3);
        assert_eq!(entries.endpoint.address, "2001:db8::10".parse::<std::net::Ipv6Addr>().unwrap().into());
        assert_eq!(entries.owners.len(), 2);
        assert!(
            entries
                .owners
                .values()
                .all(|o| o.ifindex == 7 && o.flags == owner_flags::REACHABLE && o.slot == 3)
        );
        assert!(entries.reachable);
        assert_eq!(entries.answer.map(|a| a.len), Some(3));
        // Every TAP answers for its own link-local address; in ADDRESSES it would be every TAP's.
        assert!(entries.gateways.iter().all(|a| !a.is_link_local()));
    }

    #[test]
    fn an_endpoint_that_is_down_keeps_its_addresses_and_is_not_reachable() {
        let entries = Entries::new(&Attached { admin_up: false, ..attached() }, 1, &[]).unwrap();
        assert_eq!(entries.endpoint.flags, 0);
        assert_eq!(entries.owners.len(), 2);
        assert!(entries.owners.values().all(|o| o.flags == 0));
        assert!(!entries.reachable && entries.answer.is_none());
    }

    #[test]
    fn a_gateway_address_is_nobodys_own() {
        let mut both = attached();
        both.gateways.push(address("2001:db8::10"));
        let entries = Entries::new(&both, 1, &[]).unwrap();
        assert_eq!(entries.owners.keys().collect::<Vec<_>>(), [&entries.endpoint.address]);
        assert_eq!(entries.gateways.len(), 2);
    }

    #[test]
    fn an_advertisement_that_is_too_long_is_refused_with_advice() {
        let error = Entries::new(&attached(), 1, &[0; ADVERTISEMENT_CAPACITY + 1]).err().unwrap();
        assert!(error.to_string().contains("fewer DNS servers"), "{error}");
        assert!(Entries::new(&attached(), 1, &[0; ADVERTISEMENT_CAPACITY]).is_ok());
    }
}
