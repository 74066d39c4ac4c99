//! Two ways to the same prefix: flows are spread over both, and all take the other when one dies.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serval_tests::bgp::Router;
use serval_tests::cloud::{address, name, running};
use serval_tests::racks::{Racks, WAYS, WORLD, WORLD_PREFIX, host_address, router_address};
use serval_tests::require_rig;
use serval_tests::stream::{Account, Stream};
use serval_tests::tap::Offloads;
use serval_tests::traffic::ping;
use std::net::UdpSocket;
use std::time::Duration;

/// Flows of the first look, and datagrams of each.
const FLOWS: u16 = 64;
const DATAGRAMS: u16 = 4;

/// Streams that are accounted for, so many that not all take one way by chance, their datagrams a second, and how many of
/// each must come through before and after.
const STREAMS: u16 = 16;
const RATE: u32 = 60;
const STEP: u64 = 30;

/// A router that leads to the world; BFD notices its silence within a second.
fn configuration(way: u8) -> String {
    format!(
        "router id 192.0.2.25{way};
         protocol device {{ }}
         protocol direct {{ ipv6; interface \"host\"; }}
         protocol kernel {{ learn; ipv6 {{ import all; export where source = RTS_BGP; }}; }}
         protocol bfd {{ interface \"*\" {{ interval 100 ms; multiplier 10; }}; }}
         protocol bgp leaf {{
           local {} as 65000; neighbor {} as 64512; direct; bfd on;
           connect delay time 1; connect retry time 1; error wait time 1, 2;
           ipv6 {{ import all; export where net = {WORLD_PREFIX}; }};
         }}\n",
        router_address(way),
        host_address(way)
    )
}

/// Whether a route uses exactly these ways.
fn by(route: &str, ways: &[u8]) -> bool {
    WAYS.iter().all(|way| route.contains(&format!("via {} ", router_address(*way))) == ways.contains(way))
}

#[test]
fn flows_are_spread_over_two_ways_and_survive_the_end_of_one() -> Result<()> {
    require_rig!();
    let mut racks = Racks::new("ecmp")?;
    let peers = WAYS.map(|way| {
        format!("{{ name = 'tor{way}', address = '{}', as = 65000, bfd = true }}", router_address(way))
    });
    racks.host.configure(&format!(
        "[bird]\nbfd = {{ interval = 100, multiplier = 10 }}\npeers = [{}]\n",
        peers.join(", ")
    ))?;
    racks.host.start()?;
    let mut first = Router::start(racks.router(1), &configuration(1))?;
    let _second = Router::start(racks.router(2), &configuration(2))?;
    let guest = running(&racks.host, 1, Offloads::NONE)?;
    let wait = |ways: &[u8]| {
        let what = format!("by routers {ways:?}");
        racks.host.wait_learnt(WORLD_PREFIX, &what, |route| by(route, ways))
    };
    wait(&WAYS)?;
    serval_tests::host::wait("the way back", || {
        Ok(ping(&guest.namespace, WORLD, 1, Duration::from_secs(1))?.received == 1)
    })?;
    for way in WAYS {
        // The fast path takes a route when it knows all of its next hops.
        ping(&racks.host.namespace, router_address(way), 1, Duration::from_secs(1))?;
    }

    let sink = racks.world.enter(|| Ok(UdpSocket::bind((WORLD, 6_999))?))?;
    sink.set_read_timeout(Some(Duration::from_secs(20)))?;
    let by_fast_path = || racks.host.endpoint(&name(1))?.forwarded();
    serval_tests::host::wait("the fast path", || {
        let before = by_fast_path()?;
        ping(&guest.namespace, WORLD, 1, Duration::from_secs(1))?;
        Ok(by_fast_path()? > before)
    })?;
    let (before, fast) = (racks.forwarded()?, by_fast_path()?);
    guest.namespace.enter(|| {
        for _ in 0..FLOWS {
            let flow = UdpSocket::bind((address(1), 0))?;
            for _ in 0..DATAGRAMS {
                flow.send_to(&[0; 64], (WORLD, 6_999))?;
            }
            // Before its buffer is full.
            for _ in 0..DATAGRAMS {
                sink.recv(&mut [0; 64]).context("a datagram did not arrive")?;
            }
        }
        Ok(())
    })?;
    let (after, sent) = (racks.forwarded()?, u64::from(FLOWS * DATAGRAMS));
    let spread = [after[0] - before[0], after[1] - before[1]];
    println!("{FLOWS} flows of {DATAGRAMS} datagrams: {spread:?} by the routers");
    ensure!(spread.iter().all(|&share| share >= sent / 5), "not spread: {spread:?}");
    ensure!(spread[0] + spread[1] >= sent && by_fast_path()? >= fast + sent, "not by the fast path");

    // A router hangs: light on the cable, and neither BGP nor forwarding behind it.
    let silent = under_traffic(&racks, &guest.namespace, |racks| {
        racks.router(1).run("ip6tables -P FORWARD DROP")?;
        first.process().signal(Signal::SIGSTOP)?;
        let took = wait(&[2])?;
        println!("BFD has noticed a router that hangs after {} ms", took.as_millis());
        Ok(())
    })?;
    tell("a router hangs", &silent);
    racks.router(1).run("ip6tables -P FORWARD ACCEPT")?;
    first.process().signal(Signal::SIGCONT)?;
    // It is back, and is used again.
    println!("back after {} ms", wait(&WAYS)?.as_millis());
    let unplugged = under_traffic(&racks, &guest.namespace, |racks| {
        racks.router(1).ip("link set host down")?;
        println!("unplugged: noticed after {} ms", wait(&[2])?.as_millis());
        Ok(())
    })?;
    tell("a cable is out", &unplugged);
    Ok(())
}

/// Streams from the VM to the world while `change` takes router 1 away; all of them go on after it.
fn under_traffic(
    racks: &Racks,
    guest: &serval_tests::netns::Namespace,
    change: impl FnOnce(&Racks) -> Result<()>,
) -> Result<Vec<Account>> {
    let streams: Vec<Stream> = (0..STREAMS)
        .map(|i| Stream::start(guest, &racks.world, WORLD, 7_000 + i, RATE))
        .collect::<Result<_>>()?;
    let advance = || -> Result<[u64; 2]> {
        let before = racks.forwarded()?;
        Stream::advance_all(&streams, STEP)?;
        let after = racks.forwarded()?;
        Ok([after[0] - before[0], after[1] - before[1]])
    };
    let spread = advance()?;
    ensure!(spread.iter().all(|&share| share >= STEP / 2), "all by one router: {spread:?}");
    change(racks)?;
    advance()?;
    let left = advance()?;
    // Some of those that arrived may have been under way before the look.
    let least = (STEP - 5) * u64::from(STREAMS);
    ensure!(left[0] == 0 && left[1] >= least, "not all by router 2: {left:?}");
    Stream::finish_all(streams)
}

fn tell(what: &str, accounts: &[Account]) {
    let lost: u64 = accounts.iter().map(|account| account.sent - account.received).sum();
    let sent: u64 = accounts.iter().map(|account| account.sent).sum();
    let hit = accounts.iter().filter(|account| account.sent != account.received).count();
    println!("{what}: {lost} of {sent} datagrams lost, of {hit} of {STREAMS} flows");
}
