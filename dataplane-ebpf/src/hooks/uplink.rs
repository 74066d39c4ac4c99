//! The hooks of an uplink: XDP, or TC ingress after GRO, for what other hosts send.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_md};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use dataplane_ebpf::decide::{Action, Hook, from_uplink_at_length, way};

use crate::maps::MapTables;
use crate::policy;
use crate::skb::{self, SkbFrame};
use crate::xdp::{self, XdpFrame};

/// Native XDP on an uplink.
#[xdp]
#[inline(always)]
pub fn uplink_xdp(context: XdpContext) -> u32 {
    if policy::is_policed() {
        let answer = uplink_xdp_known(context.ctx);
        if answer != xdp::UNKNOWN {
            return answer;
        }
    }
    let mut frame = XdpFrame::new(context.ctx);
    let ifindex = frame.ingress_ifindex();
    xdp::answer(from_uplink_at_length(&mut frame, &MapTables::new(), ifindex, Hook::Xdp))
}

/// What is known of a frame from another host, or [`xdp::UNKNOWN`]; of its own as `tap_xdp_known`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn uplink_xdp_known(context: *mut xdp_md) -> u32 {
    let mut frame = XdpFrame::new(context);
    let ifindex = frame.ingress_ifindex();
    match way::from_uplink(&mut frame, &MapTables::new(), ifindex, Hook::Xdp) {
        Some(action) => xdp::answer(action),
        None => xdp::UNKNOWN,
    }
}

/// TC ingress on an uplink.
#[classifier]
#[inline(always)]
pub fn uplink_in(context: TcContext) -> i32 {
    let skb = context.as_ptr().cast();
    if policy::is_policed() {
        let answer = uplink_in_known(skb);
        if answer != skb::UNKNOWN {
            return answer;
        }
    }
    let mut frame = SkbFrame::new(skb);
    let ifindex = frame.ifindex();
    match from_uplink_at_length(&mut frame, &MapTables::new(), ifindex, Hook::Tc) {
        Action::Pass => TC_ACT_UNSPEC,
        Action::Drop => TC_ACT_SHOT,
        Action::Reply => frame.redirect(ifindex),
        Action::Redirect(to) => frame.redirect(to),
    }
}

/// As [`uplink_xdp_known`], or [`skb::UNKNOWN`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn uplink_in_known(skb: *mut __sk_buff) -> i32 {
    let mut frame = SkbFrame::new(skb);
    let ifindex = frame.ifindex();
    match way::from_uplink(&mut frame, &MapTables::new(), ifindex, Hook::Tc) {
        Some(Action::Redirect(to)) => frame.redirect(to),
        // What is left to the kernel has gone the long way.
        _ => skb::UNKNOWN,
    }
}
