//! The rig itself: what it makes works, and is gone afterwards.

use anyhow::{Result, ensure};
use serval_tests::frame::{GATEWAY_MAC, Ipv6, Mac, Payload, icmpv6_type, mac_text};
use serval_tests::guest::{KernelGuest, RawGuest, Settings};
use serval_tests::netns::Namespace;
use serval_tests::qemu::Vm;
use serval_tests::stream::Stream;
use serval_tests::tap::Options;
use serval_tests::wait::eventually;
use serval_tests::{frame, leftovers, process, require_rig, traffic};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const MAC_A: Mac = [0xfa, 0x16, 0x3e, 0, 0, 0x0a];
const MAC_B: Mac = [0xfa, 0x16, 0x3e, 0, 0, 0x0b];

fn address(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
}

/// What the daemon's fallback sets up, by hand: the guest's /128 and its permanent neighbour.
fn route(host: &Namespace, tap: &str, mac: Mac, address: Ipv6Addr) -> Result<()> {
    host.ip(&format!("route add {address}/128 dev {tap}"))?;
    host.ip(&format!("neighbour add {address} lladdr {} dev {tap} nud permanent", mac_text(mac)))?;
    Ok(())
}

fn two_guests(host: &Arc<Namespace>) -> Result<[KernelGuest; 2]> {
    host.set_sysctl("net/ipv6/conf/all/forwarding", 1)?;
    // The gateway's link-local address answers at once, as the daemon sees to.
    host.set_sysctl("net/ipv6/conf/default/accept_dad", 0)?;
    let guest = |tap: &str, mac, last| -> Result<KernelGuest> {
        let guest = KernelGuest::new(host, Settings::new(tap, mac))?;
        route(host, tap, mac, address(last))?;
        guest.configure(address(last))?;
        Ok(guest)
    };
    Ok([guest("tapa", MAC_A, 0xa)?, guest("tapb", MAC_B, 0xb)?])
}

#[test]
fn kernel_guests_reach_each_other_with_offloads_intact() -> Result<()> {
    require_rig!();
    let host = Arc::new(Namespace::new("host")?);
    let [a, b] = two_guests(&host)?;
    let ping = traffic::ping(&a.namespace, address(0xb), 5, Duration::from_millis(10))?;
    ensure!(ping.received == 5, "{ping:?}");

    let _server = traffic::iperf3_server(&b.namespace)?;
    let bulk = traffic::iperf3(&a.namespace, address(0xb), 1)?;
    let (sent, received) = (a.counts(), b.counts());
    println!("{:.1} Gbit/s through the kernel, {bulk:?}", bulk.bits_per_second / 1e9);
    println!("a {sent:?}\nb {received:?}");
    ensure!(sent.from_vm.segmented > 100 && received.to_vm.segmented > 100, "segments were cut on the way");
    ensure!(received.to_vm.bytes / received.to_vm.frames > 4 * 1500, "frames did not stay large");
    Ok(())
}

#[test]
fn raw_guest_reads_what_the_kernel_answers() -> Result<()> {
    require_rig!();
    let host = Arc::new(Namespace::new("host")?);
    let guest = RawGuest::new(&host, "tapa", MAC_A, Options::default())?;
    host.add_address("lo", address(1))?;
    route(&host, "tapa", MAC_A, address(0xa))?;
    let request = Ipv6 { source: address(0xa), destination: address(1), ..Ipv6::new(MAC_A, GATEWAY_MAC) };
    guest.send(&request.carrying(Payload::echo_request(7, 1, b"rig")))?;
    let (_, reply) = guest.receive("an echo reply", |frame| icmpv6_type(frame) == Some(129))?;
    let expected = Ipv6 {
        source: address(1),
        destination: address(0xa),
        // Linux mirrors nothing but makes a flow label of its own.
        flow_label: u32::from_be_bytes([0, reply[15] & 0xf, reply[16], reply[17]]),
        ..Ipv6::new(GATEWAY_MAC, MAC_A)
    };
    assert_eq!(reply, expected.carrying(Payload::echo_reply(7, 1, b"rig")).bytes);
    ensure!(frame::checksum_holds(&reply));
    Ok(())
}

#[test]
fn unplugged_tap_returns_as_another_interface() -> Result<()> {
    require_rig!();
    let host = Arc::new(Namespace::new("host")?);
    let [a, b] = two_guests(&host)?;
    let before = host.ifindex("tapb")?;
    b.unplug()?;
    ensure!(host.ifindex("tapb")?.is_none(), "the TAP is still there");
    b.plug()?;
    ensure!(host.ifindex("tapb")?.is_some_and(|index| Some(index) != before), "the same interface came back");
    route(&host, "tapb", MAC_B, address(0xb))?;
    let ping = traffic::ping(&a.namespace, address(0xb), 3, Duration::from_millis(10))?;
    ensure!(ping.received == 3, "{ping:?}");

    b.pause()?;
    let paused = traffic::ping(&a.namespace, address(0xb), 1, Duration::from_millis(10))?;
    ensure!(paused.received == 0, "a paused guest answered");
    b.resume()?;
    Ok(())
}

#[test]
fn stream_accounts_for_what_is_lost() -> Result<()> {
    require_rig!();
    let host = Arc::new(Namespace::new("host")?);
    let [a, b] = two_guests(&host)?;
    let stream = Stream::start(&a.namespace, &b.namespace, address(0xb), 7_000, 1_000)?;
    stream.advance(50)?;
    host.ip(&format!("route replace blackhole {}/128", address(0xb)))?;
    let before = a.counts().from_vm.frames;
    eventually("frames into the void", Duration::from_secs(5), || {
        Ok((a.counts().from_vm.frames > before + 50).then_some(()))
    })?;
    host.ip(&format!("route replace {}/128 dev tapb", address(0xb)))?;
    stream.advance(50)?;
    let account = stream.finish()?;
    println!("{account}");
    let missing: u64 = account.missing.iter().map(|range| range.end() - range.start() + 1).sum();
    ensure!(missing >= 50 && account.received + missing == account.sent, "{account}");
    ensure!(account.complete().is_err());
    Ok(())
}

#[test]
fn nothing_is_left_behind() -> Result<()> {
    require_rig!();
    let (name, orphan) = {
        let host = Arc::new(Namespace::new("gone")?);
        // Outlives its parent, as helpers of DHCP clients do.
        let mut shell = host.command("sh");
        shell.args(["-c", "sleep 1000 >/dev/null 2>&1 & echo $!"]);
        let orphan = process::run(shell)?;
        let guest = KernelGuest::new(&host, Settings::new("tapa", MAC_A))?;
        drop(guest);
        // A child of another test between fork and exec holds a copy of the descriptor for a moment.
        eventually("the end of the TAP", Duration::from_secs(5), || {
            Ok(host.ifindex("tapa")?.is_none().then_some(()))
        })?;
        (host.name().to_owned(), orphan)
    };
    let program = format!("/proc/{}/exe", orphan.trim());
    eventually("the end of the orphan", Duration::from_secs(5), || {
        Ok(std::fs::read_link(&program).is_err().then_some(()))
    })?;
    ensure!(!leftovers::own()?.contains(&name), "{name} is still there");

    let panicked = std::panic::catch_unwind(|| {
        let _namespace = Namespace::new("panic");
        // Unwinds as a panic does, without its message.
        std::panic::resume_unwind(Box::new(()));
    });
    ensure!(panicked.is_err());
    ensure!(!leftovers::own()?.iter().any(|name| name.ends_with(".panic")));
    Ok(())
}

#[test]
fn vm_boots_and_pings_its_host() -> Result<()> {
    require_rig!();
    let host = Arc::new(Namespace::new("host")?);
    host.set_sysctl("net/ipv6/conf/default/accept_dad", 0)?;
    let start = Instant::now();
    let mut vm = Vm::boot(&host, "tapvm", MAC_A)?;
    println!("in user space after {:.1} s", start.elapsed().as_secs_f64());
    let interfaces = vm.run("ip link show dev eth0", Duration::from_secs(5))?;
    ensure!(interfaces.text.contains(&mac_text(MAC_A)), "{interfaces:?}");
    let failed = vm.run("exit 3", Duration::from_secs(5))?;
    ensure!(failed.code == 3, "{failed:?}");
    let gateway = frame::link_local(GATEWAY_MAC);
    vm.run_until(&format!("ping6 -c 1 -W 1 -I eth0 {gateway}"), Duration::from_secs(60))?;
    println!("gateway answered after {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
