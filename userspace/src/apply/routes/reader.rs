//! Hears what the kernel says of its routing tables: one rtnetlink socket, which only reads and asks.
//!
//! Answers and notifications come over the *same* socket, so their order is the kernel's order. When the socket overflows
//! (ENOBUFS) notifications are lost, and everything has to be read again.

use super::event::{Event, NeighbourKey};
use super::fib::{Fib, Part};
use super::hops::Probe;
use super::message::{self, Rule};
use super::prefix::Prefix;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NLMSG_NOOP, NLMSG_OVERRUN, NetlinkBuffer,
};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// A datagram of a dump is at most 32 KiB long.
const DATAGRAM: usize = 64 * 1024;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
// linux/rtnetlink.h and linux/if_link.h, as far as libc lacks them.
const RTM_GETNEXTHOP: u16 = 106;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const AF_INET6: u8 = libc::AF_INET6 as u8;

/// The socket and what is being read by it.
pub struct Reader {
    socket: Socket,
    port: u32,
    received: Vec<u8>,
    sequence: u32,
    /// The answer that is awaited.
    dump: Option<Dump>,
    /// What to ask for next.
    queue: VecDeque<Part>,
    /// The sync that is under way, if any, missed something.
    spoilt: bool,
}

struct Dump {
    part: Part,
    sequence: u32,
    rules: Vec<Rule>,
    /// The table changed while it was read (NLM_F_DUMP_INTR), or could not be read.
    interrupted: bool,
    /// How often it was poked since something came of it.
    silence: u32,
}

/// What came of [`Reader::drain`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// There is more to read.
    pub more: bool,
    /// How many notifications were taken.
    pub events: usize,
    /// Notifications were lost.
    pub lost: bool,
    /// An interface went down: routes may have gone without notice.
    pub link_down: bool,
    /// The MTU of an interface changed, and with it, without notice, that of routes by it (`rt6_mtu_change`).
    pub link_mtu: bool,
    /// A sync came to its end: whether it missed nothing, and of which prefixes it said something new.
    pub synced: Option<(bool, BTreeSet<Prefix>)>,
}

impl Reader {
    /// Subscribes, in the network namespace of the calling thread. The kernel queues up to `buffer` bytes.
    pub fn open(buffer: usize) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        // By force, beyond net.core.rmem_max, which takes CAP_NET_ADMIN.
        if setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &buffer).is_err() {
            setsockopt(&socket.as_fd(), sockopt::RcvBuf, &buffer)?;
        }
        let port = socket.bind_auto()?.port_number();
        for group in [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_NEIGH,
            libc::RTNLGRP_IPV6_ROUTE,
            libc::RTNLGRP_IPV6_RULE,
            libc::RTNLGRP_NEXTHOP,
        ] {
            match socket.add_membership(group) {
                // Before Linux 5.3 there are no next hop objects.
                Err(error) if group == libc::RTNLGRP_NEXTHOP => {
                    tracing::debug!("no next hop objects: {error}")
                }
                other => other?,
            }
        }
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket,
            port,
            received: Vec::with_capacity(DATAGRAM),
            sequence: 0,
            dump: None,
            queue: VecDeque::new(),
            spoilt: false,
        })
    }

    /// Reads all tables. A sync is trusted when no notification was lost since the last one.
    pub fn start_sync(&mut self, fib: &mut Fib, trusted: bool) -> io::Result<()> {
        self.spoilt = false;
        fib.begin_sync(trusted);
        self.queue.extend(Part::ALL);
        self.ask_next()
    }

    /// Takes what is there, up to `limit` datagrams, and tells `fib`.
    pub fn drain(&mut self, fib: &mut Fib, limit: usize) -> io::Result<Drained> {
        let mut drained = Drained::default();
        for _ in 0..limit {
            self.received.clear();
            match self.socket.recv_from(&mut self.received, 0) {
                // Only the kernel (port 0) is believed.
                Ok((_, from)) if from.port_number() == 0 => self.read_datagram(fib, &mut drained)?,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(drained),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.lose(fib, &mut drained),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        drained.more = true;
        Ok(drained)
    }

    /// Has the kernel resolve a neighbour, or check it if it is stale, as a packet to it would. An entry that is permanent
    /// would not be so any more (`NTF_USE`, Linux 5.16 and later). So one that is not known must not be there.
    pub fn probe(&self, (ifindex, address): NeighbourKey, probe: Probe) -> io::Result<()> {
        let flags = match probe {
            Probe::Resolve => NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL,
            Probe::Check => NLM_F_REQUEST,
        };
        let mut payload = vec![AF_INET6, 0, 0, 0];
        payload.extend(ifindex.to_ne_bytes());
        payload.extend([0, 0, libc::NTF_USE, 0]);
        attribute(&mut payload, libc::NDA_DST, &address.octets());
        // Nobody waits for an answer: an error comes without a sequence number of a dump.
        self.send(libc::RTM_NEWNEIGH, flags, 0, &payload)
    }

    /// Gets an answer going that came to a halt: when it does not fit the queue, the kernel goes on with it only after a
    /// message has been taken. This makes it send one.
    /// After some pokes without an answer it is asked for again: the request was lost, as its error may have been.
    pub fn poke(&mut self) -> io::Result<()> {
        if let Some(dump) = &mut self.dump {
            dump.silence += 1;
            if dump.silence > 2 {
                self.queue.push_front(dump.part);
                self.spoilt = true;
                self.dump = None;
                return self.ask_next();
            }
        }
        self.send(NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, 0, &[])
    }

    fn lose(&mut self, fib: &mut Fib, drained: &mut Drained) {
        drained.lost = true;
        self.spoilt = true;
        fib.distrust();
    }

    fn read_datagram(&mut self, fib: &mut Fib, drained: &mut Drained) -> io::Result<()> {
        let received = std::mem::take(&mut self.received);
        let mut rest = received.as_slice();
        let mut outcome = Ok(());
        while let (Ok(()), Ok(message)) = (&outcome, NetlinkBuffer::new_checked(rest)) {
            outcome = self.read_message(&message, fib, drained);
            // Messages begin at multiples of four bytes (NLMSG_ALIGN).
            rest = rest.get((message.length() as usize).next_multiple_of(4)..).unwrap_or_default();
        }
        self.received = received;
        outcome
    }

    fn read_message(
        &mut self,
        message: &NetlinkBuffer<&[u8]>,
        fib: &mut Fib,
        drained: &mut Drained,
    ) -> io::Result<()> {
        // A notification may carry the number of whoever caused it.
        let answered = message.port_number() == self.port;
        let of_dump =
            self.dump.as_mut().filter(|dump| answered && dump.sequence == message.sequence_number());
        let (kind, payload) = (message.message_type(), message.payload());
        let Some(dump) = of_dump else {
            match kind {
                // What is left of an answer that was given up.
                _ if answered && message.sequence_number() != 0 => {}
                NLMSG_OVERRUN => self.lose(fib, drained),
                NLMSG_ERROR if errno(payload) == 0 => {}
                NLMSG_ERROR => {
                    let error = io::Error::from_raw_os_error(-errno(payload));
                    tracing::debug!("the kernel does not check a neighbour: {error}");
                }
                _ => self.take_event(message::parse(kind, message.flags(), payload), fib, drained),
            }
            return Ok(());
        };
        dump.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
        dump.silence = 0;
        match (kind, -errno(payload)) {
            // The queue was full when the answer began: it goes on when there is room. Or an answer that was given up is
            // still under way; asked again later.
            (NLMSG_ERROR, libc::ENOBUFS | libc::EBUSY) => Ok(()),
            (NLMSG_DONE | NLMSG_ERROR, errno) => {
                let unsupported = matches!(errno, libc::EOPNOTSUPP | libc::EAFNOSUPPORT);
                let optional = matches!(dump.part, Part::Rules | Part::Objects);
                dump.interrupted |= errno != 0 && !(unsupported && optional);
                self.end_dump(fib, drained)
            }
            (libc::RTM_NEWRULE, _) => {
                dump.rules.extend(Rule::parse(payload));
                Ok(())
            }
            _ => {
                if let Some(event) = message::parse(kind, message.flags(), payload) {
                    fib.found(event);
                }
                Ok(())
            }
        }
    }

    fn take_event(&mut self, event: Option<Event>, fib: &mut Fib, drained: &mut Drained) {
        let Some(event) = event else { return };
        drained.events += 1;
        match &event {
            Event::RulesChanged if !self.queue.contains(&Part::Rules) => self.queue.push_back(Part::Rules),
            Event::Link(ifindex, link) => {
                let before = fib.hops().link(*ifindex);
                drained.link_down |= !link.up && before.is_some_and(|before| before.up);
                drained.link_mtu |= before.is_some_and(|before| before.device_mtu != link.device_mtu);
            }
            _ => {}
        }
        fib.apply(event);
    }

    fn end_dump(&mut self, fib: &mut Fib, drained: &mut Drained) -> io::Result<()> {
        let Some(dump) = self.dump.take() else { return Ok(()) };
        self.spoilt |= dump.interrupted && dump.part != Part::Rules;
        match dump.part {
            Part::Rules if dump.interrupted => self.queue.push_front(Part::Rules),
            Part::Rules => fib.set_rules(dump.rules),
            Part::Routes => {
                let complete = !std::mem::replace(&mut self.spoilt, false);
                drained.synced = Some((complete, fib.end_sync(complete)));
            }
            Part::Links | Part::Objects | Part::Neighbours => {}
        }
        self.ask_next()
    }

    /// Asks for the next part, unless an answer is awaited: the kernel gives one at a time.
    pub fn ask_next(&mut self) -> io::Result<()> {
        if self.dump.is_some() {
            return Ok(());
        }
        let Some(part) = self.queue.pop_front() else { return Ok(()) };
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let (kind, payload) = match part {
            Part::Rules => (libc::RTM_GETRULE, vec![AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Part::Objects => (RTM_GETNEXTHOP, vec![0; 8]),
            Part::Neighbours => (libc::RTM_GETNEIGH, vec![AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Part::Routes => (libc::RTM_GETROUTE, vec![AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Part::Links => {
                let mut payload = vec![0; 16];
                attribute(&mut payload, IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
                (libc::RTM_GETLINK, payload)
            }
        };
        self.send(kind, NLM_F_REQUEST | NLM_F_DUMP, self.sequence, &payload)?;
        self.dump =
            Some(Dump { part, sequence: self.sequence, rules: Vec::new(), interrupted: false, silence: 0 });
        Ok(())
    }

    fn send(&self, kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(HEADER + payload.len());
        bytes.extend(((HEADER + payload.len()) as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(self.port.to_ne_bytes());
        bytes.extend(payload);
        // The kernel takes a request within the system call, so this never waits.
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map(drop)
    }
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as `self` is.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

/// The error that a message of type NLMSG_ERROR or NLMSG_DONE tells: 0 or negative.
fn errno(payload: &[u8]) -> i32 {
    payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code))
}

fn attribute(payload: &mut Vec<u8>, kind: u16, value: &[u8]) {
    payload.extend(((4 + value.len()) as u16).to_ne_bytes());
    payload.extend(kind.to_ne_bytes());
    payload.extend(value);
    payload.resize(payload.len().next_multiple_of(4), 0);
}
