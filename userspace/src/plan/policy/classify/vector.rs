//! Bits of steps.

/// Most steps of a chain: 64 words of 64 bits.
pub const STEPS: usize = 64 * 64;

/// A set of steps. Words at the end that are zero are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vector(Vec<u64>);

impl Vector {
    /// The steps whose bit is `true`.
    pub fn of(bits: impl IntoIterator<Item = bool>) -> Self {
        let mut words = Vec::new();
        for (number, bit) in bits.into_iter().enumerate() {
            if bit {
                words.resize(number / 64 + 1, 0);
                words[number / 64] |= 1 << (number % 64);
            }
        }
        Self(words)
    }

    /// Bit n: word n is not zero.
    pub fn summary(&self) -> u64 {
        let bits = self.0.iter().zip(0..64).filter(|(word, _)| **word != 0);
        bits.fold(0, |summary, (_, bit)| summary | 1 << bit)
    }

    /// A word; those beyond the last are zero.
    pub fn word(&self, number: usize) -> u64 {
        self.0.get(number).copied().unwrap_or(0)
    }
}
