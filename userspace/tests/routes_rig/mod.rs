//! Uplinks with neighbours, a mirror, and what the kernel says by iproute2: for the tests of routes.
#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a helper of tests may panic")]

use crate::fastpath_rig::{Rig, run, run_json};
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, Map, MapData};
use dataplane_ebpf::abi::{Address, NextHop, NextHopGroup, Route, names, next_hop_flags};
use serde_json::Value;
use serval::apply::fastpath::{FastPath, Settings};
use serval::apply::routes::{self, Mirror};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::Ipv6Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The names of the uplinks.
pub const UPLINKS: [&str; 2] = ["up0", "up1"];

/// Makes the uplinks, veth devices with the other ends `far0` and `far1`, all up. Neighbours fe80::1 to fe80::4 of each
/// are known for good.
pub fn make_uplinks() {
    run("ip", &["link", "set", "lo", "up"]);
    sysctl("net/ipv6/conf/default/disable_ipv6", "0");
    sysctl("net/ipv6/conf/default/accept_dad", "0");
    sysctl("net/ipv6/conf/all/forwarding", "1");
    for (n, name) in UPLINKS.iter().enumerate() {
        let far = format!("far{n}");
        run(
            "ip",
            &[
                "link",
                "add",
                name,
                "address",
                &format!("02:00:00:00:{n:02}:01"),
                "type",
                "veth",
                "peer",
                "name",
                &far,
            ],
        );
        run("ip", &["link", "set", &far, "up"]);
        run("ip", &["link", "set", name, "up"]);
        neighbours(name);
    }
}

/// Makes the neighbours of an uplink known again, as after it was down.
pub fn neighbours(uplink: &str) {
    for last in 1..=4 {
        let (address, mac) =
            (format!("fe80::{last}"), format!("02:00:00:01:{}:{last:02x}", &uplink[2..].repeat(2)));
        run("ip", &["-6", "neigh", "replace", &address, "lladdr", &mac, "dev", uplink, "nud", "permanent"]);
    }
}

/// Writes a sysctl.
pub fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{name}"), value).unwrap();
}

/// Index of an interface.
pub fn ifindex(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

/// Runs `ip -6 -batch`, all of which must work.
pub fn ip_all(lines: &str) {
    assert!(batch(lines, &["-6", "-batch", "-"], Stdio::inherit()), "a command of a batch failed");
}

/// Runs `ip -6 -batch`; commands that fail do not keep the others.
pub fn ip_batch(lines: &str) {
    batch(lines, &["-6", "-force", "-batch", "-"], Stdio::null());
}

fn batch(lines: &str, arguments: &[&str], stderr: Stdio) -> bool {
    let mut child = Command::new("ip").args(arguments).stdin(Stdio::piped()).stderr(stderr).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    child.wait().unwrap().success()
}

/// What the kernel has, as far as a person would read it.
pub fn kernel_state() -> String {
    let told = [["-br", "link"].as_slice(), &["-6", "neigh"], &["-6", "rule"], &["-6", "route"]];
    let told = told.map(|arguments| {
        run("ip", arguments).lines().take(20).map(|l| l.to_owned() + "\n").collect::<String>()
    });
    told.concat()
}

/// A fast path, and a mirror that fills its maps.
pub struct Mirrored {
    /// The fast path.
    pub fastpath: FastPath,
    /// The mirror.
    pub mirror: Mirror,
    /// The interfaces it says routes use.
    pub interfaces: watch::Receiver<BTreeSet<u32>>,
}

/// What a mirror works with in these tests.
pub fn settings(max_routes: u32) -> routes::Settings {
    routes::Settings {
        max_routes,
        uplinks: Vec::new(),
        tap_prefix: "tap".to_owned(),
        receive_buffer: routes::Settings::RECEIVE_BUFFER,
    }
}

impl Mirrored {
    /// Starts with room for `max_routes`, and these settings of the mirror.
    pub fn start(rig: &Rig, settings: &routes::Settings) -> Self {
        let mut fastpath =
            FastPath::open(&Settings { max_routes: settings.max_routes, ..rig.settings() }).unwrap();
        let (sender, interfaces) = watch::channel(BTreeSet::new());
        let mirror = Mirror::start(fastpath.take_routes().unwrap(), settings, sender).unwrap();
        Self { fastpath, mirror, interfaces }
    }
}

/// The maps, read by their pins.
pub struct Maps {
    hosts: HashMap<MapData, Address, Route>,
    prefixes: LpmTrie<MapData, [u8; 16], Route>,
    groups: Array<MapData, NextHopGroup>,
}

/// A next hop in the maps: interface, MAC, last hash, MTU.
pub type Way = (u32, [u8; 6], u32, u32);

/// Every prefix of the maps: longest packet and next hops. None: the kernel's.
pub type Table = BTreeMap<(Ipv6Addr, u8), (u32, Vec<Way>)>;

impl Maps {
    /// Opens them.
    pub fn open(rig: &Rig) -> Self {
        let pin = |name| MapData::from_pin(rig.generation().join("maps").join(name)).unwrap();
        Self {
            hosts: Map::HashMap(pin(names::HOST_ROUTES)).try_into().unwrap(),
            prefixes: Map::LpmTrie(pin(names::ROUTES)).try_into().unwrap(),
            groups: Map::Array(pin(names::NEXT_HOPS)).try_into().unwrap(),
        }
    }

    /// How many groups of next hops there are.
    pub fn used_groups(&self) -> usize {
        self.groups.iter().filter(|group| group.as_ref().is_ok_and(|group| group.count > 0)).count()
    }

    /// All that is in them; `None` when it changed meanwhile.
    pub fn read(&self) -> Option<Table> {
        let mut table = Table::new();
        for entry in self.hosts.iter() {
            let (address, route) = entry.ok()?;
            table.insert((address.octets().into(), 128), self.resolve(route));
        }
        for entry in self.prefixes.iter() {
            let (key, route) = entry.ok()?;
            table.insert((key.data().into(), key.prefix_len() as u8), self.resolve(route));
        }
        Some(table)
    }

    fn resolve(&self, route: Route) -> (u32, Vec<Way>) {
        let resolved = |hop: &NextHop| hop.flags & next_hop_flags::RESOLVED != 0;
        let group = self.groups.get(&route.group, 0).ok().filter(|_| route.group != 0);
        let hops = group.map(|group| group.hops[..group.count as usize].to_vec()).unwrap_or_default();
        let ways: Vec<Way> = hops
            .iter()
            .filter(|hop| resolved(hop))
            .map(|hop| (hop.ifindex, hop.mac.octets(), hop.upper_bound, hop.mtu))
            .collect();
        (if ways.is_empty() { 0 } else { route.mtu }, ways)
    }

    /// Waits until they hold these addresses of the host itself, and nothing else but what is in the kernel by default.
    pub fn eventually_local(&self, wanted: &[&str]) {
        let wanted: BTreeSet<Ipv6Addr> =
            wanted.iter().copied().chain(["::1"]).map(|address| address.parse().unwrap()).collect();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let hosts: Result<BTreeMap<_, _>, _> = self.hosts.iter().collect();
            let hosts = hosts.unwrap_or_default();
            let local: BTreeSet<Ipv6Addr> = hosts
                .iter()
                .filter(|(_, route)| route.is_local())
                .map(|(address, _)| address.octets().into())
                .collect();
            if local == wanted && hosts.len() == local.len() {
                return;
            }
            assert!(Instant::now() < deadline, "{local:?} of {} are local, not {wanted:?}", hosts.len());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until they hold what `wanted` says.
    pub fn eventually(&self, wanted: impl Fn() -> Table) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let (found, expected) = (self.read(), wanted());
            if found.as_ref() == Some(&expected) {
                return;
            }
            if Instant::now() > deadline {
                let found = found.unwrap_or_default();
                let differing: Vec<_> = expected
                    .keys()
                    .chain(found.keys())
                    .filter(|key| found.get(key) != expected.get(key))
                    .map(|key| {
                        format!("{}/{}: {:?}, not {:?}", key.0, key.1, found.get(key), expected.get(key))
                    })
                    .collect();
                panic!("{}\n{}", differing.join("\n"), run("ip", &["-6", "route", "show", "table", "all"]));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// What the maps must hold, by what iproute2 says: computed the simple way.
pub fn expected() -> Table {
    let links = run_json("ip", &["-j", "-6", "link"]);
    let links: BTreeMap<String, &Value> = links
        .as_array()
        .unwrap()
        .iter()
        .map(|link| (link["ifname"].as_str().unwrap().to_owned(), link))
        .collect();
    let neighbours = run_json("ip", &["-j", "-6", "neigh"]);
    let known: BTreeMap<(String, String), [u8; 6]> = neighbours
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| {
            let mac = entry["lladdr"].as_str()?.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap());
            let mac: Vec<u8> = mac.collect();
            let failed = entry["state"]
                .as_array()
                .unwrap()
                .iter()
                .any(|state| state == "FAILED" || state == "INCOMPLETE");
            let key = (entry["dev"].as_str()?.to_owned(), entry["dst"].as_str()?.to_owned());
            (!failed).then(|| (key, mac.try_into().unwrap()))
        })
        .collect();
    let of = |table| routes_of(table);
    let local = of("local");
    let main = of("main");
    let mut table = Table::new();
    for key in local.keys() {
        table.insert(*key, (0, Vec::new()));
    }
    for (key, routes) in main {
        let covered =
            local.keys().any(|(address, length)| *length <= key.1 && mask(key.0, *length) == *address);
        let metric = routes.iter().map(|route| route["metric"].as_u64().unwrap_or(0)).min();
        let best: Vec<&Value> =
            routes.iter().filter(|route| Some(route["metric"].as_u64().unwrap_or(0)) == metric).collect();
        let special = routes.iter().any(|route| !route["from"].is_null());
        let entry = match best.as_slice() {
            [route] if !covered && !special => ways(route, &links, &known),
            _ => (0, Vec::new()),
        };
        table.insert(key, entry);
    }
    table
}

fn routes_of(table: &str) -> BTreeMap<(Ipv6Addr, u8), Vec<Value>> {
    let mut routes: BTreeMap<(Ipv6Addr, u8), Vec<Value>> = BTreeMap::new();
    let listed = run_json("ip", &["-j", "-d", "-6", "route", "show", "table", table]);
    for route in listed.as_array().unwrap() {
        let destination = match route["dst"].as_str().unwrap() {
            "default" => "::/0",
            text => text,
        };
        let (address, length) = destination.split_once('/').unwrap_or((destination, "128"));
        let (address, length): (Ipv6Addr, u8) = (address.parse().unwrap(), length.parse().unwrap());
        // Never forwarded, so not mirrored.
        if !(address.is_unicast_link_local() || address.is_multicast()) {
            routes.entry((address, length)).or_default().push(route.clone());
        }
    }
    routes
}

fn ways(
    route: &Value,
    links: &BTreeMap<String, &Value>,
    known: &BTreeMap<(String, String), [u8; 6]>,
) -> (u32, Vec<Way>) {
    let hops = match route["nexthops"].as_array() {
        Some(hops) => hops.clone(),
        None => vec![route.clone()],
    };
    let kind = route["type"].as_str().unwrap_or("unicast");
    if kind != "unicast" || hops.iter().any(|hop| hop["gateway"].is_null() || !hop["encap"].is_null()) {
        return (0, Vec::new());
    }
    let is = |dev: &str, flag: &str| {
        links.get(dev).is_some_and(|link| link["flags"].as_array().unwrap().iter().any(|f| f == flag))
    };
    let mut alive: Vec<(u32, Ipv6Addr, u64, String)> = hops
        .iter()
        .map(|hop| {
            let dev = hop["dev"].as_str().unwrap().to_owned();
            let gateway = hop["gateway"].as_str().unwrap().parse().unwrap();
            (ifindex(&dev), gateway, hop["weight"].as_u64().unwrap_or(1), dev)
        })
        .filter(|hop| is(&hop.3, "UP"))
        .collect();
    alive.sort();
    if alive.len() > 8 {
        return (0, Vec::new());
    }
    let total: u64 = alive.iter().map(|hop| hop.2).sum();
    let mut sum = 0;
    let mut ways = Vec::new();
    for (index, gateway, weight, dev) in alive {
        sum += weight;
        let bound = ((sum << 32) / total - 1) as u32;
        if let Some(mac) = known.get(&(dev.clone(), gateway.to_string()))
            && is(&dev, "LOWER_UP")
        {
            ways.push((index, *mac, bound, links[&dev]["mtu"].as_u64().unwrap() as u32));
        }
    }
    let mtu = route["metrics"][0]["mtu"].as_u64().unwrap_or(0) as u32;
    (if ways.is_empty() { 0 } else { mtu }, ways)
}

fn mask(address: Ipv6Addr, length: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    Ipv6Addr::from_bits(address.to_bits() & mask)
}
