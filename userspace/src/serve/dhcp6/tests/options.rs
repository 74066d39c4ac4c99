//! What is said besides addresses, and how much of it.

use super::wire::{
    Built, CLIENT_ID, FQDN, IA_NA, INFORMATION_REQUEST, PREFERENCE, REPLY, REQUEST, Read, SERVER_ID,
    STATUS_CODE,
};
use crate::config::Duid;
use crate::plan::Attached;
use crate::serve::dhcp6::Discard;
use crate::serve::fixture::{self, address};
use std::net::Ipv6Addr;

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
