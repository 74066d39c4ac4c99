//! The DHCPv6 client of a VM that wants its address (RFC 8415), as far as an exchange of four messages needs it. Pure.

use serval_tests::frame::{Ipv6, Mac, Payload, UDP, checksum_holds, link_local, multicast_mac};
use std::net::Ipv6Addr;

/// `All_DHCP_Relay_Agents_and_Servers`.
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// Ports of client and server.
const PORTS: [u16; 2] = [546, 547];
/// Where a UDP datagram without extension headers is in a frame, and where its payload is.
const UDP_AT: usize = 54;
const PAYLOAD_AT: usize = 62;
/// Bytes in front of the options of a message, and of those in an identity association.
const MESSAGE_HEADER: usize = 4;
const ASSOCIATION_HEADER: usize = 12;

/// Message types.
mod message {
    pub const SOLICIT: u8 = 1;
    pub const ADVERTISE: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const REPLY: u8 = 7;
}

/// Option codes.
mod option {
    pub const CLIENT_ID: u16 = 1;
    pub const SERVER_ID: u16 = 2;
    pub const IA_NA: u16 = 3;
    pub const IA_ADDRESS: u16 = 5;
    pub const ELAPSED_TIME: u16 = 8;
}

/// A client, identified by its MAC (DUID-LL).
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Its MAC.
    pub mac: Mac,
    /// The address that it is to get.
    pub address: Ipv6Addr,
}

/// What a frame from the server means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It offers the address: this frame asks for it.
    Offered(Vec<u8>),
    /// The address is leased.
    Leased,
}

impl Client {
    /// Its DUID: DUID-LL, Ethernet.
    pub fn duid(&self) -> Vec<u8> {
        [&[0, 3, 0, 1], self.mac.as_slice()].concat()
    }

    /// The frame that begins an exchange.
    pub fn solicit(&self, transaction: u32) -> Vec<u8> {
        let association = [&self.mac[2..], &[0; 8]].concat();
        self.send(message::SOLICIT, transaction, &tlv(option::IA_NA, &association))
    }

    /// What `frame` says in an exchange, if it is about it and gives what it should.
    pub fn hear(&self, frame: &[u8], transaction: u32) -> Option<Said> {
        let [client_port, server_port] = PORTS;
        let ports = [server_port.to_be_bytes(), client_port.to_be_bytes()].concat();
        if frame.get(20) != Some(&UDP) || frame.get(UDP_AT..UDP_AT + 4) != Some(&ports[..]) {
            return None;
        }
        let said = frame.get(PAYLOAD_AT..)?;
        let number = u32::from_be_bytes(said.get(..MESSAGE_HEADER)?.try_into().ok()?);
        let options = &said[MESSAGE_HEADER..];
        let association = find(options, option::IA_NA)?;
        let address = find(association.get(ASSOCIATION_HEADER..)?, option::IA_ADDRESS)?;
        let ours = number & 0xff_ffff == transaction
            && find(options, option::CLIENT_ID) == Some(&self.duid())
            && address.get(..16) == Some(&self.address.octets())
            && frame.get(..6) == Some(&self.mac)
            && checksum_holds(frame);
        match said[0] {
            message::ADVERTISE if ours => {
                let server = tlv(option::SERVER_ID, find(options, option::SERVER_ID)?);
                let more = [server, tlv(option::IA_NA, association)].concat();
                Some(Said::Offered(self.send(message::REQUEST, transaction, &more)))
            }
            message::REPLY if ours => Some(Said::Leased),
            _ => None,
        }
    }

    fn send(&self, kind: u8, transaction: u32, options: &[u8]) -> Vec<u8> {
        let mut bytes = (u32::from(kind) << 24 | transaction).to_be_bytes().to_vec();
        bytes.extend(tlv(option::CLIENT_ID, &self.duid()));
        bytes.extend(tlv(option::ELAPSED_TIME, &[0, 0]));
        bytes.extend(options);
        let headers = Ipv6::new(self.mac, multicast_mac(SERVERS));
        let [from, to] = PORTS;
        Ipv6 { source: link_local(self.mac), destination: SERVERS, ..headers }
            .carrying(Payload::udp(from, to, &bytes))
            .bytes
    }
}

/// An option: code, length, value.
fn tlv(code: u16, value: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), &(value.len() as u16).to_be_bytes(), value].concat()
}

/// The value of the first option with this code.
fn find(mut options: &[u8], code: u16) -> Option<&[u8]> {
    loop {
        let (header, rest) = options.split_first_chunk::<4>()?;
        let [found, length] = [[header[0], header[1]], [header[2], header[3]]].map(u16::from_be_bytes);
        let (value, rest) = rest.split_at_checked(usize::from(length))?;
        if found == code {
            return Some(value);
        }
        options = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serval_tests::frame::GATEWAY_MAC;

    fn client() -> Client {
        Client { mac: [0xfa, 0x16, 0x3e, 0, 0, 1], address: "2001:db8::1".parse().unwrap() }
    }

    fn server(kind: u8, transaction: u32, address: Ipv6Addr) -> Vec<u8> {
        let leased = tlv(option::IA_ADDRESS, &[&address.octets()[..], &[0; 8]].concat());
        let message = [
            (u32::from(kind) << 24 | transaction).to_be_bytes().to_vec(),
            tlv(option::SERVER_ID, b"server"),
            tlv(option::CLIENT_ID, &client().duid()),
            tlv(option::IA_NA, &[&[0; ASSOCIATION_HEADER][..], &leased].concat()),
        ];
        let headers = Ipv6::new(GATEWAY_MAC, client().mac);
        Ipv6 { source: link_local(GATEWAY_MAC), destination: link_local(client().mac), ..headers }
            .carrying(Payload::udp(547, 546, &message.concat()))
            .bytes
    }

    #[test]
    fn an_offer_of_its_address_is_asked_for_at_its_server() {
        let client = client();
        let Some(Said::Offered(request)) = client.hear(&server(2, 7, client.address), 7) else {
            panic!("not understood")
        };
        let message = &request[PAYLOAD_AT..];
        assert_eq!(message[..4], [message::REQUEST, 0, 0, 7]);
        assert_eq!(find(&message[4..], option::SERVER_ID), Some(&b"server"[..]));
        assert!(checksum_holds(&request) && find(&message[4..], option::IA_NA).is_some());
        assert_eq!(client.hear(&server(7, 7, client.address), 7), Some(Said::Leased));
    }

    #[test]
    fn what_is_not_its_lease_is_nothing() {
        let client = client();
        assert_eq!(client.hear(&server(7, 8, client.address), 7), None);
        assert_eq!(client.hear(&server(7, 7, "2001:db8::2".parse().unwrap()), 7), None);
        let mut broken = server(7, 7, client.address);
        broken[61] ^= 1;
        assert_eq!(client.hear(&broken, 7), None);
        assert_eq!(client.hear(&client.solicit(7), 7), None);
        assert_eq!(client.hear(&broken[..70], 7), None);
    }
}
