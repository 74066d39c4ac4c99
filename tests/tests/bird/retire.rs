//! This host is to speak BGP no more.

use super::rig::{hosts, nodes};
use anyhow::{Result, ensure};
use serval::apply::bird::Retired;
use serval_tests::require_rig;
use std::fs;

#[test]
fn a_bird_that_is_not_wanted_any_more_leaves_no_route() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, mut n2]) = hosts()?;
    n1.plug("tap0", "2001:db8::1")?;
    n2.plug("tap0", "2001:db8::2")?;
    n1.bring("[bird]\naggregates = [{ prefix = '2001:db8:a::/64' }]", &nodes(2))?;
    n2.bring("[bird]", &nodes(2))?;
    n1.wait_route("2001:db8::2", true)?;
    n2.wait_route("2001:db8::1", true)?;
    ensure!(n1.retire()? == Retired::Bird);
    ensure!(n1.bird_routes()?.is_empty(), "{:?}", n1.bird_routes()?);
    n2.wait_route("2001:db8::1", false)?;
    ensure!(n1.retire()? == Retired::Nothing, "there was one more");
    Ok(())
}

#[test]
fn routes_of_a_bird_that_has_died_go_as_well() -> Result<()> {
    require_rig!();
    let (_link, [mut n1]) = hosts()?;
    let extra =
        "protocol static { ipv6; route 2001:db8:77::/48 via fd00::9; route 2001:db8:78::/48 unreachable; }\n";
    fs::write(n1.directory.path().join("extra"), extra)?;
    n1.bring("[bird]\nextra = '$DIR/extra'", "")?;
    n1.wait_route("2001:db8:77::/48", true)?;
    n1.wait_route("2001:db8:78::/48", true)?;
    // Somebody else's stay.
    n1.namespace.ip("-6 route add 2001:db8:79::/48 via fd00::9 dev up0 proto static")?;
    n1.leave()?;
    n1.crash()?;
    ensure!(n1.bird_routes()?.len() == 2);
    ensure!(n1.give_up()? == Retired::Routes(2));
    ensure!(n1.bird_routes()?.is_empty(), "{:?}", n1.bird_routes()?);
    ensure!(n1.namespace.ip("-6 route")?.contains("2001:db8:79::/48"));
    ensure!(n1.give_up()? == Retired::Nothing);
    Ok(())
}
