//! The host's interfaces as they are now: one dump, then the kernel's own notifications (RTNLGRP_LINK).
//!
//! Opens one rtnetlink socket and only reads. The namespace is the one of the thread that calls [`Watch::open`].
//!
//! Dump and notifications come over the *same* socket, so their order is the kernel's order: a dump never brings back
//! what a later notification took away, nor an older notification what the dump does not show. When the socket overflows (ENOBUFS) notifications are lost: everything
//! is read again, and every interface is reported as touched, because a bounce may have been among them.

mod table;

use crate::plan::HostFacts;
use rtnetlink::packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use std::collections::BTreeSet;
use std::io;
use std::task::{Context, Poll, Waker};
use table::{Notice, Table};

/// Why interfaces can't be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// No socket.
    #[error("cannot open a netlink route socket to watch interfaces: {0}")]
    Open(#[source] io::Error),
    /// The socket does not work any more.
    #[error("the netlink socket that watches interfaces failed: {0}; restart the daemon")]
    Socket(#[source] io::Error),
    /// The kernel refuses to list interfaces.
    #[error("the kernel refuses to list its interfaces: {0}")]
    Refused(#[source] io::Error),
}

/// Follows the interfaces of one network namespace.
pub struct Watch {
    socket: TokioSocket,
    received: Vec<u8>,
    table: Table,
    facts: HostFacts,
    dump: Dump,
    sequence: u32,
}

/// Where the reading of all interfaces is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dump {
    /// Nothing is under way; notifications tell the whole story.
    Idle,
    /// Under way.
    Running,
    /// Under way, but what it says is incomplete: to be repeated when it ends.
    Spoilt,
}

impl Watch {
    /// A datagram of a dump is at most 32 KiB long.
    const DATAGRAM: usize = 64 * 1024;
    /// Room for bursts of notifications; the kernel takes as much of it as `net.core.rmem_max` allows.
    const RECEIVE_BUFFER: libc::c_int = 1 << 20;

    /// Subscribes and reads all interfaces.
    pub async fn open() -> Result<Self, WatchError> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(WatchError::Open)?;
        let inner = socket.socket_mut();
        inner.set_rx_buf_sz(Self::RECEIVE_BUFFER).map_err(WatchError::Open)?;
        // Subscribed before the dump is asked for: nothing falls between them.
        inner.bind(&SocketAddr::new(0, 1 << (libc::RTNLGRP_LINK - 1))).map_err(WatchError::Open)?;
        let mut watch = Self {
            socket,
            received: Vec::with_capacity(Self::DATAGRAM),
            table: Table::default(),
            facts: HostFacts::default(),
            dump: Dump::Idle,
            sequence: 0,
        };
        watch.start_dump()?;
        watch.changed().await?;
        Ok(watch)
    }

    /// The interfaces as of the last [`Self::changed`].
    pub fn facts(&self) -> &HostFacts {
        &self.facts
    }

    /// Waits until something changed, and says which interfaces (by ifindex) were touched.
    ///
    /// An interface that went down and up again is touched although its facts are what they were: the kernel flushed
    /// its routes and addresses. May be dropped while it waits; nothing is lost then.
    pub async fn changed(&mut self) -> Result<BTreeSet<u32>, WatchError> {
        while self.dump != Dump::Idle || self.table.untouched() {
            let outcome = self.receive().await;
            self.process(outcome)?;
            // Take what is there already, so that a burst of notifications is one change.
            while let Poll::Ready(outcome) = self.poll_receive() {
                self.process(outcome)?;
            }
        }
        self.facts = self.table.facts();
        Ok(self.table.take_touched())
    }

    async fn receive(&mut self) -> io::Result<SocketAddr> {
        self.received.clear();
        self.socket.recv_from(&mut self.received).await
    }

    fn poll_receive(&mut self) -> Poll<io::Result<SocketAddr>> {
        self.received.clear();
        // Never registers for a wake-up that matters: `changed` polls again itself.
        self.socket.poll_recv_from(&mut Context::from_waker(Waker::noop()), &mut self.received)
    }

    fn process(&mut self, outcome: io::Result<SocketAddr>) -> Result<(), WatchError> {
        match outcome {
            // Only the kernel (port 0) is believed.
            Ok(from) if from.port_number() == 0 => self.read_datagram(),
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                tracing::debug!("notifications about interfaces were lost; reading all interfaces again");
                self.resynchronize()
            }
            Err(error) => Err(WatchError::Socket(error)),
        }
    }

    fn read_datagram(&mut self) -> Result<(), WatchError> {
        let received = std::mem::take(&mut self.received);
        let mut rest = received.as_slice();
        while let Ok(message) = NetlinkBuffer::new_checked(rest) {
            self.read_message(&message)?;
            // Messages begin at multiples of four bytes (NLMSG_ALIGN).
            let length = (message.length() as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
        self.received = received;
        Ok(())
    }

    fn read_message(&mut self, message: &NetlinkBuffer<&[u8]>) -> Result<(), WatchError> {
        let of_dump = self.dump != Dump::Idle && message.sequence_number() == self.sequence;
        if of_dump {
            self.table.dump_arrives();
            if message.flags() & NLM_F_DUMP_INTR != 0 {
                self.dump = Dump::Spoilt;
            }
        }
        match message.message_type() {
            libc::RTM_NEWLINK | libc::RTM_DELLINK => {
                let gone = message.message_type() == libc::RTM_DELLINK;
                match Notice::parse(message.payload(), gone) {
                    Ok(Some(notice)) => self.table.note(notice),
                    Ok(None) => {}
                    Err(error) => tracing::warn!("the kernel sent an interface that cannot be read: {error}"),
                }
                Ok(())
            }
            NLMSG_DONE if of_dump => self.end_dump(),
            NLMSG_ERROR if of_dump => {
                let code = message.payload().first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                match -code {
                    // The socket was full when the dump began: the dump goes on when there is room again.
                    0 | libc::ENOBUFS => Ok(()),
                    errno => Err(WatchError::Refused(io::Error::from_raw_os_error(errno))),
                }
            }
            NLMSG_OVERRUN => self.resynchronize(),
            _ => Ok(()),
        }
    }

    fn resynchronize(&mut self) -> Result<(), WatchError> {
        self.table.touch_all();
        match self.dump {
            Dump::Idle => self.start_dump(),
            // The kernel runs one dump a socket; this one may have missed something.
            Dump::Running | Dump::Spoilt => {
                self.dump = Dump::Spoilt;
                Ok(())
            }
        }
    }

    fn start_dump(&mut self) -> Result<(), WatchError> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        header.sequence_number = self.sequence;
        let mut message =
            NetlinkMessage::new(header, NetlinkPayload::InnerMessage(RouteNetlinkMessage::GetLink(request)));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        // The kernel takes a request within the system call, so this never waits.
        self.socket.socket_ref().send_to(&bytes, &SocketAddr::new(0, 0), 0).map_err(WatchError::Socket)?;
        self.table.request_dump();
        self.dump = Dump::Running;
        Ok(())
    }

    fn end_dump(&mut self) -> Result<(), WatchError> {
        match std::mem::replace(&mut self.dump, Dump::Idle) {
            Dump::Spoilt => self.start_dump(),
            Dump::Running | Dump::Idle => {
                self.table.end_dump();
                Ok(())
            }
        }
    }
}
