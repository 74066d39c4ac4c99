//! BIRD 1.6: Debian's package `bird` cannot be installed beside `bird2`, so `cargo xtask setup` unpacks it.

use super::rig::{hosts, nodes};
use anyhow::{Result, bail, ensure};
use serval::apply::bird::{Applied, BirdError, BirdState};
use serval_tests::{bird_1, require_rig};
use std::fs;

#[test]
fn bird_1_speaks_with_bird_2() -> Result<()> {
    require_rig!();
    let Some(old) = bird_1() else {
        eprintln!("skipped: no bird6 of version 1.6; `cargo xtask setup` fetches it on Debian");
        return Ok(());
    };
    let (_link, [mut n1, mut n2]) = hosts()?;
    n1.plug("tap0", "2001:db8::1")?;
    n2.plug("tap0", "2001:db8::2")?;
    for host in [&n1, &n2] {
        let file = host.directory.path().join("password");
        fs::write(&file, "secret")?;
        fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    }
    let config = "[bird]\nmesh.password_file = '$DIR/password'\nmesh.bfd = 'graceful'\naggregates = [{ prefix = '2001:db8:a::/64' }]
        communities = [{ prefix = '2001:db8::/32', communities = ['64512:7', '64512:7:8'] }]\n";
    let old_config = format!("{}executable = '{}'\n", config.replace(":a::", ":b::"), old.display());
    ensure!(n1.bring(config, &nodes(2))? == Applied::Started);
    ensure!(n2.bring(&old_config, &nodes(2))? == Applied::Started);
    n1.wait_peers(&["n2"])?;
    n2.wait_peers(&["n1"])?;
    let status = n2.status()?;
    ensure!(status.version.as_deref().is_some_and(|version| version.starts_with("1.6")), "{status:?}");
    n1.wait_route("2001:db8::2", true)?;
    n1.wait_route("2001:db8:b::/64", true)?;
    let (route, _) = n2.wait_route("2001:db8::1", true)?;
    ensure!(route.contains("metric 32"), "{route}");
    n2.wait_route("2001:db8:a::/64", true)?;
    n2.wait("all routes in the status", |status| {
        status.peers.iter().any(|peer| (peer.name.as_str(), peer.imported, peer.exported) == ("n1", 2, 2))
    })?;
    ensure!(n2.bring(&old_config, &nodes(2))? == Applied::Unchanged);

    fs::write(n2.directory.path().join("extra"), "nonsense;\n")?;
    let refused = n2.apply(&format!("{old_config}extra = '$DIR/extra'\n"), &nodes(2))?;
    let Err(BirdError::Refused { line }) = refused else { bail!("it was not refused: {refused:?}") };
    ensure!(line.contains("extra:1"), "{line}");

    n2.crash()?;
    n2.wait("a new BIRD", |status| status.restarts == 1 && status.state == BirdState::Up)?;
    n2.wait_peers(&["n1"])?;
    Ok(())
}
