//! The programs: loaded into the kernel, and which of them an interface has.

use super::FastPathError;
use super::loader::load_error;
use super::pins::Role;
use super::tc::Filter;
use aya::Ebpf;
use aya::programs::{self, ProgramError, ProgramFd, ProgramInfo};
use dataplane_ebpf::abi::names;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::resume_unwind;
use std::thread;

/// How often a program is loaded when signals interrupt the verifier.
const LOAD_ATTEMPTS: usize = 5;
const NAMES: [&str; 5] = [names::TAP_XDP, names::TAP_IN, names::TAP_OUT, names::UPLINK_XDP, names::UPLINK_IN];

/// A loaded program.
#[derive(Debug)]
pub struct Program {
    fd: ProgramFd,
    /// The kernel's id for it.
    pub id: u32,
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The loaded programs.
#[derive(Debug)]
pub struct Programs {
    tap_xdp: Program,
    tap_in: Program,
    tap_out: Program,
    uplink_xdp: Program,
    uplink_in: Program,
}

/// The programs of an interface.
pub struct ProgramSet<'a> {
    role: Role,
    /// XDP: frames that come in.
    pub xdp: &'a Program,
    /// TC ingress: frames that come in.
    pub ingress: &'a Program,
    /// TC egress: frames that go out.
    pub egress: Option<&'a Program>,
}

impl Programs {
    /// Loads the programs of the object. The verifier takes most of a second for all of them, of one core for each, so they
    /// are loaded side by side.
    pub fn load(object: &mut Ebpf) -> Result<Self, FastPathError> {
        let mut loaded: BTreeMap<&str, _> = thread::scope(|scope| {
            let wanted = object.programs_mut().filter_map(|(found, program)| {
                Some((NAMES.into_iter().find(|name| *name == found)?, program))
            });
            let loads: Vec<_> =
                wanted.map(|(name, program)| (name, scope.spawn(move || load(program, name)))).collect();
            let ended = loads.into_iter().map(|(name, load)| (name, load.join()));
            ended.map(|(name, result)| (name, result.unwrap_or_else(|panic| resume_unwind(panic)))).collect()
        });
        let mut take =
            |name| loaded.remove(name).unwrap_or(Err(FastPathError::Incomplete { kind: "program", name }));
        Ok(Self {
            tap_xdp: take(names::TAP_XDP)?,
            tap_in: take(names::TAP_IN)?,
            tap_out: take(names::TAP_OUT)?,
            uplink_xdp: take(names::UPLINK_XDP)?,
            uplink_in: take(names::UPLINK_IN)?,
        })
    }

    /// The programs of an interface in this role.
    pub fn of(&self, role: Role) -> ProgramSet<'_> {
        match role {
            Role::Tap => {
                ProgramSet { role, xdp: &self.tap_xdp, ingress: &self.tap_in, egress: Some(&self.tap_out) }
            }
            Role::Uplink => {
                ProgramSet { role, xdp: &self.uplink_xdp, ingress: &self.uplink_in, egress: None }
            }
        }
    }
}

impl<'a> ProgramSet<'a> {
    /// The filters on clsact that do what TC programs do otherwise.
    pub fn filters(&self) -> impl Iterator<Item = (Filter, &'a Program)> + use<'a> {
        let ingress = match self.role {
            Role::Tap => Filter::TapIn,
            Role::Uplink => Filter::UplinkIn,
        };
        let egress = self.egress.map(|program| (Filter::TapOut, program));
        [(ingress, self.ingress)].into_iter().chain(egress)
    }
}

/// Loads one program.
fn load(program: &mut programs::Program, name: &'static str) -> Result<Program, FastPathError> {
    let loaded = uninterrupted(
        || match program {
            programs::Program::Xdp(program) => program.load(),
            programs::Program::SchedClassifier(program) => program.load(),
            _ => Err(ProgramError::UnexpectedProgramType),
        },
        is_interrupted,
    );
    loaded.map_err(program_error(name))?;
    keep(program.fd(), program.info(), name)
}

/// The verifier gives up with EAGAIN when a signal comes for its thread; it is asked again as often as libbpf does.
fn uninterrupted<E>(
    mut load: impl FnMut() -> Result<(), E>,
    interrupted: impl Fn(&E) -> bool,
) -> Result<(), E> {
    for _ in 1..LOAD_ATTEMPTS {
        match load() {
            Err(error) if interrupted(&error) => {}
            ended => return ended,
        }
    }
    load()
}

fn is_interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EAGAIN))
}

/// A program of the object.
pub fn program<'a, P>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, FastPathError>
where
    &'a mut P: TryFrom<&'a mut programs::Program>,
{
    let program = object.program_mut(name).and_then(|program| program.try_into().ok());
    program.ok_or(FastPathError::Incomplete { kind: "program", name })
}

/// Holds the program beyond the object it came from.
fn keep(
    fd: Result<&ProgramFd, ProgramError>,
    info: Result<ProgramInfo, ProgramError>,
    name: &'static str,
) -> Result<Program, FastPathError> {
    let fd = fd.and_then(|fd| fd.try_clone().map_err(ProgramError::from)).map_err(program_error(name))?;
    let id = info.map_err(program_error(name))?.id();
    Ok(Program { fd, id })
}

/// What is wrong with a program.
pub fn program_error(name: &'static str) -> impl FnOnce(ProgramError) -> FastPathError {
    move |error| match error {
        ProgramError::LoadError { io_error: source, .. } if source.raw_os_error() == Some(libc::EPERM) => {
            FastPathError::Privileges { what: format!("cannot load BPF program `{name}`"), source }
        }
        ProgramError::LoadError { io_error: source, verifier_log } => {
            FastPathError::Verifier { program: name, log: end_of(&verifier_log.to_string()), source }
        }
        error => load_error(error.into()),
    }
}

/// The verifier walks every path and says at the end what is wrong; a whole log can have megabytes.
fn end_of(log: &str) -> String {
    const LINES: usize = 12;
    let lines: Vec<&str> = log.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_log_is_cut_to_its_end() {
        assert_eq!(end_of(""), "");
        assert_eq!(end_of("one\ntwo\n"), "one\ntwo");
        let long: String = (0..100).map(|n| format!("{n}: r0 = 0\n")).collect();
        assert!(end_of(&long).starts_with("88: ") && end_of(&long).ends_with("99: r0 = 0"));
    }

    #[test]
    fn an_interrupted_load_is_tried_again_and_a_refused_one_is_not() {
        let attempts = |interruptions: usize, then: Result<(), &'static str>| {
            let mut count = 0;
            let load = || {
                count += 1;
                if count <= interruptions { Err("interrupted") } else { then }
            };
            let ended = uninterrupted(load, |error| *error == "interrupted");
            (ended, count)
        };
        assert_eq!(attempts(0, Ok(())), (Ok(()), 1));
        assert_eq!(attempts(LOAD_ATTEMPTS - 1, Ok(())), (Ok(()), LOAD_ATTEMPTS));
        assert_eq!(attempts(LOAD_ATTEMPTS, Ok(())), (Err("interrupted"), LOAD_ATTEMPTS));
        assert_eq!(attempts(1, Err("refused")), (Err("refused"), 2));
    }
}
