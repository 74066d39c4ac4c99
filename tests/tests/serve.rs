//! DHCPv6 and router advertisements of the daemon, without the fast path: the serving half alone, on real TAPs.

use anyhow::{Context, Result, ensure};
use serval::config::Duid;
use serval::plan::{Attached, NetworkSettings};
use serval::resource::{HostAddress, MacAddress};
use serval::serve::{Endpoints, ServeStats, Server, advertise};
use serval_tests::frame::{
    GATEWAY_MAC, Ipv6, Mac, Payload, checksum_holds, icmpv6_type, link_local, mac_text, multicast_mac,
    solicited_node, source_link_layer,
};
use serval_tests::guest::{KernelGuest, RawGuest, Settings, dhclient, dhcpcd};
use serval_tests::netns::Namespace;
use serval_tests::tap::Options;
use serval_tests::wait::eventually;
use serval_tests::{process, require_rig, traffic};
use std::collections::BTreeMap;
use std::net::{Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::watch;

const MAC: Mac = [0xfa, 0x16, 0x3e, 0, 0, 0x0a];
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const SECOND: Duration = Duration::from_secs(1);

fn address(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
}

/// A server on a runtime of its own inside `host`.
struct Serving {
    server: Server,
    endpoints: watch::Sender<Endpoints>,
    _runtime: Runtime,
}

impl Serving {
    fn start(host: &Namespace, endpoints: Vec<Attached>) -> Result<Self> {
        // The runtime's threads are born here and so live in the namespace.
        host.enter(|| {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            let (endpoints, receiver) = watch::channel(by_ifindex(endpoints));
            let server = {
                let _context = runtime.enter();
                Server::start(receiver, Duid::default())
            };
            Ok(Self { server, endpoints, _runtime: runtime })
        })
    }

    fn set(&self, endpoints: Vec<Attached>) -> Result<()> {
        self.endpoints.send(by_ifindex(endpoints)).context("the server has ended")
    }

    fn stats(&self, ifindex: u32) -> Result<ServeStats> {
        self.server.stats(ifindex).with_context(|| format!("interface {ifindex} is not served"))
    }
}

fn by_ifindex(endpoints: Vec<Attached>) -> Endpoints {
    Arc::new(endpoints.into_iter().map(|endpoint| (endpoint.ifindex, endpoint)).collect::<BTreeMap<_, _>>())
}

fn host() -> Result<Arc<Namespace>> {
    let host = Arc::new(Namespace::new("serve")?);
    host.set_sysctl("net/ipv6/conf/all/forwarding", 1)?;
    host.set_sysctl("net/ipv6/conf/default/accept_dad", 0)?;
    Ok(host)
}

fn endpoint(host: &Namespace, tap: &str, leased: &[u16]) -> Result<Attached> {
    let leased: Vec<HostAddress> =
        leased.iter().map(|last| HostAddress::new(address(*last))).collect::<Result<_, _>>()?;
    let gateway_mac = MacAddress::new(GATEWAY_MAC)?;
    Ok(Attached {
        interface: tap.parse()?,
        ifindex: host.ifindex(tap)?.with_context(|| format!("there is no {tap}"))?,
        admin_up: true,
        carrier: true,
        mtu: 1500,
        mac: MacAddress::new(MAC)?,
        gateway_mac,
        gateway: gateway_mac.link_local(),
        gateways: vec![],
        addresses: leased.clone(),
        leased,
        network: NetworkSettings {
            dns_servers: vec![address(0x53)],
            search_domains: vec!["openstack.example".to_owned()],
            ..NetworkSettings::default()
        },
    })
}

fn raw_guest(host: &Arc<Namespace>, tap: &str) -> Result<RawGuest> {
    RawGuest::new(host, tap, MAC, Options::default())
}

fn from_vm(destination: Ipv6Addr) -> Ipv6 {
    Ipv6 {
        source: link_local(MAC),
        destination,
        hop_limit: 255,
        ..Ipv6::new(MAC, multicast_mac(destination))
    }
}

fn solicit(guest: &RawGuest) -> Result<()> {
    let message = [1, 0xab, 0xcd, 0xef, 0, 1, 0, 3, 0, 3, 9, 0, 3, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    guest.send(&from_vm(SERVERS).carrying(Payload::udp(546, 547, &message)))
}

fn is_dhcp6(frame: &[u8]) -> bool {
    frame[20] == 17 && frame[54..58] == [2, 0x23, 2, 0x22]
}

fn is_advertisement(frame: &[u8]) -> bool {
    icmpv6_type(frame) == Some(134)
}

#[test]
fn a_kernel_guest_gets_its_route_and_dhclient_its_address() -> Result<()> {
    require_rig!();
    let host = host()?;
    let guest = KernelGuest::new(&host, Settings::new("tapa", MAC))?;
    let endpoint = endpoint(&host, "tapa", &[0xa, 0xb])?;
    let serving = Serving::start(&host, vec![endpoint.clone()])?;
    guest.boot()?;
    let route = guest.wait_default_route(10 * SECOND)?;
    ensure!(route["expires"].as_u64().is_some_and(|seconds| (8_900..=9_000).contains(&seconds)), "{route}");
    ensure!(guest.addresses()?.is_empty(), "an address came from SLAAC");

    let client = dhclient(&guest)?;
    guest.wait_address(address(0xa), 20 * SECOND).with_context(|| client.log().join("\n"))?;
    guest.wait_address(address(0xb), 5 * SECOND).with_context(|| client.log().join("\n"))?;
    let stats = serving.stats(endpoint.ifindex)?;
    // Solicit and Request.
    ensure!(stats.dhcp6_replies >= 2 && stats.dhcp6_discarded == 0, "{stats:?}");
    ensure!(stats.router_expires_in.is_some_and(|seconds| seconds > 8_900), "{stats:?}");
    Ok(())
}

#[test]
fn dhcpcd_gets_route_and_address() -> Result<()> {
    require_rig!();
    let host = host()?;
    let guest = KernelGuest::new(&host, Settings::new("tapa", MAC))?;
    let _serving = Serving::start(&host, vec![endpoint(&host, "tapa", &[0xa])?])?;
    guest.boot()?;
    let client = dhcpcd(&guest)?;
    guest.wait_address(address(0xa), 20 * SECOND).with_context(|| client.log().join("\n"))?;
    guest.wait_default_route(10 * SECOND)?;
    Ok(())
}

#[test]
fn a_change_is_advertised_at_once_and_an_old_gateway_withdrawn() -> Result<()> {
    require_rig!();
    let host = host()?;
    let guest = raw_guest(&host, "tapa")?;
    let old = endpoint(&host, "tapa", &[])?;
    let serving = Serving::start(&host, vec![old.clone()])?;
    let (_, first) = guest.receive("an advertisement", is_advertisement)?;
    assert_eq!(first, advertise::render(&old));

    // What was just sent is not due for 16 s, so this one comes of the change.
    let leased = endpoint(&host, "tapa", &[0xa])?;
    serving.set(vec![leased.clone()])?;
    let (_, second) = guest.receive("an advertisement", is_advertisement)?;
    assert_eq!(second, advertise::render(&leased));
    ensure!(checksum_holds(&second));

    let mut moved = leased.clone();
    moved.gateway_mac = "fe:16:3e:00:00:01".parse()?;
    moved.gateway = moved.gateway_mac.link_local();
    serving.set(vec![moved.clone()])?;
    let (_, withdrawal) = guest.receive("an advertisement", is_advertisement)?;
    assert_eq!(withdrawal, advertise::render_withdrawal(&leased));
    let (_, third) = guest.receive("an advertisement", is_advertisement)?;
    assert_eq!(third, advertise::render(&moved));
    Ok(())
}

#[test]
fn a_solicitation_that_no_hook_answers_is_answered() -> Result<()> {
    require_rig!();
    let host = host()?;
    let guest = raw_guest(&host, "tapa")?;
    let endpoint = endpoint(&host, "tapa", &[0xa])?;
    let serving = Serving::start(&host, vec![endpoint.clone()])?;
    guest.receive("the first advertisement", is_advertisement)?;

    let rs = Payload::router_solicitation(&[]);
    guest.send(&from_vm(ALL_ROUTERS).carrying(rs.clone()))?;
    let (_, answer) = guest.receive("an advertisement", is_advertisement)?;
    ensure!(answer[..6] == MAC && answer[38..54] == link_local(MAC).octets(), "{answer:02x?}");
    ensure!(checksum_holds(&answer));

    let unspecified = Ipv6 { source: Ipv6Addr::UNSPECIFIED, ..from_vm(ALL_ROUTERS) };
    guest.send(&unspecified.carrying(rs.clone()))?;
    // Within 3 s of the first one, not within its 16.
    let answer = eventually("a multicast advertisement", 4 * SECOND, || {
        Ok(guest.drain()?.into_iter().find(|frame| is_advertisement(frame)))
    })?;
    ensure!(answer[38..54] == ALL_NODES.octets());

    let forwarded = Ipv6 { hop_limit: 254, ..from_vm(ALL_ROUTERS) };
    guest.send(&forwarded.carrying(rs))?;
    // A DHCPv6 reply shows that the daemon had its chance.
    solicit(&guest)?;
    guest.receive("a DHCPv6 reply", is_dhcp6)?;
    let stats = serving.stats(endpoint.ifindex)?;
    assert_eq!((stats.router_advertisements, stats.solicitations_answered), (3, 2));
    Ok(())
}

#[test]
fn requests_leave_no_neighbours() -> Result<()> {
    require_rig!();
    let host = host()?;
    let guest = raw_guest(&host, "tapa")?;
    let _serving = Serving::start(&host, vec![endpoint(&host, "tapa", &[0xa])?])?;
    guest.receive("the first advertisement", is_advertisement)?;
    solicit(&guest)?;
    let (_, reply) = guest.receive("a DHCPv6 reply", is_dhcp6)?;
    ensure!(reply[..6] == MAC && checksum_holds(&reply));
    let neighbours = host.ip("-6 neighbour show dev tapa nud all")?;
    ensure!(!neighbours.contains(&link_local(MAC).to_string()), "{neighbours}");
    Ok(())
}

#[test]
fn a_tap_that_returns_is_served() -> Result<()> {
    require_rig!();
    let host = host()?;
    let first = raw_guest(&host, "tapa")?;
    let before = endpoint(&host, "tapa", &[0xa])?;
    let serving = Serving::start(&host, vec![before.clone()])?;
    first.receive("the first advertisement", is_advertisement)?;
    drop(first);
    eventually("the end of tapa", SECOND, || Ok(host.ifindex("tapa")?.is_none().then_some(())))?;

    let second = raw_guest(&host, "tapa")?;
    let after = endpoint(&host, "tapa", &[0xa])?;
    ensure!(after.ifindex != before.ifindex);
    serving.set(vec![after])?;
    second.receive("the first advertisement", is_advertisement)?;
    solicit(&second)?;
    second.receive("a DHCPv6 reply", is_dhcp6)?;
    ensure!(serving.server.stats(before.ifindex).is_none());
    Ok(())
}

#[test]
fn a_port_that_is_taken_is_a_problem_until_it_is_free() -> Result<()> {
    require_rig!();
    let host = host()?;
    let guest = raw_guest(&host, "tapa")?;
    let other_server = host.enter(|| Ok(UdpSocket::bind("[::]:547")?))?;
    let serving = Serving::start(&host, vec![endpoint(&host, "tapa", &[0xa])?])?;
    guest.receive("the first advertisement, whatever DHCPv6 does", is_advertisement)?;
    let problems = eventually("a problem", SECOND, || {
        let problems = serving.server.problems();
        Ok((!problems.is_empty()).then_some(problems))
    })?;
    ensure!(problems[0].contains("port 547") && problems[0].contains("in use"), "{problems:?}");
    drop(other_server);
    eventually("no problem", 3 * SECOND, || Ok(serving.server.problems().is_empty().then_some(())))?;
    solicit(&guest)?;
    guest.receive("a DHCPv6 reply", is_dhcp6)?;
    Ok(())
}

#[test]
fn a_flood_is_ignored_and_harms_no_other() -> Result<()> {
    require_rig!();
    let host = host()?;
    let (hostile, other) = (raw_guest(&host, "tapa")?, raw_guest(&host, "tapb")?);
    let endpoints = [endpoint(&host, "tapa", &[0xa])?, endpoint(&host, "tapb", &[0xb])?];
    let serving = Serving::start(&host, endpoints.to_vec())?;
    other.receive("the first advertisement", is_advertisement)?;
    let start = Instant::now();
    for _ in 0..20_000 {
        solicit(&hostile)?;
    }
    solicit(&other)?;
    other.receive("a DHCPv6 reply", is_dhcp6)?;
    let stats = serving.stats(endpoints[0].ifindex)?;
    let allowed = 50 + 20 * (start.elapsed().as_secs() + 1);
    ensure!(stats.dhcp6_replies <= allowed && stats.rate_limited > 1_000, "{allowed} allowed: {stats:?}");
    println!("{:?}: {stats:?}", start.elapsed());
    Ok(())
}

/// An address as an old dhclient sets it up: /64, so that the guest solicits its neighbours instead of its router.
fn on_link_guest(host: &Arc<Namespace>, tap: &str, mac: Mac, last: u16) -> Result<(KernelGuest, Attached)> {
    let guest = KernelGuest::new(host, Settings::new(tap, mac))?;
    guest.boot()?;
    let address = address(last);
    guest.namespace.ip(&format!("address add {address}/64 dev eth0 nodad"))?;
    host.ip(&format!("route add {address}/128 dev {tap}"))?;
    host.ip(&format!("neighbour add {address} lladdr {} dev {tap} nud permanent", mac_text(mac)))?;
    let endpoint = Attached { mac: MacAddress::new(mac)?, ..endpoint(host, tap, &[last])? };
    Ok((guest, endpoint))
}

#[test]
fn guests_that_believe_in_an_on_link_prefix_reach_each_other() -> Result<()> {
    require_rig!();
    let host = host()?;
    let (a, endpoint_a) = on_link_guest(&host, "tapa", MAC, 0xa)?;
    let (b, endpoint_b) = on_link_guest(&host, "tapb", [0xfa, 0x16, 0x3e, 0, 0, 0x0b], 0xb)?;
    let ping = |from: &KernelGuest, last| {
        traffic::ping(&from.namespace, address(last), 3, Duration::from_millis(10))
    };
    let alone = ping(&a, 0xb)?;
    ensure!(alone.received == 0, "the kernel alone answers for neighbours: {alone:?}");
    eventually("the end of the search for a neighbour", 5 * SECOND, || {
        let neighbour = a.namespace.ip(&format!("-6 neighbour show {} dev eth0", address(0xb)))?;
        Ok(neighbour.contains("FAILED").then_some(()))
    })?;

    let serving = Serving::start(&host, vec![endpoint_a.clone(), endpoint_b.clone()])?;
    for guest in [&a, &b] {
        guest.wait_default_route(5 * SECOND)?;
    }
    for round in ["at first", "with the neighbours forgotten"] {
        for (from, last) in [(&a, 0xb), (&b, 0xa)] {
            let ping = ping(from, last)?;
            ensure!(ping.received == 3, "{round}: {ping:?}");
        }
        for guest in [&a, &b] {
            guest.namespace.ip("-6 neighbour flush dev eth0")?;
        }
    }
    for endpoint in [endpoint_a, endpoint_b] {
        let stats = serving.stats(endpoint.ifindex)?;
        ensure!(stats.neighbours_answered >= 2, "{stats:?}");
    }
    Ok(())
}

/// The socket comes after TC, so with hooks on nothing is answered twice.
#[test]
fn a_neighbour_solicitation_that_a_hook_takes_is_left_to_it() -> Result<()> {
    require_rig!();
    let host = host()?;
    let (guest, _other) = (raw_guest(&host, "tapa")?, raw_guest(&host, "tapb")?);
    let endpoints = vec![endpoint(&host, "tapa", &[0xa])?, endpoint(&host, "tapb", &[0xb, 0xc])?];
    let serving = Serving::start(&host, endpoints.clone())?;
    guest.receive("the first advertisement", is_advertisement)?;
    let solicit = |target| {
        let solicitation = Payload::neighbour_solicitation(target, &[source_link_layer(MAC)]);
        guest.send(&from_vm(solicited_node(target)).carrying(solicitation))
    };
    host.run("tc qdisc add dev tapa clsact")?;
    // A program of one instruction: return TC_ACT_SHOT.
    let mut take_all = host.command("tc");
    take_all.args(["filter", "add", "dev", "tapa", "ingress", "bpf", "da", "bytecode", "1,6 0 0 2"]);
    process::run(take_all)?;
    solicit(address(0xb))?;
    host.run("tc filter delete dev tapa ingress")?;
    solicit(address(0xc))?;
    let (_, answer) = guest.receive("a neighbour advertisement", |frame| icmpv6_type(frame) == Some(136))?;
    ensure!(answer[62..78] == address(0xc).octets() && checksum_holds(&answer), "{answer:02x?}");
    eventually("the answer counted", SECOND, || {
        Ok((serving.stats(endpoints[0].ifindex)?.neighbours_answered == 1).then_some(()))
    })
}

/// With little option memory, a socket holds some ten memberships: as 1,100 TAPs have it with the default.
#[test]
fn memberships_spread_over_sockets() -> Result<()> {
    require_rig!();
    let host = host()?;
    if let Err(error) = host.set_sysctl("net/core/optmem_max", 1024) {
        eprintln!("skipped: this kernel has no optmem_max of its own for a namespace: {error:#}");
        return Ok(());
    }
    let guests: Vec<RawGuest> =
        (0..40).map(|n| raw_guest(&host, &format!("tap{n}"))).collect::<Result<_>>()?;
    let endpoints: Vec<Attached> =
        (0..40).map(|n| endpoint(&host, &format!("tap{n}"), &[n])).collect::<Result<_>>()?;
    let serving = Serving::start(&host, endpoints.clone())?;
    for guest in &guests {
        guest.receive("the first advertisement", is_advertisement)?;
        solicit(guest)?;
        guest.receive("a DHCPv6 reply", is_dhcp6)?;
    }
    ensure!(serving.server.problems().is_empty(), "{:?}", serving.server.problems());
    // The frame may be here before it is counted. Two would mean that two sockets heard the request.
    for endpoint in endpoints {
        let name = &endpoint.interface;
        eventually(&format!("{name}: one reply"), SECOND, || {
            Ok((serving.stats(endpoint.ifindex)?.dhcp6_replies > 0).then_some(()))
        })?;
        assert_eq!(serving.stats(endpoint.ifindex)?.dhcp6_replies, 1, "{name}");
    }
    Ok(())
}
