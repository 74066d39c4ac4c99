//! One interface: attach a program to it, adopt what an earlier process attached, or say why neither is possible.

use super::link::{Attachment, Link};
use super::pins::{self, Pin, Pins, Role};
use super::programs::{Program, ProgramSet};
use super::tc::{self, Filter};
use super::{FastPathError, TcHook, XdpHook};
use aya::programs::loaded_programs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// What is attached to one interface.
#[derive(Default)]
pub struct Links {
    xdp: Option<(Link, XdpHook)>,
    ingress: Option<Link>,
    egress: Option<Link>,
    /// The clsact filters are there.
    pub filters: bool,
    /// We added the clsact qdisc.
    pub qdisc: bool,
    /// Something of the other TC kind, from an earlier process, has been looked for.
    migrated: bool,
}

impl Links {
    /// Every link.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.xdp.iter().map(|(link, _)| link).chain(&self.ingress).chain(&self.egress)
    }
}

/// One interface and where its links are pinned.
pub struct Site<'a> {
    /// Its ifindex.
    pub ifindex: u32,
    /// What it is.
    pub role: Role,
    /// `None` pins nothing.
    pub pins: Option<&'a Pins>,
}

impl Site<'_> {
    /// XDP on, or why not.
    pub fn xdp(&self, links: &mut Links, programs: &ProgramSet<'_>) -> Result<XdpHook, String> {
        let explain = |error: FastPathError| self.xdp_reason(&error);
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

    /// Native, or on a TAP generic where the driver has no XDP. On an uplink TC does better than that.
    fn create_xdp(&self, program: BorrowedFd<'_>) -> Result<Link, FastPathError> {
        match self.create(Pin::Xdp, program, Attachment::XdpNative) {
            Err(FastPathError::Hook { source, .. })
                if source.raw_os_error() == Some(libc::EOPNOTSUPP) && self.role == Role::Tap =>
            {
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

    /// XDP off.
    pub fn drop_xdp(&self, links: &mut Links) -> Result<XdpHook, FastPathError> {
        links.xdp = None;
        self.remove_links(Pin::Xdp)?;
        Ok(XdpHook::Off)
    }

    /// tcx on, and clsact off.
    pub fn tcx(&self, links: &mut Links, programs: &ProgramSet<'_>) -> Result<TcHook, FastPathError> {
        let sides = [
            (&mut links.ingress, Pin::In, Some(programs.ingress), Attachment::TcxIngress),
            (&mut links.egress, Pin::Out, programs.egress, Attachment::TcxEgress),
        ];
        for (held, pin, program, attachment) in sides {
            let Some(program) = program.map(Program::as_fd) else { continue };
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

    /// clsact on, and tcx off.
    pub fn clsact(&self, links: &mut Links, programs: &ProgramSet<'_>) -> Result<TcHook, FastPathError> {
        for (filter, program) in programs.filters() {
            let found = tc::our_program(self.ifindex, filter);
            if found.map_err(failed("cannot list filters", self.ifindex))? == Some(program.id) {
                continue;
            }
            // The marks come first: a filter without a mark would be forgotten.
            self.mark(Pin::Clsact)?;
            let added = tc::add_clsact(self.ifindex).map_err(failed("cannot add clsact", self.ifindex))?;
            if added || self.is_marked(Pin::Qdisc)? {
                links.qdisc = true;
                self.mark(Pin::Qdisc)?;
            }
            tc::set_filter(self.ifindex, filter, program.as_fd())
                .map_err(failed("cannot add a filter of priority 1", self.ifindex))?;
        }
        links.filters = true;
        if !links.migrated {
            self.remove_links(Pin::In)?;
            self.remove_links(Pin::Out)?;
            links.migrated = true;
        }
        Ok(TcHook::Clsact)
    }

    /// TC off.
    pub fn drop_tc(&self, links: &mut Links) -> Result<TcHook, FastPathError> {
        (links.ingress, links.egress, links.filters, links.qdisc) = (None, None, false, false);
        self.remove_links(Pin::In)?;
        self.remove_links(Pin::Out)?;
        self.leave_clsact()?;
        Ok(TcHook::Off)
    }

    /// Takes off the clsact filters of an earlier process that had no tcx.
    fn leave_clsact(&self) -> Result<(), FastPathError> {
        self.pins.map_or(Ok(()), |pins| take_off_clsact(self.ifindex, self.role, pins).map(drop))
    }

    /// Takes off what an earlier process left under this pin.
    fn remove_links(&self, pin: Pin) -> Result<(), FastPathError> {
        let Some(pins) = self.pins else { return Ok(()) };
        pins.candidates(self.ifindex, self.role, pin)?.iter().try_for_each(|path| remove_link(path))
    }

    /// Takes over a pinned link: its program is replaced, no frame goes without. A pinned link whose interface is gone
    /// is only removed.
    fn adopt(&self, pin: Pin, program: BorrowedFd<'_>) -> Result<Option<Link>, FastPathError> {
        let Some(pins) = self.pins else { return Ok(None) };
        let current = pins.link(self.ifindex, self.role, pin);
        for path in pins.candidates(self.ifindex, self.role, pin)? {
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
            let path = pins.link(self.ifindex, self.role, pin);
            link.pin(&path).map_err(pins::at("cannot pin the link", &path))?;
        }
        Ok(link)
    }

    /// Whether a link that we hold is still attached; its pin is put back if it was removed.
    fn keep(&self, link: &Link, pin: Pin) -> Result<bool, FastPathError> {
        let on = is_on(link, self.ifindex);
        if on && let Some(pins) = self.pins {
            let path = pins.link(self.ifindex, self.role, pin);
            if !path.exists() {
                link.pin(&path).map_err(pins::at("cannot pin the link", &path))?;
            }
        }
        Ok(on)
    }

    fn is_marked(&self, pin: Pin) -> Result<bool, FastPathError> {
        self.pins.map_or(Ok(false), |pins| Ok(!pins.candidates(self.ifindex, self.role, pin)?.is_empty()))
    }

    fn mark(&self, pin: Pin) -> Result<(), FastPathError> {
        self.pins.map_or(Ok(()), |pins| pins::mark(&pins.link(self.ifindex, self.role, pin)))
    }
}

/// Takes off our clsact filters, and clsact itself if it was ours, where marks say so; `false` when none does.
pub fn take_off_clsact(ifindex: u32, role: Role, pins: &Pins) -> Result<bool, FastPathError> {
    let filters = pins.candidates(ifindex, role, Pin::Clsact)?;
    if !filters.is_empty() {
        remove_filters(ifindex, role)?;
        filters.iter().try_for_each(|mark| pins::remove(mark))?;
    }
    let qdisc = pins.candidates(ifindex, role, Pin::Qdisc)?;
    if !qdisc.is_empty() {
        tc::remove_unused_clsact(ifindex).map_err(failed("cannot remove clsact", ifindex))?;
        qdisc.iter().try_for_each(|mark| pins::remove(mark))?;
    }
    Ok(!filters.is_empty())
}

/// Whether the link is attached to this interface.
pub fn is_on(link: &Link, ifindex: u32) -> bool {
    link.info().is_ok_and(|info| info.ifindex == ifindex)
}

/// Detaches a pinned link, whoever else holds it, and removes the pin.
pub fn remove_link(path: &Path) -> Result<(), FastPathError> {
    if let Some(link) = Link::open(path).map_err(pins::at("cannot open the link", path))? {
        link.detach().map_err(pins::at("cannot detach the link", path))?;
    }
    pins::remove(path)
}

/// Takes our filters off.
pub fn remove_filters(ifindex: u32, role: Role) -> Result<(), FastPathError> {
    let filters: &[Filter] = match role {
        Role::Tap => &[Filter::TapIn, Filter::TapOut],
        Role::Uplink => &[Filter::UplinkIn],
    };
    for filter in filters {
        tc::remove_filter(ifindex, *filter).map_err(failed("cannot remove a filter", ifindex))?;
    }
    Ok(())
}

/// Adds what was tried on which interface to an error.
pub fn failed(what: &'static str, ifindex: u32) -> impl FnOnce(io::Error) -> FastPathError {
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
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
