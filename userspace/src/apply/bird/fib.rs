//! Routes in the kernel's main table that BIRD has put there or learns from there: reads them, and takes BIRD's away when no
//! BIRD is left to do so. rtnetlink.

use super::difference::Side;
use futures_util::StreamExt;
use ipnet::Ipv6Net;
use rtnetlink::Handle;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use std::collections::BTreeSet;
use std::io;

/// A connection to the kernel, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Fib {
    handle: Handle,
}

impl Fib {
    /// Connects, within a tokio runtime.
    pub fn open() -> io::Result<Self> {
        // Strict checking makes the kernel filter by protocol and table (Linux 4.20).
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Where the routes of a side lead. A table that changes meanwhile is read as well as that goes.
    pub async fn destinations(&self, side: Side) -> io::Result<BTreeSet<Ipv6Net>> {
        Ok(self.routes(side.mark()).await?.iter().filter_map(destination).collect())
    }

    /// Takes all of BIRD's routes away; how many there were.
    pub async fn sweep(&self) -> io::Result<usize> {
        let routes = self.routes(RouteProtocol::Bird).await?;
        let mut swept = 0;
        for route in routes {
            match self.handle.route().del(route).execute().await {
                Ok(()) => swept += 1,
                Err(error) => match errno(&error) {
                    // It has gone by itself.
                    Some(libc::ESRCH) => {}
                    Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                    None => return Err(io::Error::other(error)),
                },
            }
        }
        Ok(swept)
    }

    async fn routes(&self, mark: RouteProtocol) -> io::Result<Vec<RouteMessage>> {
        let mut wanted = RouteMessage::default();
        wanted.header.address_family = AddressFamily::Inet6;
        wanted.header.protocol = mark;
        wanted.attributes.push(RouteAttribute::Table(RouteHeader::RT_TABLE_MAIN.into()));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(wanted));
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers = self.handle.clone().request(request).map_err(io::Error::other)?;
        let (mut routes, mut interrupted) = (Vec::new(), false);
        while let Some(answer) = answers.next().await {
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                // A kernel that does not filter sends everything.
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route))
                    if route.header.protocol == mark && route.header.table == RouteHeader::RT_TABLE_MAIN =>
                {
                    routes.push(route);
                }
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
        if interrupted {
            tracing::debug!("the table changed while routes of {mark:?} were read");
        }
        Ok(routes)
    }
}

/// Where a route leads.
pub(super) fn destination(route: &RouteMessage) -> Option<Ipv6Net> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(*address),
        _ => None,
    });
    Ipv6Net::new(address.unwrap_or(std::net::Ipv6Addr::UNSPECIFIED), route.header.destination_prefix_length)
        .ok()
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().raw_os_error(),
        _ => None,
    }
}
