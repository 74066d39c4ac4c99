//! TAPs opened as a VMM opens them: non-blocking, unlimited send buffer, virtio-net headers, offloads by choice. A TAP
//! whose descriptor would block or whose send buffer is limited gets generic XDP from the kernel instead of native.

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::uio::{readv, writev};
use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

/// Room for a 64 KiB GSO frame with its Ethernet and virtio-net headers.
pub const LARGEST: usize = 65_536 + 64;

/// What the reader of a TAP can take without the kernel finishing it first (`TUNSETOFFLOAD`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads(u32);

impl Offloads {
    /// Whole frames with whole checksums.
    pub const NONE: Self = Self(0);
    /// Partial checksums.
    pub const CHECKSUM: Self = Self(libc::TUN_F_CSUM);
    /// Partial checksums and TCP segments, as any Linux guest offers.
    pub const TCP: Self = Self(libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN);
    /// UDP segments besides (kernel 6.2 and later).
    pub const ALL: Self = Self(Self::TCP.0 | libc::TUN_F_USO4 | libc::TUN_F_USO6);
}

/// How a TAP is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What its reader can take; UDP segments are left out where the kernel does not know them.
    pub offloads: Offloads,
    /// Length of the virtio-net header: 12 (modern, or with mergeable buffers) or 10 (legacy).
    pub header: usize,
    /// Several descriptors may share it.
    pub multi_queue: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { offloads: Offloads::ALL, header: 12, multi_queue: false }
    }
}

/// The virtio-net header in front of a frame (virtio 1.2 section 5.1.6), host byte order as `TUNSETVNETLE` is not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// `NEEDS_CSUM` and others.
    pub flags: u8,
    /// What kind of segments to cut.
    pub gso_type: u8,
    /// Length of all headers of a frame to be cut.
    pub hdr_len: u16,
    /// Payload of a segment.
    pub gso_size: u16,
    /// Where the sum of a partial checksum begins.
    pub csum_start: u16,
    /// Where a partial checksum is stored, from `csum_start`.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// In `flags`: the checksum is partial.
    pub const NEEDS_CSUM: u8 = 1;
    /// In `flags`: the checksum has been verified.
    pub const DATA_VALID: u8 = 2;
    /// In `gso_type`: TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// In `gso_type`: UDP.
    pub const GSO_UDP_L4: u8 = 5;

    /// As it is written in front of a frame; a legacy header is the first 10 bytes.
    pub fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        let words = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset];
        for (place, word) in bytes[2..10].chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; 12]) -> Self {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        }
    }
}

/// A TAP that we hold as its VMM. It vanishes with its last descriptor.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: String,
    header: usize,
}

mod request {
    nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_write_int_bad!(set_offload, libc::TUNSETOFFLOAD);
    nix::ioctl_write_ptr_bad!(set_header_size, libc::TUNSETVNETHDRSZ, libc::c_int);
    nix::ioctl_write_ptr_bad!(set_send_buffer, libc::TUNSETSNDBUF, libc::c_int);
    nix::ioctl_write_ptr_bad!(set_carrier, libc::TUNSETCARRIER, libc::c_int);
}

impl Tap {
    /// Creates the TAP `name`, or opens one more queue of it, in the network namespace of the calling thread.
    pub fn open(name: &str, options: Options) -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .context("cannot open /dev/net/tun")?;
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if options.multi_queue {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        let request = interface_request(name, flags)?;
        let header = libc::c_int::try_from(options.header)?;
        // SAFETY: the descriptor is open and every argument lives through its call.
        unsafe {
            let fd = file.as_raw_fd();
            request::set_interface(fd, &request).with_context(|| format!("cannot create the TAP {name}"))?;
            request::set_header_size(fd, &header).context("TUNSETVNETHDRSZ")?;
            request::set_send_buffer(fd, &libc::c_int::MAX).context("TUNSETSNDBUF")?;
        }
        let tap = Self { file, name: name.to_owned(), header: options.header };
        tap.set_offloads(options.offloads)?;
        Ok(tap)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Says what the reader can take from now on.
    pub fn set_offloads(&self, offloads: Offloads) -> Result<()> {
        let set = |offloads: Offloads| {
            // SAFETY: the descriptor is open; the argument is a plain number.
            unsafe { request::set_offload(self.file.as_raw_fd(), offloads.0.cast_signed()) }
        };
        match set(offloads) {
            Err(Errno::EINVAL) => set(Offloads(offloads.0 & Offloads::TCP.0)),
            other => other,
        }
        .context("TUNSETOFFLOAD")?;
        Ok(())
    }

    /// Plugs or pulls the cable, as its other end sees it.
    pub fn set_carrier(&self, on: bool) -> Result<()> {
        // SAFETY: the descriptor is open and the argument lives through the call.
        unsafe { request::set_carrier(self.file.as_raw_fd(), &libc::c_int::from(on)) }
            .context("TUNSETCARRIER")?;
        Ok(())
    }

    /// Writes one frame.
    pub fn write(&self, header: VnetHeader, frame: &[u8]) -> Result<()> {
        let bytes = header.to_bytes();
        let parts = [IoSlice::new(&bytes[..self.header]), IoSlice::new(frame)];
        let written = writev(&self.file, &parts).with_context(|| format!("cannot write to {}", self.name))?;
        if written != self.header + frame.len() {
            bail!("{} took {written} bytes of {}", self.name, self.header + frame.len());
        }
        Ok(())
    }

    /// Reads one frame, if one is there.
    pub fn read(&self) -> Result<Option<(VnetHeader, Vec<u8>)>> {
        let mut bytes = [0; 12];
        let mut frame = vec![0; LARGEST];
        let parts = &mut [IoSliceMut::new(&mut bytes[..self.header]), IoSliceMut::new(&mut frame)];
        match readv(&self.file, parts) {
            Ok(length) => {
                frame.truncate(length.saturating_sub(self.header));
                Ok(Some((VnetHeader::from_bytes(&bytes), frame)))
            }
            Err(Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read from {}", self.name)),
        }
    }

    /// Reads one frame, waiting for it until `end`.
    pub fn read_until(&self, end: Instant) -> Result<Option<(VnetHeader, Vec<u8>)>> {
        loop {
            if let Some(frame) = self.read()? {
                return Ok(Some(frame));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let mut readable = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            poll(&mut readable, milliseconds(left))?;
        }
    }

    /// Reads one frame with its header as the kernel laid them out; 0 when none is there.
    pub fn read_raw(&self, buffer: &mut [u8]) -> nix::Result<usize> {
        match nix::unistd::read(&self.file, buffer) {
            Err(Errno::EAGAIN) => Ok(0),
            other => other,
        }
    }

    /// Writes one frame with its header as read by [`Self::read_raw`] from a TAP with the same header length.
    pub fn write_raw(&self, bytes: &[u8]) -> nix::Result<usize> {
        nix::unistd::write(&self.file, bytes)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// For `poll`, rounded up so that it does not spin through the last millisecond.
fn milliseconds(left: Duration) -> PollTimeout {
    PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
}

fn interface_request(name: &str, flags: libc::c_int) -> Result<libc::ifreq> {
    // SAFETY: an ifreq of zeroes is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        bail!("`{name}` is too long for an interface");
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags)?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_survives_its_bytes() {
        let header = VnetHeader {
            flags: VnetHeader::NEEDS_CSUM,
            gso_type: VnetHeader::GSO_TCPV6,
            hdr_len: 74,
            gso_size: 1_428,
            csum_start: 54,
            csum_offset: 16,
        };
        assert_eq!(VnetHeader::from_bytes(&header.to_bytes()), header);
        assert_eq!(header.to_bytes(), [1, 4, 74, 0, 148, 5, 54, 0, 16, 0, 0, 0]);
    }
}
