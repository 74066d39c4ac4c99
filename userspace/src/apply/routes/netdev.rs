//! Which devices take frames that XDP redirects to them: asked of the kernel by generic netlink, family `netdev`
//! (Linux 6.3). It tells when that changes, as it does with a program on the device or, for veth, on its peer.
//!
//! Without that family nobody can tell, and XDP leaves packets for uplinks to TC.

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer};
use rtnetlink::sys::protocols::NETLINK_GENERIC;
use rtnetlink::sys::{Socket, SocketAddr};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

// linux/genetlink.h and linux/netdev.h.
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_CMD_DEV_DEL_NTF: u8 = 3;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_XDP_ACT_NDO_XMIT: u64 = 4;

/// Follows the devices of a network namespace.
pub struct Devices {
    socket: Socket,
    family: u16,
    received: Vec<u8>,
    taking: BTreeSet<u32>,
}

impl Devices {
    /// Subscribes and reads all devices, in the network namespace of the calling thread.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        let name = b"netdev\0";
        send(
            &socket,
            GENL_ID_CTRL,
            NLM_F_REQUEST | NLM_F_ACK,
            CTRL_CMD_GETFAMILY,
            Some((CTRL_ATTR_FAMILY_NAME, name)),
        )?;
        let mut devices =
            Self { socket, family: 0, received: Vec::with_capacity(64 * 1024), taking: BTreeSet::new() };
        let group = devices.receive_family()?;
        devices.socket.add_membership(group)?;
        devices.socket.set_non_blocking(true)?;
        devices.ask()?;
        Ok(devices)
    }

    /// Takes what is there; the devices that take redirected frames, if that may have changed.
    pub fn drain(&mut self) -> io::Result<Option<&BTreeSet<u32>>> {
        let mut changed = false;
        loop {
            self.received.clear();
            match self.socket.recv_from(&mut self.received, 0) {
                Ok((_, from)) if from.port_number() == 0 => changed |= self.read_datagram(),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    // What was lost may be that a device takes none any more.
                    self.taking.clear();
                    changed = true;
                    self.ask()?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(changed.then_some(&self.taking))
    }

    fn ask(&self) -> io::Result<()> {
        send(&self.socket, self.family, NLM_F_REQUEST | NLM_F_DUMP, NETDEV_CMD_DEV_GET, None)
    }

    /// Notes the family's number, and gives that of its multicast group.
    fn receive_family(&mut self) -> io::Result<u32> {
        self.socket.recv_from(&mut self.received, 0)?;
        let message = NetlinkBuffer::new_checked(self.received.as_slice())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let payload = message.payload();
        if message.message_type() == NLMSG_ERROR {
            let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
            return Err(io::Error::from_raw_os_error(-code));
        }
        let (mut family, mut group) = (None, None);
        for (kind, value) in super::message::attributes(payload.get(4..).unwrap_or_default()) {
            match kind {
                CTRL_ATTR_FAMILY_ID => family = value.first_chunk().map(|id| u16::from_ne_bytes(*id)),
                CTRL_ATTR_MCAST_GROUPS => {
                    for (_, entry) in super::message::attributes(value) {
                        let find = |kind| super::message::find(entry, kind);
                        if find(CTRL_ATTR_MCAST_GRP_NAME) == Some(b"mgmt\0") {
                            let id = find(CTRL_ATTR_MCAST_GRP_ID).and_then(|id| id.first_chunk());
                            group = id.map(|id| u32::from_ne_bytes(*id));
                        }
                    }
                }
                _ => {}
            }
        }
        let (Some(family), Some(group)) = (family, group) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        self.family = family;
        Ok(group)
    }

    fn read_datagram(&mut self) -> bool {
        let mut changed = false;
        let mut rest = self.received.as_slice();
        while let Ok(message) = NetlinkBuffer::new_checked(rest) {
            if message.message_type() == self.family
                && let Some((command, attributes)) = message.payload().split_first_chunk::<4>()
                && let Some((ifindex, takes)) = read_device(command[0], attributes)
            {
                changed |= if takes { self.taking.insert(ifindex) } else { self.taking.remove(&ifindex) };
            }
            rest = rest.get((message.length() as usize).next_multiple_of(4)..).unwrap_or_default();
        }
        changed
    }
}

impl AsFd for Devices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as `self` is.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

/// A device, and whether it takes redirected frames.
fn read_device(command: u8, attributes: &[u8]) -> Option<(u32, bool)> {
    let find = |kind| super::message::find(attributes, kind);
    let ifindex = find(NETDEV_A_DEV_IFINDEX)?.first_chunk().map(|id| u32::from_ne_bytes(*id))?;
    let features = find(NETDEV_A_DEV_XDP_FEATURES).and_then(|features| features.first_chunk());
    let features = features.map_or(0, |features| u64::from_ne_bytes(*features));
    Some((ifindex, command != NETDEV_CMD_DEV_DEL_NTF && features & NETDEV_XDP_ACT_NDO_XMIT != 0))
}

fn send(
    socket: &Socket,
    family: u16,
    flags: u16,
    command: u8,
    attribute: Option<(u16, &[u8])>,
) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    bytes.extend(family.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([command, 1, 0, 0]);
    if let Some((kind, value)) = attribute {
        bytes.extend(((4 + value.len()) as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let length = (bytes.len() as u32).to_ne_bytes();
    bytes[..4].copy_from_slice(&length);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map(drop)
}
