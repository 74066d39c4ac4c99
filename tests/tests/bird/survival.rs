//! What may not change: routes while BIRD or the daemon restarts, the configuration when a new one is bad.

use super::rig::{PATIENCE, deletions, hosts, is_alive, meshed, nodes, peer};
use anyhow::{Result, bail, ensure};
use serval::apply::bird::{Applied, BirdError, BirdState};
use serval_tests::require_rig;
use std::fs;

#[test]
fn a_configuration_that_bird_refuses_changes_nothing() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, mut n2]) = hosts()?;
    n1.bring("[bird]", &nodes(2))?;
    n2.bring("[bird]", &nodes(2))?;
    n1.wait_peers(&["n2"])?;
    let (pid, before) = (n1.pid()?, n1.status()?);

    let extra = n1.directory.path().join("extra");
    fs::write(&extra, "protocol static {\n  nonsense;\n}\n")?;
    let config = "[bird]\nextra = '$DIR/extra'";
    let Err(BirdError::Refused { line }) = n1.apply(config, &nodes(2))? else { bail!("it was not refused") };
    ensure!(line.starts_with(&format!("{}:2:3 syntax error", extra.display())), "{line}");
    let status = n1.status()?;
    ensure!(status.reason.as_ref().is_some_and(|reason| reason.contains(&line)), "{status:?}");
    ensure!((status.state, n1.pid()?) == (BirdState::Up, pid));
    let since = |status: &_| peer(status, "n2").map(|peer| (peer.is_established(), peer.since.clone()));
    ensure!(since(&status) == since(&before), "{status:?}");

    fs::write(&extra, "protocol static { ipv6; route 2001:db8:77::/48 unreachable; }\n")?;
    ensure!(n1.bring(config, &nodes(2))? == Applied::Loaded);
    ensure!(n1.status()?.reason.is_none());
    n1.wait_route("2001:db8:77::/48", true)?;
    // The same again is nothing to do; a change of the file's content is.
    ensure!(n1.bring(config, &nodes(2))? == Applied::Unchanged);
    fs::write(&extra, "# nothing any more\n")?;
    ensure!(n1.bring(config, &nodes(2))? == Applied::Loaded);
    n1.wait_route("2001:db8:77::/48", false)?;
    // None of this has touched the session: neither what is the same, nor filters that are not.
    n1.bring("[bird]\naggregates = [{ prefix = '2001:db8:a::/64' }]", &nodes(2))?;
    n2.wait_route("2001:db8:a::/64", true)?;
    ensure!(since(&n1.status()?) == since(&before), "{:?}", n1.status()?);
    Ok(())
}

#[test]
fn a_crash_while_the_wanted_configuration_is_bad_brings_back_the_last_good_one() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, n2]) = meshed("[bird]")?;
    fs::write(n1.directory.path().join("extra"), "nonsense;\n")?;
    let refused = n1.apply("[bird]\nextra = '$DIR/extra'", &nodes(2))?;
    ensure!(matches!(refused, Err(BirdError::Refused { .. })), "{refused:?}");
    let monitor = n2.monitor()?;
    n1.crash()?;
    n1.wait("a new BIRD", |status| status.restarts == 1 && status.state == BirdState::Up)?;
    n1.wait_peers(&["n2"])?;
    ensure!(n1.status()?.reason.is_some_and(|reason| reason.contains("refuses")), "{:?}", n1.status()?);
    ensure!(deletions(&monitor).is_empty(), "{:?}", monitor.log());
    Ok(())
}

#[test]
fn without_any_good_configuration_bird_is_not_started() -> Result<()> {
    require_rig!();
    let (_link, [mut n1]) = hosts()?;
    fs::write(n1.directory.path().join("extra"), "nonsense;\n")?;
    let Err(BirdError::Refused { line }) = n1.apply("[bird]\nextra = '$DIR/extra'", "")? else {
        bail!("it was not refused")
    };
    ensure!(line.contains("extra:1:1 syntax error"), "{line}");
    let status = n1.status()?;
    ensure!(status.state == BirdState::Down && status.reason.is_some_and(|reason| reason.contains(&line)));
    ensure!(n1.bring("[bird]", "")? == Applied::Started);
    Ok(())
}

#[test]
fn a_crash_costs_no_route_at_either_end() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, mut n2]) = hosts()?;
    n1.plug("tap0", "2001:db8::1")?;
    n2.plug("tap0", "2001:db8::2")?;
    let config =
        "[bird]\nmesh.bfd = 'graceful'\nbfd.interval = 500\naggregates = [{ prefix = '2001:db8:a::/64' }]";
    n1.bring(config, &nodes(2))?;
    n2.bring("[bird]\nmesh.bfd = 'graceful'\nbfd.interval = 500", &nodes(2))?;
    n1.wait_route("2001:db8::2", true)?;
    n2.wait_route("2001:db8::1", true)?;
    n2.wait_route("2001:db8:a::/64", true)?;
    let monitors = [n1.monitor()?, n2.monitor()?];
    let before = n1.pid()?;

    n1.crash()?;
    n1.wait("a new BIRD", |status| status.restarts == 1 && status.state != BirdState::Down)?;
    ensure!(n1.pid()? != before);
    n1.wait_peers(&["n2"])?;
    let recovered = n1.wait("the end of the recovery", |status| status.state == BirdState::Up)?;
    println!("recovered {recovered:?} after the session was back");
    // What is announced after the recovery has arrived, so what was stale has been judged.
    n1.plug("tap1", "2001:db8::11")?;
    n2.wait_route("2001:db8::11", true)?;
    n2.wait_peers(&["n1"])?;
    for monitor in &monitors {
        ensure!(deletions(monitor).is_empty(), "{:?}", monitor.log());
    }
    Ok(())
}

#[test]
fn without_graceful_restart_a_crash_takes_the_routes_away_for_a_while() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, n2]) = meshed("[bird]\ngraceful_restart.enabled = false")?;
    let monitor = n2.monitor()?;
    n1.crash()?;
    // Else the tests that want no deletion could not fail.
    monitor.wait_line(PATIENCE, |line| line.starts_with("Deleted 2001:db8::1 "))?;
    n1.wait_peers(&["n2"])?;
    n2.wait_route("2001:db8::1", true)?;
    Ok(())
}

#[test]
fn a_daemon_that_returns_takes_bird_over_as_it_is() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, n2]) = meshed("[bird]")?;
    let (pid, before) = (n1.pid()?, n1.status()?);
    let monitor = n2.monitor()?;

    n1.leave()?;
    ensure!(n1.birdc("show status")?.contains("up and running"));
    ensure!(n1.bring("[bird]", &nodes(2))? == Applied::Unchanged);
    let after = n1.status()?;
    ensure!((n1.pid()?, &after.since, &after.peers) == (pid, &before.since, &before.peers), "{after:?}");
    ensure!(after.restarts == 0);

    // It died while nobody looked: the next daemon starts one that recovers.
    n1.leave()?;
    n1.crash()?;
    ensure!(n1.bring("[bird]", &nodes(2))? == Applied::Started);
    n1.wait_peers(&["n2"])?;
    n1.wait("the end of the recovery", |status| status.state == BirdState::Up)?;
    // One that an earlier daemon has started is watched as well.
    n1.leave()?;
    ensure!(n1.bring("[bird]", &nodes(2))? == Applied::Unchanged);
    n1.crash()?;
    n1.wait("a new BIRD", |status| status.restarts == 1 && status.state != BirdState::Down)?;
    n1.wait_peers(&["n2"])?;
    n1.wait("the end of the recovery", |status| status.state == BirdState::Up)?;
    ensure!(deletions(&monitor).is_empty(), "{:?}", monitor.log());
    Ok(())
}

#[test]
fn a_bird_that_somebody_else_reconfigures_is_brought_back() -> Result<()> {
    require_rig!();
    let (_link, [mut n1]) = hosts()?;
    n1.bring("[bird]", "")?;
    let foreign = n1.directory.path().join("foreign.conf");
    fs::write(&foreign, "router id 192.0.2.99;\nprotocol device { }\n")?;
    n1.birdc(&format!("configure \"{}\"", foreign.display()))?;
    ensure!(n1.status()?.router_id.as_deref() == Some("192.0.2.99"));
    n1.wait("our own configuration", |status| status.router_id.as_deref() != Some("192.0.2.99"))?;
    ensure!(n1.bring("[bird]", "")? == Applied::Unchanged);
    Ok(())
}

#[test]
fn a_bird_whose_files_are_gone_is_replaced_as_after_a_crash() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, n2]) = meshed("[bird]")?;
    let before = n1.pid()?;
    let monitors = [n1.monitor()?, n2.monitor()?];
    fs::remove_dir_all(n1.directory.path().join("bird"))?;
    ensure!(n1.bring("[bird]", &nodes(2))? == Applied::Started);
    ensure!(!is_alive(&before), "two BIRDs run");
    n1.wait_peers(&["n2"])?;
    n1.wait("the end of the recovery", |status| status.state == BirdState::Up)?;
    // The one that had been started is watched, not the one before.
    n1.crash()?;
    n1.wait("a new BIRD", |status| status.restarts == 2 && status.state != BirdState::Down)?;
    n1.wait_peers(&["n2"])?;
    for monitor in &monitors {
        ensure!(deletions(monitor).is_empty(), "{:?}", monitor.log());
    }
    Ok(())
}
