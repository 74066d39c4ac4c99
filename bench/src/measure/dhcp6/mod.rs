//! VMs that boot at the same time, each of which wants its address by DHCPv6: our daemon, and dnsmasq as OpenStack's agent
//! starts it, one for all TAPs. A VM's exchange is Solicit, Advertise, Request, Reply.
//!
//! Our daemon gives each VM 20 answers a second and 50 at once, so the load has to come by many TAPs, which perfdhcp (Kea)
//! cannot do; by one it can do 10 exchanges a second.

mod client;
mod server;

use crate::cpu;
use crate::report::{Metric, Outcome};
use crate::rounds::{Arm, Measured, Work, interleave};
use crate::statistics::{Better, quantile};
use anyhow::{Context, Result};
use client::{Client, Said};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serval_tests::tap::Tap;
use server::{Kind, Server};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub const NAME: &str = "dhcp6";

const METRICS: &[Metric] = &[
    Metric { name: "exchanges", unit: "1/s", better: Better::More },
    Metric { name: "an answer, p50", unit: "us", better: Better::Less },
    Metric { name: "an answer, p99", unit: "us", better: Better::Less },
];

/// Exchanges of each VM in a round, while all others have theirs.
const EXCHANGES: u32 = 8;
/// And then offers, one VM after the other. Both together are less than a VM may have at once.
const OFFERS: u32 = 4;
/// After what time a VM may have as many answers again.
const REFILL: Duration = Duration::from_secs(1);
/// How long an answer may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of the virtio-net header, and of the longest frame.
const HEADER: usize = 12;
const LONGEST: usize = HEADER + 1514;

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Vec<Outcome>> {
    let (rounds, vms) = if quick { (2, 16) } else { (21, 64) };
    let [cpu, _] = cpu::two()?;
    let arm = |kind: Kind| {
        let server = Server::new(kind, vms).with_context(|| kind.name())?;
        let vms = server.taps.into_iter().zip(server.clients).map(|(tap, client)| Vm::new(tap, client));
        Ok(Arm {
            name: kind.name().to_owned(),
            limit: None,
            kernel: Kind::Dnsmasq.name().to_owned(),
            size: None,
            work: Box::new(Crowd { vms: vms.collect(), cpu, _daemon: server.daemon }) as Box<dyn Work>,
        })
    };
    let mut arms = Kind::ALL.into_iter().map(arm).collect::<Result<Vec<_>>>()?;
    Ok(vec![Outcome {
        name: NAME.to_owned(),
        title: format!(
            "DHCPv6 for {vms} VMs: {EXCHANGES} exchanges each, all at the same time, then {OFFERS} offers, one at a time"
        ),
        metrics: METRICS,
        arms: interleave(NAME, &mut arms, rounds)?,
    }])
}

/// VMs and their server.
struct Crowd {
    vms: Vec<Vm>,
    cpu: usize,
    _daemon: server::Daemon,
}

impl Work for Crowd {
    fn round(&mut self) -> Result<Measured> {
        std::thread::sleep(REFILL);
        let (cpu, vms) = (self.cpu, &mut self.vms);
        let wanted = vms.len() * EXCHANGES as usize;
        let (leased, took) = cpu::run_on(cpu, || exchange(vms))?;
        if leased < wanted {
            return Ok(Measured::Rejected(format!("{leased} of {wanted} exchanges ended with the lease")));
        }
        let mut times = cpu::run_on(cpu, || offers(vms))?;
        let wanted = vms.len() * OFFERS as usize;
        if times.len() < wanted {
            return Ok(Measured::Rejected(format!("{} of {wanted} offers came", times.len())));
        }
        times.sort_by(f64::total_cmp);
        let [p50, p99] = [0.5, 0.99].map(|share| quantile(&times, share).unwrap_or(f64::NAN));
        Ok(Measured::Proven(vec![leased as f64 / took.as_secs_f64(), p50, p99]))
    }
}

/// All VMs have their exchanges at the same time: how many got what they should, and how long all took.
fn exchange(vms: &mut [Vm]) -> Result<(usize, Duration)> {
    let start = Instant::now();
    for vm in &mut *vms {
        vm.left = EXCHANGES;
        vm.solicit()?;
    }
    let mut leased = 0;
    let mut last = start;
    while vms.iter().any(|vm| vm.left > 0) && last.elapsed() < PATIENCE {
        let mut ready: Vec<PollFd<'_>> =
            vms.iter().map(|vm| PollFd::new(vm.tap.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut ready, PollTimeout::from(100u8))?;
        let ready: Vec<bool> = ready.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        for (vm, _) in vms.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            while let Some(said) = vm.hear()? {
                last = Instant::now();
                match said {
                    Said::Offered(request) => vm.send(&request)?,
                    Said::Leased => {
                        leased += 1;
                        vm.left = vm.left.saturating_sub(1);
                        if vm.left > 0 {
                            vm.solicit()?;
                        }
                    }
                }
            }
        }
    }
    Ok((leased, last - start))
}

/// One VM after the other asks for an offer: how long each took, in microseconds.
fn offers(vms: &mut [Vm]) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..OFFERS {
        for vm in &mut *vms {
            let start = Instant::now();
            vm.solicit()?;
            while start.elapsed() < PATIENCE {
                if let Some(Said::Offered(_)) = vm.hear()? {
                    times.push(start.elapsed().as_secs_f64() * 1e6);
                    break;
                }
            }
        }
    }
    Ok(times)
}

/// A VM.
struct Vm {
    tap: Tap,
    client: Client,
    transaction: u32,
    left: u32,
}

impl Vm {
    fn new(tap: Tap, client: Client) -> Self {
        Self { tap, client, transaction: 0, left: 0 }
    }

    /// Begins another exchange.
    fn solicit(&mut self) -> Result<()> {
        self.transaction = (self.transaction + 1) & 0xff_ffff;
        self.send(&self.client.solicit(self.transaction))
    }

    fn send(&self, frame: &[u8]) -> Result<()> {
        self.tap.write(Default::default(), frame)
    }

    /// What the server says next, if it has said anything.
    fn hear(&self) -> Result<Option<Said>> {
        let mut buffer = [0; LONGEST];
        loop {
            let length = self.tap.read_raw(&mut buffer).context("cannot read from a TAP")?;
            if length == 0 {
                return Ok(None);
            }
            let frame = buffer[..length].get(HEADER..).unwrap_or_default();
            if let Some(said) = self.client.hear(frame, self.transaction) {
                return Ok(Some(said));
            }
        }
    }
}
