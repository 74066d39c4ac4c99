//! What is at the other end of an uplink, played by hand: a veth whose far end writes exact frames, and reads exactly what
//! comes out. It is in a namespace of its own without IPv6, so that nobody else speaks there.

use crate::frame::{Mac, addresses, mac_text};
use crate::netns::Namespace;
use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a frame may take before it counts as missing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest frame: a GSO packet that nobody has cut.
const LARGEST: usize = 65_536 + 64;

/// linux/if_packet.h; since Linux 4.20.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// The far end.
#[derive(Debug)]
pub struct Wire {
    /// Where it is; the interface there has the name of the uplink.
    pub namespace: Namespace,
    /// Its MAC.
    pub mac: Mac,
    interface: String,
    socket: OwnedFd,
}

impl Wire {
    /// Gives `host` the uplink `interface`, up and with this MAC, and holds its far end, which has the MAC `mac`.
    pub fn new(host: &Namespace, interface: &str, uplink_mac: Mac, mac: Mac) -> Result<Self> {
        let namespace = Namespace::new(&format!("far-{interface}"))?;
        namespace.set_sysctl("net/ipv6/conf/default/disable_ipv6", 1)?;
        host.ip(&format!(
            "link add {interface} address {} type veth peer name {interface} address {} netns {}",
            mac_text(uplink_mac),
            mac_text(mac),
            namespace.path()
        ))?;
        namespace.ip(&format!("link set {interface} up"))?;
        host.ip(&format!("link set {interface} up"))?;
        // A veth takes what XDP redirects to it when its peer does GRO.
        namespace.run(&format!("ethtool -K {interface} gro on"))?;
        let ifindex = namespace.ifindex(interface)?.context("the far end is not there")?;
        let socket = namespace.enter(|| packet_socket(ifindex))?;
        Ok(Self { namespace, mac, interface: interface.to_owned(), socket })
    }

    /// Writes a frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let written = nix::unistd::write(&self.socket, frame);
        let written = written.with_context(|| format!("cannot send to {}", self.interface))?;
        ensure!(written == frame.len(), "{} took {written} bytes of {}", self.interface, frame.len());
        Ok(())
    }

    /// Reads one frame, if one is there.
    pub fn read(&self) -> Result<Option<Vec<u8>>> {
        let mut frame = vec![0; LARGEST];
        match nix::unistd::read(&self.socket, &mut frame) {
            Ok(length) => {
                frame.truncate(length);
                Ok(Some(frame))
            }
            // It says once that the interface went down.
            Err(Errno::EAGAIN | Errno::ENETDOWN) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read from {}", self.interface)),
        }
    }

    /// Reads frames until `wanted` accepts one.
    pub fn receive(&self, what: &str, wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
        let end = Instant::now() + PATIENCE;
        let mut others = Vec::new();
        loop {
            match self.read()? {
                Some(frame) if wanted(&frame) => return Ok(frame),
                Some(frame) => others.push(frame),
                None => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        bail!("{}: {what} did not come; these did: {others:02x?}", self.interface);
                    }
                    let left = left + Duration::from_millis(1);
                    let mut readable = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
                    poll(&mut readable, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))?;
                }
            }
        }
    }

    /// Reads until a frame with the addresses of `expected` comes, and wants it to be exactly that.
    pub fn expect(&self, expected: &[u8]) -> Result<()> {
        let ends = addresses(expected);
        let frame = self.receive(&format!("{expected:02x?}"), |frame| addresses(frame) == ends)?;
        ensure!(frame == expected, "{}: wanted\n{expected:02x?}\nbut read\n{frame:02x?}", self.interface);
        Ok(())
    }

    /// Everything that is waiting now and comes from `source`.
    pub fn drain(&self, source: Ipv6Addr) -> Result<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        while let Some(frame) = self.read()? {
            if addresses(&frame).is_some_and(|(from, _)| from == source) {
                frames.push(frame);
            }
        }
        Ok(frames)
    }
}

/// Sends and receives whole frames at an interface; what it sends itself it does not receive.
fn packet_socket(ifindex: u32) -> Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: a plain system call without pointers.
    let fd = Errno::result(unsafe { libc::socket(libc::AF_PACKET, kind, 0) }).context("a packet socket")?;
    // SAFETY: the kernel has just given us this descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1).context("PACKET_IGNORE_OUTGOING")?;
    // Thousands of frames wait while a test sends more.
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64 << 20).context("SO_RCVBUFFORCE")?;
    // SAFETY: all zero is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = i32::try_from(ifindex)?;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address lives through the call, and `length` is its size.
    Errno::result(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })
        .context("cannot bind a packet socket")?;
    Ok(socket)
}

fn set(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> nix::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value lives through the call, and `length` is its size.
    Errno::result(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length)
    })
    .map(drop)
}
