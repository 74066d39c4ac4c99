//! Frames that the kernel makes: `BPF_PROG_TEST_RUN` with live frames, which go on as if they came from a TAP, with the XDP
//! program that is attached there first.

use super::stream::From;
use crate::bare::{self, FRAME_LEN, Varies};
use crate::carrier::Path;
use crate::cpu;
use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp};
use serval_tests::netns::Namespace;
use std::sync::Arc;

/// Frames that are made at a time, as many as a driver polls.
const BATCH: u32 = 64;

/// A source of frames.
pub struct Source {
    host: Arc<Namespace>,
    object: Ebpf,
    program: &'static str,
    frame: Vec<u8>,
    context: Vec<u8>,
    cpu: usize,
}

impl Source {
    /// One of frames from what is at one end, which vary.
    pub fn new(path: &Path, from: From, frame: &[u8], varies: Varies, cpu: usize) -> Result<Self> {
        let end = usize::from(from == From::Far);
        let frame: &[u8; FRAME_LEN] =
            frame.try_into().context("the source makes frames of another length")?;
        let links = path.host.ip_json(&format!("link show dev {}", path.ends[end].tap))?;
        let next = match links.pointer("/0/xdp/prog/id").and_then(|id| id.as_u64()) {
            Some(id) => Some(bare::program_by_id(id.try_into()?)?),
            None => None,
        };
        let (object, program) = bare::load_source(frame, varies, next.as_ref())?;
        Ok(Self {
            host: Arc::clone(&path.host),
            object,
            program,
            frame: frame.to_vec(),
            context: xdp_context(frame.len(), path.ifindex[end]),
            cpu,
        })
    }

    /// Sends frames; the CPU time in ns.
    pub fn send(&mut self, frames: u32) -> Result<f64> {
        let program: &mut Xdp = bare::program(&mut self.object, self.program)?;
        let (data, context) = (&self.frame, &self.context);
        let send = || {
            let mut options = TestRunOptions::new();
            options.data_in = Some(data);
            options.ctx_in = Some(context);
            options.repeat = frames;
            options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
            let before = cpu::thread_time()?;
            program.test_run(options).context("live frames (kernel 5.18) do not work here")?;
            Ok(cpu::thread_time()? - before)
        };
        // The kernel looks the interface up in the caller's namespace.
        cpu::run_on(self.cpu, || self.host.enter(send))
    }
}

/// The `xdp_md` of a frame: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn xdp_context(length: usize, ingress: u32) -> Vec<u8> {
    [0, length as u32, 0, ingress, 0, 0].iter().flat_map(|field| field.to_ne_bytes()).collect()
}
