//! The programs and where they are attached: which hooks every interface has, and taking them off again.

use super::link::{self, Link};
use super::pins::{self, Pin, Pins, Role};
use super::programs::Programs;
use super::site::{Links, Site, describe, failed, is_on, remove_filters, remove_link, take_off_clsact};
use super::tc;
use super::{FastPathError, HookReport, TcHook, TcMode, UplinkMode, XdpHook};
use std::collections::{BTreeMap, BTreeSet};

/// Why a TAP has no XDP for a while.
const RESTS: &str = "xdp: rests, as this VM sends long frames, which the kernel would copy for it";

/// The programs and where they are attached.
pub struct Hooks {
    programs: Programs,
    tc: TcKind,
    xdp: bool,
    uplink: UplinkMode,
    links: BTreeMap<(u32, Role), Links>,
    /// TAPs that are to do without XDP for now.
    resting: BTreeSet<u32>,
}

/// Which kind of TC hook is used.
#[derive(Clone, Copy)]
enum TcKind {
    Tcx,
    Clsact,
    /// tcx is asked for and the kernel has none.
    NoTcx,
}

impl Hooks {
    /// Hooks of the kind that `mode` asks for: on TAPs with XDP or without, on uplinks those of `uplink`.
    pub fn new(programs: Programs, mode: TcMode, xdp: bool, uplink: UplinkMode) -> Self {
        let tc = match mode {
            TcMode::Clsact => TcKind::Clsact,
            _ if link::tcx_supported() => TcKind::Tcx,
            TcMode::Auto => TcKind::Clsact,
            TcMode::Tcx => TcKind::NoTcx,
        };
        Self { programs, tc, xdp, uplink, links: BTreeMap::new(), resting: BTreeSet::new() }
    }

    /// Whether links that were attached are all gone: the interface was deleted, and another one has its ifindex.
    pub fn is_replaced(&self, ifindex: u32, role: Role, pins: &Pins) -> Result<bool, FastPathError> {
        if let Some(links) = self.links.get(&(ifindex, role)) {
            return Ok(links.iter().next().is_some() && links.iter().all(|link| !is_on(link, ifindex)));
        }
        let mut pinned = false;
        for pin in [Pin::Xdp, Pin::In, Pin::Out] {
            for path in pins.candidates(ifindex, role, pin)? {
                pinned = true;
                let link = Link::open(&path).map_err(pins::at("cannot open the link", &path))?;
                if link.is_some_and(|link| is_on(&link, ifindex)) {
                    return Ok(false);
                }
            }
        }
        Ok(pinned)
    }

    /// How many of the links and filters that were attached no longer are.
    pub fn lost(&self, ifindex: u32, role: Role) -> usize {
        let Some(links) = self.links.get(&(ifindex, role)) else { return 0 };
        let gone = links.iter().filter(|link| !is_on(link, ifindex)).count();
        let programs = self.programs.of(role);
        let filters = programs.filters().filter(|(filter, program)| {
            links.filters && !matches!(tc::our_program(ifindex, *filter), Ok(Some(id)) if id == program.id)
        });
        gone + filters.count()
    }

    /// Has XDP rest on a TAP, or not; [`attach`](Self::attach) does it.
    pub fn rest(&mut self, ifindex: u32, rests: bool) {
        if rests {
            self.resting.insert(ifindex);
        } else {
            self.resting.remove(&ifindex);
        }
    }

    /// Attaches what is not attached, and says what is. A hook that is not possible is no error: the others and the
    /// kernel's own path do its work.
    pub fn attach(&mut self, ifindex: u32, role: Role, pins: Option<&Pins>) -> HookReport {
        let links = self.links.entry((ifindex, role)).or_default();
        let site = Site { ifindex, role, pins };
        let programs = self.programs.of(role);
        let rests = role == Role::Tap && self.resting.contains(&ifindex);
        let (want_xdp, want_tc) = match (role, self.uplink) {
            (Role::Tap, _) => (self.xdp && !rests, true),
            (Role::Uplink, UplinkMode::Tc) => (false, true),
            (Role::Uplink, UplinkMode::Xdp) => (true, false),
            (Role::Uplink, UplinkMode::Both) => (true, true),
            (Role::Uplink, UplinkMode::Off) => (false, false),
        };
        let mut reasons = Vec::new();
        if self.xdp && rests {
            reasons.push(RESTS.to_owned());
        }
        let xdp = match want_xdp {
            true => site.xdp(links, &programs),
            false => site.drop_xdp(links).map_err(|error| describe(&error)),
        };
        let xdp = xdp.unwrap_or_else(|reason| {
            reasons.push(format!("xdp: {reason}"));
            XdpHook::Off
        });
        // Where XDP is asked for and not possible, TC does its work.
        let tc = match (want_tc || (want_xdp && xdp == XdpHook::Off), self.tc) {
            (false, _) => site.drop_tc(links).map_err(|error| describe(&error)),
            (true, TcKind::Tcx) => site.tcx(links, &programs).map_err(|error| describe(&error)),
            (true, TcKind::Clsact) => site.clsact(links, &programs).map_err(|error| describe(&error)),
            (true, TcKind::NoTcx) => {
                Err("this kernel has no tcx (Linux 6.6); set `tc = \"auto\"` in `[fastpath]`".to_owned())
            }
        };
        let tc = tc.unwrap_or_else(|reason| {
            reasons.push(format!("tc: {reason}"));
            TcHook::Off
        });
        HookReport { xdp, tc, reason: if reasons.is_empty() { None } else { Some(reasons.join("; ")) } }
    }

    /// Takes everything of ours off the interface.
    pub fn detach(&mut self, ifindex: u32, role: Role, pins: Option<&Pins>) -> Result<(), FastPathError> {
        self.rest(ifindex, false);
        let links = self.links.remove(&(ifindex, role)).unwrap_or_default();
        links.iter().try_for_each(Link::detach).map_err(failed("cannot detach a link", ifindex))?;
        if links.filters {
            remove_filters(ifindex, role)?;
        }
        if links.qdisc {
            tc::remove_unused_clsact(ifindex).map_err(failed("cannot remove clsact", ifindex))?;
        }
        pins.map_or(Ok(()), |pins| take_off(ifindex, role, pins).map(drop))
    }
}

/// Takes off whatever the pins say is attached to the interface; `false` when that is nothing.
pub fn take_off(ifindex: u32, role: Role, pins: &Pins) -> Result<bool, FastPathError> {
    let mut found = false;
    for pin in [Pin::Xdp, Pin::In, Pin::Out] {
        for path in pins.candidates(ifindex, role, pin)? {
            found = true;
            remove_link(&path)?;
        }
    }
    Ok(take_off_clsact(ifindex, role, pins)? || found)
}
