use super::*;
use crate::hypervisor::testing::{HYP, Machine, RAM, cpu};
use proptest::prelude::*;

const POINTER: u64 = RAM.start + 0x8000;
const TABLE: u64 = RAM.start + 0x9000;
const OBJECT: u64 = RAM.start + 0x1_0000;
const VCPUS: [u64; 2] = [RAM.start + 0x1_4000, RAM.start + 0x1_6000];
const LOADED: u64 = RAM.start + 0x2_0000;
/// Offset of the pointers to vCPUs.
const ARRAY: u64 = 0x1200;

fn field(offset: u64, size: u64) -> Option<Field> {
    Some(Field {
        offset,
        size,
        bits: None,
        signed: false,
    })
}

fn layout() -> Layout {
    Layout {
        table: POINTER,
        size: 0,
        handle: field(0x40, 2),
        protected: field(0x42, 1),
        created: field(0x43, 1),
        dying: field(0x44, 1),
        vmid: field(0x48, 8),
        root: field(0x50, 8),
        vtcr: field(0x58, 8),
        vcpu_count: field(0x1100, 4),
        vcpus: Some(ARRAY),
        loaded: Some(LOADED),
    }
    .sized()
}

/// Handle 0x1001 is reserved; 0x1002 is a protected VM with two vCPUs.
fn machine() -> Machine {
    let mut machine = Machine::new();
    machine.put(POINTER, &[TABLE + HYP]);
    machine.put(TABLE, &[0, RESERVED, OBJECT + HYP]);
    machine.fill(OBJECT + 0x40, &[2, 0x10, 1, 0, 0]);
    machine.put(OBJECT + 0x48, &[0x7_0003, 0x4800_0000, 0x802d_3590]);
    machine.fill(OBJECT + 0x1100, &[2, 0, 0, 0]);
    machine.put(OBJECT + ARRAY, &VCPUS.map(|pa| pa + HYP));
    // What TPIDR_EL2 leads CPU 1 to.
    machine.put(LOADED + 0x1000, &[VCPUS[1] + HYP]);
    machine
}

fn cpus() -> Vec<Cpu> {
    vec![
        cpu(0, &[("TPIDR_EL2", 0)]),
        cpu(1, &[("TPIDR_EL2", 0x1000)]),
    ]
}

fn read_with(layout: &Layout, machine: &mut Machine) -> Vms {
    let mut memory = machine.memory();
    let vms = memory.complete(|memory| layout.read(memory, &cpus()));
    vms.expect("the link holds")
}

#[test]
fn vms_are_read_with_their_vcpus_and_where_those_are_loaded() {
    let mut machine = machine();
    let found = read_with(&layout(), &mut machine);
    assert_eq!(found.problems, [""; 0]);
    // The pointer with what is loaded, the table, the objects, the vCPUs.
    assert_eq!(machine.waits, 4);
    let vcpu = |number: usize, cpu| Vcpu {
        number: number as u64,
        pa: Some(VCPUS[number]),
        cpu,
    };
    let protected = Vm {
        handle: 0x1002,
        pa: Some(OBJECT),
        protected: Some(true),
        state: VmState::Created,
        vmid: Some(3),
        vcpus: vec![vcpu(0, None), vcpu(1, Some(1))],
        pages: None,
    };
    assert_eq!(found.vms, [vm(0x1001), protected]);
    assert_eq!(found.vms[0].state, VmState::Reserved);
    assert_eq!(
        found.roots,
        [GuestRoot {
            handle: 0x1002,
            root: 0x4800_0000,
            vtcr: Some(0x802d_3590),
        }]
    );
    assert_eq!(found.no_vms, None);
    assert_eq!(found.loaded, [(1, 0x1002, 1)]);
}

#[test]
fn how_far_a_vm_has_come() {
    // created, dying, vCPUs
    for (created, dying, count, state) in [
        (0, 0, 0, VmState::Initialised),
        (0, 0, 2, VmState::Created),
        (1, 0, 0, VmState::Created),
        (1, 1, 2, VmState::Dying),
    ] {
        let mut machine = machine();
        machine.fill(OBJECT + 0x43, &[created, dying]);
        machine.fill(OBJECT + 0x1100, &[count]);
        let found = read_with(&layout(), &mut machine);
        assert_eq!(found.vms[1].state, state, "{created} {dying} {count}");
    }
}

#[test]
fn without_types_there_are_handles() {
    let types = Layout {
        table: POINTER,
        ..Layout::default()
    };
    let found = read_with(&types.sized(), &mut machine());
    assert_eq!(found.problems, [""; 0]);
    let known = found.vms.iter().map(|vm| (vm.handle, vm.pa, vm.state));
    assert_eq!(
        known.collect::<Vec<_>>(),
        [
            (0x1001, None, VmState::Reserved),
            (0x1002, Some(OBJECT), VmState::Unknown)
        ]
    );
    assert_eq!(found.roots, []);
}

#[test]
fn what_lies_costs_a_sentence_and_its_own_row() {
    let nowhere = 0x10_0000_0000_u64;
    for (at, word, said) in [
        (TABLE + 24, nowhere, "VM 0x1003: its element"),
        (TABLE + 24, RAM.start + RAM.size + HYP, "nothing is backed"),
        (OBJECT + 0x1100, 513, "513 vCPUs, which is too many"),
        (OBJECT + ARRAY, nowhere, "vCPU 0 of VM 0x1002"),
        (POINTER, nowhere, "the VM table at EL2's 0x1000000000"),
    ] {
        let mut machine = machine();
        machine.put(at, &[word]);
        let found = read_with(&layout(), &mut machine);
        let [problem] = &found.problems[..] else {
            panic!("{:?}", found.problems);
        };
        assert!(problem.contains(said), "{problem}");
        assert_eq!(
            found.vms.iter().any(|vm| vm.handle == 0x1002),
            at != POINTER
        );
    }
}

#[test]
fn a_table_that_is_not_made_yet_is_no_fault() {
    let mut machine = machine();
    machine.put(POINTER, &[0]);
    let found = read_with(&layout(), &mut machine);
    assert_eq!((found.vms.len(), found.problems.len()), (0, 0));
    assert!(found.no_vms.is_some_and(|why| why.contains("not made")));
}

proptest! {
    #[test]
    fn garbage_is_read_as_such(
        slots in proptest::collection::vec(0..0x20_0000_u64, 0..8),
        object in proptest::collection::vec(any::<u64>(), 0x260),
        loaded in any::<u64>(),
    ) {
        let mut machine = machine();
        let slots: Vec<_> = slots.iter().map(|slot| RAM.start + HYP + slot).collect();
        machine.put(TABLE, &slots);
        machine.put(OBJECT, &object);
        machine.put(LOADED, &[loaded]);
        let found = read_with(&layout(), &mut machine);
        prop_assert!(found.vms.len() <= 8);
        prop_assert!(found.vms.iter().all(|vm| vm.vcpus.len() <= MAX_VCPUS as usize));
    }
}
