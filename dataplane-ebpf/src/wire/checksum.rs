//! The Internet checksum (RFC 1071): a ones' complement sum of 16-bit words. It is the same in either byte order, so
//! words are added as the machine loads them.

use crate::abi::Address;

/// A running sum, unfolded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum(u64);

impl Checksum {
    /// Adds a sum that another means made, folded or not.
    #[inline(always)]
    #[must_use]
    pub const fn add_sum(self, sum: u32) -> Self {
        Self(self.0 + sum as u64)
    }

    /// Adds eight bytes, loaded as they stand in memory.
    #[inline(always)]
    #[must_use]
    pub const fn add_word(self, word: u64) -> Self {
        Self(self.0 + (word & 0xffff_ffff) + (word >> 32))
    }

    /// Adds an address.
    #[inline(always)]
    #[must_use]
    pub const fn add_address(self, address: Address) -> Self {
        let [a, b] = address.words();
        self.add_word(a).add_word(b)
    }

    /// Adds the two bytes of a field as they stand in memory.
    #[inline(always)]
    #[must_use]
    pub const fn add_field(self, field: [u8; 2]) -> Self {
        Self(self.0 + u16::from_ne_bytes(field) as u64)
    }

    /// Takes two bytes out of the sum again.
    #[inline(always)]
    #[must_use]
    pub const fn remove_field(self, field: [u8; 2]) -> Self {
        Self(self.0 + !u16::from_ne_bytes(field) as u64)
    }

    /// Takes an address out of the sum again.
    #[inline(always)]
    #[must_use]
    pub const fn remove_address(self, address: Address) -> Self {
        let [a, b] = address.words();
        self.add_word(!a).add_word(!b)
    }

    /// The sum as one 16-bit word, in memory order.
    #[inline(always)]
    pub const fn fold(self) -> u16 {
        let mut sum = self.0;
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum as u16
    }

    /// The sum covers a correct checksum field.
    #[inline(always)]
    pub const fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }

    /// The checksum field for the summed bytes.
    #[inline(always)]
    pub const fn field(self) -> [u8; 2] {
        (!self.fold()).to_ne_bytes()
    }
}

/// Sum of the pseudo-header (RFC 8200 section 8.1). `length` is the upper layer's, in bytes.
#[inline(always)]
pub const fn pseudo_header(source: Address, destination: Address, length: usize, protocol: u8) -> Checksum {
    Checksum(0)
        .add_address(source)
        .add_address(destination)
        .add_sum((length as u32).to_be())
        .add_field([0, protocol])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn by_the_book(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    proptest! {
        #[test]
        fn agrees_with_the_book(bytes in proptest::collection::vec(any::<[u8; 8]>(), 0..200)) {
            let sum = bytes.iter().fold(Checksum::default(), |sum, w| sum.add_word(u64::from_ne_bytes(*w)));
            let expected = by_the_book(&bytes.concat());
            prop_assert_eq!(sum.fold().to_ne_bytes(), expected.to_be_bytes());
        }

        #[test]
        fn removing_undoes_adding(words: Vec<u64>, address: [u8; 16], field: [u8; 2]) {
            let address = Address::new(address);
            let sum = words.iter().fold(Checksum::default().add_field([0, 1]), |sum, w| sum.add_word(*w));
            let there_and_back =
                sum.add_address(address).add_field(field).remove_address(address).remove_field(field);
            prop_assert_eq!(sum.fold() % 0xffff, there_and_back.fold() % 0xffff);
        }

        #[test]
        fn field_makes_the_sum_valid(words: Vec<u64>) {
            let sum = words.iter().fold(Checksum::default(), |sum, w| sum.add_word(*w));
            prop_assert!(sum.add_field(sum.field()).is_valid());
        }
    }
}
