//! The chain of IPv6 extension headers (RFC 8200 section 4).

use super::{Frame, protocol};
use core::hint::cold_path;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Extension headers that are followed. Real packets carry one or two; a longer chain is refused, not skipped.
pub const MAX_HEADERS: usize = 8;

/// Where a packet stands in a fragmented one (RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// No fragment header.
    Whole,
    /// A fragment header around a whole packet (RFC 6946).
    Atomic,
    /// The first of several: has the headers.
    First,
    /// A later one: has no headers to look at.
    Later,
}

/// What the chain leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Upper-layer protocol.
    pub protocol: u8,
    /// Where the upper layer begins, in bytes from the start of the frame.
    pub offset: usize,
    /// Fragment header, if any.
    pub fragment: Fragment,
    /// There is a hop-by-hop header, which a router has to look at.
    pub hop_by_hop: bool,
    /// Identification of the fragment header, as stored; 0 without one.
    pub identification: u32,
}

/// Why a chain is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainError {
    /// A header does not fit into the packet.
    Truncated,
    /// A header does not fit into a first fragment (RFC 7112).
    TruncatedFragment,
    /// More than one fragment header.
    NestedFragment,
    /// Hop-by-hop options that are not the first header, something behind a header that is the last (RFC 6275 section
    /// 6.1.1, RFC 7401 section 5.1), or more than [`MAX_HEADERS`].
    Illegal,
    /// Routing header type 0 (RFC 5095).
    RoutingType0,
}

/// The first bytes of an extension header; which of them mean what depends on the header.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
struct ExtensionHeader {
    next_header: u8,
    length: u8,
    rest: [u8; 6],
}

/// Bytes that every extension header has at least.
const MIN_LEN: usize = size_of::<ExtensionHeader>();

/// Follows the chain that begins with header `first` at `start`; the packet ends at `end` (bytes from frame start).
#[inline(always)]
pub fn walk<F: Frame>(frame: &F, first: u8, start: usize, end: usize) -> Result<Chain, ChainError> {
    let mut chain = Chain {
        protocol: first,
        offset: start,
        fragment: Fragment::Whole,
        hop_by_hop: false,
        identification: 0,
    };
    let mut followed = 0;
    while followed < MAX_HEADERS {
        match chain.protocol {
            protocol::HOP_BY_HOP if followed > 0 => return Err(ChainError::Illegal),
            protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
            | protocol::MOBILITY
            | protocol::HIP
            | protocol::SHIM6 => {}
            _ => return Ok(chain),
        }
        cold_path();
        let truncated = match chain.fragment {
            Fragment::Whole | Fragment::Atomic => ChainError::Truncated,
            Fragment::First | Fragment::Later => ChainError::TruncatedFragment,
        };
        if chain.offset + MIN_LEN > end {
            return Err(truncated);
        }
        let header: ExtensionHeader = frame.load(chain.offset).ok_or(truncated)?;
        let mut length = (header.length as usize + 1) * 8;
        match chain.protocol {
            protocol::HOP_BY_HOP => chain.hop_by_hop = true,
            // Receivers take these for the upper layer: what hid behind one would be another packet to us than to them.
            protocol::MOBILITY | protocol::HIP | protocol::SHIM6 => {
                return if header.next_header == protocol::NONE {
                    Ok(chain)
                } else {
                    Err(ChainError::Illegal)
                };
            }
            protocol::ROUTING if header.rest[0] == 0 => return Err(ChainError::RoutingType0),
            protocol::AUTHENTICATION => length = (header.length as usize + 2) * 4,
            protocol::FRAGMENT => {
                if !matches!(chain.fragment, Fragment::Whole) {
                    return Err(ChainError::NestedFragment);
                }
                length = 8;
                let [_, _, a, b, c, d] = header.rest;
                chain.identification = u32::from_ne_bytes([a, b, c, d]);
                let offset = u16::from_be_bytes([header.rest[0], header.rest[1] & 0xf8]);
                chain.fragment = match (offset, header.rest[1] & 1) {
                    (0, 0) => Fragment::Atomic,
                    (0, _) => Fragment::First,
                    _ => Fragment::Later,
                };
            }
            _ => {}
        }
        chain.protocol = header.next_header;
        chain.offset += length;
        if chain.offset > end {
            return Err(truncated);
        }
        if matches!(chain.fragment, Fragment::Later) {
            return Ok(chain);
        }
        followed += 1;
    }
    Err(ChainError::Illegal)
}
