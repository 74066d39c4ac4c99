//! Neighbour solicitations as whole frames, by a packet socket: the kernel hands none to a raw ICMPv6 socket for an
//! address that is not its own.

use super::socket::{BATCH, Buffer, lengthen_queue};
use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::io;
use std::os::fd::AsRawFd;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A socket that receives neighbour solicitations of all interfaces.
///
/// It is of protocol `ETH_P_IPV6`, not `ETH_P_ALL`: such a socket comes after XDP and TC ingress
/// (`__netif_receive_skb_core`), so it sees only what no hook has answered or dropped, and nothing that goes out.
#[derive(Debug)]
pub(super) struct Snoop {
    /// The type stands for a descriptor that tokio watches, and is read by `recvfrom`.
    socket: UdpSocket,
}

impl Snoop {
    /// Opens the socket; needs `CAP_NET_RAW`.
    pub fn open() -> io::Result<Self> {
        // Of protocol 0 it receives nothing before it has its filter.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.attach_filter(&neighbour_solicitations())?;
        lengthen_queue(&socket)?;
        socket.set_nonblocking(true)?;
        socket.bind(&super::link::address(0)?)?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())? })
    }

    /// Waits until there may be something to [`read`](Self::read).
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Hands what has arrived to `each`, with the ifindex, but no more than a batch.
    pub fn read(&self, buffer: &mut Buffer, mut each: impl FnMut(u32, &[u8])) -> io::Result<()> {
        for _ in 0..BATCH {
            let received = self.socket.try_io(Interest::READABLE, || {
                Ok(recvfrom::<LinkAddr>(self.socket.as_raw_fd(), buffer.bytes())?)
            });
            match received {
                Ok((length, Some(from))) => {
                    if let Ok(ifindex) = u32::try_from(from.ifindex()) {
                        each(ifindex, &buffer.bytes()[..length]);
                    }
                }
                Ok((_, None)) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Passes neighbour solicitations, sent as hosts send them, without extension headers. What is for another host or
/// tagged (`PACKET_OTHERHOST`) does not pass: the kernel does not take it either.
fn neighbour_solicitations() -> [SockFilter; 10] {
    const PACKET_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
    const ETHERTYPE: u32 = 12;
    const NEXT_HEADER: u32 = 14 + 6;
    const ICMPV6_TYPE: u32 = 14 + 40;
    const NEIGHBOUR_SOLICITATION: u32 = 135;
    let load =
        |size: u32, offset| SockFilter::new((libc::BPF_LD | size | libc::BPF_ABS) as u16, 0, 0, offset);
    // When these do not hold, they skip so many steps as lead to the last one.
    let equals =
        |value, skip| SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, skip, value);
    let at_most = |value: u8, skip| {
        SockFilter::new((libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16, skip, 0, value.into())
    };
    let pass = |bytes| SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, bytes);
    [
        load(libc::BPF_B, PACKET_TYPE),
        at_most(libc::PACKET_MULTICAST, 7),
        load(libc::BPF_H, ETHERTYPE),
        equals(libc::ETH_P_IPV6 as u32, 5),
        load(libc::BPF_B, NEXT_HEADER),
        equals(libc::IPPROTO_ICMPV6 as u32, 3),
        load(libc::BPF_B, ICMPV6_TYPE),
        equals(NEIGHBOUR_SOLICITATION, 1),
        pass(u32::MAX),
        pass(0),
    ]
}
