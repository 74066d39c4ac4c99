//! clsact and its BPF filters, for kernels before 6.6, and what XDP program an interface has: by rtnetlink, with one
//! blocking request at a time.

use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::sys::constants::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Our filters come first: a filter before them that accepts a frame would skip the guard.
const PRIORITY: u16 = 1;
/// By handle and name our filters are told from foreign ones, also by a later process.
const HANDLE: u32 = 0x5e72;

/// The two sides of an interface, as clsact has them.
const INGRESS: TcHandle = TcHandle { major: u16::MAX, minor: TcHandle::MIN_INGRESS };
const EGRESS: TcHandle = TcHandle { major: u16::MAX, minor: TcHandle::MIN_EGRESS };

/// A filter of ours: where it is, and how it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filter {
    /// On a TAP, frames from the VM.
    TapIn,
    /// On a TAP, frames to the VM.
    TapOut,
    /// On an uplink, frames from other hosts.
    UplinkIn,
}

impl Filter {
    const fn parent(self) -> TcHandle {
        match self {
            Self::TapIn | Self::UplinkIn => INGRESS,
            Self::TapOut => EGRESS,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::TapIn => "serval_tap_in",
            Self::TapOut => "serval_tap_out",
            Self::UplinkIn => "serval_uplink_in",
        }
    }
}

/// The XDP program of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpProgram {
    /// Its program id.
    pub program: u32,
    /// It runs in the driver.
    pub native: bool,
}

/// The XDP program on `ifindex`, whoever put it there.
pub fn xdp_program(ifindex: u32) -> io::Result<Option<XdpProgram>> {
    let mut request = LinkMessage::default();
    request.header.index = ifindex;
    let replies = request_route(RouteNetlinkMessage::GetLink(request), 0)?;
    let Some(RouteNetlinkMessage::NewLink(link)) = replies.into_iter().next() else { return Ok(None) };
    let xdp = link.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    });
    let xdp = xdp.unwrap_or_default();
    let native = xdp.contains(&LinkXdp::Attached(XdpAttached::Driver));
    Ok(xdp.iter().find_map(|x| match x {
        LinkXdp::ProgId(program) => Some(XdpProgram { program: *program, native }),
        _ => None,
    }))
}

/// Adds the clsact qdisc; `false` when the interface has one already.
pub fn add_clsact(ifindex: u32) -> io::Result<bool> {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    message.header.parent = TcHandle::CLSACT;
    message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    match request_route(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_EXCL) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the clsact qdisc if no filter is left on it.
pub fn remove_unused_clsact(ifindex: u32) -> io::Result<()> {
    for parent in [INGRESS, EGRESS] {
        if !filters(ifindex, parent)?.is_empty() {
            return Ok(());
        }
    }
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    message.header.parent = TcHandle::CLSACT;
    absent_is_fine(request_route(RouteNetlinkMessage::DelQueueDiscipline(message), 0))
}

/// Puts `program` on the interface, in the place of an earlier program of ours if there is one: atomically.
pub fn set_filter(ifindex: u32, filter: Filter, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut message = our_filter(ifindex, filter);
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned())),
        TcOption::Bpf(TcFilterBpfOption::ProgName(filter.name().to_owned())),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]));
    request_route(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE).map(drop)
}

/// Program id of our filter, if it is there.
pub fn our_program(ifindex: u32, filter: Filter) -> io::Result<Option<u32>> {
    let found = filters(ifindex, filter.parent())?;
    Ok(found.iter().filter(|found| is_ours(found, filter)).find_map(|found| {
        bpf_options(found).find_map(|option| match option {
            TcFilterBpfOption::ProgId(id) => Some(*id),
            _ => None,
        })
    }))
}

/// Takes our filter off; `false` when it was not there.
pub fn remove_filter(ifindex: u32, filter: Filter) -> io::Result<bool> {
    if our_program(ifindex, filter)?.is_none() {
        return Ok(false);
    }
    absent_is_fine(request_route(RouteNetlinkMessage::DelTrafficFilter(our_filter(ifindex, filter)), 0))?;
    Ok(true)
}

fn our_filter(ifindex: u32, filter: Filter) -> TcMessage {
    let mut message = TcMessage::default();
    message.header = TcHeader {
        family: AddressFamily::Unspec,
        index: ifindex.cast_signed(),
        handle: TcHandle::from(HANDLE),
        parent: filter.parent(),
        // Priority and protocol, the latter in network byte order.
        info: u32::from(PRIORITY) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be()),
    };
    message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    message
}

fn is_ours(found: &TcMessage, filter: Filter) -> bool {
    u32::from(found.header.handle) == HANDLE
        && found.header.info >> 16 == u32::from(PRIORITY)
        && bpf_options(found)
            .any(|option| matches!(option, TcFilterBpfOption::ProgName(name) if name == filter.name()))
}

fn bpf_options(filter: &TcMessage) -> impl Iterator<Item = &TcFilterBpfOption> {
    let options = filter.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    options.flatten().filter_map(|option| match option {
        TcOption::Bpf(option) => Some(option),
        _ => None,
    })
}

/// Every filter of a side; none when the interface or its clsact is not there.
fn filters(ifindex: u32, parent: TcHandle) -> io::Result<Vec<TcMessage>> {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = parent;
    let replies = match request_route(RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        other => other?,
    };
    let filters = replies.into_iter().filter_map(|reply| match reply {
        RouteNetlinkMessage::NewTrafficFilter(filter) => Some(filter),
        _ => None,
    });
    // A filter chain announces itself by a message without a handle.
    Ok(filters.filter(|filter| filter.header.handle != TcHandle::UNSPEC).collect())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT | libc::EINVAL))
}

fn absent_is_fine(result: io::Result<Vec<RouteNetlinkMessage>>) -> io::Result<()> {
    match result {
        Err(error) if !is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Sends one request in the calling thread's network namespace and collects the replies.
fn request_route(message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;

    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut replies = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let reply = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let length = (reply.header.length as usize).next_multiple_of(4).min(rest.len());
            rest = &rest[length.max(1)..];
            match reply.payload {
                NetlinkPayload::InnerMessage(inner) => replies.push(inner),
                NetlinkPayload::Done(_) => return Ok(replies),
                NetlinkPayload::Error(error) => {
                    return match error.code {
                        None => Ok(replies),
                        Some(_) => Err(error.to_io()),
                    };
                }
                _ => {}
            }
        }
    }
}
