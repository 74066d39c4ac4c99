//! Two TAPs held as a VMM holds them, and frames that go into one and must come out of the other.

use super::stream::{First, From, HEADER, Kind, Stream, Way, opening, opening_by_queue};
use crate::carrier::{Carrier, Path, Setting};
use crate::flows::{self, Flows};
use anyhow::{Context, Result, bail};
use serval_tests::frame::{GATEWAY_MAC, mac_text};
use serval_tests::netns::Namespace;
use serval_tests::tap::{Options, Tap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What lies between two TAPs.
pub trait Between: Send + Sync {
    /// Frames from the near TAP that the fast path has sent on so far; `None`: nobody but the one who is to do it could
    /// have.
    fn sent_on(&self) -> Result<Option<u64>>;

    /// Packets that policy has been asked about so far, and has let pass; `None`: there is none to ask.
    fn judged(&self) -> Result<Option<u64>>;
}

/// Between the TAPs is what somebody else looks at.
pub struct Unwatched;

impl Between for Unwatched {
    fn sent_on(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    fn judged(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// TAPs, and what crosses.
pub struct Wire<B> {
    /// What carries the frames.
    pub between: B,
    /// The way of the frames.
    pub way: Way,
    /// The frames.
    pub stream: Stream,
    /// How their flows begin.
    opening: Vec<First>,
    /// The queues of the TAP that frames are written to.
    near: Vec<Tap>,
    /// Those of the one that they are read from.
    far: Vec<Tap>,
    seed: AtomicU64,
}

impl Wire<Path> {
    /// Two TAPs of one namespace with a carrier between them.
    pub fn new(carrier: Carrier, kind: Kind, setting: &Setting) -> Result<Self> {
        Self::on(&host()?, carrier, kind, setting)
    }

    /// The same on a host on which all other TAPs of the setting are there.
    pub fn on(host: &Arc<Namespace>, carrier: Carrier, kind: Kind, setting: &Setting) -> Result<Self> {
        let [near_tap, far_tap] = setting.ends().map(|end| open_queues(host, end.tap, kind, setting.queues));
        let (near_tap, far_tap) = (near_tap?, far_tap?);
        let mut path = Path::new(host, carrier, setting, kind.hook())?;
        if let Kind::Segments(_) = kind {
            path.expect_long_frames()?;
        }
        Ok(Self::between(path, near_tap, far_tap, kind, Way::across(carrier, setting)))
    }

    /// The same with frames of many flows.
    pub fn with_flows(carrier: Carrier, kind: Kind, setting: &Setting, flows: Flows) -> Result<Self> {
        let Self { between, near, far, way, .. } = Self::new(carrier, kind, setting)?;
        Ok(Self::between(between, near, far, kind, way.with_flows(flows)))
    }

    /// The same with a flow for each queue.
    pub fn with_queues(carrier: Carrier, kind: Kind, setting: &Setting) -> Result<Self> {
        let queues = setting.queues;
        let wire = Self::with_flows(carrier, kind, setting, Flows::new(u32::try_from(queues)?))?;
        let opening = opening_by_queue(kind, &wire.way, queues);
        Ok(Self { opening, ..wire })
    }
}

impl<B: Between> Wire<B> {
    /// Two TAPs, of which these are the queues, with something between them.
    pub fn between(between: B, near: Vec<Tap>, far: Vec<Tap>, kind: Kind, way: Way) -> Self {
        let (stream, opening) = (Stream::new(kind, &way), opening(kind, &way));
        Self { between, way, stream, opening, near, far, seed: AtomicU64::new(1) }
    }

    /// For who sends.
    pub fn writer(&self) -> Writer<'_> {
        self.writer_of(&self.stream)
    }

    /// For who sends other frames.
    pub fn writer_of<'w>(&'w self, stream: &'w Stream) -> Writer<'w> {
        Writer::new(&self.near[0], stream, self.random())
    }

    /// For who sends by a queue the flow that has it.
    pub fn queue_writer(&self, queue: usize) -> Writer<'_> {
        let mut sent = self.stream.sent.clone();
        flows::move_to(&mut sent[HEADER..], flows::ports(queue as u32));
        Writer::of_one(&self.near[queue], sent)
    }

    /// Where the next writer begins: it goes on with other destinations than the one before.
    pub fn random(&self) -> u64 {
        self.seed.fetch_add(1, Ordering::Relaxed).wrapping_mul(LCG) | 1
    }

    /// For who receives.
    pub fn reader(&self) -> Reader<'_> {
        self.reader_of(&self.stream)
    }

    /// For who receives other frames.
    pub fn reader_of<'w>(&'w self, stream: &'w Stream) -> Reader<'w> {
        Reader::new(&self.far, stream)
    }

    /// For who receives by one queue.
    pub fn queue_reader(&self, queue: usize) -> Reader<'_> {
        Reader::new(&self.far[queue..=queue], &self.stream)
    }

    /// Reads all that is there; how many of them were just so.
    pub fn drain(&self) -> Result<usize> {
        self.reader().drain()
    }

    /// Reads all that is there, and begins the flows that the frames belong to. What was wrong, if anything was.
    pub fn establish(&self) -> Result<Option<String>> {
        self.drain()?;
        for (number, First { from, queue, stream }) in self.opening.iter().enumerate() {
            let (taps, to) = match from {
                From::Near => (&self.near, &self.far),
                From::Far => (&self.far, &self.near),
            };
            let mut reader = Reader::new(to, stream);
            reader.drain()?;
            Writer::of_one(&taps[*queue], stream.sent.clone()).send()?;
            let came = reader.drain()?;
            if came != 1 {
                return Ok(Some(format!(
                    "frame {number} of the flow's beginning arrived exactly {came} times"
                )));
            }
        }
        Ok(None)
    }
}

/// A host on which nothing but our frames crosses.
pub fn host() -> Result<Arc<Namespace>> {
    let host = Namespace::new("bench")?;
    host.set_sysctl("net/ipv6/conf/default/accept_dad", 0)?;
    host.set_sysctl("net/ipv6/conf/default/router_solicitations", 0)?;
    Ok(Arc::new(host))
}

/// Opens a TAP that holds enough frames for its reader, and sets it up as the cloud's agent does.
pub fn open(host: &Namespace, name: &str, kind: Kind) -> Result<Tap> {
    open_queues(host, name, kind, 1)?.pop().context("a TAP without a queue")
}

/// The same with so many queues.
fn open_queues(host: &Namespace, name: &str, kind: Kind, count: usize) -> Result<Vec<Tap>> {
    let options = Options { offloads: kind.offloads(), header: HEADER, multi_queue: count > 1 };
    let queues = host.enter(|| (0..count).map(|_| Tap::open(name, options)).collect::<Result<_>>())?;
    host.ip(&format!("link set {name} address {} txqueuelen {} up", mac_text(GATEWAY_MAC), kind.queue()))?;
    Ok(queues)
}

/// A multiplier of linear congruential generators (Knuth's MMIX).
const LCG: u64 = 6_364_136_223_846_793_005;

/// Sends frames.
pub struct Writer<'w> {
    tap: &'w Tap,
    /// What makes of a frame the next one; `None`: they are all the same.
    next: Option<&'w Stream>,
    sent: Vec<u8>,
    random: u64,
}

impl<'w> Writer<'w> {
    /// One that begins anywhere.
    pub fn new(tap: &'w Tap, stream: &'w Stream, random: u64) -> Self {
        Self { tap, next: Some(stream), sent: stream.sent.clone(), random }
    }

    /// One that always sends the same.
    fn of_one(tap: &'w Tap, sent: Vec<u8>) -> Self {
        Self { tap, next: None, sent, random: 1 }
    }

    /// Sends one.
    pub fn send(&mut self) -> Result<()> {
        if let Some(stream) = self.next {
            self.random = self.random.wrapping_mul(LCG).wrapping_add(1);
            stream.advance(&mut self.sent, (self.random >> 32) as u32);
        }
        match self.tap.write_raw(&self.sent) {
            Ok(length) if length == self.sent.len() => Ok(()),
            Ok(length) => bail!("{} took {length} bytes of {}", self.tap.name(), self.sent.len()),
            Err(error) => Err(error).with_context(|| format!("cannot write to {}", self.tap.name())),
        }
    }
}

/// Receives frames.
pub struct Reader<'w> {
    queues: &'w [Tap],
    stream: &'w Stream,
    buffer: Vec<u8>,
    expected: Vec<u8>,
}

impl<'w> Reader<'w> {
    fn new(queues: &'w [Tap], stream: &'w Stream) -> Self {
        // One byte more than expected, so that a longer frame is noticed.
        let buffer = vec![0; HEADER + stream.expected.len() + 1];
        Self { queues, stream, buffer, expected: stream.expected.clone() }
    }

    /// Reads all that is there; how many of them were just so.
    pub fn drain(&mut self) -> Result<usize> {
        let mut count = 0;
        while let Some(expected) = self.receive()? {
            count += usize::from(expected);
        }
        Ok(count)
    }

    /// Reads one: whether it was what must arrive; `None` when none is there.
    pub fn receive(&mut self) -> Result<Option<bool>> {
        for tap in self.queues {
            let length = tap.read_raw(&mut self.buffer);
            let length = length.with_context(|| format!("cannot read from {}", tap.name()))?;
            if length > 0 {
                let read = self.buffer.get(HEADER..length).unwrap_or_default();
                return Ok(Some(self.stream.accepts(&mut self.expected, read)));
            }
        }
        Ok(None)
    }
}
