//! Routes to other hosts, as the kernel has them: a /128 first, then the longest prefix. A next hop that the kernel does
//! not know the MAC of is left to it, as is every route that is not plain forwarding.

use super::forward::{as_mtu, fits};
use super::guard::Packet;
use super::{Hook, Tables};
use crate::abi::{Address, Exit, MAX_NEXT_HOPS, Route, SLOT_UNCONFIGURED, exit_flags, next_hop_flags};
use crate::wire::{Fragment, Frame, L4_OFFSET, protocol};

/// A large odd number without structure: 2^64 divided by the golden ratio.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// The route to an address.
#[inline(always)]
pub fn find<'t, T: Tables>(tables: &'t T, destination: &Address) -> Option<&'t Route> {
    match tables.host_route(destination) {
        Some(route) => Some(route),
        None => tables.route(destination),
    }
}

/// The way to the destination by a route, if the fast path may take it.
#[inline(always)]
pub fn exit<F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    ifindex: u32,
    packet: &Packet,
    route: &Route,
    hook: Hook,
) -> Exit {
    if route.group == 0 || (route.mtu != 0 && !fits(frame, packet, route.mtu as usize)) {
        return Exit::NONE;
    }
    let Some(group) = tables.next_hops(route.group) else { return Exit::NONE };
    let mut chosen = &group.hops[0];
    if group.count > 1 {
        let hash = flow_hash(frame, packet);
        let mut index = 0;
        while index < MAX_NEXT_HOPS {
            chosen = &group.hops[index];
            if hash <= chosen.upper_bound {
                break;
            }
            index += 1;
        }
    }
    let usable = match hook {
        Hook::Xdp => next_hop_flags::RESOLVED | next_hop_flags::XDP,
        Hook::Tc => next_hop_flags::RESOLVED,
    };
    // Back to where it came from is for the kernel, which tells the VM of the better way (RFC 4861 section 8.2).
    if chosen.flags & usable != usable
        || chosen.ifindex == ifindex
        || !fits(frame, packet, chosen.mtu as usize)
    {
        return Exit::NONE;
    }
    let mtu = if route.mtu == 0 { chosen.mtu } else { route.mtu.min(chosen.mtu) };
    Exit {
        mac: chosen.mac,
        mtu: as_mtu(mtu),
        source_mac: chosen.source_mac,
        flags: if chosen.flags & next_hop_flags::XDP == 0 { 0 } else { exit_flags::XDP },
        ifindex: chosen.ifindex,
        slot: SLOT_UNCONFIGURED,
    }
}

/// The same for every packet of a flow. Fragments have no ports but the first, so they go by addresses alone.
#[inline(always)]
fn flow_hash<F: Frame>(frame: &F, packet: &Packet) -> u32 {
    let ([a, b], [c, d]) = (packet.source.words(), packet.destination.words());
    let ports = match packet.chain.protocol {
        protocol::TCP | protocol::UDP
            if packet.chain.offset == L4_OFFSET && matches!(packet.chain.fragment, Fragment::Whole) =>
        {
            frame.view::<[u8; 4]>(L4_OFFSET).map_or(0, |ports| u32::from_ne_bytes(*ports))
        }
        _ => 0,
    };
    let mut hash = (a ^ b.rotate_left(32)).wrapping_mul(MIX);
    hash = (hash ^ (hash >> 29) ^ c ^ d.rotate_left(32)).wrapping_mul(MIX);
    hash = (hash ^ (hash >> 32) ^ u64::from(ports)).wrapping_mul(MIX);
    (hash >> 32) as u32
}
