//! Where a run took place and what was measured: numbers without that say nothing.

use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs, process::Command};

/// The machine and the programs.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// Seconds since 1970.
    pub time: u64,
    /// Kernel release.
    pub kernel: String,
    /// CPU model.
    pub cpu: String,
    /// CPUs that we may use.
    pub cpus: usize,
    /// Load average over one minute before the first round: others that share the CPUs.
    pub load: String,
    /// Compiler of the BPF programs.
    pub compiler: String,
    /// Their linker.
    pub linker: String,
    /// Commit of the sources; with `+` when they were edited since.
    pub commit: String,
}

const UNKNOWN: &str = "unknown";

impl Machine {
    /// Asks around; what cannot be found out is `unknown`.
    pub fn here() -> Self {
        let told = |name: &str| env::var(name).unwrap_or_else(|_| UNKNOWN.to_owned());
        Self {
            time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            cpu: cpu_model(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            cpus: std::thread::available_parallelism().map_or(1, |count| count.get()),
            load: first_line("/proc/loadavg").split(' ').next().unwrap_or(UNKNOWN).to_owned(),
            compiler: told("SERVAL_BPF_COMPILER"),
            linker: told("SERVAL_BPF_LINKER"),
            commit: commit(),
        }
    }
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or(UNKNOWN).to_owned()
}

fn cpu_model(cpuinfo: &str) -> String {
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or(UNKNOWN, |(_, model)| model.trim()).to_owned()
}

fn commit() -> String {
    let git = |arguments: &[&str]| -> Option<String> {
        let output =
            Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return UNKNOWN.to_owned() };
    let edited = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|list| !list.is_empty());
    if edited { commit + "+" } else { commit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_model_is_found() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu\n";
        assert_eq!(cpu_model(text), "Some CPU @ 2 GHz");
        assert_eq!(cpu_model("processor: 0\n"), UNKNOWN);
    }
}
