//! The programs and where they are attached: which hooks every interface has, and taking them off again.

use super::link::{self, Link};
use super::loader::Programs;
use super::pins::{self, Pin, Pins};
use super::site::{Links, Site, describe, failed, is_on, remove_filters, remove_link, take_off_clsact};
use super::tc::{self, Direction};
use super::{FastPathError, HookReport, TcHook, TcMode, XdpHook};
use std::collections::BTreeMap;

/// The programs and where they are attached.
pub struct Hooks {
    programs: Programs,
    tc: TcKind,
    xdp: bool,
    links: BTreeMap<u32, Links>,
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
    /// Hooks of the kind that `mode` asks for.
    pub fn new(programs: Programs, mode: TcMode, xdp: bool) -> Self {
        let tc = match mode {
            TcMode::Clsact => TcKind::Clsact,
            _ if link::tcx_supported() => TcKind::Tcx,
            TcMode::Auto => TcKind::Clsact,
            TcMode::Tcx => TcKind::NoTcx,
        };
        Self { programs, tc, xdp, links: BTreeMap::new() }
    }

    /// Whether links that were attached are all gone: the interface was deleted, and another one has its ifindex.
    pub fn is_replaced(&self, ifindex: u32, pins: &Pins) -> Result<bool, FastPathError> {
        if let Some(links) = self.links.get(&ifindex) {
            return Ok(links.iter().next().is_some() && links.iter().all(|link| !is_on(link, ifindex)));
        }
        let mut pinned = false;
        for pin in [Pin::Xdp, Pin::In, Pin::Out] {
            for path in pins.candidates(ifindex, pin)? {
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
    pub fn lost(&self, ifindex: u32) -> usize {
        let Some(links) = self.links.get(&ifindex) else { return 0 };
        let gone = links.iter().filter(|link| !is_on(link, ifindex)).count();
        let programs =
            [(Direction::Ingress, &self.programs.ingress), (Direction::Egress, &self.programs.egress)];
        let filters = programs.iter().filter(|(direction, program)| {
            links.filters && !matches!(tc::our_program(ifindex, *direction), Ok(Some(id)) if id == program.id)
        });
        gone + filters.count()
    }

    /// Attaches what is not attached, and says what is. A hook that is not possible is no error: the others and the
    /// kernel's own path do its work.
    pub fn attach(&mut self, ifindex: u32, pins: Option<&Pins>) -> HookReport {
        let links = self.links.entry(ifindex).or_default();
        let site = Site { ifindex, pins };
        let mut reasons = Vec::new();
        let xdp = match self.xdp {
            true => site.xdp(links, &self.programs),
            false => site.drop_xdp(links).map_err(|error| describe(&error)),
        };
        let xdp = xdp.unwrap_or_else(|reason| {
            reasons.push(format!("xdp: {reason}"));
            XdpHook::Off
        });
        let tc = match self.tc {
            TcKind::Tcx => site.tcx(links, &self.programs).map_err(|error| describe(&error)),
            TcKind::Clsact => site.clsact(links, &self.programs).map_err(|error| describe(&error)),
            TcKind::NoTcx => {
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
    pub fn detach(&mut self, ifindex: u32, pins: Option<&Pins>) -> Result<(), FastPathError> {
        let links = self.links.remove(&ifindex).unwrap_or_default();
        links.iter().try_for_each(Link::detach).map_err(failed("cannot detach a link", ifindex))?;
        if links.filters {
            remove_filters(ifindex)?;
        }
        if links.qdisc {
            tc::remove_unused_clsact(ifindex).map_err(failed("cannot remove clsact", ifindex))?;
        }
        pins.map_or(Ok(()), |pins| take_off(ifindex, pins).map(drop))
    }
}

/// Takes off whatever the pins say is attached to the interface; `false` when that is nothing.
pub fn take_off(ifindex: u32, pins: &Pins) -> Result<bool, FastPathError> {
    let mut found = false;
    for pin in [Pin::Xdp, Pin::In, Pin::Out] {
        for path in pins.candidates(ifindex, pin)? {
            found = true;
            remove_link(&path)?;
        }
    }
    Ok(take_off_clsact(ifindex, pins)? || found)
}
