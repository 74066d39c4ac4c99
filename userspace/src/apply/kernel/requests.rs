//! Requests to the kernel over one rtnetlink connection: what is there, and single changes.

use super::state::{Actual, Address, Change, Neighbour, Route};
use super::{METRIC, PROTOCOL};
use futures_util::StreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// A request is answered within microseconds, a dump of a big table within a second. If an answer was lost, waiting
/// for it must not stop the daemon.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a dump is asked for again when the table changed under it. A routing daemon may change the table all
/// the time, so this must end; what was missed is found as existing when it is set.
const DUMP_ATTEMPTS: usize = 3;

/// One connection. Requests may be under way at the same time.
pub(super) struct Requests {
    handle: Handle,
}

/// The route that the kernel takes to an address.
pub(super) struct Lookup {
    pub protocol: u8,
    /// 0 when it has none, or several.
    pub oif: u32,
    pub metric: u32,
}

impl Lookup {
    pub(super) fn ours_via(&self, ifindex: u32) -> bool {
        self.protocol == PROTOCOL && self.oif == ifindex
    }
}

impl Requests {
    pub(super) fn open() -> io::Result<Self> {
        // Strict checking makes the kernel filter dumps by interface and protocol (Linux 4.20).
        let (mut connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
        // Without these, the end of an answer and the end of the connection look the same.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Addresses and neighbours of everybody on `interface`, or on all interfaces, by ifindex. Routes are not read.
    pub(super) async fn observe(&self, interface: Option<u32>) -> io::Result<BTreeMap<u32, Actual>> {
        let mut actual: BTreeMap<u32, Actual> = BTreeMap::new();

        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.index = interface.unwrap_or(0);
        for answer in self.dump(RouteNetlinkMessage::GetAddress(message)).await? {
            if let RouteNetlinkMessage::NewAddress(answer) = answer {
                let there = actual.entry(answer.header.index).or_default();
                there.addresses.extend(read_address(&answer));
            }
        }

        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.attributes.extend(interface.map(NeighbourAttribute::IfIndex));
        for answer in self.dump(RouteNetlinkMessage::GetNeighbour(message)).await? {
            if let RouteNetlinkMessage::NewNeighbour(answer) = answer {
                let there = actual.entry(answer.header.ifindex).or_default();
                there.neighbours.extend(read_neighbour(&answer));
            }
        }

        // A kernel that does not filter sends everything.
        if let Some(interface) = interface {
            actual.retain(|ifindex, _| *ifindex == interface);
        }
        Ok(actual)
    }

    /// All routes with our protocol number in the main table, by ifindex. The kernel walks the whole table for this,
    /// which takes it tens of milliseconds when the table has a hundred thousand routes.
    pub(super) async fn our_routes(&self) -> io::Result<BTreeMap<u32, BTreeSet<Route>>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        message.header.protocol = RouteProtocol::Other(PROTOCOL);
        message.attributes.push(RouteAttribute::Table(RouteHeader::RT_TABLE_MAIN.into()));
        let mut routes: BTreeMap<u32, BTreeSet<Route>> = BTreeMap::new();
        for answer in self.dump(RouteNetlinkMessage::GetRoute(message)).await? {
            if let RouteNetlinkMessage::NewRoute(answer) = answer
                && answer.header.protocol == RouteProtocol::Other(PROTOCOL)
                && answer.header.table == RouteHeader::RT_TABLE_MAIN
                && let Some(oif) = oif(&answer)
            {
                routes.entry(oif).or_default().extend(read_route(&answer));
            }
        }
        Ok(routes)
    }

    /// Makes one change. `false`: it was so already.
    pub(super) async fn change(&self, ifindex: u32, change: Change) -> io::Result<bool> {
        match change {
            Change::SetAddress(address, prefix_length) => {
                let message = RouteNetlinkMessage::NewAddress(new_address(ifindex, address, prefix_length));
                self.execute(message, NLM_F_CREATE | NLM_F_REPLACE).await.map(|()| true)
            }
            Change::RenewAddress(address, prefix_length) | Change::RemoveAddress(address, prefix_length) => {
                let message = RouteNetlinkMessage::DelAddress(address_key(ifindex, address, prefix_length));
                removed(self.execute(message, 0).await)
            }
            Change::SetNeighbour(address, mac) => {
                let mut message = neighbour_key(ifindex, address);
                message.header.state = NeighbourState::Permanent;
                message.attributes.extend([
                    NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()),
                    NeighbourAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
                ]);
                let message = RouteNetlinkMessage::NewNeighbour(message);
                self.execute(message, NLM_F_CREATE | NLM_F_REPLACE).await.map(|()| true)
            }
            Change::RemoveNeighbour(address) => {
                let message = RouteNetlinkMessage::DelNeighbour(neighbour_key(ifindex, address));
                removed(self.execute(message, 0).await)
            }
            Change::AddRoute(address) => self.add_route(ifindex, address).await,
            Change::RemoveRoute(route) => {
                removed(self.execute(RouteNetlinkMessage::DelRoute(route_message(ifindex, route)), 0).await)
            }
        }
    }

    async fn add_route(&self, ifindex: u32, address: Ipv6Addr) -> io::Result<bool> {
        let route = Route { destination: address, prefix_length: 128, metric: METRIC };
        let message = || RouteNetlinkMessage::NewRoute(route_message(ifindex, route));
        match self.execute(message(), NLM_F_CREATE | NLM_F_EXCL).await {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            other => return other.map(|()| true),
        }
        // Ours on another TAP: the address has moved here. Somebody else's is not displaced; the caller finds out by
        // `lookup`.
        match self.lookup(address).await {
            Ok(there) if there.protocol == PROTOCOL && !there.ours_via(ifindex) => {
                self.execute(message(), NLM_F_CREATE | NLM_F_REPLACE).await.map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// Which route the kernel takes to `address`.
    pub(super) async fn lookup(&self, address: Ipv6Addr) -> io::Result<Lookup> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        message.header.destination_prefix_length = 128;
        // The route as it is in the table, with its protocol and metric (Linux 4.20 for IPv6).
        message.header.flags = RouteFlags::FibMatch;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet6(address)));
        let answers = self.ask(RouteNetlinkMessage::GetRoute(message), 0).await?;
        answers
            .messages
            .into_iter()
            .find_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(answer) => Some(Lookup {
                    protocol: answer.header.protocol.into(),
                    oif: oif(&answer).unwrap_or(0),
                    metric: metric(&answer),
                }),
                _ => None,
            })
            .ok_or_else(|| io::ErrorKind::TimedOut.into())
    }

    async fn execute(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(message, NLM_F_ACK | flags).await.map(|_| ())
    }

    async fn dump(&self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut attempts = 1;
        loop {
            let answers = self.ask(message.clone(), NLM_F_DUMP).await?;
            if !answers.interrupted || attempts == DUMP_ATTEMPTS {
                return Ok(answers.messages);
            }
            attempts += 1;
        }
    }

    async fn ask(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Answers> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        let mut stream = self.handle.clone().request(request).map_err(|_| io::ErrorKind::BrokenPipe)?;
        let read = async {
            let mut answers = Answers::default();
            while let Some(answer) = stream.next().await {
                answers.interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(answer) => {
                        answers.messages.push(answer);
                        // A lookup has one answer and no acknowledgement.
                        if flags & (NLM_F_ACK | NLM_F_DUMP) == 0 {
                            return Ok(answers);
                        }
                    }
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
            Err(io::ErrorKind::BrokenPipe.into())
        };
        tokio::time::timeout(PATIENCE, read).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

#[derive(Default)]
struct Answers {
    messages: Vec<RouteNetlinkMessage>,
    /// The table changed while it was read (NLM_F_DUMP_INTR).
    interrupted: bool,
}

/// What is gone already was removed by somebody else, which is as good.
fn removed(outcome: io::Result<()>) -> io::Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::ESRCH | libc::ENOENT | libc::EADDRNOTAVAIL) => Ok(false),
            _ => Err(error),
        },
    }
}

fn address_key(ifindex: u32, address: Ipv6Addr, prefix_length: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.index = ifindex;
    message.header.prefix_len = prefix_length;
    message.attributes.push(AddressAttribute::Local(IpAddr::V6(address)));
    message
}

fn new_address(ifindex: u32, address: Ipv6Addr, prefix_length: u8) -> AddressMessage {
    let mut message = address_key(ifindex, address, prefix_length);
    // No DAD: the guest must not be able to take it. The link-local one has its fe80::/64; no prefix is on-link for a
    // gateway address, so that several TAPs may have the same one. Without lifetimes it is permanent.
    let flags = match address.is_unicast_link_local() {
        true => AddressFlags::Nodad,
        false => AddressFlags::Nodad | AddressFlags::Noprefixroute,
    };
    message.header.flags = AddressHeaderFlags::Nodad;
    message.attributes.extend([
        AddressAttribute::Flags(flags),
        AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)),
    ]);
    message
}

fn read_address(message: &AddressMessage) -> Option<Address> {
    let mut address = None;
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let mut protocol = None;
    for attribute in &message.attributes {
        match attribute {
            // With a peer, IFA_ADDRESS is the peer's and IFA_LOCAL is ours.
            AddressAttribute::Address(IpAddr::V6(there)) => address = address.or(Some(*there)),
            AddressAttribute::Local(IpAddr::V6(there)) => address = Some(*there),
            AddressAttribute::Flags(there) => flags = *there,
            AddressAttribute::Protocol(there) => protocol = Some(*there),
            _ => {}
        }
    }
    Some(Address { address: address?, prefix_length: message.header.prefix_len, flags, protocol })
}

fn neighbour_key(ifindex: u32, address: Ipv6Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.ifindex = ifindex;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)));
    message
}

fn read_neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let mut address = None;
    let mut mac = None;
    let mut protocol = 0;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(there)) => address = Some(*there),
            NeighbourAttribute::LinkLayerAddress(there) => mac = there.as_slice().try_into().ok(),
            NeighbourAttribute::Protocol(there) => protocol = (*there).into(),
            _ => {}
        }
    }
    Some(Neighbour { address: address?, mac, state: message.header.state, protocol })
}

fn route_message(ifindex: u32, route: Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.destination_prefix_length = route.prefix_length;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes.extend([
        RouteAttribute::Destination(RouteAddress::Inet6(route.destination)),
        RouteAttribute::Oif(ifindex),
        RouteAttribute::Priority(route.metric),
    ]);
    message
}

fn read_route(message: &RouteMessage) -> Option<Route> {
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet6(there)) => Some(*there),
        _ => None,
    });
    // A default route has no destination.
    let destination =
        destination.or((message.header.destination_prefix_length == 0).then_some(Ipv6Addr::UNSPECIFIED));
    Some(Route {
        destination: destination?,
        prefix_length: message.header.destination_prefix_length,
        metric: metric(message),
    })
}

fn oif(message: &RouteMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(oif) => Some(*oif),
        _ => None,
    })
}

fn metric(message: &RouteMessage) -> u32 {
    let metric = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metric.unwrap_or(0)
}
