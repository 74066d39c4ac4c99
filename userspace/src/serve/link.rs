//! Frames out of TAPs, whole, by one packet socket.
//!
//! A reply does not take the kernel's IPv6 output: that would make a neighbour entry for whatever address the VM writes
//! in its request, and a VM could fill the table that all share. The VM's MAC is known, so no neighbour is needed.

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use std::io;

/// A packet socket that only sends.
#[derive(Debug)]
pub struct Link {
    socket: Socket,
}

impl Link {
    /// Opens the socket; needs `CAP_NET_RAW`.
    pub fn open() -> io::Result<Self> {
        // Of protocol 0, so it never receives.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    /// Sends a whole Ethernet frame that carries IPv6. `ENETDOWN`: the interface is down; `ENXIO`: it is gone;
    /// `ENOBUFS`: its queue is full.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let sent = self.socket.send_to(frame, &address(ifindex)?)?;
        if sent == frame.len() {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::WriteZero, format!("sent {sent} of {} bytes", frame.len())))
        }
    }
}

/// IPv6 on an interface, 0 for all; the destination is in the frame.
pub(super) fn address(ifindex: u32) -> io::Result<SockAddr> {
    let ifindex = i32::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENXIO))?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is an address type smaller than the storage, and all zero is a value of it.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as u16;
    link.sll_protocol = (libc::ETH_P_IPV6 as u16).to_be();
    link.sll_ifindex = ifindex;
    link.sll_halen = 6;
    // SAFETY: the storage holds a whole `sockaddr_ll` of family AF_PACKET, whose length this is.
    Ok(unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) })
}
