//! The file of the contract, the defaults, and every refusal.

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("serval.toml"), text.as_bytes())
}

fn message(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn the_contract_is_accepted_whole() {
    let config = parse(
        r#"
        node = "compute-1"
        tap_prefix = "tap"
        uplinks = ["eth0"]
        [resources]
        directory = "/etc/serval/resources"
        [dhcp6]
        server_duid = "00:03:00:01:02:00:5e:10:00:01"
        [bird]
        as = 64512
        [metrics]
        listen = "[::1]:9099"
        [paths]
        run = "/run/serval"
        pin = "/sys/fs/bpf/serval"
        [limits]
        endpoints = 2048
        routes = 262144
        [fastpath]
        tc = "clsact"
        xdp = "off"
        uplink = "both"
        "#,
    )
    .unwrap();
    assert_eq!(config.node, "compute-1");
    assert_eq!(config.uplinks[0].as_str(), "eth0");
    assert_eq!(config.dhcp6.server_duid.as_bytes(), [0, 3, 0, 1, 2, 0, 0x5e, 0x10, 0, 1]);
    assert_eq!(config.metrics.listen, Some("[::1]:9099".parse().unwrap()));
    assert_eq!(config.limits, LimitsConfig { endpoints: 2048, routes: 262_144, ..LimitsConfig::default() });
    assert_eq!(
        config.fastpath,
        FastPathConfig { tc: TcMode::Clsact, xdp: XdpMode::Off, uplink: UplinkMode::Both }
    );
}

#[test]
fn every_key_has_a_default() {
    let config = parse("").unwrap();
    assert_eq!(config.node, config.node.to_lowercase());
    assert_eq!(config.tap_prefix, "tap");
    assert_eq!(config.uplinks, []);
    assert_eq!(config.resources.directory, Path::new("/etc/serval/resources"));
    assert_eq!(config.paths.pin, Path::new("/sys/fs/bpf/serval"));
    assert_eq!(config.fastpath, FastPathConfig::default());
    assert_eq!(
        config.limits,
        LimitsConfig {
            endpoints: 1024,
            routes: 1_048_576,
            flows: 1_048_576,
            flows_per_endpoint: 4096,
            answer_rate: 1000,
            answer_burst: 2000,
            host_rate: 200,
            host_burst: 500,
        }
    );
    assert_eq!(config.dhcp6.server_duid.to_string(), "00:04:e4:58:85:9c:c9:98:59:50:8e:09:b8:15:7c:46:65:9a");
}

#[test]
fn a_wrong_value_says_line_column_key_and_what_is_right() {
    for (text, expected) in [
        (
            "nodes = 1",
            "1:1: nodes: unknown field `nodes`, expected one of `node`, `tap_prefix`, `uplinks`, `resources`, `dhcp6`, `bird`, `metrics`, `paths`, `limits`, `fastpath`, `policy`",
        ),
        ("\n[paths]\nruns = 1", "3:1: paths.runs: unknown field `runs`, expected `run` or `pin`"),
        ("node = 'a b'", "1:8: node: `a b` is no node: 1 to 253 letters, digits, `-`, `_` or `.`"),
        ("[limits]\nendpoints = '1'", "2:13: limits.endpoints: invalid type: string \"1\", expected i64"),
        ("[limits]\nendpoints = '1'\nendpoints = 1", "3:1: duplicate key"),
        ("uplinks = ['a', 1]", "1:17: uplinks[1]: invalid type: integer `1`, expected a string"),
        ("paths = 1", "1:9: paths: invalid type: integer `1`, expected struct PathsConfig"),
        (
            "[dhcp6]\nserver_duid = '00:+3:00:01'",
            "2:15: dhcp6.server_duid: `00:+3:00:01` is no DUID; write 3 to 130 hex bytes like 00:03:00:01:02:00:5e:10:00:01",
        ),
        ("node = 1", "1:8: node: invalid type: integer `1`, expected a string"),
        (
            "tap_prefix = 'a-long-prefix-x'",
            "1:14: tap_prefix: `a-long-prefix-x` begins no interface's name: 1 to 14 printable characters",
        ),
        (
            "uplinks = ['eth 0']",
            "1:11: uplinks: `eth 0` is no interface name: 1 to 15 printable characters, no `/`, `:` or space",
        ),
        ("uplinks = ['a', 'a']", "1:11: uplinks: `a` is listed twice"),
        ("[paths]\nrun = 'run'", "2:7: paths.run: `run` is not an absolute path; begin it with /"),
        ("[limits]\nendpoints = 0", "2:13: limits.endpoints: 0 is out of range: 1 to 16384 endpoints"),
        ("[limits]\nendpoints = -1", "2:13: limits.endpoints: -1 is out of range: 1 to 16384 endpoints"),
        (
            "[fastpath]\ntc = 'xdp'",
            "2:6: fastpath.tc: unknown variant `xdp`, expected one of `auto`, `tcx`, `clsact`",
        ),
        (
            "[metrics]\nlisten = '::1'",
            "2:10: metrics.listen: `::1` is no address to listen on; write one like [::1]:9099",
        ),
        ("[limits]\nflows = 0", "2:9: limits.flows: 0 is out of range: 1 to 16777216 flows"),
        ("[limits]\nhost_rate = 0", "2:13: limits.host_rate: 0 is out of range: 1 to 1000000 packets"),
        (
            "[policy]\nallow_vxlan = 4789",
            "2:15: policy.allow_vxlan: invalid type: integer `4789`, expected a boolean",
        ),
        ("[policy]\nenforce = 1", "2:11: policy.enforce: invalid type: integer `1`, expected a boolean"),
        (
            "[policy]\nendpoint_to_host = 'return'",
            "2:20: policy.endpoint_to_host: unknown variant `return`, expected `drop` or `accept`",
        ),
        (
            "[policy]\nhost_to_endpoint = 'drop'",
            "2:20: policy.host_to_endpoint: unknown variant `drop`, expected `accept` or `policy`",
        ),
        ("[limits]\nroutes = 0", "2:10: limits.routes: 0 is out of range: 1 to 16777216 routes"),
        (
            "[dhcp6]\nserver_duid = '00:03'",
            "2:15: dhcp6.server_duid: `00:03` is no DUID; write 3 to 130 hex bytes like 00:03:00:01:02:00:5e:10:00:01",
        ),
    ] {
        assert_eq!(message(text), format!("serval.toml:{expected}"), "{text}");
    }
    assert!(message("node =").starts_with("serval.toml:1:7: "), "{}", message("node ="));
    let wrong = Config::parse(Path::new("f"), b"\n#\xff").unwrap_err().to_string();
    assert_eq!(wrong, "f:2:2: not UTF-8; save the file as UTF-8");
}

#[test]
fn a_named_file_must_exist() {
    let error = Config::load(Some(Path::new("/nowhere/serval.toml"))).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/serval.toml: No such file"), "{error}");
}
