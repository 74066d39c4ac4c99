//! Views over packet bytes. Every view is unaligned and holds network byte order; nothing here decides anything.

mod checksum;
mod extension;
mod frame;
mod header;
mod neighbour;

pub use checksum::{Checksum, pseudo_header};
pub use extension::{Chain, ChainError, Fragment, MAX_HEADERS, walk};
pub use frame::Frame;
pub use header::{
    ETHERNET_LEN, EthernetHeader, Headers, IPV6_LEN, Icmp6Header, Ipv6Header, L4_OFFSET, TcpHeader,
    UdpHeader, ethertype, icmp6, protocol,
};
pub use neighbour::{
    MAX_OPTION_UNITS, NeighbourAdvertisementFrame, NeighbourMessage, OPTION_UNIT, Options,
    advertisement_flags,
};
