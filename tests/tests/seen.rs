//! What an operator sees of single packets: `serval monitor`, while guests send them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use serval_tests::cloud::{address, endpoint, mac, name, subnet, tap};
use serval_tests::frame::{Frame, GATEWAY_MAC, Ipv6, Mac, Payload};
use serval_tests::guest::RawGuest;
use serval_tests::host::{Host, PATIENCE};
use serval_tests::process::Running;
use serval_tests::require_rig;
use serval_tests::tap::Options;
use serval_tests::wait::eventually;

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
