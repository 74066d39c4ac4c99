//! The memory of the maps of a host's daemon, as the kernel counts it.

use crate::report::{Metric, Outcome, Round, Series};
use crate::statistics::Better;
use anyhow::{Context, Result};
use aya::maps::MapInfo;
use aya::programs::loaded_programs;
use serval_tests::host::Host;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

const METRICS: &[Metric] = &[Metric { name: "memory", unit: "MiB", better: Better::Less }];

/// How many maps are told by name: those that need most.
const TOLD: usize = 8;

/// A map.
pub struct Map {
    /// As the kernel knows it, which is cut to 15 characters.
    name: String,
    /// What the kernel has allocated for it.
    bytes: u64,
}

/// The maps of the daemon of a host and of the programs that it holds, the largest first.
pub fn maps(host: &Host) -> Result<Vec<Map>> {
    let mut maps = Vec::new();
    for id in ids(host.pid()?)? {
        let info = MapInfo::from_id(id).with_context(|| format!("cannot look at map {id}"))?;
        maps.push(Map { name: info.name_as_str().unwrap_or("?").to_owned(), bytes: memory(&info)? });
    }
    maps.sort_by_key(|map| std::cmp::Reverse(map.bytes));
    Ok(maps)
}

/// What they need, in all and each of the largest.
pub fn outcome(name: String, title: String, maps: &[Map]) -> Outcome {
    let all = Map { name: format!("all {} maps", maps.len()), bytes: maps.iter().map(|map| map.bytes).sum() };
    let series = |map: &Map| Series {
        rounds: vec![Round::proven(vec![map.bytes as f64 / f64::from(1 << 20)])],
        ..Series::alone(&map.name)
    };
    let arms = std::iter::once(&all).chain(maps.iter().take(TOLD)).map(series).collect();
    Outcome { name, title, metrics: METRICS, arms }
}

/// Ids of all maps that a process holds, itself or by a program.
fn ids(process: u32) -> Result<BTreeSet<u32>> {
    let directory = format!("/proc/{process}/fdinfo");
    let (mut maps, mut programs) = (BTreeSet::new(), BTreeSet::new());
    for entry in fs::read_dir(&directory).with_context(|| directory.clone())? {
        // A descriptor may be closed meanwhile.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        maps.extend(field(&text, "map_id").and_then(|id| u32::try_from(id).ok()));
        programs.extend(field(&text, "prog_id"));
    }
    // Programs of others may go while they are listed.
    for program in loaded_programs().filter_map(Result::ok) {
        if programs.contains(&u64::from(program.id())) {
            maps.extend(program.map_ids()?.unwrap_or_default());
        }
    }
    Ok(maps)
}

/// Bytes that the kernel has allocated for a map.
fn memory(map: &MapInfo) -> Result<u64> {
    let fd = map.fd().with_context(|| format!("cannot open map {}", map.id()))?;
    let path = Path::new("/proc/self/fdinfo").join(fd.as_fd().as_raw_fd().to_string());
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    field(&text, "memlock").with_context(|| format!("map {} without memlock: {text}", map.id()))
}

/// A field of a descriptor's information.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "pos:\t0\nmap_type:\t1\nmap_id:\t42\nmemlock:\t4096\n";
        assert_eq!(
            (field(text, "map_id"), field(text, "memlock"), field(text, "map")),
            (Some(42), Some(4096), None)
        );
    }

    #[test]
    fn all_maps_are_counted_and_the_largest_are_told() {
        let maps: Vec<Map> = (0..20).rev().map(|n| Map { name: format!("M{n}"), bytes: n << 20 }).collect();
        let outcome = outcome(String::new(), String::new(), &maps);
        let value = |at: usize| outcome.arms[at].rounds[0].values.as_ref().unwrap()[0];
        assert_eq!((outcome.arms[0].arm.as_str(), value(0)), ("all 20 maps", 190.0));
        assert_eq!((outcome.arms[1].arm.as_str(), value(1)), ("M19", 19.0));
        assert_eq!(outcome.arms.len(), 1 + TOLD);
    }
}
