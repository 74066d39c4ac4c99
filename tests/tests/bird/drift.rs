//! Routes of BIRD's that somebody else takes from the kernel, or adds under its name, and VMs that it has not heard of:
//! seen, told, and put right.

use super::rig::{Host, PATIENCE, deletions, hosts, meshed, nodes};
use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::{NetlinkAddr, getsockname};
use serval::apply::bird::{Applied, BirdState, BirdStatus, KernelStatus};
use serval_tests::process::Running;
use serval_tests::require_rig;
use serval_tests::wait::eventually;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// How often something is changed.
const TIMES: u32 = 3;

fn kernel(status: &BirdStatus) -> KernelStatus {
    status.kernel.clone().unwrap_or_default()
}

/// Waits until both tables agree, and as many differences have been found as are said.
fn agreed(host: &mut Host, drift: u64) -> Result<Duration> {
    host.wait(&format!("agreement after {drift} differences"), |status| {
        kernel(status).differing == 0 && kernel(status).drift >= drift
    })
}

/// Has BIRD scan the kernel's table, after which it does so again in 20 s and not before.
fn scan(host: &Host) -> Result<()> {
    host.namespace.ip("-6 route add 2001:db8::77 via fd00::77 dev up0 proto bird metric 32")?;
    host.birdc("reload in serval_kernel")?;
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

/// BIRD reads the kernel's table by itself every 20 s, so what it does not do before takes so long from one time to the next.
fn without_scans(times: u32, took: Duration) -> Result<()> {
    println!("put right {times} times within {took:?}");
    ensure!(took < Duration::from_secs(20) * (times - 1), "put right by BIRD's own scans: {took:?}");
    Ok(())
}

#[test]
fn what_somebody_changes_in_the_kernel_is_put_right_at_once() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, mut n2]) = meshed("[bird]")?;
    n2.plug("tap1", "2001:db8::3")?;
    // The host answers in its place.
    n2.namespace.ip("address add 2001:db8::2/128 dev lo nodad")?;
    n1.wait_route("2001:db8::3", true)?;
    let traffic = traffic(&n1, "2001:db8::2")?;
    agreed(&mut n1, 0)?;
    let before = kernel(&n1.status()?).drift;
    let monitor = n1.monitor()?;

    let begun = Instant::now();
    for time in 1..=TIMES {
        n1.namespace.ip("-6 route del 2001:db8::2 proto bird")?;
        n1.namespace.ip("-6 route add 2001:db8::66 via fd00::2 dev up0 proto bird metric 32")?;
        agreed(&mut n1, before + 2 * u64::from(time))?;
        n1.wait_route("2001:db8::2", true)?;
        n1.wait_route("2001:db8::66", false)?;
    }
    without_scans(TIMES, begun.elapsed())?;
    ensure!(kernel(&n1.status()?).drift == before + 2 * u64::from(TIMES), "{:?}", n1.status()?);
    ensure!(n1.status()?.complaints().is_empty());
    // The other VM's route was never touched.
    let deleted = deletions(&monitor);
    ensure!(deleted.iter().all(|line| !line.contains("2001:db8::3 ")), "{deleted:?}");
    let answered = || traffic.log().iter().filter(|line| line.contains("bytes from")).count();
    let before = answered();
    eventually("traffic again", PATIENCE, || Ok((answered() > before).then_some(())))?;
    Ok(())
}

#[test]
fn what_bird_cannot_put_right_stays_told() -> Result<()> {
    require_rig!();
    let (_link, [mut n1]) = hosts()?;
    // Somebody else has a route there that BIRD must not take away.
    n1.namespace.ip("-6 route add 2001:db8::9 via fd00::8 dev up0 proto static metric 32")?;
    let route = "protocol static { ipv6; route 2001:db8::9/128 via fd00::9; }\n";
    fs::write(n1.directory.path().join("extra"), route)?;
    n1.bring("[bird]\nextra = '$DIR/extra'", "")?;
    n1.wait("the difference", |status| kernel(status).missing == ["2001:db8::9/128".parse().unwrap()])?;
    let status = n1.status()?;
    let told = status.complaints().into_iter().find(|complaint| complaint.contains("differ"));
    let told = told.with_context(|| format!("{status:?}"))?;
    ensure!(told.contains("differ: missing in the kernel: 2001:db8::9/128; it has been asked"), "{told}");
    ensure!(kernel(&status).drift == 1, "{status:?}");
    n1.namespace.ip("-6 route del 2001:db8::9 proto static")?;
    agreed(&mut n1, 1).map(drop)
}

#[test]
fn vms_that_bird_does_not_hear_of_are_told_and_announced() -> Result<()> {
    require_rig!();
    let (_link, [mut n1, n2]) = meshed("[bird]")?;
    agreed(&mut n1, 0)?;
    let before = kernel(&n1.status()?).drift;
    deafen(&n1)?;

    let begun = Instant::now();
    for time in 0..TIMES {
        n1.route("tap0", "2001:db8::5", 16)?;
        agreed(&mut n1, before + 2 * u64::from(time) + 1)?;
        n2.wait_route("2001:db8::5", true)?;
        n1.unroute("2001:db8::5")?;
        agreed(&mut n1, before + 2 * u64::from(time) + 2)?;
        n2.wait_route("2001:db8::5", false)?;
    }
    without_scans(2 * TIMES, begun.elapsed())?;
    ensure!(kernel(&n1.status()?).drift == before + 2 * u64::from(TIMES), "{:?}", n1.status()?);
    ensure!(!n2.bird_route("2001:db8::1")?.is_empty(), "the other VM's route has gone");
    Ok(())
}

/// Keeps from BIRD what the kernel notifies, as when its queue has overflowed: what it asks for it still gets.
fn deafen(host: &Host) -> Result<()> {
    let pid: libc::pid_t = host.pid()?.parse()?;
    // SAFETY: plain numbers.
    let process = descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let mut nothing = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut nothing };
    let mut deafened = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let name = entry?.file_name();
        let number: libc::c_int = name.to_str().context("a descriptor's name")?.parse()?;
        // SAFETY: plain numbers, of which the first is an open descriptor.
        let copy =
            descriptor(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })?;
        let groups = getsockname::<NetlinkAddr>(copy.as_raw_fd()).map(|address| address.groups());
        if groups.is_ok_and(|groups| groups != 0) {
            // SAFETY: the program and its one instruction outlive the call.
            Errno::result(unsafe {
                libc::setsockopt(
                    copy.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_ATTACH_FILTER,
                    (&raw const program).cast(),
                    size_of_val(&program) as libc::socklen_t,
                )
            })?;
            deafened += 1;
        }
    }
    ensure!(deafened > 0, "BIRD listens to no notifications");
    Ok(())
}

/// What a system call has opened.
fn descriptor(returned: libc::c_long) -> Result<OwnedFd> {
    let number = libc::c_int::try_from(Errno::result(returned)?)?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
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
    scan(&n1)?;

    // While nobody looks, and so that the number stays the same.
    n1.leave()?;
    n1.namespace.ip("-6 route del 2001:db8:1::1 proto bird")?;
    n1.namespace.ip("-6 route add 2001:db8::66 via fd00::9 dev up0 proto bird metric 32")?;
    ensure!(n1.bring("[bird]\nextra = '$DIR/extra'", "")? == Applied::Unchanged);
    agreed(&mut n1, 2)?;
    n1.namespace.ip("-6 route flush root 2001:db8:1::/48 proto bird")?;
    agreed(&mut n1, COUNT as u64 + 2)?;
    ensure!(n1.bird_routes()?.len() == COUNT, "{}", n1.bird_routes()?.len());
    Ok(())
}
