//! Routes of BIRD's that somebody else takes from the kernel, or adds under its name: seen, told, and put right.

use super::rig::{Host, PATIENCE, hosts, nodes};
use anyhow::{Context, Result, ensure};
use serval::apply::bird::{Applied, BirdState, BirdStatus, KernelStatus};
use serval_tests::process::Running;
use serval_tests::require_rig;
use serval_tests::wait::eventually;
use std::fs;
use std::time::Duration;

fn kernel(status: &BirdStatus) -> KernelStatus {
    status.kernel.clone().unwrap_or_default()
}

/// Waits until both tables agree, and as many differences have been found as are said.
fn agreed(host: &mut Host, drift: u64) -> Result<Duration> {
    host.wait(&format!("agreement after {drift} differences"), |status| {
        kernel(status).differing == 0 && kernel(status).drift >= drift
    })
}

/// Waits for one of BIRD's scans of the kernel's table: what comes after it stays until the next, 20 s later.
fn scanned(host: &Host) -> Result<()> {
    host.namespace.ip("-6 route add 2001:db8::77 via fd00::77 dev up0 proto bird metric 32")?;
    host.wait_route("2001:db8::77", false).map(drop)
}

/// Sends ten packets a second from one host to an address.
fn traffic(from: &Host, to: &str) -> Result<Running> {
    let mut command = from.namespace.command("ping");
    command.args(["-i", "0.1", "-O", to]);
    let ping = Running::start(format!("ping to {to}"), command)?;
    ping.wait_line(PATIENCE, |line| line.contains("bytes from"))?;
    Ok(ping)
}

#[test]
fn what_somebody_changes_in_the_kernel_is_told_and_put_right() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, mut n2]) = hosts()?;
    n1.plug("tap0", "2001:db8::1")?;
    n2.plug("tap0", "2001:db8::2")?;
    // The host answers in its place.
    n2.namespace.ip("address add 2001:db8::2/128 dev lo nodad")?;
    n1.bring("[bird]", &nodes(2))?;
    n2.bring("[bird]", &nodes(2))?;
    n1.wait_route("2001:db8::2", true)?;
    let traffic = traffic(&n1, "2001:db8::2")?;
    scanned(&n1)?;
    agreed(&mut n1, 0)?;
    let before = kernel(&n1.status()?).drift;

    n1.namespace.ip("-6 route del 2001:db8::2 proto bird")?;
    n1.namespace.ip("-6 route add 2001:db8::66 via fd00::2 dev up0 proto bird metric 32")?;
    let lost = ["2001:db8::2/128".parse()?];
    let stray = ["2001:db8::66/128".parse()?];
    let took = n1.wait("both differences", |status| {
        kernel(status).missing == lost && kernel(status).stray == stray && kernel(status).differing == 2
    })?;
    println!("told after {took:?}");
    let status = n1.status()?;
    let told = status.complaints().into_iter().find(|complaint| complaint.contains("differ"));
    let told = told.with_context(|| format!("{status:?}"))?;
    ensure!(told.contains("missing: 2001:db8::2/128; stray: 2001:db8::66/128"), "{told}");

    let (_, took) = n1.wait_route("2001:db8::2", true)?;
    println!("put right after {took:?}");
    n1.wait_route("2001:db8::66", false)?;
    agreed(&mut n1, before + 2)?;
    ensure!(kernel(&n1.status()?).drift == before + 2, "{:?}", n1.status()?);
    ensure!(n1.status()?.complaints().is_empty());
    let answered = || traffic.log().iter().filter(|line| line.contains("bytes from")).count();
    let before = answered();
    eventually("traffic again", PATIENCE, || Ok((answered() > before).then_some(())))?;
    Ok(())
}

#[test]
fn what_bird_itself_changes_is_no_difference() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, mut n2]) = hosts()?;
    n1.bring("[bird]", &nodes(2))?;
    n2.bring("[bird]", &nodes(2))?;
    n1.wait_peers(&["n2"])?;
    for number in 1..=8 {
        n2.plug(&format!("tap{number}"), &format!("2001:db8::{number}"))?;
    }
    n1.wait_route("2001:db8::8", true)?;
    // It comes and goes, and is raised: another metric, so another route.
    for metric in [16, 16, 16, 8] {
        n2.unroute("2001:db8::8")?;
        n1.wait_route("2001:db8::8", false)?;
        n2.route("tap8", "2001:db8::8", metric)?;
        n1.wait_route("2001:db8::8", true)?;
    }
    n1.crash()?;
    n1.wait("a new BIRD", |status| status.restarts == 1)?;
    n1.wait("the end of the recovery", |status| {
        status.state == BirdState::Up && kernel(status).exported == 8
    })?;
    // The last word is one about a difference, so what came before has been judged.
    n1.namespace.ip("-6 route add 2001:db8::66 via fd00::2 dev up0 proto bird metric 32")?;
    agreed(&mut n1, 1)?;
    ensure!(kernel(&n1.status()?).drift == 1, "{:?}", n1.status()?);
    Ok(())
}

#[test]
fn many_differences_are_found_by_their_number_and_what_was_there_before_by_comparison() -> Result<()> {
    require_rig!();
    const COUNT: usize = 2000;
    let (_link, [mut n1]) = hosts()?;
    let routes: String = (1..=COUNT).map(|n| format!("route 2001:db8:1::{n:x}/128 via fd00::9;\n")).collect();
    fs::write(n1.directory.path().join("extra"), format!("protocol static {{ ipv6;\n{routes}}}\n"))?;
    n1.bring("[bird]\nextra = '$DIR/extra'", "")?;
    n1.wait("all routes", |status| kernel(status).exported == COUNT as u64)?;
    scanned(&n1)?;

    // While nobody looks, and so that the number stays the same.
    n1.leave()?;
    n1.namespace.ip("-6 route del 2001:db8:1::1 proto bird")?;
    n1.namespace.ip("-6 route add 2001:db8::66 via fd00::9 dev up0 proto bird metric 32")?;
    ensure!(n1.bring("[bird]\nextra = '$DIR/extra'", "")? == Applied::Unchanged);
    n1.wait("what was there before", |status| {
        (kernel(status).missing.len(), kernel(status).stray.len()) == (1, 1)
    })?;
    n1.namespace.ip("-6 route flush root 2001:db8:1::/48 proto bird")?;
    n1.wait("many differences", |status| kernel(status).differing == COUNT as u64 + 1)?;
    ensure!(kernel(&n1.status()?).missing.len() < 100);
    agreed(&mut n1, COUNT as u64 + 1)?;
    ensure!(n1.bird_routes()?.len() == COUNT, "{}", n1.bird_routes()?.len());
    Ok(())
}
