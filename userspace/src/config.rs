//! Host configuration: the TOML file. Reads that one file and the host name, nothing else.

mod bird;

pub use bird::{
    AggregateConfig, Bfd, BfdConfig, BirdConfig, CommunitiesConfig, GracefulRestartConfig, MeshConfig,
    PeerConfig, Unassigned,
};

use crate::resource::{InterfaceName, Position, Problem};
use serde::{Deserialize, Deserializer, de};
use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where the configuration is when no file is named.
pub const DEFAULT_FILE: &str = "/etc/serval/serval.toml";

/// Everything a host decides for itself. Every key of the file is optional.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Our node: endpoints with this `spec.node` are ours. Default: the host name in lower case, as Felix has it.
    #[serde(default = "host_name", deserialize_with = "node")]
    pub node: String,
    /// How names of TAPs begin. A TAP without endpoint forwards nothing.
    #[serde(default = "default_tap_prefix", deserialize_with = "tap_prefix")]
    pub tap_prefix: String,
    /// Interfaces towards other hosts; empty: those that routes to other hosts use.
    #[serde(default, deserialize_with = "interfaces")]
    pub uplinks: Vec<InterfaceName>,
    /// Where resources come from.
    #[serde(default)]
    pub resources: ResourcesConfig,
    /// DHCPv6.
    #[serde(default)]
    pub dhcp6: Dhcp6Config,
    /// Routing between hosts; `None`: this host speaks no BGP.
    #[serde(default)]
    pub bird: Option<BirdConfig>,
    /// Metrics.
    #[serde(default)]
    pub metrics: MetricsConfig,
    /// Files and directories of our own.
    #[serde(default)]
    pub paths: PathsConfig,
    /// Sizes.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// Hooks.
    #[serde(default)]
    pub fastpath: FastPathConfig,
    /// Network policy.
    #[serde(default)]
    pub policy: PolicyConfig,
}

/// `[resources]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResourcesConfig {
    /// The watched directory.
    #[serde(deserialize_with = "absolute")]
    pub directory: PathBuf,
}

impl Default for ResourcesConfig {
    fn default() -> Self {
        Self { directory: "/etc/serval/resources".into() }
    }
}

/// `[dhcp6]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dhcp6Config {
    /// Identity of the DHCPv6 server, the same on every host so that a VM that moves keeps its server.
    #[serde(deserialize_with = "parsed")]
    pub server_duid: Duid,
}

/// `[metrics]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Address to serve metrics on. This version checks it and serves none.
    #[serde(deserialize_with = "some_parsed")]
    pub listen: Option<SocketAddr>,
}

/// `[paths]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PathsConfig {
    /// Directory of the control socket.
    #[serde(deserialize_with = "absolute")]
    pub run: PathBuf,
    /// Directory of the pins, on a bpffs. Two daemons on one kernel use two.
    #[serde(deserialize_with = "absolute")]
    pub pin: PathBuf,
}

impl Default for PathsConfig {
    fn default() -> Self {
        Self { run: "/run/serval".into(), pin: "/sys/fs/bpf/serval".into() }
    }
}

/// `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Most endpoints of this host: the size of the maps.
    #[serde(deserialize_with = "endpoint_limit")]
    pub endpoints: u32,
    /// Most routes that the fast path mirrors. With more in the kernel, all are the kernel's.
    #[serde(deserialize_with = "route_limit")]
    pub routes: u32,
    /// Most entries of flows: two each.
    #[serde(deserialize_with = "flow_limit")]
    pub flows: u32,
    /// Most flows that are remembered for an endpoint.
    #[serde(deserialize_with = "flow_limit")]
    pub flows_per_endpoint: u32,
    /// Solicitations of an endpoint that its hook answers in a second, in the long run.
    #[serde(deserialize_with = "packet_limit")]
    pub answer_rate: u32,
    /// And at once.
    #[serde(deserialize_with = "packet_limit")]
    pub answer_burst: u32,
    /// Packets of an endpoint that are handed to the host itself in a second, in the long run.
    #[serde(deserialize_with = "packet_limit")]
    pub host_rate: u32,
    /// And at once.
    #[serde(deserialize_with = "packet_limit")]
    pub host_burst: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            endpoints: 1024,
            // A full table of the Internet has some 250,000 routes.
            routes: 1 << 20,
            flows: 1 << 20,
            flows_per_endpoint: 4096,
            // Linux has at most 1,024 neighbours (`gc_thresh3`), asks again for one every 30 s (`base_reachable_time_ms`),
            // and three times a second apart for each that it begins to know.
            answer_rate: 1000,
            answer_burst: 2000,
            // To boot takes some ten, and two or three more for every further address: DAD, and multicast listener
            // reports, each sent twice.
            host_rate: 200,
            host_burst: 500,
        }
    }
}

/// `[policy]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// Whether policy counts; without it everything passes that may be from whom it claims to be from.
    pub enforce: bool,
    /// What becomes of packets from VMs to the host itself.
    pub endpoint_to_host: EndpointToHost,
    /// What becomes of packets from the host itself to VMs.
    pub host_to_endpoint: HostToEndpoint,
    /// VXLAN (UDP to port 4789) from VMs is for policy to judge: Felix' `AllowVXLANPacketsFromWorkloads`. Else it is dropped.
    pub allow_vxlan: bool,
    /// The same of IPv4 in IPv6 (protocol 4): Felix' `AllowIPIPPacketsFromWorkloads`.
    pub allow_ipip: bool,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            enforce: true,
            endpoint_to_host: EndpointToHost::Drop,
            host_to_endpoint: HostToEndpoint::Accept,
            allow_vxlan: false,
            allow_ipip: false,
        }
    }
}

/// `policy.endpoint_to_host`: Calico's `DefaultEndpointToHostAction`. What every VM needs of its host passes anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointToHost {
    /// Nothing passes.
    #[default]
    Drop,
    /// What the VM's egress policy allows.
    Accept,
}

/// `policy.host_to_endpoint`. What every VM needs of its host passes anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostToEndpoint {
    /// Everything passes, as in Calico.
    #[default]
    Accept,
    /// What the VM's ingress policy allows.
    Policy,
}

/// `[fastpath]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FastPathConfig {
    /// How TC programs are attached.
    pub tc: TcMode,
    /// How XDP programs are attached.
    pub xdp: XdpMode,
    /// Which programs uplinks get.
    pub uplink: UplinkMode,
}

/// `fastpath.tc`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TcMode {
    /// tcx where the kernel has it (6.6 and later), else clsact.
    #[default]
    Auto,
    /// tcx only.
    Tcx,
    /// clsact only.
    Clsact,
}

/// `fastpath.xdp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// As `Native`, but off a TAP for as long as its VM sends so many long frames that XDP costs more than it saves.
    #[default]
    Auto,
    /// In the driver. A TAP's driver has XDP; only on a device without it generic XDP is used, which comes after the skb
    /// is made and would undo its offloads.
    Native,
    /// No XDP; TC does everything.
    Off,
}

/// `fastpath.uplink`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UplinkMode {
    /// TC, after GRO: what is best for bulk TCP.
    #[default]
    Tc,
    /// XDP in the driver: what is best for small packets. TC where the driver has no XDP.
    Xdp,
    /// XDP first, and TC for what that hands on.
    Both,
    /// None: what comes from other hosts goes through the kernel.
    Off,
}

/// A DHCP unique identifier (RFC 8415 section 11.1): two bytes of type and 1 to 128 more.
#[derive(Clone, PartialEq, Eq)]
pub struct Duid(Vec<u8>);

impl Duid {
    /// Type and identifier, as on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Default for Duid {
    /// A DUID-UUID (type 4, RFC 6355) with the name-based UUID of `serval`: constant, hence the same on all hosts.
    fn default() -> Self {
        let uuid: u128 = 0xe458_859c_c998_5950_8e09_b815_7c46_659a;
        Self([&[0, 4][..], &uuid.to_be_bytes()].concat())
    }
}

impl FromStr for Duid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // `from_str_radix` takes a sign.
        let is_byte = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
        let byte = |part: &str| Some(part).filter(is_byte).and_then(|part| u8::from_str_radix(part, 16).ok());
        text.split(':')
            .map(byte)
            .collect::<Option<Vec<u8>>>()
            .filter(|bytes| (3..=130).contains(&bytes.len()))
            .map(Self)
            .ok_or_else(|| {
                format!("`{text}` is no DUID; write 3 to 130 hex bytes like 00:03:00:01:02:00:5e:10:00:01")
            })
    }
}

impl fmt::Display for Duid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if i == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Duid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}; name another file with --config, or none to use {DEFAULT_FILE} or the defaults", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file says something it may not.
    #[error("{0}")]
    Content(Problem),
    /// The file does not name the node, and the host name does not either.
    #[error("the host name `{0}` cannot be a node's name; set `node` in the configuration")]
    Node(String),
}

impl Config {
    /// Reads `file`; without one [`DEFAULT_FILE`] if it exists, else the defaults.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if file.is_none() && error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(ConfigError::Read { file: path.to_owned(), source }),
        };
        Self::parse(path, &text)
    }

    /// Parses the text of `file`.
    pub fn parse(file: &Path, text: &[u8]) -> Result<Self, ConfigError> {
        let text = std::str::from_utf8(text).map_err(|error| {
            let before = String::from_utf8_lossy(&text[..error.valid_up_to()]);
            ConfigError::Content(Problem::at(file, end(&before), "not UTF-8; save the file as UTF-8"))
        })?;
        let refusal = |error: &toml::de::Error, field: &str| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let position = end(text.get(..start).unwrap_or(""));
            let problem = Problem::at(file, position, &error.message().replace('\n', " "));
            ConfigError::Content(problem.in_field(field))
        };
        let deserializer = toml::Deserializer::parse(text).map_err(|error| refusal(&error, ""))?;
        let config: Self = serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let path = error.path();
            // The path of the whole file is written as a dot.
            let field = path.iter().next().map(|_| path.to_string()).unwrap_or_default();
            refusal(error.inner(), &field)
        })?;
        if is_node(&config.node) { Ok(config) } else { Err(ConfigError::Node(config.node)) }
    }
}

/// Where `text` ends.
fn end(text: &str) -> Position {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let last = text.rsplit('\n').next().unwrap_or(text);
    Position { line: count(1 + text.matches('\n').count()), column: count(1 + last.chars().count()) }
}

fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default()
}

fn default_tap_prefix() -> String {
    "tap".to_owned()
}

fn is_node(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn node<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_node(&text) {
        Ok(text)
    } else {
        Err(de::Error::custom(format!("`{text}` is no node: 1 to 253 letters, digits, `-`, `_` or `.`")))
    }
}

fn tap_prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    // A name has up to 15 characters, and one at least is the TAP's own.
    match text.parse::<InterfaceName>() {
        Ok(_) if text.len() <= 14 => Ok(text),
        _ => Err(de::Error::custom(format!(
            "`{text}` begins no interface's name: 1 to 14 printable characters"
        ))),
    }
}

fn interfaces<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<InterfaceName>, D::Error> {
    let mut interfaces: Vec<InterfaceName> = Vec::new();
    for text in Vec::<String>::deserialize(deserializer)? {
        let interface = text.parse().map_err(de::Error::custom)?;
        if interfaces.contains(&interface) {
            return Err(de::Error::custom(format!("`{interface}` is listed twice")));
        }
        interfaces.push(interface);
    }
    Ok(interfaces)
}

fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(de::Error::custom(format!("`{}` is not an absolute path; begin it with /", path.display())))
    }
}

fn endpoint_limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let limit = i64::deserialize(deserializer)?;
    u32::try_from(limit)
        .ok()
        .filter(|limit| (1..=16_384).contains(limit))
        .ok_or_else(|| de::Error::custom(format!("{limit} is out of range: 1 to 16384 endpoints")))
}

fn route_limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let limit = i64::deserialize(deserializer)?;
    u32::try_from(limit)
        .ok()
        .filter(|limit| (1..=16 << 20).contains(limit))
        .ok_or_else(|| de::Error::custom(format!("{limit} is out of range: 1 to 16777216 routes")))
}

fn packet_limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let limit = i64::deserialize(deserializer)?;
    u32::try_from(limit)
        .ok()
        .filter(|limit| (1..=1_000_000).contains(limit))
        .ok_or_else(|| de::Error::custom(format!("{limit} is out of range: 1 to 1000000 packets")))
}

fn flow_limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let limit = i64::deserialize(deserializer)?;
    u32::try_from(limit)
        .ok()
        .filter(|limit| (1..=16 << 20).contains(limit))
        .ok_or_else(|| de::Error::custom(format!("{limit} is out of range: 1 to 16777216 flows")))
}

fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

fn some_parsed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong =
        || de::Error::custom(format!("`{text}` is no address to listen on; write one like [::1]:9099"));
    text.parse().map(Some).map_err(|_| wrong())
}

#[cfg(test)]
mod tests;
