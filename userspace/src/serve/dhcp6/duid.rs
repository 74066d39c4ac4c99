//! DHCP unique identifiers (RFC 8415 section 11).

use std::fmt;
use std::str::FromStr;

/// A DUID: an opaque identifier of 3 to 130 bytes, the type code included.
#[derive(Clone, PartialEq, Eq)]
pub struct Duid(Vec<u8>);

/// Why a DUID is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no DUID: write 3 to 130 hex bytes with colons between, the two bytes of the type first, \
     like 00:04:… for a UUID"
)]
pub struct DuidError(String);

impl Duid {
    /// Fewest bytes.
    pub const SHORTEST: usize = 3;
    /// Most bytes.
    pub const LONGEST: usize = 130;

    /// The identifier of every server whose configuration names none. A client that moved to another host asks for the
    /// server it knows, so the hosts must share one; beyond a TAP nobody sees it, so the whole world may.
    pub fn shared() -> Self {
        let uuid = 0xeeef_e066_6c1c_5b0e_a463_1011_0b4b_ec54_u128;
        let mut bytes = vec![0, 4];
        bytes.extend_from_slice(&uuid.to_be_bytes());
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Default for Duid {
    fn default() -> Self {
        Self::shared()
    }
}

impl FromStr for Duid {
    type Err = DuidError;

    fn from_str(text: &str) -> Result<Self, DuidError> {
        let byte = |hex: &str| match hex.as_bytes() {
            [a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => u8::from_str_radix(hex, 16).ok(),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        bytes
            .filter(|bytes| (Self::SHORTEST..=Self::LONGEST).contains(&bytes.len()))
            .map(Self)
            .ok_or_else(|| DuidError(text.to_owned()))
    }
}

impl fmt::Display for Duid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            let colon = if i == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Duid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints() {
        let shared = Duid::shared();
        assert_eq!(shared.to_string().parse(), Ok(shared));
    }

    #[test]
    fn refuses_what_is_no_duid() {
        let long = ["00"; 131].join(":");
        for text in ["", "00:04", "00:04:1", "00:04:+1", "0004aa", "00:04:xx", "00:04:aa:", &long] {
            assert!(text.parse::<Duid>().is_err(), "{text}");
        }
        assert!(["00"; 130].join(":").parse::<Duid>().is_ok());
    }
}
