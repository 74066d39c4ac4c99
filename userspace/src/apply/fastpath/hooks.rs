//! Attaches the programs to interfaces, adopts what an earlier process left attached, and takes all off again.

use super::link::{self, Attachment, Link};
use super::loader::{Program, Programs};
use super::pins::{self, Pin, Pins};
use super::tc::{self, Direction};
use super::{FastPathError, HookReport, TcHook, TcMode, XdpHook};
use aya::programs::loaded_programs;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

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

/// What is attached to one interface.
#[derive(Default)]
struct Links {
    xdp: Option<(Link, XdpHook)>,
    ingress: Option<Link>,
    egress: Option<Link>,
    /// The clsact filters are there.
    filters: bool,
    /// Something of the other TC kind, from an earlier process, has been looked for.
    migrated: bool,
}

impl Links {
    fn iter(&self) -> impl Iterator<Item = &Link> {
        self.xdp.iter().map(|(link, _)| link).chain(&self.ingress).chain(&self.egress)
    }
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
        let filters =
            [(Direction::Ingress, &self.programs.ingress), (Direction::Egress, &self.programs.egress)];
        let lost = |(direction, program): &(Direction, &Program)| !matches!(tc::our_program(ifindex, *direction), Ok(Some(id)) if id == program.id);
        gone + if links.filters { filters.iter().filter(|side| lost(side)).count() } else { 0 }
    }

    /// Attaches what is not attached, and says what is. A hook that is not possible is no error: the others and the
    /// kernel's own path do its work.
    pub fn attach(&mut self, ifindex: u32, pins: Option<&Pins>) -> HookReport {
        let links = self.links.entry(ifindex).or_default();
        let site = Site { ifindex, pins };
        let mut reasons = Vec::new();
        let xdp = if self.xdp {
            site.xdp(links, &self.programs).unwrap_or_else(|reason| {
                reasons.push(reason);
                XdpHook::Off
            })
        } else {
            reasons.extend(site.drop_xdp(links).err().map(|e| describe(&e)));
            XdpHook::Off
        };
        let tc = match self.tc {
            TcKind::Tcx => site.tcx(links, &self.programs).map_err(|error| describe(&error)),
            TcKind::Clsact => site.clsact(links, &self.programs).map_err(|error| describe(&error)),
            TcKind::NoTcx => Err("this kernel has no tcx (Linux 6.6); set `tc` to `auto`".to_owned()),
        };
        let tc = tc.unwrap_or_else(|reason| {
            reasons.push(format!("tc: {reason}"));
            TcHook::Off
        });
        HookReport { xdp, tc, reason: if reasons.is_empty() { None } else { Some(reasons.join("; ")) } }
    }

    /// Takes everything of ours off the interface.
    pub fn detach(&mut self, ifindex: u32, pins: Option<&Pins>) -> Result<(), FastPathError> {
        if let Some(links) = self.links.remove(&ifindex) {
            links.iter().try_for_each(Link::detach).map_err(failed("cannot detach a link", ifindex))?;
        }
        match pins {
            Some(pins) => take_off(ifindex, pins).map(drop),
            None if matches!(self.tc, TcKind::Clsact) => {
                remove_filters(ifindex)?;
                tc::remove_unused_clsact(ifindex).map_err(failed("cannot remove clsact", ifindex))
            }
            None => Ok(()),
        }
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

fn take_off_clsact(ifindex: u32, pins: &Pins) -> Result<bool, FastPathError> {
    let filters = pins.candidates(ifindex, Pin::Clsact)?;
    if !filters.is_empty() {
        remove_filters(ifindex)?;
        filters.iter().try_for_each(|mark| pins::remove(mark))?;
    }
    let qdisc = pins.candidates(ifindex, Pin::Qdisc)?;
    if !qdisc.is_empty() {
        tc::remove_unused_clsact(ifindex).map_err(failed("cannot remove clsact", ifindex))?;
        qdisc.iter().try_for_each(|mark| pins::remove(mark))?;
    }
    Ok(!filters.is_empty())
}

/// One interface and where its links are pinned.
struct Site<'a> {
    ifindex: u32,
    pins: Option<&'a Pins>,
}

impl Site<'_> {
    fn xdp(&self, links: &mut Links, programs: &Programs) -> Result<XdpHook, String> {
        let explain = |error: FastPathError| format!("xdp: {}", self.xdp_reason(&error));
        if let Some((link, hook)) = &links.xdp
            && self.keep(link, Pin::Xdp).map_err(explain)?
        {
            return Ok(*hook);
        }
        links.xdp = None;
        let program = programs.xdp.as_fd();
        let link = match self.adopt(Pin::Xdp, program).map_err(explain)? {
            Some(link) => link,
            None => self.create_xdp(program).map_err(explain)?,
        };
        let native = matches!(tc::xdp_program(self.ifindex), Ok(Some(found)) if found.native);
        let hook = if native { XdpHook::Native } else { XdpHook::Generic };
        links.xdp = Some((link, hook));
        Ok(hook)
    }

    /// Native, or generic where the driver has no XDP.
    fn create_xdp(&self, program: BorrowedFd<'_>) -> Result<Link, FastPathError> {
        match self.create(Pin::Xdp, program, Attachment::XdpNative) {
            Err(FastPathError::Hook { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                self.create(Pin::Xdp, program, Attachment::XdpGeneric)
            }
            other => other,
        }
    }

    fn xdp_reason(&self, error: &FastPathError) -> String {
        let busy = match error {
            FastPathError::Hook { source, .. } => {
                matches!(source.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
            }
            _ => false,
        };
        match tc::xdp_program(self.ifindex) {
            Ok(Some(found)) if busy => {
                let name = program_name(found.program);
                format!("program {}{name} of somebody else is attached and stays", found.program)
            }
            _ => describe(error),
        }
    }

    fn drop_xdp(&self, links: &mut Links) -> Result<(), FastPathError> {
        links.xdp = None;
        let Some(pins) = self.pins else { return Ok(()) };
        pins.candidates(self.ifindex, Pin::Xdp)?.iter().try_for_each(|path| remove_link(path))
    }

    fn tcx(&self, links: &mut Links, programs: &Programs) -> Result<TcHook, FastPathError> {
        let sides = [
            (&mut links.ingress, Pin::In, programs.ingress.as_fd(), Attachment::TcxIngress),
            (&mut links.egress, Pin::Out, programs.egress.as_fd(), Attachment::TcxEgress),
        ];
        for (held, pin, program, attachment) in sides {
            if let Some(link) = held
                && self.keep(link, pin)?
            {
                continue;
            }
            *held = None;
            *held = Some(match self.adopt(pin, program)? {
                Some(link) => link,
                None => self.create(pin, program, attachment)?,
            });
        }
        if !links.migrated {
            self.leave_clsact()?;
            links.migrated = true;
        }
        Ok(TcHook::Tcx)
    }

    fn clsact(&self, links: &mut Links, programs: &Programs) -> Result<TcHook, FastPathError> {
        let sides = [(Direction::Ingress, &programs.ingress), (Direction::Egress, &programs.egress)];
        for (direction, program) in sides {
            let found = tc::our_program(self.ifindex, direction);
            if found.map_err(failed("cannot list filters", self.ifindex))? == Some(program.id) {
                continue;
            }
            // The marks come first: a filter without a mark would be forgotten.
            self.mark(Pin::Clsact)?;
            let added = tc::add_clsact(self.ifindex).map_err(failed("cannot add clsact", self.ifindex))?;
            if added || self.is_marked(Pin::Qdisc)? {
                self.mark(Pin::Qdisc)?;
            }
            tc::set_filter(self.ifindex, direction, program.as_fd())
                .map_err(failed("cannot add a filter of priority 1", self.ifindex))?;
        }
        links.filters = true;
        if !links.migrated {
            self.leave_tcx()?;
            links.migrated = true;
        }
        Ok(TcHook::Clsact)
    }

    /// Takes off the clsact filters of an earlier process that had no tcx.
    fn leave_clsact(&self) -> Result<(), FastPathError> {
        self.pins.map_or(Ok(()), |pins| take_off_clsact(self.ifindex, pins).map(drop))
    }

    /// Takes off the tcx links of an earlier process.
    fn leave_tcx(&self) -> Result<(), FastPathError> {
        let Some(pins) = self.pins else { return Ok(()) };
        for pin in [Pin::In, Pin::Out] {
            pins.candidates(self.ifindex, pin)?.iter().try_for_each(|path| remove_link(path))?;
        }
        Ok(())
    }

    /// Takes over a pinned link: its program is replaced, no frame goes without. A pinned link whose interface is gone
    /// is only removed.
    fn adopt(&self, pin: Pin, program: BorrowedFd<'_>) -> Result<Option<Link>, FastPathError> {
        let Some(pins) = self.pins else { return Ok(None) };
        let current = pins.link(self.ifindex, pin);
        for path in pins.candidates(self.ifindex, pin)? {
            let link = Link::open(&path).map_err(pins::at("cannot open the link", &path))?;
            let usable = link.filter(|link| is_on(link, self.ifindex) && link.update(program).is_ok());
            let Some(link) = usable else {
                remove_link(&path)?;
                continue;
            };
            if path != current {
                // Pinned twice for a moment, never not at all.
                link.pin(&current).map_err(pins::at("cannot pin the link", &current))?;
                pins::remove(&path)?;
            }
            return Ok(Some(link));
        }
        Ok(None)
    }

    fn create(
        &self,
        pin: Pin,
        program: BorrowedFd<'_>,
        attachment: Attachment,
    ) -> Result<Link, FastPathError> {
        let link =
            Link::create(program, self.ifindex, attachment).map_err(failed("cannot attach", self.ifindex))?;
        if let Some(pins) = self.pins {
            let path = pins.link(self.ifindex, pin);
            link.pin(&path).map_err(pins::at("cannot pin the link", &path))?;
        }
        Ok(link)
    }

    /// Whether a link that we hold is still attached; its pin is put back if it was removed.
    fn keep(&self, link: &Link, pin: Pin) -> Result<bool, FastPathError> {
        let on = is_on(link, self.ifindex);
        if on && let Some(pins) = self.pins {
            let path = pins.link(self.ifindex, pin);
            if !path.exists() {
                link.pin(&path).map_err(pins::at("cannot pin the link", &path))?;
            }
        }
        Ok(on)
    }

    fn is_marked(&self, pin: Pin) -> Result<bool, FastPathError> {
        self.pins.map_or(Ok(false), |pins| Ok(!pins.candidates(self.ifindex, pin)?.is_empty()))
    }

    fn mark(&self, pin: Pin) -> Result<(), FastPathError> {
        self.pins.map_or(Ok(()), |pins| pins::mark(&pins.link(self.ifindex, pin)))
    }
}

fn is_on(link: &Link, ifindex: u32) -> bool {
    link.info().is_ok_and(|info| info.ifindex == ifindex)
}

/// Detaches a pinned link, whoever else holds it, and removes the pin.
fn remove_link(path: &Path) -> Result<(), FastPathError> {
    if let Some(link) = Link::open(path).map_err(pins::at("cannot open the link", path))? {
        link.detach().map_err(pins::at("cannot detach the link", path))?;
    }
    pins::remove(path)
}

fn remove_filters(ifindex: u32) -> Result<(), FastPathError> {
    for direction in [Direction::Ingress, Direction::Egress] {
        tc::remove_filter(ifindex, direction).map_err(failed("cannot remove a filter", ifindex))?;
    }
    Ok(())
}

fn failed(what: &'static str, ifindex: u32) -> impl FnOnce(io::Error) -> FastPathError {
    move |source| match source.raw_os_error() {
        Some(libc::ENODEV) => FastPathError::NoDevice { ifindex },
        Some(libc::EPERM | libc::EACCES) => {
            FastPathError::Privileges { what: format!("{what} on interface {ifindex}"), source }
        }
        _ => FastPathError::Hook { what, ifindex, source },
    }
}

/// ` (name)` of a loaded program.
fn program_name(id: u32) -> String {
    let program = loaded_programs().flatten().find(|program| program.id() == id);
    let name = program.as_ref().and_then(|program| program.name_as_str()).filter(|name| !name.is_empty());
    name.map_or_else(String::new, |name| format!(" ({name})"))
}

/// An error with its causes in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
