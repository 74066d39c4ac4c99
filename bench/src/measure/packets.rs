//! From TAP to TAP: small packets, where every one is work, and bulk data as guests send it, where copies are.

use super::flood::{Flood, METRICS};
use super::stream::Kind;
use super::wire::Wire;
use crate::carrier::{Contest, LARGE, SMALL, Setting};
use crate::cpu;
use crate::report::Outcome;
use crate::rounds::interleave;
use anyhow::Result;
use std::rc::Rc;

/// Name of the benchmark with small packets.
pub const PACKETS: &str = "packets";
/// Name of the benchmark with large ones.
pub const SEGMENTS: &str = "segments";

/// Small packets.
pub fn packets(quick: bool) -> Result<Vec<Outcome>> {
    let scale = if quick { (5, 5_000) } else { (25, 60_000) };
    Ok(vec![between(PACKETS, "TAP to TAP", Kind::Datagram(78), SMALL, &Setting::USUAL, scale)?])
}

/// Large ones. XDP cannot send such frames on, so all is up to TC.
pub fn segments(quick: bool) -> Result<Vec<Outcome>> {
    let scale = if quick { (5, 500) } else { (25, 3_000) };
    Ok(vec![between(SEGMENTS, "TAP to TAP", Kind::Segments(60_000), LARGE, &Setting::USUAL, scale)?])
}

/// Frames that are written to one TAP and read from the other; `ends`: what these are.
pub fn between(
    name: &str,
    ends: &str,
    kind: Kind,
    contest: Contest,
    setting: &Setting,
    (rounds, frames): (usize, usize),
) -> Result<Outcome> {
    let cpus = cpu::two()?;
    let mut arms = contest.arms(|carrier| {
        let wire = Rc::new(Wire::new(carrier, kind, setting)?);
        Ok(Box::new(Flood { wire, opening: None, frames, cpus }))
    })?;
    let arms = interleave(name, &mut arms, rounds)?;
    let what = match kind {
        Kind::Datagram(length) => format!("{length}-byte UDP frames"),
        Kind::Segments(length) => format!("TCP frames of {length} bytes to be cut into segments"),
        Kind::Handshake(_) => "TCP frames without data".to_owned(),
    };
    let title = format!("{what} from {ends}, {frames} a round, reader on another CPU");
    Ok(Outcome { name: name.to_owned(), title, metrics: METRICS, arms })
}
