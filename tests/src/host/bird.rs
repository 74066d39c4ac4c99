//! The BIRD that a host's daemon looks after: what it has learnt, with whom it speaks, and its death.

use super::Host;
use crate::wait::{eventually, every};
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long BGP may take: it connects again after some seconds, and this machine may be busy.
const BGP_PATIENCE: Duration = Duration::from_secs(60);

/// How often what BGP brings is looked at.
const BGP_PERIOD: Duration = Duration::from_millis(20);

impl Host {
    /// Runs `birdc` on the host's BIRD.
    pub fn birdc(&self, command: &str) -> Result<String> {
        self.namespace.run(&format!("birdc -s {} {command}", self.bird_file("bird.ctl").display()))
    }

    /// The process id of the host's BIRD.
    pub fn bird_pid(&self) -> Result<i32> {
        let text =
            fs::read_to_string(self.bird_file("bird.pid")).context("BIRD has written no process id")?;
        text.trim().parse().with_context(|| format!("BIRD has written the process id {text:?}"))
    }

    /// Kills BIRD as a crash would, and returns when it is dead.
    pub fn crash_bird(&self) -> Result<()> {
        let pid = self.bird_pid()?;
        kill(Pid::from_raw(pid), Signal::SIGKILL).context("cannot kill BIRD")?;
        eventually("the end of BIRD", super::PATIENCE, || {
            let state = fs::read_to_string(format!("/proc/{pid}/stat"));
            Ok(state.map_or(true, |stat| stat.contains(") Z ")).then_some(()))
        })
    }

    /// The kernel's routes of BIRD's to exactly `destination`; empty when there is none.
    pub fn learnt(&self, destination: impl ToString) -> Result<String> {
        let destination = destination.to_string();
        Ok(self.namespace.ip(&format!("-6 route show exact {destination} proto bird"))?.trim().to_owned())
    }

    /// All destinations that BIRD has put into the kernel, sorted.
    pub fn all_learnt(&self) -> Result<Vec<String>> {
        let routes = self.namespace.ip_json("-6 route show proto bird")?;
        let destinations = routes.as_array().into_iter().flatten().filter_map(|route| route["dst"].as_str());
        let mut destinations: Vec<String> = destinations.map(str::to_owned).collect();
        destinations.sort();
        Ok(destinations)
    }

    /// Waits until BIRD's route to `destination` is as `wanted`; says how long that took.
    pub fn wait_learnt(
        &self,
        destination: impl ToString,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Duration> {
        let destination = destination.to_string();
        let what = format!("{}: route to {destination}: {what}", self.node());
        bgp_event(&what, || Ok(wanted(&self.learnt(&destination)?))).with_context(|| {
            let said = ["show protocols all", "show route all"].map(|command| self.birdc(command));
            format!("{:?}\n{said:?}", self.namespace.ip("-6 route"))
        })
    }

    /// Waits until BIRD has a route to `destination`; says how long that took.
    pub fn wait_route(&self, destination: impl ToString) -> Result<Duration> {
        self.wait_learnt(destination, "learnt", |route| !route.is_empty())
    }

    /// Waits until BIRD has no route to `destination`; says how long that took.
    pub fn wait_no_route(&self, destination: impl ToString) -> Result<Duration> {
        self.wait_learnt(destination, "forgotten", str::is_empty)
    }

    /// Waits until the session with `peer` is established and no graceful restart is under way any more; says how long
    /// that took.
    pub fn wait_session(&self, peer: &str) -> Result<Duration> {
        self.wait_bird(&format!("a session with {peer}"), |bird| {
            bird["state"] == "up" && session(bird, peer).is_some_and(|peer| peer["state"] == "established")
        })
    }

    /// Waits until the daemon's account of BIRD is as `wanted`; says how long that took.
    pub fn wait_bird(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Duration> {
        bgp_event(what, || Ok(wanted(&self.bird()?)))
            .with_context(|| format!("{}: {:?}", self.node(), self.bird()))
    }

    /// The daemon's account of BIRD.
    pub fn bird(&self) -> Result<Value> {
        Ok(self.status()?.0["bird"].clone())
    }

    fn bird_file(&self, name: &str) -> PathBuf {
        self.directory.path().join("run/bird").join(name)
    }
}

/// Waits until `probe` holds, which is BGP's to bring about; says how long that took.
pub fn bgp_event(what: &str, mut probe: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let start = Instant::now();
    every(BGP_PERIOD, what, BGP_PATIENCE, || Ok(probe()?.then_some(())))?;
    Ok(start.elapsed())
}

/// A session in the daemon's account of BIRD.
pub fn session<'a>(bird: &'a Value, peer: &str) -> Option<&'a Value> {
    bird["peers"].as_array()?.iter().find(|session| session["name"] == peer)
}
