//! Where a packet goes: to the TAP of a local endpoint, or by a route to another host. What cannot be finished exactly
//! here is the kernel's, which forwards it by the same addresses, or answers with an ICMPv6 error.

use super::guard::{Packet, is_gateway};
use super::{Hook, Tables, Verdict, offload, route};
use crate::abi::{Endpoint, Mac, Owner, Reason, owner_flags};
use crate::wire::{ETHERNET_LEN, Fragment, Frame, Headers, IPV6_LEN, TcpHeader, UdpHeader, protocol};

/// The way out for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The device.
    pub ifindex: u32,
    /// Counter slot of the VM that it is delivered to; `None` when it leaves the host.
    pub slot: Option<u32>,
    /// Destination MAC.
    pub mac: Mac,
    /// Source MAC.
    pub source_mac: Mac,
}

/// Decides about a packet that passed the guard and is no neighbour discovery.
#[inline(always)]
pub fn decide<'t, F: Frame, T: Tables>(
    frame: &F,
    headers: &Headers,
    tables: &'t T,
    ifindex: u32,
    endpoint: &Endpoint,
    packet: &Packet,
    hook: Hook,
) -> Verdict<'t> {
    let destination = &packet.destination;
    if destination.is_unspecified() || destination.is_loopback() || destination.is_v4_mapped() {
        return Verdict::Drop(Reason::DestinationAddress);
    }
    // For the host itself: DHCPv6, multicast listener reports, pings to the router. Never forwarded (RFC 4291 2.5.6).
    if destination.is_multicast() || destination.is_link_local() || packet.source.is_link_local() {
        return Verdict::Pass;
    }
    // The kernel forwards only what was sent to its own MAC; it sends Time Exceeded; it looks into hop-by-hop options;
    // it cuts padding off.
    if headers.ethernet.destination() != endpoint.gateway_mac
        || headers.ip.hop_limit <= 1
        || packet.chain.hop_by_hop
        || packet.padded
        || frame.is_tagged()
    {
        return Verdict::Pass;
    }
    let exit = match tables.owner(destination) {
        Some(owner) if owner.ifindex == ifindex => None,
        Some(owner) => to_owner(frame, packet, owner),
        None => route::exit(frame, tables, ifindex, packet, hook),
    };
    match exit {
        Some(exit) if hook == Hook::Tc || offload::is_complete(frame, packet) => Verdict::Forward(exit),
        _ => Verdict::Pass,
    }
}

/// The way to a local endpoint, if it can be reached and the packet fits.
#[inline(always)]
pub fn to_owner<F: Frame>(frame: &F, packet: &Packet, owner: &Owner) -> Option<Exit> {
    if is_gateway(owner)
        || owner.flags & owner_flags::REACHABLE == 0
        || !fits(frame, packet, owner.mtu as usize)
    {
        return None;
    }
    Some(Exit {
        ifindex: owner.ifindex,
        slot: Some(owner.slot),
        mac: owner.mac,
        source_mac: owner.gateway_mac,
    })
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
