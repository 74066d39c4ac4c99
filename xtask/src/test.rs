//! `cargo xtask test`: every test that this user and machine can run, and a last line that says what that was.

use crate::build::{self, cargo};
use crate::setup::setup;
use crate::space;
use crate::workspace::is_root;
use anyhow::{Result, bail};
use std::time::Instant;

#[derive(clap::Args)]
pub struct Arguments {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// What the test runner takes
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Root sets up, builds and runs all tests. Anyone else runs those that need neither root nor a compiler for BPF.
pub fn test(arguments: &Arguments) -> Result<()> {
    let whole = is_root();
    let run = if whole {
        space::require()?;
        setup()?;
        build::build()?.tell(cargo("test"))
    } else {
        cargo("test").args(["--exclude", "serval-tests"])
    };
    let run =
        run.args(["--workspace", "--no-fail-fast"]).args(&arguments.filter).arg("--").args(&arguments.rest);

    let started = Instant::now();
    let mut tally = Tally::default();
    let success = run.run_seen(|line| tally.see(line))?;
    let Tally { suites, passed, failed, ignored } = tally;

    let scope = if whole {
        "host, kernel and network namespaces"
    } else {
        "host only; those on the kernel and in network namespaces are left out: they need root"
    };
    let seconds = started.elapsed().as_secs();
    println!(
        "\ntests ({scope}): {passed} passed, {failed} failed, {ignored} ignored in {suites} suites, {seconds} s"
    );
    if !success {
        bail!("not all tests passed");
    }
    if passed == 0 {
        bail!("no test has run: none is named like that");
    }
    Ok(())
}

/// Sums of the `test result:` lines.
#[derive(Default, Debug, PartialEq)]
struct Tally {
    suites: u32,
    passed: u32,
    failed: u32,
    ignored: u32,
}

impl Tally {
    fn see(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        self.suites += 1;
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u32>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => (),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_up_what_the_runner_prints() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test a ... ok",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        ] {
            tally.see(line);
        }
        assert_eq!(tally, Tally { suites: 2, passed: 4, failed: 2, ignored: 1 });
    }
}
