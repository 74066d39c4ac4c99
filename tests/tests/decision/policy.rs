//! Stories of policy on the host build of the decision and on the loaded programs: verdicts, exact bytes, all counters, and
//! the flows that are remembered.

use crate::runs::{NOWHERE, SLOTS, Seen, difference, in_namespace, on_host_at};
use dataplane_ebpf::abi::{Address, names};
use dataplane_ebpf::decide::{Action, to_vm};
use dataplane_ebpf::host::{MemoryFrame, MemoryPolicies, MemoryTables};
use serval_tests::cases::policy::{self, Act, Hooks, Names, Passage, Story};
use serval_tests::cases::{Devices, VM_B, VM_C, from_a};
use serval_tests::frame::Payload;
use serval_tests::program::{At, INGRESS, Programs};

const HOOKS: [Hooks; 2] = [Hooks::Both, Hooks::Tc];

/// Where a story is played.
trait Stage {
    fn run(&mut self, at: At, passage: &Passage) -> Seen;
    fn wait(&mut self, seconds: u32);
    fn change(&mut self, policies: MemoryPolicies);
    fn give_b_to_c(&mut self);
    fn flows(&mut self) -> Vec<String>;
}

struct OnHost {
    tables: MemoryTables,
    devices: Devices,
}

impl OnHost {
    fn new(story: &Story, devices: Devices) -> Self {
        let mut tables = policy::tables(devices);
        let policies = tables.policies.as_mut().expect("policy");
        (policies.host_is_open, policies.host_is_judged) = (story.host_is_open, story.host_is_judged);
        policies.quota = story.quota;
        Self { tables, devices }
    }

    fn policies(&self) -> &MemoryPolicies {
        self.tables.policies.as_ref().expect("policy")
    }
}

impl Stage for OnHost {
    fn run(&mut self, at: At, passage: &Passage) -> Seen {
        on_host_at(&self.tables, at, &passage.frame())
    }

    fn wait(&mut self, seconds: u32) {
        let now = &self.policies().now;
        now.set(now.get() + seconds);
    }

    fn change(&mut self, policies: MemoryPolicies) {
        let before = self.tables.policies.take().expect("policy");
        before.generation.set(before.generation.get() + 1);
        self.tables.policies = Some(MemoryPolicies {
            endpoints: policies.endpoints,
            chains: policies.chains,
            identities: policies.identities,
            peers: policies.peers,
            services: policies.services,
            vectors: policies.vectors,
            steps: policies.steps,
            ..before
        });
    }

    fn give_b_to_c(&mut self) {
        let [b, c] = [VM_B, VM_C].map(|vm| Address::from(vm.address));
        let owner = self.tables.addresses[&c];
        self.tables.addresses.insert(b, owner);
        self.tables.epoch += 1;
    }

    fn flows(&mut self) -> Vec<String> {
        Names { devices: self.devices }.flows(&self.policies().flows.borrow())
    }
}

/// The loaded programs, and the tables that they have.
struct Loaded<'a> {
    programs: &'a mut Programs,
    host: OnHost,
}

impl<'a> Loaded<'a> {
    fn new(programs: &'a mut Programs, story: &Story, devices: Devices) -> Self {
        let host = OnHost::new(story, devices);
        programs.fill(&host.tables);
        programs.fill_policies(host.policies(), SLOTS);
        programs.clear_flows(SLOTS);
        Self { programs, host }
    }
}

impl Stage for Loaded<'_> {
    fn run(&mut self, at: At, passage: &Passage) -> Seen {
        self.programs.clear_counters(SLOTS);
        let outcome = self.programs.run_at(at, &passage.frame());
        Seen { outcome, counted: self.programs.counted(SLOTS) }
    }

    fn wait(&mut self, seconds: u32) {
        self.programs.age_flows(seconds);
    }

    fn change(&mut self, policies: MemoryPolicies) {
        self.host.change(policies);
        self.programs.fill_policies(self.host.policies(), SLOTS);
    }

    fn give_b_to_c(&mut self) {
        self.host.give_b_to_c();
        self.programs.fill(&self.host.tables);
    }

    fn flows(&mut self) -> Vec<String> {
        Names { devices: self.host.devices }.flows(&self.programs.flows())
    }
}

/// Plays a story; says what is not as it tells.
fn play(story: &Story, hooks: Hooks, devices: Devices, stage: &mut dyn Stage) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |text: String| faults.push(format!("{:?} by {hooks:?}: {text}", story.name));
    for act in &story.acts {
        match act {
            Act::Wait(seconds) => stage.wait(*seconds),
            Act::Policy(documents) => stage.change(policy::compile(documents, devices)),
            Act::Move => stage.give_b_to_c(),
            Act::Packet(passage) => {
                for (at, expected) in passage.expected(hooks, devices) {
                    let seen = stage.run(at, passage);
                    if let Some(difference) = difference(at.hook(), &expected, &seen) {
                        fault(format!("{}: {difference}", passage.name()));
                    }
                }
            }
        }
    }
    let flows = stage.flows();
    if flows != story.flows {
        fault(format!("flows\n  wanted {:#?}\n  got    {flows:#?}", story.flows));
    }
    faults
}

#[track_caller]
fn no_faults(faults: &[String]) {
    assert!(faults.is_empty(), "{} differ:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn host_build_plays_the_stories() {
    let faults: Vec<_> = policy::stories()
        .iter()
        .flat_map(|story| HOOKS.map(|hooks| play(story, hooks, NOWHERE, &mut OnHost::new(story, NOWHERE))))
        .flatten()
        .collect();
    no_faults(&faults);
}

/// The kernel may deliver a packet to another VM than the tables say: by its routes, or by translation of addresses.
#[test]
fn what_was_judged_for_another_vm_is_judged_where_it_arrives() {
    let frame = MemoryFrame::from(from_a(VM_B.address).carrying(Payload::tcp(40_000, 80, 2, b"")));
    let tables = policy::tables(NOWHERE);
    assert_eq!(to_vm(&frame, &tables, NOWHERE.b, INGRESS, true), Action::Pass);
    assert_eq!(to_vm(&frame, &tables, NOWHERE.c, INGRESS, true), Action::Drop);
    let counted = [((VM_B.slot, "delivered_kernel"), 1), ((VM_C.slot, "policy"), 1)];
    assert_eq!(tables.counted(), counted.into());
}

#[test]
fn loaded_programs_play_the_stories() {
    in_namespace(|object, devices| {
        let mut faults = Vec::new();
        let stories = policy::stories();
        for (open, judged, mut programs) in [
            (false, false, Programs::load_policed(object)),
            (true, false, Programs::load_policed_and(object, names::HOST_IS_OPEN)),
            (false, true, Programs::load_policed_and(object, names::HOST_IS_JUDGED)),
        ] {
            let told = |story: &&Story| (story.host_is_open, story.host_is_judged) == (open, judged);
            for story in stories.iter().filter(told) {
                for hooks in HOOKS {
                    let mut stage = Loaded::new(&mut programs, story, devices);
                    faults.extend(play(story, hooks, devices, &mut stage));
                }
            }
        }
        no_faults(&faults);
    });
}
