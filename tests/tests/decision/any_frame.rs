//! Frames that nobody thought of, from VMs and from other hosts: the host build and the programs must agree.

use crate::runs::{HOOKS, Question, Random, comparable, in_kernel, on_host, on_kernel};
use dataplane_ebpf::host::MemoryFrame;
use serval_tests::cases::{self, Case};
use serval_tests::program::Origin;

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

/// A few random changes of the kind that parsers get wrong.
fn mutate(frame: &mut MemoryFrame, random: &mut Random) {
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
