//! Frames that nobody thought of, from VMs and from other hosts: the host build and the programs must agree; with policy,
//! also on the flows that they make, which stay within their quotas.

use crate::runs::{
    HOOKS, Question, Random, SLOTS, Seen, comparable, in_kernel, in_namespace, on_host, on_host_at, on_kernel,
};
use dataplane_ebpf::host::{MemoryFrame, MemoryPolicies, MemoryTables};
use serval_tests::cases::policy::{self, Act, Hooks};
use serval_tests::cases::{self, Case, Devices};
use serval_tests::program::{At, INGRESS, Origin, Programs};

/// Frames of each origin.
const FRAMES: usize = 20_000;

fn agree_on_any_frame(origin: Origin, seed: u64) {
    in_kernel(|programs, tables| {
        let cases: Vec<Case> = cases::all().into_iter().filter(|case| case.origin == origin).collect();
        let mut random = Random(seed);
        for round in 0..FRAMES {
            let case = &cases[random.below(cases.len())];
            let mut question = Question { multicast_spent: false, ..case.into() };
            mutate(&mut question.frame, &mut random);
            for hook in HOOKS {
                let host = on_host(tables, hook, &question);
                let kernel = on_kernel(programs, hook, &question);
                assert_eq!(
                    comparable(hook, &host),
                    comparable(hook, &kernel),
                    "round {round}, {hook:?}, from case {:?}:\n{:02x?}",
                    case.name,
                    question.frame.bytes
                );
            }
        }
    });
}

#[test]
fn host_and_kernel_agree_on_any_frame_from_a_vm() {
    agree_on_any_frame(Origin::Vm, 0x0005_e7a1_0001);
}

#[test]
fn host_and_kernel_agree_on_any_frame_from_an_uplink() {
    agree_on_any_frame(Origin::Uplink, 0x0005_e7a1_0002);
}

/// Flows that each VM may have: few, so that they displace each other.
const QUOTA: u32 = 4;
/// VMs that have flows.
const VMS: usize = 3;

#[test]
fn with_policy_they_agree_on_flows_as_well() {
    in_namespace(|object, devices| {
        let mut programs = Programs::load_policed(object);
        let mut tables = policy::tables(devices);
        tables.policies.as_mut().expect("policy").quota = QUOTA;
        let policies = tables.policies.as_ref().expect("policy");
        programs.fill(&tables);
        programs.fill_policies(policies, SLOTS);
        forget(&mut programs, policies);

        let seeds = seeds(devices);
        let mut random = Random(0x0005_e7a1_0003);
        let (mut flows, mut pressed) = (0, 0);
        for round in 0..FRAMES {
            let (places, seed) = &seeds[random.below(seeds.len())];
            let mut frame = seed.clone();
            // Every other frame as it is, or hardly any would get as far as a flow.
            if random.below(2) == 0 {
                mutate(&mut frame, &mut random);
            }
            for at in places {
                let Some((host, kernel)) = in_one_second(&mut programs, &tables, *at, &frame) else {
                    forget(&mut programs, policies);
                    continue;
                };
                assert_eq!(
                    comparable(at.hook(), &host),
                    comparable(at.hook(), &kernel),
                    "round {round}, {at:?}:\n{:02x?}",
                    frame.bytes
                );
            }
            if round % 100 == 0 {
                let known = programs.flows();
                assert_eq!(known, *policies.flows.borrow(), "round {round}");
                assert_eq!(programs.pressure(SLOTS), *policies.pressure.borrow(), "round {round}");
                assert!(known.len() <= 2 * VMS * QUOTA as usize, "round {round}: {} flows", known.len());
                flows = flows.max(known.len());
                pressed += usize::from(!policies.pressure.borrow().is_empty());
            }
        }
        println!("at most {flows} flows; no place for some in {pressed} of {} looks", FRAMES / 100);
        assert!(flows > QUOTA as usize, "frames made hardly any flow");
    });
}

/// Frames of all cases and stories, and where they are seen.
pub fn seeds(devices: Devices) -> Vec<(Vec<At>, MemoryFrame)> {
    let cases = cases::all();
    let cases = cases
        .iter()
        .map(|case| (HOOKS.map(|hook| At::In(case.origin, hook, INGRESS)).to_vec(), case.frame.clone()));
    let stories = policy::stories();
    let passages = stories.iter().flat_map(|story| &story.acts).filter_map(|act| match act {
        Act::Packet(passage) => Some(passage),
        _ => None,
    });
    let passages = passages.map(|passage| {
        let places = [Hooks::Both, Hooks::Tc].map(|hooks| passage.expected(hooks, devices)).concat();
        (places.into_iter().map(|(at, _)| at).collect(), passage.frame())
    });
    cases.chain(passages).collect()
}

/// What both do with a frame in the same second; `None` when another one began meanwhile.
pub fn in_one_second(
    programs: &mut Programs,
    tables: &MemoryTables,
    at: At,
    frame: &MemoryFrame,
) -> Option<(Seen, Seen)> {
    programs.clear_counters(SLOTS);
    programs.set_multicast_spent(false);
    tables.multicast_spent.borrow_mut().clear();
    let second = seconds();
    let outcome = programs.run_at(at, frame);
    if seconds() != second {
        return None;
    }
    tables.policies.as_ref().expect("policy").now.set(second);
    Some((on_host_at(tables, at, frame), Seen { outcome, counted: programs.counted(SLOTS) }))
}

/// The clock of flows in the kernel.
fn seconds() -> u32 {
    // SAFETY: without a place to write to, the call only returns the kernel's jiffies, as hundredths of a second.
    let hundredths = unsafe { libc::times(std::ptr::null_mut()) };
    u32::try_from(hundredths / 100).expect("the host has not run for a century")
}

/// Both forget all flows.
pub fn forget(programs: &mut Programs, policies: &MemoryPolicies) {
    programs.clear_flows(SLOTS);
    policies.flows.borrow_mut().clear();
    policies.rings.borrow_mut().clear();
    policies.hands.borrow_mut().clear();
    policies.pressure.borrow_mut().clear();
}

/// A few random changes of the kind that parsers get wrong.
pub fn mutate(frame: &mut MemoryFrame, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let len = frame.bytes.len();
        match random.below(6) {
            0 => {
                let at = random.below(len.min(90));
                frame.bytes[at] ^= 1 << random.below(8);
            }
            1 => {
                let at = random.below(len.min(90));
                frame.bytes[at] = random.below(256) as u8;
            }
            2 if len > 60 => frame.bytes.truncate(54 + random.below(len - 54)),
            3 => frame.bytes.extend((0..random.below(40)).map(|n| n as u8)),
            4 => {
                let headers = [0, 6, 17, 43, 44, 50, 51, 58, 59, 60, 135, 139, 140, 253];
                frame.bytes[20] = headers[random.below(headers.len())];
            }
            _ => {
                let length = (frame.bytes.len() - 54) as u16;
                frame.bytes[18..20].copy_from_slice(&length.to_be_bytes());
            }
        }
    }
}
