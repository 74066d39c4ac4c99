//! Several next hops: flows are spread by the kernel's weights, and stay where they are as long as the next hops do.

use crate::rig::{FAR_PREFIX, Scene, connect, neighbour, out, routed};
use anyhow::{Context, Result, ensure};
use serval_tests::frame::{Checksum, Ipv6, Mac, Payload, addresses};
use serval_tests::host::PATIENCE;
use serval_tests::require_rig;
use serval_tests::wait::eventually;
use serval_tests::wire::Wire;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

/// Flows that are sent, one frame each; the source port tells them apart. None is that of a DHCPv6 server.
const FLOWS: RangeInclusive<u16> = 1001..=4000;
/// As many are under way at a time: a veth holds 256.
const BATCH: usize = 64;
const WEIGHTS: [u32; 3] = [1, 2, 3];

/// Host and VM, with next hop n on the uplink `up<n>`.
struct Fan {
    scene: Scene,
    /// The far ends of `up1` and `up2`; that of `up0` is the scene's.
    more: Vec<Wire>,
}

/// Which next hop each flow took, by its source port.
type Ways = BTreeMap<u16, usize>;

fn hop(n: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xfab, n as u16, 0, 0, 0, 2)
}

fn near_mac(n: usize) -> Mac {
    [2, 0, 0, 0, 2, n as u8]
}

fn far_mac(n: usize) -> Mac {
    [2, 0, 0, 0, 3, n as u8]
}

impl Fan {
    /// All next hops are known, and no route leads to them yet.
    fn new(label: &str) -> Result<Self> {
        let scene = Scene::new(label, "")?;
        let host = &scene.host.namespace;
        let mut more = Vec::new();
        for n in 1..WEIGHTS.len() {
            more.push(connect(host, &format!("up{n}"), near_mac(n), far_mac(n))?);
        }
        let fan = Self { scene, more };
        for n in 0..WEIGHTS.len() {
            fan.know(n)?;
        }
        Ok(fan)
    }

    /// The hosts' address towards next hop n, which is known.
    fn know(&self, n: usize) -> Result<()> {
        let host = &self.scene.host.namespace;
        host.ip(&format!("address replace 2001:db8:fab:{n}::1/64 dev up{n} nodad"))?;
        host.ip(&neighbour(hop(n), self.mac(n), &format!("up{n}"))).map(drop)
    }

    fn wire(&self, n: usize) -> &Wire {
        if n == 0 { &self.scene.wire } else { &self.more[n - 1] }
    }

    fn mac(&self, n: usize) -> Mac {
        self.wire(n).mac
    }

    /// What is far is behind these next hops, by their weights.
    fn route(&self, hops: &[usize]) -> Result<()> {
        let paths = hops.iter().map(|n| format!("nexthop via {} dev up{n} weight {}", hop(*n), WEIGHTS[*n]));
        let paths = paths.collect::<Vec<_>>().join(" ");
        self.scene.host.namespace.ip(&format!("-6 route replace {FAR_PREFIX} {paths}"))?;
        self.scene.wait_route(FAR_PREFIX, (hops.len(), hops.len()))
    }

    /// Sends a frame of each flow; all of them arrive, exact.
    fn send(&self, headers: &Ipv6, flows: impl IntoIterator<Item = u16>) -> Result<Ways> {
        let mut ways = Ways::new();
        let flows: Vec<u16> = flows.into_iter().collect();
        for batch in flows.chunks(BATCH) {
            for port in batch {
                self.scene.guest.send(&headers.carrying(Payload::udp(*port, 7, b"flow")))?;
            }
            let mut missing: BTreeSet<u16> = batch.iter().copied().collect();
            let collect = || {
                for n in 0..WEIGHTS.len() {
                    while let Some(frame) = self.wire(n).read()? {
                        // Others may be of an earlier time, when the kernel kept them for a neighbour to answer.
                        let ours = addresses(&frame) == Some((headers.source, headers.destination));
                        if !ours || !frame.ends_with(b"flow") {
                            continue;
                        }
                        let port = u16::from_be_bytes([frame[54], frame[55]]);
                        if missing.remove(&port) {
                            self.check(headers, port, n, &frame)?;
                            ways.insert(port, n);
                        }
                    }
                }
                Ok(missing.is_empty().then_some(()))
            };
            eventually("every flow's frame", PATIENCE, collect)
                .with_context(|| format!("{} arrived, {missing:?} did not", ways.len()))?;
        }
        Ok(ways)
    }

    fn check(&self, headers: &Ipv6, port: u16, n: usize, frame: &[u8]) -> Result<()> {
        let sent = headers.carrying(Payload::udp(port, 7, b"flow"));
        let source = frame[6..12].try_into()?;
        ensure!(n == 0 || source == near_mac(n), "up{n} sends as {source:02x?}");
        ensure!(frame == routed(&sent.bytes, source, self.mac(n)), "up{n}: {frame:02x?}");
        Ok(())
    }

    /// The kernel gets all of these, and nobody else does.
    fn kernel_has(&self, flows: &[u16]) -> Result<()> {
        let counted = self.scene.counting(|| {
            for port in flows {
                self.scene.guest.send(&out().carrying(Payload::udp(*port, 7, b"kept")))?;
            }
            // A TAP takes a frame within the write.
            Ok(())
        })?;
        ensure!(
            counted.passed == flows.len() as u64 && counted.forwarded_xdp + counted.forwarded_tc == 0,
            "{} flows: {counted:?}",
            flows.len()
        );
        Ok(())
    }
}

/// Flows by next hop.
fn count(ways: &Ways) -> [usize; WEIGHTS.len()] {
    let mut counts = [0; WEIGHTS.len()];
    ways.values().for_each(|n| counts[*n] += 1);
    counts
}

fn of(ways: &Ways, n: usize) -> Vec<u16> {
    ways.iter().filter(|(_, way)| **way == n).map(|(port, _)| *port).collect()
}

/// Each has its share; five standard deviations are allowed, so by chance one in a million runs fails, and as the hash
/// is what it is, none.
fn shares(what: &str, ways: &Ways, hops: &[usize]) -> Result<()> {
    let total: u32 = hops.iter().map(|n| WEIGHTS[*n]).sum();
    let counts = count(ways);
    println!("{what}: {counts:?} of {} flows by weights {WEIGHTS:?} of {hops:?}", ways.len());
    for (n, found) in counts.into_iter().enumerate() {
        let share = if hops.contains(&n) { f64::from(WEIGHTS[n]) / f64::from(total) } else { 0.0 };
        let expected = ways.len() as f64 * share;
        let deviation = (expected * (1.0 - share)).sqrt();
        ensure!(
            (found as f64 - expected).abs() <= 5.0 * deviation,
            "{what}: up{n} has {found}, not {expected}"
        );
    }
    Ok(())
}

/// How many flows went elsewhere.
fn moved(before: &Ways, after: &Ways) -> usize {
    before.iter().filter(|(port, way)| after.get(port).is_some_and(|now| now != *way)).count()
}

#[test]
fn flows_are_spread_by_the_kernels_weights_and_stay() -> Result<()> {
    require_rig!();
    let mut fan = Fan::new("spread")?;
    fan.route(&[0, 1, 2])?;
    let ways = fan.send(&out(), FLOWS)?;
    shares("three", &ways, &[0, 1, 2])?;

    ensure!(fan.send(&out(), FLOWS)? == ways, "a flow changed its next hop");
    // TC, which carries what XDP cannot see to be whole, chooses the same.
    let counted = fan.scene.counted()?;
    let open = Ipv6 { checksum: Checksum::Wrong(0), ..out() };
    let by_tc = fan.send(&open, FLOWS.step_by(10))?;
    ensure!(fan.scene.counted()?.forwarded_tc - counted.forwarded_tc == by_tc.len() as u64, "not by TC");
    ensure!(moved(&ways, &by_tc) == 0, "TC chooses otherwise than XDP");
    // What has nothing to do with it changes nothing: other routes, a MAC, an audit, another daemon.
    let host = fan.scene.host.namespace.clone();
    host.ip(&format!("route add 2001:db8:78::/48 via {} dev up1", hop(1)))?;
    fan.scene.wait_route("2001:db8:78::/48", (1, 1))?;
    ensure!(fan.send(&out(), FLOWS)? == ways, "a flow changed its next hop with another route");
    fan.scene.host.stop()?;
    ensure!(fan.send(&out(), FLOWS)? == ways, "a flow changed its next hop without a daemon");
    fan.scene.host.start()?;
    fan.scene.wait_route(FAR_PREFIX, (3, 3))?;
    ensure!(fan.send(&out(), FLOWS)? == ways, "a flow changed its next hop with the next daemon");
    Ok(())
}

#[test]
fn a_next_hop_that_is_lost_takes_only_its_own_flows_along() -> Result<()> {
    require_rig!();
    let fan = Fan::new("lost")?;
    let host = fan.scene.host.namespace.clone();
    fan.route(&[0, 1, 2])?;
    let ways = fan.send(&out(), FLOWS)?;
    let others = || of(&ways, 0).into_iter().chain(of(&ways, 2));
    let stay = |what: &str| -> Result<()> {
        let after = fan.send(&out(), others())?;
        ensure!(moved(&ways, &after) == 0, "{what}: {} flows of others moved", moved(&ways, &after));
        Ok(())
    };
    let back = |what: &str| -> Result<()> {
        fan.scene.wait_route(FAR_PREFIX, (3, 3))?;
        ensure!(fan.send(&out(), FLOWS)? == ways, "{what}: not as before");
        Ok(())
    };

    // The kernel does not know its MAC any more, or finds it dead: its share is the kernel's at once.
    host.ip(&format!("neighbour replace {} dev up1 nud failed", hop(1)))?;
    fan.scene.wait_route(FAR_PREFIX, (2, 2))?;
    stay("failed")?;
    fan.kernel_has(&of(&ways, 1))?;
    fan.know(1)?;
    back("failed")?;

    // No carrier: the kernel still counts it in, so its share is the kernel's, too.
    fan.wire(1).namespace.ip("link set up1 down")?;
    fan.scene.wait_route(FAR_PREFIX, (2, 2))?;
    stay("no carrier")?;
    fan.kernel_has(&of(&ways, 1))?;
    fan.wire(1).namespace.ip("link set up1 up")?;
    back("no carrier")?;

    // Down: the kernel counts it out and gives its share to the others, by their weights (rt6_multipath_rebalance).
    host.ip("link set up1 down")?;
    fan.scene.wait_route(FAR_PREFIX, (2, 2))?;
    eventually("its share to be the others'", PATIENCE, || {
        Ok(fan.kernel_has(&of(&ways, 1)).is_err().then_some(()))
    })?;
    let after = fan.send(&out(), 4001..=7000)?;
    shares("down", &after, &[0, 2])?;
    // It is between the others in the order of hashes, so they keep theirs (RFC 2992 section 2).
    stay("down")?;
    Ok(())
}

#[test]
fn a_route_that_loses_a_next_hop_spreads_over_the_others() -> Result<()> {
    require_rig!();
    let fan = Fan::new("removed")?;
    fan.route(&[0, 1, 2])?;
    let ways = fan.send(&out(), FLOWS)?;
    let host = fan.scene.host.namespace.clone();
    // As BIRD does it: one next hop of several is taken out.
    host.ip(&format!("-6 route del {FAR_PREFIX} via {} dev up1", hop(1)))?;
    fan.scene.wait_route(FAR_PREFIX, (2, 2))?;
    let after = fan.send(&out(), FLOWS)?;
    shares("without the middle", &after, &[0, 2])?;
    let others: Ways = ways.iter().filter(|(_, way)| **way != 1).map(|(port, way)| (*port, *way)).collect();
    ensure!(moved(&others, &after) == 0, "{} flows of others moved", moved(&others, &after));

    fan.route(&[0, 1, 2])?;
    fan.route(&[1, 2])?;
    let after = fan.send(&out(), FLOWS)?;
    shares("without the first", &after, &[1, 2])?;
    // Where shares begin moves for all behind the first; a share grows at its end, so the last loses nothing.
    let last: Ways = ways.iter().filter(|(_, way)| **way == 2).map(|(port, way)| (*port, *way)).collect();
    println!("without the first: {} of {} flows moved", moved(&ways, &after), after.len());
    ensure!(moved(&last, &after) == 0, "{} flows of the last moved", moved(&last, &after));
    Ok(())
}

#[test]
fn next_hop_objects_spread_the_same_and_resilient_groups_are_the_kernels() -> Result<()> {
    require_rig!();
    let fan = Fan::new("objects")?;
    let host = fan.scene.host.namespace.clone();
    fan.route(&[0, 1, 2])?;
    let ways = fan.send(&out(), FLOWS)?;
    for n in 0..WEIGHTS.len() {
        host.ip(&format!("nexthop add id {} via {} dev up{n}", n + 1, hop(n)))?;
    }
    host.ip("nexthop add id 10 group 1,1/2,2/3,3")?;
    host.ip(&format!("-6 route replace {FAR_PREFIX} nhid 10"))?;
    fan.scene.wait_route(FAR_PREFIX, (3, 3))?;
    let objects = fan.send(&out(), FLOWS)?;
    ensure!(objects == ways, "{} flows moved", moved(&ways, &objects));

    host.ip("nexthop replace id 10 group 1,1/3,3")?;
    fan.scene.wait_route(FAR_PREFIX, (2, 2))?;
    shares("a smaller group", &fan.send(&out(), FLOWS)?, &[0, 2])?;

    host.ip("nexthop add id 11 group 1/2 type resilient buckets 8")?;
    host.ip(&format!("-6 route replace {FAR_PREFIX} nhid 11"))?;
    let route = eventually("the route with a resilient group", PATIENCE, || {
        Ok(fan.scene.host.route(FAR_PREFIX)?.filter(|route| !route.is_fast()))
    })?;
    println!("{}", route.reason());
    ensure!(route.reason() == "next hop object", "{route:?}");
    fan.kernel_has(&[1001, 1002, 1003])
}
