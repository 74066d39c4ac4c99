//! The sockets that VMs reach: DHCPv6 by UDP, router solicitations by ICMPv6, and the multicast memberships of both.

use super::dhcp6::{ALL_RELAY_AGENTS_AND_SERVERS, ALL_SERVERS, SERVER_PORT};
use nix::sys::socket::sockopt::{Ipv6RecvHopLimit, Ipv6RecvPacketInfo, RcvBufForce};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Longest datagram.
const LONGEST: usize = 65_536;
/// How many datagrams are read before others get their turn.
pub(super) const BATCH: usize = 64;
/// Bytes that may wait to be read: a request or two of some thousand VMs that boot at once, as the kernel counts
/// them.
const QUEUE: usize = 8 << 20;

/// A datagram and how it came.
#[derive(Debug)]
pub(super) struct Received<'a> {
    pub ifindex: u32,
    pub source: Ipv6Addr,
    pub source_port: u16,
    pub destination: Ipv6Addr,
    pub hop_limit: u8,
    pub payload: &'a [u8],
}

/// A socket that receives, with the arrival interface of every datagram.
#[derive(Debug)]
pub(super) struct Listener {
    /// Also the ICMPv6 socket: here the type stands for a descriptor that tokio watches, and is read by `recvmsg`.
    socket: UdpSocket,
}

impl Listener {
    /// DHCPv6: UDP port 547 of every address. Groups are joined by [`Memberships`].
    pub fn dhcp6() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_only_v6(true)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, SERVER_PORT, 0, 0).into())?;
        Self::new(socket)
    }

    /// Router solicitations, which arrive because the kernel joins all-routers on an interface that forwards.
    pub fn solicitations() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        pass_only_solicitations(&socket)?;
        Self::new(socket)
    }

    fn new(socket: Socket) -> io::Result<Self> {
        lengthen_queue(&socket)?;
        setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
        setsockopt(&socket, Ipv6RecvHopLimit, &true)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())? })
    }

    /// Waits until there may be something to [`read`](Self::read).
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Hands what has arrived to `each`, but no more than a batch.
    pub fn read(&self, buffer: &mut Buffer, mut each: impl FnMut(Received<'_>)) -> io::Result<()> {
        for _ in 0..BATCH {
            let received = self.socket.try_io(Interest::READABLE, || receive(&self.socket, &mut buffer.0));
            match received {
                Ok(Some(received)) => each(received),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Where a datagram is read into.
#[derive(Debug)]
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    /// The room there is.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![0; LONGEST])
    }
}

/// The next datagram; `None` when it is one that says too little of itself.
fn receive<'a>(socket: &impl AsRawFd, buffer: &'a mut [u8]) -> io::Result<Option<Received<'a>>> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo, libc::c_int);
    let (length, source, packet, hop_limit) = {
        let mut slices = [IoSliceMut::new(buffer)];
        let message =
            recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())?;
        let (mut packet, mut hop_limit) = (None, None);
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::Ipv6PacketInfo(info) => packet = Some(info),
                ControlMessageOwned::Ipv6HopLimit(limit) => hop_limit = u8::try_from(limit).ok(),
                _ => {}
            }
        }
        (message.bytes, message.address, packet, hop_limit)
    };
    let known = source.zip(packet).zip(hop_limit);
    Ok(known.map(|((source, packet), hop_limit)| Received {
        ifindex: packet.ipi6_ifindex,
        source: source.ip(),
        source_port: source.port(),
        destination: Ipv6Addr::from(packet.ipi6_addr.s6_addr),
        hop_limit,
        payload: &buffer[..length],
    }))
}

/// Lets what many VMs send at once wait to be read.
pub(super) fn lengthen_queue(socket: &Socket) -> io::Result<()> {
    // Beyond `net.core.rmem_max`, where the daemon may; else as far as that goes.
    setsockopt(socket, RcvBufForce, &QUEUE).or_else(|_| socket.set_recv_buffer_size(QUEUE))
}

/// Sets the filter of RFC 3542 section 3.2; in Linux a bit that is set blocks the type.
fn pass_only_solicitations(socket: &Socket) -> io::Result<()> {
    /// `ICMPV6_FILTER` of linux/icmpv6.h.
    const ICMPV6_FILTER: libc::c_int = 1;
    const ROUTER_SOLICITATION: usize = 133;
    let mut filter = [u32::MAX; 8];
    filter[ROUTER_SOLICITATION / 32] &= !(1 << (ROUTER_SOLICITATION % 32));
    // SAFETY: the kernel reads the 32 bytes of `filter`, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_ICMPV6,
            ICMPV6_FILTER,
            filter.as_ptr().cast(),
            size_of_val(&filter) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The groups of DHCPv6 servers, joined on every TAP.
///
/// A socket's memberships are paid from `net.core.optmem_max`, some hundred in older kernels, so they are spread over as
/// many sockets as it takes. These only hold them: an interface that has joined a group delivers it to every socket of
/// the port (`IPV6_MULTICAST_ALL`), so the one listener hears all, and each datagram once.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    holders: Vec<Socket>,
    /// Which holder has those of which interface.
    joined: BTreeMap<u32, usize>,
}

impl Memberships {
    const GROUPS: [Ipv6Addr; 2] = [ALL_RELAY_AGENTS_AND_SERVERS, ALL_SERVERS];

    /// Joins on an interface, anew if it has joined: the kernel forgets memberships without a word when the interface
    /// is replaced or its MTU was below 1280 for a time.
    pub fn join(&mut self, ifindex: u32) -> io::Result<()> {
        self.leave(ifindex);
        for (index, holder) in self.holders.iter().enumerate() {
            match join_all(holder, ifindex) {
                Err(error) if is_exhausted(&error) => {}
                result => {
                    result?;
                    self.joined.insert(ifindex, index);
                    return Ok(());
                }
            }
        }
        let holder = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        join_all(&holder, ifindex)?;
        self.joined.insert(ifindex, self.holders.len());
        self.holders.push(holder);
        Ok(())
    }

    /// Leaves on an interface, which may be gone.
    pub fn leave(&mut self, ifindex: u32) {
        if let Some(index) = self.joined.remove(&ifindex) {
            leave_all(&self.holders[index], ifindex);
        }
    }
}

fn join_all(holder: &Socket, ifindex: u32) -> io::Result<()> {
    let result = Memberships::GROUPS.iter().try_for_each(|group| holder.join_multicast_v6(group, ifindex));
    if result.is_err() {
        leave_all(holder, ifindex);
    }
    result
}

/// An error means that there was no membership, which is what is wanted.
fn leave_all(holder: &Socket, ifindex: u32) {
    for group in Memberships::GROUPS {
        if let Err(error) = holder.leave_multicast_v6(&group, ifindex) {
            tracing::trace!(ifindex, %group, %error, "leave");
        }
    }
}

/// The socket's option memory is used up (`sock_kmalloc`).
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS))
}
