//! The text that BIRD reads: pure. One renderer for BIRD 2 (2.0.12 and later, 3.x) and for the IPv6 daemon of BIRD 1.6,
//! which differ in few places ([`Dialect`]).
//!
//! No functions are defined, because later versions want them to declare what they return and earlier ones do not know
//! how. Every text that is put between quotes has been checked to have none (names, interfaces, paths, passwords).

mod filters;
mod lines;
mod sessions;

#[cfg(test)]
mod tests;

use super::{BirdPlan, Password};
use crate::config::{Bfd, Unassigned};
use lines::Lines;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::PathBuf;

/// Which BIRD reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `bird6` of BIRD 1.6: one daemon an address family.
    Bird1,
    /// BIRD 2 and later: what concerns an address family is in a channel of it.
    Bird2,
}

/// What the host adds to a plan when it is put into effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// BIRD is a child of ours, and says what it has to say on its standard error.
    pub supervised: bool,
    /// The passwords, by file. A session whose password is not here is left out: without it, it would stay down or
    /// be open to anyone.
    pub passwords: BTreeMap<PathBuf, Password>,
    /// Our address towards neighbours, for sessions that need one and have none in the plan.
    pub sources: BTreeMap<Ipv6Addr, Ipv6Addr>,
    /// Name of the protocol for interfaces in a BIRD that runs. A new one under another name would make BIRD forget all
    /// interfaces, and with them all routes, until its next scan.
    pub device: Option<String>,
    /// A sign of what is in the extra file, different when it has been changed.
    pub extra: Option<String>,
}

/// The protocol for interfaces, whose description says which revision of the configuration BIRD runs.
pub const SERVAL_DEVICE: &str = "serval_device";

/// The protocol for the kernel's routing table.
pub const SERVAL_KERNEL: &str = "serval_kernel";

/// The protocol that holds our aggregates.
pub const AGGREGATES: &str = "serval_aggregates";

/// How that description begins.
pub const REVISION_MARK: &str = "serval revision ";

/// How often BIRD looks at everything, in seconds. It hears of changes as they happen; this finds what it missed.
const SCAN: u16 = 20;

/// Room for the kernel's news in bytes, which is used when there are many at once. What does not fit is only found by the
/// next scan: also that a VM has come.
const NETLINK_BUFFER: u32 = 64 << 20;

/// Renders a plan as `revision`, which is a word.
pub fn render(plan: &BirdPlan, inputs: &Inputs, dialect: Dialect, revision: &str) -> String {
    let mut out = Lines::default();
    out.line("# Written by serval, which overwrites it. Passwords are in it: keep it to BIRD and root.");
    globals(&mut out, plan, inputs, dialect);
    filters::render(&mut out, plan);
    device(&mut out, inputs.device.as_deref().unwrap_or(SERVAL_DEVICE), revision);
    direct(&mut out, plan, dialect);
    kernel(&mut out, plan, dialect);
    aggregates(&mut out, plan, dialect);
    bfd(&mut out, plan);
    for session in plan.sessions.iter().filter(|session| usable(session, inputs)) {
        sessions::render(&mut out, plan, session, inputs, dialect);
    }
    if let (Some(extra), Some(sign)) = (&plan.extra, &inputs.extra) {
        out.gap();
        out.line(format_args!("# {sign}"));
        out.line(format_args!("include \"{}\";", extra.display()));
    }
    out.into_text()
}

/// Whether a session has what it needs.
fn usable(session: &super::Session, inputs: &Inputs) -> bool {
    session.password.as_ref().is_none_or(|file| inputs.passwords.contains_key(file))
}

fn globals(out: &mut Lines, plan: &BirdPlan, inputs: &Inputs, dialect: Dialect) {
    if inputs.supervised {
        out.line("log stderr { info, warning, error, fatal, remote, auth, bug };");
    }
    out.line(format_args!("router id {};", plan.router_id));
    out.line("timeformat protocol iso long;");
    if let Some(graceful_restart) = plan.graceful_restart {
        out.line(format_args!("graceful restart wait {};", graceful_restart.wait));
    }
    if dialect == Dialect::Bird1 && plan.port != 179 {
        out.line(format_args!("listen bgp port {};", plan.port));
    }
}

fn device(out: &mut Lines, name: &str, revision: &str) {
    out.open(format_args!("protocol device {name}"));
    out.line(format_args!("description \"{REVISION_MARK}{revision}\";"));
    out.line(format_args!("scan time {SCAN};"));
    out.close();
}

/// The networks on our links, by which next hops are found: what the kernel calls its own is not learnt from it.
fn direct(out: &mut Lines, plan: &BirdPlan, dialect: Dialect) {
    out.open("protocol direct serval_direct");
    if dialect == Dialect::Bird2 {
        out.line("ipv6;");
    }
    // A prefix with characters that mean something in a pattern is not worth the trouble: what is on TAPs is ours.
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if plan.tap_prefix.bytes().all(plain) {
        out.line(format_args!("interface -\"{}*\", \"*\";", plan.tap_prefix));
    }
    out.close();
}

/// The kernel's routing table: VMs' routes and those that lead to next hops come from it, others' VMs go into it.
fn kernel(out: &mut Lines, plan: &BirdPlan, dialect: Dialect) {
    out.open(format_args!("protocol kernel {SERVAL_KERNEL}"));
    out.line("learn;");
    out.line("persist;");
    out.line(format_args!("scan time {SCAN};"));
    if plan.graceful_restart.is_some() {
        out.line("graceful restart on;");
    }
    if plan.max_paths > 1 {
        out.line(format_args!("merge paths on limit {};", plan.max_paths));
    }
    if dialect == Dialect::Bird2 {
        out.line(format_args!("netlink rx buffer {NETLINK_BUFFER};"));
    }
    // Without it BIRD 2 ignores the metric that the filter gives.
    out.line("metric 0;");
    channel(out, dialect, |out| {
        out.line("import filter serval_from_kernel;");
        out.line("export filter serval_to_kernel;");
    });
    out.close();
}

fn aggregates(out: &mut Lines, plan: &BirdPlan, dialect: Dialect) {
    if plan.aggregates.is_empty() {
        return;
    }
    out.open(format_args!("protocol static {AGGREGATES}"));
    if dialect == Dialect::Bird2 {
        out.line("ipv6;");
    }
    for aggregate in &plan.aggregates {
        let fate = match aggregate.unassigned {
            Unassigned::Unreachable => "unreachable",
            Unassigned::Blackhole => "blackhole",
        };
        out.line(format_args!("route {} {fate};", aggregate.prefix));
    }
    out.close();
}

fn bfd(out: &mut Lines, plan: &BirdPlan) {
    if plan.sessions.iter().all(|session| session.bfd == Bfd::Off) {
        return;
    }
    let (interval, multiplier) = (plan.bfd.interval, plan.bfd.multiplier);
    let timers = format!("interval {interval} ms; multiplier {multiplier};");
    out.open("protocol bfd serval_bfd");
    out.line(format_args!("interface \"*\" {{ {timers} }};"));
    out.line(format_args!("multihop {{ {timers} }};"));
    out.close();
}

/// What belongs to the address family: in a channel of BIRD 2, bare in BIRD 1.
fn channel(out: &mut Lines, dialect: Dialect, inside: impl FnOnce(&mut Lines)) {
    match dialect {
        Dialect::Bird1 => inside(out),
        Dialect::Bird2 => {
            out.open_inner("ipv6");
            inside(out);
            out.close_inner();
        }
    }
}
