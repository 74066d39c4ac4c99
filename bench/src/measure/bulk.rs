//! Bulk TCP between two guests with a kernel stack each. With all virtio offloads on the frames that cross are up to 64 KiB
//! and have partial checksums, and must stay so; without, they are of 1514 bytes and whole.

use crate::carrier::{Carrier, Contest, ENDS, Hook, LARGE, Path, Setting, WHOLE};
use crate::report::{Metric, Outcome};
use crate::rounds::{Measured, Work, interleave};
use crate::statistics::Better;
use anyhow::Result;
use serval_tests::frame::mac_text;
use serval_tests::guest::{KernelGuest, Settings};
use serval_tests::netns::Namespace;
use serval_tests::process::Running;
use serval_tests::tap::Offloads;
use serval_tests::traffic::{iperf3, iperf3_server};
use std::sync::Arc;

pub const NAME: &str = "bulk";

pub const METRICS: &[Metric] = &[Metric { name: "payload", unit: "Gbit/s", better: Better::More }];

/// Length of a round.
const SECONDS: u32 = 1;
/// Mean length of a frame, in bytes, below which segments were cut on the way.
const LONG: u64 = 6000;

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Vec<Outcome>> {
    let rounds = if quick { 2 } else { 11 };
    let measure = |contest: Contest, offloads: Offloads, name: &str, with: &str| {
        let mut arms = contest.arms(|carrier| {
            let mut guests = Guests::new(carrier, offloads)?;
            if offloads != Offloads::NONE {
                guests.path.expect_long_frames()?;
            }
            Ok(Box::new(guests))
        })?;
        Ok::<_, anyhow::Error>(Outcome {
            name: name.to_owned(),
            title: format!("TCP between two guests {with}, one connection, {SECONDS} s a round"),
            metrics: METRICS,
            arms: interleave(NAME, &mut arms, rounds)?,
        })
    };
    Ok(vec![
        measure(LARGE, Offloads::ALL, NAME, "with all offloads")?,
        measure(WHOLE, Offloads::NONE, "bulk: whole frames", "without offloads")?,
    ])
}

/// Two guests and what carries between them.
pub struct Guests {
    /// What carries.
    pub path: Path,
    /// The guest that sends.
    pub from: KernelGuest,
    /// The guest that receives: an iperf3 server.
    pub to: KernelGuest,
    offloads: Offloads,
    _server: Running,
}

impl Guests {
    /// Guests that can reach each other by `carrier`, and leave `offloads` to their devices.
    pub fn new(carrier: Carrier, offloads: Offloads) -> Result<Self> {
        let host = Arc::new(Namespace::new("bench")?);
        host.set_sysctl("net/ipv6/conf/default/accept_dad", 0)?;
        let [from, to] = ENDS.map(|end| -> Result<KernelGuest> {
            let mut settings = Settings::new(end.tap, end.mac);
            settings.options.offloads = offloads;
            let guest = KernelGuest::new(&host, settings)?;
            guest.configure(end.address)?;
            // A bare redirect answers no solicitation.
            let (gateway, mac) = (guest.gateway(), mac_text(guest.settings().gateway_mac));
            let neighbour = format!("neighbour replace {gateway} lladdr {mac} dev eth0 nud permanent");
            guest.namespace.ip(&neighbour)?;
            Ok(guest)
        });
        let (from, to) = (from?, to?);
        let path = Path::new(&host, carrier, &Setting::USUAL, Hook::Tc)?;
        let server = iperf3_server(&to.namespace)?;
        Ok(Self { path, from, to, offloads, _server: server })
    }
}

impl Work for Guests {
    fn round(&mut self) -> Result<Measured> {
        let before = self.to.counts().to_vm;
        let bulk = iperf3(&self.from.namespace, ENDS[1].address, SECONDS)?;
        let after = self.to.counts().to_vm;
        let (frames, bytes) = (after.frames - before.frames, after.bytes - before.bytes);
        let mean = bytes / frames.max(1);
        if self.offloads != Offloads::NONE && mean < LONG {
            return Ok(Measured::Rejected(format!("segments were cut on the way: {mean} bytes a frame")));
        }
        Ok(Measured::Proven(vec![bulk.bits_per_second / 1e9]))
    }
}
