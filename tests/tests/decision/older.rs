//! The loaded programs on Debian 12's kernel, Linux 6.1.

use anyhow::{Context, Result};
use serval_tests::program::object;
use serval_tests::qemu::older;
use serval_tests::require_rig;
use std::time::Instant;

#[test]
fn debians_kernel_takes_the_programs_and_they_decide_the_same() -> Result<()> {
    require_rig!();
    let Some(object) = object() else {
        eprintln!("skipped: no BPF object; `cargo xtask test` builds it");
        return Ok(());
    };
    let tests = ["table::loaded_programs_pass_the_case_table", "policy::loaded_programs_play_the_stories"];
    let start = Instant::now();
    let kernel = older::passes(&tests, &object, None, &["ip"]).context("on an older kernel")?;
    println!("the case table and the stories of policy on {kernel}: {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}
