//! The programs of `dataplane-ebpf/src/bare`: loaded and attached in the network namespace of the calling thread.

use crate::destinations::{Destinations, FACTOR};
use crate::flows::Flows;
use anyhow::{Context, Result};
use aya::maps::{DevMap, ProgramArray};
use aya::programs::{ProgramFd, ProgramInfo, SchedClassifier, TcAttachType, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use std::env;
use std::path::PathBuf;

/// Bytes of the frame that the source makes.
pub const FRAME_LEN: usize = 78;

/// Where a bare redirect sends to.
#[derive(Clone, Copy, Debug)]
pub struct Egress {
    /// The interface.
    pub ifindex: u32,
    /// Destination and source MAC of what is sent.
    pub macs: [[u8; 6]; 2],
}

/// Attaches the bare XDP redirect to `interface`; it goes when the value is dropped.
pub fn attach_xdp(interface: &str, egress: Egress) -> Result<Ebpf> {
    let mut object = load(&[("MACS", &egress.macs.concat())])?;
    let map = object.map_mut("DEVICE").context("no map DEVICE")?;
    DevMap::try_from(map)?.set(0, egress.ifindex, None, 0)?;
    put_xdp(&mut object, "bare_xdp", interface)?;
    Ok(object)
}

/// Attaches the bare TC redirect to `interface`; it goes when the value is dropped.
pub fn attach_tc(interface: &str, egress: Egress) -> Result<Ebpf> {
    let mut object = load(&[("MACS", &egress.macs.concat()), ("EGRESS", &egress.ifindex.to_ne_bytes())])?;
    put_tc(&mut object, "bare_tc", interface)?;
    Ok(object)
}

/// Has the veth `interface` receive as a network card does; until the value is dropped.
pub fn attach_card(interface: &str) -> Result<Ebpf> {
    let mut object = load(&[])?;
    put_xdp(&mut object, "card", interface)?;
    Ok(object)
}

/// Which rules `bpf_fib_lookup` minds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// All of them, as the kernel does.
    Full,
    /// None: it looks into the main table at once.
    Direct,
}

impl Lookup {
    /// Flags of `bpf_fib_lookup`.
    const fn flags(self) -> u32 {
        match self {
            Self::Full => 0,
            // BPF_FIB_LOOKUP_DIRECT
            Self::Direct => 1,
        }
    }
}

/// Attaches the XDP router to `interface`, which sends to these interfaces; it goes when the value is dropped.
pub fn attach_fib_xdp(interface: &str, lookup: Lookup, to: &[u32]) -> Result<Ebpf> {
    let mut object = load(&[("FIB_FLAGS", &lookup.flags().to_ne_bytes())])?;
    let mut ports = DevMap::try_from(object.map_mut("PORTS").context("no map PORTS")?)?;
    for ifindex in to {
        ports.set(*ifindex, *ifindex, None, 0).with_context(|| format!("no room for interface {ifindex}"))?;
    }
    put_xdp(&mut object, "fib_xdp", interface)?;
    Ok(object)
}

/// Attaches the TC router to `interface`; it goes when the value is dropped.
pub fn attach_fib_tc(interface: &str, lookup: Lookup) -> Result<Ebpf> {
    let mut object = load(&[("FIB_FLAGS", &lookup.flags().to_ne_bytes())])?;
    put_tc(&mut object, "fib_tc", interface)?;
    Ok(object)
}

fn put_xdp(object: &mut Ebpf, name: &str, interface: &str) -> Result<()> {
    let program: &mut Xdp = program(object, name)?;
    program.load()?;
    program.attach(interface, XdpMode::Driver).with_context(|| format!("no native XDP on {interface}"))?;
    Ok(())
}

fn put_tc(object: &mut Ebpf, name: &str, interface: &str) -> Result<()> {
    let program: &mut SchedClassifier = program(object, name)?;
    program.load()?;
    program.attach(interface, TcAttachType::Ingress).with_context(|| format!("no TC on {interface}"))?;
    Ok(())
}

/// How the frames of a source differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Varies {
    /// In what.
    pub what: Variants,
    /// The variants take turns, else they are chosen at random.
    pub in_turn: bool,
    /// They are the answers to those frames.
    pub answers: bool,
}

/// What the frames of a source differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variants {
    /// Nothing.
    One,
    /// Where they go.
    Destinations(Destinations),
    /// Their ports.
    Flows(Flows),
}

impl Varies {
    /// At random.
    pub const fn at_random(what: Variants) -> Self {
        Self { what, in_turn: false, answers: false }
    }

    /// The same variants in turn.
    pub const fn in_turn(self) -> Self {
        Self { in_turn: true, ..self }
    }

    /// The answers to these frames.
    pub const fn answered(self) -> Self {
        Self { answers: true, ..self }
    }

    /// How many variants there are, if there is more than one.
    pub const fn count(self) -> Option<u32> {
        match self.what {
            Variants::One => None,
            Variants::Destinations(Destinations { count, .. }) | Variants::Flows(Flows { count, .. }) => {
                Some(count)
            }
        }
    }

    /// `OCTAVES` of dataplane-ebpf/src/bare.
    fn octaves(self) -> u32 {
        match self.what {
            Variants::One => 0,
            Variants::Destinations(Destinations { count, popularity, .. })
            | Variants::Flows(Flows { count, popularity }) => popularity.octaves(count),
        }
    }

    /// `varies` of dataplane-ebpf/src/bare.
    const fn number(self) -> u32 {
        match (self.what, self.answers) {
            (Variants::One | Variants::Destinations(_), false) => 0,
            (Variants::One | Variants::Destinations(_), true) => 1,
            (Variants::Flows(_), false) => 2,
            (Variants::Flows(_), true) => 3,
        }
    }
}

/// A program that is called by another.
pub struct Next {
    program: ProgramFd,
    /// Whether it takes fragments: only a program that does so as well can call it.
    frags: bool,
}

/// Loads the source of frames like `frame`, and says which program it is. It hands them to `next`, or to the kernel when
/// there is none.
pub fn load_source(
    frame: &[u8; FRAME_LEN],
    varies: Varies,
    next: Option<&Next>,
) -> Result<(Ebpf, &'static str)> {
    // The object keeps it in whole words.
    let mut whole = frame.to_vec();
    whole.resize(FRAME_LEN.next_multiple_of(8), 0);
    let numbers = [
        ("VARIES", varies.number()),
        ("COUNT", varies.count().unwrap_or(0)),
        ("IN_TURN", u32::from(varies.in_turn)),
        ("OCTAVES", varies.octaves()),
        ("FACTOR", FACTOR),
    ];
    let numbers = numbers.map(|(name, value)| (name, value.to_ne_bytes()));
    let mut globals: Vec<(&str, &[u8])> = vec![("FRAME", &whole)];
    globals.extend(numbers.iter().map(|(name, bytes)| (*name, bytes.as_slice())));
    let mut object = load(&globals)?;
    let source = if next.is_none_or(|next| next.frags) { "source" } else { "source_linear" };
    program::<Xdp>(&mut object, source)?.load()?;
    if let Some(next) = next {
        let map = object.map_mut("NEXT").context("no map NEXT")?;
        let set = ProgramArray::try_from(map)?.set(0, &next.program, 0);
        set.context("the source of frames cannot call the program that is attached")?;
    }
    Ok((object, source))
}

/// A loaded program by its id.
pub fn program_by_id(id: u32) -> Result<Next> {
    let is_it = |info: &ProgramInfo| info.id() == id;
    let found = aya::programs::loaded_programs().filter_map(Result::ok).find(is_it);
    let info = found.with_context(|| format!("no program has the id {id}"))?;
    // The kernel does not tell. Of all XDP programs of a measurement, only that of uplinks takes none.
    Ok(Next { program: info.fd()?, frags: info.name_as_str() != Some("uplink_xdp") })
}

/// The program `name` of a loaded object.
pub fn program<'a, P>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    let program = object.program_mut(name).and_then(|program| program.try_into().ok());
    program.with_context(|| format!("the object has no program {name} of this kind"))
}

/// Loads the object with its globals set.
fn load(globals: &[(&str, &[u8])]) -> Result<Ebpf> {
    let object = env::var_os("SERVAL_BARE_OBJECT").map(PathBuf::from);
    let object =
        object.context("SERVAL_BARE_OBJECT is not set; `cargo xtask bench` builds it and sets it")?;
    let mut loader = EbpfLoader::new();
    for (name, value) in globals {
        loader.override_global(name, *value, true);
    }
    loader.load_file(&object).with_context(|| format!("cannot load {}", object.display()))
}
