//! `serval-demo`: VMs on two hosts boot into working IPv6 and talk to each other and to the world through the fast path,
//! watched. Touches namespaces of its own only, and takes them away again.

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use comfy_table::{CellAlignment, Table, TableComponent, presets};
use nix::sys::signal::{SigSet, Signal};
use serval_tests::bgp;
use serval_tests::cloud::{address, endpoint, mac, name, plugged, tap};
use serval_tests::fabric::{Fabric, ROUTER, WORLD, host_address};
use serval_tests::guest::{self, KernelGuest};
use serval_tests::host::{EndpointStatus, Host, policy};
use serval_tests::leftovers;
use serval_tests::process::Running;
use serval_tests::qemu::Vm;
use serval_tests::traffic::{self, Bulk, Ping, parse_ping};
use std::fmt::Display;
use std::io::stdin;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// How long a guest may take to boot, and anything in the VM, which is emulated.
const PATIENCE: Duration = Duration::from_secs(90);

/// How many hosts there are.
const HOSTS: u8 = 2;

/// Numbers of the hosts' and the router's autonomous system.
const HOSTS_AS: u32 = 64_512;
const ROUTER_AS: u32 = 65_000;

/// What every VM may do: answer pings from anywhere, talk to other VMs, and to the world.
const POLICY: &str = "types: [Ingress, Egress], ingress: [{ action: Allow, protocol: ICMPv6, icmp: { type: 128 } }, \
                      { action: Allow, source: { selector: has(vm) } }], egress: [{ action: Allow }]";

/// Echo requests between each pair.
const PINGS: u32 = 5;

/// Seconds of bulk TCP.
const BULK: u32 = 3;

/// Shows VMs on two hosts: how they get route and address, reach each other and the world, and what carries packets.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask demo --", version)]
struct Arguments {
    /// Leave out the real VM in QEMU
    #[arg(long)]
    no_vm: bool,
    /// At the end, wait for Enter before everything is taken away
    #[arg(long)]
    hold: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match clean_up_on_interrupt().and_then(|()| tell(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// On Ctrl-C takes everything away.
fn clean_up_on_interrupt() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    // Threads inherit this; programs that are started do not.
    signals.thread_block()?;
    thread::spawn(move || {
        let signal = signals.wait();
        if let Err(error) = leftovers::remove_own() {
            eprintln!("{error:#}");
        }
        std::process::exit(128 + signal.map_or(0, |signal| signal as i32));
    });
    Ok(())
}

fn tell(arguments: &Arguments) -> Result<()> {
    if let Some(reason) = serval_tests::unavailable() {
        bail!(reason);
    }
    let vm = if arguments.no_vm { "" } else { ", and a VM in QEMU" };
    println!(
        "Serval on two hosts: on each a guest with a kernel stack of its own behind a virtio-net TAP{vm}.\n\
         A router joins them to each other and to the world. Hosts and router tell each other by BGP who is where.\n"
    );

    let mut fabric = Fabric::policed("demo", HOSTS)?;
    for host in fabric.hosts() {
        host.put("policy.yaml", policy("demo", "has(vm)", POLICY))?;
        // The router gives it.
        host.namespace.ip("-6 route del default")?;
    }
    for number in 1..=3 - u8::from(arguments.no_vm) {
        // Every host has all documents: policy asks who the others are.
        let document = endpoint(number).document(fabric.host(host_of(number)).node());
        for host in fabric.hosts() {
            host.put(&format!("{}.yaml", name(number)), &document)?;
        }
    }
    bgp::share(&fabric, &leaf(), &bgp::nodes(&fabric, HOSTS))?;
    for number in 1..=HOSTS {
        fabric.take_redirects(number)?;
        let host = fabric.host_mut(number);
        host.keep_quiet();
        let ready = host.start()?;
        let namespace = host.namespace.name();
        say(
            &host_name(number),
            format!("namespace {namespace}: `serval run` is ready after {} ms", ready.as_millis()),
        );
    }
    let router = bgp::Router::start(&fabric.router, &router())?;

    let first = boot(fabric.host(1), 1, "dhclient", guest::dhclient)?;
    let second = boot(fabric.host(2), 2, "dhcpcd", guest::dhcpcd)?;
    let mut vm = if arguments.no_vm { None } else { Some(boot_vm(fabric.host(host_of(3)))?) };

    println!();
    told(&fabric, &router, arguments)?;
    let guests = [&first.guest, &second.guest];
    for (from, to) in [(1, 2), (2, 1)] {
        let guest = guests[usize::from(from - 1)];
        let ping = traffic::ping(&guest.namespace, address(to), PINGS, Duration::from_millis(100))?;
        pinged(&name(from), &name(to), ping)?;
    }
    for (number, guest) in [(1, guests[0]), (2, guests[1])] {
        let ping = traffic::ping(&guest.namespace, WORLD, PINGS, Duration::from_millis(100))?;
        pinged(&name(number), "world", ping)?;
        let ping = traffic::ping(&fabric.world, address(number), PINGS, Duration::from_millis(100))?;
        pinged("world", &name(number), ping)?;
    }
    if let Some(vm) = &mut vm {
        for (number, guest) in [(1, guests[0]), (2, guests[1])] {
            let ping = traffic::ping(&guest.namespace, address(3), PINGS, Duration::from_millis(100))?;
            pinged(&name(number), &name(3), ping)?;
            let said = vm.run_until(&format!("ping6 -c {PINGS} {}", address(number)), PATIENCE)?;
            pinged(
                &name(3),
                &name(number),
                parse_ping(&said).context("ping6 in the VM said nothing known")?,
            )?;
        }
    }
    bulk(&first.guest, &second.guest)?;

    println!(
        "\nWhich packets went by XDP, by TC and by the kernel, as `serval status --json` counts them:\n"
    );
    let mut endpoints = Vec::new();
    for number in 1..=HOSTS {
        let status = fabric.host(number).status()?;
        endpoints.extend(status.endpoints().into_iter().map(|endpoint| (number, endpoint)));
    }
    println!("{}", table(&endpoints)?);
    verdict(&endpoints)?;
    println!(
        "\nEchoes carry whole checksums and go by XDP. TCP leaves checksums and segments to the device, so XDP hands it to \
         TC,\nwhere offloads stay intact; what other hosts send comes by TC, too, after GRO. Neighbours and routers are \
         answered in\nBPF. What is left to the kernel is DHCPv6, which the daemon answers, and multicast listener reports."
    );
    if arguments.hold {
        println!(
            "\nLook around with `ip netns exec {} ...`; Enter takes everything away.",
            fabric.host(1).namespace.name()
        );
        stdin().read_line(&mut String::new())?;
    }
    Ok(())
}

/// What the hosts' configuration says of BGP: a mesh among themselves, and the router, which gives the default route.
fn leaf() -> String {
    format!(
        "[bird]\nas = {HOSTS_AS}\npeers = [{{ name = 'tor', address = '{ROUTER}', as = {ROUTER_AS}, accept = ['::/0'] }}]\n"
    )
}

/// The configuration of the router's BIRD, which an operator writes: it knows the world and listens to the hosts.
fn router() -> String {
    let hosts = (1..=HOSTS).map(|number| {
        format!(
            "protocol bgp host{number} {{
               local {ROUTER} as {ROUTER_AS}; neighbor {} as {HOSTS_AS}; direct;
               connect delay time 1; connect retry time 1;
               ipv6 {{ import all; export where net = ::/0; }};
             }}\n",
            host_address(number)
        )
    });
    bgp::router(&hosts.collect::<String>())
}

/// Waits until everybody knows where the VMs are, and says who knows what.
fn told(fabric: &Fabric, router: &bgp::Router<'_>, arguments: &Arguments) -> Result<()> {
    let vms = 1..=3 - u8::from(arguments.no_vm);
    let mut all: Vec<String> = vms.clone().map(|number| format!("{}/128", address(number))).collect();
    all.sort();
    router.wait_heard(&all.iter().map(String::as_str).collect::<Vec<_>>())?;
    say("router", format!("has heard of {} by BGP", all.join(", ")));
    for host in 1..=HOSTS {
        let others: Vec<u8> = vms.clone().filter(|number| host_of(*number) != host).collect();
        for number in &others {
            fabric.host(host).wait_route(address(*number))?;
        }
        fabric.host(host).wait_route("default")?;
        let names: Vec<String> = others.into_iter().map(name).collect();
        say(&host_name(host), format!("has heard of {} and the way to the world by BGP", names.join(", ")));
    }
    println!();
    Ok(())
}

/// The host that VM `number` is on.
fn host_of(number: u8) -> u8 {
    (number - 1) % HOSTS + 1
}

fn host_name(number: u8) -> String {
    format!("host{number}")
}

/// A guest and the client that keeps its address.
struct Booted {
    guest: KernelGuest,
    _client: Running,
}

fn boot(
    host: &Host,
    number: u8,
    client_name: &str,
    client: impl Fn(&KernelGuest) -> Result<Running>,
) -> Result<Booted> {
    let guest = plugged(host, number)?;
    let start = Instant::now();
    guest.boot()?;
    let client = client(&guest)?;
    let explain = || client.log().join("\n");
    guest.wait_default_route(PATIENCE).with_context(explain)?;
    got(number, start, "default route", format!("via {}, from a router advertisement", guest.gateway()));
    guest.wait_address(address(number), PATIENCE).with_context(explain)?;
    got(number, start, "address", format!("{}, from DHCPv6 by {client_name}", address(number)));
    Ok(Booted { guest, _client: client })
}

fn boot_vm(host: &Host) -> Result<Vm> {
    let start = Instant::now();
    let mut vm = Vm::boot(&host.namespace, &tap(3), mac(3))?;
    let release = vm.run("uname -r", PATIENCE)?.text;
    got(3, start, "user space", format!("QEMU without KVM, Linux {}", release.trim()));
    vm.run_until("ip -6 route show default | grep -q via", PATIENCE)?;
    let route = vm.run("ip -6 route show default", PATIENCE)?.text;
    let via = route.split_ascii_whitespace().skip_while(|word| *word != "via").nth(1).unwrap_or("?");
    got(3, start, "default route", format!("via {via}, from a router advertisement"));
    vm.wait_address(address(3), PATIENCE)?;
    got(3, start, "address", format!("{}, from DHCPv6 by dhclient", address(3)));
    Ok(vm)
}

fn pinged(from: &str, to: &str, ping: Ping) -> Result<()> {
    say("ping", format!("{from} -> {to}: {} of {} answered", ping.received, ping.sent));
    ensure!(ping.received == ping.sent, "{from} does not reach {to}");
    Ok(())
}

/// Bulk TCP, and whether segments crossed as the guest made them.
fn bulk(from: &KernelGuest, to: &KernelGuest) -> Result<()> {
    let _server = traffic::iperf3_server(&to.namespace)?;
    let (sent, received) = (from.counts().from_vm, to.counts().to_vm);
    let Bulk { bits_per_second, retransmits } = traffic::iperf3(&from.namespace, address(2), BULK)?;
    let (sent_after, received_after) = (from.counts().from_vm, to.counts().to_vm);
    let cut = sent_after.segmented - sent.segmented;
    let whole = received_after.segmented - received.segmented;
    say(
        "iperf3",
        format!(
            "{} -> {}: {:.1} Gbit/s, {retransmits} segments sent again",
            name(1),
            name(2),
            bits_per_second / 1e9
        ),
    );
    say("", format!("{cut} GSO frames left {}, {whole} reached {} as they were", name(1), name(2)));
    ensure!(cut > 0 && whole * 10 >= cut * 9, "offloads did not stay intact");
    Ok(())
}

fn table(endpoints: &[(u8, EndpointStatus)]) -> Result<String> {
    let columns = [
        ("from VM\nXDP", "forwarded_xdp"),
        ("\nTC", "forwarded_tc"),
        ("\nkernel", "passed"),
        ("to VM\nXDP", "delivered_xdp"),
        ("\nTC", "delivered_tc"),
        ("\nkernel", "delivered_kernel"),
        ("answered\nNS", "answered_ns"),
        ("\nRS", "answered_rs"),
        ("\nDHCPv6", "dhcp6_replies"),
    ];
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_style(TableComponent::HeaderLines, '─');
    table.set_style(TableComponent::MiddleHeaderIntersections, '─');
    let titles = columns.iter().map(|(title, _)| *title);
    table.set_header(["\nhost", "\nendpoint", "\nhooks"].into_iter().chain(titles).chain(["\ndropped"]));
    for (host, endpoint) in endpoints {
        let hooks = format!("{} + {}", endpoint.xdp(), endpoint.tc());
        let mut row = vec![host_name(*host), endpoint.name().to_owned(), hooks];
        for (_, counter) in columns {
            row.push(endpoint.counter(counter)?.to_string());
        }
        row.push(endpoint.dropped().to_string());
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    Ok(table.trim_fmt())
}

/// The counters must say that the fast path did the work.
fn verdict(endpoints: &[(u8, EndpointStatus)]) -> Result<()> {
    for (_, endpoint) in endpoints {
        let name = endpoint.name();
        ensure!(endpoint.state() == "up", "{name} is {}: {}", endpoint.state(), endpoint.reason());
        ensure!(endpoint.counter("forwarded_xdp")? > 0, "XDP forwarded nothing of {name}");
        ensure!(endpoint.delivered()? > 0, "the fast path delivered nothing to {name}");
        ensure!(endpoint.counter("answered_rs")? > 0, "BPF answered no router solicitation of {name}");
        ensure!(
            endpoint.dropped() == 0,
            "frames of {name} were dropped: {}",
            endpoint.0["counters"]["dropped"]
        );
    }
    let (_, first) = &endpoints[0];
    ensure!(first.counter("forwarded_tc")? > 0, "TC forwarded nothing of {}", first.name());
    Ok(())
}

fn got(number: u8, start: Instant, what: &str, how: impl Display) {
    say(&name(number), format!("{what:<14}after {:>4.1} s  {how}", start.elapsed().as_secs_f64()));
}

fn say(who: &str, what: impl Display) {
    println!("  {who:<7} {what}");
}
