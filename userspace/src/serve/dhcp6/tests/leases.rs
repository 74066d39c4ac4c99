//! Addresses: who gets which, for how long, and what becomes of them.

use super::wire::{
    ADVERTISE, Built, CONFIRM, DECLINE, FOREIGN, IA_NA, IA_PD, IA_TA, LEASED, NO_ADDRS_AVAIL, NO_BINDING,
    NO_PREFIX_AVAIL, NOT_ON_LINK, PREFERENCE, RAPID_COMMIT, REBIND, RELEASE, RENEW, REPLY, REQUEST, ReadIa,
    SECOND, SOLICIT, lease, options, refused, status_of,
};
use super::{no_address, two_addresses};
use crate::config::Duid;
use crate::serve::dhcp6::{ALL_RELAY_AGENTS_AND_SERVERS, Answer, Discard, Request, answer};
use crate::serve::fixture;
use std::net::Ipv6Addr;

#[test]
fn a_solicit_and_its_advertise_to_the_byte() {
    #[rustfmt::skip]
    let solicit = [
        1, 0xab, 0xcd, 0xef,
        0, 1, 0, 10, 0, 3, 0, 1, 0xfa, 0x16, 0x3e, 0, 0, 1,
        0, 6, 0, 10, 0, 23, 0, 24, 0, 56, 0, 39, 0, 82,
        0, 8, 0, 2, 0, 0,
        0, 39, 0, 6, 1, 4, b'v', b'm', b'-', b'1',
        0, 3, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    #[rustfmt::skip]
    let advertise = [
        2, 0xab, 0xcd, 0xef,
        0, 1, 0, 10, 0, 3, 0, 1, 0xfa, 0x16, 0x3e, 0, 0, 1,
        0, 2, 0, 18, 0, 4, 0xe4, 0x58, 0x85, 0x9c, 0xc9, 0x98, 0x59, 0x50, 0x8e, 0x09, 0xb8, 0x15, 0x7c, 0x46, 0x65, 0x9a,
        0, 7, 0, 1, 255,
        0, 3, 0, 40, 0, 0, 0, 0, 0, 0, 0xa8, 0xc0, 0, 1, 0x0e, 0,
            0, 5, 0, 24, 0x20, 1, 0x0d, 0xb8, 0x0a, 0x41, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0x11, 0, 1, 0x51, 0x80, 0, 1, 0x51, 0x80,
        0, 23, 0, 16, 0x20, 1, 0x0d, 0xb8, 0, 0x53, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
        0, 24, 0, 19, 9, b'o', b'p', b'e', b'n', b's', b't', b'a', b'c', b'k', 7, b'e', b'x', b'a', b'm', b'p', b'l', b'e', 0,
        0, 56, 0, 20, 0, 1, 0, 16, 0x20, 1, 0x0d, 0xb8, 1, 0x23, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
        0, 82, 0, 4, 0, 0, 0, 60,
        0, 39, 0, 25, 6, 4, b'v', b'm', b'-', b'1',
            9, b'o', b'p', b'e', b'n', b's', b't', b'a', b'c', b'k', 7, b'e', b'x', b'a', b'm', b'p', b'l', b'e', 0,
    ];
    let request = Request { destination: ALL_RELAY_AGENTS_AND_SERVERS, payload: &solicit };
    let answer = answer(&fixture::endpoint(), &Duid::default(), request).unwrap();
    assert_eq!(answer, Answer { payload: advertise.to_vec(), truncated: false, declined: vec![] });
}

#[test]
fn rapid_commit_is_answered_by_a_reply() {
    let solicit = Built::identified(SOLICIT).ia_na(7, &[]).option(RAPID_COMMIT, &[]);
    let reply = solicit.reply(&fixture::endpoint());
    assert_eq!(reply.kind, REPLY);
    assert!(reply.one(RAPID_COMMIT).is_empty());
    assert!(!reply.has(PREFERENCE));
    assert_eq!(reply.associations(), [lease(7, &[LEASED])]);

    let advertise = solicit.reply(&no_address());
    assert_eq!(advertise.kind, ADVERTISE);
    assert!(!advertise.has(RAPID_COMMIT), "there is nothing to commit to");
}

#[test]
fn an_advertise_prefers_us_and_commits_to_nothing() {
    let advertise = Built::identified(SOLICIT).ia_na(7, &[FOREIGN]).reply(&fixture::endpoint());
    assert_eq!(advertise.kind, ADVERTISE);
    assert_eq!(advertise.one(PREFERENCE), [255]);
    assert!(!advertise.has(RAPID_COMMIT));
    assert_eq!(advertise.associations(), [lease(7, &[LEASED])], "a hint is no address");
}

#[test]
fn request_renew_and_rebind_give_the_lease() {
    for kind in [REQUEST, RENEW, REBIND] {
        let reply = Built::identified(kind).ia_na(0, &[LEASED]).reply(&fixture::endpoint());
        assert_eq!(reply.kind, REPLY);
        assert!(!reply.has(PREFERENCE));
        assert_eq!(reply.associations(), [lease(0, &[LEASED])]);
    }
}

#[test]
fn other_addresses_end_when_they_are_renewed() {
    for kind in [RENEW, REBIND] {
        let reply = Built::identified(kind).ia_na(1, &[FOREIGN, LEASED]).reply(&fixture::endpoint());
        let mut expected = lease(1, &[LEASED, FOREIGN]);
        (expected.addresses[1].1, expected.addresses[1].2) = (0, 0);
        assert_eq!(reply.associations(), [expected]);

        let reply = Built::identified(kind).ia_na(1, &[FOREIGN]).reply(&no_address());
        let over =
            ReadIa { addresses: vec![(FOREIGN.parse().unwrap(), 0, 0)], status: None, ..refused(1, 0) };
        assert_eq!(reply.associations(), [over]);
    }
    let reply = Built::identified(REQUEST).ia_na(1, &[FOREIGN]).reply(&fixture::endpoint());
    assert_eq!(reply.associations(), [lease(1, &[LEASED])]);
}

#[test]
fn every_association_has_its_answer() {
    for kind in [SOLICIT, REQUEST, RENEW, REBIND] {
        let reply = Built::identified(kind)
            .ia_na(0, &[])
            .ia_na(5, &[])
            .option(IA_TA, &[0, 0, 0, 6])
            .option(IA_PD, &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0])
            .reply(&fixture::endpoint());
        assert_eq!(reply.associations(), [lease(0, &[LEASED]), refused(5, NO_ADDRS_AVAIL)]);
        let temporary = reply.one(IA_TA);
        assert_eq!(temporary[..4], [0, 0, 0, 6]);
        assert_eq!(status_of(&options(&temporary[4..])[0].1), NO_ADDRS_AVAIL);
        let delegation = reply.one(IA_PD);
        assert_eq!(delegation[..12], [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(status_of(&options(&delegation[12..])[0].1), NO_PREFIX_AVAIL);
    }
}

#[test]
fn several_addresses() {
    let endpoint = two_addresses();
    let one = Built::identified(SOLICIT).ia_na(1, &[]).reply(&endpoint);
    assert_eq!(one.associations(), [lease(1, &[LEASED, SECOND])]);
    let two = Built::identified(SOLICIT).ia_na(1, &[]).ia_na(2, &[]).reply(&endpoint);
    assert_eq!(two.associations(), [lease(1, &[LEASED]), lease(2, &[SECOND])]);
    let kept = Built::identified(RENEW).ia_na(1, &[SECOND]).ia_na(2, &[LEASED]).reply(&endpoint);
    assert_eq!(kept.associations(), [lease(1, &[SECOND]), lease(2, &[LEASED])]);
}

#[test]
fn without_an_address() {
    for (kind, answered) in [(SOLICIT, ADVERTISE), (REQUEST, REPLY), (RENEW, REPLY), (REBIND, REPLY)] {
        let reply = Built::identified(kind).ia_na(3, &[]).oro(&[23, 82]).reply(&no_address());
        assert_eq!(reply.kind, answered);
        assert_eq!(reply.associations(), [refused(3, NO_ADDRS_AVAIL)]);
        assert_eq!(reply.one(82), 60u32.to_be_bytes());
        assert!(reply.has(23));
    }
}

#[test]
fn lifetimes() {
    let mut endpoint = fixture::endpoint();
    for (valid, t1, t2) in
        [(u32::MAX, u32::MAX, u32::MAX), (0xffff_fffe, 0x7fff_ffff, 0xcccc_cccb), (100, 50, 80)]
    {
        endpoint.network.valid_lifetime = valid;
        let reply = Built::identified(REQUEST).ia_na(1, &[]).reply(&endpoint);
        let expected = ReadIa {
            iaid: 1,
            t1,
            t2,
            addresses: vec![(LEASED.parse().unwrap(), valid, valid)],
            status: None,
        };
        assert_eq!(reply.associations(), [expected]);
    }
}

#[test]
fn confirm() {
    let endpoint = two_addresses();
    let status = |addresses: &[&str]| Built::identified(CONFIRM).ia_na(1, addresses).reply(&endpoint);
    let reply = status(&[LEASED, SECOND]);
    assert_eq!((reply.kind, reply.status()), (REPLY, 0));
    assert!(!reply.has(IA_NA));
    assert_eq!(status(&[LEASED, FOREIGN]).status(), NOT_ON_LINK);
    assert_eq!(Built::identified(CONFIRM).ia_na(1, &[LEASED]).reply(&no_address()).status(), NOT_ON_LINK);
    assert_eq!(Built::identified(CONFIRM).ia_na(1, &[]).ask(&endpoint), Err(Discard::NothingToConfirm));
    assert_eq!(Built::identified(CONFIRM).ask(&endpoint), Err(Discard::NothingToConfirm));
}

#[test]
fn release_and_decline() {
    for kind in [RELEASE, DECLINE] {
        let message =
            Built::identified(kind).ia_na(1, &[LEASED]).ia_na(2, &[FOREIGN]).option(IA_TA, &[0, 0, 0, 3]);
        let reply = message.reply(&fixture::endpoint());
        assert_eq!((reply.kind, reply.status()), (REPLY, 0));
        assert_eq!(reply.associations(), [refused(2, NO_BINDING)]);
        assert_eq!(status_of(&options(&reply.one(IA_TA)[4..])[0].1), NO_BINDING);
        let declined = message.ask(&fixture::endpoint()).unwrap().declined;
        let alarm: &[Ipv6Addr] = if kind == DECLINE { &[LEASED.parse().unwrap()] } else { &[] };
        assert_eq!(declined, alarm);
    }
}
