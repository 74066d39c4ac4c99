//! The kernel's table of connections, emptied: `conntrack -F` without the program.

use anyhow::{Context, Result, bail};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use std::os::fd::AsRawFd;

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = 1 << 8 | 2;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const FLAGS: u16 = 1 | 4;
/// Type of the acknowledgement, which holds an error number or 0.
const NLMSG_ERROR: u16 = 2;

/// Forgets all connections of the network namespace of the calling thread.
pub fn flush() -> Result<()> {
    let netfilter = SockProtocol::NetlinkNetFilter;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, netfilter)
        .context("no netlink socket for netfilter")?;
    // Header: length, type, flags, sequence number, port; then family (all), version and resource.
    let mut request = 20u32.to_ne_bytes().to_vec();
    request.extend(DELETE.to_ne_bytes());
    request.extend(FLAGS.to_ne_bytes());
    request.extend([0; 12]);
    sendto(socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())
        .context("cannot ask for connections to be forgotten")?;
    let mut answer = [0; 256];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).context("no answer to that")?;
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let error = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, error) {
        (Some(NLMSG_ERROR), Some(0)) if length >= 20 => Ok(()),
        _ => bail!("connections are not forgotten (CONFIG_NF_CT_NETLINK): error {error:?}"),
    }
}
