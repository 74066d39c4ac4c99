//! A real daemon whose fast path is taken off and put back under traffic: who may upload goes on, who may not never does,
//! and who floods takes nothing from others.

use crate::rig::global;
use anyhow::{Context, Result, ensure};
use dataplane_ebpf::abi::LINK_LOCALS;
use serde_json::Value;
use serval_tests::cloud::{address, endpoint, mac, name, plugged, running, subnet, tap};
use serval_tests::frame::{GATEWAY_MAC, Ipv6, Payload, addresses, link_local, multicast_mac};
use serval_tests::guest::{KernelGuest, RawGuest, dhclient};
use serval_tests::host::{Host, PATIENCE, wait};
use serval_tests::require_rig;
use serval_tests::stream::Stream;
use serval_tests::tap::{Offloads, Options};
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
    let log = "{action: Log, protocol: UDP}";
    let rules = format!("[{log}, {log}, {}, {}]", to("UDP"), to("TCP"));
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

/// Policy does not count; who a VM is does all the same.
#[test]
fn the_guard_stays_where_policy_does_not_count() -> Result<()> {
    require_rig!();
    let mut host = Host::new("nftguard")?;
    host.start()?;
    let [hostile, other] = [1, 2].map(|number| {
        host.put_endpoint(&endpoint(number))?;
        RawGuest::new(&host.namespace, &tap(number), mac(number), Options::default())
    });
    let (hostile, other) = (hostile?, other?);
    host.wait_state(&name(1), "up")?;
    host.wait_state(&name(2), "up")?;
    let receives = |what: &str| -> Result<()> {
        let from = |source: Ipv6Addr, port| {
            let headers = Ipv6 { source, destination: address(2), ..Ipv6::new(mac(1), GATEWAY_MAC) };
            headers.carrying(Payload::udp(port, 9, &[7; 64]))
        };
        let spoofed = address(3);
        hostile.send(&from(spoofed, 1))?;
        hostile.send(&from(address(1), 2))?;
        let (_, frame) = other.receive(what, |frame| {
            addresses(frame).is_some_and(|(source, destination)| {
                destination == address(2) && (source == spoofed || source == address(1))
            })
        })?;
        let source = addresses(&frame).map(|(source, _)| source);
        ensure!(source == Some(address(1)), "{what}: from {source:?}");
        Ok(())
    };
    receives("by the fast path")?;
    let detached = host.serval(&["detach"])?;
    ensure!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
    receives("detached by the daemon")?;
    host.stop()?;
    receives("without a daemon")?;
    host.start()?;
    host.wait_status("the fast path back", |status| {
        status.endpoint(&name(1)).is_some_and(|endpoint| endpoint.xdp() == "native")
    })?;
    host.kill()?;
    let detached = host.serval(&["detach"])?;
    ensure!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
    receives("detached without a daemon")
}

/// Attack cases 19, 24 and 38, without a fast path: a VM beside one that floods the host boots and is served.
#[test]
fn a_flood_takes_nothing_from_others() -> Result<()> {
    require_rig!();
    let scene = Scene::new("nftflood")?;
    let host = &scene.host;
    host.put("subnet.yaml", subnet().document())?;
    host.put_endpoint(&endpoint(3))?;
    host.put_endpoint(&endpoint(4))?;
    let hostile = RawGuest::new(&host.namespace, &tap(3), mac(3), Options::default())?;
    let guest = plugged(host, 4)?;
    host.wait_state(&name(3), "up")?;
    host.wait_state(&name(4), "up")?;
    scene.detach()?;

    let neighbours =
        || Ok::<_, anyhow::Error>(host.namespace.ip("-6 neighbour show nud all")?.lines().count());
    let before = neighbours()?;
    let frames = 3_000;
    for number in 0..frames {
        let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xbad, 0, number);
        // What the host answers whatever policy says, and what it tells that it goes beyond their scope.
        for destination in [link_local(GATEWAY_MAC), "2001:db8:ffff::1".parse()?] {
            let headers = Ipv6 { source, destination, hop_limit: 255, ..Ipv6::new(mac(3), GATEWAY_MAC) };
            hostile.send(&headers.carrying(Payload::udp(number, 53, b"x")))?;
        }
    }
    let all = "ff02::1:2".parse()?;
    let client = Ipv6 { destination_mac: multicast_mac(all), ..Ipv6::new(mac(3), GATEWAY_MAC) };
    let client = Ipv6 { source: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xbad, 0, 1), destination: all, ..client };
    for number in 0..frames {
        hostile.send(&client.clone().carrying(Payload::udp(546, 547, &number.to_be_bytes())))?;
    }
    let after = neighbours()?;
    let counted = |what: &str| -> Result<u64> {
        let rules = scene.rules()?.context("no rules")?;
        let line = rules.lines().filter(|line| line.contains(&format!("comment \"{what}\"")));
        let packets = line
            .filter_map(|line| line.split_once("counter packets ")?.1.split(' ').next()?.parse::<u64>().ok());
        Ok(packets.sum())
    };
    let (forged, handed) = (counted("too many link-local addresses")?, counted("limit of packets_for_host")?);
    println!("{before} neighbours, then {after}; dropped: {forged} by address, {handed} by number");
    // One for the address, and one for the group in which the kernel asks for it.
    ensure!(after <= before + 2 * LINK_LOCALS + 2, "{before} neighbours became {after}");
    ensure!(forged > 0 && handed > 0, "nothing was limited");

    guest.boot()?;
    let _client = dhclient(&guest)?;
    guest.wait_default_route(PATIENCE)?;
    guest.wait_address(address(4), Duration::from_secs(30))?;
    let stream = scene.stream(ALLOWED)?;
    stream.advance(STEP)?;
    stream.finish()?.complete()
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
        let logs = decisions.iter().filter(|decision| decision["action"] == "log").count();
        ensure!(logs == if allowed { 4 } else { 2 }, "port {port}: {said}");
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
