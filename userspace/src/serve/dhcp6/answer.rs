//! What a client message gets, by RFC 8415 section 18.3.

use super::association::spread;
use super::reply::{self, Lease, Reply};
use super::request::{Association, Discard, Message, Request};
use crate::config::Duid;
use crate::plan::Attached;
use crate::serve::domain;
use crate::serve::frame::{IPV6, MINIMUM_MTU, UDP};
use dhcproto::v6::{DhcpOption, MessageType, NtpSuboption, OptionCode, Status};
use std::net::Ipv6Addr;

/// Preference of the server in an Advertise: 255 makes the client take it at once, without waiting for others (RFC 8415
/// section 18.2.1). Behind a TAP there are no others.
const PREFERENCE: u8 = 255;
/// SOL_MAX_RT in seconds, the least that is legal. A VM that gets its address after it has booted hears of it by its next
/// Solicit, for which it would otherwise wait up to an hour.
const SOL_MAX_RT: u32 = 60;
/// Bounds of the information refresh time: the least that is legal and the default (RFC 8415 section 7.6).
const REFRESH: std::ops::RangeInclusive<u32> = 600..=86_400;

/// A reply to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The UDP payload.
    pub payload: Vec<u8>,
    /// Something was left out because it does not fit in one packet.
    pub truncated: bool,
    /// Addresses that the client refuses because another host on its link answers for them.
    pub declined: Vec<Ipv6Addr>,
}

/// The reply to `request`, which came in by the TAP of `endpoint`.
pub fn answer(endpoint: &Attached, server: &Duid, request: Request<'_>) -> Result<Answer, Discard> {
    let message = Message::read(request, server)?;
    let leased: Vec<Ipv6Addr> = endpoint.leased.iter().map(|address| address.get()).collect();
    let exchange = Exchange { endpoint, server, message: &message, leased: &leased };
    let reply = exchange.reply()?;
    let declined = match message.kind {
        MessageType::Decline => message.named().filter(|address| leased.contains(address)).collect(),
        _ => vec![],
    };
    let (payload, truncated) = reply.finish();
    Ok(Answer { payload, truncated, declined })
}

/// A message and what is needed to answer it.
struct Exchange<'a> {
    endpoint: &'a Attached,
    server: &'a Duid,
    message: &'a Message<'a>,
    leased: &'a [Ipv6Addr],
}

impl Exchange<'_> {
    fn reply(&self) -> Result<Reply, Discard> {
        use MessageType::{Advertise, Confirm, Decline, InformationRequest, Release, Request, Solicit};
        if self.message.unicast {
            // RFC 8415 section 18.4: the server never sent a Server Unicast option.
            let mut reply = self.start(MessageType::Reply);
            reply.push(&reply::status(Status::UseMulticast));
            return Ok(reply);
        }
        match self.message.kind {
            Solicit if self.commits() => {
                let mut reply = self.start(MessageType::Reply);
                reply.push(&DhcpOption::RapidCommit);
                self.lease(&mut reply, &[]);
                Ok(reply)
            }
            Solicit => {
                let mut reply = self.start(Advertise);
                reply.push(&DhcpOption::Preference(PREFERENCE));
                self.lease(&mut reply, &[]);
                Ok(reply)
            }
            Request => {
                let mut reply = self.start(MessageType::Reply);
                self.lease(&mut reply, &[]);
                Ok(reply)
            }
            Confirm => self.confirm(),
            Release | Decline => Ok(self.give_back()),
            InformationRequest => {
                let mut reply = self.start(MessageType::Reply);
                self.configuration(&mut reply);
                Ok(reply)
            }
            // Renew and Rebind: what the client has and must not have any longer is taken back (section 18.3.4).
            _ => {
                let mut reply = self.start(MessageType::Reply);
                let over: Vec<Ipv6Addr> =
                    self.message.named().filter(|address| !self.leased.contains(address)).collect();
                self.lease(&mut reply, &over);
                Ok(reply)
            }
        }
    }

    /// The message so far: its identifiers. The client's is copied byte for byte (section 16).
    fn start(&self, kind: MessageType) -> Reply {
        let mtu = usize::try_from(self.endpoint.mtu).unwrap_or(usize::MAX).clamp(MINIMUM_MTU, 65_535);
        let mut reply = Reply::new(kind, self.message.transaction, mtu - IPV6 - UDP);
        if let Some(client) = self.message.client_id {
            reply.push(&DhcpOption::ClientId(client.to_vec()));
        }
        reply.push(&DhcpOption::ServerId(self.server.as_bytes().to_vec()));
        reply
    }

    /// A Solicit with Rapid Commit is answered by a Reply when there is something to commit to (section 18.3.1).
    fn commits(&self) -> bool {
        self.message.rapid_commit && !self.leased.is_empty() && self.message.non_temporary().next().is_some()
    }

    /// An answer for every identity association, and the configuration. Addresses in `over` end where they are named.
    fn lease(&self, reply: &mut Reply, over: &[Ipv6Addr]) {
        let named: Vec<&[Ipv6Addr]> = self.message.non_temporary().collect();
        let mut given = spread(self.leased, &named).into_iter();
        let lease = Lease(self.endpoint.network.valid_lifetime);
        for association in &self.message.associations {
            match association {
                Association::NonTemporary { iaid, addresses } => {
                    let given = given.next().unwrap_or_default();
                    let over: Vec<Ipv6Addr> =
                        addresses.iter().copied().filter(|address| over.contains(address)).collect();
                    reply.push_list(&given, |given| reply::non_temporary(*iaid, given, lease, &over));
                }
                Association::Temporary { iaid } => reply.push(&reply::temporary(*iaid, Status::NoAddrsAvail)),
                Association::PrefixDelegation { iaid } => {
                    reply.push(&reply::prefix_delegation(*iaid, Status::NoPrefixAvail));
                }
            }
        }
        self.configuration(reply);
        let name = self.endpoint.network.fqdn.as_deref();
        if let Some(option) = self.message.fqdn.zip(name).and_then(|(flags, name)| reply::fqdn(name, flags)) {
            reply.push(&option);
        }
    }

    /// Section 18.3.3: are these addresses still those of this link? Nothing else is said.
    fn confirm(&self) -> Result<Reply, Discard> {
        if self.message.named().next().is_none() {
            return Err(Discard::NothingToConfirm);
        }
        let right = self.message.named().all(|address| self.leased.contains(&address));
        let mut reply = self.start(MessageType::Reply);
        reply.push(&reply::status(if right { Status::Success } else { Status::NotOnLink }));
        Ok(reply)
    }

    /// Release and Decline (sections 18.3.7 and 18.3.8): nothing is stored, so there is nothing to do but to say yes, and
    /// no to associations that hold none of our addresses.
    fn give_back(&self) -> Reply {
        let mut reply = self.start(MessageType::Reply);
        reply.push(&reply::status(Status::Success));
        for association in &self.message.associations {
            match association {
                Association::NonTemporary { addresses, .. }
                    if addresses.iter().any(|address| self.leased.contains(address)) => {}
                Association::NonTemporary { iaid, .. } => reply.push(&reply::no_binding(*iaid)),
                Association::Temporary { iaid } => reply.push(&reply::temporary(*iaid, Status::NoBinding)),
                Association::PrefixDelegation { iaid } => {
                    reply.push(&reply::prefix_delegation(*iaid, Status::NoBinding));
                }
            }
        }
        reply
    }

    /// What the client asked for in its option request and the endpoint has.
    fn configuration(&self, reply: &mut Reply) {
        let network = &self.endpoint.network;
        let wants = |code| self.message.option_request.contains(&code);
        if wants(OptionCode::DomainNameServers) && !network.dns_servers.is_empty() {
            reply.push_list(&network.dns_servers, |servers| DhcpOption::DomainNameServers(servers.to_vec()));
        }
        let names: Vec<Vec<u8>> =
            network.search_domains.iter().filter_map(|name| domain::encode(name)).collect();
        if wants(OptionCode::DomainSearchList) && !names.is_empty() {
            reply.push_list(&names, reply::search_list);
        }
        if wants(OptionCode::NtpServer) {
            // One option a server (RFC 5908 section 4).
            for server in &network.ntp_servers {
                reply.push(&DhcpOption::NtpServer(vec![NtpSuboption::ServerAddress(*server)]));
            }
        }
        if wants(OptionCode::SolMaxRt) {
            reply.push(&reply::sol_max_rt(SOL_MAX_RT));
        }
        let informs = self.message.kind == MessageType::InformationRequest;
        if informs && wants(OptionCode::InformationRefreshTime) {
            let refresh = network.valid_lifetime.clamp(*REFRESH.start(), *REFRESH.end());
            reply.push(&DhcpOption::InformationRefreshTime(refresh));
        }
    }
}
