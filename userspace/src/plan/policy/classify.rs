//! Chains as tables, so that a packet's cost hardly depends on how many steps there are.
//!
//! Every step is a bit. Who the source is, who the destination is, what protocol and port it is: each is one lookup, and
//! gives the bits of all steps that do not mind. What all of them have in common are the steps that match, and the lowest
//! is the first (Lakshman and Stiliadis, SIGCOMM 1998). Who somebody is, is an *identity*: all addresses that are in the
//! same sets have the same one, so a set of 10,000 members costs what one of two does, and a member that joins or leaves
//! touches one entry. This was chosen over a decision tree because any one of its tables can be changed alone, and over
//! hashing by tuples because Calico's rules have ranges and negations.
//!
//! A vector has up to [`STEPS`] bits: up to 64 words, and a summary that says which of them are not zero, by which words
//! are skipped (Baboescu and Varghese, SIGCOMM 2001). A chain of up to 64 steps is its summary alone.

mod encode;
mod identities;
mod services;
mod vector;

pub use encode::{ChainEntries, Vectors};
pub use identities::{Identities, IdentityId};
pub use services::Service;
pub use vector::{STEPS, Vector};

use super::chain::{Chain, EndMatch, Step};
use super::follow::followed;
use super::{EndpointPolicy, Policies};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A chain, by its place in [`Classifier::chains`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId(pub u32);

/// Everything by which packets of this node are classified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classifier {
    /// Who is who.
    pub identities: Identities,
    /// Every chain that some endpoint has, once.
    pub chains: Vec<ChainTables>,
}

/// A chain as tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainTables {
    /// Its steps, for what they do and where they come from.
    pub chain: Chain,
    /// Steps by the identity of the source.
    pub source: Peers,
    /// Steps by the identity of the destination.
    pub destination: Peers,
    /// Steps by protocol and destination port, or ICMPv6 type and code.
    pub service: Services,
    /// Steps by protocol and source port.
    pub source_port: Services,
}

/// Steps by identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// Of an identity that is not listed.
    pub otherwise: Vector,
    /// Of the others.
    pub by_identity: BTreeMap<IdentityId, Vector>,
}

/// Steps by protocol and port; the longest prefix counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// Of what is not listed.
    pub otherwise: Vector,
    /// Of the others.
    pub by_service: BTreeMap<Service, Vector>,
}

impl Classifier {
    /// Classifies by these policies; also says which chains each endpoint has, in the order of their names: ingress and
    /// egress.
    pub fn new(policies: &Policies) -> (Self, Vec<(ChainId, ChainId)>) {
        let identities = Identities::new(&policies.sets);
        let mut known: BTreeMap<&Chain, ChainId> = BTreeMap::new();
        let mut chains = Vec::new();
        let mut id = |chain| {
            *known.entry(chain).or_insert_with(|| {
                // What cannot be followed lets nothing pass.
                let chain = followed(chain).unwrap_or_else(|_| Cow::Owned(Chain::closed()));
                chains.push(ChainTables::new(&chain, &identities));
                ChainId(u32::try_from(chains.len() - 1).unwrap_or(u32::MAX))
            })
        };
        let endpoints = policies.endpoints.values();
        let of = endpoints.map(|EndpointPolicy { ingress, egress, .. }| (id(ingress), id(egress))).collect();
        (Self { identities, chains }, of)
    }
}

impl ChainTables {
    fn new(chain: &Chain, identities: &Identities) -> Self {
        Self {
            source: Peers::new(chain, identities, |step| &step.matching.source),
            destination: Peers::new(chain, identities, |step| &step.matching.destination),
            service: services::by_destination(chain),
            source_port: services::by_source(chain),
            chain: chain.clone(),
        }
    }
}

impl Peers {
    fn new(chain: &Chain, identities: &Identities, end: fn(&Step) -> &EndMatch) -> Self {
        let vector = |member: &dyn Fn(super::SetId) -> bool| {
            Vector::of(chain.steps.iter().map(|step| {
                let end = end(step);
                end.within.iter().all(|set| member(*set)) && !end.outside.iter().any(|set| member(*set))
            }))
        };
        let otherwise = vector(&|_| false);
        let by_identity = identities
            .iter()
            .map(|(id, sets)| (id, vector(&|set| sets.contains(&set))))
            .filter(|(_, steps)| *steps != otherwise)
            .collect();
        Self { otherwise, by_identity }
    }
}
