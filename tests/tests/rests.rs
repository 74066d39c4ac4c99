//! XDP rests on the TAP of a VM that sends long frames, and comes back when it is better off with it.

use anyhow::{Result, ensure};
use serval_tests::cloud::{address, name, running, subnet};
use serval_tests::host::Host;
use serval_tests::require_rig;
use serval_tests::stream::Stream;
use serval_tests::tap::Offloads;
use serval_tests::traffic::{iperf3, iperf3_server};
use std::thread;

/// Datagrams a second.
const RATE: u32 = 500;

fn wait_xdp(host: &Host, number: u8, xdp: &str) -> Result<()> {
    let of = name(number);
    let took = host.wait_status(&format!("xdp {xdp} on the TAP of {of}"), |status| {
        status.endpoint(&of).is_some_and(|endpoint| endpoint.xdp() == xdp)
    })?;
    println!("xdp {xdp} on the TAP of {of} after {took:?}");
    Ok(())
}

#[test]
fn xdp_rests_while_a_vm_sends_long_frames_and_nothing_is_lost() -> Result<()> {
    require_rig!();
    let host = Host::started("rests")?;
    host.put("subnet.yaml", subnet().document())?;
    let [busy, sink] = [running(&host, 1, Offloads::ALL)?, running(&host, 2, Offloads::ALL)?];
    let other = running(&host, 3, Offloads::NONE)?;
    let _server = iperf3_server(&sink.namespace)?;
    wait_xdp(&host, 1, "native")?;

    // What the busy VM sends to another meanwhile sees XDP go and come.
    let stream = Stream::start(&busy.namespace, &other.namespace, address(3), 7_000, RATE)?;
    thread::scope(|scope| {
        let bulk = scope.spawn(|| iperf3(&busy.namespace, address(2), 3));
        let rests = wait_xdp(&host, 1, "off");
        let bulk = bulk.join().expect("a thread that does not panic")?;
        println!("{:.2} Gbit/s", bulk.bits_per_second / 1e9);
        rests
    })?;
    let resting = host.endpoint(&name(1))?;
    ensure!((resting.state(), resting.tc()) == ("up", "tcx"), "{resting:?}");
    ensure!(resting.reason().contains("rests"), "it does not say why: {resting:?}");
    for quiet in [2, 3] {
        ensure!(host.endpoint(&name(quiet))?.xdp() == "native", "VM {quiet} sends no long frames");
    }

    wait_xdp(&host, 1, "native")?;
    stream.advance(u64::from(RATE))?;
    stream.finish()?.complete()?;
    let back = host.endpoint(&name(1))?;
    ensure!(back.reason().is_empty(), "{back:?}");
    ensure!(host.status()?.drift() == 0, "it is no drift that XDP rests");
    Ok(())
}

#[test]
fn xdp_stays_where_the_configuration_wants_it() -> Result<()> {
    require_rig!();
    let mut host = Host::new("stays")?;
    host.configure("[fastpath]\nxdp = \"native\"\n")?;
    host.start()?;
    host.put("subnet.yaml", subnet().document())?;
    let [busy, sink] = [running(&host, 1, Offloads::ALL)?, running(&host, 2, Offloads::ALL)?];
    let _server = iperf3_server(&sink.namespace)?;
    iperf3(&busy.namespace, address(2), 2)?;
    let endpoint = host.endpoint(&name(1))?;
    ensure!(endpoint.xdp() == "native", "{endpoint:?}");
    ensure!(endpoint.counter("deferred")? > 1_000, "no long frames: {endpoint:?}");
    Ok(())
}
