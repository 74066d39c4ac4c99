//! VMs on a host on which policy counts, the world behind its uplink, and single packets of which is known what became.

use anyhow::{Context, Result, ensure};
use serval_tests::cloud::{address, endpoint, mac, name, tap};
use serval_tests::fabric::{Fabric, WORLD};
use serval_tests::guest::{KernelGuest, Settings};
use serval_tests::host::{EndpointStatus, Host, PATIENCE, policy};
use serval_tests::netns::Namespace;
use serval_tests::tap::Offloads;
use serval_tests::wait::{eventually, every};
use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// How long one answer is waited for before the question is put again.
const ANSWER: Duration = Duration::from_millis(500);

/// A host with VMs.
pub struct Cloud {
    pub fabric: Fabric,
    guests: Vec<KernelGuest>,
}

/// Someone who sends and receives.
#[derive(Clone, Copy)]
pub enum Who {
    Vm(u8),
    World,
}

impl Cloud {
    /// Host 1 with `count` VMs, configured by `more`, and these policies, by name: selector and more of the spec.
    pub fn new(
        label: &str,
        count: u8,
        more: &str,
        offloads: Offloads,
        policies: &[(&str, &str, &str)],
    ) -> Result<Self> {
        let mut fabric = Fabric::policed(label, 1)?;
        fabric.host(1).configure(more)?;
        let cloud = |fabric: &Fabric| -> Result<()> {
            policies.iter().try_for_each(|(name, selector, more)| set(fabric.host(1), name, selector, more))
        };
        cloud(&fabric)?;
        fabric.start()?;
        fabric.take_redirects(1)?;
        let mut guests = Vec::new();
        for number in 1..=count {
            fabric.host(1).put_endpoint(&endpoint(number))?;
            let mut settings = Settings::new(&tap(number), mac(number));
            settings.options.offloads = offloads;
            let guest = KernelGuest::new(&fabric.host(1).namespace, settings)?;
            guest.configure(address(number))?;
            fabric.route(address(number), 1)?;
            guests.push(guest);
        }
        for number in 1..=count {
            fabric.host(1).wait_state(&name(number), "up")?;
        }
        Ok(Self { fabric, guests })
    }

    pub fn host(&self) -> &Host {
        self.fabric.host(1)
    }

    pub fn guest(&self, number: u8) -> &KernelGuest {
        &self.guests[usize::from(number) - 1]
    }

    pub fn namespace(&self, who: Who) -> &Namespace {
        match who {
            Who::Vm(number) => &self.guest(number).namespace,
            Who::World => &self.fabric.world,
        }
    }

    pub fn status(&self, number: u8) -> Result<EndpointStatus> {
        self.host().endpoint(&name(number))
    }

    /// Writes a policy and waits until VM `number` is under it, and under no other than these.
    pub fn change(&self, number: u8, policies: &[(&str, &str, &str)], gone: &[&str]) -> Result<()> {
        for (name, selector, more) in policies {
            set(self.host(), name, selector, more)?;
        }
        for name in gone {
            self.host().remove(&format!("{name}.yaml"))?;
        }
        let what = format!("{policies:?} in force and {gone:?} not");
        self.host().wait_status(&what, |status| {
            let endpoint = status.endpoint(&name(number));
            endpoint.is_some_and(|endpoint| {
                let applied = endpoint.policies();
                policies.iter().all(|(name, ..)| applied.iter().any(|applied| applied == name))
                    && gone.iter().all(|name| applied.iter().all(|applied| applied != name))
            })
        })?;
        Ok(())
    }

    /// A datagram from one to the other's port passes, and so does the answer.
    pub fn passes(&self, from: Who, to: Who, port: u16) -> Result<()> {
        let server = socket(self.namespace(to), port)?;
        let client = socket(self.namespace(from), 0)?;
        let destination = SocketAddr::from((to.address(), port));
        every(Duration::ZERO, &format!("a datagram to {destination} and its answer"), PATIENCE, || {
            client.send_to(b"question", destination).context("cannot send")?;
            let Some(client_address) = receive(&server)? else { return Ok(None) };
            server.send_to(b"answer", client_address)?;
            receive(&client)
        })
        .map(drop)
    }

    /// A datagram from one to the other's port does not pass, and is counted with VM `counted` as dropped for `reason`.
    pub fn is_dropped(&self, from: Who, to: Who, port: u16, counted: u8, reason: &str) -> Result<()> {
        let server = socket(self.namespace(to), port)?;
        let client = socket(self.namespace(from), 0)?;
        let destination = SocketAddr::from((to.address(), port));
        let before = self.status(counted)?.dropped_for(reason);
        eventually(&format!("a datagram to {destination} counted as {reason}"), PATIENCE, || {
            client.send_to(b"question", destination).context("cannot send")?;
            std::thread::sleep(Duration::from_millis(20));
            Ok((self.status(counted)?.dropped_for(reason) > before).then_some(()))
        })
        .with_context(|| format!("{:?}", self.status(counted)))?;
        ensure!(receive(&server)?.is_none(), "a datagram to {destination} passed");
        Ok(())
    }
}

impl Who {
    pub fn address(self) -> Ipv6Addr {
        match self {
            Self::Vm(number) => address(number),
            Self::World => WORLD,
        }
    }
}

/// Writes `NAME.yaml` with a policy.
pub fn set(host: &Host, name: &str, selector: &str, more: &str) -> Result<()> {
    host.put(&format!("{name}.yaml"), policy(name, selector, more))
}

pub fn socket(at: &Namespace, port: u16) -> Result<UdpSocket> {
    let socket = at.enter(|| Ok(UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?))?;
    socket.set_read_timeout(Some(ANSWER))?;
    Ok(socket)
}

/// Who has sent something, if somebody has within half a second.
pub fn receive(socket: &UdpSocket) -> Result<Option<SocketAddr>> {
    match socket.recv_from(&mut [0; 64]) {
        Ok((_, from)) => Ok(Some(from)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
        Err(error) => Err(error).context("cannot receive"),
    }
}
