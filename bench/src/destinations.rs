//! Many destinations behind an uplink, and the routes to them. Pure.
//!
//! Address and frame of a destination come from a 32-bit number alone, so that nobody needs a table, which would be in
//! the caches in place of the routes. What an address has in its prefix it has inverted in its last 32 bits: all have the
//! same sum, and a frame may be sent to another one without a new checksum.

use crate::choice::Popularity;
use serval_tests::frame::Mac;
use std::net::Ipv6Addr;

/// Multiplied with this (modulo 2^32), numbers 0 to n lie evenly among all, whatever n is.
pub const FACTOR: u32 = 0x9e37_79b1;
/// Where in a frame the number of its destination is, in network byte order.
pub const NUMBER_AT: usize = 42;
/// Where it is inverted.
pub const INVERSE_AT: usize = 50;
/// Other hosts that the routes lead to, at most.
const NEXT_HOPS: u32 = 64;

/// What a route is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// A single address, /128: what a mesh of hosts announces.
    Host,
    /// A prefix, /64.
    Prefix,
}

impl Width {
    /// Bits that are compared.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Host => 128,
            Self::Prefix => 64,
        }
    }
}

/// As many destinations as routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destinations {
    /// How many.
    pub count: u32,
    /// What each route is to.
    pub width: Width,
    /// How often each is sent to.
    pub popularity: Popularity,
}

impl Destinations {
    /// Destinations that are sent to alike.
    pub const fn new(count: u32, width: Width) -> Self {
        Self { count, width, popularity: Popularity::Even }
    }

    /// The numbers of all destinations.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        (0..self.count).map(|index| index.wrapping_mul(FACTOR))
    }

    /// The number of one of them, for a random value.
    pub fn choose(self, random: u32) -> u32 {
        self.popularity.choose(random, self.count).wrapping_mul(FACTOR)
    }

    /// The route to a destination.
    pub fn route(self, number: u32) -> (Ipv6Addr, u8) {
        let address = u128::from(address(number));
        let unused = 128 - u32::from(self.width.bits());
        (Ipv6Addr::from((address >> unused) << unused), self.width.bits())
    }

    /// How many next hops there are.
    pub fn next_hops(self) -> u32 {
        self.count.min(NEXT_HOPS)
    }

    /// By which of them the route to a destination leads.
    pub fn next_hop(self, number: u32) -> u32 {
        number % self.next_hops()
    }
}

/// The address of a destination.
pub fn address(number: u32) -> Ipv6Addr {
    let [[a, b], [c, d]] = [number, !number].map(|word| [(word >> 16) as u16, word as u16]);
    Ipv6Addr::new(0x2001, 0xdb8, a, b, 0, 0, c, d)
}

/// The address of a next hop.
pub fn next_hop_address(next_hop: u32) -> Ipv6Addr {
    Ipv6Addr::from(0xfe80 << 112 | 0x1_0000 | u128::from(next_hop))
}

/// The MAC of a next hop.
pub const fn next_hop_mac(next_hop: u32) -> Mac {
    [0xfa, 0x16, 0x3e, 1, 0, next_hop as u8]
}

/// Sends a frame to another destination.
pub fn redirect(frame: &mut [u8], number: u32) {
    frame[NUMBER_AT..][..4].copy_from_slice(&number.to_be_bytes());
    frame[INVERSE_AT..][..4].copy_from_slice(&(!number).to_be_bytes());
}

/// The number of a frame's destination, if it can be one.
pub fn number(frame: &[u8]) -> Option<u32> {
    let bytes = frame.get(NUMBER_AT..NUMBER_AT + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serval_tests::frame::{GATEWAY_MAC, Ipv6, Payload, addresses, checksum_holds};
    use std::collections::BTreeSet;

    #[test]
    fn every_destination_has_a_route_of_its_own() {
        for width in [Width::Host, Width::Prefix] {
            let destinations = Destinations::new(1000, width);
            let routes: BTreeSet<_> =
                destinations.numbers().map(|number| destinations.route(number)).collect();
            assert_eq!(routes.len(), 1000);
            for random in [0, 1, u32::MAX / 2, u32::MAX] {
                assert!(routes.contains(&destinations.route(destinations.choose(random))));
            }
        }
        let route = Destinations::new(1, Width::Prefix).route(0x1234_5678);
        assert_eq!(route, ("2001:db8:1234:5678::".parse().unwrap(), 64));
    }

    #[test]
    fn a_frame_that_is_sent_elsewhere_keeps_its_checksum() {
        let headers = Ipv6 { destination: address(0), ..Ipv6::new([2, 0, 0, 0, 0, 1], GATEWAY_MAC) };
        let mut frame = headers.carrying(Payload::udp(1, 2, b"data")).bytes;
        for to in [0, 1, 0xffff, 0xffff_0000, 0xdead_beef, u32::MAX] {
            redirect(&mut frame, to);
            assert!(checksum_holds(&frame));
            assert_eq!(addresses(&frame).unwrap().1, address(to));
            assert_eq!(number(&frame), Some(to));
        }
    }
}
