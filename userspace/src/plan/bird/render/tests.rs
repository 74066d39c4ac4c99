//! The whole text for one plan, and what differs when one thing is different. That BIRD takes it is tested with BIRD.

use super::*;
use crate::config::{BirdConfig, Config};
use crate::plan::bird::{Host, plan};
use crate::resource::Resources;
use std::path::Path;

const CONFIG: &str = "
[bird]
router_id = '192.0.2.1'
address = '2001:db8:ffff::1'
networks = ['2001:db8:1::/48']
aggregates = [{ prefix = '2001:db8:1:1::/64' }, { prefix = '2001:db8:1::/48', shared = true, unassigned = 'blackhole' }]
communities = [{ prefix = '2001:db8:1::/48', communities = ['64512:7', '64512:7:8'] }]
[[bird.peers]]
name = 'rr'
address = '2001:db8:ffff::2'
password_file = '/p'
bfd = 'graceful'
[[bird.peers]]
name = 'tor.1'
address = 'fe80::1'
interface = 'eth0'
as = 65000
accept = ['::/0']
next_hop = 'self'
allow_local_as = 1
hold = 9
";

fn planned(text: &str) -> BirdPlan {
    let config = Config::parse(Path::new("f"), text.as_bytes()).unwrap();
    let host = Host { node: "n1", tap_prefix: "tap" };
    plan(&config.bird.unwrap(), host, &Resources::default())
}

fn inputs() -> Inputs {
    let password = Password::of_file(b"secret").unwrap();
    Inputs { supervised: true, passwords: BTreeMap::from([("/p".into(), password)]), ..Inputs::default() }
}

fn text(config: &str) -> String {
    render(&planned(config), &inputs(), Dialect::Bird2, "r1")
}

/// The definition that begins like this.
fn part<'a>(text: &'a str, head: &str) -> &'a str {
    let start = text.find(&format!("\n{head}")).unwrap_or_else(|| panic!("no {head} in\n{text}")) + 1;
    let end = text[start..].find("\n}\n").unwrap() + 3;
    &text[start..start + end]
}

#[test]
fn the_whole_text_for_bird_2() {
    assert_eq!(text(CONFIG), include_str!("tests/bird2.conf"));
}

#[test]
fn bird_1_has_the_same_without_channels() {
    let old = render(&planned(CONFIG), &inputs(), Dialect::Bird1, "r1");
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut expected = words(include_str!("tests/bird2.conf"));
    let buffer = expected.iter().position(|word| word == "netlink").unwrap();
    expected.drain(buffer..buffer + 4);
    // `ipv6;` goes, and of `ipv6 { … };` the bracket.
    expected.retain(|word| word != "ipv6;");
    while let Some(start) = expected.iter().position(|word| word == "ipv6") {
        let mut depth = 0;
        let end = expected[start..].iter().position(|word| {
            depth += i32::from(word == "{") - i32::from(word.starts_with('}'));
            depth == 0 && word.starts_with('}')
        });
        expected.remove(start + end.unwrap());
        expected.drain(start..start + 2);
    }
    assert_eq!(words(&old), expected);
    let port = render(&planned("[bird]\nport = 1790"), &inputs(), Dialect::Bird1, "r1");
    assert!(port.contains("\nlisten bgp port 1790;\n"), "{port}");
}

#[test]
fn without_networks_everything_long_enough_is_a_vms() {
    let text = text("[bird]");
    assert!(text.contains("define serval_networks = [ 2000::/3{32,128}, fc00::/7{32,128} ];"), "{text}");
    assert_eq!(BirdConfig::default().networks.len(), 2);
}

#[test]
fn a_host_alone_has_neither_sessions_nor_their_filters() {
    let text = text("[bird]");
    for absent in
        ["protocol bgp", "protocol bfd", "protocol static", "serval_announce", "serval_accept", "include"]
    {
        assert!(!text.contains(absent), "{absent}: {text}");
    }
}

#[test]
fn a_session_without_its_password_is_left_out() {
    let plan = planned(CONFIG);
    let text = render(&plan, &Inputs::default(), Dialect::Bird2, "r1");
    assert!(!text.contains("peer_rr"), "{text}");
    assert!(text.contains("peer_tor_1"), "{text}");
}

#[test]
fn a_reflector_passes_on_what_its_own_as_announces() {
    let text = text(
        &CONFIG
            .replace("[bird]", "[bird]\ncluster_id = '192.0.2.250'")
            .replace("'/p'", "'/p'\nreflector_client = true"),
    );
    let inside = part(&text, "filter serval_announce_inside");
    assert!(
        inside.contains("if source = RTS_BGP && bgp_path.len = 0 && net ~ serval_networks then accept;"),
        "{inside}"
    );
    assert!(!part(&text, "filter serval_announce_outside").contains("RTS_BGP"));
    assert!(part(&text, "protocol bgp peer_rr").contains("  rr client;\n  rr cluster id 192.0.2.250;\n"));
}

#[test]
fn everything_can_be_turned_off() {
    let text = text(
        "[bird]\nmax_paths = 1\ngraceful_restart.enabled = false\npeers = [{ name = 'a', address = 'fd00::1' }]",
    );
    for absent in
        ["merge paths", "add paths", "graceful restart on", "graceful restart wait", "graceful restart time"]
    {
        assert!(!text.contains(absent), "{absent}: {text}");
    }
    assert!(part(&text, "protocol bgp peer_a").contains("graceful restart off;"));
}

#[test]
fn bfd_beyond_our_links_needs_an_address() {
    let config = "[bird]\npeers = [{ name = 'a', address = 'fd00::1', bfd = true }]";
    assert!(!text(config).contains("bfd on"));
    let sources = BTreeMap::from([("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())]);
    let text = render(&planned(config), &Inputs { sources, ..Inputs::default() }, Dialect::Bird2, "r1");
    let session = part(&text, "protocol bgp peer_a");
    assert!(session.contains("  local fd00::2 as 64512;\n") && session.contains("  bfd on;\n"), "{session}");
}

#[test]
fn a_session_waits_until_bfd_has_noticed_that_it_ended() {
    let of = |bfd: &str| {
        let config = format!(
            "[bird]\naddress = 'fd00::2'\nbfd.interval = 700\npeers = [{{ name = 'a', address = 'fd00::1', bfd = {bfd} }}]"
        );
        let text = text(&config);
        let delay = text.lines().find_map(|line| line.trim().strip_prefix("connect delay time "));
        delay.map(str::to_owned)
    };
    assert_eq!(of("false").as_deref(), Some("1;"));
    assert_eq!(of("true").as_deref(), Some("1;"));
    assert_eq!(of("'graceful'").as_deref(), Some("4;"), "three times 700 ms have passed for certain");
}

#[test]
fn the_extra_file_comes_last_with_a_sign_of_its_state() {
    let plan = planned("[bird]\nextra = '/etc/extra.conf'");
    let missing = render(&plan, &Inputs::default(), Dialect::Bird2, "r1");
    assert!(!missing.contains("include"));
    let extra = Some("as of 12:00".to_owned());
    let text = render(&plan, &Inputs { extra, ..Inputs::default() }, Dialect::Bird2, "r1");
    assert!(text.ends_with("\n# as of 12:00\ninclude \"/etc/extra.conf\";\n"), "{text}");
}

#[test]
fn the_interfaces_of_a_running_bird_stay_under_their_name() {
    let device = Some("device1".to_owned());
    let text = render(&planned("[bird]"), &Inputs { device, ..Inputs::default() }, Dialect::Bird2, "r1");
    assert_eq!(text.matches("protocol device").count(), 1);
    assert!(part(&text, "protocol device device1").contains("serval revision r1"));
}
