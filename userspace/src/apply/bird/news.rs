//! Hears when routes in the kernel change that BIRD puts there or learns from there, whoever changes them. A socket filter keeps all others' away from us, and
//! a short queue keeps cheap what comes by the hundred thousand: that something was lost is news enough then.

use super::difference::Side;
use super::fib::destination;
use ipnet::Ipv6Net;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{RouteHeader, RouteMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};
use socket2::{SockFilter, SockRef};
use std::collections::BTreeMap;
use std::io;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What the kernel queues for us, in bytes: a few hundred changes.
const QUEUE: usize = 256 << 10;

/// More destinations than this are not looked at one by one.
pub(super) const MANY: usize = 64;

/// A notification about one route is far shorter; one with very many next hops is cut, and then not understood.
const DATAGRAM: usize = 16 << 10;

/// Where `rtm_table` and `rtm_protocol` are in a notification (`struct nlmsghdr`, `struct rtmsg`).
const TABLE_AT: u32 = 16 + 4;
const PROTOCOL_AT: u32 = 16 + 5;

/// The subscription.
#[derive(Debug)]
pub(super) struct News {
    socket: AsyncFd<Socket>,
}

/// What has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// These destinations: whether the route of that side to each is there after the last change.
    Few(BTreeMap<(Side, Ipv6Net), bool>),
    /// More than one would look at one by one, or nobody knows what.
    Many,
}

impl News {
    /// Subscribes, in the network namespace of the calling thread, within a tokio runtime.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        let options = SockRef::from(&socket);
        options.set_recv_buffer_size(QUEUE)?;
        options
            .attach_filter(&filter(RouteHeader::RT_TABLE_MAIN, Side::ALL.map(|side| side.mark().into())))?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.add_membership(libc::RTNLGRP_IPV6_ROUTE)?;
        socket.set_non_blocking(true)?;
        // SAFETY: the socket is moved into the `AsyncFd`, which closes it, and keeps its descriptor until then.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self { socket: registered.map_err(|error| error.into_parts().1)? })
    }

    /// Waits until there is something to [`Self::drain`].
    pub async fn wait(&self) -> io::Result<()> {
        self.socket.readable().await?.retain_ready();
        Ok(())
    }

    /// What has changed since the last call.
    pub fn drain(&self) -> io::Result<Heard> {
        let mut few = BTreeMap::new();
        let mut many = false;
        let mut datagram = Vec::with_capacity(DATAGRAM);
        loop {
            datagram.clear();
            match self.socket.try_io(Interest::READABLE, |socket| socket.recv(&mut datagram, 0)) {
                Ok(_) if many => {}
                Ok(_) => match change(&datagram) {
                    Some((at, there)) => {
                        few.insert(at, there);
                        many = few.len() > MANY;
                    }
                    None => many = true,
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => many = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(if many { Heard::Many } else { Heard::Few(few) })
    }
}

/// Lets through what is in `table` and of one of `protocols`: classic BPF (bpf(4)).
fn filter(table: u8, [one, other]: [u8; 2]) -> [SockFilter; 7] {
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, TABLE_AT),
        SockFilter::new(JUMP_EQUAL, 0, 4, table.into()),
        SockFilter::new(LOAD_BYTE, 0, 0, PROTOCOL_AT),
        SockFilter::new(JUMP_EQUAL, 1, 0, one.into()),
        SockFilter::new(JUMP_EQUAL, 0, 1, other.into()),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// Whose route has come or gone.
fn change(datagram: &[u8]) -> Option<((Side, Ipv6Net), bool)> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram).ok()?;
    let of = |route: &RouteMessage| Some((Side::marked(route.header.protocol)?, destination(route)?));
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => of(&route).map(|at| (at, true)),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route)) => {
            of(&route).map(|at| (at, false))
        }
        _ => None,
    }
}
