//! What VMs notice of a neighbour that floods: one sends to another at a modest rate, and one packet at a time, from one
//! CPU, while a third VM of the host sends as fast as another CPU can. What is lost is a result and no reason to reject a
//! round. The limit is a bare redirect, which keeps nothing that could be used up.
//!
//! Nobody tidies up between rounds: what a flood fills stays full, as it does when the flood goes on.

use super::latency::single;
use super::stream::{Kind, SYN, Spread, Stream};
use super::tally::Tally;
use super::wire::{self, Reader, Wire, Writer};
use crate::carrier::{Carrier, Contest, OTHERS, Path, Setting};
use crate::cpu;
use crate::destinations::{self, Destinations, Width};
use crate::flows::{ENDLESS, Flows, ports};
use crate::report::{Metric, Outcome};
use crate::rounds::{Measured, Work, interleave};
use crate::statistics::{Better, quantile};
use anyhow::{Context, Result};
use serval_tests::frame::{
    GATEWAY_MAC, Ipv6, Payload, link_local, multicast_mac, solicited_node, source_link_layer,
};
use serval_tests::tap::Tap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const NAME: &str = "beside";

const METRICS: &[Metric] = &[
    Metric { name: "delivered of a known flow", unit: "%", better: Better::More },
    Metric { name: "delivered of new flows", unit: "%", better: Better::More },
    Metric { name: "p50", unit: "ns", better: Better::Less },
    Metric { name: "p99", unit: "ns", better: Better::Less },
    Metric { name: "p99.9", unit: "ns", better: Better::Less },
    Metric { name: "frames of the flood", unit: "1000/s", better: Better::More },
];

/// Who takes part.
const CONTEST: Contest = Contest {
    carriers: &[
        Carrier::Serval,
        Carrier::BareXdp,
        Carrier::ServalTc,
        Carrier::BareTc,
        Carrier::Kernel,
        Carrier::Ip6tables,
    ],
    small: true,
};

/// What the victims send.
const KIND: Kind = Kind::Datagram(78);
/// How often, apart from one at a time.
const INTERVAL: Duration = Duration::from_micros(50);
/// How long the flood goes on before anybody looks.
const BEFORE: Duration = Duration::from_millis(10);
/// A frame that has not arrived by then is lost, and counts as late as that.
const PATIENCE: Duration = Duration::from_millis(20);
/// Of a hundred frames, those that must have been seen by who is said to carry them.
const SEEN_PERCENT: u64 = 99;

/// Frames of a round.
#[derive(Clone, Copy)]
struct Scale {
    steady: usize,
    singles: usize,
}

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Vec<Outcome>> {
    let (rounds, scale) = match quick {
        true => (1, Scale { steady: 400, singles: 1_000 }),
        false => (11, Scale { steady: 2_000, singles: 10_000 }),
    };
    let cpus = cpu::two()?;
    let hosts = CONTEST.carriers.iter().map(|carrier| Ok((*carrier, Rc::new(Host::new(*carrier)?))));
    let hosts = hosts.collect::<Result<Vec<_>>>()?;
    let outcome = |flood: Flood| {
        let mut arms = CONTEST.arms(|carrier| {
            let host = hosts.iter().find(|(other, _)| *other == carrier).context("no such host")?;
            Ok(Box::new(Beside { host: Rc::clone(&host.1), flood: flood.stream(), scale, cpus }))
        })?;
        Ok(Outcome {
            name: format!("{NAME}: {}", flood.name()),
            title: format!(
                "{}-byte UDP frames between VMs, {} a second and one at a time, beside a VM that sends {}",
                KIND.length(),
                Duration::from_secs(1).as_micros() / INTERVAL.as_micros(),
                flood.description()
            ),
            metrics: METRICS,
            arms: interleave(NAME, &mut arms, rounds)?,
        })
    };
    Flood::ALL.into_iter().map(outcome).collect()
}

/// What the third VM sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flood {
    Nothing,
    Solicitations,
    Connections,
    Strangers,
}

impl Flood {
    const ALL: [Self; 4] = [Self::Nothing, Self::Solicitations, Self::Connections, Self::Strangers];

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no flood",
            Self::Solicitations => "solicitations",
            Self::Connections => "connections",
            Self::Strangers => "unknown destinations",
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Solicitations => "neighbour solicitations for its gateway",
            Self::Connections => "TCP SYNs to a fourth, each of another flow",
            Self::Strangers => "UDP to addresses that nobody has, each to another",
        }
    }

    /// Its frames; `None`: there are none.
    fn stream(self) -> Option<Stream> {
        let [flooder, flooded] = OTHERS;
        let headers = Ipv6 {
            source: flooder.address,
            destination: flooded.address,
            ..Ipv6::new(flooder.mac, GATEWAY_MAC)
        };
        match self {
            Self::Nothing => None,
            Self::Solicitations => {
                let target = link_local(GATEWAY_MAC);
                let group = solicited_node(target);
                let headers = Ipv6 {
                    destination_mac: multicast_mac(group),
                    hop_limit: 255,
                    source: link_local(flooder.mac),
                    destination: group,
                    ..headers
                };
                let payload = Payload::neighbour_solicitation(target, &[source_link_layer(flooder.mac)]);
                Some(Stream::one_way(&headers.carrying(payload), Spread::None))
            }
            Self::Connections => {
                let first = ports(0);
                let mut payload = Payload::tcp((first >> 16) as u16, first as u16, SYN, &[]);
                // Where a datagram has its ports inverted: a SYN acknowledges nothing, so nobody looks there.
                payload.bytes[8..12].copy_from_slice(&(!first).to_be_bytes());
                Some(Stream::one_way(&headers.carrying(payload), Spread::Flows(Flows::new(ENDLESS))))
            }
            Self::Strangers => {
                let headers = Ipv6 { destination: destinations::address(0), ..headers };
                let all = Destinations::new(u32::MAX, Width::Host);
                let frame = headers.carrying(Payload::udp(7, 7, b"stranger"));
                Some(Stream::one_way(&frame, Spread::Destinations(all, true)))
            }
        }
    }
}

/// A host with four VMs.
struct Host {
    /// Between the victims, with frames of one flow.
    wire: Wire<Path>,
    /// The victims' frames of many flows.
    flows: Stream,
    /// Who floods, and who is flooded.
    others: [Tap; 2],
}

impl Host {
    fn new(carrier: Carrier) -> Result<Self> {
        let namespace = wire::host()?;
        let others = OTHERS.map(|end| wire::open(&namespace, end.tap, KIND));
        let [flooder, flooded] = others;
        let others = [flooder?, flooded?];
        let wire = Wire::on(&namespace, carrier, KIND, &Setting::CROWD)?;
        let flows = Stream::new(KIND, &wire.way.with_flows(Flows::new(ENDLESS)));
        Ok(Self { wire, flows, others })
    }

    /// Reads all that has come for the other VMs; whether anything has.
    fn empty(&self) -> Result<bool> {
        let mut buffer = [0; 256];
        let mut any = false;
        for tap in &self.others {
            while tap.read_raw(&mut buffer)? > 0 {
                any = true;
            }
        }
        Ok(any)
    }
}

/// The work of the victims beside a flood.
struct Beside {
    host: Rc<Host>,
    flood: Option<Stream>,
    scale: Scale,
    /// For the victims, and for the flood.
    cpus: [usize; 2],
}

impl Work for Beside {
    fn round(&mut self) -> Result<Measured> {
        let Self { host, flood, scale, cpus } = self;
        let (host, path) = (host.as_ref(), &host.wire.between);
        host.empty()?;
        if let Some(wrong) = host.wire.establish()? {
            return Ok(Measured::Rejected(wrong));
        }
        let (tally, met) = (Tally::take(path)?, path.met()?);
        let stop = AtomicBool::new(false);
        let (noticed, sent) = std::thread::scope(|scope| -> Result<_> {
            let flooder = match flood {
                Some(stream) => {
                    let writer = Writer::new(&host.others[0], stream, host.wire.random());
                    Some(cpu::spawn_on(scope, cpus[1], || send_until(writer, &stop))?)
                }
                None => None,
            };
            let noticed = cpu::run_on(cpus[0], || Noticed::by_victims(host, *scale));
            stop.store(true, Ordering::Release);
            let sent = flooder.map(cpu::join).transpose()?;
            Ok((noticed?, sent))
        })?;
        // The hook that is measured has carried what arrived.
        let arrived = (noticed.known + noticed.new + noticed.singles()) as u64;
        if let Some(wrong) = tally.not_sent_on(path, arrived, arrived * SEEN_PERCENT / 100)? {
            return Ok(Measured::Rejected(wrong));
        }
        let rate = match &sent {
            Some(Sent { frames, seconds }) => {
                if let (Some(before), Some(after)) = (met, path.met()?)
                    && (after - before) * 100 < frames * SEEN_PERCENT
                {
                    let wrong = format!("{} of {frames} frames of the flood were seen", after - before);
                    return Ok(Measured::Rejected(wrong));
                }
                if !host.empty()? {
                    return Ok(Measured::Rejected("nothing came of the flood".to_owned()));
                }
                *frames as f64 / seconds / 1e3
            }
            None => 0.0,
        };
        Ok(Measured::Proven(noticed.values(*scale, rate)))
    }
}

/// What the flood sent, and how long it took.
struct Sent {
    frames: u64,
    seconds: f64,
}

fn send_until(mut writer: Writer<'_>, stop: &AtomicBool) -> Result<Sent> {
    let (start, mut frames) = (Instant::now(), 0);
    while !stop.load(Ordering::Acquire) {
        writer.send()?;
        frames += 1;
    }
    Ok(Sent { frames, seconds: start.elapsed().as_secs_f64() })
}

/// What the victims noticed.
struct Noticed {
    /// Frames that arrived of a flow that is known, and of new ones.
    known: usize,
    new: usize,
    /// How long single frames took, in ns, sorted.
    times: Vec<f64>,
}

impl Noticed {
    fn by_victims(host: &Host, scale: Scale) -> Result<Self> {
        let wire = &host.wire;
        std::thread::sleep(BEFORE);
        let known = steady(wire.writer(), wire.reader(), scale.steady)?;
        let (mut writer, mut reader) = (wire.writer(), wire.reader());
        let lost = PATIENCE.as_nanos() as f64;
        let times = (0..scale.singles).map(|_| Ok(single(&mut writer, &mut reader)?.unwrap_or(lost)));
        let mut times = times.collect::<Result<Vec<_>>>()?;
        times.sort_by(f64::total_cmp);
        let new = steady(wire.writer_of(&host.flows), wire.reader_of(&host.flows), scale.steady)?;
        Ok(Self { known, new, times })
    }

    /// Single frames that arrived.
    fn singles(&self) -> usize {
        self.times.iter().filter(|time| **time < PATIENCE.as_nanos() as f64).count()
    }

    /// A value for each metric.
    fn values(&self, scale: Scale, rate: f64) -> Vec<f64> {
        let percent = |arrived: usize| arrived as f64 * 100.0 / scale.steady as f64;
        let times = [0.5, 0.99, 0.999].into_iter().filter_map(|q| quantile(&self.times, q));
        [percent(self.known), percent(self.new)].into_iter().chain(times).chain([rate]).collect()
    }
}

/// Sends frames, one each [`INTERVAL`]; how many arrived exactly.
fn steady(mut writer: Writer<'_>, mut reader: Reader<'_>, frames: usize) -> Result<usize> {
    reader.drain()?;
    let (mut due, mut arrived) = (Instant::now(), 0);
    for _ in 0..frames {
        writer.send()?;
        due += INTERVAL;
        loop {
            arrived += reader.drain()?;
            if Instant::now() >= due {
                break;
            }
        }
    }
    let end = Instant::now() + PATIENCE;
    while arrived < frames && Instant::now() < end {
        arrived += reader.drain()?;
    }
    Ok(arrived)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serval_tests::frame::checksum_holds;
    use std::collections::BTreeSet;

    #[test]
    fn every_frame_of_a_flood_has_a_whole_checksum_and_is_another_where_it_should_be() {
        for (flood, others) in [(Flood::Solicitations, 1), (Flood::Connections, 100), (Flood::Strangers, 100)]
        {
            let stream = flood.stream().unwrap();
            let mut sent = stream.sent.clone();
            let frames: BTreeSet<Vec<u8>> = (0..100u32)
                .map(|number| {
                    stream.advance(&mut sent, number << 25);
                    let frame = sent[stream.sent.len() - stream.frame().len()..].to_vec();
                    assert!(checksum_holds(&frame), "{flood:?}");
                    frame
                })
                .collect();
            assert_eq!(frames.len(), others, "{flood:?}");
        }
        assert!(Flood::Nothing.stream().is_none());
    }

    #[test]
    fn a_single_frame_that_is_lost_is_late_and_not_counted_as_arrived() {
        let lost = PATIENCE.as_nanos() as f64;
        let noticed = Noticed { known: 200, new: 100, times: vec![1.0, 2.0, lost] };
        let scale = Scale { steady: 200, singles: 3 };
        assert_eq!(noticed.singles(), 2);
        let values = noticed.values(scale, 7.0);
        assert_eq!(values.len(), METRICS.len());
        assert_eq!((&values[..3], values[5]), (&[100.0, 50.0, 2.0][..], 7.0));
    }
}
