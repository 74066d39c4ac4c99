//! DHCPv6 server (RFC 8415), the message half: a request and the endpoint it came from in, a reply out. Pure.
//!
//! A TAP is an identity: whoever sends through it is the VM, so the lease is what the plan says of the endpoint, whatever
//! DUID or IAID the client uses, and nothing is stored. Two hosts with the same plan give the same answer.
//!
//! `dhcproto` encodes replies and names codes. Requests, which a VM may write as it likes, are not given to its decoder:
//! that of 0.15 subtracts from the length of status codes and vendor options without a check, reads some options without
//! regard to their length, recurses once per nesting level of the input, and takes the first bad option for the end of
//! the message.

mod answer;
mod association;
mod reply;
mod request;
#[cfg(test)]
mod tests;

pub use answer::{Answer, answer};
pub use request::{Discard, Request};

use std::net::Ipv6Addr;

/// Port of servers (RFC 8415 section 7.2).
pub const SERVER_PORT: u16 = 547;
/// Port of clients.
pub const CLIENT_PORT: u16 = 546;
/// `All_DHCP_Relay_Agents_and_Servers` (RFC 8415 section 7.1).
pub const ALL_RELAY_AGENTS_AND_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// `All_DHCP_Servers`.
pub const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);
