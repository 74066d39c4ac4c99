//! Whatever a VM writes, the answer is well-formed or none.

use super::wire::{
    ADVERTISE, Built, CLIENT, CLIENT_ID, FOREIGN, FQDN, IA_PD, IA_TA, LEASED, RAPID_COMMIT, REPLY, SERVER_ID,
    option, options,
};
use super::{no_address, two_addresses};
use crate::config::Duid;
use crate::plan::Attached;
use crate::serve::dhcp6::{ALL_SERVERS, Request, answer};
use crate::serve::fixture;
use proptest::prelude::*;
use std::net::Ipv6Addr;

fn endpoints() -> impl Strategy<Value = Attached> {
    prop_oneof![Just(fixture::endpoint()), Just(two_addresses()), Just(no_address())]
}

/// A message of any type with the options that lead deepest into the server, in any order.
fn messages() -> impl Strategy<Value = Built> {
    let option = prop_oneof![
        Just(option(CLIENT_ID, CLIENT)),
        Just(option(SERVER_ID, Duid::default().as_bytes())),
        Just(option(RAPID_COMMIT, &[])),
        Just(Built(vec![]).ia_na(1, &[LEASED, FOREIGN]).0),
        Just(Built(vec![]).ia_na(2, &[]).0),
        Just(Built(vec![]).oro(&[23, 24, 32, 39, 56, 82]).0),
        Just(option(IA_TA, &[0; 4])),
        Just(option(IA_PD, &[0; 12])),
        Just(option(FQDN, &[1, 0])),
        (any::<u16>(), proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(code, data)| option(code, &data)),
    ];
    (0u8..16, proptest::collection::vec(option, 0..12)).prop_map(|(kind, options)| {
        let mut built = Built::new(kind);
        built.0.extend(options.concat());
        built
    })
}

/// What holds for every answer: it is well-formed, short enough and a server's.
fn check(endpoint: &Attached, payload: &[u8], destination: Ipv6Addr) {
    if let Ok(answer) = answer(endpoint, &Duid::default(), Request { destination, payload }) {
        assert!(answer.payload.len() + 48 <= endpoint.mtu as usize);
        assert!([ADVERTISE, REPLY].contains(&answer.payload[0]));
        assert_eq!(answer.payload[1..4], payload[1..4]);
        let options = options(&answer.payload[4..]);
        assert!(options.iter().any(|option| option.0 == SERVER_ID));
        assert!(answer.payload[0] == REPLY || !options.iter().any(|option| option.0 == RAPID_COMMIT));
    }
}

proptest! {
    #[test]
    fn survives_any_bytes(
        endpoint in endpoints(),
        payload in proptest::collection::vec(any::<u8>(), 0..600),
        to_all: bool,
    ) {
        check(&endpoint, &payload, if to_all { ALL_SERVERS } else { endpoint.gateway });
    }

    #[test]
    fn survives_messages_gone_wrong(
        endpoint in endpoints(),
        message in messages(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        end in any::<prop::sample::Index>(),
        cut: bool,
    ) {
        let mut payload = message.0;
        check(&endpoint, &payload, ALL_SERVERS);
        for (at, byte) in flips {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        if cut {
            payload.truncate(end.index(payload.len()));
        }
        check(&endpoint, &payload, ALL_SERVERS);
    }
}
