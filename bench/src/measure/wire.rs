//! Two TAPs held as a VMM holds them, a carrier between them, and a frame that is sent and must arrive just so.

use crate::carrier::{Carrier, ENDS, Path};
use anyhow::{Context, Result, bail};
use serval_tests::frame::{GATEWAY_MAC, Ipv6, Payload, mac_text};
use serval_tests::netns::Namespace;
use serval_tests::tap::{Offloads, Options, Tap};
use std::sync::Arc;

/// Frames that a TAP holds for its reader: enough that none is lost when the reader is late for a moment.
pub const QUEUE: usize = 8192;

/// Bytes of the virtio-net header.
const HEADER: usize = 12;
/// Bytes of Ethernet, IPv6 and UDP headers.
const HEADERS: usize = 62;
const HOP_LIMIT: u8 = 64;

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
    /// Sets everything up for UDP frames of `length` bytes.
    pub fn new(carrier: Carrier, length: usize) -> Result<Self> {
        let host = Arc::new(Namespace::new("bench")?);
        // Nothing but our frames is to cross.
        host.set_sysctl("net/ipv6/conf/default/accept_dad", 0)?;
        host.set_sysctl("net/ipv6/conf/default/router_solicitations", 0)?;
        let options = Options { offloads: Offloads::NONE, header: HEADER, multi_queue: false };
        let mut taps = Vec::new();
        for end in ENDS {
            taps.push(host.enter(|| Tap::open(end.tap, options))?);
            let settings = format!("address {} txqueuelen {QUEUE} up", mac_text(GATEWAY_MAC));
            host.ip(&format!("link set {} {settings}", end.tap))?;
        }
        let path = Path::new(&host, carrier)?;
        let (far, near) = (taps.pop().context("two TAPs")?, taps.pop().context("two TAPs")?);
        let mut sent = vec![0; HEADER];
        sent.extend(frame(ENDS[0].mac, GATEWAY_MAC, HOP_LIMIT, length));
        let hop_limit = if carrier.routes() { HOP_LIMIT - 1 } else { HOP_LIMIT };
        let expected = frame(GATEWAY_MAC, ENDS[1].mac, hop_limit, length);
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

fn frame(source_mac: [u8; 6], destination_mac: [u8; 6], hop_limit: u8, length: usize) -> Vec<u8> {
    let data = vec![0x5e; length.saturating_sub(HEADERS)];
    let headers = Ipv6 {
        source: ENDS[0].address,
        destination: ENDS[1].address,
        hop_limit,
        ..Ipv6::new(source_mac, destination_mac)
    };
    headers.carrying(Payload::udp(20_000, 20_001, &data)).bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serval_tests::frame::checksum_holds;

    #[test]
    fn frames_have_the_length_asked_for_and_a_whole_checksum() {
        for length in [HEADERS, 78, 1400] {
            let frame = frame(ENDS[0].mac, GATEWAY_MAC, HOP_LIMIT, length);
            assert_eq!(frame.len(), length);
            assert!(checksum_holds(&frame));
        }
    }
}
