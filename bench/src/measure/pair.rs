//! Two hosts on one cable, each with its daemon and two VMs: one that is a TAP in our hands, one with a kernel of its own.

use super::stream::{Kind, Way};
use super::wire::{Between, Wire, open};
use crate::bare;
use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use serval_tests::cloud::{address, endpoint, name, running, subnet, tap};
use serval_tests::guest::KernelGuest;
use serval_tests::host::{Host, policy};
use serval_tests::process::Running;
use serval_tests::tap::Offloads;
use serval_tests::traffic::iperf3_server;
use serval_tests::wait::eventually;
use std::cell::RefCell;
use std::net::Ipv6Addr;
use std::rc::Rc;
use std::time::Duration;

/// The interface of a host towards the other.
const UPLINK: &str = "up0";
/// VMs that are TAPs in our hands, and VMs with a kernel: by host.
const TAPS: [u8; 2] = [1, 2];
const GUESTS: [u8; 2] = [3, 4];
/// How long the fast path may take to know its way.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which programs forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `fastpath.uplink = "tc"`.
    Tc,
    /// `fastpath.uplink = "xdp"`.
    Xdp,
    /// `fastpath.uplink = "both"`.
    Both,
    /// `fastpath.xdp = "off"`.
    TcOnly,
    /// None: the kernel alone, without any rule, and without a daemon.
    Kernel,
    /// None: after `serval detach`, under the same policy as nftables rules.
    Detached,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Tc, Self::Xdp, Self::Both, Self::TcOnly, Self::Kernel, Self::Detached];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tc => "serval, uplink = tc",
            Self::Xdp => "serval, uplink = xdp",
            Self::Both => "serval, uplink = both",
            Self::TcOnly => "serval, TC only",
            Self::Kernel => crate::report::KERNEL,
            Self::Detached => "serval, detached",
        }
    }

    /// As the configuration has it.
    const fn configuration(self) -> &'static str {
        match self {
            Self::Tc | Self::Kernel | Self::Detached => "[fastpath]\nuplink = \"tc\"\n",
            Self::Xdp => "[fastpath]\nuplink = \"xdp\"\n",
            Self::Both => "[fastpath]\nuplink = \"both\"\n",
            Self::TcOnly => "[fastpath]\nxdp = \"off\"\nuplink = \"tc\"\n",
        }
    }

    /// Counter of the sending and of the receiving VM that count a small packet.
    const fn counters(self) -> Option<[&'static str; 2]> {
        match self {
            Self::Tc => Some(["forwarded_xdp", "delivered_tc"]),
            Self::Xdp | Self::Both => Some(["forwarded_xdp", "delivered_xdp"]),
            Self::TcOnly => Some(["forwarded_tc", "delivered_tc"]),
            Self::Kernel | Self::Detached => None,
        }
    }
}

/// What the cable between the hosts takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cable {
    /// Frames of at most the MTU with whole checksums, as the cable of a network card: whoever sends cuts them, and whoever
    /// receives puts them together (GRO).
    Frames,
    /// The same, and each frame arrives as from a card: in a page of the receiver's, and nobody's. A veth by itself hands over
    /// the sender's socket, which is with the last of the frames that TC's segments are cut into, so that GRO takes it
    /// for another flow's. Where there is XDP on the uplinks, it arrives so anyway.
    Cards,
    /// Segments that are still to be cut, up to 64 KiB with partial checksums: what no cable does, but a veth.
    Segments,
}

impl Cable {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Cards => "cards",
            Self::Segments => "segments",
        }
    }

    /// In words.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Frames => "a cable that takes frames of 1500 bytes",
            Self::Cards => "a cable that takes frames of 1500 bytes, received as by a network card",
            Self::Segments => "a veth between them that takes segments whole",
        }
    }

    /// The switches of `ethtool -K`; GRO, as a network card does, and because a veth takes frames that XDP redirects when
    /// its peer has it.
    const fn switches(self) -> &'static str {
        match self {
            Self::Frames | Self::Cards => "gro on gso off tso off tx off",
            Self::Segments => "gro on tx on gso on tso on",
        }
    }
}

/// Two hosts, and what forwards.
pub struct Hosts {
    mode: Mode,
    hosts: [Host; 2],
}

/// Two hosts with their VMs.
pub struct Pair {
    /// From the TAP of the first host to that of the second.
    pub wire: Rc<Wire<Hosts>>,
    /// The VMs with a kernel; the second is an iperf3 server.
    pub guests: [KernelGuest; 2],
    /// What has the uplinks be those of cards.
    cards: RefCell<Vec<Ebpf>>,
    _server: Running,
}

impl Pair {
    /// Starts everything, and waits until the fast path knows its way.
    pub fn new(mode: Mode, kind: Kind) -> Result<Self> {
        let host = if mode == Mode::Kernel { Host::new } else { Host::policed };
        let mut hosts = [host("bench-a")?, host("bench-b")?];
        connect(&hosts)?;
        lay(&hosts, Cable::Frames)?;
        for host in &mut hosts {
            host.keep_quiet();
            host.configure(mode.configuration())?;
            host.put("subnet.yaml", subnet().document())?;
            let open = policy("open", "all()", "ingress: [{action: Allow}], egress: [{action: Allow}]");
            host.put("policy.yaml", open)?;
            host.start()?;
        }
        let mut taps = Vec::new();
        for (host, number) in hosts.iter().zip(TAPS) {
            host.put_endpoint(&endpoint(number))?;
            taps.push(open(&host.namespace, &tap(number), kind)?);
            host.wait_state(&name(number), "up")?;
        }
        let [from, to] = [0, 1].map(|index| running(&hosts[index], GUESTS[index], Offloads::ALL));
        let guests = [from?, to?];
        for host in &mut hosts {
            if matches!(mode, Mode::Kernel | Mode::Detached) {
                let detached = host.serval(&["detach"])?;
                ensure!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
            }
            if mode == Mode::Kernel {
                // The rules that stand in for the hooks go, too, and nobody puts them back.
                host.stop()?;
                host.namespace.run("nft delete table ip6 serval")?;
            }
        }
        let (far, near) = (taps.pop().context("two TAPs")?, taps.pop().context("two TAPs")?);
        let wire = Wire::between(Hosts { mode, hosts }, vec![near], vec![far], kind, Way::between(TAPS, 2));
        eventually(&format!("{}: frames arrive by it", mode.name()), PATIENCE, || {
            let before = wire.between.sent_on()?;
            wire.writer().send()?;
            let arrived = wire.drain()? == 1;
            Ok((arrived && wire.between.sent_on()? > before).then_some(()))
        })?;
        let server = iperf3_server(&guests[1].namespace)?;
        Ok(Self { wire: Rc::new(wire), guests, cards: RefCell::default(), _server: server })
    }

    /// Takes another cable.
    pub fn lay(&self, cable: Cable) -> Result<()> {
        let Hosts { mode, hosts } = &self.wire.between;
        let mut cards = Vec::new();
        self.cards.take();
        if cable == Cable::Cards && !matches!(mode, Mode::Xdp | Mode::Both) {
            for host in hosts {
                cards.push(host.namespace.enter(|| bare::attach_card(UPLINK))?);
            }
        }
        self.cards.replace(cards);
        lay(hosts, cable)
    }

    /// Address of the iperf3 server.
    pub fn server(&self) -> Ipv6Addr {
        address(GUESTS[1])
    }

    /// Frames that the fast path delivered to the iperf3 server.
    pub fn delivered(&self) -> Result<u64> {
        if self.wire.between.mode == Mode::Kernel {
            return Ok(0);
        }
        self.wire.between.hosts[1].endpoint(&name(GUESTS[1]))?.delivered()
    }
}

impl Between for Hosts {
    /// Frames that both hosts have sent on.
    fn sent_on(&self) -> Result<Option<u64>> {
        let mut both = [0; 2];
        for (index, count) in both.iter_mut().enumerate() {
            *count = match self.mode.counters() {
                Some(counters) => self.hosts[index].endpoint(&name(TAPS[index]))?.counter(counters[index])?,
                None => self.hosts[index].namespace.kernel_forwarded()?,
            };
        }
        Ok(Some(both[0].min(both[1])))
    }

    fn judged(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// Has the cable between the hosts be of this kind.
fn lay(hosts: &[Host; 2], cable: Cable) -> Result<()> {
    for host in hosts {
        host.namespace.run(&format!("ethtool -K {UPLINK} {}", cable.switches()))?;
    }
    Ok(())
}

/// Lays a cable between the hosts, with routes to each other's VMs.
fn connect([a, b]: &[Host; 2]) -> Result<()> {
    let (inside, other) = (&a.namespace, &b.namespace);
    inside.ip(&format!("link add {UPLINK} type veth peer name {UPLINK} netns {}", other.path()))?;
    for host in [a, b] {
        host.namespace.ip(&format!("link set {UPLINK} up"))?;
    }
    for (number, (host, peer)) in (1u16..).zip([(a, b), (b, a)]) {
        let (ours, theirs) = (link_address(number), link_address(3 - number));
        host.namespace.ip(&format!("address add {ours}/64 dev {UPLINK} nodad"))?;
        let links = peer.namespace.ip_json(&format!("link show dev {UPLINK}"))?;
        let mac = links.pointer("/0/address").and_then(|mac| mac.as_str()).context("a link without MAC")?;
        // Permanent: no round shall meet the kernel asking whether it is still there.
        host.namespace.ip(&format!("neighbour add {theirs} lladdr {mac} dev {UPLINK} nud permanent"))?;
        for group in [TAPS, GUESTS] {
            let vm = address(group[usize::from(2 - number)]);
            host.namespace.ip(&format!("route add {vm}/128 via {theirs} dev {UPLINK} metric 2048"))?;
        }
    }
    Ok(())
}

/// The address of a host on the cable.
fn link_address(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xfab, 0, 0, 0, 0, number)
}
