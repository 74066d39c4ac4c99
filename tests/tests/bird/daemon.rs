//! What `serval run`, `status`, `routes` and `check` make of BIRD.

use super::rig::PATIENCE;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use serval_tests::cloud;
use serval_tests::host::Host;
use serval_tests::require_rig;
use serval_tests::tap::Offloads;
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

fn json(host: &Host, arguments: &[&str]) -> Result<Value> {
    let output = host.serval(&[arguments, &["--json"]].concat())?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("{arguments:?} says JSON: {output:?}"))
}

#[test]
fn routes_tells_who_put_them_there_and_what_an_address_would_take() -> Result<()> {
    require_rig!();
    let mut host = host("routes", STATIC)?;
    host.namespace.ip("-6 route add 2001:db8::/32 via fd00::8 dev up0 proto static")?;
    host.start()?;
    wait_routes(&host, true)?;
    let asked = |arguments: &[&str]| {
        let report = json(&host, &[&["routes"], arguments].concat())?;
        let routes = report["routes"].as_array().context("no routes")?;
        let route =
            |route: &Value| format!("{} {}", route["destination"], route["protocol"]).replace('"', "");
        anyhow::Ok((report.clone(), routes.iter().map(route).collect::<Vec<_>>()))
    };
    eventually("the route in the mirror", PATIENCE, || {
        Ok(asked(&[])?.1.contains(&"2001:db8:77::/48 bird".to_owned()).then_some(()))
    })?;
    let (report, all) = asked(&[])?;
    ensure!(report["bird"]["state"] == "up" && report["matching"] == all.len(), "{report}");
    ensure!(all.contains(&"fd00::/64 kernel".to_owned()), "{all:?}");
    let towards = ["2001:db8:77::/48 bird", "2001:db8::/32 static"];
    ensure!(asked(&["2001:db8:77::5"])?.1 == towards, "{:?}", asked(&["2001:db8:77::5"])?);
    ensure!(asked(&["2001:db8:76::5"])?.1 == towards[1..]);
    ensure!(asked(&["2001:db8::/32"])?.1 == [towards[1], towards[0]]);
    ensure!(asked(&["3fff::/20"])?.1.is_empty());
    let (report, one) = asked(&["2001:db8::/32", "--limit", "1"])?;
    ensure!((&report["matching"], one.len()) == (&2.into(), 1), "{report}");

    let text = host.serval(&["routes", "2001:db8::/32", "--limit", "1"])?;
    let text = String::from_utf8(text.stdout)?;
    ensure!(text.starts_with("BIRD 2") && text.contains("and 1 more; "), "{text}");
    ensure!(host.serval(&["routes", "web1"])?.status.code() == Some(2));
    Ok(())
}

#[test]
fn a_vm_that_is_not_announced_is_told() -> Result<()> {
    require_rig!();
    let mut host = host("unannounced", "")?;
    let section = format!("[bird]\nextra = '{}'\nnetworks = ['2001:db9::/32']", extra_file(&host).display());
    host.configure(&section)?;
    host.start()?;
    let _guest = cloud::running(&host, 1, Offloads::ALL)?;
    let address = cloud::address(1).to_string();
    let status = json(&host, &["status"])?;
    ensure!(status["bird"]["unannounced"] == serde_json::json!([address]), "{status}");
    let text = String::from_utf8(host.serval(&["status"])?.stdout)?;
    ensure!(text.contains(&format!("not announced, being outside bird.networks: {address}\n")), "{text}");
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
