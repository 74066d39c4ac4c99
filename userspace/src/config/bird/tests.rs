//! What the section says whole, what it says when nearly nothing is written, and every refusal.

use crate::config::{Bfd, BirdConfig, Config, Unassigned};
use crate::resource::{Community, NextHop};
use std::path::Path;

fn parse(text: &str) -> Result<BirdConfig, String> {
    let config = Config::parse(Path::new("f"), text.as_bytes()).map_err(|error| error.to_string())?;
    config.bird.ok_or_else(|| "no [bird]".to_owned())
}

#[test]
fn the_section_is_what_makes_a_host_speak_bgp() {
    assert_eq!(Config::parse(Path::new("f"), b"").unwrap().bird, None);
    let config = parse("[bird]").unwrap();
    assert_eq!(config, BirdConfig::default());
    assert_eq!(config.networks.len(), 2);
    assert!(config.start && config.mesh.enabled && config.graceful_restart.enabled);
}

#[test]
fn a_whole_section() {
    let config = parse(
        r#"
        [bird]
        start = false
        executable = "/opt/bird/bird"
        control_socket = "/run/bird.ctl"
        as = "1.10"
        router_id = "192.0.2.7"
        address = "2001:db8:ffff::7"
        port = 1790
        cluster_id = "192.0.2.250"
        networks = ["2001:db8::/32"]
        max_paths = 1
        secrets = "/etc/secrets"
        extra = "/etc/serval/bird.extra"
        [bird.mesh]
        enabled = false
        password_file = "/etc/serval/mesh"
        bfd = "graceful"
        hold = 30
        [bird.graceful_restart]
        enabled = false
        time = 30
        wait = 20
        [bird.bfd]
        interval = 100
        multiplier = 5
        [[bird.aggregates]]
        prefix = "2001:db8:1::/64"
        [[bird.aggregates]]
        prefix = "2001:db8:2::/48"
        shared = true
        unassigned = "blackhole"
        [[bird.communities]]
        prefix = "2001:db8::/32"
        communities = ["64512:1", "64512:1:2"]
        [[bird.peers]]
        name = "tor1"
        address = "fe80::1"
        interface = "eth0"
        as = 65000
        accept = ["::/0"]
        bfd = true
        [[bird.peers]]
        name = "rr"
        address = "2001:db8:ffff::1"
        next_hop = "keep"
        multihop = 3
        ttl_security = true
        passive = true
        "#,
    )
    .unwrap();
    assert_eq!(config.as_number.get(), 65_546);
    assert_eq!(config.aggregates[1].unassigned, Unassigned::Blackhole);
    assert_eq!(
        config.communities[0].communities,
        [Community::Standard(64_512, 1), Community::Large(64_512, 1, 2)]
    );
    assert_eq!(config.mesh.bfd, Bfd::Graceful);
    let [tor, rr] = &config.peers[..] else { panic!("{:?}", config.peers) };
    assert_eq!(
        (tor.bfd, tor.port, tor.hold, tor.as_number.map(|n| n.get())),
        (Bfd::On, 179, 90, Some(65_000))
    );
    assert_eq!((rr.next_hop, rr.multihop, rr.as_number), (NextHop::Keep, Some(3), None));
}

#[test]
fn a_mistake_says_where_and_what_is_right() {
    for (text, expected) in [
        ("as = 0", "2:6: bird.as: AS 0 is reserved; private ones are 64512 to 65534"),
        ("as = 4294967296", "2:6: bird.as: `4294967296` is no AS number; write one like 64512"),
        ("as = true", "2:6: bird.as: invalid type: boolean `true`, expected an AS number like 64512"),
        (
            "router_id = '0.0.0.0'",
            "2:13: bird.router_id: `0.0.0.0` is no BGP identifier; write one like 192.0.2.1",
        ),
        (
            "router_id = 'fd00::1'",
            "2:13: bird.router_id: `fd00::1` is no BGP identifier; write one like 192.0.2.1",
        ),
        (
            "address = 'fe80::1'",
            "2:11: bird.address: `fe80::1` is a link-local address, which is not routed; give a global or unique local unicast address",
        ),
        (
            "address = '192.0.2.1'",
            "2:11: bird.address: `192.0.2.1` is no IPv6 address; write one like 2001:db8::1",
        ),
        ("port = 0", "2:8: bird.port: 0 is out of range: 1 to 65535"),
        ("max_paths = 256", "2:13: bird.max_paths: 256 is out of range: 1 to 255 paths"),
        (
            "networks = []",
            "2:12: bird.networks: no network at all would announce nothing; remove the key to mean all",
        ),
        (
            "networks = ['::/0']",
            "2:12: bird.networks: `::/0` is no network of VMs; give global or unique local ones",
        ),
        (
            "networks = ['2001:db8::1/64']",
            "2:12: bird.networks: `2001:db8::1/64` has bits after the prefix; write 2001:db8::/64",
        ),
        ("extra = 'bird.conf'", "2:9: bird.extra: `bird.conf` is not an absolute path; begin it with /"),
        (
            "extra = '/etc/*.conf'",
            "2:9: bird.extra: `/etc/*.conf` is a path that BIRD cannot be told; use one without quotes, `*`, `?`, `[` and `\\`",
        ),
        ("mesh.hold = 2", "2:13: bird.mesh.hold: 2 is out of range: 3 to 65535 seconds"),
        (
            "mesh.bfd = 'on'",
            "2:12: bird.mesh.bfd: invalid value: string \"on\", expected true, false or \"graceful\"",
        ),
        (
            "graceful_restart.time = 4096",
            "2:25: bird.graceful_restart.time: 4096 is out of range: 1 to 4095 seconds",
        ),
        ("bfd.multiplier = 1", "2:18: bird.bfd.multiplier: 1 is out of range: 2 to 255"),
        (
            "aggregates = [{ prefix = '::/0' }]",
            "2:26: bird.aggregates[0].prefix: `::/0` is no aggregate of VMs' addresses; give a global or unique local network of length 16 to 127",
        ),
        (
            "aggregates = [{ prefix = '2001:db8::1/128' }]",
            "2:26: bird.aggregates[0].prefix: `2001:db8::1/128` is no aggregate of VMs' addresses; give a global or unique local network of length 16 to 127",
        ),
        (
            "communities = [{ prefix = '2001:db8::/32', communities = ['1'] }]",
            "2:58: bird.communities[0].communities: `1` is no community; write one like 64512:100 (16 bits each) or 64512:100:1 (32 bits each)",
        ),
        (
            "peers = [{ name = 'a b', address = 'fd00::1' }]",
            "2:19: bird.peers[0].name: `a b` is no peer's name: 1 to 64 letters, digits, `-`, `_` or `.`",
        ),
        ("peers = [{ name = 'a' }]", "2:10: bird.peers[0]: missing field `address`"),
        (
            "peers = [{ name = 'a', address = 'fe80::1' }]",
            "2:9: bird.peers[0]: peer `a`: a link-local address needs its `interface`",
        ),
        (
            "peers = [{ name = 'a', address = 'fd00::1', interface = 'eth0' }]",
            "2:9: bird.peers[0]: peer `a`: `interface` goes with a link-local address only; remove it",
        ),
        (
            "peers = [{ name = 'a', address = 'fe80::1', interface = 'e\"0' }]",
            "2:57: bird.peers[0].interface: `e\"0` is a name that BIRD cannot be told",
        ),
        (
            "peers = [{ name = 'a', address = 'fd00::1' }, { name = 'a', address = 'fd00::2' }]",
            "2:9: bird.peers: peer `a` is listed twice",
        ),
        (
            "peers = [{ name = 'a', address = 'fd00::1' }, { name = 'b', address = 'fd00::1' }]",
            "2:9: bird.peers: peers `a` and `b` have the same address; BGP has one session with a neighbour",
        ),
        (
            "peers = [{ name = 'a', address = 'fd00::1', next_hop = 'me' }]",
            "2:56: bird.peers[0].next_hop: unknown variant `me`, expected one of `standard`, `self`, `keep`",
        ),
        (
            "peers = [{ name = 'a', address = 'fd00::1', password = 'x' }]",
            "2:45: bird.peers[0].password: unknown field `password`,",
        ),
    ] {
        let error = parse(&format!("[bird]\n{text}")).unwrap_err();
        assert!(error.starts_with(&format!("f:{expected}")), "{text}\n  {error}\n  {expected}");
    }
}
