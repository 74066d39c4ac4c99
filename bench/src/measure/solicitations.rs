//! What every VM asks its link: who its router is, who has a neighbour's address, and whether there are routers. Our hooks
//! answer where others have the kernel (neighbour solicitations, as itself or as a proxy) or radvd (router solicitations).

use super::asker::{Asker, METRICS, Scale};
use super::stream::Kind;
use super::wire::open;
use crate::carrier::{Carrier, ENDS, Hook, Path, Setting};
use crate::cpu;
use crate::report::{KERNEL, Outcome};
use crate::rounds::{Arm, Measured, Work, interleave};
use anyhow::Result;
use dataplane_ebpf::abi::Counter;
use serval_tests::frame::{
    GATEWAY_MAC, Ipv6, Payload, addresses, checksum_holds, icmpv6_type, link_local, mac_text, multicast_mac,
    solicited_node, source_link_layer, target_link_layer,
};
use serval_tests::netns::Namespace;
use serval_tests::process::Running;
use serval_tests::tap::Tap;
use std::fs;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

pub const NAME: &str = "solicitations";

const RADVD: &str = "radvd";
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// ICMPv6 types.
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// S and O of a neighbour advertisement.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// Where they are in a frame, with the target behind them.
const HOP_LIMIT_AT: usize = 21;
const FLAGS_AT: usize = 58;
const TARGET_AT: usize = 62;

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Vec<Outcome>> {
    let (rounds, questions) = if quick { (3, 2_000) } else { (25, 20_000) };
    let scale = Scale { questions, time: Duration::from_millis(if quick { 100 } else { 300 }) };
    let [cpu, _] = cpu::two()?;
    let mut outcomes = Vec::new();
    for question in [Question::Gateway, Question::Neighbour, Question::Router] {
        let last = match question {
            Question::Router => Answerer::Radvd,
            Question::Gateway | Question::Neighbour => Answerer::Carrier(Carrier::Kernel),
        };
        let answerers = [Answerer::Carrier(Carrier::Serval), Answerer::Carrier(Carrier::ServalTc), last];
        let arm = |answerer: Answerer| {
            Ok(Arm {
                name: answerer.name().to_owned(),
                limit: None,
                kernel: last.name().to_owned(),
                size: None,
                work: Box::new(Vm::new(question, answerer, scale, cpu)?) as Box<dyn Work>,
            })
        };
        let mut arms = answerers.into_iter().map(arm).collect::<Result<Vec<_>>>()?;
        outcomes.push(Outcome {
            name: format!("{NAME}: {}", question.name()),
            title: format!("{}, up to {questions} a round, 32 and then one at a time", question.title()),
            metrics: METRICS,
            arms: interleave(NAME, &mut arms, rounds)?,
        });
    }
    Ok(outcomes)
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answerer {
    Carrier(Carrier),
    Radvd,
}

impl Answerer {
    const fn name(self) -> &'static str {
        match self {
            Self::Carrier(Carrier::Kernel) => KERNEL,
            Self::Carrier(carrier) => carrier.name(),
            Self::Radvd => RADVD,
        }
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// The MAC of the router.
    Gateway,
    /// The MAC of another VM's address, which the router answers as its proxy.
    Neighbour,
    /// Which routers there are.
    Router,
}

impl Question {
    const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "the router's address",
            Self::Neighbour => "a neighbour's address, by proxy",
            Self::Router => "routers",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Gateway => "a neighbour solicitation for the router's link-local address",
            Self::Neighbour => "a neighbour solicitation for the address of another VM",
            Self::Router => "a router solicitation",
        }
    }

    /// Whose MAC is asked for.
    fn target(self) -> Option<Ipv6Addr> {
        match self {
            Self::Gateway => Some(link_local(GATEWAY_MAC)),
            Self::Neighbour => Some(ENDS[1].address),
            Self::Router => None,
        }
    }

    /// The address that asks.
    fn source(self) -> Ipv6Addr {
        match self {
            Self::Gateway | Self::Neighbour => ENDS[0].address,
            Self::Router => link_local(ENDS[0].mac),
        }
    }

    /// The frame.
    fn frame(self) -> Vec<u8> {
        let options = [source_link_layer(ENDS[0].mac)];
        let (destination, payload) = match self.target() {
            Some(target) => (solicited_node(target), Payload::neighbour_solicitation(target, &options)),
            None => (ALL_ROUTERS, Payload::router_solicitation(&options)),
        };
        let headers = Ipv6::new(ENDS[0].mac, multicast_mac(destination));
        Ipv6 { source: self.source(), destination, hop_limit: 255, ..headers }.carrying(payload).bytes
    }

    /// Whether `frame` answers it as the RFC has it (RFC 4861 sections 4.2, 4.4 and 7.2.8). A proxy may say that it is a
    /// router and have any address, and has to leave the entry to whoever is the neighbour itself.
    fn is_answered_by(self, frame: &[u8]) -> bool {
        let kind = if self == Self::Router { ROUTER_ADVERTISEMENT } else { NEIGHBOUR_ADVERTISEMENT };
        let says = match self.target() {
            Some(target) => {
                let flags = frame.get(FLAGS_AT).map(|flags| flags & (SOLICITED | OVERRIDE));
                let told = [&target.octets()[..], &target_link_layer(GATEWAY_MAC)].concat();
                flags == Some(if self == Self::Gateway { SOLICITED | OVERRIDE } else { SOLICITED })
                    && frame.get(TARGET_AT..) == Some(&told)
            }
            None => true,
        };
        says && frame.get(..12) == Some(&[ENDS[0].mac, GATEWAY_MAC].concat())
            && addresses(frame).is_some_and(|(_, destination)| destination == self.source())
            && icmpv6_type(frame) == Some(kind)
            && frame.get(HOP_LIMIT_AT) == Some(&255)
            && checksum_holds(frame)
    }

    /// Our counter of answers, and the kernel's.
    const fn counters(self) -> (Counter, &'static str) {
        match self {
            Self::Gateway | Self::Neighbour => (Counter::AnsweredNs, "Icmp6OutNeighborAdvertisements"),
            Self::Router => (Counter::AnsweredRs, "Icmp6OutRouterAdvertisements"),
        }
    }
}

/// The VM that asks, and who answers.
struct Vm {
    asker: Asker,
    path: Path,
    question: Question,
    scale: Scale,
    cpu: usize,
    _neighbour: Tap,
    _daemon: Option<Running>,
}

impl Vm {
    fn new(question: Question, answerer: Answerer, scale: Scale, cpu: usize) -> Result<Self> {
        let host = Arc::new(Namespace::new("bench")?);
        host.set_sysctl("net/ipv6/conf/default/accept_dad", 0)?;
        host.set_sysctl("net/ipv6/conf/default/router_solicitations", 0)?;
        let [tap, neighbour] = ENDS.map(|end| open(&host, end.tap, Kind::Datagram(78)));
        let (tap, neighbour) = (tap?, neighbour?);
        let carrier = match answerer {
            Answerer::Carrier(carrier) => carrier,
            Answerer::Radvd => Carrier::Kernel,
        };
        let path = Path::new(&host, carrier, &Setting::USUAL, Hook::First)?;
        if carrier == Carrier::Kernel {
            settle(&host)?;
        }
        let daemon = match answerer {
            Answerer::Radvd => Some(radvd(&host)?),
            Answerer::Carrier(_) => None,
        };
        let asker = Asker::new(tap, &question.frame(), |frame| question.is_answered_by(frame))?;
        Ok(Self { asker, path, question, scale, cpu, _neighbour: neighbour, _daemon: daemon })
    }
}

impl Work for Vm {
    fn round(&mut self) -> Result<Measured> {
        let (ours, kernels) = self.question.counters();
        self.asker.round(self.scale, self.cpu, || self.path.answered(ours, kernels))
    }
}

/// Has the kernel answer for the VM at the other TAP, at once (by default it lets up to 0.8 s pass), and know the one that
/// asks.
fn settle(host: &Namespace) -> Result<()> {
    let [asks, other] = ENDS;
    host.set_sysctl(&format!("net/ipv6/conf/{}/proxy_ndp", asks.tap), 1)?;
    host.set_sysctl(&format!("net/ipv6/neigh/{}/proxy_delay", asks.tap), 0)?;
    host.ip_batch(&format!(
        "neighbour add proxy {} dev {tap}\nneighbour add {} lladdr {} dev {tap} nud permanent\n",
        other.address,
        link_local(asks.mac),
        mac_text(asks.mac),
        tap = asks.tap
    ))
}

/// radvd, which answers who asks and nobody else, without any delay of its own making.
fn radvd(host: &Namespace) -> Result<Running> {
    let text = format!(
        "interface {} {{ AdvSendAdvert on; AdvManagedFlag on; AdvOtherConfigFlag on; AdvDefaultLifetime 9000;\n\
         MinRtrAdvInterval 1350; MaxRtrAdvInterval 1800; AdvRASolicitedUnicast on; }};\n",
        ENDS[0].tap
    );
    host.enter(|| Ok(fs::write("/run/radvd.conf", &text)?))?;
    let mut command = host.command("radvd");
    command.args(["--nodaemon", "--logmethod", "stderr_clean", "--config", "/run/radvd.conf"]);
    command.args(["--pidfile", "/run/radvd.pid"]);
    Running::start(RADVD, command)
}
