//! What two VMs notice when something about the daemon of their host changes: it is restarted, it is killed, it gets
//! another policy for them, it takes the fast path off. One sends to the other all the while, and reads at once what has
//! arrived, so that what is late or lost is so between the two TAPs.

use super::stream::{Kind, Way};
use super::wire::{Reader, Unwatched, Wire, Writer, open};
use crate::cpu;
use crate::report::{KERNEL, Metric, Outcome};
use crate::rounds::{Arm, Measured, Work, interleave};
use crate::statistics::Better;
use anyhow::{Result, ensure};
use serval_tests::cloud::{endpoint, name, subnet, tap};
use serval_tests::host::{EndpointStatus, Host, Status, policy};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub const NAME: &str = "change";

const METRICS: &[Metric] = &[
    Metric { name: "packets lost", unit: "packets", better: Better::Less },
    Metric { name: "longest without one", unit: "ms", better: Better::Less },
    Metric { name: "the change took", unit: "ms", better: Better::Less },
];

const KIND: Kind = Kind::Datagram(78);
/// Who sends, and who receives.
const VMS: [u8; 2] = [1, 2];
/// How often a packet is sent.
const INTERVAL: Duration = Duration::from_micros(100);
/// How long packets are sent before the change, and after it.
const AROUND: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];
/// A packet that takes longer is lost.
const PATIENCE: Duration = Duration::from_millis(20);
/// Of a hundred packets that arrived, those that the fast path must have forwarded.
const FORWARDED_PERCENT: u64 = 99;
/// Policies under which the packets may pass, by different rules.
const POLICIES: [(&str, &str); 2] = [
    ("first", "ingress: [{ action: Allow }], egress: [{ action: Allow }]"),
    (
        "second",
        "ingress: [{ action: Deny, protocol: UDP, destination: { ports: [7001] } }, \
         { action: Allow, source: { nets: ['2001:db8::/32'] } }], egress: [{ action: Allow, protocol: UDP }]",
    ),
];

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Vec<Outcome>> {
    let rounds = if quick { 1 } else { 7 };
    let [cpu, _] = cpu::two()?;
    let mut arms = Vec::new();
    for mode in Mode::ALL {
        let scene = Rc::new(RefCell::new(Scene::new(mode)?));
        arms.extend(Change::ALL.map(|change| Arm {
            name: format!("{}, {}", change.name(), mode.name()),
            limit: None,
            kernel: KERNEL.to_owned(),
            size: None,
            work: Box::new(Changing { scene: Rc::clone(&scene), change, cpu }),
        }));
    }
    Ok(vec![Outcome {
        name: NAME.to_owned(),
        title: format!(
            "{}-byte UDP frames between two VMs of a host, {} a second, while something changes",
            KIND.length(),
            Duration::from_secs(1).as_micros() / INTERVAL.as_micros()
        ),
        metrics: METRICS,
        arms: interleave(NAME, &mut arms, rounds)?,
    }])
}

/// Which programs forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Xdp,
    Tc,
}

impl Mode {
    const ALL: [Self; 2] = [Self::Xdp, Self::Tc];

    const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "XDP",
            Self::Tc => "TC only",
        }
    }

    const fn configuration(self) -> &'static str {
        match self {
            Self::Xdp => "",
            Self::Tc => "[fastpath]\nxdp = \"off\"\n",
        }
    }

    /// The counter of a VM that counts what it sends.
    const fn counter(self) -> &'static str {
        match self {
            Self::Xdp => "forwarded_xdp",
            Self::Tc => "forwarded_tc",
        }
    }
}

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Restart,
    Kill,
    Policy,
    Detach,
}

impl Change {
    const ALL: [Self; 4] = [Self::Restart, Self::Kill, Self::Policy, Self::Detach];

    const fn name(self) -> &'static str {
        match self {
            Self::Restart => "stop and start",
            Self::Kill => "kill -9 and start",
            Self::Policy => "another policy",
            Self::Detach => "detach",
        }
    }
}

/// A host with its daemon.
struct Site {
    mode: Mode,
    host: Host,
    /// Which of [`POLICIES`] is in force.
    policy: usize,
}

impl Site {
    /// Does it; how long that took.
    fn change(&mut self, change: Change) -> Result<Duration> {
        let start = Instant::now();
        match change {
            Change::Restart => self.restart()?,
            Change::Kill => {
                self.host.kill()?;
                self.host.start()?;
            }
            Change::Policy => self.put_policy(1 - self.policy)?,
            Change::Detach => {
                let detached = self.host.serval(&["detach"])?;
                ensure!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
            }
        }
        Ok(start.elapsed())
    }

    fn restart(&mut self) -> Result<()> {
        let ended = self.host.stop()?;
        ensure!(ended.success(), "the daemon ended with {ended}");
        self.host.start().map(drop)
    }

    /// Replaces the policy, and waits until the other is in force.
    fn put_policy(&mut self, number: usize) -> Result<()> {
        let (called, rules) = POLICIES[number];
        self.host.put("policy.yaml", policy(called, "all()", rules))?;
        self.wait(&format!("the policy `{called}` in force"), |endpoint| endpoint.policies() == [called])?;
        self.policy = number;
        Ok(())
    }

    fn wait_attached(&self) -> Result<()> {
        let xdp = if self.mode == Mode::Xdp { "native" } else { "off" };
        self.wait("the fast path on both TAPs", |endpoint| {
            endpoint.state() == "up" && endpoint.xdp() == xdp && endpoint.tc() != "off"
        })
    }

    /// Waits until something is so for both VMs.
    fn wait(&self, what: &str, wanted: impl Fn(&EndpointStatus) -> bool) -> Result<()> {
        let both = |status: &Status| {
            VMS.iter().all(|vm| status.endpoint(&name(*vm)).is_some_and(|endpoint| wanted(&endpoint)))
        };
        self.host.wait_status(what, both).map(drop)
    }

    /// Packets that were forwarded so far: by the fast path, and by the kernel.
    fn forwarded(&self) -> Result<[u64; 2]> {
        let fast = self.host.endpoint(&name(VMS[0]))?.counter(self.mode.counter())?;
        Ok([fast, self.host.namespace.kernel_forwarded()?])
    }
}

/// A host, and what its two VMs send to each other.
struct Scene {
    site: Site,
    wire: Wire<Unwatched>,
}

impl Scene {
    fn new(mode: Mode) -> Result<Self> {
        let mut host = Host::policed("bench-change")?;
        host.keep_quiet();
        host.configure(mode.configuration())?;
        host.put("subnet.yaml", subnet().document())?;
        host.start()?;
        let [near, far] = VMS.map(|vm| {
            host.put_endpoint(&endpoint(vm))?;
            open(&host.namespace, &tap(vm), KIND)
        });
        let wire = Wire::between(Unwatched, vec![near?], vec![far?], KIND, Way::between(VMS, 1));
        let mut site = Site { mode, host, policy: 0 };
        site.wait_attached()?;
        site.put_policy(0)?;
        Ok(Self { site, wire })
    }

    /// What the VMs notice before, during and after a change, and how long that took.
    fn during(&mut self, change: Change, cpu: usize) -> Result<(Noticed, Duration)> {
        let Self { site, wire } = self;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let vms = cpu::spawn_on(scope, cpu, || notice(wire.writer(), wire.reader(), &stop))?;
            thread::sleep(AROUND[0]);
            let took = site.change(change);
            thread::sleep(AROUND[1]);
            stop.store(true, Ordering::Release);
            let noticed = cpu::join(vms)?;
            Ok((noticed, took?))
        })
    }
}

/// The work of noticing a change.
struct Changing {
    scene: Rc<RefCell<Scene>>,
    change: Change,
    cpu: usize,
}

impl Work for Changing {
    fn round(&mut self) -> Result<Measured> {
        let mut scene = self.scene.borrow_mut();
        if let Some(wrong) = scene.wire.establish()? {
            return Ok(Measured::Rejected(wrong));
        }
        let before = scene.site.forwarded()?;
        let (noticed, took) = scene.during(self.change, self.cpu)?;
        let after = scene.site.forwarded()?;
        if self.change == Change::Detach {
            // Only a start puts the fast path back.
            scene.site.restart()?;
            scene.site.wait_attached()?;
        }
        let Noticed { sent, arrived, longest } = noticed;
        let [fast, kernel] = [after[0] - before[0], after[1] - before[1]];
        let by_them = if self.change == Change::Detach { fast + kernel } else { fast };
        if by_them * 100 < arrived * FORWARDED_PERCENT || (self.change == Change::Detach && kernel == 0) {
            let wrong = format!("of {arrived} packets {fast} went by the fast path, {kernel} by the kernel");
            return Ok(Measured::Rejected(wrong));
        }
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        Ok(Measured::Proven(vec![(sent - arrived) as f64, milliseconds(longest), milliseconds(took)]))
    }
}

/// What became of packets.
#[derive(Debug, Default, PartialEq)]
struct Noticed {
    sent: u64,
    arrived: u64,
    /// The longest time from when a packet was sent until one arrived. When the sender itself was kept from working does
    /// not count.
    longest: Duration,
}

/// Sends one packet each [`INTERVAL`] and reads what has arrived, until `stop`.
fn notice(mut writer: Writer<'_>, mut reader: Reader<'_>, stop: &AtomicBool) -> Result<Noticed> {
    let mut noticed = Noticed::default();
    let mut due = Instant::now();
    let mut waiting = None;
    while !stop.load(Ordering::Acquire) {
        let since = *waiting.get_or_insert_with(Instant::now);
        writer.send()?;
        noticed.sent += 1;
        let came = reader.drain()?;
        if came > 0 {
            noticed.arrived += came as u64;
            noticed.longest = noticed.longest.max(since.elapsed());
            waiting = None;
        }
        // Who was kept from sending does not make up for it.
        due = (due + INTERVAL).max(Instant::now());
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let end = Instant::now() + PATIENCE;
    while noticed.arrived < noticed.sent && Instant::now() < end {
        noticed.arrived += reader.drain()? as u64;
    }
    if let Some(since) = waiting {
        noticed.longest = noticed.longest.max(since.elapsed());
    }
    ensure!(noticed.arrived <= noticed.sent, "packets arrived more than once: {noticed:?}");
    Ok(noticed)
}
