//! Router solicitations (RFC 4861 section 6.1.1) that reach the daemon because no hook answered them. Pure.

use crate::plan::Attached;
use std::net::Ipv6Addr;

const ROUTER_SOLICITATION: u8 = 133;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;

/// Whether `message`, from its ICMPv6 header on, is a solicitation of the endpoint's VM that deserves an answer. The
/// kernel has verified its checksum.
pub(super) fn is_valid(endpoint: &Attached, source: Ipv6Addr, hop_limit: u8, message: &[u8]) -> bool {
    let Some((&[kind, code, ..], options)) = message.split_first_chunk::<8>() else {
        return false;
    };
    // Linux may solicit from a global address of the interface.
    let is_its_own = source.is_unspecified()
        || source.is_unicast_link_local()
        || endpoint.addresses.iter().any(|address| address.get() == source);
    kind == ROUTER_SOLICITATION
        && code == 0
        && hop_limit == 255
        && is_its_own
        && options_are_valid(options, source.is_unspecified())
}

/// Every option has a length, and an unspecified source has no link-layer address.
fn options_are_valid(mut options: &[u8], from_unspecified: bool) -> bool {
    while let [kind, length, ..] = *options {
        let Some((_, rest)) = options.split_at_checked(usize::from(length) * 8) else {
            return false;
        };
        if length == 0 || (kind == SOURCE_LINK_LAYER_ADDRESS && from_unspecified) {
            return false;
        }
        options = rest;
    }
    options.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::fixture;

    const RS: [u8; 8] = [133, 0, 0, 0, 0, 0, 0, 0];
    const WITH_SLLAO: [u8; 16] = [133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0xfa, 0x16, 0x3e, 0, 0, 1];

    fn valid(source: &str, hop_limit: u8, message: &[u8]) -> bool {
        is_valid(&fixture::endpoint(), source.parse().unwrap(), hop_limit, message)
    }

    #[test]
    fn what_a_guest_sends() {
        assert!(valid("fe80::1", 255, &WITH_SLLAO));
        assert!(valid("fe80::1", 255, &RS), "optimistic DAD leaves the address out (RFC 4429)");
        assert!(valid("::", 255, &RS));
        assert!(valid("2001:db8:a41:2::11", 255, &WITH_SLLAO));
        let unknown_option = [&RS[..], &[200, 1, 0, 0, 0, 0, 0, 0]].concat();
        assert!(valid("::", 255, &unknown_option));
    }

    #[test]
    fn what_is_ignored() {
        assert!(!valid("fe80::1", 254, &RS));
        assert!(!valid("::", 255, &WITH_SLLAO));
        assert!(!valid("2001:db8::bad", 255, &RS));
        assert!(!valid("ff02::1", 255, &RS));
        assert!(!valid("fe80::1", 255, &RS[..7]));
        assert!(!valid("fe80::1", 255, &[133, 1, 0, 0, 0, 0, 0, 0]));
        assert!(!valid("fe80::1", 255, &[134, 0, 0, 0, 0, 0, 0, 0]));
        for options in [&[1][..], &[1, 0, 0, 0, 0, 0, 0, 0], &[1, 2, 0, 0, 0, 0, 0, 0], &[1, 1, 0, 0]] {
            assert!(!valid("fe80::1", 255, &[&RS[..], options].concat()), "{options:?}");
        }
    }
}
