//! `serval check` beside a running daemon: which endpoints a change would touch, and that asking changes nothing.

use super::rig::Cloud;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use serval_tests::cloud::{address, endpoint, mac, name};
use serval_tests::host::policy;
use serval_tests::require_rig;
use serval_tests::tap::Offloads;
use std::collections::BTreeMap;
use std::fs;
use tempfile::TempDir;

const OUT: (&str, &str, &str) = ("out", "all()", "types: [Egress], egress: [{ action: Allow }]");
const WEB: (&str, &str, &str) = (
    "web",
    "vm == 'vm1'",
    "types: [Ingress], ingress: [{ action: Allow, protocol: TCP, destination: { ports: [80] } }]",
);
const FROM_WEB: (&str, &str, &str) = (
    "db",
    "vm == 'vm2'",
    "types: [Ingress], ingress: [{ action: Allow, source: { selector: \"vm in {'vm1', 'vm9'}\" } }]",
);

/// A copy of what counts, to be changed.
fn candidate(cloud: &Cloud) -> Result<TempDir> {
    let directory = tempfile::tempdir()?;
    for entry in fs::read_dir(cloud.host().resources())? {
        let entry = entry?;
        fs::copy(entry.path(), directory.path().join(entry.file_name()))?;
    }
    Ok(directory)
}

/// What `serval check` says of a directory, and its exit code.
fn check(cloud: &Cloud, directory: &TempDir) -> Result<(Value, Option<i32>)> {
    let directory = directory.path().to_str().context("a path in UTF-8")?;
    let output = cloud.host().serval(&["check", "--json", "--resources", directory])?;
    let said = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((said, output.status.code()))
}

/// The endpoints that would be touched, and how.
fn touched(said: &Value) -> Result<BTreeMap<&str, &Value>> {
    let touched = said["comparison"]["touched"].as_array().with_context(|| said.to_string())?;
    Ok(touched.iter().filter_map(|change| Some((change["name"].as_str()?, change))).collect())
}

#[test]
fn check_names_exactly_the_endpoints_that_a_change_touches_and_changes_nothing() -> Result<()> {
    require_rig!();
    let cloud = Cloud::new("review", 3, "", Offloads::NONE, &[OUT, WEB, FROM_WEB])?;
    let put = |directory: &TempDir, file: &str, text: String| fs::write(directory.path().join(file), text);
    let status = || -> Result<_> {
        let policies = |number| -> Result<Vec<String>> {
            Ok(cloud.status(number)?.policies().into_iter().map(str::to_owned).collect())
        };
        let policies: Vec<_> = (1..=3).map(policies).collect::<Result<_>>()?;
        Ok((policies, cloud.host().status()?.drift()))
    };
    let before = status()?;

    let directory = candidate(&cloud)?;
    let (said, code) = check(&cloud, &directory)?;
    ensure!(code == Some(0) && touched(&said)?.is_empty(), "unchanged: {said}");
    ensure!(said["comparison"]["flows_judged_again"] == false, "unchanged: {said}");
    let path = directory.path().to_str().context("a path in UTF-8")?;
    let output = cloud.host().serval(&["check", "--resources", path])?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.contains("nothing would change"), "{text}");

    // A rule in front of the one of web: that stays, under another number.
    let (name_of_web, selector, spec) = WEB;
    let spec = spec.replace("ingress: [", "ingress: [{ action: Deny, protocol: UDP }, ");
    put(&directory, "web.yaml", policy(name_of_web, selector, &spec))?;
    let (said, code) = check(&cloud, &directory)?;
    ensure!(code == Some(0) && touched(&said)?.keys().eq(["vm1"].iter()), "a rule: {said}");
    let change = &touched(&said)?["vm1"]["policy"];
    ensure!(change.as_array().is_some_and(|directions| directions.len() == 1), "{said}");
    ensure!(
        change[0]["direction"] == "ingress" && change[0]["go"].as_array().is_some_and(Vec::is_empty),
        "{said}"
    );
    let come = change[0]["come"].as_array().context("rules that come")?;
    ensure!(come.len() == 1 && come[0]["policy"] == "web" && come[0]["rule"] == 0, "{said}");
    ensure!(said["comparison"]["flows_judged_again"] == true, "{said}");

    // One comes, whom the rule of another speaks of; one goes; one gets another MAC.
    let directory = candidate(&cloud)?;
    put(&directory, "vm9.yaml", endpoint(9).document(cloud.host().node()))?;
    let mut other = endpoint(1);
    other.mac = mac(77);
    put(&directory, "vm1.yaml", other.document(cloud.host().node()))?;
    fs::remove_file(directory.path().join("vm3.yaml"))?;
    let (said, _) = check(&cloud, &directory)?;
    let by_name = touched(&said)?;
    ensure!(by_name.keys().eq(["vm1", "vm2", "vm3", "vm9"].iter()), "endpoints: {said}");
    let changes =
        ["vm1", "vm2", "vm3", "vm9"].map(|name| by_name[name]["change"].as_str().unwrap_or_default());
    ensure!(changes == ["changed", "changed", "removed", "added"], "{said}");
    let fields = by_name["vm1"]["fields"].as_array().context("fields")?;
    ensure!(fields.len() == 1 && fields[0]["field"] == "MAC", "{said}");
    ensure!(by_name["vm2"]["policy"][0]["members"][0]["joined"] == 1, "{said}");
    ensure!(by_name["vm9"]["fields"].to_string().contains(&address(9).to_string()), "{said}");

    put(&directory, "vm1.yaml", "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\n".to_owned())?;
    let (said, code) = check(&cloud, &directory)?;
    ensure!(code == Some(1) && said.get("comparison").is_none(), "refused: {said}");

    ensure!(status()? == before, "asking has changed something: {before:?} -> {:?}", status()?);
    let endpoints: Vec<_> =
        (1..=3).map(|number| cloud.host().endpoint(&name(number))).collect::<Result<_>>()?;
    ensure!(endpoints.iter().all(|endpoint| endpoint.state() == "up"), "{endpoints:?}");
    Ok(())
}
