//! What comes from other hosts: packets for local endpoints go straight into their TAPs; the rest is the host's.

use super::forward::{Exit, to_owner};
use super::guard::Packet;
use super::{Hook, Tables, offload};
use crate::wire::{Chain, Fragment, Frame, Headers, L4_OFFSET, ethertype, protocol};

/// The way into a local endpoint, if the frame is for one and can be finished exactly.
#[inline(always)]
pub fn decide<F: Frame, T: Tables>(frame: &F, tables: &T, ifindex: u32, hook: Hook) -> Option<Exit> {
    let headers = frame.view::<Headers>(0)?;
    if headers.ethernet.ethertype.get() != ethertype::IPV6 || headers.ip.version() != 6 || frame.is_tagged() {
        return None;
    }
    let owner = tables.owner(&headers.ip.destination())?;
    let payload_len = headers.ip.payload_len.get() as usize;
    let end = L4_OFFSET + payload_len;
    let source = headers.ip.source();
    // The kernel forwards what was sent to its own MAC, sends Time Exceeded, cuts padding off, looks into hop-by-hop
    // options, and drops or refuses sources that must not be forwarded (RFC 4291 sections 2.5.2, 2.5.3, 2.5.6, 2.7).
    if headers.ethernet.destination() != tables.uplink(ifindex)?.mac
        || headers.ip.hop_limit <= 1
        || end != frame.len()
        || payload_len == 0
        || headers.ip.next_header == protocol::HOP_BY_HOP
        || source.is_link_local()
        || source.is_multicast()
        || source.is_unspecified()
        || source.is_loopback()
        || source.is_v4_mapped()
    {
        return None;
    }
    let packet = Packet {
        source,
        destination: headers.ip.destination(),
        payload_len,
        chain: Chain {
            protocol: headers.ip.next_header,
            offset: L4_OFFSET,
            fragment: Fragment::Whole,
            hop_by_hop: false,
        },
        padded: false,
        discovery: false,
    };
    let exit = to_owner(frame, &packet, owner)?;
    if hook == Hook::Tc || offload::is_complete(frame, &packet) { Some(exit) } else { None }
}
