//! The filters: what is learnt, programmed, announced and accepted. Everything not named in them is refused.

use super::super::{BirdPlan, Session, Side, metric};
use super::AGGREGATES;
use super::lines::{Joined, Lines};
use crate::apply::kernel::PROTOCOL;
use crate::config::BirdConfig;
use crate::resource::Community;
use ipnet::Ipv6Net;

/// LOCAL_PREF of a VM that is where it is, as Calico has it since v3.32: 2^31 - 1 - metric.
const LOCAL_PREF: u32 = i32::MAX.unsigned_abs() - MED;
/// LOCAL_PREF of a VM that has just arrived.
const LOCAL_PREF_RAISED: u32 = i32::MAX.unsigned_abs() - MED_RAISED;
/// Calico's metric of a VM that is where it is.
const MED: u32 = 1024;
/// Calico's metric of a VM that has just arrived.
const MED_RAISED: u32 = 512;

/// Preference of our own VMs' routes: more than BGP's 100, or two hosts that both have a VM while it moves would take
/// turns in believing each other.
const PREFERENCE: u32 = 150;
/// Preference of another host's VM that has just arrived there.
const PREFERENCE_REMOTE_RAISED: u32 = 200;
/// Preference of a VM that has just arrived here.
const PREFERENCE_RAISED: u32 = 220;

/// Where nothing is said of networks, a prefix shorter than this is taken for something like a default route.
const SHORTEST: u8 = 32;

pub(super) fn render(out: &mut Lines, plan: &BirdPlan) {
    out.gap();
    out.line("# Where VMs' addresses are from.");
    out.line(format_args!("define serval_networks = [ {} ];", Joined(networks(plan))));
    from_kernel(out);
    to_kernel(out);
    for side in [Side::Inside, Side::Outside] {
        if plan.sessions.iter().any(|session| session.side == side) {
            announce(out, plan, side);
        }
    }
    if !plan.sessions.is_empty() {
        out.open("filter serval_accept");
        accept(out);
        out.close();
    }
}

/// The import filter of a session.
pub(super) fn import(out: &mut Lines, session: &Session) {
    if session.accept.is_empty() {
        out.line("import filter serval_accept;");
        return;
    }
    out.open_inner("import filter");
    out.line(format_args!("if net ~ [ {} ] then accept;", Joined(&session.accept)));
    accept(out);
    out.close_inner();
}

/// The name of the filter of what is announced to a side.
pub(super) fn announced_to(side: Side) -> &'static str {
    match side {
        Side::Inside => "serval_announce_inside",
        Side::Outside => "serval_announce_outside",
    }
}

/// VMs of this host are what carries Serval's mark. The others are learnt because they lead to next hops.
fn from_kernel(out: &mut Lines) {
    out.open("filter serval_from_kernel");
    out.open_inner(format_args!("if krt_source = {PROTOCOL} then"));
    out.line(format_args!("if krt_metric <= {} then preference = {PREFERENCE_RAISED};", metric::RAISED));
    out.line(format_args!("else preference = {PREFERENCE};"));
    out.close();
    out.line("accept;");
    out.close();
}

fn to_kernel(out: &mut Lines) {
    out.open("filter serval_to_kernel");
    out.line("# The kernel knows its own links.");
    out.line("if source = RTS_DEVICE then reject;");
    out.open_inner(format_args!("if proto = \"{AGGREGATES}\" then"));
    out.line(format_args!("krt_metric = {};", metric::UNASSIGNED));
    out.line("accept;");
    out.close();
    out.line(format_args!("krt_metric = {};", metric::REMOTE));
    out.open_inner("if source = RTS_BGP then");
    out.line(format_args!("if bgp_local_pref > {LOCAL_PREF} then krt_metric = {};", metric::REMOTE_RAISED));
    out.close();
    out.line("accept;");
    out.close();
}

fn announce(out: &mut Lines, plan: &BirdPlan, side: Side) {
    let outside = side == Side::Outside;
    out.open(format_args!("filter {}", announced_to(side)));
    if plan.cluster_id.is_some() && !outside {
        out.line("# As a reflector: what hosts of our AS announce, unchanged.");
        out.line("if source = RTS_BGP && bgp_path.len = 0 && net ~ serval_networks then accept;");
    }
    out.open_inner(format_args!("if proto = \"{AGGREGATES}\" then"));
    let shared =
        || plan.aggregates.iter().filter(|aggregate| aggregate.shared).map(|aggregate| aggregate.prefix);
    if !outside && shared().next().is_some() {
        out.line(format_args!("if net ~ [ {} ] then reject;", Joined(shared())));
    }
    weigh(out, outside, LOCAL_PREF, MED);
    out.otherwise();
    out.line("# Nothing but VMs of this host.");
    out.line("if source != RTS_INHERIT then reject;");
    out.line(format_args!("if krt_source != {PROTOCOL} then reject;"));
    out.line("if !(net ~ serval_networks) then reject;");
    out.open_inner(format_args!("if krt_metric <= {} then", metric::RAISED));
    weigh(out, outside, LOCAL_PREF_RAISED, MED_RAISED);
    out.otherwise();
    let covering = || {
        let announced = plan.aggregates.iter().filter(|aggregate| outside || !aggregate.shared);
        announced.map(|aggregate| {
            let length = aggregate.prefix.prefix_len();
            format!("{}{{{},128}}", aggregate.prefix, length + 1)
        })
    };
    if covering().next().is_some() {
        out.line("# The aggregate speaks for it.");
        out.line(format_args!("if net ~ [ {} ] then reject;", Joined(covering())));
    }
    weigh(out, outside, LOCAL_PREF, MED);
    out.close();
    out.close();
    for (prefix, communities) in &plan.communities {
        mark(out, prefix, communities);
    }
    out.line("accept;");
    out.close();
}

/// Says how much this way is worth: to our AS by LOCAL_PREF, to another one by the metric.
fn weigh(out: &mut Lines, outside: bool, local_pref: u32, med: u32) {
    if outside {
        out.line(format_args!("bgp_med = {med};"));
    } else {
        out.line(format_args!("bgp_local_pref = {local_pref};"));
    }
}

fn mark(out: &mut Lines, prefix: &Ipv6Net, communities: &[Community]) {
    if communities.is_empty() {
        return;
    }
    out.open_inner(format_args!("if net ~ [ {prefix}+ ] then"));
    for community in communities {
        match community {
            Community::Standard(a, b) => out.line(format_args!("bgp_community.add(({a},{b}));")),
            Community::Large(a, b, c) => out.line(format_args!("bgp_large_community.add(({a},{b},{c}));")),
        }
    }
    out.close();
}

fn accept(out: &mut Lines) {
    out.line("if !(net ~ serval_networks) then reject;");
    out.line(format_args!("if bgp_local_pref > {LOCAL_PREF} then preference = {PREFERENCE_REMOTE_RAISED};"));
    out.line("accept;");
}

/// The networks and all in them; of those that mean everywhere only what is long enough.
fn networks(plan: &BirdPlan) -> Vec<String> {
    let everywhere = |net: &Ipv6Net| BirdConfig::NETWORKS.contains(&net.to_string().as_str());
    let pattern = |net: &Ipv6Net| {
        if everywhere(net) { format!("{net}{{{SHORTEST},128}}") } else { format!("{net}+") }
    };
    plan.networks.iter().map(pattern).collect()
}
