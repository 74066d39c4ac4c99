//! Requests built and replies read by the RFC, byte by byte, with nothing of the code under test.

use crate::config::Duid;
use crate::plan::Attached;
use crate::serve::dhcp6::{ALL_RELAY_AGENTS_AND_SERVERS, Answer, Discard, Request, answer};
use std::net::Ipv6Addr;

pub(super) const SOLICIT: u8 = 1;
pub(super) const ADVERTISE: u8 = 2;
pub(super) const REQUEST: u8 = 3;
pub(super) const CONFIRM: u8 = 4;
pub(super) const RENEW: u8 = 5;
pub(super) const REBIND: u8 = 6;
pub(super) const REPLY: u8 = 7;
pub(super) const RELEASE: u8 = 8;
pub(super) const DECLINE: u8 = 9;
pub(super) const INFORMATION_REQUEST: u8 = 11;

pub(super) const CLIENT_ID: u16 = 1;
pub(super) const SERVER_ID: u16 = 2;
pub(super) const IA_NA: u16 = 3;
pub(super) const IA_TA: u16 = 4;
pub(super) const IAADDR: u16 = 5;
pub(super) const ORO: u16 = 6;
pub(super) const PREFERENCE: u16 = 7;
pub(super) const STATUS_CODE: u16 = 13;
pub(super) const RAPID_COMMIT: u16 = 14;
pub(super) const IA_PD: u16 = 25;
pub(super) const FQDN: u16 = 39;

pub(super) const NO_ADDRS_AVAIL: u16 = 2;
pub(super) const NO_BINDING: u16 = 3;
pub(super) const NOT_ON_LINK: u16 = 4;
pub(super) const USE_MULTICAST: u16 = 5;
pub(super) const NO_PREFIX_AVAIL: u16 = 6;

pub(super) const CLIENT: &[u8] = &[0, 3, 0, 1, 0xfa, 0x16, 0x3e, 0, 0, 1];
pub(super) const LEASED: &str = "2001:db8:a41:2::11";
pub(super) const SECOND: &str = "2001:db8:a41:2::12";
pub(super) const FOREIGN: &str = "2001:db8:a41:2::99";

/// A client message under construction.
#[derive(Clone, Debug)]
pub(super) struct Built(pub(super) Vec<u8>);

impl Built {
    pub(super) fn new(kind: u8) -> Self {
        Self(vec![kind, 0xab, 0xcd, 0xef])
    }

    /// With the identifiers the message type needs.
    pub(super) fn identified(kind: u8) -> Self {
        let built = Self::new(kind).option(CLIENT_ID, CLIENT);
        if [REQUEST, RENEW, RELEASE, DECLINE].contains(&kind) {
            built.option(SERVER_ID, Duid::default().as_bytes())
        } else {
            built
        }
    }

    pub(super) fn option(mut self, code: u16, data: &[u8]) -> Self {
        self.0.extend(option(code, data));
        self
    }

    pub(super) fn ia_na(self, iaid: u32, addresses: &[&str]) -> Self {
        let mut data = iaid.to_be_bytes().to_vec();
        data.extend([0; 8]);
        for address in addresses {
            let mut lease = address.parse::<Ipv6Addr>().unwrap().octets().to_vec();
            lease.extend([0; 8]);
            data.extend(option(IAADDR, &lease));
        }
        self.option(IA_NA, &data)
    }

    pub(super) fn oro(self, codes: &[u16]) -> Self {
        let data: Vec<u8> = codes.iter().flat_map(|code| code.to_be_bytes()).collect();
        self.option(ORO, &data)
    }

    pub(super) fn ask(&self, endpoint: &Attached) -> Result<Answer, Discard> {
        self.ask_at(endpoint, ALL_RELAY_AGENTS_AND_SERVERS)
    }

    pub(super) fn ask_at(&self, endpoint: &Attached, destination: Ipv6Addr) -> Result<Answer, Discard> {
        answer(endpoint, &Duid::default(), Request { destination, payload: &self.0 })
    }

    /// The reply, its identifiers checked.
    pub(super) fn reply(&self, endpoint: &Attached) -> Read {
        let read = Read::of(&self.ask(endpoint).unwrap().payload);
        assert_eq!(read.one(CLIENT_ID), CLIENT);
        assert_eq!(read.one(SERVER_ID), Duid::default().as_bytes());
        read
    }
}

pub(super) fn option(code: u16, data: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
}

pub(super) fn options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut options = vec![];
    while !bytes.is_empty() {
        let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        options.push((u16::from_be_bytes([bytes[0], bytes[1]]), bytes[4..4 + length].to_vec()));
        bytes = &bytes[4 + length..];
    }
    options
}

pub(super) fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

pub(super) fn status_of(data: &[u8]) -> u16 {
    assert!(std::str::from_utf8(&data[2..]).is_ok());
    u16::from_be_bytes([data[0], data[1]])
}

/// A server message, read.
pub(super) struct Read {
    pub(super) kind: u8,
    pub(super) options: Vec<(u16, Vec<u8>)>,
}

/// An IA_NA of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReadIa {
    pub(super) iaid: u32,
    pub(super) t1: u32,
    pub(super) t2: u32,
    /// Address, preferred and valid lifetime.
    pub(super) addresses: Vec<(Ipv6Addr, u32, u32)>,
    pub(super) status: Option<u16>,
}

impl Read {
    pub(super) fn of(payload: &[u8]) -> Self {
        assert_eq!(payload[1..4], [0xab, 0xcd, 0xef], "transaction");
        Self { kind: payload[0], options: options(&payload[4..]) }
    }

    pub(super) fn all(&self, code: u16) -> Vec<&[u8]> {
        self.options.iter().filter(|option| option.0 == code).map(|option| option.1.as_slice()).collect()
    }

    pub(super) fn one(&self, code: u16) -> &[u8] {
        match self.all(code)[..] {
            [data] => data,
            ref other => panic!("option {code} comes {} times", other.len()),
        }
    }

    pub(super) fn has(&self, code: u16) -> bool {
        !self.all(code).is_empty()
    }

    pub(super) fn status(&self) -> u16 {
        status_of(self.one(STATUS_CODE))
    }

    pub(super) fn associations(&self) -> Vec<ReadIa> {
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

pub(super) fn lease(iaid: u32, addresses: &[&str]) -> ReadIa {
    let addresses = addresses.iter().map(|address| (address.parse().unwrap(), 86_400, 86_400)).collect();
    ReadIa { iaid, t1: 43_200, t2: 69_120, addresses, status: None }
}

pub(super) fn refused(iaid: u32, status: u16) -> ReadIa {
    ReadIa { iaid, t1: 0, t2: 0, addresses: vec![], status: Some(status) }
}
