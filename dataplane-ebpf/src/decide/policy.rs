//! What policy says of the first packet of a flow: the first step of a chain that matches it.
//!
//! Three or four lookups say which steps do not mind who the packet is from, whom it goes to, and what it is; the lowest
//! bit that they have in common is the first step that matches, however many there are. `plan::policy::classify` in
//! userspace makes the tables and says why they are such.

use crate::abi::{
    Address, Chain, End, PeerKey, ServiceKey, Step, StepKey, Steps, VECTOR_WORDS, Vector, chain_flags,
    step_actions,
};
use core::hint::black_box;

/// Most steps that are taken: each `Pass` or `Log` on the way is one. Userspace writes no chain that needs more.
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

    /// [`search`]: in the kernel a function of its own, which the verifier looks at once.
    fn search(&self, long: &LongSteps) -> u32;
}

/// What policy looks at in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// Source address.
    pub source: &'a Address,
    /// Destination address.
    pub destination: &'a Address,
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

    /// As one word, for functions of their own; steps have 12 bits.
    #[inline(always)]
    pub fn to_bits(self) -> u64 {
        let step = if self.step == Self::NO_STEP { 1 << 2 } else { u64::from(self.step) << 8 };
        let logged = self.logged.map_or(0, |step| 1 << 1 | u64::from(step) << 20);
        u64::from(self.allowed) | step | logged | u64::from(self.counter) << 32
    }

    /// The inverse.
    #[inline(always)]
    pub fn from_bits(bits: u64) -> Self {
        let step = |shift: u32| (bits >> shift) as u32 & 0xfff;
        Self {
            allowed: bits & 1 != 0,
            step: if bits & 1 << 2 == 0 { step(8) } else { Self::NO_STEP },
            counter: (bits >> 32) as u32,
            logged: if bits & 1 << 1 == 0 { None } else { Some(step(20)) },
        }
    }
}

/// Asks a chain about a packet.
#[inline(always)]
pub fn evaluate<T: Policies>(tables: &T, number: u32, subject: &Subject<'_>) -> Decision {
    let Some(chain) = tables.chain(number) else { return Decision::CLOSED };
    let mut common = common(tables, number, chain, subject);
    let long = chain.flags & chain_flags::LONG != 0;
    let mut logged = None;
    for _ in 0..MOST_STEPS {
        let first =
            if long { tables.search(&common) } else { lowest(common.summary & not_before(common.from)) };
        if first == NONE {
            return Decision::CLOSED;
        }
        // Of a long chain it has been through a function, of which the verifier knows no more than the type.
        let step = first % (64 * VECTOR_WORDS as u32);
        let Some(entry) = tables.step(&StepKey { chain: number, step }) else { return Decision::CLOSED };
        match entry.action {
            step_actions::ALLOW => return Decision { allowed: true, step, counter: entry.counter, logged },
            step_actions::GO_TO => common.from = entry.next,
            step_actions::LOG => {
                logged = logged.or(Some(step));
                common.from = entry.next;
            }
            _ => return Decision { allowed: false, step, counter: entry.counter, logged },
        }
    }
    Decision::CLOSED
}

/// The steps of a chain that all parts of a packet have in common. They are copied from where they are found: with references
/// the verifier goes through all that follows once for every combination of maps that they may be in.
#[inline(always)]
fn common<T: Policies>(tables: &T, number: u32, chain: &Chain, subject: &Subject<'_>) -> LongSteps {
    let source = *if chain.flags & chain_flags::SOURCE == 0 {
        &chain.source
    } else {
        let key = PeerKey::new(number, End::Source, tables.identity(subject.source));
        tables.peer(&key).unwrap_or(&chain.source)
    };
    let destination = *if chain.flags & chain_flags::DESTINATION == 0 {
        &chain.destination
    } else {
        let key = PeerKey::new(number, End::Destination, tables.identity(subject.destination));
        tables.peer(&key).unwrap_or(&chain.destination)
    };
    let service = *if chain.flags & chain_flags::SERVICE == 0 {
        &chain.service
    } else {
        let key = ServiceKey::new(number, End::Destination, subject.protocol, subject.destination_port);
        tables.service(&key).unwrap_or(&chain.service)
    };
    let source_port = *if chain.flags & chain_flags::SOURCE_PORT == 0 {
        &chain.source_port
    } else {
        let key = ServiceKey::new(number, End::Source, subject.protocol, subject.source_port);
        tables.service(&key).unwrap_or(&chain.source_port)
    };
    LongSteps {
        summary: source.summary & destination.summary & service.summary & source_port.summary,
        vectors: [source.vector, destination.vector, service.vector, source_port.vector],
        from: 0,
        _reserved: 0,
    }
}

/// The steps that vectors have in common, from one on.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongSteps {
    /// Which words are not zero in any of them.
    pub summary: u64,
    /// Their keys.
    pub vectors: [u32; 4],
    /// The first step that counts.
    pub from: u32,
    /// Zero.
    pub _reserved: u32,
}

/// No step.
const NONE: u32 = u32::MAX;

/// The first step that all vectors have, or `u32::MAX`.
#[inline(always)]
pub fn search<T: Policies>(tables: &T, long: &LongSteps) -> u32 {
    let [a, b, c, d] = long.vectors;
    let (Some(a), Some(b), Some(c), Some(d)) =
        (tables.vector(a), tables.vector(b), tables.vector(c), tables.vector(d))
    else {
        return NONE;
    };
    let mut words = long.summary & not_before(long.from / 64);
    for _ in 0..VECTOR_WORDS {
        let number = lowest(words);
        if number == NONE {
            return NONE;
        }
        // The compiler knows that it is in range and would leave the check out; the verifier does not know it.
        let index = black_box(number) as usize % VECTOR_WORDS;
        let mut word = a.words[index] & b.words[index] & c.words[index] & d.words[index];
        if number == long.from / 64 {
            word &= not_before(long.from % 64);
        }
        if word != 0 {
            return number * 64 + lowest(word);
        }
        words &= words - 1;
    }
    NONE
}

/// Bits from `from` on.
#[inline(always)]
fn not_before(from: u32) -> u64 {
    if from >= 64 { 0 } else { u64::MAX << from }
}

/// The lowest bit.
#[inline(always)]
fn lowest(word: u64) -> u32 {
    if word == 0 { NONE } else { word.trailing_zeros() }
}
