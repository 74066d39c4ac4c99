//! Whether a frame is complete as XDP sees it. XDP on a TAP does not see the virtio-net header: a checksum that the
//! guest left to the device is still open, and a redirect would deliver it so. TC has the socket buffer, whose offload
//! state goes along; whatever is not surely complete is left to it.

use super::guard::Packet;
use crate::wire::{Fragment, Frame, Icmp6Header, L4_OFFSET, TcpHeader, UdpHeader, protocol, pseudo_header};

/// The bytes are what the receiver must see.
#[inline(always)]
pub fn is_complete<F: Frame>(frame: &F, packet: &Packet) -> bool {
    if packet.chain.offset != L4_OFFSET || !matches!(packet.chain.fragment, Fragment::Whole) {
        return false;
    }
    let pseudo = pseudo_header(packet.source, packet.destination, packet.payload_len, packet.chain.protocol);
    match packet.chain.protocol {
        protocol::TCP => {
            let Some(tcp) = frame.view::<TcpHeader>(L4_OFFSET) else {
                return false;
            };
            // An open checksum field holds the sum of the pseudo-header; for segmentation by some stacks (Windows), of
            // one with length 0.
            let without_length = pseudo_header(packet.source, packet.destination, 0, protocol::TCP);
            let field = u16::from_ne_bytes(tcp.checksum);
            field != pseudo.fold() && field != without_length.fold()
        }
        // UDP may carry tunnels whose inner checksum is the open one: only the whole sum tells. No checksum at all is
        // legal for tunnels only (RFC 6935).
        protocol::UDP => {
            let Some(udp) = frame.view::<UdpHeader>(L4_OFFSET) else {
                return false;
            };
            udp.checksum != [0; 2]
                && udp.length.get() as usize == packet.payload_len
                && frame.sum(L4_OFFSET, packet.payload_len).is_some_and(|sum| pseudo.add_sum(sum).is_valid())
        }
        protocol::ICMP6 => frame
            .view::<Icmp6Header>(L4_OFFSET)
            .is_some_and(|icmp| u16::from_ne_bytes(icmp.checksum) != pseudo.fold()),
        // Encrypted, or with a checksum that virtio-net cannot leave open.
        protocol::ESP | protocol::SCTP | protocol::NONE => true,
        _ => false,
    }
}
