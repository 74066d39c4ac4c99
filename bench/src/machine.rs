//! Where a run took place and what was measured: numbers without that say nothing.

use crate::report::schema::Environment;
use jiff::Timestamp;
use std::{env, fs, process::Command};

const UNKNOWN: &str = "unknown";

/// Asks around; what cannot be found out is `unknown`. The load after the run is not known yet.
pub fn environment() -> Environment {
    let told = |name: &str| env::var(name).unwrap_or_else(|_| UNKNOWN.to_owned());
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (commit, dirty) = commit();
    Environment {
        date: format!("{:.0}", Timestamp::now()),
        commit,
        dirty,
        command: env::var("SERVAL_BENCH_COMMAND").unwrap_or_else(|_| own_command()),
        kernel: read("/proc/sys/kernel/osrelease").lines().next().unwrap_or(UNKNOWN).to_owned(),
        cpu: cpu_model(&read("/proc/cpuinfo")),
        cpus: std::thread::available_parallelism().map_or(1, |count| count.get()),
        memory: memory(&read("/proc/meminfo")),
        compiler: told("SERVAL_BPF_COMPILER"),
        linker: told("SERVAL_BPF_LINKER"),
        load_before: load(),
        load_after: None,
    }
}

/// Load average over one minute.
pub fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

fn own_command() -> String {
    env::args_os().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn cpu_model(cpuinfo: &str) -> String {
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or(UNKNOWN, |(_, model)| model.trim()).to_owned()
}

/// Of the machine, in MiB.
fn memory(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(kib.trim().trim_end_matches(" kB").parse::<u64>().ok()? / 1024)
}

/// The commit of the sources, and whether they were edited since.
fn commit() -> (String, bool) {
    let git = |arguments: &[&str]| -> Option<String> {
        let output =
            Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return (UNKNOWN.to_owned(), false) };
    let edited = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|list| !list.is_empty());
    (commit, edited)
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

    #[test]
    fn memory_is_found() {
        assert_eq!(memory("MemTotal:       24689880 kB\nMemFree: 1 kB\n"), Some(24111));
        assert_eq!(memory(""), None);
    }
}
