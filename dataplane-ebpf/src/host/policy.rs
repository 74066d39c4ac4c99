//! Compiled policy and flows in plain memory.

use super::{Arena, MemoryEvents};
use crate::abi::{
    Address, Chain, ChainPair, Flow, FlowKey, Identity, NOBODY, PeerKey, RingPlace, SERVICE_PROTOCOL_BITS,
    ServiceKey, Step, StepKey, Steps, Vector,
};
use crate::decide::event::{self, Told};
use crate::decide::flow::{self, Change, Flows, Question};
use crate::decide::policy::{self, Decision, LongSteps, Policies};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// The maps of policy and flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryPolicies {
    /// `GENERATION`.
    pub generation: Cell<u64>,
    /// The clock of [`Flow::seen`].
    pub now: Cell<u32>,
    /// `HOST_IS_OPEN`.
    pub host_is_open: bool,
    /// `HOST_IS_JUDGED`.
    pub host_is_judged: bool,
    /// Flows of an endpoint.
    pub quota: u32,
    /// `POLICIES`, as of now.
    pub endpoints: BTreeMap<u32, ChainPair>,
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
    /// `FLOWS`.
    pub flows: RefCell<BTreeMap<FlowKey, Flow>>,
    /// `FLOW_RINGS`.
    pub rings: RefCell<BTreeMap<RingPlace, FlowKey>>,
    /// Next places.
    pub hands: RefCell<BTreeMap<u32, u32>>,
    /// Flows that found no place, by endpoint.
    pub pressure: RefCell<BTreeMap<u32, u64>>,
    /// Flows that were handed out; they may have changed since.
    pub flows_shown: Arena<Flow>,
    /// The same of what has places.
    pub keys_shown: Arena<FlowKey>,
    /// `RULE_COUNTERS`.
    pub rules: RefCell<BTreeMap<u32, u64>>,
    /// What is told.
    pub events: MemoryEvents,
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
        identity.map_or(NOBODY, |identity| identity.at(self.generation.get()))
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

    fn search(&self, long: &LongSteps) -> u32 {
        policy::search(self, long)
    }
}

impl Flows for MemoryPolicies {
    fn flow(&self, key: &FlowKey) -> Option<&Flow> {
        self.flows.borrow().get(key).map(|flow| self.flows_shown.keep(*flow))
    }

    fn now(&self) -> u32 {
        self.now.get()
    }

    fn generation(&self) -> u64 {
        self.generation.get()
    }

    fn chains(&self, ifindex: u32) -> Option<ChainPair> {
        self.endpoints.get(&ifindex).copied()
    }

    fn update(&self, key: &FlowKey, change: Change) {
        if let Some(flow) = self.flows.borrow_mut().get_mut(key) {
            let Change { seen, generation, flags, without, way } = change;
            let way = if way.is_some() { way } else { flow.way };
            *flow = Flow { seen, generation, flags: flow.flags & !without | flags, way, ..*flow };
        }
    }

    fn insert(&self, key: &FlowKey, flow: &Flow) -> bool {
        self.flows.borrow_mut().insert(*key, *flow);
        true
    }

    fn remove(&self, key: &FlowKey) {
        self.flows.borrow_mut().remove(key);
    }

    fn next_place(&self, owner: u32) -> Option<u32> {
        let mut hands = self.hands.borrow_mut();
        let hand = hands.entry(owner).or_default();
        *hand = hand.wrapping_add(1);
        hand.checked_rem(self.quota)
    }

    fn at_place(&self, place: &RingPlace) -> Option<&FlowKey> {
        self.rings.borrow().get(place).map(|key| self.keys_shown.keep(*key))
    }

    fn take_place(&self, place: &RingPlace, key: &FlowKey) -> bool {
        self.rings.borrow_mut().insert(*place, *key);
        true
    }

    fn with_scratch<R>(&self, _: R, act: impl FnOnce(&mut Flow, &mut FlowKey) -> R) -> R {
        act(&mut Flow::default(), &mut FlowKey::default())
    }

    fn count_pressure(&self, owner: u32) {
        *self.pressure.borrow_mut().entry(owner).or_default() += 1;
    }

    fn host_is_open(&self) -> bool {
        self.host_is_open
    }

    fn host_is_judged(&self) -> bool {
        self.host_is_judged
    }

    fn count_rule(&self, counter: u32) {
        *self.rules.borrow_mut().entry(counter).or_default() += 1;
    }

    fn tell(&self, question: &Question, told: Told) {
        event::tell(&self.events, question, told);
    }

    fn known(&self, question: &Question, asked: bool) -> u32 {
        flow::known(self, question, asked)
    }

    fn begin(&self, question: &Question) {
        flow::begin(self, question);
    }

    fn begin_fragments(&self, question: &Question) {
        flow::begin_fragments(self, question);
    }

    fn evaluate(&self, chain: u32, question: &Question, answer: bool) -> Decision {
        Decision::from_bits(policy::evaluate(self, chain, &question.subject(answer)).to_bits())
    }
}
