//! The kernel alone, as `apply::kernel` has set it up: frames of VMs in, frames of VMs out, without any BPF program.

mod netns;

use netns::frame::{self, datagrams, icmp};
use netns::{Tap, endpoint, in_namespace};
use serval::apply::kernel::Kernel;
use serval::apply::links::Watch;
use serval::plan::Attached;
use serval::resource::MacAddress;
use std::net::Ipv6Addr;
use std::time::Duration;

const GATEWAY: &str = "2001:db8:1::1";

/// Two VMs with one gateway address, behind two TAPs that the kernel knows.
struct Host {
    kernel: Kernel,
    taps: [Tap; 2],
    endpoints: [Attached; 2],
}

impl Host {
    async fn new() -> Self {
        let taps = [Tap::up("tap0"), Tap::up("tap1")];
        let kernel = Kernel::open("tap").expect("root may");
        kernel.prepare_host().await.expect("root may");
        let watch = Watch::open().await.expect("root may");
        let endpoints = [("tap0", "02:00:00:00:00:11"), ("tap1", "02:00:00:00:00:22")].map(|(name, mac)| {
            let address = format!("2001:db8:1::{}", &mac[15..]);
            endpoint(watch.facts(), name, mac, &[&address], &[GATEWAY])
        });
        for outcome in kernel.apply_all(&endpoints).await.into_values() {
            assert_eq!(outcome.expect("the kernel takes it").obstacles, []);
        }
        Self { kernel, taps, endpoints }
    }

    fn vm(&self, number: usize) -> (MacAddress, Ipv6Addr) {
        (self.endpoints[number].mac, self.endpoints[number].addresses[0].get())
    }

    /// The first VM sends a datagram to the second one by way of the host.
    fn send(&mut self, hop_limit: u8) {
        let (from, to) = (self.vm(0), self.vm(1));
        let frame = frame::udp(from, (self.endpoints[0].gateway_mac, to.1), hop_limit);
        self.taps[0].send(&frame);
    }
}

/// Waits until the kernel listens to solicitations for `target`: it joins the group in a work queue, even when it has
/// no duplicates to look for, and tells nobody.
async fn joined(interface: &str, target: Ipv6Addr) {
    let [.., a, b, c] = target.octets();
    // As /proc/net/igmp6 writes it: address without colons.
    let group = format!("ff0200000000000000000001ff{a:02x}{b:02x}{c:02x}");
    let listening = || {
        let groups = std::fs::read_to_string("/proc/thread-self/net/igmp6").expect("the kernel has IPv6");
        groups.lines().any(|line| line.contains(&format!(" {interface} ")) && line.contains(&group))
    };
    let wait = async {
        while !listening() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), wait).await.expect("the kernel joins within seconds");
}

#[test]
fn vms_reach_each_other() {
    in_namespace(|| async {
        let mut host = Host::new().await;
        host.send(64);
        let seen = host.taps[1].expect(datagrams);
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].to_mac, host.endpoints[1].mac.octets());
        assert_eq!(seen[0].from_mac, host.endpoints[1].gateway_mac.octets());
        assert_eq!(seen[0].hop_limit, 63);
        assert_eq!((seen[0].source, seen[0].destination), (host.vm(0).1, host.vm(1).1));
        // Nobody was asked where the VM is.
        assert_eq!(icmp(&host.taps[1].received(), 135), []);
    });
}

#[test]
fn the_gateway_answers_on_every_tap_and_errors_come_from_it() {
    in_namespace(|| async {
        let mut host = Host::new().await;
        for number in 0..2 {
            let endpoint = host.endpoints[number].clone();
            for target in [endpoint.gateway, GATEWAY.parse().unwrap()] {
                let from = (endpoint.mac, endpoint.mac.link_local());
                joined(endpoint.interface.as_str(), target).await;
                host.taps[number].send(&frame::neighbour_solicitation(from, target));
                let answers = host.taps[number].expect(|frames| icmp(frames, 136));
                assert_eq!(answers.len(), 1, "{target}");
                // Router, solicited, override; the target's MAC is the TAP's (RFC 4861 section 4.4).
                assert_eq!(answers[0].payload[4], 0b1110_0000);
                assert_eq!(answers[0].payload[8..24], target.octets());
                assert_eq!(answers[0].payload[26..32], endpoint.gateway_mac.octets());
            }
        }
        host.send(1);
        let errors = host.taps[0].expect(|frames| icmp(frames, 3));
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].source, GATEWAY.parse::<Ipv6Addr>().unwrap());
        assert_eq!(errors[0].to_mac, host.endpoints[0].mac.octets());
        assert_eq!(datagrams(&host.taps[1].received()), []);
    });
}

#[test]
fn nothing_passes_a_tap_that_is_blocked() {
    in_namespace(|| async {
        let mut host = Host::new().await;
        for number in 0..2 {
            let endpoint = host.endpoints[number].clone();
            host.kernel.block(endpoint.ifindex, &endpoint.interface).await.unwrap();
            host.send(64);
            assert_eq!(datagrams(&host.taps[1].received()), [], "{number} is blocked");
            host.kernel.apply(&endpoint).await.unwrap();
            host.send(64);
            assert_eq!(host.taps[1].expect(datagrams).len(), 1, "{number} is open again");
        }
    });
}
