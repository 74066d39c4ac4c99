//! Where a packet goes: to the TAP of a local endpoint, or by a route to another host. What cannot be finished exactly
//! here is the kernel's, which forwards it by the same addresses, or answers with an ICMPv6 error.

use super::flow::Party;
use super::guard::{Packet, is_gateway};
use super::{Hook, Tables, offload, route};
use crate::abi::{Endpoint, Exit, Owner, Reason, exit_flags, owner_flags};
use crate::wire::{ETHERNET_LEN, Fragment, Frame, Headers, IPV6_LEN, TcpHeader, UdpHeader, protocol};

/// Whom a packet is for, and the way there.
#[derive(Clone, Copy, Debug)]
pub struct Destination {
    /// Whom it is for.
    pub to: Party,
    /// The way; [`Exit::NONE`] if it cannot be finished exactly.
    pub exit: Exit,
}

/// Decides about a packet that passed the guard and is no neighbour discovery.
#[inline(always)]
pub fn decide<F: Frame, T: Tables>(
    frame: &F,
    headers: &Headers,
    tables: &T,
    ifindex: u32,
    endpoint: &Endpoint,
    packet: &Packet,
    hook: Hook,
) -> Result<Destination, Reason> {
    let destination = &packet.destination;
    if destination.is_unspecified() || destination.is_loopback() || destination.is_v4_mapped() {
        return Err(Reason::DestinationAddress);
    }
    // For the host itself: DHCPv6, multicast listener reports, pings to the router. Never forwarded (RFC 4291 2.5.6).
    if destination.is_multicast() || destination.is_link_local() {
        return Ok(Destination { to: Party::HOST, exit: Exit::NONE });
    }
    // The kernel forwards only what was sent to its own MAC, and nothing from a link-local address; it sends Time
    // Exceeded; it looks into hop-by-hop options; it cuts padding off.
    let ours = headers.ethernet.destination() == endpoint.gateway_mac
        && headers.ip.hop_limit > 1
        && !packet.source.is_link_local()
        && !packet.chain.hop_by_hop
        && !packet.padded
        && !frame.is_tagged();
    let mut to = Party::OUTSIDE;
    let mut exit = Exit::NONE;
    match tables.owner(destination) {
        Some(owner) if is_gateway(owner) => to = Party::HOST,
        Some(owner) => {
            to = Party::endpoint(owner.ifindex, owner.slot);
            if ours && owner.ifindex != ifindex {
                exit = to_owner(frame, packet, owner);
            }
        }
        None => match route::find(tables, destination) {
            Some(route) if route.is_local() => to = Party::HOST,
            Some(route) if ours => exit = route::exit(frame, tables, ifindex, packet, route, hook),
            _ => {}
        },
    }
    if hook == Hook::Xdp && exit.is_some() && !offload::is_complete(frame, packet) {
        exit = Exit::NONE;
    }
    Ok(Destination { to, exit })
}

/// The way to a local endpoint, if it can be reached and the packet fits.
#[inline(always)]
pub fn to_owner<F: Frame>(frame: &F, packet: &Packet, owner: &Owner) -> Exit {
    if is_gateway(owner)
        || owner.flags & owner_flags::REACHABLE == 0
        || !fits(frame, packet, owner.mtu as usize)
    {
        return Exit::NONE;
    }
    Exit {
        mac: owner.mac,
        mtu: as_mtu(owner.mtu),
        source_mac: owner.gateway_mac,
        // Whether it can is asked for each frame.
        flags: exit_flags::XDP,
        ifindex: owner.ifindex,
        slot: owner.slot,
    }
}

/// An MTU as ways remember it: what is longer than the longest number goes the long way.
#[inline(always)]
pub fn as_mtu(mtu: u32) -> u16 {
    mtu.min(u32::from(u16::MAX)) as u16
}

/// Makes the frame what the next node receives; `false` leaves it unedited.
#[inline(always)]
pub fn edit<F: Frame>(frame: &mut F, exit: &Exit) -> bool {
    let Some(headers) = frame.view_mut::<Headers>(0) else {
        return false;
    };
    headers.ethernet.destination = exit.mac.octets();
    headers.ethernet.source = exit.source_mac.octets();
    headers.ip.hop_limit = headers.ip.hop_limit.wrapping_sub(1);
    true
}

/// The packet, or each segment it will be cut into, is not longer than `mtu` bytes.
#[inline(always)]
pub fn fits<F: Frame>(frame: &F, packet: &Packet, mtu: usize) -> bool {
    if IPV6_LEN + packet.payload_len <= mtu {
        return true;
    }
    let gso_size = frame.gso_size();
    if gso_size == 0 || !matches!(packet.chain.fragment, Fragment::Whole) {
        return false;
    }
    let headers = packet.chain.offset - ETHERNET_LEN;
    let upper = match packet.chain.protocol {
        protocol::TCP => match frame.load::<TcpHeader>(packet.chain.offset) {
            Some(tcp) => (tcp.data_offset >> 4) as usize * 4,
            None => return false,
        },
        protocol::UDP => size_of::<UdpHeader>(),
        _ => return false,
    };
    headers + upper + gso_size <= mtu
}
