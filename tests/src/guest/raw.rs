//! A guest without a mind: a harness that writes frames into a TAP and reads exactly what comes out.

use crate::frame::{Frame, GATEWAY_MAC, Mac, icmpv6_type, mac_text};
use crate::netns::Namespace;
use crate::tap::{Options, Tap, VnetHeader};
use anyhow::{Result, bail};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an answer may take before it counts as missing.
const PATIENCE: Duration = Duration::from_secs(2);

/// A harness that holds a TAP.
#[derive(Debug)]
pub struct RawGuest {
    /// The TAP, for what the methods here do not cover.
    pub tap: Tap,
    /// MAC of the VM it plays.
    pub mac: Mac,
}

impl RawGuest {
    /// Opens the TAP `name` in `host`, with Calico's MAC, and sets it up.
    pub fn new(host: &Arc<Namespace>, name: &str, mac: Mac, options: Options) -> Result<Self> {
        let tap = host.enter(|| Tap::open(name, options))?;
        host.ip(&format!("link set {name} address {} up", mac_text(GATEWAY_MAC)))?;
        Ok(Self { tap, mac })
    }

    /// Writes `frame`.
    pub fn send(&self, frame: &Frame) -> Result<()> {
        self.tap.write(frame.header, &frame.bytes)
    }

    /// Reads frames until `wanted` accepts one.
    pub fn receive(&self, what: &str, wanted: impl Fn(&[u8]) -> bool) -> Result<(VnetHeader, Vec<u8>)> {
        let end = Instant::now() + PATIENCE;
        let mut others = Vec::new();
        while let Some((header, frame)) = self.tap.read_until(end)? {
            if wanted(&frame) {
                return Ok((header, frame));
            }
            others.push(frame);
        }
        bail!("{}: {what} did not come within {PATIENCE:?}; these did: {others:02x?}", self.tap.name())
    }

    /// Reads until a frame comes that is not chatter of the host's own kernel, and wants it to be exactly `expected`.
    pub fn expect(&self, expected: &[u8]) -> Result<VnetHeader> {
        let (header, frame) = self.receive("a frame", |frame| !is_chatter(frame))?;
        if frame != expected {
            bail!("{}: wanted\n{expected:02x?}\nbut read\n{frame:02x?}", self.tap.name());
        }
        Ok(header)
    }

    /// Everything that is waiting now, without the chatter of the host's own kernel.
    pub fn drain(&self) -> Result<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        while let Some((_, frame)) = self.tap.read()? {
            if !is_chatter(&frame) {
                frames.push(frame);
            }
        }
        Ok(frames)
    }
}

/// What a kernel says by itself on a link that comes up: multicast listener reports (RFC 3810) and router
/// solicitations.
fn is_chatter(frame: &[u8]) -> bool {
    let listener_report = frame.get(20) == Some(&0) && frame.get(62) == Some(&143);
    listener_report || icmpv6_type(frame) == Some(133)
}
