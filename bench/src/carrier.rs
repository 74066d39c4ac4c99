//! The arms of every benchmark: what carries frames between the TAPs `tapa` and `tapb` of a namespace. Each arm has a
//! namespace and TAPs of its own, so nothing is attached or taken off between rounds.

mod conntrack;
mod kernel;
mod serval;
mod setting;

pub use setting::{Far, Setting};

use self::serval::{Attachments, Serval};
use crate::bare::{self, Egress, Lookup};
use crate::measure::Between;
use crate::report::KERNEL;
use crate::rounds::{Arm, Work};
use ::serval::config::UplinkMode;
use anyhow::{Context, Result};
use aya::Ebpf;
use dataplane_ebpf::abi::Counter;
use kernel::Rules;
use serval_tests::frame::{self, GATEWAY_MAC};
use serval_tests::netns::Namespace;
use std::net::Ipv6Addr;
use std::sync::Arc;

/// One of the two ends.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The TAP on the host.
    pub tap: &'static str,
    /// MAC of the VM behind it.
    pub mac: frame::Mac,
    /// Address of that VM.
    pub address: Ipv6Addr,
}

/// Who sends, and who receives.
pub const ENDS: [End; 2] = [end("tapa", 0xa), end("tapb", 0xb)];

/// Two more VMs of the host, where there are any: who floods, and who is flooded.
pub const OTHERS: [End; 2] = [end("tapc", 0xc), end("tapd", 0xd)];

/// All of them.
pub const ALL: [End; 4] = [ENDS[0], ENDS[1], OTHERS[0], OTHERS[1]];

const MTU: u32 = 1500;

const fn end(tap: &'static str, last: u8) -> End {
    End { tap, mac: [0xfa, 0x16, 0x3e, 0, 0, last], address: address(last as u16) }
}

const fn address(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
}

/// What carries frames from one TAP to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Serval as it runs in production: XDP, and TC for what XDP hands on, under policy.
    Serval,
    /// Serval without XDP.
    ServalTc,
    /// Serval with `policy.enforce = false`.
    Open,
    /// The same without XDP.
    OpenTc,
    /// Serval where frames come by an uplink with `fastpath.uplink = "tc"`.
    UplinkTc,
    /// The same with `"xdp"`.
    UplinkXdp,
    /// XDP that does nothing but redirect.
    BareXdp,
    /// TC that does nothing but redirect.
    BareTc,
    /// An XDP program that asks the kernel's FIB, as xdp-forward is one.
    FibXdp,
    /// The same, past the rules of the FIB.
    FibXdpDirect,
    /// The latter by TC.
    FibTcDirect,
    /// The kernel's own forwarding, with host routes and permanent neighbours.
    Kernel,
    /// The same under the policy, as Felix writes it for ip6tables.
    Ip6tables,
    /// The same under the policy as nftables.
    Nftables,
    /// A Linux bridge, which is no router.
    Bridge,
}

impl Carrier {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serval => "serval",
            Self::ServalTc => "serval, TC only",
            Self::Open => "serval, no policy",
            Self::OpenTc => "serval, no policy, TC only",
            Self::UplinkTc => "serval, uplink = \"tc\"",
            Self::UplinkXdp => "serval, uplink = \"xdp\"",
            Self::BareXdp => "bare XDP redirect",
            Self::BareTc => "bare TC redirect",
            Self::FibXdp => "bpf_fib_lookup, XDP",
            Self::FibXdpDirect => "bpf_fib_lookup direct, XDP",
            Self::FibTcDirect => "bpf_fib_lookup direct, TC",
            Self::Kernel => KERNEL,
            Self::Ip6tables => "kernel, ip6tables as by Felix",
            Self::Nftables => "kernel, nftables",
            Self::Bridge => "Linux bridge",
        }
    }

    /// Whether it is a router, which counts the hop limit down.
    pub const fn routes(self) -> bool {
        !matches!(self, Self::BareXdp | Self::BareTc | Self::Bridge)
    }

    /// Whether it has a policy in words of somebody else.
    pub const fn has_rules(self) -> bool {
        matches!(self, Self::Ip6tables | Self::Nftables)
    }

    /// The arm that nothing on its hook can beat; `small`: with frames that XDP can finish.
    const fn limit(self, small: bool) -> Option<Self> {
        match self {
            Self::Serval | Self::Open | Self::UplinkXdp if small => Some(Self::BareXdp),
            Self::Serval | Self::Open | Self::ServalTc | Self::OpenTc | Self::UplinkTc | Self::UplinkXdp => {
                Some(Self::BareTc)
            }
            _ => None,
        }
    }
}

/// Who takes part.
#[derive(Clone, Copy)]
pub struct Contest {
    /// In the order of the report.
    pub carriers: &'static [Carrier],
    /// The frames are such that XDP can finish them.
    pub small: bool,
}

/// Small frames, everybody.
pub const SMALL: Contest = Contest {
    carriers: &[
        Carrier::Serval,
        Carrier::Open,
        Carrier::BareXdp,
        Carrier::ServalTc,
        Carrier::OpenTc,
        Carrier::BareTc,
        Carrier::FibXdp,
        Carrier::FibXdpDirect,
        Carrier::FibTcDirect,
        Carrier::Kernel,
        Carrier::Ip6tables,
        Carrier::Nftables,
        Carrier::Bridge,
    ],
    small: true,
};

/// Frames that XDP has to leave to TC.
pub const LARGE: Contest = Contest {
    carriers: &[
        Carrier::Serval,
        Carrier::ServalTc,
        Carrier::Open,
        Carrier::BareTc,
        Carrier::Kernel,
        Carrier::Ip6tables,
        Carrier::Nftables,
    ],
    small: false,
};

/// Frames of any length that XDP can finish, from guests.
pub const WHOLE: Contest = Contest {
    carriers: &[
        Carrier::Serval,
        Carrier::BareXdp,
        Carrier::ServalTc,
        Carrier::BareTc,
        Carrier::Kernel,
        Carrier::Ip6tables,
        Carrier::Nftables,
    ],
    small: true,
};

/// Small frames that come from another host.
pub const ARRIVING: Contest = Contest {
    carriers: &[
        Carrier::UplinkXdp,
        Carrier::BareXdp,
        Carrier::UplinkTc,
        Carrier::BareTc,
        Carrier::Kernel,
        Carrier::Ip6tables,
        Carrier::Nftables,
    ],
    small: true,
};

impl Contest {
    /// The arm that nothing on the hook of `carrier` can beat.
    pub const fn limit(self, carrier: Carrier) -> Option<Carrier> {
        carrier.limit(self.small)
    }

    /// An arm for each, with the work that `make` gives it.
    pub fn arms(self, mut make: impl FnMut(Carrier) -> Result<Box<dyn Work>>) -> Result<Vec<Arm>> {
        let arm = |carrier: &Carrier| {
            Ok(Arm {
                name: carrier.name().to_owned(),
                limit: self.limit(*carrier).map(|limit| limit.name().to_owned()),
                kernel: KERNEL.to_owned(),
                size: None,
                work: make(*carrier).with_context(|| carrier.name())?,
            })
        };
        self.carriers.iter().map(arm).collect()
    }
}

/// Which of a carrier's hooks must do the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The first that it has: XDP before TC.
    First,
    /// TC, for frames that XDP has to leave alone.
    Tc,
}

/// A carrier at work.
pub struct Path {
    /// Where it works.
    pub host: Arc<Namespace>,
    /// The first two TAPs.
    pub ends: [End; 2],
    /// Ifindex of all TAPs.
    pub ifindex: Vec<u32>,
    works: Works,
}

/// What is held while a carrier works.
enum Works {
    Serval { serval: Box<Serval>, xdp: bool, sent_on: SentOn },
    Kernel(Rules),
    Programs { _objects: Vec<Ebpf> },
    Bridge,
}

/// The counter that the hook counts at which has the work, and the TAP of its endpoint.
struct SentOn {
    ifindex: u32,
    counter: Counter,
}

impl Path {
    /// Puts `carrier` between the TAPs, which are there and up. Frames of the first TAP are up to `hook`.
    pub fn new(host: &Arc<Namespace>, carrier: Carrier, setting: &Setting, hook: Hook) -> Result<Self> {
        let taps = setting.taps();
        let ifindex = taps.iter().map(|end| host.ifindex(end.tap)?.context(end.tap));
        let ifindex = ifindex.collect::<Result<Vec<_>>>()?;
        let serval = |xdp, policed, uplink| {
            if setting.far == Far::Crowd {
                // What the fast path leaves to the kernel is to meet one that forwards, as beside the daemon.
                kernel::forward(host, Rules::None, setting)?;
            }
            let arrives = setting.far == Far::Arrival;
            let by_xdp = hook == Hook::First && if arrives { uplink == UplinkMode::Xdp } else { xdp };
            let (end, counter) = match (arrives, by_xdp) {
                (false, true) => (0, Counter::ForwardedXdp),
                (false, false) => (0, Counter::ForwardedTc),
                (true, true) => (1, Counter::DeliveredXdp),
                (true, false) => (1, Counter::DeliveredTc),
            };
            let sent_on = SentOn { ifindex: ifindex[end], counter };
            let serval = Serval::new(host, &ifindex, Attachments { xdp, policed, uplink }, setting)?;
            Ok::<_, anyhow::Error>(Works::Serval { serval: Box::new(serval), xdp, sent_on })
        };
        let kernel = |rules| {
            kernel::forward(host, rules, setting)?;
            Ok::<_, anyhow::Error>(Works::Kernel(rules))
        };
        let works = match carrier {
            // What comes from uplinks is judged: answers make a flow known.
            Carrier::Serval | Carrier::UplinkTc => serval(true, true, UplinkMode::Tc)?,
            Carrier::UplinkXdp => serval(true, true, UplinkMode::Xdp)?,
            Carrier::ServalTc => serval(false, true, UplinkMode::Tc)?,
            Carrier::Open => serval(true, false, UplinkMode::Tc)?,
            Carrier::OpenTc => serval(false, false, UplinkMode::Tc)?,
            Carrier::BareXdp => bare(host, &taps, &ifindex, bare::attach_xdp)?,
            Carrier::BareTc => bare(host, &taps, &ifindex, bare::attach_tc)?,
            Carrier::FibXdp => fib(host, setting, |tap| bare::attach_fib_xdp(tap, Lookup::Full, &ifindex))?,
            Carrier::FibXdpDirect => {
                fib(host, setting, |tap| bare::attach_fib_xdp(tap, Lookup::Direct, &ifindex))?
            }
            Carrier::FibTcDirect => fib(host, setting, |tap| bare::attach_fib_tc(tap, Lookup::Direct))?,
            Carrier::Kernel => kernel(Rules::None)?,
            Carrier::Ip6tables => kernel(Rules::Ip6tables)?,
            Carrier::Nftables => kernel(Rules::Nftables)?,
            Carrier::Bridge => {
                kernel::bridge(host)?;
                Works::Bridge
            }
        };
        Ok(Self { host: Arc::clone(host), ends: setting.ends(), ifindex, works })
    }
}

impl Path {
    /// Has whoever minds know that the first VM sends long frames.
    pub fn expect_long_frames(&mut self) -> Result<()> {
        match &mut self.works {
            Works::Serval { serval, xdp: true, .. } => self.host.enter(|| serval.rest(self.ifindex[0])),
            _ => Ok(()),
        }
    }

    /// Solicitations answered so far: by our counter where it is ours to answer, else by the kernel's.
    pub fn answered(&self, ours: Counter, kernels: &str) -> Result<u64> {
        match &self.works {
            Works::Serval { serval, .. } => Ok(serval.counters(self.ifindex[0])?.get(ours)),
            _ => self.host.ipv6_counter(kernels),
        }
    }

    /// Has the kernel's table of connections empty. Ours stays: it is full all the time, and has to go on so.
    pub fn forget_flows(&self) -> Result<()> {
        match self.works {
            Works::Kernel(rules) if rules != Rules::None => self.host.enter(conntrack::flush),
            _ => Ok(()),
        }
    }

    /// Frames of the third VM that whoever carries frames has seen so far; `None`: nobody counts them.
    pub fn met(&self) -> Result<Option<u64>> {
        match &self.works {
            Works::Serval { serval, .. } => {
                let third = self.ifindex.get(2).context("there is no third VM")?;
                Ok(Some(serval.counters(*third)?.values.iter().sum()))
            }
            Works::Kernel(_) => self.host.ipv6_counter("Ip6InReceives").map(Some),
            Works::Programs { .. } | Works::Bridge => Ok(None),
        }
    }
}

impl Between for Path {
    fn sent_on(&self) -> Result<Option<u64>> {
        match &self.works {
            Works::Serval { serval, sent_on, .. } => {
                Ok(Some(serval.counters(sent_on.ifindex)?.get(sent_on.counter)))
            }
            Works::Kernel(_) => self.host.kernel_forwarded().map(Some),
            Works::Programs { .. } | Works::Bridge => Ok(None),
        }
    }

    fn judged(&self) -> Result<Option<u64>> {
        match &self.works {
            Works::Serval { serval, .. } => serval.judged(),
            Works::Kernel(rules) => rules.judged(&self.host),
            Works::Programs { .. } | Works::Bridge => Ok(None),
        }
    }
}

/// Between the first and the second TAP, and between the others.
fn bare(
    host: &Namespace,
    taps: &[End],
    ifindex: &[u32],
    attach: fn(&str, Egress) -> Result<Ebpf>,
) -> Result<Works> {
    programs(host, taps, |end| {
        let to = end ^ 1;
        attach(taps[end].tap, Egress { ifindex: ifindex[to], macs: [taps[to].mac, GATEWAY_MAC] })
    })
}

/// Programs that ask the kernel's FIB, in which the ways of all frames are.
fn fib(host: &Namespace, setting: &Setting, attach: impl Fn(&str) -> Result<Ebpf> + Sync) -> Result<Works> {
    kernel::look_up_only(host, setting)?;
    let ends = setting.ends();
    programs(host, &ends, |end| attach(ends[end].tap))
}

/// Programs that `attach` puts on each of the TAPs, by number.
fn programs(host: &Namespace, taps: &[End], attach: impl Fn(usize) -> Result<Ebpf> + Sync) -> Result<Works> {
    let objects = host.enter(|| (0..taps.len()).map(&attach).collect::<Result<_>>())?;
    Ok(Works::Programs { _objects: objects })
}
