//! Every client message and its answer. Requests are built and replies read here by the RFC, byte by byte.

use super::{ALL_RELAY_AGENTS_AND_SERVERS, ALL_SERVERS, Answer, Discard, Request, answer};
use crate::config::Duid;
use crate::plan::Attached;
use crate::serve::fixture::{self, address};
use proptest::prelude::*;
use std::net::Ipv6Addr;

const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const CONFIRM: u8 = 4;
const RENEW: u8 = 5;
const REBIND: u8 = 6;
const REPLY: u8 = 7;
const RELEASE: u8 = 8;
const DECLINE: u8 = 9;
const INFORMATION_REQUEST: u8 = 11;

const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IA_TA: u16 = 4;
const IAADDR: u16 = 5;
const ORO: u16 = 6;
const PREFERENCE: u16 = 7;
const STATUS_CODE: u16 = 13;
const RAPID_COMMIT: u16 = 14;
const IA_PD: u16 = 25;
const FQDN: u16 = 39;

const NO_ADDRS_AVAIL: u16 = 2;
const NO_BINDING: u16 = 3;
const NOT_ON_LINK: u16 = 4;
const USE_MULTICAST: u16 = 5;
const NO_PREFIX_AVAIL: u16 = 6;

const CLIENT: &[u8] = &[0, 3, 0, 1, 0xfa, 0x16, 0x3e, 0, 0, 1];
const LEASED: &str = "2001:db8:a41:2::11";
const SECOND: &str = "2001:db8:a41:2::12";
const FOREIGN: &str = "2001:db8:a41:2::99";

/// A client message under construction.
#[derive(Clone, Debug)]
struct Built(Vec<u8>);

impl Built {
    fn new(kind: u8) -> Self {
        Self(vec![kind, 0xab, 0xcd, 0xef])
    }

    /// With the identifiers the message type needs.
    fn identified(kind: u8) -> Self {
        let built = Self::new(kind).option(CLIENT_ID, CLIENT);
        if [REQUEST, RENEW, RELEASE, DECLINE].contains(&kind) {
            built.option(SERVER_ID, Duid::default().as_bytes())
        } else {
            built
        }
    }

    fn option(mut self, code: u16, data: &[u8]) -> Self {
        self.0.extend(option(code, data));
        self
    }

    fn ia_na(self, iaid: u32, addresses: &[&str]) -> Self {
        let mut data = iaid.to_be_bytes().to_vec();
        data.extend([0; 8]);
        for address in addresses {
            let mut lease = address.parse::<Ipv6Addr>().unwrap().octets().to_vec();
            lease.extend([0; 8]);
            data.extend(option(IAADDR, &lease));
        }
        self.option(IA_NA, &data)
    }

    fn oro(self, codes: &[u16]) -> Self {
        let data: Vec<u8> = codes.iter().flat_map(|code| code.to_be_bytes()).collect();
        self.option(ORO, &data)
    }

    fn ask(&self, endpoint: &Attached) -> Result<Answer, Discard> {
        self.ask_at(endpoint, ALL_RELAY_AGENTS_AND_SERVERS)
    }

    fn ask_at(&self, endpoint: &Attached, destination: Ipv6Addr) -> Result<Answer, Discard> {
        answer(endpoint, &Duid::default(), Request { destination, payload: &self.0 })
    }

    /// The reply, its identifiers checked.
    fn reply(&self, endpoint: &Attached) -> Read {
        let read = Read::of(&self.ask(endpoint).unwrap().payload);
        assert_eq!(read.one(CLIENT_ID), CLIENT);
        assert_eq!(read.one(SERVER_ID), Duid::default().as_bytes());
        read
    }
}

fn option(code: u16, data: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
}

fn options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut options = vec![];
    while !bytes.is_empty() {
        let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        options.push((u16::from_be_bytes([bytes[0], bytes[1]]), bytes[4..4 + length].to_vec()));
        bytes = &bytes[4 + length..];
    }
    options
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

fn status_of(data: &[u8]) -> u16 {
    assert!(std::str::from_utf8(&data[2..]).is_ok());
    u16::from_be_bytes([data[0], data[1]])
}

/// A server message, read.
struct Read {
    kind: u8,
    options: Vec<(u16, Vec<u8>)>,
}

/// An IA_NA of a reply.
#[derive(Debug, PartialEq, Eq)]
struct ReadIa {
    iaid: u32,
    t1: u32,
    t2: u32,
    /// Address, preferred and valid lifetime.
    addresses: Vec<(Ipv6Addr, u32, u32)>,
    status: Option<u16>,
}

impl Read {
    fn of(payload: &[u8]) -> Self {
        assert_eq!(payload[1..4], [0xab, 0xcd, 0xef], "transaction");
        Self { kind: payload[0], options: options(&payload[4..]) }
    }

    fn all(&self, code: u16) -> Vec<&[u8]> {
        self.options.iter().filter(|option| option.0 == code).map(|option| option.1.as_slice()).collect()
    }

    fn one(&self, code: u16) -> &[u8] {
        match self.all(code)[..] {
            [data] => data,
            ref other => panic!("option {code} comes {} times", other.len()),
        }
    }

    fn has(&self, code: u16) -> bool {
        !self.all(code).is_empty()
    }

    fn status(&self) -> u16 {
        status_of(self.one(STATUS_CODE))
    }

    fn associations(&self) -> Vec<ReadIa> {
        let read = |data: &&[u8]| {
            let mut ia = ReadIa {
                iaid: word(data),
                t1: word(&data[4..]),
                t2: word(&data[8..]),
                addresses: vec![],
                status: None,
            };
            for (code, data) in options(&data[12..]) {
                match code {
                    IAADDR => {
                        assert_eq!(data.len(), 24);
                        let octets: [u8; 16] = data[..16].try_into().unwrap();
                        ia.addresses.push((octets.into(), word(&data[16..]), word(&data[20..])));
                    }
                    STATUS_CODE => ia.status = Some(status_of(&data)),
                    other => panic!("option {other} in an IA_NA"),
                }
            }
            ia
        };
        self.all(IA_NA).iter().map(read).collect()
    }
}

fn lease(iaid: u32, addresses: &[&str]) -> ReadIa {
    let addresses = addresses.iter().map(|address| (address.parse().unwrap(), 86_400, 86_400)).collect();
    ReadIa { iaid, t1: 43_200, t2: 69_120, addresses, status: None }
}

fn refused(iaid: u32, status: u16) -> ReadIa {
    ReadIa { iaid, t1: 0, t2: 0, addresses: vec![], status: Some(status) }
}

fn two_addresses() -> Attached {
    let mut endpoint = fixture::endpoint();
    endpoint.leased.push(address(SECOND));
    endpoint
}

fn no_address() -> Attached {
    let mut endpoint = fixture::endpoint();
    endpoint.leased.clear();
    endpoint
}

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
fn both_server_groups_are_listened_to() {
    let solicit = Built::identified(SOLICIT).ia_na(1, &[]);
    let endpoint = fixture::endpoint();
    assert_eq!(solicit.ask_at(&endpoint, ALL_SERVERS), solicit.ask(&endpoint));
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

#[test]
fn information_request() {
    let endpoint = fixture::endpoint();
    let reply = Built::identified(INFORMATION_REQUEST).oro(&[23, 24, 32, 56, 82]).reply(&endpoint);
    assert_eq!(reply.kind, REPLY);
    assert_eq!(reply.one(32), 86_400u32.to_be_bytes());
    assert_eq!(reply.one(23).len(), 16);
    assert_eq!(reply.one(24), b"\x09openstack\x07example\0");
    assert!(reply.has(56) && reply.has(82));
    assert!(!reply.has(IA_NA) && !reply.has(STATUS_CODE) && !reply.has(PREFERENCE));

    let anonymous = Built::new(INFORMATION_REQUEST).oro(&[23]).ask(&endpoint).unwrap();
    let read = Read::of(&anonymous.payload);
    assert_eq!((read.has(CLIENT_ID), read.has(SERVER_ID), read.has(23)), (false, true, true));

    let ours = Built::new(INFORMATION_REQUEST).option(SERVER_ID, Duid::default().as_bytes());
    assert!(ours.ask(&endpoint).is_ok());
    let with_association = Built::identified(INFORMATION_REQUEST).ia_na(1, &[]);
    assert_eq!(with_association.ask(&endpoint), Err(Discard::Associations));
}

#[test]
fn options_come_when_they_are_asked_for() {
    let endpoint = fixture::endpoint();
    let plain = Built::identified(REQUEST).ia_na(1, &[]).reply(&endpoint);
    let codes: Vec<u16> = plain.options.iter().map(|option| option.0).collect();
    assert_eq!(codes, [CLIENT_ID, SERVER_ID, IA_NA]);
    // A refresh time is for information-requests only (RFC 8415 section 21.23).
    let asked = Built::identified(REQUEST).ia_na(1, &[]).oro(&[32, 59, 9999]).reply(&endpoint);
    assert_eq!(asked.options.len(), 3);
}

#[test]
fn every_ntp_server_has_an_option() {
    let mut endpoint = fixture::endpoint();
    endpoint.network.ntp_servers.push("ff05::101".parse().unwrap());
    let reply = Built::identified(REQUEST).oro(&[56]).reply(&endpoint);
    let servers = reply.all(56);
    assert_eq!(servers.len(), 2);
    assert_eq!(servers[0][..4], [0, 1, 0, 16]);
    assert_eq!(servers[1][..4], [0, 2, 0, 16], "a multicast address has its own suboption");
}

#[test]
fn search_domains_are_not_compressed() {
    let mut endpoint = fixture::endpoint();
    endpoint.network.search_domains = vec!["a.example".to_owned(), "b.example".to_owned()];
    let reply = Built::identified(REQUEST).oro(&[24]).reply(&endpoint);
    assert_eq!(reply.one(24), b"\x01a\x07example\0\x01b\x07example\0");
}

#[test]
fn the_name_is_told_to_who_tells_his() {
    let mut endpoint = fixture::endpoint();
    let ask = |endpoint: &Attached, flags: u8| {
        let reply = Built::identified(REQUEST).ia_na(1, &[]).option(FQDN, &[flags, 0]).reply(endpoint);
        reply.all(FQDN).first().map(|data| data.to_vec())
    };
    let name = b"\x04vm-1\x09openstack\x07example\0";
    // No updates; overridden when the client wanted the server to do them (RFC 4704 section 6).
    assert_eq!(ask(&endpoint, 1).unwrap(), [&[6], &name[..]].concat());
    assert_eq!(ask(&endpoint, 0).unwrap(), [&[4], &name[..]].concat());
    assert_eq!(ask(&endpoint, 4).unwrap(), [&[4], &name[..]].concat());
    endpoint.network.fqdn = None;
    assert_eq!(ask(&endpoint, 1), None);
}

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
fn a_reply_fits_in_a_packet() {
    let mut endpoint = fixture::endpoint();
    endpoint.mtu = 1280;
    endpoint.network.dns_servers = (0..100).map(Ipv6Addr::from).collect();
    let answer = Built::identified(REQUEST).ia_na(1, &[]).oro(&[23, 24]).ask(&endpoint).unwrap();
    assert!(answer.truncated && answer.payload.len() <= 1232);
    let dns = Read::of(&answer.payload).one(23).to_vec();
    assert!(dns.len() > 1000 && dns.len().is_multiple_of(16));

    endpoint.leased = (1..=100).map(|n| address(&format!("2001:db8::{n:x}"))).collect();
    let answer = Built::identified(REQUEST).ia_na(1, &[]).ask(&endpoint).unwrap();
    assert!(answer.truncated && answer.payload.len() <= 1232);
    assert!(Read::of(&answer.payload).associations()[0].addresses.len() > 35);
}

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
