//! Stories of policy: frames one after the other, what must become of each at every hook, and the flows that are
//! remembered in the end. VM A may call anybody and nobody may call it; VM B offers a few services and may call nobody; VM
//! C has no policy, so nothing passes.

mod connections;
mod errors;
mod fragments;
mod host;
mod services;
mod world;

pub use world::{CLOSED_SERVER, LOUD_NEIGHBOUR, POLICIES, compile, policed, tables};

use super::network::NEAR;
use super::world::{Devices, GATEWAY_GLOBAL, Vm};
use super::{Expected, HOPS, UPLINK_MAC, VM_A, VM_B, VM_C, edited};
use crate::frame::{Extension, GATEWAY_MAC, Ipv6, Payload};
use crate::program::{At, INGRESS, Origin};
use dataplane_ebpf::abi::{Counter, Flow, FlowKey, Reason, ZONE_HOST, ZONE_OUTSIDE, flow_flags};
use dataplane_ebpf::decide::{Action, Hook};
use dataplane_ebpf::host::MemoryFrame;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

/// Somebody who sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The VM that may call.
    A,
    /// The VM that may be called.
    B,
    /// The VM without policy.
    C,
    /// The host.
    Host,
    /// Somebody behind other hosts.
    Afar,
}

/// An address of [`Who::Afar`].
pub const AFAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 1);

/// What happens, and what is remembered afterwards.
#[derive(Clone, Debug)]
pub struct Story {
    /// What is shown.
    pub name: &'static str,
    /// VMs may talk to the host as far as their policy allows.
    pub host_is_open: bool,
    /// What the host sends to VMs is judged by their policy.
    pub host_is_judged: bool,
    /// Flows that an endpoint may have.
    pub quota: u32,
    /// What happens.
    pub acts: Vec<Act>,
    /// All flows in the end, as [`Names::flows`] writes them.
    pub flows: Vec<&'static str>,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Act {
    /// A packet comes.
    Packet(Box<Passage>),
    /// Seconds go by.
    Wait(u32),
    /// Policy is this from now on.
    Policy(&'static str),
    /// The address of VM B is VM C's from now on.
    Move,
}

/// A packet, where it passes, and what must become of it.
#[derive(Clone, Debug)]
pub struct Passage {
    from: Who,
    to: Who,
    headers: Ipv6,
    payload: Payload,
    way: Way,
    fate: Fate,
}

/// Which programs see a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// XDP, which finishes it; where XDP does not see it, TC does.
    Xdp,
    /// XDP, which hands it on, and TC.
    Tc,
    /// Only TC where the kernel delivers it.
    Kernel,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Arrives,
    IsHandedOn,
    IsDropped(Reason),
}

/// The hooks that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// XDP, and TC for what it hands on.
    Both,
    /// TC alone.
    Tc,
}

/// All stories.
pub fn stories() -> Vec<Story> {
    [connections::stories(), services::stories(), host::stories(), errors::stories(), fragments::stories()]
        .concat()
}

impl Story {
    /// Why its packets are dropped.
    pub fn reasons(&self) -> impl Iterator<Item = Reason> {
        self.acts.iter().filter_map(|act| match act {
            Act::Packet(passage) => match passage.fate {
                Fate::IsDropped(reason) => Some(reason),
                Fate::Arrives | Fate::IsHandedOn => None,
            },
            _ => None,
        })
    }
}

fn story(name: &'static str, acts: impl Into<Vec<Act>>, flows: &[&'static str]) -> Story {
    Story {
        name,
        host_is_open: false,
        host_is_judged: false,
        quota: 64,
        acts: acts.into(),
        flows: flows.to_vec(),
    }
}

/// A packet that gets where it is to go; what is for the host is handed on by all hooks.
fn packet(from: Who, to: Who, payload: Payload) -> Passage {
    let (source_mac, destination_mac) = match from.vm() {
        Some(vm) => (vm.mac, GATEWAY_MAC),
        None => (HOPS[0].mac, UPLINK_MAC),
    };
    let headers =
        Ipv6 { source: from.address(), destination: to.address(), ..Ipv6::new(source_mac, destination_mac) };
    let (way, fate) = match to {
        Who::Host => (Way::Tc, Fate::IsHandedOn),
        _ if from == Who::Host => (Way::Kernel, Fate::Arrives),
        _ => (Way::Xdp, Fate::Arrives),
    };
    Passage { from, to, headers, payload, way, fate }
}

impl From<Passage> for Act {
    fn from(passage: Passage) -> Self {
        Self::Packet(Box::new(passage))
    }
}

impl Passage {
    fn dropped(mut self, reason: Reason) -> Self {
        self.fate = Fate::IsDropped(reason);
        self
    }

    /// XDP hands it on.
    fn by_tc(mut self) -> Self {
        self.way = Way::Tc;
        self
    }

    /// XDP finishes it.
    fn by_xdp(mut self) -> Self {
        self.way = Way::Xdp;
        self
    }

    /// The kernel delivers it, and no hook has seen it before.
    fn by_kernel(mut self) -> Self {
        self.way = Way::Kernel;
        self
    }

    /// With extension headers, which XDP hands on.
    fn behind(mut self, extensions: &[Extension]) -> Self {
        self.headers.extensions = extensions.to_vec();
        if self.way == Way::Xdp { self.by_tc() } else { self }
    }

    fn with(mut self, change: impl FnOnce(&mut Ipv6)) -> Self {
        change(&mut self.headers);
        self
    }

    /// What is shown of it.
    pub fn name(&self) -> String {
        let (Self { from, to, payload, .. }, header) = (self, self.payload.bytes.get(..4).unwrap_or(&[]));
        format!("{from:?} to {to:?}, protocol {} {header:02x?}", payload.protocol)
    }

    /// The packet as it comes.
    pub fn frame(&self) -> MemoryFrame {
        self.headers.clone().carrying(self.payload.clone()).into()
    }

    /// The programs that see it, one after the other, and what each must do.
    pub fn expected(&self, hooks: Hooks, devices: Devices) -> Vec<(At, Expected)> {
        let frame = self.frame();
        let at = |hook| match self.from.vm() {
            Some(_) => At::In(Origin::Vm, hook, self.from.ifindex(devices)),
            None => At::In(Origin::Uplink, hook, INGRESS),
        };
        match (self.way, hooks) {
            (Way::Kernel, _) => {
                let received_on = self.from.ifindex(devices);
                let at = At::Out { ifindex: self.to.ifindex(devices), received_on };
                vec![(at, self.delivered_by_kernel(&frame))]
            }
            (Way::Xdp, Hooks::Both) => vec![(at(Hook::Xdp), self.at_hook(Hook::Xdp, &frame))],
            (Way::Tc, Hooks::Both) => {
                let handed_on = self.handed_on_by(Hook::Xdp, &frame);
                vec![(at(Hook::Xdp), handed_on), (at(Hook::Tc), self.at_hook(Hook::Tc, &frame))]
            }
            (_, Hooks::Tc) => vec![(at(Hook::Tc), self.at_hook(Hook::Tc, &frame))],
        }
    }

    fn at_hook(&self, hook: Hook, frame: &MemoryFrame) -> Expected {
        let (mac, source_mac) = match self.to.vm() {
            Some(vm) => (vm.mac, GATEWAY_MAC),
            None => (NEAR.mac, UPLINK_MAC),
        };
        match (self.fate, self.from.vm(), self.to.vm()) {
            (Fate::IsHandedOn, ..) => self.handed_on_by(hook, frame),
            (Fate::IsDropped(reason), Some(vm), _) | (Fate::IsDropped(reason), None, Some(vm)) => {
                Expected::drop(vm.slot, reason)
            }
            (Fate::IsDropped(_), None, None) => unreachable!("a packet is from a VM or to one"),
            (Fate::Arrives, from, to) => {
                let (forwarded, delivered) = match hook {
                    Hook::Xdp => (Counter::ForwardedXdp, Counter::DeliveredXdp),
                    Hook::Tc => (Counter::ForwardedTc, Counter::DeliveredTc),
                };
                let counted: Vec<_> = [(from, forwarded), (to, delivered)]
                    .into_iter()
                    .filter_map(|(vm, counter)| Some((vm?.slot, counter.label())))
                    .collect();
                let bytes = edited(&frame.bytes, mac, source_mac);
                Expected::new(Action::Redirect(0), Some(bytes), &counted)
            }
        }
    }

    fn handed_on_by(&self, hook: Hook, frame: &MemoryFrame) -> Expected {
        let counter = match hook {
            Hook::Xdp => Counter::Deferred,
            Hook::Tc => Counter::Passed,
        };
        let counted: Vec<_> = self.from.vm().map(|vm| (vm.slot, counter.label())).into_iter().collect();
        Expected::new(Action::Pass, Some(frame.bytes.clone()), &counted)
    }

    fn delivered_by_kernel(&self, frame: &MemoryFrame) -> Expected {
        let slot = self.to.vm().expect("the kernel delivers to VMs").slot;
        match self.fate {
            Fate::IsDropped(reason) => Expected::drop(slot, reason),
            _ => {
                let counted = [(slot, Counter::DeliveredKernel.label())];
                Expected::new(Action::Pass, Some(frame.bytes.clone()), &counted)
            }
        }
    }
}

impl Who {
    fn vm(self) -> Option<&'static Vm> {
        match self {
            Self::A => Some(&VM_A),
            Self::B => Some(&VM_B),
            Self::C => Some(&VM_C),
            Self::Host | Self::Afar => None,
        }
    }

    /// Its address.
    pub fn address(self) -> Ipv6Addr {
        match (self.vm(), self) {
            (Some(vm), _) => vm.address,
            (None, Self::Host) => GATEWAY_GLOBAL,
            _ => AFAR,
        }
    }

    /// The interface that its packets come in on; 0 for none.
    pub fn ifindex(self, devices: Devices) -> u32 {
        match self {
            Self::A => INGRESS,
            Self::B => devices.b,
            Self::C => devices.c,
            Self::Host => 0,
            Self::Afar => devices.uplink,
        }
    }
}

/// Names for what is in flows.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// The interfaces.
    pub devices: Devices,
}

impl Names {
    /// Flows for people, in order: from where to where, what, its state, and whose quota it takes from.
    pub fn flows(self, flows: &BTreeMap<FlowKey, Flow>) -> Vec<String> {
        let mut lines: Vec<_> = flows.iter().map(|(key, flow)| self.flow(key, flow)).collect();
        lines.sort();
        lines
    }

    fn flow(self, key: &FlowKey, flow: &Flow) -> String {
        let zone = self.zone(key.zone);
        let protocol = match key.protocol {
            6 => "tcp",
            17 => "udp",
            44 => "fragments",
            58 => "echo",
            132 => "sctp",
            136 => "udplite",
            _ => "other",
        };
        let states = [
            (flow_flags::REPLY, " answers"),
            (flow_flags::SEEN, " seen"),
            (flow_flags::ESTABLISHED, " established"),
            (flow_flags::ENDED, " ended"),
            (flow_flags::OTHER_ENDED, " other-ended"),
            (flow_flags::RESET, " reset"),
            (flow_flags::HOST, " host"),
        ];
        let states: String =
            states.iter().filter(|(flag, _)| flow.flags & flag != 0).map(|(_, state)| *state).collect();
        let owner = [VM_A, VM_B, VM_C].iter().zip("ABC".chars()).find(|(vm, _)| vm.slot == flow.owner);
        let owner = owner.map_or('?', |(_, name)| name);
        let (source, destination) = (name(key.source.octets()), name(key.destination.octets()));
        let (from, to) = (key.source_port, key.destination_port);
        format!(
            "{zone} {source} > {destination} {protocol} {from} {to} < {}:{states} ({owner})",
            self.zone(flow.reverse_zone)
        )
    }

    fn zone(self, zone: u32) -> &'static str {
        let vms = [(Who::A, "A"), (Who::B, "B"), (Who::C, "C")];
        match zone {
            ZONE_OUTSIDE => "-",
            ZONE_HOST => "H",
            vm => vms.iter().find(|(who, _)| who.ifindex(self.devices) == vm).map_or("?", |(_, name)| name),
        }
    }
}

fn name(address: [u8; 16]) -> String {
    let address = Ipv6Addr::from(address);
    let all = [Who::A, Who::B, Who::C, Who::Host, Who::Afar];
    all.iter()
        .find(|who| who.address() == address)
        .map_or_else(|| address.to_string(), |who| format!("{who:?}"))
}
