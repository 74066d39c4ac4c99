//! IPv6 and MAC addresses as map keys and values: memory holds network byte order, words are only for fast compares.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IPv6 address. The words are the 16 bytes in network order as the machine loads them; compare them, but do not
/// do arithmetic on them.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Address {
    words: [u64; 2],
}

const _: () = assert!(size_of::<Address>() == 16 && align_of::<Address>() == 8);

const fn high(bytes: [u8; 8]) -> u64 {
    u64::from_ne_bytes(bytes)
}

impl Address {
    /// `::`
    pub const UNSPECIFIED: Self = Self { words: [0, 0] };
    /// `ff02::1`
    pub const ALL_NODES: Self = Self::new([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    /// `ff02::2`
    pub const ALL_ROUTERS: Self = Self::new([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);

    /// An address from its 16 bytes in network order.
    #[inline(always)]
    pub const fn new(b: [u8; 16]) -> Self {
        Self {
            words: [
                u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
                u64::from_ne_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
            ],
        }
    }

    /// The 16 bytes in network order.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 16] {
        let (a, b) = (self.words[0].to_ne_bytes(), self.words[1].to_ne_bytes());
        [a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]
    }

    /// An address from its two halves as loaded from memory.
    #[inline(always)]
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self { words }
    }

    /// The two halves as loaded from memory, for checksums.
    #[inline(always)]
    pub const fn words(self) -> [u64; 2] {
        self.words
    }

    /// `::`
    #[inline(always)]
    pub const fn is_unspecified(self) -> bool {
        self.words[0] == 0 && self.words[1] == 0
    }

    /// `::1`
    #[inline(always)]
    pub const fn is_loopback(self) -> bool {
        self.words[0] == 0 && self.words[1] == high([0, 0, 0, 0, 0, 0, 0, 1])
    }

    /// `ff00::/8`
    #[inline(always)]
    pub const fn is_multicast(self) -> bool {
        self.words[0] & high([0xff, 0, 0, 0, 0, 0, 0, 0]) == high([0xff, 0, 0, 0, 0, 0, 0, 0])
    }

    /// `fe80::/10`
    #[inline(always)]
    pub const fn is_link_local(self) -> bool {
        self.words[0] & high([0xff, 0xc0, 0, 0, 0, 0, 0, 0]) == high([0xfe, 0x80, 0, 0, 0, 0, 0, 0])
    }

    /// `::ffff:0:0/96`, which must not appear on a wire (RFC 4942 section 2.2).
    #[inline(always)]
    pub const fn is_v4_mapped(self) -> bool {
        const TOP: u64 = high([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        self.words[0] == 0 && self.words[1] & TOP == high([0, 0, 0xff, 0xff, 0, 0, 0, 0])
    }

    /// `ff02::1:ff00:0/104` (RFC 4291 section 2.7.1).
    #[inline(always)]
    pub const fn is_solicited_node(self) -> bool {
        const TOP: u64 = high([0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0]);
        self.words[0] == high([0xff, 2, 0, 0, 0, 0, 0, 0])
            && self.words[1] & TOP == high([0, 0, 0, 1, 0xff, 0, 0, 0])
    }
}

impl core::fmt::Debug for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&core::net::Ipv6Addr::from(self.octets()), f)
    }
}

impl From<core::net::Ipv6Addr> for Address {
    fn from(address: core::net::Ipv6Addr) -> Self {
        Self::new(address.octets())
    }
}

impl From<Address> for core::net::Ipv6Addr {
    fn from(address: Address) -> Self {
        Self::from(address.octets())
    }
}

/// An Ethernet address, bytes in wire order.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Mac {
    words: [u16; 3],
}

const _: () = assert!(size_of::<Mac>() == 6);

impl Mac {
    /// `00:00:00:00:00:00`, nobody's.
    pub const ZERO: Self = Self::new([0; 6]);
    /// `33:33:00:00:00:01`, where a frame to `ff02::1` goes (RFC 2464 section 7).
    pub const ALL_NODES: Self = Self::new([0x33, 0x33, 0, 0, 0, 1]);

    /// An Ethernet address from its bytes in wire order.
    #[inline(always)]
    pub const fn new(b: [u8; 6]) -> Self {
        Self {
            words: [
                u16::from_ne_bytes([b[0], b[1]]),
                u16::from_ne_bytes([b[2], b[3]]),
                u16::from_ne_bytes([b[4], b[5]]),
            ],
        }
    }

    /// The bytes in wire order.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 6] {
        let [a, b, c] =
            [self.words[0].to_ne_bytes(), self.words[1].to_ne_bytes(), self.words[2].to_ne_bytes()];
        [a[0], a[1], b[0], b[1], c[0], c[1]]
    }
}

impl core::fmt::Debug for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.octets();
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)`, no padding (`IntoBytes`), and every bit pattern is a value (`FromBytes`).
    unsafe impl aya::Pod for super::Address {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Mac {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv6Addr;

    #[test]
    fn classes_agree_with_the_standard_library() {
        for text in [
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ff05::1:3",
            "::ffff:192.0.2.1",
            "2001:db8::1",
            "fd00::1",
            "ff02::1:ff00:1",
            "::ffff:0:192.0.2.1",
        ] {
            let std: Ipv6Addr = text.parse().unwrap();
            let ours = Address::from(std);
            assert_eq!(ours.is_unspecified(), std.is_unspecified(), "{text}");
            assert_eq!(ours.is_loopback(), std.is_loopback(), "{text}");
            assert_eq!(ours.is_multicast(), std.is_multicast(), "{text}");
            assert_eq!(ours.is_link_local(), std.is_unicast_link_local(), "{text}");
            assert_eq!(ours.is_v4_mapped(), std.to_ipv4_mapped().is_some(), "{text}");
            assert_eq!(Ipv6Addr::from(ours), std);
        }
        assert!(Address::from("ff02::1:ffab:cdef".parse::<Ipv6Addr>().unwrap()).is_solicited_node());
        assert!(!Address::ALL_NODES.is_solicited_node());
    }

    #[test]
    fn mac_keeps_its_bytes() {
        let bytes = [0xfa, 0x16, 0x3e, 1, 2, 3];
        assert_eq!(Mac::new(bytes).octets(), bytes);
    }
}
