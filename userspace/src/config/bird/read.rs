//! Values of `[bird]` as the file writes them; an error says what would be right.

use super::{Bfd, BirdConfig};
use crate::config::{absolute, parsed};
use crate::resource::{AsNumber, Community, HostAddress};
use ipnet::Ipv6Net;
use serde::de::{self, Error as _};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

/// A number as a number, or as a text.
struct NumberOrText;

impl de::Visitor<'_> for NumberOrText {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an AS number like 64512")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

pub(super) fn as_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AsNumber, D::Error> {
    deserializer.deserialize_any(NumberOrText)?.parse().map_err(de::Error::custom)
}

pub(super) fn some_as_number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<AsNumber>, D::Error> {
    as_number(deserializer).map(Some)
}

pub(super) fn some_parsed<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    parsed(deserializer).map(Some)
}

pub(super) fn some_host_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<HostAddress>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let address: Ipv6Addr = text
        .parse()
        .map_err(|_| D::Error::custom(format!("`{text}` is no IPv6 address; write one like 2001:db8::1")))?;
    HostAddress::new(address).map(Some).map_err(de::Error::custom)
}

/// An absolute path that can be put between quotes in BIRD's configuration, which has no escapes and expands patterns.
pub(super) fn some_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = absolute(deserializer)?;
    let quotable =
        |text: &str| !text.contains(['"', '*', '?', '[', ']', '\\']) && !text.contains(char::is_control);
    if path.to_str().is_some_and(quotable) {
        Ok(Some(path))
    } else {
        Err(D::Error::custom(format!(
            "`{}` is a path that BIRD cannot be told; use one without quotes, `*`, `?`, `[` and `\\`",
            path.display()
        )))
    }
}

/// A network: no bits after the prefix.
pub(super) fn network<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ipv6Net, D::Error> {
    to_network(&String::deserialize(deserializer)?)
}

fn to_network<E: de::Error>(text: &str) -> Result<Ipv6Net, E> {
    let wrong = || E::custom(format!("`{text}` is no network; write one like 2001:db8:1::/48"));
    let net: Ipv6Net = text.parse().map_err(|_| wrong())?;
    if net.trunc() == net {
        Ok(net)
    } else {
        Err(E::custom(format!("`{text}` has bits after the prefix; write {}", net.trunc())))
    }
}

pub(super) fn prefixes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Ipv6Net>, D::Error> {
    Vec::<String>::deserialize(deserializer)?.iter().map(|text| to_network(text)).collect()
}

pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Ipv6Net>, D::Error> {
    let networks = prefixes(deserializer)?;
    if networks.is_empty() {
        return Err(D::Error::custom("no network at all would announce nothing; remove the key to mean all"));
    }
    match networks.iter().find(|net| !unicast(net)) {
        Some(net) => {
            Err(D::Error::custom(format!("`{net}` is no network of VMs; give global or unique local ones")))
        }
        None => Ok(networks),
    }
}

pub(super) fn aggregate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ipv6Net, D::Error> {
    let net = network(deserializer)?;
    if !unicast(&net) || !(16..=127).contains(&net.prefix_len()) {
        return Err(D::Error::custom(format!(
            "`{net}` is no aggregate of VMs' addresses; give a global or unique local network of length 16 to 127"
        )));
    }
    Ok(net)
}

/// Whether a network is in one of those that unicast addresses are from.
fn unicast(net: &Ipv6Net) -> bool {
    let unicast: Vec<Ipv6Net> = BirdConfig::NETWORKS.iter().filter_map(|text| text.parse().ok()).collect();
    unicast.iter().any(|all| all.contains(net))
}

pub(super) fn communities<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Community>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(de::Error::custom)).collect()
}

/// `false`, `true` or `"graceful"`.
pub(super) fn bfd<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bfd, D::Error> {
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = Bfd;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true, false or \"graceful\"")
        }

        fn visit_bool<E: de::Error>(self, on: bool) -> Result<Bfd, E> {
            Ok(if on { Bfd::On } else { Bfd::Off })
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Bfd, E> {
            if text == "graceful" {
                Ok(Bfd::Graceful)
            } else {
                Err(E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
    }
    deserializer.deserialize_any(Visitor)
}

fn number<'de, D: Deserializer<'de>>(
    deserializer: D,
    range: RangeInclusive<u16>,
    what: &str,
) -> Result<u16, D::Error> {
    let number = i64::deserialize(deserializer)?;
    u16::try_from(number).ok().filter(|number| range.contains(number)).ok_or_else(|| {
        D::Error::custom(format!("{number} is out of range: {} to {}{what}", range.start(), range.end()))
    })
}

pub(super) fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    number(deserializer, 1..=u16::MAX, "")
}

pub(super) fn paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    number(deserializer, 1..=255, " paths")
}

/// RFC 4271 section 4.2: 3 s at least.
pub(super) fn hold<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    number(deserializer, 3..=u16::MAX, " seconds")
}

/// RFC 4724 section 3: 12 bits.
pub(super) fn restart_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    number(deserializer, 1..=4095, " seconds")
}

pub(super) fn some_restart_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    restart_time(deserializer).map(Some)
}

pub(super) fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    number(deserializer, 10..=60_000, " milliseconds")
}

pub(super) fn multiplier<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    number(deserializer, 2..=255, "").and_then(|n| u8::try_from(n).map_err(D::Error::custom))
}

pub(super) fn some_hops<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    number(deserializer, 1..=255, " hops").and_then(|n| u8::try_from(n).map(Some).map_err(D::Error::custom))
}
