//! What programs and kernel cost without the TAP that frames are written into: `BPF_PROG_TEST_RUN` with live frames
//! makes frames of its own, hands them to the program that is attached, and their way ends at a TAP that is full. The
//! generator is in every figure, so it flatters nobody against the kernel, and us against a bare redirect.

use super::wire::{Kind, Wire};
use crate::bare::{self, FRAME_LEN};
use crate::carrier::{Carrier, Hook};
use crate::cpu;
use crate::report::{Metric, Outcome};
use crate::rounds::{Arm, Measured, interleave};
use crate::statistics::Better;
use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp};

pub const NAME: &str = "program";

const ARMS: [(Carrier, Option<Carrier>); 5] = [
    (Carrier::Serval, Some(Carrier::BareXdp)),
    (Carrier::BareXdp, None),
    (Carrier::ServalTc, Some(Carrier::BareTc)),
    (Carrier::BareTc, None),
    (Carrier::Kernel, None),
];

const METRICS: &[Metric] = &[Metric { name: "CPU a packet", unit: "ns", better: Better::Less }];

const KIND: Kind = Kind::Datagram(FRAME_LEN);
/// Frames that are made at a time, as many as a driver polls.
const BATCH: u32 = 64;
/// Frames that must come through before the TAP is filled.
const SAMPLE: u32 = 64;

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Outcome> {
    let (rounds, frames) = if quick { (5, 20_000) } else { (25, 200_000) };
    let [cpu, _] = cpu::two()?;
    let mut arms = Vec::new();
    for (carrier, limit) in ARMS {
        let wire = Wire::new(carrier, KIND)?;
        let source = source(&wire)?;
        arms.push(Box::new(Live { wire, source, limit, frames, cpu }) as Box<dyn Arm>);
    }
    let arms = interleave(NAME, &mut arms, rounds)?;
    let title =
        format!("{FRAME_LEN}-byte UDP frames, made by the kernel, to a TAP that is full, {frames} a round");
    Ok(Outcome { name: NAME, title, metrics: METRICS, arms })
}

struct Live {
    wire: Wire,
    source: Ebpf,
    limit: Option<Carrier>,
    frames: u32,
    cpu: usize,
}

impl Arm for Live {
    fn name(&self) -> &'static str {
        self.wire.path.carrier.name()
    }

    fn limit(&self) -> Option<&'static str> {
        self.limit.map(Carrier::name)
    }

    fn round(&mut self) -> Result<Measured> {
        self.wire.drain()?;
        self.send(SAMPLE)?;
        let came = self.wire.drain()?;
        if came < SAMPLE as usize {
            return Ok(Measured::Rejected(format!("{came} of {SAMPLE} frames of a sample arrived exactly")));
        }
        self.send(KIND.queue() as u32)?;
        let before = self.wire.path.sent_on(Hook::First)?;
        let cost = self.send(self.frames)?;
        if let (Some(before), Some(after)) = (before, self.wire.path.sent_on(Hook::First)?)
            && after - before < u64::from(self.frames)
        {
            return Ok(Measured::Rejected(format!("the hook sent on {} of {}", after - before, self.frames)));
        }
        Ok(Measured::Proven(vec![cost / f64::from(self.frames)]))
    }
}

impl Live {
    /// Sends frames as if they came from the first TAP; the CPU time in ns.
    fn send(&mut self, frames: u32) -> Result<f64> {
        let program: &mut Xdp = bare::program(&mut self.source, "source")?;
        let context = xdp_context(self.wire.frame().len(), self.wire.path.ifindex[0]);
        let data = self.wire.frame();
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
        cpu::run_on(self.cpu, || self.wire.path.host.enter(send))
    }
}

/// The source of frames, which goes on with the XDP program that the carrier has attached.
fn source(wire: &Wire) -> Result<Ebpf> {
    let frame = wire.frame().try_into().context("the source makes frames of another length")?;
    let links = wire.path.host.ip_json("link show dev tapa")?;
    let next = match links.pointer("/0/xdp/prog/id").and_then(|id| id.as_u64()) {
        Some(id) => Some(bare::program_by_id(id.try_into()?)?),
        None => None,
    };
    bare::load_source(frame, next.as_ref())
}

/// The `xdp_md` of a frame: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn xdp_context(length: usize, ingress: u32) -> Vec<u8> {
    [0, length as u32, 0, ingress, 0, 0].iter().flat_map(|field| field.to_ne_bytes()).collect()
}
