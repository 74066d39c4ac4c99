//! The rules of `plan::nftables` in the kernel: one table of ours, replaced as a whole in one transaction.
//!
//! Touches that table, in the network namespace of the calling thread. Runs `nft`, which is the front end of libnftables:
//! of the crates, `nftables` runs `nft` too and adds a second language to its first, `rustables` is under the GPL, and
//! `nftnl` leaves the making of every expression to its user, sets with intervals and concatenations among them. Blocks
//! until `nft` has ended.

use crate::plan::nftables::{Generation, Ruleset, TABLE};
use std::io::{self, ErrorKind, Write};
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where `nft` is, first by PATH: that of a service need not have /usr/sbin.
const PROGRAMS: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// Why the kernel does not have the rules.
#[derive(Debug, thiserror::Error)]
pub enum NftablesError {
    /// There is no `nft`.
    #[error("no nft is installed, by which policy is kept up without BPF; install nftables")]
    Absent,
    /// It cannot be run.
    #[error("cannot run nft: {0}")]
    Execute(#[source] io::Error),
    /// It does not take the rules. Those from before stay.
    #[error("nft refuses to {what}: {reason}")]
    Refused {
        /// What it was to do.
        what: &'static str,
        /// Its own words.
        reason: String,
    },
}

/// Our table in the kernel, as it was left.
#[derive(Debug, Default)]
pub struct Nftables {
    written: Option<Written>,
    /// The latest generation that was in effect, also when the table has gone since.
    last: Option<Generation>,
}

/// What was written, and how the kernel tells it.
#[derive(Debug)]
struct Written {
    ruleset: Ruleset,
    listing: String,
}

impl Nftables {
    /// Brings the kernel to `ruleset`; whether something was written. What others did to the table since is not looked
    /// at: see [`Self::verify`].
    pub fn apply(&mut self, ruleset: &Ruleset) -> Result<bool, NftablesError> {
        if self.written.as_ref().is_some_and(|written| written.ruleset == *ruleset) {
            return Ok(false);
        }
        let before = list()?;
        self.write(ruleset, before.as_deref())?;
        Ok(true)
    }

    /// Sees that the kernel still has what was written last, and writes it again if not; whether that was necessary.
    pub fn verify(&mut self) -> Result<bool, NftablesError> {
        let Some(written) = &self.written else { return Ok(false) };
        let listing = list()?;
        if listing.as_deref() == Some(written.listing.as_str()) {
            return Ok(false);
        }
        let ruleset = written.ruleset.clone();
        self.write(&ruleset, listing.as_deref())?;
        Ok(true)
    }

    /// Takes the table away; whether there was one. Without `nft` there is none.
    pub fn remove(&mut self) -> Result<bool, NftablesError> {
        self.written = None;
        let listing = match list() {
            Ok(Some(listing)) => listing,
            Ok(None) | Err(NftablesError::Absent) => return Ok(false),
            Err(error) => return Err(error),
        };
        self.last = Generation::of_listing(&listing).or(self.last);
        run("take the table away", &["-f", "-"], &format!("delete table ip6 {TABLE}\n"))?;
        Ok(true)
    }

    fn write(&mut self, ruleset: &Ruleset, before: Option<&str>) -> Result<(), NftablesError> {
        // A clock before 1970 is as good as any other.
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let last = before.and_then(Generation::of_listing).or(self.last);
        let generation = Generation::at(seconds, last);
        run("write the rules", &["-f", "-"], &ruleset.text(generation))?;
        self.last = Some(generation);
        self.written = None;
        let listing = list()?.unwrap_or_default();
        self.written = Some(Written { ruleset: ruleset.clone(), listing });
        Ok(())
    }
}

/// The table as the kernel has it, without what it counts; `None` when it has none.
fn list() -> Result<Option<String>, NftablesError> {
    let tables = run("list tables", &["list", "tables", "ip6"], "")?;
    let ours = format!("table ip6 {TABLE}");
    if !tables.lines().any(|line| line.trim() == ours) {
        return Ok(None);
    }
    let listing = run("list the rules", &["--stateless", "--numeric", "list", "table", "ip6", TABLE], "")?;
    Ok(Some(without_learned(&listing)))
}

/// A listing without the elements of dynamic sets, which packets put there.
fn without_learned(listing: &str) -> String {
    let (mut is_dynamic, mut is_learned) = (false, false);
    let mut kept = String::new();
    for line in listing.lines() {
        match line.trim_start() {
            "}" => (is_dynamic, is_learned) = (false, false),
            flags if flags.starts_with("flags ") => is_dynamic = flags.contains("dynamic"),
            elements if elements.starts_with("elements = ") => is_learned = is_dynamic,
            _ => {}
        }
        if !is_learned {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

fn run(what: &'static str, arguments: &[&str], input: &str) -> Result<String, NftablesError> {
    let mut absent = NftablesError::Absent;
    for program in PROGRAMS {
        match execute(program, arguments, input) {
            Ok(output) if output.status.success() => {
                return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
            }
            Ok(output) => {
                let reason = String::from_utf8_lossy(&output.stderr);
                // The first line is the error; those after it show the place in a text that nobody has.
                let reason = reason.lines().next().unwrap_or("no reason is given").to_owned();
                return Err(NftablesError::Refused { what, reason });
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => absent = NftablesError::Execute(error),
        }
    }
    Err(absent)
}

fn execute(program: &str, arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            // It has ended before it read all, and says why.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            other => other?,
        }
    }
    // All of the input is written before any output is read: nft says nothing before it has read to the end.
    child.wait_with_output()
}

#[cfg(test)]
mod tests {
    use super::without_learned;

    #[test]
    fn what_packets_put_into_sets_is_no_change() {
        let listing = |learned: &str| {
            format!(
                "table ip6 serval {{\n\tset here {{\n\t\ttype ipv6_addr\n\t\telements = {{ 2001:db8::1,\n\t\t\t     \
                 2001:db8::2 }}\n\t}}\n\n\tset seen {{\n\t\ttype ipv6_addr\n\t\tflags dynamic,timeout\n\t\ttimeout 1m\n\
                 {learned}\t}}\n\n\tchain a {{\n\t\taccept\n\t}}\n}}\n"
            )
        };
        let clean = listing("");
        assert_eq!(without_learned(&clean), clean);
        let learned = listing("\t\telements = { fe80::1 expires 50s,\n\t\t\t     fe80::2 expires 51s }\n");
        assert_eq!(without_learned(&learned), clean);
    }
}
