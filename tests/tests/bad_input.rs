//! Bad input: each gets one clear message that says where and what to do, and nothing else suffers.

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serval_tests::cloud::{address, endpoint, name, plugged, running, subnet};
use serval_tests::guest::KernelGuest;
use serval_tests::host::{self, Host};
use serval_tests::stream::Stream;
use serval_tests::tap::Offloads;
use serval_tests::{foreign, require_rig, traffic};
use std::os::unix::fs::symlink;
use std::process::Output;
use std::time::{Duration, Instant};

/// A bad file and what its message must say.
struct Case {
    /// What is wrong.
    what: &'static str,
    /// The file's content, with `NODE` for the node.
    document: &'static str,
    /// `line: ` or nothing when no line can be named.
    line: Option<u32>,
    /// What else the message must contain: the field, and words of the reason.
    says: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        what: "unknown key",
        document: "apiVersion: serval/v1\nkind: Subnet\nmetadata: {name: s}\nspec:\n  cidr: 2001:db8:99::/64\n  dnsServer: []\n",
        line: Some(6),
        says: &["spec.dnsServer"],
    },
    Case {
        what: "wrong type",
        document: "apiVersion: serval/v1\nkind: Subnet\nmetadata: {name: s}\nspec:\n  cidr: 2001:db8:99::/64\n  validLifetime: soon\n",
        line: Some(6),
        says: &["spec.validLifetime"],
    },
    Case {
        what: "unknown kind of our own",
        document: "apiVersion: serval/v1\nkind: Subnets\nmetadata: {name: s}\nspec: {}\n",
        line: Some(2),
        says: &["Subnets"],
    },
    Case {
        what: "bad address",
        document: "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {name: bad}\nspec:\n  node: NODE\n  \
               interfaceName: tapbad\n  mac: fa:16:3e:00:00:99\n  ipNetworks: [\"2001:db8::zz/128\"]\n",
        line: Some(8),
        says: &["spec.ipNetworks[0]", "2001:db8::zz"],
    },
    Case {
        what: "multicast address",
        document: "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {name: bad}\nspec:\n  node: NODE\n  \
               interfaceName: tapbad\n  mac: fa:16:3e:00:00:99\n  ipNetworks: [\"ff05::2/128\"]\n",
        line: Some(8),
        says: &["spec.ipNetworks[0]", "multicast"],
    },
    Case {
        what: "link-local address",
        document: "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {name: bad}\nspec:\n  node: NODE\n  \
               interfaceName: tapbad\n  mac: fa:16:3e:00:00:99\n  ipNetworks: [\"fe80::1/128\"]\n",
        line: Some(8),
        says: &["spec.ipNetworks[0]", "link-local"],
    },
    Case {
        what: "bad MAC",
        document: "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {name: bad}\nspec:\n  node: NODE\n  \
               interfaceName: tapbad\n  mac: fa:16:3e:00:00\n  ipNetworks: []\n",
        line: Some(7),
        says: &["spec.mac", "fa:16:3e:00:00"],
    },
    Case {
        what: "multicast MAC",
        document: "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {name: bad}\nspec:\n  node: NODE\n  \
               interfaceName: tapbad\n  mac: 33:33:00:00:00:01\n  ipNetworks: []\n",
        line: Some(7),
        says: &["spec.mac", "multicast"],
    },
    Case {
        what: "IPv4 prefix of a Subnet",
        document: "apiVersion: serval/v1\nkind: Subnet\nmetadata: {name: s}\nspec:\n  cidr: 192.0.2.0/24\n",
        line: Some(5),
        says: &["spec.cidr", "192.0.2.0/24"],
    },
    Case {
        what: "IPv4 gateway where IPv6 belongs",
        document: "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {name: bad}\nspec:\n  node: NODE\n  \
               interfaceName: tapbad\n  mac: fa:16:3e:00:00:99\n  ipNetworks: []\n  ipv6Gateway: 192.0.2.1\n",
        line: Some(9),
        says: &["spec.ipv6Gateway", "192.0.2.1"],
    },
    Case {
        what: "two endpoints with one address",
        document: "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {name: zz}\nspec:\n  node: NODE\n  \
               interfaceName: tapzz\n  mac: fa:16:3e:00:00:99\n  ipNetworks: [\"2001:db8:5e:1::1/128\"]\n",
        line: None,
        says: &["zz", "2001:db8:5e:1::1", "vm1"],
    },
    Case {
        what: "two endpoints with one TAP",
        document: "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {name: zz}\nspec:\n  node: NODE\n  \
               interfaceName: tap1\n  mac: fa:16:3e:00:00:99\n  ipNetworks: []\n",
        line: None,
        says: &["zz", "tap1", "vm1"],
    },
    Case {
        what: "overlapping Subnets",
        document: "apiVersion: serval/v1\nkind: Subnet\nmetadata: {name: wide}\nspec:\n  cidr: 2001:db8:5e::/48\n",
        line: None,
        says: &["2001:db8:5e"],
    },
    Case { what: "no YAML", document: "apiVersion: [serval/v1\nkind: {Subnet\n", line: None, says: &[] },
];

/// A host with guests 1 and 2 and a stream between them: what must not suffer.
struct Scene {
    host: Host,
    guests: [KernelGuest; 2],
}

fn scene() -> Result<Scene> {
    let host = Host::started("badinput")?;
    host.put("subnet.yaml", subnet().document())?;
    let guests = [running(&host, 1, Offloads::NONE)?, running(&host, 2, Offloads::NONE)?];
    Ok(Scene { host, guests })
}

impl Scene {
    fn stream(&self) -> Result<Stream> {
        let [from, to] = &self.guests;
        Stream::start(&from.namespace, &to.namespace, address(2), 7_000, 500)
    }

    /// Both endpoints are as they were.
    fn unharmed(&self) -> Result<()> {
        for number in [1, 2] {
            let endpoint = self.host.endpoint(&name(number))?;
            ensure!(endpoint.state() == "up" && endpoint.xdp() == "native", "{endpoint:?}");
        }
        Ok(())
    }
}

fn said_by(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// `serval check` refuses with one line that begins with the file and says all of `says`.
fn check_refuses(host: &Host, file: &str, line: Option<u32>, says: &[&str]) -> Result<()> {
    let output = host.serval(&["check"])?;
    let said = said_by(&output);
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    let lines: Vec<_> = said.lines().filter(|said| said.contains(file)).collect();
    ensure!(lines.len() == 1, "not one message: {said}");
    let start = host.resources().join(file).display().to_string();
    let start = line.map_or_else(|| format!("{start}:"), |line| format!("{start}:{line}:"));
    ensure!(lines[0].starts_with(&start), "it does not begin with {start}: {said}");
    for word in says {
        ensure!(lines[0].contains(word), "it does not say {word}: {said}");
    }
    Ok(())
}

#[test]
fn each_bad_document_is_named_and_nothing_else_suffers() -> Result<()> {
    require_rig!();
    let scene = scene()?;
    let stream = scene.stream()?;
    for case in CASES {
        scene.host.put("zz-bad.yaml", case.document.replace("NODE", scene.host.node()))?;
        check_refuses(&scene.host, "zz-bad.yaml", case.line, case.says).context(case.what)?;
        scene.host.wait_status(case.what, |status| {
            status.problems().iter().any(|problem| case.says.iter().all(|word| problem.contains(word)))
        })?;
        scene.unharmed().context(case.what)?;
        scene.host.remove("zz-bad.yaml")?;
        scene
            .host
            .wait_status("the problem gone", |status| status.problems().is_empty())
            .context(case.what)?;
    }
    let account = stream.finish()?;
    println!("{} bad documents: {account}", CASES.len());
    account.complete()
}

#[test]
fn bad_files_are_named_and_nothing_else_suffers() -> Result<()> {
    require_rig!();
    let scene = scene()?;
    let stream = scene.stream()?;
    let host = &scene.host;
    type Make = fn(&Host) -> Result<()>;
    let makes: [(&str, Make); 6] = [
        ("invalid UTF-8", |host| host.put("zz-bad.yaml", b"kind: \xff\xfe\n")),
        ("10 MB of YAML", |host| host.put("zz-bad.yaml", "- name: x\n".repeat(1 << 20))),
        ("deep nesting", |host| host.put("zz-bad.yaml", "[".repeat(100_000))),
        ("a bomb of aliases", |host| {
            let line = |n| format!("k{n}: &a{n} [*a{0}, *a{0}, *a{0}]\n", n - 1);
            host.put("zz-bad.yaml", format!("k0: &a0 [x]\n{}", (1..30).map(line).collect::<String>()))
        }),
        ("a FIFO", |host| Ok(mkfifo(&host.resources().join("zz-bad.yaml"), Mode::S_IRUSR)?)),
        ("a dangling link", |host| Ok(symlink("/nowhere", host.resources().join("zz-bad.yaml"))?)),
    ];
    for (what, make) in makes {
        make(host).context(what)?;
        let start = Instant::now();
        check_refuses(host, "zz-bad.yaml", None, &[]).context(what)?;
        println!("{what}: refused after {} ms", start.elapsed().as_millis());
        host.wait_status(what, |status| {
            status.problems().iter().any(|problem| problem.contains("zz-bad.yaml"))
        })?;
        scene.unharmed().context(what)?;
        host.remove("zz-bad.yaml")?;
        host.wait_status("the problem gone", |status| status.problems().is_empty()).context(what)?;
    }
    stream.finish()?.complete()
}

#[test]
fn document_that_turns_bad_keeps_its_last_good_state() -> Result<()> {
    require_rig!();
    let scene = scene()?;
    let stream = scene.stream()?;
    let good = endpoint(2).document(scene.host.node());
    scene.host.put("vm2.yaml", good.replace("fa:16:3e", "zz:16:3e"))?;
    scene.host.wait_status("the problem in status", |status| {
        status.problems().iter().any(|problem| problem.contains("vm2.yaml") && problem.contains("spec.mac"))
    })?;
    stream.advance(200)?;
    scene.unharmed()?;
    scene.host.put("vm2.yaml", good)?;
    scene.host.wait_status("the problem gone", |status| status.problems().is_empty())?;
    stream.finish()?.complete()
}

#[test]
fn full_map_refuses_the_endpoint_that_does_not_fit() -> Result<()> {
    require_rig!();
    let mut host = Host::new("full")?;
    host.configure("limits = { endpoints = 2 }")?;
    host.start()?;
    let guests = [running(&host, 1, Offloads::NONE)?, running(&host, 2, Offloads::NONE)?];
    host.put_endpoint(&endpoint(3))?;
    let guest = plugged(&host, 3)?;
    guest.configure(address(3))?;
    host.wait_status("an endpoint in error", |status| {
        status.endpoint(&name(3)).is_some_and(|endpoint| endpoint.reason().contains("endpoints"))
    })?;
    println!("{}", host.endpoint(&name(3))?.reason());
    ensure!(host.endpoint(&name(3))?.state() == "error");
    let ping = traffic::ping(&guests[0].namespace, address(2), 3, Duration::from_millis(10))?;
    ensure!(ping.received == 3, "{ping:?}");

    host.remove_endpoint(&name(1))?;
    host.wait_state(&name(3), "up")?;
    Ok(())
}

#[test]
fn bad_configuration_is_refused_with_its_line() -> Result<()> {
    require_rig!();
    let host = Host::new("badconf")?;
    for (line, says) in [
        ("nod = \"x\"", "nod"),
        ("tap_prefix = 7", "integer"),
        ("uplinks = [\"a/b\"]", "a/b"),
        ("limits = { endpoints = 0 }", "endpoints"),
        ("node = ", ""),
    ] {
        host.configure(line)?;
        for verb in ["check", "run"] {
            let output = host.serval(&[verb])?;
            let said = said_by(&output);
            ensure!(output.status.code() == Some(1), "{verb} with {line}: {}: {said}", output.status);
            ensure!(said.contains("serval.toml:2:") && said.contains(says), "{verb} with {line}: {said}");
        }
    }
    Ok(())
}

#[test]
fn missing_privileges_are_one_message() -> Result<()> {
    require_rig!();
    let host = Host::new("nobody")?;
    let serval = host::program()?;
    let mut command = host.namespace.command("setpriv");
    command.args([
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    ]);
    command.arg(serval).args(["run", "--config"]).arg(host.configuration());
    let output = command.output()?;
    let said = said_by(&output);
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    ensure!(said.lines().count() == 1, "not one message: {said}");
    ensure!(said.contains("root") || said.contains("permission") || said.contains("CAP_"), "{said}");
    println!("{said}");
    Ok(())
}

#[test]
fn without_bpffs_one_is_mounted() -> Result<()> {
    require_rig!();
    let mut host = Host::new("nobpffs")?;
    host.namespace.enter(|| Ok(umount2("/sys/fs/bpf", MntFlags::MNT_DETACH)?))?;
    host.start()?;
    let _guest = running(&host, 1, Offloads::NONE)?;
    ensure!(host.endpoint(&name(1))?.xdp() == "native");
    Ok(())
}

#[test]
fn kernel_that_shows_no_type_information_is_enough() -> Result<()> {
    require_rig!();
    let mut host = Host::new("nobtf")?;
    host.namespace.enter(|| {
        Ok(mount(Some("tmpfs"), "/sys/kernel/btf", Some("tmpfs"), MsFlags::empty(), None::<&str>)?)
    })?;
    host.start()?;
    let _guest = running(&host, 1, Offloads::NONE)?;
    ensure!(host.endpoint(&name(1))?.xdp() == "native");
    Ok(())
}

#[test]
fn host_that_may_not_load_programs_forwards_by_the_kernel_alone() -> Result<()> {
    require_rig!();
    let mut host = Host::new("poor")?;
    host.wrap(&["setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin", "--"]);
    host.start()?;
    let guests = [running(&host, 1, Offloads::NONE)?, running(&host, 2, Offloads::NONE)?];
    let status = host.status()?;
    println!("{}", status.0["fast_path"]);
    ensure!(status.0["fast_path"]["state"] == "unavailable", "{status:?}");
    ensure!(
        status.0["fast_path"]["reason"].as_str().is_some_and(|reason| reason.contains("CAP_BPF")),
        "{status:?}"
    );
    ensure!(host.serval(&["status"])?.status.code() == Some(1), "status calls this healthy");
    ensure!(host.serval(&["status", "--json"])?.status.code() == Some(1), "status --json calls this healthy");
    for number in [1, 2] {
        let endpoint = host.endpoint(&name(number))?;
        ensure!((endpoint.xdp(), endpoint.tc()) == ("off", "off"), "{endpoint:?}");
    }
    let ping = traffic::ping(&guests[0].namespace, address(2), 3, Duration::from_millis(10))?;
    ensure!(ping.received == 3, "{ping:?}");
    Ok(())
}

#[test]
fn prefix_among_addresses_costs_only_itself() -> Result<()> {
    require_rig!();
    let host = Host::new("prefix")?;
    let document =
        endpoint(1).document(host.node()).replace("ipNetworks: [", "ipNetworks: [\"2001:db8:99::/64\", ");
    let line = document.lines().take_while(|line| !line.contains("ipNetworks")).count() + 1;
    host.put("vm1.yaml", document)?;
    let output = host.serval(&["check"])?;
    let said = said_by(&output);
    ensure!(output.status.success(), "{said}");
    ensure!(said.contains(&format!("vm1.yaml:{line}:")) && said.contains("2001:db8:99::/64"), "{said}");
    Ok(())
}

#[test]
fn foreign_programs_stay_and_the_other_hooks_are_used() -> Result<()> {
    require_rig!();
    let host = Host::started("foreign")?;
    let guest = plugged(&host, 1)?;
    guest.configure(address(1))?;
    foreign::attach_xdp(&host.namespace, "tap1")?;
    let before = host.namespace.ip("-details link show dev tap1")?;
    host.put_endpoint(&endpoint(1))?;
    host.wait_status("vm1 without XDP", |status| {
        status.endpoint(&name(1)).is_some_and(|endpoint| endpoint.xdp() == "off" && endpoint.tc() != "off")
    })?;
    let endpoint = host.endpoint(&name(1))?;
    println!("{}", endpoint.reason());
    ensure!(endpoint.state() == "up" && endpoint.reason().starts_with("xdp: "), "{endpoint:?}");
    let program = |text: &str| text.lines().find(|line| line.contains("prog/xdp")).map(str::to_owned);
    let after = host.namespace.ip("-details link show dev tap1")?;
    ensure!(
        program(&before).is_some() && program(&before) == program(&after),
        "displaced: {before}\n{after}"
    );
    Ok(())
}

#[test]
fn ipv4_of_a_guest_is_left_to_the_kernel() -> Result<()> {
    require_rig!();
    let host = Host::started("ipv4")?;
    let guest = running(&host, 1, Offloads::ALL)?;
    host.namespace.ip("address add 192.0.2.1/24 dev tap1")?;
    guest.namespace.ip("address add 192.0.2.2/24 dev eth0")?;
    guest.namespace.run("ping -q -c 3 -i 0.05 -W 2 192.0.2.1")?;
    let endpoint = host.endpoint(&name(1))?;
    ensure!(endpoint.dropped() == 0, "{endpoint:?}");
    Ok(())
}
