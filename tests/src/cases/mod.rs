//! The case table: single frames from a VM or another host, and exactly what must become of each. The same table is run
//! by the host build of the decision and by the loaded programs.

mod discovery;
mod forward;
mod guard;
mod network;
pub mod policy;
mod remote;
mod uplink;
mod world;

pub use network::{HOPS, Hop, UPLINK_MAC, group, steer, way};
pub use uplink::steered;
pub use world::{Devices, GATEWAY, VM_A, VM_B, VM_C, VM_D, World, discovery, from_a, link_local_a};

use crate::frame::{GATEWAY_MAC, Mac};
use crate::program::Origin;
use dataplane_ebpf::abi::{Counter, Reason};
use dataplane_ebpf::decide::{Action, Hook};
use dataplane_ebpf::host::MemoryFrame;
use std::collections::BTreeMap;

/// A frame from VM A or another host, and what must become of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is shown.
    pub name: &'static str,
    /// Where the frame comes from.
    pub origin: Origin,
    /// The frame.
    pub frame: MemoryFrame,
    /// Multicast answers of the last 3 s are used up.
    pub multicast_spent: bool,
    /// What XDP must do.
    pub xdp: Expected,
    /// What TC must do, when XDP handed it on or did not see it.
    pub tc: Expected,
}

/// What a hook must do with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its answer; the device of a redirect is told by whose delivery is counted.
    pub action: Action,
    /// The frame afterwards; `None`: not looked at, since it is dropped.
    pub bytes: Option<Vec<u8>>,
    /// Every counter that is not zero, by slot and label.
    pub counted: BTreeMap<(u32, &'static str), u64>,
}

/// All cases.
pub fn all() -> Vec<Case> {
    [guard::cases(), discovery::cases(), forward::cases(), remote::cases(), uplink::cases()].concat()
}

impl Expected {
    fn new(action: Action, bytes: Option<Vec<u8>>, counted: &[(u32, &'static str)]) -> Self {
        Self { action, bytes, counted: counted.iter().map(|key| (*key, 1)).collect() }
    }

    fn drop(slot: u32, reason: Reason) -> Self {
        Self::new(Action::Drop, None, &[(slot, reason.label())])
    }

    fn host(frame: &MemoryFrame) -> Self {
        Self::new(Action::Pass, Some(frame.bytes.clone()), &[])
    }

    fn pass(hook: Hook, frame: &MemoryFrame) -> Self {
        let counter = match hook {
            Hook::Xdp => Counter::Deferred,
            Hook::Tc => Counter::Passed,
        };
        Self::new(Action::Pass, Some(frame.bytes.clone()), &[(VM_A.slot, counter.label())])
    }

    fn forward(hook: Hook, bytes: Vec<u8>, to: &world::Vm) -> Self {
        let (forwarded, delivered) = match hook {
            Hook::Xdp => (Counter::ForwardedXdp, Counter::DeliveredXdp),
            Hook::Tc => (Counter::ForwardedTc, Counter::DeliveredTc),
        };
        let counted = [(VM_A.slot, forwarded.label()), (to.slot, delivered.label())];
        Self::new(Action::Redirect(0), Some(bytes), &counted)
    }

    fn route(hook: Hook, bytes: Vec<u8>) -> Self {
        let forwarded = match hook {
            Hook::Xdp => Counter::ForwardedXdp,
            Hook::Tc => Counter::ForwardedTc,
        };
        Self::new(Action::Redirect(0), Some(bytes), &[(VM_A.slot, forwarded.label())])
    }

    fn deliver(hook: Hook, bytes: Vec<u8>, to: &world::Vm) -> Self {
        let delivered = match hook {
            Hook::Xdp => Counter::DeliveredXdp,
            Hook::Tc => Counter::DeliveredTc,
        };
        Self::new(Action::Redirect(0), Some(bytes), &[(to.slot, delivered.label())])
    }
}

impl Case {
    fn new(
        name: &'static str,
        origin: Origin,
        frame: MemoryFrame,
        expected: impl Fn(Hook, &MemoryFrame) -> Expected,
    ) -> Self {
        let (xdp, tc) = (expected(Hook::Xdp, &frame), expected(Hook::Tc, &frame));
        Self { name, origin, frame, multicast_spent: false, xdp, tc }
    }

    /// Both hooks drop it.
    fn drop(name: &'static str, frame: impl Into<MemoryFrame>, reason: Reason) -> Self {
        Self::new(name, Origin::Vm, frame.into(), |_, _| Expected::drop(VM_A.slot, reason))
    }

    /// Both hooks hand it on, untouched.
    fn pass(name: &'static str, frame: impl Into<MemoryFrame>) -> Self {
        Self::new(name, Origin::Vm, frame.into(), Expected::pass)
    }

    /// Both hooks send it to `to`.
    fn forward(name: &'static str, frame: impl Into<MemoryFrame>, to: &world::Vm) -> Self {
        Self::new(name, Origin::Vm, frame.into(), |hook, frame| {
            Expected::forward(hook, edited(&frame.bytes, to.mac, GATEWAY_MAC), to)
        })
    }

    /// Both hooks send it to the next hop `to`.
    fn route(name: &'static str, frame: impl Into<MemoryFrame>, to: &Hop) -> Self {
        Self::new(name, Origin::Vm, frame.into(), |hook, frame| {
            Expected::route(hook, edited(&frame.bytes, to.mac, UPLINK_MAC))
        })
    }

    /// Both hooks answer with `reply`.
    fn reply(
        name: &'static str,
        frame: impl Into<MemoryFrame>,
        reply: impl Into<MemoryFrame>,
        counter: Counter,
    ) -> Self {
        let reply = reply.into().bytes;
        Self::new(name, Origin::Vm, frame.into(), |_, _| {
            Expected::new(Action::Reply, Some(reply.clone()), &[(VM_A.slot, counter.label())])
        })
    }

    /// From another host: both hooks send it to `to`.
    fn deliver(name: &'static str, frame: impl Into<MemoryFrame>, to: &world::Vm) -> Self {
        Self::new(name, Origin::Uplink, frame.into(), |hook, frame| {
            Expected::deliver(hook, edited(&frame.bytes, to.mac, GATEWAY_MAC), to)
        })
    }

    /// From another host: both hooks drop it, which is counted to `to`.
    fn refuse(name: &'static str, frame: impl Into<MemoryFrame>, reason: Reason, to: &world::Vm) -> Self {
        Self::new(name, Origin::Uplink, frame.into(), |_, _| Expected::drop(to.slot, reason))
    }

    /// From another host: both hooks leave it to the host, untouched and not counted.
    fn host(name: &'static str, frame: impl Into<MemoryFrame>) -> Self {
        Self::new(name, Origin::Uplink, frame.into(), |_, frame| Expected::host(frame))
    }

    /// The same, but XDP hands it on, and only TC does it.
    fn by_tc(mut self) -> Self {
        self.xdp = match self.origin {
            Origin::Vm => Expected::pass(Hook::Xdp, &self.frame),
            Origin::Uplink => Expected::host(&self.frame),
        };
        self
    }

    /// What `hook` must do.
    pub fn expected(&self, hook: Hook) -> &Expected {
        match hook {
            Hook::Xdp => &self.xdp,
            Hook::Tc => &self.tc,
        }
    }
}

/// The frame as the next node must see it: MACs, hop limit one less, nothing else.
fn edited(bytes: &[u8], destination: Mac, source: Mac) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[..6].copy_from_slice(&destination);
    bytes[6..12].copy_from_slice(&source);
    bytes[21] -= 1;
    bytes
}

impl From<crate::frame::Frame> for MemoryFrame {
    fn from(frame: crate::frame::Frame) -> Self {
        Self { bytes: frame.bytes, ..Self::default() }
    }
}
