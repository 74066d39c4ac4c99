//! What an operator sees of single packets: `serval monitor` while guests send them, `serval explain` before they do, and what
//! the rules of policy count.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use serval_tests::cloud::{address, endpoint, mac, name, running, subnet, tap};
use serval_tests::frame::{Frame, GATEWAY_MAC, Ipv6, Mac, Payload};
use serval_tests::guest::{KernelGuest, RawGuest};
use serval_tests::host::{Host, PATIENCE};
use serval_tests::process::Running;
use serval_tests::require_rig;
use serval_tests::tap::{Offloads, Options};
use serval_tests::wait::eventually;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Events as they come.
struct Monitor(Running);

impl Monitor {
    /// Listens. Whoever `provoke`s events until one is heard knows that it does.
    fn start(host: &Host, arguments: &[&str]) -> Result<Self> {
        let arguments = [&["monitor", "--json"], arguments].concat();
        Ok(Self(host.start_verb(&arguments)?))
    }

    fn events(&self) -> Result<Vec<Value>> {
        self.0.log().iter().map(|line| serde_json::from_str(line).context(line.clone())).collect()
    }

    /// Provokes events until there is one that `wanted` accepts.
    fn expect(
        &self,
        what: &str,
        provoke: impl Fn() -> Result<()>,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let found = eventually(what, PATIENCE, || {
            provoke()?;
            Ok(self.events()?.into_iter().find(&wanted))
        });
        found.with_context(|| self.0.log().join("\n"))
    }
}

fn host(label: &str) -> Result<Host> {
    let host = Host::started(label)?;
    host.put("subnet.yaml", subnet().document())?;
    Ok(host)
}

/// VM `number` as a harness, whose endpoint is up.
fn raw(host: &Host, number: u8) -> Result<RawGuest> {
    host.put_endpoint(&endpoint(number))?;
    let guest = RawGuest::new(&host.namespace, &tap(number), mac(number), Options::default())?;
    host.wait_state(&name(number), "up")?;
    Ok(guest)
}

/// A datagram from VM 1 to somewhere else.
fn datagram(source_mac: Mac) -> Frame {
    let destination = "2001:db8:ffff::1".parse().unwrap_or(address(9));
    Ipv6 { source: address(1), destination, ..Ipv6::new(source_mac, GATEWAY_MAC) }
        .carrying(Payload::udp(4000, 80, b"?"))
}

#[test]
fn what_the_guard_drops_is_seen_with_its_reason() -> Result<()> {
    require_rig!();
    let host = host("seen")?;
    let vm = raw(&host, 1)?;
    let monitor = Monitor::start(&host, &[])?;
    let other = Monitor::start(&host, &["vm2"])?;
    let event =
        monitor.expect("a drop", || vm.send(&datagram(mac(2))), |event| event["reason"] == "source_mac")?;
    println!("{event}");
    ensure!(event["kind"] == "dropped" && event["source"]["endpoint"] == "vm1");
    ensure!(event["source"]["address"] == address(1).to_string());
    ensure!(event["destination"]["address"] == "2001:db8:ffff::1");

    // A flood is told of, but not frame by frame, and all of it is counted.
    let before = host.endpoint("vm1")?.dropped_for("source_mac");
    for _ in 0..2_000 {
        vm.send(&datagram(mac(2)))?;
    }
    let dropped = eventually("all dropped", PATIENCE, || {
        let dropped = host.endpoint("vm1")?.dropped_for("source_mac") - before;
        Ok((dropped == 2_000).then_some(dropped))
    })?;
    let told = monitor.events()?.len();
    println!("{told} of more than {dropped} drops were told");
    ensure!(told < 1_000, "{told} events");
    ensure!(other.events()?.is_empty(), "vm2 has nothing to do with it");
    Ok(())
}

/// VMs 1 and 2, of which 1 may reach port 80 of 2 and nothing else.
struct Two {
    host: Host,
    guests: [KernelGuest; 2],
}

const POLICIES: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: { name: out }
spec:
  types: [Egress]
  egress: [{ action: Allow }]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: { name: web }
spec:
  types: [Ingress]
  ingress:
    - { action: Log, protocol: TCP, destination: { ports: [81] } }
    - { action: Allow, protocol: TCP, destination: { ports: [80] } }
    - { action: Deny, protocol: TCP, destination: { ports: [81] } }
";

impl Two {
    fn new(label: &str) -> Result<Self> {
        let mut host = Host::policed(label)?;
        host.put("policies.yaml", POLICIES)?;
        host.start()?;
        host.put("subnet.yaml", subnet().document())?;
        let guests = [running(&host, 1, Offloads::ALL)?, running(&host, 2, Offloads::ALL)?];
        Ok(Self { host, guests })
    }

    /// Whether VM 1 reaches a port of VM 2, where nobody listens: somebody refuses.
    fn reaches(&self, port: u16) -> Result<bool> {
        let to = SocketAddr::from((address(2), port));
        self.guests[0].namespace.enter(|| match TcpStream::connect_timeout(&to, Duration::from_millis(300)) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(true),
            Err(error) if error.kind() == ErrorKind::TimedOut => Ok(false),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(true),
        })
    }

    /// The answer of `serval explain` and what it says.
    fn explain(&self, arguments: &[&str]) -> Result<(bool, Value)> {
        let output = self.host.serval(&[&["explain", "--json"], arguments].concat())?;
        let value = serde_json::from_slice(&output.stdout);
        let value = value.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok((output.status.success(), value))
    }

    /// What a rule of policy `web` has counted.
    fn counted(&self, rule: u64) -> Result<Value> {
        let status = self.host.status()?;
        let rules = status.0["policies"].as_array().context("no rules")?;
        let found = rules.iter().find(|of| of["policy"] == "web" && of["rule"] == rule);
        found.cloned().with_context(|| format!("no rule {rule}: {rules:?}"))
    }
}

#[test]
fn what_policy_denies_is_seen_by_its_rule() -> Result<()> {
    require_rig!();
    let two = Two::new("denied")?;
    let monitor = Monitor::start(&two.host, &["--sample", "1", "vm2"])?;
    let denied = monitor.expect(
        "a denial",
        || two.reaches(81).map(drop),
        |event| event["kind"] == "denied" && event["rule"]["policy"] == "web",
    )?;
    println!("{denied}");
    ensure!(denied["rule"]["rule"] == 2 && denied["rule"]["tier"] == "default");
    ensure!(denied["rule"]["direction"] == "ingress" && denied["reason"] == "policy");
    ensure!(denied["source"]["endpoint"] == "vm1" && denied["destination"]["endpoint"] == "vm2");
    ensure!(denied["destination"]["port"] == 81 && denied["protocol"] == 6);

    let logged = monitor.expect(
        "what a rule logs",
        || two.reaches(81).map(drop),
        |event| event["kind"] == "logged",
    )?;
    ensure!(logged["rule"]["rule"] == 0, "{logged}");
    eventually("the log says it", PATIENCE, || {
        let line = two.host.log().into_iter().find(|line| line.contains("policy: logged"));
        Ok(line.filter(|line| line.contains("policy web, rule 0")))
    })?;

    let default = monitor.expect(
        "a denial by no rule",
        || two.reaches(82).map(drop),
        |event| event["kind"] == "denied" && event["destination"]["port"] == 82,
    )?;
    ensure!(default["rule"]["tier"] == "default" && default["rule"]["policy"].is_null(), "{default}");

    let allowed = monitor.expect(
        "a flow that begins",
        || two.reaches(80).map(drop),
        |event| event["kind"] == "allowed" && event["rule"]["policy"] == "web",
    )?;
    ensure!(allowed["rule"]["rule"] == 1, "{allowed}");
    Ok(())
}

#[test]
fn explanations_are_what_happens_and_leave_nothing() -> Result<()> {
    require_rig!();
    let two = Two::new("explain")?;
    let counters = || -> Result<(Value, Value, Value)> {
        let status = two.host.status()?;
        Ok((
            two.counted(1)?,
            two.counted(2)?,
            status.0["endpoints"][0]["counters"]["dropped"]["policy"].clone(),
        ))
    };
    let before = counters()?;
    for (port, rule) in [(80, Some(1)), (81, Some(2)), (82, None)] {
        let words = ["--from", "vm1", "--to", "vm2", "--port", &port.to_string()];
        let (allowed, explanation) = two.explain(&words)?;
        println!("{explanation}");
        ensure!(explanation["allowed"] == allowed && explanation["flow"] == "none");
        let decisions = explanation["decisions"].as_array().context("no decisions")?;
        ensure!(decisions[0]["rule"]["policy"] == "out" && decisions[0]["endpoint"] == "vm1");
        let last = decisions.last().context("no decision")?;
        ensure!(last["rule"]["rule"].as_u64() == rule && last["endpoint"] == "vm2", "{last}");
        if allowed {
            ensure!(explanation["next"]["endpoint"] == "vm2" && explanation["by"] == "fast");
        } else {
            ensure!(explanation["reason"] == "policy");
        }
        ensure!(allowed == (port == 80));
    }
    ensure!(counters()? == before, "something was counted: {before:?} -> {:?}", counters()?);
    eventually("port 80 is reached", PATIENCE, || Ok(two.reaches(80)?.then_some(())))?;
    for port in [81, 82] {
        ensure!(!two.reaches(port)?, "port {port} is reached");
    }

    // Each first packet, once, by its rule; SYNs that are sent again count again.
    let after = counters()?;
    println!("{before:?} -> {after:?}");
    ensure!(after.0["allowed"].as_u64() > before.0["allowed"].as_u64());
    ensure!(after.1["denied"].as_u64() > before.1["denied"].as_u64());

    // By address, from elsewhere, and what no VM may send.
    let (allowed, ping) = two.explain(&["--from", &address(1).to_string(), "--to", "vm2"])?;
    ensure!(!allowed && ping["decisions"].as_array().is_some_and(|all| all.len() == 2), "{ping}");
    let tunnel = ["--from", "vm1", "--to", "vm2", "--protocol", "UDP", "--port", "4789"];
    let (allowed, tunnel) = two.explain(&tunnel)?;
    ensure!(!allowed && tunnel["decisions"][0]["rule"]["tunnel"] == "VXLAN", "{tunnel}");
    let frame: String = datagram(mac(2)).bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let (allowed, spoofed) = two.explain(&["--frame", &frame, "--interface", &tap(1)])?;
    ensure!(!allowed && spoofed["reason"] == "source_mac", "{spoofed}");
    let output = two.host.serval(&["explain", "--from", "nobody", "--to", "vm2"])?;
    ensure!(String::from_utf8_lossy(&output.stderr).contains("neither an endpoint nor"));
    Ok(())
}

#[test]
fn a_monitor_without_a_daemon_says_so() -> Result<()> {
    require_rig!();
    let host = Host::new("unseen")?;
    let output = host.serval(&["monitor"])?;
    ensure!(output.status.code() == Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(error.contains("no daemon runs"), "{error}");
    Ok(())
}
