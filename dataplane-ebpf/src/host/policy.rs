//! Compiled policy in plain memory.

use crate::abi::{
    Address, Chain, Identity, NOBODY, PeerKey, SERVICE_PROTOCOL_BITS, ServiceKey, Step, StepKey, Steps,
    Vector,
};
use crate::decide::policy::Policies;
use std::collections::BTreeMap;

/// The maps of policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryPolicies {
    /// `GENERATION`.
    pub generation: u64,
    /// `CHAINS`.
    pub chains: BTreeMap<u32, Chain>,
    /// `IDENTITIES`: address and length of the prefix.
    pub identities: BTreeMap<(Address, u8), Identity>,
    /// `PEERS`.
    pub peers: BTreeMap<PeerKey, Steps>,
    /// `SERVICES`: key and length of the prefix in bits.
    pub services: BTreeMap<(ServiceKey, u32), Steps>,
    /// `VECTORS`.
    pub vectors: BTreeMap<u32, Vector>,
    /// `STEPS`.
    pub steps: BTreeMap<StepKey, Step>,
}

impl Policies for MemoryPolicies {
    fn chain(&self, chain: u32) -> Option<&Chain> {
        self.chains.get(&chain)
    }

    fn identity(&self, address: &Address) -> u32 {
        let bits = u128::from_be_bytes(address.octets());
        let mut prefixes = (0..=128u8).rev().map(|length| {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            (Address::new((bits & mask).to_be_bytes()), length)
        });
        let identity = prefixes.find_map(|prefix| self.identities.get(&prefix));
        identity.map_or(NOBODY, |identity| identity.at(self.generation))
    }

    fn peer(&self, key: &PeerKey) -> Option<&Steps> {
        self.peers.get(key)
    }

    fn service(&self, key: &ServiceKey) -> Option<&Steps> {
        let bits = u64::from_be_bytes(key.0);
        (SERVICE_PROTOCOL_BITS..=64).rev().find_map(|length| {
            let mask = u64::MAX << (64 - length);
            self.services.get(&(ServiceKey((bits & mask).to_be_bytes()), length))
        })
    }

    fn vector(&self, vector: u32) -> Option<&Vector> {
        self.vectors.get(&vector)
    }

    fn step(&self, key: &StepKey) -> Option<&Step> {
        self.steps.get(key)
    }
}
