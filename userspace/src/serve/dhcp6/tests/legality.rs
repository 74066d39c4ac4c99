//! What a server must not answer, and what is no reason to be silent.

use super::wire::{
    Built, CLIENT, CLIENT_ID, CONFIRM, DECLINE, IA_NA, IA_PD, INFORMATION_REQUEST, LEASED, ORO, REBIND,
    RELEASE, RENEW, REPLY, REQUEST, Read, SERVER_ID, SOLICIT, STATUS_CODE, USE_MULTICAST, lease,
};
use crate::config::Duid;
use crate::serve::dhcp6::{ALL_SERVERS, Discard};
use crate::serve::fixture;

#[test]
fn identifiers_are_where_they_belong() {
    let endpoint = fixture::endpoint();
    for kind in [SOLICIT, CONFIRM, REBIND] {
        let built = Built::new(kind).ia_na(1, &[LEASED]);
        assert_eq!(built.ask(&endpoint), Err(Discard::ClientId));
        let built = Built::identified(kind).ia_na(1, &[LEASED]).option(SERVER_ID, Duid::default().as_bytes());
        assert_eq!(built.ask(&endpoint), Err(Discard::ServerId));
    }
    for kind in [REQUEST, RENEW, RELEASE, DECLINE] {
        let built = Built::new(kind).option(SERVER_ID, Duid::default().as_bytes());
        assert_eq!(built.ask(&endpoint), Err(Discard::ClientId));
        let built = Built::new(kind).option(CLIENT_ID, CLIENT);
        assert_eq!(built.ask(&endpoint), Err(Discard::ServerId));
        assert_eq!(built.option(SERVER_ID, &[0, 4, 1]).ask(&endpoint), Err(Discard::ServerId));
    }
    let other = Built::new(INFORMATION_REQUEST).option(SERVER_ID, &[0, 4, 1]);
    assert_eq!(other.ask(&endpoint), Err(Discard::ServerId));
    let long = Built::new(SOLICIT).option(CLIENT_ID, &[0; 131]);
    assert_eq!(long.ask(&endpoint), Err(Discard::ClientId));
    let empty = Built::new(SOLICIT).option(CLIENT_ID, &[]);
    assert_eq!(empty.ask(&endpoint), Err(Discard::ClientId));
}

#[test]
fn unicast_is_told_to_use_multicast_or_discarded() {
    let endpoint = fixture::endpoint();
    for kind in [REQUEST, RENEW, RELEASE, DECLINE] {
        let answer = Built::identified(kind)
            .ia_na(1, &[LEASED])
            .oro(&[23])
            .ask_at(&endpoint, endpoint.gateway)
            .unwrap();
        let read = Read::of(&answer.payload);
        let codes: Vec<u16> = read.options.iter().map(|option| option.0).collect();
        assert_eq!((read.kind, codes), (REPLY, vec![CLIENT_ID, SERVER_ID, STATUS_CODE]));
        assert_eq!(read.status(), USE_MULTICAST);
    }
    for kind in [SOLICIT, CONFIRM, REBIND, INFORMATION_REQUEST] {
        let built = Built::identified(kind);
        assert_eq!(built.ask_at(&endpoint, endpoint.gateway), Err(Discard::Destination));
    }
    let all_nodes = "ff02::1".parse().unwrap();
    assert_eq!(Built::identified(REQUEST).ask_at(&endpoint, all_nodes), Err(Discard::Destination));
}

#[test]
fn messages_of_servers_and_relays_are_discarded() {
    let endpoint = fixture::endpoint();
    let ours = [SOLICIT, REQUEST, CONFIRM, RENEW, REBIND, RELEASE, DECLINE, INFORMATION_REQUEST];
    for kind in (0..=255).filter(|kind| !ours.contains(kind)) {
        let built = Built::new(kind).option(CLIENT_ID, CLIENT).option(SERVER_ID, Duid::default().as_bytes());
        assert_eq!(built.ask(&endpoint), Err(Discard::NotFromAClient), "{kind}");
    }
}

#[test]
fn unknown_and_odd_options_are_no_reason_to_be_silent() {
    let endpoint = fixture::endpoint();
    let reply = Built::identified(SOLICIT)
        .option(65_000, &[1, 2, 3])
        .option(STATUS_CODE, &[])
        .option(16, &[0])
        .option(17, &[])
        .option(56, &[0, 9, 0, 200])
        .option(8, &[])
        .option(ORO, &[0, 23, 0])
        .ia_na(1, &[])
        .reply(&endpoint);
    assert_eq!(reply.associations(), [lease(1, &[LEASED])]);
    assert!(reply.has(23));
}

#[test]
fn what_is_cut_short_is_discarded() {
    let endpoint = fixture::endpoint();
    let whole = Built::identified(SOLICIT).ia_na(1, &[LEASED]);
    let ends: Vec<usize> =
        (0..=whole.0.len()).filter(|end| Built(whole.0[..*end].to_vec()).ask(&endpoint).is_ok()).collect();
    assert_eq!(ends, [4 + 4 + CLIENT.len(), whole.0.len()], "where an option ends, a message may end");
    for nested in [&[0, 0, 0][..], &[0; 11], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 24, 1]] {
        let built = Built::identified(SOLICIT).option(IA_NA, nested);
        assert_eq!(built.ask(&endpoint), Err(Discard::Truncated));
    }
    assert_eq!(Built::identified(SOLICIT).option(IA_PD, &[0; 11]).ask(&endpoint), Err(Discard::Truncated));
}

#[test]
fn both_server_groups_are_listened_to() {
    let solicit = Built::identified(SOLICIT).ia_na(1, &[]);
    let endpoint = fixture::endpoint();
    assert_eq!(solicit.ask_at(&endpoint, ALL_SERVERS), solicit.ask(&endpoint));
}
