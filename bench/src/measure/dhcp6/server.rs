//! The servers: our daemon and dnsmasq, each on a host of its own with TAPs and leases for all VMs.

use super::client::Client;
use anyhow::Result;
use serval_tests::cloud::{self, PREFIX};
use serval_tests::frame::{GATEWAY_MAC, link_local, mac_text};
use serval_tests::host::Host;
use serval_tests::netns::Namespace;
use serval_tests::process::Running;
use serval_tests::tap::{Offloads, Options, Tap};
use std::fs;
use std::time::Duration;

/// Whose server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Our daemon.
    Serval,
    /// dnsmasq.
    Dnsmasq,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Serval, Self::Dnsmasq];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serval => "serval",
            Self::Dnsmasq => "dnsmasq",
        }
    }
}

/// What is held while a server works.
pub enum Daemon {
    /// Our daemon and its host.
    Serval { _host: Box<Host> },
    /// dnsmasq; the namespace goes after it.
    Dnsmasq { _running: Running, _host: Namespace },
}

/// A server, and the VMs that may ask it.
pub struct Server {
    pub daemon: Daemon,
    pub clients: Vec<Client>,
    pub taps: Vec<Tap>,
}

impl Server {
    /// A server for this many VMs, which answers.
    pub fn new(kind: Kind, vms: u8) -> Result<Self> {
        let clients: Vec<Client> = (1..=vms)
            .map(|number| Client { mac: cloud::mac(number), address: cloud::address(number) })
            .collect();
        let (daemon, taps) = match kind {
            Kind::Serval => serval(vms)?,
            Kind::Dnsmasq => dnsmasq(&clients)?,
        };
        Ok(Self { daemon, clients, taps })
    }
}

fn serval(vms: u8) -> Result<(Daemon, Vec<Tap>)> {
    let mut host = Host::policed("bench-dhcp6")?;
    host.keep_quiet();
    host.put("subnet.yaml", cloud::subnet().document())?;
    let documents: Vec<String> =
        (1..=vms).map(|number| cloud::endpoint(number).document(host.node())).collect();
    host.put("endpoints.yaml", documents.join("---\n"))?;
    let taps = open(&host.namespace, vms)?;
    host.start()?;
    host.wait_status("all endpoints up", |status| {
        status.endpoints().iter().filter(|endpoint| endpoint.state() == "up").count() == usize::from(vms)
    })?;
    Ok((Daemon::Serval { _host: Box::new(host) }, taps))
}

/// As the DHCP agent of Calico starts it: the subnet is that of an interface without a cable, whose aliases the TAPs are.
fn dnsmasq(clients: &[Client]) -> Result<(Daemon, Vec<Tap>)> {
    let host = Namespace::new("bench-dnsmasq")?;
    host.set_sysctl("net/ipv6/conf/default/accept_dad", 0)?;
    let vms = u8::try_from(clients.len())?;
    let taps = open(&host, vms)?;
    let (network, length) = PREFIX.split_once('/').unwrap_or((PREFIX, "64"));
    let mut batch = format!(
        "link add ns0 type bridge\nlink set ns0 up\naddress add {network}ffff/{length} dev ns0 nodad\n"
    );
    let mut hosts = String::new();
    for (number, Client { mac, address }) in (1..=vms).zip(clients) {
        let (tap, duid) = (cloud::tap(number), mac_text(*mac));
        let address_of_link = link_local(*mac);
        batch += &format!("neighbour add {address_of_link} lladdr {duid} dev {tap} nud permanent\n");
        hosts += &format!("id:00:03:00:01:{duid},[{address}]\n");
    }
    host.ip_batch(&batch)?;
    host.enter(|| Ok(fs::write("/run/dnsmasq.hosts", &hosts)?))?;
    let mut command = host.command("dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--port=0"]);
    command.args(["--user=root", "--pid-file=", "--log-facility=-", "--quiet-dhcp6", "--leasefile-ro"]);
    command.args(["--interface=ns0", "--interface=tap*", "--bridge-interface=ns0,tap*"]);
    command
        .args(["--dhcp-hostsfile=/run/dnsmasq.hosts", &format!("--dhcp-range={network},static,{length},1d")]);
    command.args([&format!("--dhcp-option=option6:dns-server,[{}]", cloud::DNS_SERVER)]);
    command.args(["--dhcp-option=option6:domain-search,openstack.example"]);
    let running = Running::start("dnsmasq", command)?;
    running.wait_line(Duration::from_secs(10), |line| line.contains("dnsmasq.hosts"))?;
    Ok((Daemon::Dnsmasq { _running: running, _host: host }, taps))
}

/// TAPs as the cloud's agent sets them up.
fn open(host: &Namespace, vms: u8) -> Result<Vec<Tap>> {
    let options = Options { offloads: Offloads::NONE, ..Options::default() };
    let mut batch = String::new();
    let mut taps = Vec::new();
    for name in (1..=vms).map(cloud::tap) {
        taps.push(host.enter(|| Tap::open(&name, options))?);
        batch += &format!("link set {name} address {} up\n", mac_text(GATEWAY_MAC));
    }
    host.ip_batch(&batch)?;
    Ok(taps)
}
