//! Frames and tables in plain memory: what the decision runs on outside the kernel.

mod arena;
mod events;
mod limits;
mod policy;

pub use arena::Arena;
pub use events::MemoryEvents;
pub use limits::MemoryLimits;
pub use policy::MemoryPolicies;

use crate::abi::{
    Address, Advertisement, COUNTER_SLOTS, Counter, Counters, Endpoint, NextHopGroup, Owner, Reason, Route,
    Uplink,
};
use crate::decide::event::{self, Told};
use crate::decide::flow::{self, Flows, Question};
use crate::decide::{Hook, Tables};
use crate::wire::Frame;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A frame in a `Vec`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryFrame {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// See [`Frame::gso_size`].
    pub gso_size: usize,
    /// VLAN of the tag that was taken out of the bytes.
    pub vlan: Option<u16>,
    /// See [`Frame::needs_neighbour`].
    pub needs_neighbour: bool,
}

impl Frame for MemoryFrame {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn gso_size(&self) -> usize {
        self.gso_size
    }

    fn is_tagged(&self) -> bool {
        self.vlan.is_some()
    }

    fn vlan_id(&self) -> u16 {
        self.vlan.unwrap_or(0)
    }

    fn needs_neighbour(&self, _ifindex: u32, _source: [u64; 2], _destination: [u64; 2]) -> bool {
        self.needs_neighbour
    }

    fn view<T: FromBytes + Immutable + KnownLayout + Unaligned>(&self, offset: usize) -> Option<&T> {
        T::ref_from_prefix(self.bytes.get(offset..)?).ok().map(|(view, _)| view)
    }

    fn view_mut<T: FromBytes + IntoBytes + KnownLayout + Unaligned>(
        &mut self,
        offset: usize,
    ) -> Option<&mut T> {
        T::mut_from_prefix(self.bytes.get_mut(offset..)?).ok().map(|(view, _)| view)
    }

    fn load<T: FromBytes + IntoBytes>(&self, offset: usize) -> Option<T> {
        T::read_from_prefix(self.bytes.get(offset..)?).ok().map(|(copy, _)| copy)
    }

    fn sum(&self, offset: usize, len: usize) -> Option<u32> {
        let bytes = self.bytes.get(offset..offset + len)?;
        Some(
            bytes
                .chunks(2)
                .map(|pair| u32::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
                .sum(),
        )
    }

    fn resize(&mut self, len: usize) -> bool {
        self.bytes.resize(len, 0xee);
        true
    }

    fn store(&mut self, bytes: &[u8]) -> bool {
        self.bytes[..bytes.len()].copy_from_slice(bytes);
        true
    }
}

/// Tables in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryTables {
    /// `ENDPOINTS`.
    pub endpoints: BTreeMap<u32, Endpoint>,
    /// `ADDRESSES`.
    pub addresses: BTreeMap<Address, Owner>,
    /// `ANSWERS`.
    pub answers: BTreeMap<u32, Box<Advertisement>>,
    /// `HOST_ROUTES`.
    pub host_routes: BTreeMap<Address, Route>,
    /// `ROUTES`, by prefix and its length in bits.
    pub routes: BTreeMap<(Address, u8), Route>,
    /// `NEXT_HOPS`.
    pub next_hops: BTreeMap<u32, NextHopGroup>,
    /// `UPLINKS`.
    pub uplinks: BTreeMap<u32, Uplink>,
    /// `DEVICES`.
    pub devices: BTreeSet<u32>,
    /// TAPs whose multicast answers are used up.
    pub multicast_spent: RefCell<BTreeSet<u32>>,
    /// Rates, and `ALLOWANCES`, if anything is limited.
    pub limits: Option<MemoryLimits>,
    /// `PASS_UNCONFIGURED`.
    pub pass_unconfigured: bool,
    /// The epoch of forwarding, raised by whoever changes what ways depend on.
    pub epoch: u64,
    /// Policy and flows, if policy counts (`POLICED`).
    pub policies: Option<MemoryPolicies>,
    /// What is told of drops by the guard.
    pub drops: MemoryEvents,
    /// `COUNTERS`.
    pub counters: RefCell<BTreeMap<u32, Counters>>,
}

impl std::fmt::Debug for Advertisement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Advertisement").field("len", &self.len).finish_non_exhaustive()
    }
}

impl MemoryTables {
    /// All counters that are not zero, by slot and label.
    pub fn counted(&self) -> BTreeMap<(u32, &'static str), u64> {
        self.counters
            .borrow()
            .iter()
            .flat_map(|(slot, counters)| labelled(counters).into_iter().map(|(label, n)| ((*slot, label), n)))
            .collect()
    }
}

/// The counters that are not zero, by label.
pub fn labelled(counters: &Counters) -> BTreeMap<&'static str, u64> {
    let counted = Counter::ALL.iter().map(|c| (c.label(), counters.get(*c)));
    let dropped = Reason::ALL.iter().map(|r| (r.label(), counters.dropped(*r)));
    counted.chain(dropped).filter(|(_, n)| *n > 0).collect()
}

impl Tables for MemoryTables {
    fn endpoint(&self, ifindex: u32) -> Option<&Endpoint> {
        self.endpoints.get(&ifindex)
    }

    fn owner(&self, address: &Address) -> Option<&Owner> {
        self.addresses.get(address)
    }

    fn advertisement(&self, ifindex: u32) -> Option<&Advertisement> {
        self.answers.get(&ifindex).map(|boxed| &**boxed)
    }

    fn host_route(&self, address: &Address) -> Option<&Route> {
        self.host_routes.get(address)
    }

    fn route(&self, address: &Address) -> Option<&Route> {
        let has = |prefix: &Address, length: u8| {
            let differ = u128::from_be_bytes(prefix.octets()) ^ u128::from_be_bytes(address.octets());
            differ.leading_zeros() >= u32::from(length)
        };
        let matching = self.routes.iter().filter(|((prefix, length), _)| has(prefix, *length));
        matching.max_by_key(|((_, length), _)| *length).map(|(_, route)| route)
    }

    fn next_hops(&self, group: u32) -> Option<&NextHopGroup> {
        self.next_hops.get(&group)
    }

    fn uplink(&self, ifindex: u32) -> Option<&Uplink> {
        self.uplinks.get(&ifindex)
    }

    fn may_multicast(&self, ifindex: u32) -> bool {
        self.multicast_spent.borrow_mut().insert(ifindex)
    }

    fn may_answer(&self, ifindex: u32, endpoint: &Endpoint) -> bool {
        self.limits.as_ref().is_none_or(|limits| limits.may_answer(ifindex, endpoint.slot))
    }

    fn may_hand_over(&self, ifindex: u32, endpoint: &Endpoint, source: &Address) -> Result<(), Reason> {
        self.limits.as_ref().map_or(Ok(()), |limits| limits.may_hand_over(ifindex, endpoint.slot, source))
    }

    fn may_resolve(&self, ifindex: u32, endpoint: &Endpoint) -> bool {
        self.limits.as_ref().is_none_or(|limits| limits.may_resolve(ifindex, endpoint.slot))
    }

    fn choose_device(&self, ifindex: u32, hook: Hook) -> bool {
        hook == Hook::Tc || self.devices.contains(&ifindex)
    }

    fn is_policed(&self) -> bool {
        self.policies.is_some()
    }

    fn flows(&self) -> Option<&impl Flows> {
        self.policies.as_ref()
    }

    fn with_question<R>(&self, _: R, act: impl FnOnce(&mut Question) -> R) -> R {
        act(&mut Question { epoch: self.epoch, ..Question::default() })
    }

    fn judge(&self, fill: impl FnOnce(&mut Question) -> Result<bool, Reason>) -> Result<(), Reason> {
        let Some(policies) = &self.policies else { return Ok(()) };
        let mut question = Question { epoch: self.epoch, ..Question::default() };
        if fill(&mut question)? { flow::judge(policies, &question) } else { Ok(()) }
    }

    fn tell_drop(&self, reason: Reason, fill: impl FnOnce(&mut Question)) {
        let mut question = Question::default();
        fill(&mut question);
        event::tell(&self.drops, &question, Told::dropped(reason));
    }

    fn pass_unconfigured(&self) -> bool {
        self.pass_unconfigured
    }

    fn count(&self, slot: u32, index: usize) {
        assert!(index < COUNTER_SLOTS, "no counter {index}");
        self.counters.borrow_mut().entry(slot).or_default().values[index] += 1;
    }
}
