//! What policy says of the first packet of a flow: the first step of a chain that matches it.
//!
//! Three or four lookups say which steps do not mind who the packet is from, whom it goes to, and what it is; the lowest
//! bit that they have in common is the first step that matches, however many there are. `plan::policy::classify` in
//! userspace makes the tables and says why they are such.

use crate::abi::{
    Address, Chain, End, PeerKey, ServiceKey, Step, StepKey, Steps, VECTOR_WORDS, Vector, chain_flags,
    step_actions,
};

/// Most steps that are taken: each `Pass` or `Log` on the way is one. Userspace refuses chains that need more.
pub const MOST_STEPS: usize = 32;

/// What policy looks up.
pub trait Policies {
    /// The chain of this number.
    fn chain(&self, chain: u32) -> Option<&Chain>;

    /// Who has an address; `NOBODY` if no policy cares.
    fn identity(&self, address: &Address) -> u32;

    /// The steps that an identity matches.
    fn peer(&self, key: &PeerKey) -> Option<&Steps>;

    /// The steps that a protocol and port match.
    fn service(&self, key: &ServiceKey) -> Option<&Steps>;

    /// The words of a long chain's steps.
    fn vector(&self, vector: u32) -> Option<&Vector>;

    /// What a step does.
    fn step(&self, key: &StepKey) -> Option<&Step>;
}

/// What policy looks at in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Protocol of the upper layer.
    pub protocol: u8,
    /// Source port; 0 of what has no ports.
    pub source_port: u16,
    /// Destination port, or ICMPv6 type and code; 0 of what has neither.
    pub destination_port: u16,
}

/// What policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The packet may pass in this direction.
    pub allowed: bool,
    /// The step that decided; [`Decision::NO_STEP`] if tables are missing.
    pub step: u32,
    /// Where that step is counted.
    pub counter: u32,
    /// The first step that logs it, if any does.
    pub logged: Option<u32>,
}

impl Decision {
    /// No step: something that should be there is not, and nothing passes.
    pub const NO_STEP: u32 = u32::MAX;

    /// What is missing is counted here, too.
    pub const CLOSED: Self = Self { allowed: false, step: Self::NO_STEP, counter: 0, logged: None };
}

/// The four vectors that a packet's steps have in common.
struct Common<'t> {
    source: &'t Steps,
    destination: &'t Steps,
    service: &'t Steps,
    source_port: &'t Steps,
}

/// Asks a chain about a packet.
#[inline(always)]
pub fn evaluate<T: Policies>(tables: &T, number: u32, subject: &Subject) -> Decision {
    let Some(chain) = tables.chain(number) else { return Decision::CLOSED };
    let common = Common {
        source: if chain.flags & chain_flags::SOURCE == 0 {
            &chain.source
        } else {
            let key = PeerKey::new(number, End::Source, tables.identity(&subject.source));
            tables.peer(&key).unwrap_or(&chain.source)
        },
        destination: if chain.flags & chain_flags::DESTINATION == 0 {
            &chain.destination
        } else {
            let key = PeerKey::new(number, End::Destination, tables.identity(&subject.destination));
            tables.peer(&key).unwrap_or(&chain.destination)
        },
        service: if chain.flags & chain_flags::SERVICE == 0 {
            &chain.service
        } else {
            let key = ServiceKey::new(number, End::Destination, subject.protocol, subject.destination_port);
            tables.service(&key).unwrap_or(&chain.service)
        },
        source_port: if chain.flags & chain_flags::SOURCE_PORT == 0 {
            &chain.source_port
        } else {
            let key = ServiceKey::new(number, End::Source, subject.protocol, subject.source_port);
            tables.service(&key).unwrap_or(&chain.source_port)
        },
    };
    let long = chain.flags & chain_flags::LONG != 0;
    let mut logged = None;
    let mut from = 0;
    for _ in 0..MOST_STEPS {
        let first = if long { common.first_of_long(tables, from) } else { common.first(from) };
        let Some(step) = first else { return Decision::CLOSED };
        let Some(entry) = tables.step(&StepKey { chain: number, step }) else { return Decision::CLOSED };
        match entry.action {
            step_actions::ALLOW => return Decision { allowed: true, step, counter: entry.counter, logged },
            step_actions::GO_TO => from = entry.next,
            step_actions::LOG => {
                logged = logged.or(Some(step));
                from = step + 1;
            }
            _ => return Decision { allowed: false, step, counter: entry.counter, logged },
        }
    }
    Decision::CLOSED
}

impl Common<'_> {
    #[inline(always)]
    fn summary(&self) -> u64 {
        self.source.summary & self.destination.summary & self.service.summary & self.source_port.summary
    }

    /// The first step from `from` on, of a chain whose steps are its summaries.
    #[inline(always)]
    fn first(&self, from: u32) -> Option<u32> {
        lowest(self.summary() & not_before(from))
    }

    /// The first step from `from` on, of a chain whose steps are in vectors.
    #[inline(always)]
    fn first_of_long<T: Policies>(&self, tables: &T, from: u32) -> Option<u32> {
        let source = tables.vector(self.source.vector)?;
        let destination = tables.vector(self.destination.vector)?;
        let service = tables.vector(self.service.vector)?;
        let source_port = tables.vector(self.source_port.vector)?;
        let mut words = self.summary() & not_before(from / 64);
        for _ in 0..VECTOR_WORDS {
            let number = lowest(words)?;
            let index = number as usize % VECTOR_WORDS;
            let mut word = source.words[index]
                & destination.words[index]
                & service.words[index]
                & source_port.words[index];
            if number == from / 64 {
                word &= not_before(from % 64);
            }
            if let Some(bit) = lowest(word) {
                return Some(number * 64 + bit);
            }
            words &= words - 1;
        }
        None
    }
}

/// Bits from `from` on.
#[inline(always)]
fn not_before(from: u32) -> u64 {
    if from >= 64 { 0 } else { u64::MAX << from }
}

/// The lowest bit.
#[inline(always)]
fn lowest(word: u64) -> Option<u32> {
    if word == 0 { None } else { Some(word.trailing_zeros()) }
}
