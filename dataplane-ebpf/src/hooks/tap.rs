//! The hooks of a TAP: XDP and TC ingress for what the VM sends, TC egress for what the kernel delivers to it.
//!
//! The log says nothing that was known before the decision: a value kept alive across it makes the verifier tell apart
//! what it could treat as the same, and costs it three times the work.
//!
//! It is for the trace level only: userspace sets the level before it loads, and the kernel then takes what is
//! below it out of the program.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_md};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use aya_log_ebpf::trace;
use dataplane_ebpf::decide::{Action, Hook, from_vm_at_length, to_vm, way};

use crate::events;
use crate::maps::MapTables;
use crate::policy;
use crate::skb::{self, SkbFrame};
use crate::xdp::{self, XdpFrame};

/// Native XDP on a TAP: frames from the VM. It takes frames in fragments, because the kernel would otherwise copy every
/// frame that is to be cut into segments into one piece before it asks us: an allocation of 64 KiB at a time.
///
/// It is inlined into what the macro makes, whose frame would count as 32 bytes of the 512 that there are of stack.
#[xdp(frags)]
#[inline(always)]
pub fn tap_xdp(context: XdpContext) -> u32 {
    if policy::is_policed() {
        let answer = tap_xdp_known(context.ctx);
        if answer != xdp::UNKNOWN {
            return answer;
        }
    }
    let mut frame = XdpFrame::new(context.ctx);
    let ifindex = frame.ingress_ifindex();
    let answer = xdp::answer(from_vm_at_length(&mut frame, &MapTables::new(), ifindex, Hook::Xdp));
    if answer == XDP_PASS && frame.is_in_fragments() {
        events::event_copied(frame.ingress_ifindex());
    }
    trace!(&context, "tap_xdp on interface {}: XDP action {}", frame.ingress_ifindex(), answer);
    answer
}

/// What is known of a frame from a VM, or [`xdp::UNKNOWN`]. Of its own, so that it shares neither the stack nor the work of
/// the verifier with the long way.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tap_xdp_known(context: *mut xdp_md) -> u32 {
    let mut frame = XdpFrame::new(context);
    let ifindex = frame.ingress_ifindex();
    match way::from_vm(&mut frame, &MapTables::new(), ifindex, Hook::Xdp) {
        Some(action) => xdp::answer(action),
        None => xdp::UNKNOWN,
    }
}

/// TC ingress on a TAP: frames from the VM that XDP handed on, or did not see.
#[classifier]
#[inline(always)]
pub fn tap_in(context: TcContext) -> i32 {
    let skb = context.as_ptr().cast();
    if policy::is_policed() {
        let answer = tap_in_known(skb);
        if answer != skb::UNKNOWN {
            return answer;
        }
    }
    let mut frame = SkbFrame::new(skb);
    let ifindex = frame.ifindex();
    let answer = match from_vm_at_length(&mut frame, &MapTables::new(), ifindex, Hook::Tc) {
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

/// As [`tap_xdp_known`], or [`skb::UNKNOWN`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tap_in_known(skb: *mut __sk_buff) -> i32 {
    let mut frame = SkbFrame::new(skb);
    let ifindex = frame.ifindex();
    match way::from_vm(&mut frame, &MapTables::new(), ifindex, Hook::Tc) {
        Some(Action::Redirect(to)) => frame.redirect(to),
        // What is left to the kernel has gone the long way.
        _ => skb::UNKNOWN,
    }
}

/// TC egress on a TAP: frames to the VM. Those that the fast path sent are counted and judged already.
#[classifier]
pub fn tap_out(context: TcContext) -> i32 {
    let frame = SkbFrame::new(context.as_ptr().cast());
    let action = if frame.is_forwarded() {
        Action::Pass
    } else {
        to_vm(&frame, &MapTables::new(), frame.ifindex(), frame.received_on(), frame.is_judged())
    };
    match action {
        Action::Drop => TC_ACT_SHOT,
        _ => TC_ACT_UNSPEC,
    }
}
