//! Two hosts with a raw guest each, and a stranger on the link between them.

use anyhow::{Context, Error, Result, ensure};
use serval_tests::cloud::{address, endpoint, mac, name, tap};
use serval_tests::fabric::{Fabric, UPLINK};
use serval_tests::frame::{
    Frame, GATEWAY_MAC, ICMPV6, Ipv6, Mac, Payload, addresses, checksum_holds, icmpv6_type,
};
use serval_tests::guest::RawGuest;
use serval_tests::host::{EndpointStatus, PATIENCE};
use serval_tests::tap::{Options, Tap};
use serval_tests::wait::eventually;
use std::cell::RefCell;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

pub struct Scene {
    pub fabric: Fabric,
    /// VM n on host n.
    vms: Vec<RawGuest>,
}

/// An ICMPv6 error as its receiver reads it.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub by: Ipv6Addr,
    pub kind: u8,
    pub code: u8,
    /// The MTU, where it tells one.
    pub value: u32,
    /// What it is about, as far as it is quoted.
    pub quote: Vec<u8>,
}

impl Scene {
    /// Two hosts with `configuration`, a VM each, all routes in place and all next hops known.
    pub fn new(label: &str, configuration: &str) -> Result<Self> {
        let mut fabric = Fabric::new(label, 2)?;
        let mut vms = Vec::new();
        for number in [1, 2] {
            fabric.host(number).configure(configuration)?;
            fabric.host_mut(number).start()?;
            fabric.take_redirects(number)?;
            let host = fabric.host(number);
            host.put_endpoint(&endpoint(number))?;
            vms.push(RawGuest::new(&host.namespace, &tap(number), mac(number), Options::default())?);
            host.wait_state(&name(number), "up")?;
            fabric.route(address(number), number)?;
        }
        let scene = Self { fabric, vms };
        scene.settle(1, 2)?;
        scene.settle(2, 1)?;
        Ok(scene)
    }

    pub fn vm(&self, number: u8) -> &RawGuest {
        &self.vms[usize::from(number) - 1]
    }

    pub fn status(&self, number: u8) -> Result<EndpointStatus> {
        self.fabric.host(number).endpoint(&name(number))
    }

    /// Waits until what VM `from` sends to VM `to` goes by both hosts and no router, and by the fast path of both.
    fn settle(&self, from: u8, to: u8) -> Result<()> {
        let probe = |text: &[u8]| headers(from, address(to)).carrying(Payload::udp(9, 9, text));
        let counted = || Ok::<_, Error>((self.status(from)?.forwarded()?, self.status(to)?.delivered()?));
        eventually(&format!("the fast path from VM {from} to VM {to}"), PATIENCE, || {
            let before = counted()?;
            let frame = probe(b"probe");
            self.vm(from).send(&frame)?;
            let wanted = arrived(&frame, to, 2);
            let end = Instant::now() + Duration::from_millis(100);
            while let Some((_, frame)) = self.vm(to).tap.read_until(end)? {
                if frame == wanted {
                    let after = counted()?;
                    return Ok((after.0 > before.0 && after.1 > before.1).then_some(()));
                }
            }
            Ok(None)
        })?;
        // After this one no probe is under way any more.
        let last = probe(b"the last probe");
        self.vm(from).send(&last)?;
        let wanted = arrived(&last, to, 2);
        self.vm(to).receive("the last probe", |frame| *frame == wanted).map(drop)
    }

    /// MAC of the uplink of host `number`.
    pub fn uplink_mac(&self, number: u8) -> Result<Mac> {
        let links = self.fabric.host(number).namespace.ip_json(&format!("link show dev {UPLINK}"))?;
        let text = links[0]["address"].as_str().context("the uplink has no address")?;
        let octets: Result<Vec<u8>, _> = text.split(':').map(|octet| u8::from_str_radix(octet, 16)).collect();
        octets?.try_into().ok().with_context(|| format!("{text} is no MAC"))
    }

    /// Somebody on the link between the hosts who writes whatever frames there.
    pub fn stranger(&self) -> Result<RawGuest> {
        let router = &self.fabric.router;
        let tap = router.enter(|| Tap::open("stranger", Options::default()))?;
        router.ip("link set stranger master br0 up")?;
        Ok(RawGuest { tap, mac: [0x02, 0, 0, 0, 0, 0x66] })
    }
}

/// Headers of what VM `number` sends.
pub fn headers(number: u8, destination: Ipv6Addr) -> Ipv6 {
    Ipv6 { source: address(number), destination, ..Ipv6::new(mac(number), GATEWAY_MAC) }
}

/// The frame as VM `number` gets it after `hops` routers.
pub fn arrived(frame: &Frame, number: u8, hops: u8) -> Vec<u8> {
    let mut bytes = frame.bytes.clone();
    bytes[..6].copy_from_slice(&mac(number));
    bytes[6..12].copy_from_slice(&GATEWAY_MAC);
    bytes[21] -= hops;
    bytes
}

/// Reads until `last` accepts a frame; gives the packets to the VM's own address that came before, and that one.
pub fn until(vm: &RawGuest, what: &str, number: u8, last: impl Fn(&[u8]) -> bool) -> Result<Vec<Vec<u8>>> {
    let before = RefCell::new(Vec::new());
    let (_, frame) = vm.receive(what, |frame| {
        let found = last(frame);
        if !found && addresses(frame).is_some_and(|(_, destination)| destination == address(number)) {
            before.borrow_mut().push(frame.to_vec());
        }
        found
    })?;
    Ok(before.into_inner().into_iter().chain([frame]).collect())
}

/// Reads until VM `number` gets an ICMPv6 error, which has to be formed as RFC 4443 wants it.
pub fn told(vm: &RawGuest, number: u8) -> Result<Told> {
    let (_, frame) = vm.receive("an ICMPv6 error", is_error)?;
    parse(&frame, number)
}

/// The frame carries an ICMPv6 error.
pub fn is_error(frame: &[u8]) -> bool {
    icmpv6_type(frame).is_some_and(|kind| kind < 128)
}

/// Reads an ICMPv6 error to VM `number`.
pub fn parse(frame: &[u8], number: u8) -> Result<Told> {
    let (by, to) = addresses(frame).context("no IPv6")?;
    ensure!(frame[..12] == [mac(number), GATEWAY_MAC].concat(), "MACs {:02x?}", &frame[..12]);
    ensure!(to == address(number) && frame[20] == ICMPV6, "an error to {to}");
    ensure!(checksum_holds(frame), "the checksum is wrong: {frame:02x?}");
    ensure!(frame.len() - 14 <= 1280, "an error of {} bytes (RFC 4443 section 2.4 c)", frame.len() - 14);
    let value = u32::from_be_bytes(frame[58..62].try_into()?);
    Ok(Told { by, kind: frame[54], code: frame[55], value, quote: frame[62..].to_vec() })
}

impl Told {
    /// The same of a packet that `sent` is, `hops` routers later: as much of it as fits (RFC 4443 section 3).
    pub fn about(by: Ipv6Addr, (kind, code, value): (u8, u8, u32), sent: &Frame, hops: u8) -> Self {
        let mut quote = sent.bytes[14..].to_vec();
        quote.truncate(1280 - 48);
        quote[7] -= hops;
        Self { by, kind, code, value, quote }
    }
}
