//! The case table: single frames from a VM, and exactly what must become of each. The same table is run by the host build
//! of the decision and by the loaded programs.

mod discovery;
mod forward;
mod guard;
mod world;

pub use world::{Devices, VM_A, VM_B, VM_C, VM_D, World};

use dataplane_ebpf::abi::{Counter, Reason};
use dataplane_ebpf::decide::{Action, Hook};
use dataplane_ebpf::host::MemoryFrame;
use std::collections::BTreeMap;

/// A frame from VM A and what must become of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is shown.
    pub name: &'static str,
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
    [guard::cases(), discovery::cases(), forward::cases()].concat()
}

impl Expected {
    fn new(action: Action, bytes: Option<Vec<u8>>, counted: &[(u32, &'static str)]) -> Self {
        Self { action, bytes, counted: counted.iter().map(|key| (*key, 1)).collect() }
    }

    fn drop(reason: Reason) -> Self {
        Self::new(Action::Drop, None, &[(VM_A.slot, reason.label())])
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
}

impl Case {
    /// Both hooks drop it.
    fn drop(name: &'static str, frame: impl Into<MemoryFrame>, reason: Reason) -> Self {
        let frame = frame.into();
        Self { name, frame, multicast_spent: false, xdp: Expected::drop(reason), tc: Expected::drop(reason) }
    }

    /// Both hooks hand it on, untouched.
    fn pass(name: &'static str, frame: impl Into<MemoryFrame>) -> Self {
        let frame = frame.into();
        let (xdp, tc) = (Expected::pass(Hook::Xdp, &frame), Expected::pass(Hook::Tc, &frame));
        Self { name, frame, multicast_spent: false, xdp, tc }
    }

    /// Both hooks send it to `to`.
    fn forward(name: &'static str, frame: impl Into<MemoryFrame>, to: &world::Vm) -> Self {
        let frame = frame.into();
        let bytes = forward::edited(&frame.bytes, to);
        let (xdp, tc) =
            (Expected::forward(Hook::Xdp, bytes.clone(), to), Expected::forward(Hook::Tc, bytes, to));
        Self { name, frame, multicast_spent: false, xdp, tc }
    }

    /// XDP hands it on; TC sends it to `to`.
    fn forward_by_tc(name: &'static str, frame: impl Into<MemoryFrame>, to: &world::Vm) -> Self {
        let mut case = Self::forward(name, frame, to);
        case.xdp = Expected::pass(Hook::Xdp, &case.frame);
        case
    }

    /// Both hooks answer with `reply`.
    fn reply(
        name: &'static str,
        frame: impl Into<MemoryFrame>,
        reply: impl Into<MemoryFrame>,
        counter: Counter,
    ) -> Self {
        let expected =
            Expected::new(Action::Reply, Some(reply.into().bytes), &[(VM_A.slot, counter.label())]);
        Self { name, frame: frame.into(), multicast_spent: false, xdp: expected.clone(), tc: expected }
    }

    /// What `hook` must do.
    pub fn expected(&self, hook: Hook) -> &Expected {
        match hook {
            Hook::Xdp => &self.xdp,
            Hook::Tc => &self.tc,
        }
    }
}

impl From<crate::frame::Frame> for MemoryFrame {
    fn from(frame: crate::frame::Frame) -> Self {
        Self { bytes: frame.bytes, ..Self::default() }
    }
}
