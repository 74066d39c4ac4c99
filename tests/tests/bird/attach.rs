//! A BIRD that the system runs: configured, never started, never ended.

use super::rig::{Host, PATIENCE, hosts, nodes};
use anyhow::{Result, bail, ensure};
use serval::apply::bird::{Applied, BirdError, BirdState, Retired};
use serval_tests::process::Running;
use serval_tests::require_rig;
use serval_tests::wait::eventually;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

const CONFIG: &str = "[bird]\nstart = false\ncontrol_socket = '$DIR/system.ctl'";

/// The system's BIRD: in the foreground, as its unit starts it, with a configuration of its own.
fn system_bird(host: &Host) -> Result<Running> {
    let directory = host.directory.path();
    let (configuration, socket) = (directory.join("system.conf"), directory.join("system.ctl"));
    fs::write(&configuration, "router id 192.0.2.77;\nprotocol device { }\n")?;
    let mut command = host.namespace.command("bird");
    command.arg("-f").arg("-c").arg(configuration).arg("-s").arg(&socket);
    let running = Running::start(format!("the system's BIRD on {}", host.node), command)?;
    eventually("its control socket", PATIENCE, || Ok(socket.exists().then_some(())))?;
    Ok(running)
}

#[test]
fn the_systems_bird_is_configured_and_left_running() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, mut n2]) = hosts()?;
    n1.plug("tap0", "2001:db8::1")?;
    n2.bring("[bird]", &nodes(2))?;
    let Err(BirdError::Control(error)) = n1.apply(CONFIG, &nodes(2))? else { bail!("nobody is there") };
    ensure!(error.is_absence(), "{error}");
    ensure!(n1.status()?.state == BirdState::Down);

    // It is found as soon as the system has started it.
    let mut bird = system_bird(&n1)?;
    let took = n1.wait_peers(&["n2"])?;
    println!("a session {took:?} after the system's BIRD was started");
    let (_, took) = n2.wait_route("2001:db8::1", true)?;
    // BIRD forgets its interfaces until its next scan when the protocol for them gets another name.
    ensure!(took < Duration::from_secs(10), "{took:?}");
    ensure!(n1.bring(CONFIG, &nodes(2))? == Applied::Unchanged);
    ensure!(!n1.directory.path().join("bird/bird.ctl").exists(), "another one was started");

    // It is not ours to end.
    n1.leave()?;
    ensure!(n1.retire()? == Retired::Nothing);
    ensure!(bird.is_alive()?);

    // The system restarts it with its own configuration: it gets ours again.
    ensure!(n1.bring(CONFIG, &nodes(2))? == Applied::Unchanged);
    bird.kill()?;
    n1.wait("no BIRD", |status| status.state == BirdState::Down)?;
    let _bird = system_bird(&n1)?;
    let took = n1.wait_peers(&["n2"])?;
    println!("a session {took:?} after the system's BIRD was started again");
    n2.wait_route("2001:db8::1", true)?;

    // Nobody is to configure it any more: it stays, and no passwords lie about.
    ensure!(n1.give_up()? == Retired::Nothing);
    ensure!(!n1.directory.path().join("bird/bird.conf").exists());
    n1.namespace
        .run(&format!("birdc -s {} show status", n1.directory.path().join("system.ctl").display()))?;
    Ok(())
}

#[test]
fn a_bird_without_privileges_can_read_what_it_is_given() -> Result<()> {
    require_rig!();
    let (_link, [mut n1]) = hosts()?;
    // As Debian's unit has it: an own user, who owns the socket.
    let bird = n1.namespace.run("id -u bird");
    ensure!(bird.is_ok(), "Debian's bird2 brings the user bird: {bird:?}");
    let directory = n1.directory.path().to_owned();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777))?;
    let configuration = directory.join("system.conf");
    fs::write(&configuration, "router id 192.0.2.77;\nprotocol device { }\n")?;
    let mut command = n1.namespace.command("bird");
    command.args(["-f", "-u", "bird", "-g", "bird", "-c"]).arg(configuration);
    let socket = directory.join("system.ctl");
    command.arg("-s").arg(&socket);
    let _bird = Running::start("a BIRD of the user bird", command)?;
    eventually("its control socket", PATIENCE, || {
        Ok(fs::metadata(&socket).is_ok_and(|metadata| metadata.uid() != 0).then_some(()))
    })?;
    ensure!(n1.bring(CONFIG, "")? == Applied::Loaded);
    let mode = fs::metadata(directory.join("bird/bird.conf"))?.permissions().mode();
    ensure!(mode & 0o777 == 0o640, "{mode:o}");
    Ok(())
}

#[test]
fn a_bird_of_our_own_gives_way_to_the_systems() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, mut n2]) = hosts()?;
    n2.plug("tap0", "2001:db8::2")?;
    n1.bring("[bird]", &nodes(2))?;
    n2.bring("[bird]", &nodes(2))?;
    n1.wait_route("2001:db8::2", true)?;
    n1.leave()?;
    let _bird = system_bird(&n1)?;
    ensure!(n1.bring(CONFIG, &nodes(2))? == Applied::Loaded);
    ensure!(n1.birdc("show status").is_err(), "both run");
    n1.wait_peers(&["n2"])?;
    n1.wait_route("2001:db8::2", true)?;
    Ok(())
}
