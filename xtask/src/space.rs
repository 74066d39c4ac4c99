//! Room on disk: a build that ends in the middle for want of it says so in the words of whichever program was writing.

use crate::run::Run;
use crate::workspace::target;
use anyhow::{Context, Result, bail};
use std::fs;

/// What all builds that the tests need take in the target directory: 4.8 GB were seen, and the tests write some more.
const WHOLE: u64 = 6_000_000_000;

/// Fails unless there is room for what the target directory does not have yet.
pub fn require() -> Result<()> {
    let target = target();
    fs::create_dir_all(&target).with_context(|| format!("cannot make {}", target.display()))?;
    let free = Run::new("df").args(["--output=avail", "--block-size=1"]).arg(&target).output();
    let used = Run::new("du").args(["--summarize", "--block-size=1"]).arg(&target).output();
    // Where these are not GNU's, cargo will tell.
    let (Ok(free), Ok(used)) = (free, used) else { return Ok(()) };
    let (Some(free), Some(used)) = (last_line(&free), first_word(&used)) else { return Ok(()) };
    if let Some(missing) = missing(free, used) {
        bail!(
            "{} is on a disk with {} free, and building all tests takes {} more there: make room, or set \
             CARGO_TARGET_DIR to a directory elsewhere",
            target.display(),
            gigabytes(free),
            gigabytes(free + missing)
        );
    }
    Ok(())
}

/// How much room is missing, if any is.
fn missing(free: u64, used: u64) -> Option<u64> {
    WHOLE.saturating_sub(used).checked_sub(free).filter(|missing| *missing > 0)
}

/// The figure below a heading, as `df` prints it.
fn last_line(text: &str) -> Option<u64> {
    text.lines().last()?.trim().parse().ok()
}

/// The figure before a name, as `du` prints it.
fn first_word(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_already_needs_no_room() {
        assert_eq!(missing(WHOLE, 0), None);
        assert_eq!(missing(1_000_000_000, 0), Some(WHOLE - 1_000_000_000));
        assert_eq!(missing(1_000_000_000, WHOLE - 1_000_000_000), None);
        assert_eq!(missing(0, 2 * WHOLE), None);
    }

    #[test]
    fn reads_df_and_du() {
        assert_eq!(last_line("    Avail\n79123456000"), Some(79_123_456_000));
        assert_eq!(first_word("5012345\t/a directory"), Some(5_012_345));
        assert_eq!(last_line("Avail"), None);
    }
}
