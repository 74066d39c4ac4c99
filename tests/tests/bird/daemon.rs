//! What `serval run`, `status`, `routes` and `check` make of BIRD.

use super::rig::PATIENCE;
use anyhow::{Result, ensure};
use serval_tests::host::Host;
use serval_tests::require_rig;
use serval_tests::wait::eventually;
use std::fs;
use std::path::PathBuf;

/// Routes of BIRD's that need no neighbour.
const STATIC: &str = "protocol static { ipv6; route 2001:db8:77::/48 via fd00::9; }\n";

/// A host with an uplink, and a section for BIRD whose extra file says `extra`.
fn host(label: &str, extra: &str) -> Result<Host> {
    let host = Host::new(label)?;
    host.namespace.ip("link add up0 type veth peer name far0")?;
    host.namespace.ip("link set far0 up")?;
    host.namespace.ip("link set up0 up")?;
    host.namespace.ip("address add fd00::1/64 dev up0 nodad")?;
    fs::write(extra_file(&host), extra)?;
    host.configure(&format!("[bird]\nextra = '{}'", extra_file(&host).display()))?;
    Ok(host)
}

fn extra_file(host: &Host) -> PathBuf {
    host.configuration().with_file_name("extra.conf")
}

/// Waits until the kernel has, or has not, routes of BIRD's.
fn wait_routes(host: &Host, there: bool) -> Result<()> {
    let what = format!("routes of BIRD's on {}: {there}", host.node());
    eventually(&what, PATIENCE, || {
        Ok((host.namespace.ip("-6 route show proto bird")?.trim().is_empty() != there).then_some(()))
    })
}

#[test]
fn without_its_section_in_the_configuration_bird_goes() -> Result<()> {
    require_rig!();
    let mut host = host("section", STATIC)?;
    host.start()?;
    wait_routes(&host, true)?;
    host.stop()?;
    wait_routes(&host, true)?;
    let run = host.configuration().with_file_name("run");
    ensure!(run.join("bird/bird.ctl").exists() && run.join("bird/bird.conf").exists());

    host.configure("")?;
    host.start()?;
    wait_routes(&host, false)?;
    eventually("no BIRD and none of its files", PATIENCE, || {
        Ok((!run.join("bird/bird.ctl").exists() && !run.join("bird/bird.conf").exists()).then_some(()))
    })?;
    Ok(())
}

#[test]
fn check_has_bird_read_what_it_would_get() -> Result<()> {
    require_rig!();
    let host = host("check", STATIC)?;
    let check = |what: &str, good: bool, says: &str| {
        let output = host.serval(&["check"])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success() == good && text.contains(says), "{what}: {} {text}", output.status);
        anyhow::Ok(text)
    };
    check("a good one", true, ", 0 BGP sessions")?;
    fs::write(extra_file(&host), "protocol static {\n  nonsense;\n}\n")?;
    let text = check("a bad extra file", false, "bird: BIRD refuses its configuration: ")?;
    ensure!(text.contains(&format!("{}:2:3 syntax error", extra_file(&host).display())), "{text}");
    fs::remove_file(extra_file(&host))?;
    check("no extra file", false, "is left out: No such file")?;
    // Nothing of it was started or left.
    ensure!(!host.configuration().with_file_name("run").exists());
    Ok(())
}
