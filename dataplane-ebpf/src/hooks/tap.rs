//! The hooks of a TAP: XDP and TC ingress for what the VM sends, TC egress for what the kernel delivers to it.
//!
//! The log says nothing that was known before the decision: a value kept alive across it makes the verifier tell apart
//! what it could treat as the same, and costs it three times the work.
//!
//! It is for the trace level only: userspace sets the level before it loads, and the kernel then takes what is
//! below it out of the program.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use aya_log_ebpf::trace;
use dataplane_ebpf::decide::{Action, Hook, from_vm, to_vm};

use crate::maps::MapTables;
use crate::skb::SkbFrame;
use crate::xdp::XdpFrame;

/// Native XDP on a TAP: frames from the VM. It takes frames in fragments, because the kernel would otherwise copy every
/// frame that is to be cut into segments into one piece before it asks us: an allocation of 64 KiB at a time.
///
/// It is inlined into what the macro makes, whose frame would count as 32 bytes of the 512 that there are of stack.
#[xdp(frags)]
#[inline(always)]
pub fn tap_xdp(context: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(context.ctx);
    let ifindex = frame.ingress_ifindex();
    let answer = match from_vm(&mut frame, &MapTables, ifindex, Hook::Xdp) {
        Action::Pass => XDP_PASS,
        Action::Drop => XDP_DROP,
        Action::Reply => XDP_TX,
        Action::Redirect(_) => XDP_REDIRECT,
    };
    trace!(&context, "tap_xdp on interface {}: XDP action {}", frame.ingress_ifindex(), answer);
    answer
}

/// TC ingress on a TAP: frames from the VM that XDP handed on, or did not see.
#[classifier]
pub fn tap_in(context: TcContext) -> i32 {
    let skb = context.as_ptr().cast();
    let mut frame = SkbFrame::new(skb);
    let ifindex = frame.ifindex();
    let answer = match from_vm(&mut frame, &MapTables, ifindex, Hook::Tc) {
        // Not TC_ACT_OK: programs and filters after ours are asked as well.
        Action::Pass => {
            frame.mark_judged();
            TC_ACT_UNSPEC
        }
        Action::Drop => TC_ACT_SHOT,
        Action::Reply => frame.redirect(ifindex),
        Action::Redirect(to) => frame.redirect(to),
    };
    trace!(&context, "tap_in on interface {}: TC action {}", frame.ifindex(), answer);
    answer
}

/// TC egress on a TAP: frames to the VM. Those that the fast path sent are counted and judged already.
#[classifier]
pub fn tap_out(context: TcContext) -> i32 {
    let frame = SkbFrame::new(context.as_ptr().cast());
    let action = if frame.is_forwarded() {
        Action::Pass
    } else {
        to_vm(&frame, &MapTables, frame.ifindex(), frame.received_on(), frame.is_judged())
    };
    match action {
        Action::Drop => TC_ACT_SHOT,
        _ => TC_ACT_UNSPEC,
    }
}
