//! Two TAPs held as a VMM holds them, a carrier between them, and a frame that is sent and must arrive just so.

use crate::carrier::{Carrier, ENDS, Path};
use anyhow::{Context, Result, bail};
use serval_tests::frame::{Checksum, GATEWAY_MAC, Ipv6, Mac, Payload, mac_text};
use serval_tests::netns::Namespace;
use serval_tests::tap::{Offloads, Options, Tap, VnetHeader};
use std::sync::Arc;

/// Bytes of the virtio-net header.
const HEADER: usize = 12;
/// Bytes of Ethernet and IPv6 header.
const L3_LEN: usize = 54;
/// Bytes of a UDP header.
const UDP_LEN: usize = 8;
/// Bytes of a TCP header.
const TCP_LEN: usize = 20;
/// Longest TCP payload of one segment with an MTU of 1500.
const SEGMENT: usize = 1440;
const HOP_LIMIT: u8 = 64;
/// The TCP flag.
const ACK: u8 = 0x10;

/// What kind of frame crosses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UDP with a whole checksum, of this length in bytes.
    Datagram(usize),
    /// TCP with a partial checksum, of this length in bytes, to be cut into segments by a device that the guest does not
    /// have: as any Linux guest sends bulk data.
    Segments(usize),
}

impl Kind {
    /// Bytes of a frame.
    pub const fn length(self) -> usize {
        match self {
            Self::Datagram(length) | Self::Segments(length) => length,
        }
    }

    /// Frames that a TAP holds for its reader: enough that none is lost when the reader is late for a moment.
    pub const fn queue(self) -> usize {
        match self {
            Self::Datagram(_) => 8192,
            Self::Segments(_) => 512,
        }
    }

    fn offloads(self) -> Offloads {
        match self {
            Self::Datagram(_) => Offloads::NONE,
            Self::Segments(_) => Offloads::TCP,
        }
    }

    /// The virtio-net header that it is written with.
    fn header(self) -> VnetHeader {
        let Self::Segments(_) = self else { return VnetHeader::default() };
        VnetHeader {
            flags: VnetHeader::NEEDS_CSUM,
            gso_type: VnetHeader::GSO_TCPV6,
            hdr_len: (L3_LEN + TCP_LEN) as u16,
            gso_size: SEGMENT as u16,
            csum_start: L3_LEN as u16,
            csum_offset: 16,
        }
    }
}

/// TAPs, carrier and frame.
pub struct Wire {
    /// What carries.
    pub path: Path,
    /// Where frames are sent.
    pub near: Tap,
    /// Where they arrive.
    pub far: Tap,
    /// What is written, with its virtio-net header.
    pub sent: Vec<u8>,
    /// What must arrive, from the Ethernet header on.
    pub expected: Vec<u8>,
}

impl Wire {
    /// Sets everything up.
    pub fn new(carrier: Carrier, kind: Kind) -> Result<Self> {
        let host = Arc::new(Namespace::new("bench")?);
        // Nothing but our frames is to cross.
        host.set_sysctl("net/ipv6/conf/default/accept_dad", 0)?;
        host.set_sysctl("net/ipv6/conf/default/router_solicitations", 0)?;
        let options = Options { offloads: kind.offloads(), header: HEADER, multi_queue: false };
        let mut taps = Vec::new();
        for end in ENDS {
            taps.push(host.enter(|| Tap::open(end.tap, options))?);
            let settings = format!("address {} txqueuelen {} up", mac_text(GATEWAY_MAC), kind.queue());
            host.ip(&format!("link set {} {settings}", end.tap))?;
        }
        let path = Path::new(&host, carrier)?;
        let (far, near) = (taps.pop().context("two TAPs")?, taps.pop().context("two TAPs")?);
        let mut sent = kind.header().to_bytes().to_vec();
        sent.extend(frame(ENDS[0].mac, GATEWAY_MAC, HOP_LIMIT, kind));
        let hop_limit = if carrier.routes() { HOP_LIMIT - 1 } else { HOP_LIMIT };
        let expected = frame(GATEWAY_MAC, ENDS[1].mac, hop_limit, kind);
        Ok(Self { path, near, far, sent, expected })
    }

    /// The frame that is sent, from the Ethernet header on.
    pub fn frame(&self) -> &[u8] {
        &self.sent[HEADER..]
    }

    /// Sends the frame once.
    pub fn send(&self) -> Result<()> {
        match self.near.write_raw(&self.sent) {
            Ok(length) if length == self.sent.len() => Ok(()),
            Ok(length) => bail!("{} took {length} bytes of {}", self.near.name(), self.sent.len()),
            Err(error) => Err(error).with_context(|| format!("cannot write to {}", self.near.name())),
        }
    }

    /// Room for what is read.
    pub fn buffer(&self) -> Vec<u8> {
        // One byte more than expected, so that a longer frame is noticed.
        vec![0; HEADER + self.expected.len() + 1]
    }

    /// Reads one frame: whether it was the expected one, byte for byte; `None` when none is there.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Option<bool>> {
        match self.far.read_raw(buffer) {
            Ok(0) => Ok(None),
            Ok(length) => Ok(Some(buffer.get(HEADER..length) == Some(&self.expected[..]))),
            Err(error) => Err(error).with_context(|| format!("cannot read from {}", self.far.name())),
        }
    }

    /// Reads all that is there; how many of them were the expected frame.
    pub fn drain(&self) -> Result<usize> {
        let mut buffer = self.buffer();
        let mut count = 0;
        while let Some(expected) = self.receive(&mut buffer)? {
            count += usize::from(expected);
        }
        Ok(count)
    }
}

fn frame(source_mac: Mac, destination_mac: Mac, hop_limit: u8, kind: Kind) -> Vec<u8> {
    let headers = Ipv6 {
        source: ENDS[0].address,
        destination: ENDS[1].address,
        hop_limit,
        ..Ipv6::new(source_mac, destination_mac)
    };
    let data = |upper: usize| vec![0x5e; kind.length().saturating_sub(L3_LEN + upper)];
    match kind {
        Kind::Datagram(_) => headers.carrying(Payload::udp(20_000, 20_001, &data(UDP_LEN))).bytes,
        Kind::Segments(_) => {
            let headers = Ipv6 { checksum: Checksum::Partial, ..headers };
            headers.carrying(Payload::tcp(20_000, 20_001, ACK, &data(TCP_LEN))).bytes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serval_tests::frame::checksum_holds;

    #[test]
    fn datagrams_have_the_length_asked_for_and_a_whole_checksum() {
        for length in [62, 78, 1400] {
            let frame = frame(ENDS[0].mac, GATEWAY_MAC, HOP_LIMIT, Kind::Datagram(length));
            assert_eq!(frame.len(), length);
            assert!(checksum_holds(&frame));
        }
    }

    #[test]
    fn frames_to_be_cut_have_a_partial_checksum() {
        let frame = frame(ENDS[0].mac, GATEWAY_MAC, HOP_LIMIT, Kind::Segments(60_000));
        assert_eq!(frame.len(), 60_000);
        assert!(!checksum_holds(&frame));
    }
}
