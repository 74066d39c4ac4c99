//! Policy that changes under traffic, and a daemon that dies under it.

use super::rig::{Cloud, Who::Vm, set};
use anyhow::{Context, Result, ensure};
use serval_tests::cloud::{address, name};
use serval_tests::host::{PATIENCE, wait};
use serval_tests::require_rig;
use serval_tests::stream::Stream;
use serval_tests::tap::Offloads;
use serval_tests::wait::eventually;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

/// Datagrams a second.
const RATE: u32 = 2_000;

/// Datagrams that must come through in each state.
const STEP: u64 = 500;

const OPEN: (&str, &str, &str) =
    ("open", "all()", "types: [Ingress, Egress], ingress: [{ action: Allow }], egress: [{ action: Allow }]");

/// Policies with which UDP to port 7000 of VM 1 may pass, of several kinds.
const EQUAL: [(&str, &str, &str); 4] = [
    OPEN,
    (
        "open",
        "all()",
        "types: [Ingress, Egress], ingress: [{ action: Allow, source: { selector: \"vm == 'vm2'\" } }], egress: [{ action: Allow }]",
    ),
    (
        "open",
        "all()",
        "types: [Ingress, Egress], ingress: [{ action: Deny, protocol: UDP, destination: { ports: [7001] } }, { action: Allow }], egress: [{ action: Allow, destination: { nets: ['2001:db8::/32'] } }]",
    ),
    (
        "open",
        "all()",
        "types: [Ingress, Egress], ingress: [{ action: Allow, protocol: UDP }], egress: [{ action: Allow, protocol: UDP }]",
    ),
];

fn stream(cloud: &Cloud) -> Result<Stream> {
    let stream = Stream::start(cloud.namespace(Vm(2)), cloud.namespace(Vm(1)), address(1), 7_000, RATE)?;
    stream.advance(STEP)?;
    Ok(stream)
}

fn nothing_is_lost(label: &str, offloads: Offloads) -> Result<()> {
    let cloud = Cloud::new(label, 2, "", offloads, &[OPEN])?;
    let stream = stream(&cloud)?;
    for round in 0..3 {
        for (number, policy) in EQUAL.iter().enumerate() {
            // One more with each, by which is seen that it is in force; it is about nobody's traffic.
            let mark = format!("mark-{round}-{number}");
            set(cloud.host(), policy.0, policy.1, policy.2)?;
            cloud.change(1, &[(mark.as_str(), "all()", "order: 5000, types: [Ingress], ingress: [{ action: Deny, source: { nets: ['2001:db8:dead::/48'] } }]")], &[])?;
            stream.advance(100)?;
        }
    }
    let account = stream.finish()?;
    println!("{offloads:?}: 12 changes: {account}");
    account.complete()
}

#[test]
fn changes_lose_nothing_that_before_and_after_allow_at_xdp() -> Result<()> {
    require_rig!();
    nothing_is_lost("same-xdp", Offloads::NONE)
}

#[test]
fn changes_lose_nothing_that_before_and_after_allow_at_tc() -> Result<()> {
    require_rig!();
    nothing_is_lost("same-tc", Offloads::ALL)
}

#[test]
fn what_before_and_after_deny_never_passes() -> Result<()> {
    require_rig!();
    // Port 7002 is never open, whatever else is.
    let policies = |ports: &str, nets: &str| {
        format!(
            "types: [Ingress], ingress: [{{ action: Allow, protocol: UDP, source: {{ nets: ['{nets}'] }}, destination: {{ ports: [{ports}] }} }}]"
        )
    };
    let out = ("out", "all()", "types: [Egress], egress: [{ action: Allow }]");
    let (narrow, wide) =
        (policies("7000", "2001:db8:5e:1::/64"), policies("'7000:7001', '7003:9000'", "::/0"));
    let cloud = Cloud::new("never", 2, "", Offloads::NONE, &[out, ("in", "vm == 'vm1'", narrow.as_str())])?;
    let denied = super::rig::socket(cloud.namespace(Vm(1)), 7_002)?;
    let client = super::rig::socket(cloud.namespace(Vm(2)), 0)?;
    let allowed = stream(&cloud)?;
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let sender = scope.spawn(|| -> Result<u64> {
            let mut sent = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                client.send_to(b"never", (address(1), 7_002))?;
                sent += 1;
                std::thread::sleep(Duration::from_micros(500));
            }
            Ok(sent)
        });
        let changed = (0..20).try_for_each(|number| {
            let spec = if number % 2 == 0 { &wide } else { &narrow };
            set(cloud.host(), "in", "vm == 'vm1'", spec)?;
            let mark = format!("mark-{number}");
            cloud.change(1, &[(mark.as_str(), "vm == 'vm1'", "types: [Egress]")], &[])
        });
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let sent = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        println!("{sent} datagrams that nothing allows, 20 changes");
        changed
    })?;
    ensure!(super::rig::receive(&denied)?.is_none(), "a datagram passed that both policies deny");
    let account = allowed.finish()?;
    println!("what both allow: {account}");
    account.complete()
}

#[test]
fn a_flow_that_is_no_longer_allowed_stops_with_the_next_packet() -> Result<()> {
    require_rig!();
    for offloads in [Offloads::NONE, Offloads::ALL] {
        let cloud = Cloud::new("revoked", 2, "", offloads, &[OPEN])?;
        let udp = stream(&cloud)?;
        let listener = cloud.namespace(Vm(1)).enter(|| Ok(TcpListener::bind((address(1), 80))?))?;
        let mut client = cloud
            .namespace(Vm(2))
            .enter(|| Ok(TcpStream::connect_timeout(&(address(1), 80).into(), PATIENCE)?))?;
        let (mut server, _) = listener.accept()?;
        client.write_all(b"before")?;
        server.set_read_timeout(Some(PATIENCE))?;
        server.read_exact(&mut [0; 6])?;
        cloud.change(1, &[("other", "all()", "types: [Ingress, Egress]")], &["open"])?;
        // From here on not one passes.
        let before = (cloud.status(2)?.delivered()?, cloud.status(1)?.delivered()?);
        client.write_all(b"after")?;
        let dropped = cloud.status(2)?.dropped_for("policy");
        eventually("what is sent to be dropped", PATIENCE, || {
            Ok((cloud.status(2)?.dropped_for("policy") > dropped + STEP).then_some(()))
        })?;
        let refused = cloud.status(1)?.dropped_for("policy");
        server.write_all(b"answer")?;
        eventually("what is answered to be dropped, too", PATIENCE, || {
            Ok((cloud.status(1)?.dropped_for("policy") > refused).then_some(()))
        })?;
        let after = (cloud.status(2)?.delivered()?, cloud.status(1)?.delivered()?);
        ensure!(after == before, "{offloads:?}: packets passed after the change: {before:?} -> {after:?}");
        server.set_read_timeout(Some(Duration::from_millis(100)))?;
        ensure!(server.read(&mut [0; 6]).is_err(), "{offloads:?}: TCP went on");
        drop(udp.finish()?);
    }
    Ok(())
}

fn dies(label: &str, offloads: Offloads) -> Result<()> {
    let mut cloud = Cloud::new(label, 2, "", offloads, &[OPEN])?;
    let stream = stream(&cloud)?;
    cloud.fabric.host_mut(1).kill()?;
    stream.advance(STEP)?;
    let ready = cloud.fabric.host_mut(1).start()?;
    stream.advance(STEP)?;
    // What the earlier daemon left is swept when it is out of use.
    stream.advance(u64::from(RATE) * 2)?;
    let account = stream.finish()?;
    println!("{offloads:?}: killed, ready again after {} ms: {account}", ready.as_millis());
    account.complete()?;
    // The policy is in force, and counts.
    cloud.change(1, &[("other", "all()", "types: [Ingress, Egress]")], &["open"])?;
    cloud.is_dropped(Vm(2), Vm(1), 7_000, 2, "policy")
}

#[test]
fn a_daemon_that_dies_under_policy_loses_nothing_at_xdp() -> Result<()> {
    require_rig!();
    dies("dies-xdp", Offloads::NONE)
}

#[test]
fn a_daemon_that_dies_under_policy_loses_nothing_at_tc() -> Result<()> {
    require_rig!();
    dies("dies-tc", Offloads::ALL)
}

#[test]
fn policy_that_changed_while_nobody_looked_counts_from_the_start() -> Result<()> {
    require_rig!();
    let mut cloud = Cloud::new("unseen", 2, "", Offloads::NONE, &[OPEN])?;
    cloud.passes(Vm(2), Vm(1), 80)?;
    cloud.fabric.host_mut(1).kill()?;
    cloud.host().remove("open.yaml")?;
    cloud.passes(Vm(2), Vm(1), 80).context("policy does not outlive the daemon")?;
    cloud.fabric.host_mut(1).start()?;
    cloud.is_dropped(Vm(2), Vm(1), 80, 2, "policy")
}

fn pinned(cloud: &Cloud, map: &str) -> Result<PathBuf> {
    let pins = cloud.host().list_pins()?;
    let found = pins.into_iter().find(|pin| pin.ends_with(format!("maps/{map}")));
    found.with_context(|| format!("{map} is not pinned"))
}

/// Entries of maps as `bpftool` shows them.
fn entries(cloud: &Cloud, map: &str) -> Result<Vec<serde_json::Value>> {
    let path = pinned(cloud, map)?;
    let dump = cloud.host().namespace.run(&format!("bpftool -j map dump pinned {}", path.display()))?;
    Ok(serde_json::from_str(&dump)?)
}

#[test]
fn entries_that_somebody_deletes_are_put_back() -> Result<()> {
    require_rig!();
    let narrow = (
        "narrow",
        "all()",
        "types: [Ingress, Egress], ingress: [{ action: Allow, source: { selector: \"vm == 'vm2'\" } }], egress: [{ action: Allow }]",
    );
    let cloud = Cloud::new("drift", 2, "", Offloads::NONE, &[narrow])?;
    cloud.passes(Vm(2), Vm(1), 80)?;
    let drift = cloud.host().status()?.drift();
    for map in ["POLICIES", "CHAINS", "PEERS", "HOST_IDENTITIES", "STEPS"] {
        let before = entries(&cloud, map)?.len();
        ensure!(before > 0, "{map} is empty");
        let path = pinned(&cloud, map)?;
        for entry in entries(&cloud, map)? {
            let key = entry["key"].as_array().context("no key")?;
            let bytes: Vec<&str> = key.iter().filter_map(|byte| byte.as_str()).collect();
            cloud.host().namespace.run(&format!(
                "bpftool map delete pinned {} key hex {}",
                path.display(),
                hex(&bytes)
            ))?;
        }
        ensure!(entries(&cloud, map)?.is_empty(), "{map} is not empty");
    }
    // Found by the audit, every half minute.
    serval_tests::wait::every(
        Duration::from_millis(200),
        "the drift to be repaired",
        Duration::from_secs(60),
        || Ok((cloud.host().status()?.drift() > drift).then_some(())),
    )?;
    cloud.passes(Vm(2), Vm(1), 80)?;
    wait("a log line", || Ok(cloud.host().log().iter().any(|line| line.contains("policy: somebody else"))))?;
    ensure!(cloud.status(1)?.state() == "up", "{}", name(1));
    Ok(())
}

fn hex(bytes: &[&str]) -> String {
    bytes.iter().map(|byte| byte.trim_start_matches("0x")).collect::<Vec<_>>().join(" ")
}
