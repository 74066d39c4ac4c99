//! A client's message: read, checked and judged by RFC 8415 section 16.

use super::{ALL_RELAY_AGENTS_AND_SERVERS, ALL_SERVERS};
use crate::config::Duid;
use dhcproto::v6::{MessageType, OptionCode};
use std::net::Ipv6Addr;

/// RFC 8415 section 11.1. There is no shortest: the identifier is only copied.
const LONGEST_DUID: usize = 130;

/// A datagram from a client.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Where it was sent to.
    pub destination: Ipv6Addr,
    /// The UDP payload.
    pub payload: &'a [u8],
}

/// Why a datagram gets no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Discard {
    /// Header or an option runs over the end of what holds it.
    #[error("it is truncated")]
    Truncated,
    /// Messages of servers and relay agents, and types that are not known.
    #[error("a client does not send this message type")]
    NotFromAClient,
    /// RFC 8415 section 16.
    #[error("it has no usable client identifier")]
    ClientId,
    /// It has a server identifier and must not, has none and must, or another server's.
    #[error("its server identifier is missing, out of place or another server's")]
    ServerId,
    /// RFC 8415 section 16.12.
    #[error("an information-request asks for no addresses")]
    Associations,
    /// RFC 8415 section 18.3.3.
    #[error("it confirms no address")]
    NothingToConfirm,
    /// It was sent to an address that clients don't send such a message to.
    #[error("it was not sent to a multicast address of servers")]
    Destination,
}

/// A client message that is legal.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub kind: MessageType,
    pub transaction: [u8; 3],
    pub client_id: Option<&'a [u8]>,
    pub associations: Vec<Association>,
    pub option_request: Vec<OptionCode>,
    pub rapid_commit: bool,
    /// Flags of the client FQDN option (RFC 4704 section 4.1).
    pub fqdn: Option<u8>,
    /// It was sent to one address of ours and not to all servers.
    pub unicast: bool,
}

/// An identity association, with what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Association {
    NonTemporary { iaid: u32, addresses: Vec<Ipv6Addr> },
    Temporary { iaid: u32 },
    PrefixDelegation { iaid: u32 },
}

impl<'a> Message<'a> {
    /// Reads the request and discards what a server must not answer.
    pub fn read(request: Request<'a>, server: &Duid) -> Result<Self, Discard> {
        let (kind, transaction, options) = match request.payload {
            [kind, a, b, c, options @ ..] => (MessageType::from(*kind), [*a, *b, *c], options),
            _ => return Err(Discard::Truncated),
        };
        let to_all = [ALL_RELAY_AGENTS_AND_SERVERS, ALL_SERVERS].contains(&request.destination);
        if !to_all && request.destination.is_multicast() {
            return Err(Discard::Destination);
        }
        let mut message = Self {
            kind,
            transaction,
            client_id: None,
            associations: vec![],
            option_request: vec![],
            rapid_commit: false,
            fqdn: None,
            unicast: !to_all,
        };
        let server_id = message.read_options(options)?;
        message.judge(server_id, server)?;
        Ok(message)
    }

    /// Of an option that comes once, the first counts.
    fn read_options(&mut self, options: &'a [u8]) -> Result<Option<&'a [u8]>, Discard> {
        let mut server_id = None;
        for option in Options(options) {
            let (code, data) = option?;
            match code {
                OptionCode::ClientId => self.client_id = self.client_id.or(Some(data)),
                OptionCode::ServerId => server_id = server_id.or(Some(data)),
                OptionCode::IANA | OptionCode::IATA | OptionCode::IAPD => {
                    self.associations.push(Association::read(code, data)?);
                }
                OptionCode::ORO => {
                    let (codes, _) = data.as_chunks::<2>();
                    self.option_request
                        .extend(codes.iter().map(|code| OptionCode::from(u16::from_be_bytes(*code))));
                }
                OptionCode::RapidCommit => self.rapid_commit = true,
                OptionCode::ClientFqdn => self.fqdn = self.fqdn.or(data.first().copied()),
                _ => {}
            }
        }
        Ok(server_id)
    }

    /// RFC 8415 sections 16.2 to 16.12. A missing elapsed time is no reason to discard, as no server needs it.
    fn judge(&self, server_id: Option<&[u8]>, server: &Duid) -> Result<(), Discard> {
        use MessageType::{Confirm, Decline, InformationRequest, Rebind, Release, Renew, Request, Solicit};
        let (needs_client, needs_server, may_be_unicast) = match self.kind {
            Solicit | Confirm | Rebind => (true, Some(false), false),
            Request | Renew | Release | Decline => (true, Some(true), true),
            InformationRequest => (false, None, false),
            _ => return Err(Discard::NotFromAClient),
        };
        let client_is_legal = self.client_id.map(|id| (1..=LONGEST_DUID).contains(&id.len()));
        let server_is_ours = server_id.map(|id| id == server.as_bytes());
        if !client_is_legal.unwrap_or(!needs_client) {
            return Err(Discard::ClientId);
        }
        let server_is_right = match needs_server {
            Some(false) => server_is_ours.is_none(),
            Some(true) => server_is_ours == Some(true),
            None => server_is_ours != Some(false),
        };
        if !server_is_right {
            return Err(Discard::ServerId);
        }
        if self.kind == InformationRequest && !self.associations.is_empty() {
            return Err(Discard::Associations);
        }
        if self.unicast && !may_be_unicast {
            return Err(Discard::Destination);
        }
        Ok(())
    }

    /// The addresses that its non-temporary associations name.
    pub fn named(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        self.non_temporary().flatten().copied()
    }

    /// What each of its non-temporary associations names.
    pub fn non_temporary(&self) -> impl Iterator<Item = &[Ipv6Addr]> + '_ {
        self.associations.iter().filter_map(|association| match association {
            Association::NonTemporary { addresses, .. } => Some(addresses.as_slice()),
            Association::Temporary { .. } | Association::PrefixDelegation { .. } => None,
        })
    }
}

impl Association {
    fn read(code: OptionCode, data: &[u8]) -> Result<Self, Discard> {
        let (iaid, rest) = data.split_first_chunk::<4>().ok_or(Discard::Truncated)?;
        let iaid = u32::from_be_bytes(*iaid);
        if code == OptionCode::IATA {
            return Ok(Self::Temporary { iaid });
        }
        // T1 and T2 are wishes, which the server need not know (RFC 8415 section 21.4).
        let (_, options) = rest.split_first_chunk::<8>().ok_or(Discard::Truncated)?;
        if code == OptionCode::IAPD {
            return Ok(Self::PrefixDelegation { iaid });
        }
        let mut addresses = vec![];
        for option in Options(options) {
            if let (OptionCode::IAAddr, data) = option? {
                let (address, _) = data.split_first_chunk::<16>().ok_or(Discard::Truncated)?;
                addresses.push(Ipv6Addr::from(*address));
            }
        }
        Ok(Self::NonTemporary { iaid, addresses })
    }
}

/// Options, one after the other (RFC 8415 section 21.1). Ends after the first error.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Result<(OptionCode, &'a [u8]), Discard>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let option = self.0.split_first_chunk::<4>().and_then(|(&[a, b, c, d], rest)| {
            let code = OptionCode::from(u16::from_be_bytes([a, b]));
            let (data, rest) = rest.split_at_checked(u16::from_be_bytes([c, d]).into())?;
            self.0 = rest;
            Some((code, data))
        });
        if option.is_none() {
            self.0 = &[];
        }
        Some(option.ok_or(Discard::Truncated))
    }
}
