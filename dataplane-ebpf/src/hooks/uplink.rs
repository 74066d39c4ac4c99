//! The hooks of an uplink: XDP, or TC ingress after GRO, for what other hosts send.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use dataplane_ebpf::decide::{Action, Hook, from_uplink};

use crate::maps::MapTables;
use crate::skb::SkbFrame;
use crate::xdp::XdpFrame;

/// Native XDP on an uplink.
#[xdp]
pub fn uplink_xdp(context: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(context.ctx);
    let ifindex = frame.ingress_ifindex();
    match from_uplink(&mut frame, &MapTables, ifindex, Hook::Xdp) {
        Action::Pass => XDP_PASS,
        Action::Drop => XDP_DROP,
        Action::Reply => XDP_TX,
        Action::Redirect(_) => XDP_REDIRECT,
    }
}

/// TC ingress on an uplink.
#[classifier]
pub fn uplink_in(context: TcContext) -> i32 {
    let mut frame = SkbFrame::new(context.as_ptr().cast());
    let ifindex = frame.ifindex();
    match from_uplink(&mut frame, &MapTables, ifindex, Hook::Tc) {
        Action::Pass => TC_ACT_UNSPEC,
        Action::Drop => TC_ACT_SHOT,
        Action::Reply => frame.redirect(ifindex),
        Action::Redirect(to) => frame.redirect(to),
    }
}
