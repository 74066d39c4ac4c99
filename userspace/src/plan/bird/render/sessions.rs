//! A BGP session.

use super::super::{BirdPlan, Reach, Session};
use super::lines::Lines;
use super::{Dialect, Inputs, channel, filters};
use crate::config::Bfd;
use crate::resource::NextHop;

/// Seconds before a connection is tried, so that one that comes in is taken first; BIRD's own 5 s cost time after a
/// restart, when forwarding lives on what neighbours remember.
const CONNECT_DELAY: u32 = 1;
/// Seconds between two attempts; BIRD's own 120 s are for a neighbour that is out of order, not for one that boots. For so
/// long at most a host that has come up is of no use to others.
const CONNECT_RETRY: u8 = 2;
/// Least and most seconds that a session rests after an error.
const ERROR_WAIT: (u8, u8) = (2, 30);

pub(super) fn render(out: &mut Lines, plan: &BirdPlan, session: &Session, inputs: &Inputs, dialect: Dialect) {
    out.open(format_args!("protocol bgp {}", session.protocol));
    out.line(format_args!("description \"{}\";", session.name));
    ends(out, plan, session, inputs, dialect);
    if let Some(password) = session.password.as_ref().and_then(|file| inputs.passwords.get(file)) {
        out.line(format_args!("password \"{}\";", password.reveal()));
    }
    timers(out, plan, session);
    if session.reflector_client
        && let Some(cluster) = plan.cluster_id
    {
        out.line("rr client;");
        out.line(format_args!("rr cluster id {cluster};"));
    }
    if session.allow_local_as > 0 {
        out.line(format_args!("allow local as {};", session.allow_local_as));
    }
    channel(out, dialect, |out| {
        filters::import(out, session);
        out.line(format_args!("export filter {};", filters::announced_to(session.side)));
        match session.next_hop {
            NextHop::Standard => {}
            NextHop::Own => out.line("next hop self;"),
            NextHop::Keep => out.line("next hop keep;"),
        }
        // A reflector that knows several ways tells all of them, so that hosts can spread over them.
        if session.internal() && plan.max_paths > 1 {
            out.line("add paths on;");
        }
    });
    out.close();
}

fn ends(out: &mut Lines, plan: &BirdPlan, session: &Session, inputs: &Inputs, dialect: Dialect) {
    let discovered = || inputs.sources.get(&session.neighbour).map(ToString::to_string);
    let source = session.source.map(|source| source.to_string()).or_else(discovered);
    let mut local = "local".to_owned();
    if let Some(source) = &source {
        local.push_str(&format!(" {source}"));
    }
    if dialect == Dialect::Bird2 && plan.port != 179 {
        local.push_str(&format!(" port {}", plan.port));
    }
    out.line(format_args!("{local} as {};", session.local_as));
    out.line(format_args!("neighbor {} port {} as {};", session.neighbour, session.port, session.remote_as));
    if let Some(interface) = &session.interface {
        out.line(format_args!("interface \"{interface}\";"));
    }
    match session.reach {
        Reach::Direct => out.line("direct;"),
        Reach::Multihop(None) => out.line("multihop;"),
        Reach::Multihop(Some(hops)) => out.line(format_args!("multihop {hops};")),
    }
    if session.ttl_security {
        out.line("ttl security on;");
    }
    if session.passive {
        out.line("passive on;");
    }
    // Beyond our own links BFD needs to know from which address to speak.
    let able = source.is_some() || session.reach == Reach::Direct;
    match session.bfd {
        Bfd::On if able => out.line("bfd on;"),
        Bfd::Graceful if able => out.line("bfd graceful;"),
        Bfd::Off | Bfd::On | Bfd::Graceful => {}
    }
}

fn timers(out: &mut Lines, plan: &BirdPlan, session: &Session) {
    match plan.graceful_restart {
        Some(graceful_restart) => {
            let time = session.restart_time.unwrap_or(graceful_restart.time);
            out.line("graceful restart on;");
            out.line(format_args!("graceful restart time {time};"));
        }
        None => out.line("graceful restart off;"),
    }
    let (least, most) = ERROR_WAIT;
    out.line(format_args!("connect delay time {};", connect_delay(plan, session)));
    out.line(format_args!("connect retry time {CONNECT_RETRY};"));
    out.line(format_args!("error wait time {least}, {most};"));
    out.line(format_args!("hold time {};", session.hold));
    out.line(format_args!("keepalive time {};", (session.hold / 3).max(1)));
}

/// When BFD is to leave routes alone while a neighbour restarts, it must have noticed the silence before the session is
/// back: if it notices later it ends that one, and the next one is no restart any more, whose routes would stay.
fn connect_delay(plan: &BirdPlan, session: &Session) -> u32 {
    match session.bfd {
        Bfd::Graceful => {
            let milliseconds = u32::from(plan.bfd.interval) * u32::from(plan.bfd.multiplier);
            CONNECT_DELAY + milliseconds.div_ceil(1000)
        }
        Bfd::Off | Bfd::On => CONNECT_DELAY,
    }
}
