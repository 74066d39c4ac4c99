//! What the programs would do with a frame, without doing it.
//!
//! The same object is loaded once more, into a program that no interface has. What it looks up are the live maps, by their
//! pins; what it writes are maps of its own: counters, flows, events. So a run is the real decision of the real program on
//! the real tables, and leaves no flow, no count and no event. The host build of the decision would need a copy of every
//! table instead, a million routes and more, and would only show what the host build does. The one flow that the frame may
//! belong to is copied.

use super::globals::Globals;
use super::loader;
use super::programs;
use super::routes::failed;
use super::{FastPath, FastPathError};
use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, MapError, RingBuf};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use dataplane_ebpf::abi::{Event, EventControl, Flow, FlowKey, names};
use dataplane_ebpf::decide::flow::{Party, Question};
use dataplane_ebpf::decide::{guard, question};
use dataplane_ebpf::host::MemoryFrame;
use dataplane_ebpf::wire::{Frame, Headers, L4_OFFSET};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// What a run does not share with the live programs: all that they write. Maps that are not pinned it has for itself.
/// Without `ANSWERS` a solicitation is left to the daemon.
const PRIVATE: [&str; 6] = [
    names::ANSWERS,
    names::COUNTERS,
    names::FLOWS,
    names::FLOW_RINGS,
    names::FLOW_QUOTAS,
    names::RULE_COUNTERS,
];
/// Flows that it holds: the one in question, and the one that may begin.
const FLOWS: u32 = 16;

/// What `__sk_buff` is for a run: the fields up to `gso_size`, and the offsets of two of them (`linux/bpf.h`).
const CONTEXT_LEN: usize = 192;
const INGRESS_IFINDEX: usize = 36;
const IFINDEX: usize = 40;

/// Answers of a TC program (`linux/pkt_cls.h`).
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;

/// Everything that a run needs; it may go to another thread.
pub struct Rehearsal {
    /// Where shared maps are pinned.
    shared: BTreeMap<&'static str, PathBuf>,
    globals: Globals,
    limit: u32,
    live_flows: PathBuf,
}

/// Which program a frame meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// That of a TAP: the VM sends it.
    Tap {
        /// The TAP.
        ifindex: u32,
    },
    /// That of an uplink: another host sends it.
    Uplink {
        /// The uplink.
        ifindex: u32,
    },
    /// That of the way out to a VM, when the kernel has forwarded it, or made it.
    Out {
        /// The TAP.
        ifindex: u32,
        /// Where it came in; 0 of what the host has made.
        received_on: u32,
    },
}

/// What the program did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Left it to the kernel.
    Pass,
    /// Dropped it.
    Drop,
    /// Sent it on, or back.
    Redirect,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Rehearsed {
    /// What the program did.
    pub act: Act,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// What it told.
    pub events: Vec<Event>,
    /// The flow that the frame belongs to.
    pub flow: Option<Flow>,
}

impl FastPath {
    /// What a rehearsal needs.
    pub fn rehearsal(&self) -> Rehearsal {
        let shared = loader::pinned().filter(|name| !PRIVATE.contains(name));
        Rehearsal {
            shared: shared.map(|name| (name, self.pins.map(name))).collect(),
            globals: self.globals,
            limit: self.limit,
            live_flows: self.pins.map(names::FLOWS),
        }
    }

    /// Who has an address, as far as the hooks know.
    pub fn party(&self, address: std::net::Ipv6Addr) -> Party {
        match self.maps.addresses.content().get(&address.into()) {
            Some(owner) if guard::is_gateway(owner) => Party::HOST,
            Some(owner) => Party::endpoint(owner.ifindex, owner.slot),
            None => Party::OUTSIDE,
        }
    }

    /// The endpoint behind a TAP, as the hooks know it.
    pub fn sender(&self, ifindex: u32) -> Option<Party> {
        self.slots.get(ifindex).map(|slot| Party::endpoint(ifindex, slot))
    }
}

impl Rehearsal {
    /// Runs the program of `entrance` on a frame between these two. It blocks for a second: the kernel verifies the
    /// program anew.
    pub fn run(
        &self,
        entrance: Entrance,
        frame: &[u8],
        from: Party,
        to: Party,
    ) -> Result<Rehearsed, FastPathError> {
        let name = match entrance {
            Entrance::Tap { .. } => names::TAP_IN,
            Entrance::Uplink { .. } => names::UPLINK_IN,
            Entrance::Out { .. } => names::TAP_OUT,
        };
        let mut object = loader::beside(&self.shared, &self.globals, self.limit, FLOWS)?;
        let program: &mut SchedClassifier = programs::program(&mut object, name)?;
        program.load().map_err(programs::program_error(name))?;
        let flow = self.copy_flow(&mut object, frame, from, to)?;
        let control = EventControl { kinds: u32::MAX, one_in: 1 };
        let mut map: Array<_, EventControl> = map_of(&mut object, names::EVENT_CONTROL)?;
        map.set(0, control, 0).map_err(wrong(names::EVENT_CONTROL))?;

        let (act, frame) = run(programs::program(&mut object, name)?, name, entrance, frame)?;
        let mut ring: RingBuf<&mut MapData> = map_of(&mut object, names::EVENTS)?;
        let mut events = Vec::new();
        while let Some(record) = ring.next() {
            events.extend(Event::from_record(&record));
        }
        Ok(Rehearsed { act, frame, events, flow })
    }

    /// Copies the flow that the frame belongs to, both directions of it.
    fn copy_flow(
        &self,
        object: &mut Ebpf,
        frame: &[u8],
        from: Party,
        to: Party,
    ) -> Result<Option<Flow>, FastPathError> {
        let Some(key) = flow_key(frame, from, to) else { return Ok(None) };
        let live = MapData::from_pin(&self.live_flows).map_err(wrong(names::FLOWS))?;
        let live: HashMap<_, FlowKey, Flow> = Map::HashMap(live).try_into().map_err(wrong(names::FLOWS))?;
        let mut copy: HashMap<_, FlowKey, Flow> = map_of(object, names::FLOWS)?;
        let mut found = None;
        for key in [key, key.reverse(to.zone())] {
            match live.get(&key, 0) {
                Ok(flow) => {
                    copy.insert(key, flow, 0).map_err(wrong(names::FLOWS))?;
                    found = found.or(Some(flow));
                }
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(wrong(names::FLOWS)(error)),
            }
        }
        Ok(found)
    }
}

/// The flow of a frame, if it has one.
fn flow_key(frame: &[u8], from: Party, to: Party) -> Option<FlowKey> {
    let frame = MemoryFrame { bytes: frame.to_vec(), ..MemoryFrame::default() };
    let headers = frame.view::<Headers>(0)?;
    let payload_len = usize::from(headers.ip.payload_len.get());
    let packet = guard::Packet {
        source: headers.ip.source(),
        destination: headers.ip.destination(),
        payload_len,
        chain: guard::chain(&frame, headers, L4_OFFSET + payload_len).ok()?,
        padded: false,
        discovery: false,
    };
    let mut question = Question::default();
    question::about(&frame, &packet, from, to, &mut question).ok().filter(|asked| *asked)?;
    Some(question.key)
}

fn run(
    program: &mut SchedClassifier,
    name: &'static str,
    entrance: Entrance,
    frame: &[u8],
) -> Result<(Act, Vec<u8>), FastPathError> {
    let (ifindex, received_on) = match entrance {
        Entrance::Tap { ifindex } | Entrance::Uplink { ifindex } => (ifindex, 0),
        Entrance::Out { ifindex, received_on } => (ifindex, received_on),
    };
    let mut context = [0; CONTEXT_LEN];
    context[IFINDEX..IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
    context[INGRESS_IFINDEX..INGRESS_IFINDEX + 4].copy_from_slice(&received_on.to_ne_bytes());
    let mut out = vec![0; frame.len() + 512];
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.data_out = Some(&mut out);
    options.ctx_in = Some(&context);
    let result = program.test_run(options).map_err(programs::program_error(name))?;
    out.truncate(result.data_size_out as usize);
    let act = match result.return_value.cast_signed() {
        TC_ACT_SHOT => Act::Drop,
        TC_ACT_REDIRECT => Act::Redirect,
        _ => Act::Pass,
    };
    Ok((act, out))
}

fn map_of<'a, M>(object: &'a mut Ebpf, name: &'static str) -> Result<M, FastPathError>
where
    M: TryFrom<&'a mut Map, Error = MapError>,
{
    let map = object.map_mut(name).ok_or(FastPathError::Incomplete { kind: "map", name })?;
    map.try_into().map_err(wrong(name))
}

fn wrong(map: &'static str) -> impl FnOnce(MapError) -> FastPathError {
    move |error| failed(map, "cannot be used")(io::Error::other(error))
}
