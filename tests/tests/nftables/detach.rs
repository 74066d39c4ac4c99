//! A real daemon whose fast path is taken off and put back under traffic: who may upload goes on, who may not never does.

use crate::rig::global;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use serval_tests::cloud::{address, name, running};
use serval_tests::guest::KernelGuest;
use serval_tests::host::{Host, wait};
use serval_tests::require_rig;
use serval_tests::stream::Stream;
use serval_tests::tap::Offloads;
use serval_tests::wait::timed;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Datagrams that must come through in each state.
const STEP: u64 = 300;
/// Datagrams a second.
const RATE: u32 = 1_000;

const ALLOWED: u16 = 7_000;
const DENIED: u16 = 7_001;

/// What is allowed to begin: datagrams and connections to one port.
fn policy(port: u16) -> String {
    let to = |protocol| format!("{{action: Allow, protocol: {protocol}, destination: {{ports: [{port}]}}}}");
    let rules = format!("[{}, {}]", to("UDP"), to("TCP"));
    global("ports", &format!("{{ingress: {rules}, egress: {rules}}}"))
}

/// A host with two VMs under [`policy`].
struct Scene {
    host: Host,
    guests: [KernelGuest; 2],
}

impl Scene {
    fn new(label: &str) -> Result<Self> {
        let mut host = Host::policed(label)?;
        host.put("policy.yaml", policy(ALLOWED))?;
        host.start()?;
        let guests = [running(&host, 1, Offloads::ALL)?, running(&host, 2, Offloads::ALL)?];
        Ok(Self { host, guests })
    }

    fn stream(&self, port: u16) -> Result<Stream> {
        let [from, to] = &self.guests;
        Stream::start(&from.namespace, &to.namespace, address(2), port, RATE)
    }

    fn detach(&self) -> Result<()> {
        let detached = self.host.serval(&["detach"])?;
        ensure!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
        ensure!(self.rules()?.is_some(), "no rules in place of the fast path");
        Ok(())
    }

    /// Starts the daemon; the fast path is back and the rules are gone.
    fn attach(&mut self) -> Result<()> {
        self.host.start()?;
        self.host.wait_status("the fast path back", |status| {
            status.endpoint(&name(1)).is_some_and(|endpoint| endpoint.xdp() == "native")
        })?;
        wait("the rules gone", || Ok(self.rules()?.is_none())).map(drop)
    }

    /// Our table, if there is one.
    fn rules(&self) -> Result<Option<String>> {
        let all = self.host.namespace.run("nft list ruleset")?;
        Ok(all.contains("table ip6 serval").then_some(all))
    }
}

#[test]
fn detaching_changes_speed_not_security() -> Result<()> {
    require_rig!();
    let mut scene = Scene::new("nftdetach")?;
    ensure!(scene.rules()?.is_none(), "rules beside the fast path");
    let (allowed, denied) = (scene.stream(ALLOWED)?, scene.stream(DENIED)?);
    let upload = Upload::start(&scene.guests, address(2), ALLOWED)?;
    let everybody = |what: &'static str| -> Result<()> {
        allowed.advance(STEP).context(what)?;
        println!("{what}: the connection goes on after {:?}", upload.advance(STEP / 10).context(what)?);
        Ok(())
    };
    everybody("by the fast path")?;
    scene.detach()?;
    everybody("detached by the daemon")?;
    scene.host.stop()?;
    everybody("without a daemon")?;
    scene.attach()?;
    everybody("by the fast path again")?;
    scene.host.kill()?;
    scene.detach()?;
    everybody("detached without a daemon")?;
    scene.attach()?;
    everybody("by the fast path once more")?;

    let bytes = upload.finish()?;
    let accounts = Stream::finish_all([allowed, denied])?;
    let [allowed, denied] = accounts.as_slice() else { unreachable!("two streams") };
    println!("allowed: {allowed}\ndenied: {denied}\na connection: {bytes} bytes");
    ensure!(denied.sent > 0 && denied.received == 0, "denied datagrams arrived: {denied}");
    allowed.complete()
}

#[test]
fn what_rules_do_is_explained() -> Result<()> {
    require_rig!();
    let scene = Scene::new("nftexplain")?;
    scene.detach()?;
    let explain = |arguments: &[&str]| -> Result<(bool, Value)> {
        let output = scene.host.serval(&[&["explain", "--json", "--from", "vm1"], arguments].concat())?;
        let said = serde_json::from_slice(&output.stdout);
        let said = said.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok((output.status.success(), said))
    };
    for port in [ALLOWED, DENIED] {
        let (allowed, said) = explain(&["--to", "vm2", "--protocol", "UDP", "--port", &port.to_string()])?;
        ensure!(said["judge"] == "nftables" && allowed == (port == ALLOWED), "port {port}: {said}");
        let decisions = said["decisions"].as_array().context("no decisions")?;
        let last = decisions.last().context("no decision")?;
        let (endpoint, policy) = (&last["endpoint"], &last["rule"]["policy"]);
        // What nothing allows ends where it begins.
        let judge = if allowed { "vm2" } else { "vm1" };
        ensure!(endpoint == judge && policy.is_null() == (port == DENIED), "port {port}: {said}");
        // It is what happens.
        let stream = scene.stream(port)?;
        if allowed {
            stream.advance(STEP)?;
        }
        let account = stream.finish()?;
        ensure!((account.received > 0) == allowed, "port {port}: {account}");
    }
    let gateway = scene.host.serval(&["endpoints", "--json"])?;
    let gateway: Value = serde_json::from_slice(&gateway.stdout)?;
    let gateway = gateway[0]["attached"]["gateway"].as_str().context("no gateway")?;
    let (allowed, said) = explain(&["--to", gateway, "--port", "22"])?;
    ensure!(!allowed && said["reason"] == "host_closed", "{said}");
    let (allowed, said) = explain(&["--to", gateway, "--protocol", "UDP", "--port", "53"])?;
    ensure!(allowed, "{said}");
    Ok(())
}

#[test]
fn rules_follow_documents() -> Result<()> {
    require_rig!();
    let scene = Scene::new("nftfollow")?;
    scene.detach()?;
    let allowed = scene.stream(ALLOWED)?;
    allowed.advance(STEP)?;
    scene.host.put("policy.yaml", policy(DENIED))?;
    let port = format!("dport {DENIED}");
    wait("rules for the other port", || Ok(scene.rules()?.is_some_and(|rules| rules.contains(&port))))?;
    let newly = scene.stream(DENIED)?;
    newly.advance(STEP)?;
    let accounts = Stream::finish_all([allowed, newly])?;
    println!("no longer allowed: {}\nnewly allowed: {}", accounts[0], accounts[1]);
    let last = accounts[0].missing.last().context("a revoked flow went on")?;
    ensure!(*last.end() + 1 == accounts[0].sent, "a revoked flow went on");
    accounts[1].complete()
}

/// Bytes over one TCP connection, by the side that has begun it.
struct Upload {
    stop: Arc<AtomicBool>,
    arrived: Arc<AtomicU64>,
    client: JoinHandle<Result<()>>,
    server: JoinHandle<Result<()>>,
}

impl Upload {
    fn start([from, to]: &[KernelGuest; 2], address: Ipv6Addr, port: u16) -> Result<Self> {
        let (stop, arrived) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let listener = to.namespace.enter(|| Ok(TcpListener::bind((address, port))?))?;
        let counter = Arc::clone(&arrived);
        let server = thread::spawn(move || {
            let mut peer = listener.accept()?.0;
            let mut bytes = [0; 1024];
            loop {
                match peer.read(&mut bytes)? {
                    0 => return Ok(()),
                    count => counter.fetch_add(count as u64, Ordering::Relaxed),
                };
            }
        });
        let mut peer = from.namespace.enter(|| Ok(TcpStream::connect((address, port))?))?;
        let flag = Arc::clone(&stop);
        let client = thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                peer.write_all(&[1])?;
                thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        });
        Ok(Self { stop, arrived, client, server })
    }

    /// Waits for so many more bytes; says how long that took. Whatever is lost while hooks come one by one is sent again
    /// ever more seldom.
    fn advance(&self, count: u64) -> Result<Duration> {
        let goal = self.arrived.load(Ordering::Relaxed) + count;
        let arrived = || Ok((self.arrived.load(Ordering::Relaxed) >= goal).then_some(()));
        Ok(timed("the connection goes on", Duration::from_secs(90), arrived)?.1)
    }

    /// Ends it; how many bytes arrived.
    fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in [self.client, self.server] {
            thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok(self.arrived.load(Ordering::Relaxed))
    }
}
