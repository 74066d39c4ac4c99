//! What BGP identifies things by, checked when it is made; used by the configuration and by Calico's resources alike.

use super::NameError;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Number of an autonomous system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsNumber(u32);

impl AsNumber {
    /// Checks that `number` may be a speaker's own: not 0 (RFC 7607), AS_TRANS (RFC 6793) or the last ones (RFC 7300).
    pub fn new(number: u32) -> Result<Self, NameError> {
        match number {
            0 | 23_456 | 65_535 | u32::MAX => {
                Err(NameError(format!("AS {number} is reserved; private ones are 64512 to 65534")))
            }
            _ => Ok(Self(number)),
        }
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for AsNumber {
    /// Calico's: the first private one.
    fn default() -> Self {
        Self(64_512)
    }
}

impl FromStr for AsNumber {
    type Err = NameError;

    /// Plain or dotted (RFC 5396).
    fn from_str(text: &str) -> Result<Self, NameError> {
        let number = match text.split_once('.') {
            None => text.parse().ok(),
            Some((high, low)) => high
                .parse()
                .ok()
                .zip(low.parse().ok())
                .map(|(high, low): (u16, u16)| u32::from(high) << 16 | u32::from(low)),
        };
        let wrong = || NameError(format!("`{text}` is no AS number; write one like 64512"));
        number.ok_or_else(wrong).and_then(Self::new)
    }
}

impl fmt::Display for AsNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A BGP identifier, written as an IPv4 address and no more than that: a router's or a cluster's. Not zero (RFC 6286).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BgpId(Ipv4Addr);

impl BgpId {
    /// An identifier made from a name: the same wherever it is computed, and different for different names but for one
    /// pair in 3.7 billion. Its first byte is that of a unicast address, because some speakers insist on one.
    pub fn of_name(name: &str) -> Self {
        // FNV-1a.
        let hash = name
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let [a, b, c, d] = hash.to_be_bytes();
        Self(Ipv4Addr::new(1 + a % 223, b, c, d))
    }
}

impl TryFrom<Ipv4Addr> for BgpId {
    type Error = NameError;

    fn try_from(address: Ipv4Addr) -> Result<Self, NameError> {
        if address.is_unspecified() {
            return Err(NameError("`0.0.0.0` is no BGP identifier; write one like 192.0.2.1".to_owned()));
        }
        Ok(Self(address))
    }
}

impl FromStr for BgpId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let address: Ipv4Addr = text
            .parse()
            .map_err(|_| NameError(format!("`{text}` is no BGP identifier; write one like 192.0.2.1")))?;
        Self::try_from(address)
    }
}

impl fmt::Display for BgpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for BgpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A mark on a route: a community (RFC 1997) or a large one (RFC 8092).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// `64512:100`.
    Standard(u16, u16),
    /// `64512:100:1`.
    Large(u32, u32, u32),
}

impl FromStr for Community {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parts: Vec<&str> = text.split(':').collect();
        let community = match parts[..] {
            [a, b] => a.parse().ok().zip(b.parse().ok()).map(|(a, b)| Self::Standard(a, b)),
            [a, b, c] => {
                let numbers = [a, b, c].map(|part| part.parse().ok());
                match numbers {
                    [Some(a), Some(b), Some(c)] => Some(Self::Large(a, b, c)),
                    _ => None,
                }
            }
            _ => None,
        };
        community.ok_or_else(|| {
            NameError(format!(
                "`{text}` is no community; write one like 64512:100 (16 bits each) or 64512:100:1 (32 bits each)"
            ))
        })
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(a, b) => write!(f, "{a}:{b}"),
            Self::Large(a, b, c) => write!(f, "{a}:{b}:{c}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_numbers_are_plain_or_dotted_and_not_reserved() {
        assert_eq!("64512".parse(), Ok(AsNumber::default()));
        assert_eq!("1.10".parse::<AsNumber>().map(AsNumber::get), Ok(65_546));
        for text in [
            "",
            "0",
            "0.0",
            "65535",
            "0.65535",
            "23456",
            "4294967295",
            "4294967296",
            "1.2.3",
            "x",
            "-1",
            "65536.1",
        ] {
            assert!(text.parse::<AsNumber>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_makes_an_identifier_that_any_speaker_takes() {
        let ids: std::collections::BTreeSet<BgpId> =
            (0..10_000).map(|i| BgpId::of_name(&format!("compute-{i}.example"))).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| (1..=223).contains(&id.0.octets()[0])));
        assert_eq!(BgpId::of_name("compute-1"), BgpId::of_name("compute-1"));
        assert!("0.0.0.0".parse::<BgpId>().is_err());
    }

    #[test]
    fn communities_are_pairs_or_triples() {
        assert_eq!("64512:100".parse(), Ok(Community::Standard(64_512, 100)));
        assert_eq!("4200000000:1:2".parse(), Ok(Community::Large(4_200_000_000, 1, 2)));
        for text in ["", "1", "65536:1", "1:65536", "1:2:3:4", "1:2:4294967296", "a:b", "1::2"] {
            assert!(text.parse::<Community>().is_err(), "{text}");
        }
    }
}
