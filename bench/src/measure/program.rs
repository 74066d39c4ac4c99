//! What programs and kernel cost without the TAP that frames are written into: `BPF_PROG_TEST_RUN` with live frames
//! makes frames of its own, hands them to the program that is attached, and their way ends at a TAP that is full. The
//! generator is in every figure, so it flatters nobody against the kernel, and us against a bare redirect.

use super::stream::Kind;
use super::tally::Tally;
use super::wire::Wire;
use crate::bare::{self, FRAME_LEN};
use crate::carrier::{Path, SMALL, Setting};
use crate::cpu;
use crate::report::{Metric, Outcome};
use crate::rounds::{Measured, Work, interleave};
use crate::statistics::Better;
use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp};
use std::rc::Rc;

pub const NAME: &str = "program";

pub const METRICS: &[Metric] = &[Metric { name: "CPU a packet", unit: "ns", better: Better::Less }];

/// The frames that are made.
pub const KIND: Kind = Kind::Datagram(FRAME_LEN);
/// Frames that are made at a time, as many as a driver polls.
const BATCH: u32 = 64;
/// Frames that must come through before the TAP is filled.
const SAMPLE: u32 = 64;

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Vec<Outcome>> {
    let (rounds, frames) = if quick { (5, 20_000) } else { (25, 200_000) };
    let [cpu, _] = cpu::two()?;
    let mut arms = SMALL.arms(|carrier| {
        let wire = Rc::new(Wire::new(carrier, KIND, &Setting::USUAL)?);
        Ok(Box::new(Live::new(wire, frames, cpu)?))
    })?;
    let arms = interleave(NAME, &mut arms, rounds)?;
    let title =
        format!("{FRAME_LEN}-byte UDP frames, made by the kernel, to a TAP that is full, {frames} a round");
    Ok(vec![Outcome { name: NAME.to_owned(), title, metrics: METRICS, arms }])
}

/// The work of forwarding `frames` frames that the kernel makes.
pub struct Live {
    wire: Rc<Wire<Path>>,
    source: Ebpf,
    frames: u32,
    cpu: usize,
}

impl Live {
    /// Frames go where those of the wire go.
    pub fn new(wire: Rc<Wire<Path>>, frames: u32, cpu: usize) -> Result<Self> {
        Ok(Self { source: source(&wire)?, wire, frames, cpu })
    }

    /// Sends frames as if they came from the first TAP; the CPU time in ns.
    fn send(&mut self, frames: u32) -> Result<f64> {
        let program: &mut Xdp = bare::program(&mut self.source, "source")?;
        let (path, data) = (&self.wire.between, self.wire.stream.frame());
        let context = xdp_context(data.len(), path.ifindex[0]);
        let send = || {
            let mut options = TestRunOptions::new();
            options.data_in = Some(data);
            options.ctx_in = Some(&context);
            options.repeat = frames;
            options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
            let before = cpu::thread_time()?;
            program.test_run(options).context("live frames (kernel 5.18) do not work here")?;
            Ok(cpu::thread_time()? - before)
        };
        // The kernel looks the interface up in the caller's namespace.
        cpu::run_on(self.cpu, || path.host.enter(send))
    }
}

impl Work for Live {
    fn round(&mut self) -> Result<Measured> {
        if let Some(wrong) = self.wire.establish()? {
            return Ok(Measured::Rejected(wrong));
        }
        self.send(SAMPLE)?;
        let came = self.wire.drain()?;
        if came < SAMPLE as usize {
            return Ok(Measured::Rejected(format!("{came} of {SAMPLE} frames of a sample arrived exactly")));
        }
        self.send(KIND.queue() as u32)?;
        let tally = Tally::take(&self.wire.between)?;
        let cost = self.send(self.frames)?;
        let frames = u64::from(self.frames);
        if let Some(wrong) = tally.wrong(&self.wire.between, frames, frames)? {
            return Ok(Measured::Rejected(wrong));
        }
        Ok(Measured::Proven(vec![cost / f64::from(self.frames)]))
    }
}

/// The source of frames, which goes on with the XDP program that the carrier has attached.
fn source(wire: &Wire<Path>) -> Result<Ebpf> {
    let frame = wire.stream.frame().try_into().context("the source makes frames of another length")?;
    let links = wire.between.host.ip_json("link show dev tapa")?;
    let next = match links.pointer("/0/xdp/prog/id").and_then(|id| id.as_u64()) {
        Some(id) => Some(bare::program_by_id(id.try_into()?)?),
        None => None,
    };
    bare::load_source(frame, wire.stream.destinations(), next.as_ref())
}

/// The `xdp_md` of a frame: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn xdp_context(length: usize, ingress: u32) -> Vec<u8> {
    [0, length as u32, 0, ingress, 0, 0].iter().flat_map(|field| field.to_ne_bytes()).collect()
}
