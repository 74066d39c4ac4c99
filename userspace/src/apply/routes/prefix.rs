//! IPv6 prefixes, ordered so that what a prefix covers is one range.

use std::fmt;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

/// An IPv6 prefix; bits beyond its length are zero.
///
/// The order is by address, then by length. Whatever a prefix covers comes right after it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    bits: u128,
    length: u8,
}

impl Prefix {
    /// The one that has all addresses.
    pub const ALL: Self = Self { bits: 0, length: 0 };

    /// The prefix of `length` bits that has `address`; `None` when it is longer than an address.
    pub fn new(address: Ipv6Addr, length: u8) -> Option<Self> {
        (length <= 128).then(|| Self { bits: address.to_bits() & mask(length), length })
    }

    /// Its first address.
    pub fn address(&self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.bits)
    }

    /// Its length in bits.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// It has one address only.
    pub fn is_host(&self) -> bool {
        self.length == 128
    }

    /// It and everything it covers.
    pub fn covered(&self) -> RangeInclusive<Self> {
        *self..=Self { bits: self.bits | !mask(self.length), length: 128 }
    }

    /// Everything that covers it, longest first, without itself.
    pub fn covering(&self) -> impl Iterator<Item = Self> + use<> {
        let bits = self.bits;
        (0..self.length).rev().map(move |length| Self { bits: bits & mask(length), length })
    }

    /// No packet to an address of it is ever forwarded: link-local (RFC 4291 section 2.5.6) or multicast.
    pub fn is_never_forwarded(&self) -> bool {
        let first = self.address();
        (first.is_multicast() && self.length >= 8) || (first.is_unicast_link_local() && self.length >= 10)
    }
}

fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix::new(address.parse().unwrap(), length.parse().unwrap()).unwrap()
    }

    #[test]
    fn bits_beyond_the_length_do_not_count() {
        assert_eq!(prefix("2001:db8::1/64"), prefix("2001:db8::/64"));
        assert_eq!(prefix("2001:db8::1/0").to_string(), "::/0");
        assert_eq!(prefix("::1/128").to_string(), "::1/128");
        assert_eq!(Prefix::new(Ipv6Addr::LOCALHOST, 129), None);
    }

    #[test]
    fn what_is_covered_is_one_range() {
        let covered = prefix("2001:db8::/32").covered();
        for inside in ["2001:db8::/32", "2001:db8::/33", "2001:db8::/128", "2001:db8:ffff:ffff::/64"] {
            assert!(covered.contains(&prefix(inside)), "{inside}");
        }
        for outside in ["2001:db8::/31", "::/0", "2001:db7::/64", "2001:db9::/32"] {
            assert!(!covered.contains(&prefix(outside)), "{outside}");
        }
        assert!(prefix("::/0").covered().contains(&prefix("ffff::/16")));
    }

    #[test]
    fn what_covers_comes_longest_first() {
        let covering: Vec<_> = prefix("8000::/2").covering().collect();
        assert_eq!(covering, [prefix("8000::/1"), prefix("::/0")]);
        assert_eq!(prefix("::/0").covering().count(), 0);
    }

    #[test]
    fn link_local_and_multicast_are_never_forwarded() {
        for never in ["fe80::/10", "fe80::/64", "fe80::1/128", "ff00::/8", "ff02::1/128"] {
            assert!(prefix(never).is_never_forwarded(), "{never}");
        }
        for perhaps in ["::/0", "fe00::/8", "fec0::/10", "f000::/4", "2001:db8::/32"] {
            assert!(!prefix(perhaps).is_never_forwarded(), "{perhaps}");
        }
    }
}
