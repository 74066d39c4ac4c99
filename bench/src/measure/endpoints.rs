//! Endpoints that come: a host with many from nothing, and one more on a host that has many, until its first packet is
//! through. The daemon does all of it: documents, maps, hooks, routes and neighbours.

use super::{memory, usage};
use crate::report::{Metric, Outcome, Round, Series};
use crate::statistics::{Better, quantile};
use anyhow::{Result, bail};
use serval_tests::frame::{self, GATEWAY_MAC, Ipv6, Payload, mac_text};
use serval_tests::host::{Endpoint, Host, policy};
use serval_tests::tap::{Options, Tap};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

pub const NAME: &str = "endpoints";

const FROM_NOTHING: &[Metric] = &[
    Metric { name: "until all are up", unit: "s", better: Better::Less },
    Metric { name: "CPU of the daemon", unit: "s", better: Better::Less },
    Metric { name: "memory of the daemon (RSS)", unit: "MiB", better: Better::Less },
    Metric { name: "CPU of the idle daemon", unit: "ms/s", better: Better::Less },
];
const ONE_MORE: &[Metric] = &[
    Metric { name: "from the document to the first packet, p50", unit: "ms", better: Better::Less },
    Metric { name: "the same, p99", unit: "ms", better: Better::Less },
];

/// Endpoints that the host has room for.
const ROOM: u32 = 2048;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long an idle daemon is watched.
const IDLE: Duration = Duration::from_secs(5);
/// How long the daemon may take with a TAP that nobody claims, or with what an endpoint has left.
const SETTLED: Duration = Duration::from_millis(50);
/// How long a packet may take.
const FLIGHT: Duration = Duration::from_micros(200);

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Vec<Outcome>> {
    let (endpoints, rounds, more, one_by_one) = if quick { (200, 1, 1, 10) } else { (1000, 5, 7, 30) };
    let mut from_nothing = Series::alone(format!("{endpoints} endpoints"));
    let mut one_more = Series::alone("one more");
    let mut maps = Vec::new();
    for round in 0..rounds {
        let mut scene = Scene::new(endpoints)?;
        from_nothing.rounds.push(Round::proven(scene.start()?));
        if round + 1 == rounds {
            maps = memory::maps(&scene.host)?;
            for _ in 0..more {
                one_more.rounds.push(Round::proven(scene.one_by_one(one_by_one)?));
            }
        }
    }
    let outcome = |part: &str, title: String, metrics, arm| Outcome {
        name: format!("{NAME}: {part}"),
        title,
        metrics,
        arms: vec![arm],
    };
    Ok(vec![
        outcome(
            "from nothing",
            format!("A daemon starts on a host with {endpoints} TAPs and their documents"),
            FROM_NOTHING,
            from_nothing,
        ),
        outcome(
            "one more",
            format!(
                "The document of a TAP on a host with {endpoints}: until what its VM sends arrives at another's; \
                 {one_by_one} a round, one after the other"
            ),
            ONE_MORE,
            one_more,
        ),
        memory::outcome(
            format!("{NAME}: maps"),
            format!("The maps of a host with {endpoints} endpoints and room for {ROOM}"),
            &maps,
        ),
    ])
}

/// A host, its TAPs, and how many there are.
struct Scene {
    host: Host,
    taps: Vec<Tap>,
}

impl Scene {
    /// TAPs and documents; no daemon yet.
    fn new(endpoints: u32) -> Result<Self> {
        let mut host = Host::policed("bench-many")?;
        host.keep_quiet();
        host.configure(&format!("[limits]\nendpoints = {ROOM}\n"))?;
        host.put(
            "policy.yaml",
            policy("open", "all()", "ingress: [{action: Allow}], egress: [{action: Allow}]"),
        )?;
        let mut scene = Self { host, taps: Vec::new() };
        let (mut documents, mut up) = (String::new(), String::new());
        for number in 0..endpoints {
            documents += "---\n";
            documents += &endpoint(number).document(scene.host.node());
            up += &scene.add_tap(number)?;
        }
        scene.host.namespace.ip_batch(&up)?;
        scene.host.put("endpoints.yaml", documents)?;
        Ok(scene)
    }

    /// A value for each metric of [`FROM_NOTHING`].
    fn start(&mut self) -> Result<Vec<f64>> {
        let start = Instant::now();
        self.host.start()?;
        self.host.wait_status("all endpoints up", |status| {
            status.endpoints().iter().filter(|endpoint| endpoint.state() == "up").count() == self.taps.len()
        })?;
        let took = start.elapsed().as_secs_f64();
        let cpu = usage::cpu(&self.host)?;
        self.first_packet(0, 1)?;
        let memory = usage::memory(&self.host)?;
        // What is still to be done right after the start is not idle.
        std::thread::sleep(IDLE);
        let before = usage::cpu(&self.host)?;
        std::thread::sleep(IDLE);
        let idle = (usage::cpu(&self.host)? - before) / IDLE.as_secs_f64() * 1e3;
        Ok(vec![took, cpu, memory, idle])
    }

    /// A value for each metric of [`ONE_MORE`], of `count` endpoints that come and go.
    fn one_by_one(&mut self, count: usize) -> Result<Vec<f64>> {
        let mut times = (0..count).map(|_| self.one_more()).collect::<Result<Vec<_>>>()?;
        times.sort_by(f64::total_cmp);
        Ok([0.5, 0.99].iter().filter_map(|q| quantile(&times, *q)).collect())
    }

    /// Milliseconds from the document of one more endpoint, whose TAP is there, to its first packet. Then it goes again.
    fn one_more(&mut self) -> Result<f64> {
        let number = u32::try_from(self.taps.len())?;
        let up = self.add_tap(number)?;
        self.host.namespace.ip_batch(&up)?;
        // The daemon is not to be busy with the TAP any more.
        std::thread::sleep(SETTLED);
        let (document, file) = (endpoint(number).document(self.host.node()), format!("m{number}.yaml"));
        let start = Instant::now();
        self.host.put(&file, document)?;
        self.first_packet(number, 0)?;
        let took = start.elapsed().as_secs_f64() * 1e3;
        self.host.remove(&file)?;
        self.taps.pop();
        std::thread::sleep(SETTLED);
        Ok(took)
    }

    /// Makes the TAP of an endpoint, and says how it is brought up.
    fn add_tap(&mut self, number: u32) -> Result<String> {
        let name = endpoint(number).tap;
        let tap = self.host.namespace.enter(|| Tap::open(&name, Options::default()))?;
        self.taps.push(tap);
        Ok(format!("link set {name} address {} up\n", mac_text(GATEWAY_MAC)))
    }

    /// Sends from one VM to another until something arrives.
    fn first_packet(&self, from: u32, to: u32) -> Result<()> {
        let (sender, receiver) = (endpoint(from), endpoint(to));
        let ends = (sender.addresses[0], receiver.addresses[0]);
        let mut headers = Ipv6::new(sender.mac, GATEWAY_MAC);
        (headers.source, headers.destination) = ends;
        let frame = headers.carrying(Payload::udp(7, 7, b"first"));
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            self.taps[from as usize].write(frame.header, &frame.bytes)?;
            let landed = Instant::now() + FLIGHT;
            while Instant::now() < landed {
                if let Some((_, arrived)) = self.taps[to as usize].read()?
                    && frame::addresses(&arrived) == Some(ends)
                {
                    return Ok(());
                }
            }
        }
        bail!("nothing from {} arrived at {} within {PATIENCE:?}", sender.name, receiver.name)
    }
}

/// The endpoint of a number.
fn endpoint(number: u32) -> Endpoint {
    let [_, _, high, low] = number.to_be_bytes();
    let address = Ipv6Addr::new(0x2001, 0xdb8, 0x3e, 0, 0, 0, 1, number as u16);
    Endpoint::new(&format!("m{number}"), [0xfa, 0x16, 0x3e, 1, high, low], address)
}
