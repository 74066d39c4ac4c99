//! Small packets of another host to a VM: they enter by an uplink (a TAP) and leave by the VM's TAP. End to end, and
//! without the TAP that they are written into. Policy has let their flow pass, and the VM has answered.

use super::{packets, program};
use crate::carrier::{ARRIVING, Far, Setting};
use crate::report::Outcome;
use anyhow::Result;

pub const NAME: &str = "arrivals";

/// Runs the benchmark.
pub fn run(quick: bool) -> Result<Vec<Outcome>> {
    let setting = Setting { far: Far::Arrival, ..Setting::USUAL };
    let scale = if quick { (5, 5_000) } else { (25, 60_000) };
    let name = format!("{NAME}: end to end");
    let ends = "an uplink (a TAP) to a VM's TAP";
    let end_to_end = packets::between(&name, ends, program::KIND, ARRIVING, &setting, scale)?;
    let name = format!("{NAME}: {}", program::NAME);
    let to = "from an uplink (a TAP) to a VM's TAP that is full";
    Ok(vec![end_to_end, program::alone(&name, to, ARRIVING, &setting, quick)?])
}
