//! BGP between the hosts of a [`Fabric`], as an operator sets it up: one set of Node resources for all hosts, and routers
//! that run a plain BIRD.

use crate::fabric::{Fabric, WORLD, host_address};
use crate::host::{Host, bgp_event};
use crate::leftovers;
use crate::netns::Namespace;
use crate::process::Running;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// The Node resource of host `number`, with labels, and `more` behind its address in `spec.bgp`.
pub fn node(host: &Host, number: u8, labels: &str, more: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{ name: {}, labels: {{ {labels} }} }}\nspec:\n  \
         bgp: {{ ipv6Address: '{}/64'{more} }}\n",
        host.node(),
        host_address(number)
    )
}

/// Node resources of hosts 1 to `count`.
pub fn nodes(fabric: &Fabric, count: u8) -> String {
    (1..=count).map(|number| node(fabric.host(number), number, "", "")).collect()
}

/// Gives all hosts the same configuration and the same resources of BGP.
pub fn share(fabric: &Fabric, configuration: &str, resources: &str) -> Result<()> {
    for host in fabric.hosts() {
        host.configure(configuration)?;
        host.put("bgp.yaml", resources)?;
    }
    Ok(())
}

/// The configuration of a router's BIRD that leads to the world, gives a default route, and has these `sessions`.
pub fn router(sessions: &str) -> String {
    format!(
        "router id 192.0.2.254;
         protocol device {{ }}
         protocol direct {{ ipv6; }}
         protocol kernel {{ ipv6 {{ import none; export where source = RTS_BGP; }}; }}
         protocol static internet {{ ipv6; route ::/0 via {WORLD}; }}
         {sessions}"
    )
}

/// A router's BIRD, with a configuration that is written by hand.
#[derive(Debug)]
pub struct Router<'a> {
    namespace: &'a Namespace,
    directory: TempDir,
    bird: Running,
}

impl<'a> Router<'a> {
    /// Starts BIRD in `namespace`; it answers when this returns.
    pub fn start(namespace: &'a Namespace, configuration: &str) -> Result<Self> {
        let directory = leftovers::directory(namespace.name())?;
        let file = directory.path().join("bird.conf");
        fs::write(&file, configuration)?;
        let mut command = namespace.command("bird");
        command.arg("-f").arg("-c").arg(file).arg("-s").arg(socket(&directory));
        let bird = Running::start(format!("BIRD of {}", namespace.name()), command)?;
        let mut router = Self { namespace, directory, bird };
        bgp_event("the router's BIRD", || {
            ensure!(router.bird.is_alive()?, "BIRD does not take its configuration: {:?}", router.bird.log());
            Ok(router.birdc("show status").is_ok())
        })?;
        Ok(router)
    }

    /// Runs `birdc`.
    pub fn birdc(&self, command: &str) -> Result<String> {
        self.namespace.run(&format!("birdc -s {} {command}", socket(&self.directory).display()))
    }

    /// Everything that neighbours have announced, sorted.
    pub fn heard(&self) -> Result<Vec<String>> {
        let routes = self.birdc("show route where source = RTS_BGP")?;
        // "2001:db8::1/128      unicast [leaf 09:12:57.340] * (100) [AS64512i]", then its next hop.
        let destinations = routes.lines().filter(|line| line.contains(" unicast ["));
        let mut destinations: Vec<String> =
            destinations.filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect();
        destinations.sort();
        destinations.dedup();
        Ok(destinations)
    }

    /// Waits until neighbours have announced exactly `destinations`, which are sorted; says how long that took.
    pub fn wait_heard(&self, destinations: &[&str]) -> Result<Duration> {
        let what = format!("{destinations:?} at the router");
        bgp_event(&what, || Ok(self.heard()? == destinations))
            .with_context(|| format!("{:?}", self.birdc("show protocols all")))
    }

    /// The process of BIRD, to stop and to end.
    pub fn process(&mut self) -> &mut Running {
        &mut self.bird
    }
}

fn socket(directory: &TempDir) -> PathBuf {
    directory.path().join("bird.ctl")
}
