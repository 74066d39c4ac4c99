//! VMs on the hosts of a [`Fabric`], a guest each, and what the fast path of their hosts counts of what they say.

use crate::cloud::{address, name, running};
use crate::fabric::Fabric;
use crate::guest::KernelGuest;
use crate::host::PATIENCE;
use crate::netns::Namespace;
use crate::stream::Stream;
use crate::tap::Offloads;
use crate::traffic::ping;
use crate::wait::eventually;
use anyhow::{Result, ensure};
use std::net::Ipv6Addr;
use std::time::Duration;

/// Echo requests in a conversation.
pub const PINGS: u32 = 20;

/// Hosts with a VM each.
#[derive(Debug)]
pub struct Scene {
    /// The hosts.
    pub fabric: Fabric,
    /// VM n on host n.
    pub guests: Vec<KernelGuest>,
}

impl Scene {
    /// A VM on each of the first `count` hosts, whose daemons run.
    pub fn populate(fabric: Fabric, count: u8, offloads: Offloads) -> Result<Self> {
        let mut guests = Vec::new();
        for number in 1..=count {
            fabric.take_redirects(number)?;
            guests.push(running(fabric.host(number), number, offloads)?);
        }
        Ok(Self { fabric, guests })
    }

    /// VM `number`.
    pub fn guest(&self, number: u8) -> &KernelGuest {
        &self.guests[usize::from(number) - 1]
    }

    /// Waits until echo requests of VM `number` and their answers go by the fast path: its host knows the next hop.
    pub fn settle(&self, number: u8, to: Ipv6Addr) -> Result<()> {
        eventually(&format!("the fast path of host {number} to {to}"), PATIENCE, || {
            let before = self.counted(number)?;
            ping(&self.guest(number).namespace, to, 1, Duration::from_secs(1))?;
            let after = self.counted(number)?;
            Ok((after.0 > before.0 && after.1 > before.1).then_some(()))
        })
    }

    /// Frames that the fast path forwarded from VM `number` and delivered to it.
    pub fn counted(&self, number: u8) -> Result<(u64, u64)> {
        let endpoint = self.fabric.host(number).endpoint(&name(number))?;
        Ok((endpoint.forwarded()?, endpoint.delivered()?))
    }

    /// All echoes between two places are answered.
    pub fn echoes(&self, from: &Namespace, to: Ipv6Addr) -> Result<()> {
        let ping = ping(from, to, PINGS, Duration::from_millis(20))?;
        ensure!(ping.received == PINGS, "{} -> {to}: {ping:?}", from.name());
        Ok(())
    }

    /// All echoes between VM `from` and VM `to` are answered, and the fast path of both hosts carries them both ways.
    pub fn converse(&self, from: u8, to: u8) -> Result<()> {
        self.settle(from, address(to))?;
        let before = [self.counted(from)?, self.counted(to)?];
        self.echoes(&self.guest(from).namespace, address(to))?;
        let after = [self.counted(from)?, self.counted(to)?];
        let all = |(before, after): (&(u64, u64), &(u64, u64))| {
            let least = u64::from(PINGS);
            after.0 >= before.0 + least && after.1 >= before.1 + least
        };
        ensure!(
            before.iter().zip(&after).all(all),
            "VM {from} -> VM {to}, forwarded from and delivered to both: {before:?} -> {after:?}"
        );
        Ok(())
    }

    /// A stream of `rate` datagrams a second from VM `from` to VM `to`.
    pub fn stream(&self, from: u8, to: u8, rate: u32) -> Result<Stream> {
        let port = 7_000 + u16::from(from);
        Stream::start(&self.guest(from).namespace, &self.guest(to).namespace, address(to), port, rate)
    }
}
