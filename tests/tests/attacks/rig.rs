//! A hostile VM 1, its neighbour VM 2, their host and the world; attacks by the tools that are made for them; and whether
//! anybody but the hostile VM has suffered. Policy does not count, so that nothing but the guard is in the way.

use anyhow::{Context, Result, ensure};
use serval_tests::cloud::{address, mac, name, running};
use serval_tests::fabric::{Fabric, UPLINK, WORLD};
use serval_tests::frame::mac_text;
use serval_tests::guest::KernelGuest;
use serval_tests::host::Host;
use serval_tests::netns::Namespace;
use serval_tests::tap::Offloads;
use serval_tests::traffic::ping;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

/// How long a tool may flood, and how long any may take to begin: Scapy is slow at that.
const FLOOD: &str = "timeout -s KILL 1.5";
const ONCE: &str = "timeout -s KILL 30";

/// Neighbours that the host may have after an attack: some of every interface. A table that overflows has 1,024.
const NEIGHBOURS: usize = 256;

/// What an attack is made by.
#[derive(Clone, Copy, Debug)]
pub enum Tool {
    /// A program that ends by itself. Placeholders: `GATEWAY`, `VICTIM`, `OWN`, `WORLD`, and MACs `GATEWAY_MAC`,
    /// `VICTIM_MAC`, `OWN_MAC`.
    Once(&'static str),
    /// A program that floods until it is ended.
    Flood(&'static str),
    /// Frames as Scapy writes them, with the same placeholders as strings. `eth` is the Ethernet header towards the router.
    Frames(&'static [&'static str]),
}

/// One attack by VM 1.
pub struct Attack {
    /// Numbers of the cases that it is an instance of.
    pub cases: &'static [u8],
    /// What must not succeed.
    pub name: &'static str,
    /// How it is tried.
    pub tool: Tool,
    /// Reasons for which frames are dropped.
    pub dropped: &'static [&'static str],
    /// Reasons for which some may be, by the tool's mood or speed.
    pub perhaps: &'static [&'static str],
}

/// The hostile VM, and all others.
pub struct Scene {
    pub fabric: Fabric,
    guests: [KernelGuest; 2],
}

/// What nobody but its owner may change.
#[derive(Debug, PartialEq, Eq)]
struct Belongings {
    victim: [String; 3],
    host: [String; 2],
}

impl Scene {
    pub fn new(label: &str) -> Result<Self> {
        let fabric = Fabric::started(label, 1)?;
        fabric.take_redirects(1)?;
        let host = fabric.host(1);
        let guests = [running(host, 1, Offloads::NONE)?, running(host, 2, Offloads::NONE)?];
        for (number, guest) in (1..).zip(&guests) {
            fabric.route(address(number), 1)?;
            guest.wait_link_local()?;
        }
        Ok(Self { fabric, guests })
    }

    pub fn host(&self) -> &Host {
        self.fabric.host(1)
    }

    pub fn hostile(&self) -> &KernelGuest {
        &self.guests[0]
    }

    pub fn victim(&self) -> &KernelGuest {
        &self.guests[1]
    }

    /// Makes the attack and wants nobody harmed and its frames dropped for the right reasons.
    pub fn withstands(&self, attack: &Attack) -> Result<()> {
        let before = (self.belongings()?, self.dropped(1)?, self.dropped(2)?);
        let sent = self.hostile().counts().from_vm.frames;
        let said = self.make(attack.tool)?;
        let frames = self.hostile().counts().from_vm.frames - sent;
        let grown = difference(&before.1, &self.dropped(1)?);
        println!("{:?} {}: {frames} frames, {grown:?}", attack.cases, attack.name);
        ensure!(frames > 0, "the tool has sent nothing: {said}");
        for reason in attack.dropped {
            ensure!(grown.contains_key(*reason), "nothing is dropped as {reason}: {grown:?}; {said}");
        }
        let expected = |reason: &str| attack.dropped.contains(&reason) || attack.perhaps.contains(&reason);
        let other = grown.keys().find(|reason| !expected(reason));
        ensure!(other.is_none(), "dropped for other reasons: {grown:?}");
        let innocent = difference(&before.2, &self.dropped(2)?);
        ensure!(innocent.is_empty(), "counted to the victim: {innocent:?}");
        self.unharmed()?;
        let after = self.belongings()?;
        ensure!(before.0 == after, "changed: {:?} -> {after:?}", before.0);
        Ok(())
    }

    /// Everybody but the hostile VM reaches everybody, and the host has no more neighbours than it needs.
    pub fn unharmed(&self) -> Result<()> {
        for (from, to) in [
            (&self.victim().namespace, WORLD),
            (&self.fabric.world, address(2)),
            (&*self.host().namespace, address(2)),
            (&self.victim().namespace, self.victim().gateway()),
        ] {
            echoes(from, to)?;
        }
        let neighbours = self.neighbours()?;
        ensure!(neighbours <= NEIGHBOURS, "{neighbours} neighbours");
        Ok(())
    }

    /// Neighbours that the host's kernel keeps, of all interfaces.
    pub fn neighbours(&self) -> Result<usize> {
        Ok(self.host().namespace.ip("-6 neighbour show nud all")?.lines().count())
    }

    /// Frames dropped of a VM, by reason.
    pub fn dropped(&self, number: u8) -> Result<BTreeMap<String, u64>> {
        let endpoint = self.host().endpoint(&name(number))?;
        let dropped = endpoint.0["counters"]["dropped"].as_object().context("no drops")?;
        Ok(dropped.iter().filter_map(|(reason, n)| Some((reason.clone(), n.as_u64()?))).collect())
    }

    /// Runs the tool in VM 1; what it said.
    fn make(&self, tool: Tool) -> Result<String> {
        match tool {
            Tool::Once(line) => self.run(&format!("{ONCE} {}", self.fill(line))),
            Tool::Flood(line) => self.run(&format!("{FLOOD} {}", self.fill(line))),
            Tool::Frames(frames) => {
                let frames: Vec<_> = frames.iter().map(|frame| self.fill(frame)).collect();
                let script = format!(
                    "from scapy.all import *\n\
                     eth = Ether(src='{}', dst='{}')\n\
                     sendp([{}], iface='eth0', verbose=False)\n",
                    mac_text(mac(1)),
                    mac_text(self.hostile().settings().gateway_mac),
                    frames.join(", ")
                );
                let mut command = self.hostile().namespace.command("timeout");
                command.args(["-s", "KILL", "30", "/usr/bin/python3", "-c", &script]);
                let output = command.output().context("cannot run Scapy")?;
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                ensure!(output.status.success(), "Scapy: {said}\n{script}");
                Ok(said)
            }
        }
    }

    /// How it ends does not matter: tools have their own ideas of success, and floods are ended.
    fn run(&self, line: &str) -> Result<String> {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let mut command = self.hostile().namespace.command(words[0]);
        command.args(&words[1..]);
        let output = command.output().with_context(|| format!("cannot run {line}"))?;
        let said = [output.stdout, output.stderr].concat();
        Ok(format!("{line}: {}: {}", output.status, String::from_utf8_lossy(&said)))
    }

    fn fill(&self, text: &str) -> String {
        let gateway = self.hostile().gateway();
        let gateway_mac = self.hostile().settings().gateway_mac;
        // Longer ones first.
        text.replace("GATEWAY_MAC", &mac_text(gateway_mac))
            .replace("VICTIM_MAC", &mac_text(mac(2)))
            .replace("OWN_MAC", &mac_text(mac(1)))
            .replace("GATEWAY", &gateway.to_string())
            .replace("VICTIM", &address(2).to_string())
            .replace("OWN_LINK", &self.hostile().link_local().to_string())
            .replace("OWN", &address(1).to_string())
            .replace("WORLD", &WORLD.to_string())
    }

    fn belongings(&self) -> Result<Belongings> {
        let (victim, host) = (&self.victim().namespace, &self.host().namespace);
        let gateway = self.victim().gateway();
        let neighbour = victim.ip(&format!("-6 neighbour show {gateway} dev eth0"))?;
        let words: Vec<_> = neighbour.split_ascii_whitespace().take_while(|word| *word != "router").collect();
        Ok(Belongings {
            victim: [
                // Without lifetimes and states, which go on by themselves.
                words.into_iter().filter(|word| word.contains(':')).collect::<Vec<_>>().join(" "),
                without_times(&victim.ip("-6 route show dev eth0")?),
                without_times(&victim.ip("-6 -o address show dev eth0")?),
            ],
            host: [
                without_times(&host.ip(&format!("-6 route show dev {UPLINK}"))?),
                without_times(&host.ip("-6 -o address show")?),
            ],
        })
    }
}

/// All of some echo requests are answered.
pub fn echoes(from: &Namespace, to: Ipv6Addr) -> Result<()> {
    let scoped = ping(from, to, 5, Duration::from_millis(20))?;
    ensure!(scoped.received == 5, "{} -> {to}: {scoped:?}", from.name());
    Ok(())
}

fn difference(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let grown = |(reason, n): (&String, &u64)| {
        let grown = n - before.get(reason).copied().unwrap_or_default();
        (grown > 0).then(|| (reason.clone(), grown))
    };
    after.iter().filter_map(grown).collect()
}

fn without_times(text: &str) -> String {
    let words = |line: &str| {
        let words = line.split_ascii_whitespace().filter(|word| !word.ends_with("sec"));
        words.collect::<Vec<_>>().join(" ")
    };
    text.lines().map(words).collect::<Vec<_>>().join("\n")
}
