use std::cell::{Cell, RefCell};

use super::*;
use crate::emulate::View;

/// What was written to which register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    Control(u64),
    PriorityMask(u64),
    Deactivate(u64),
    Send(u64),
}

struct Gic {
    control: Cell<u64>,
    writes: RefCell<Vec<Write>>,
}

impl Gic {
    fn note(&self, write: Write) {
        self.writes.borrow_mut().push(write);
    }
}

impl CpuInterface for Gic {
    fn control(&self) -> u64 {
        self.control.get()
    }

    fn set_control(&self, value: u64) {
        self.note(Write::Control(value));
    }

    fn running_priority(&self) -> u64 {
        0xa0
    }

    fn set_priority_mask(&self, value: u64) {
        self.note(Write::PriorityMask(value));
    }

    fn deactivate(&self, value: u64) {
        self.note(Write::Deactivate(value));
    }

    fn send(&self, value: u64) {
        self.note(Write::Send(value));
    }
}

struct Machine {
    gic: Gic,
    view: View,
}

impl Machine {
    /// Priorities of 5 bits, as QEMU's.
    fn new() -> Self {
        Self {
            gic: Gic {
                control: Cell::new(4 << 8),
                writes: RefCell::default(),
            },
            view: View::new(),
        }
    }

    /// The value MRS reads on `cpu`; `None` if the register is undefined.
    fn read_on(&self, cpu: usize, register: SystemRegister) -> Option<u64> {
        let mut x = [0xdead; 31];
        let read = SystemAccess {
            register,
            write: false,
            general: 9,
        };
        let done = access(&self.gic, &self.view.cpus[cpu], &read, &mut x);
        assert!(done || x == [0xdead; 31]);
        done.then_some(x[9])
    }

    fn read(&self, register: SystemRegister) -> Option<u64> {
        self.read_on(0, register)
    }

    /// What MSR writes to the GIC; `None` if the register is undefined.
    fn write(&self, register: SystemRegister, value: u64) -> Option<Vec<Write>> {
        let mut x = [0; 31];
        x[9] = value;
        let write = SystemAccess {
            register,
            write: true,
            general: 9,
        };
        let done = access(&self.gic, &self.view.cpus[0], &write, &mut x);
        done.then(|| self.gic.writes.take())
    }
}

#[test]
fn the_mask_always_lets_hyps_priority_through() {
    let machine = Machine::new();
    assert_eq!(machine.read(ICC_PMR_EL1), Some(0), "as after a reset");
    for (value, seen, physical) in [
        (0xff, 0xf8, 0xf8),
        (0xf0, 0xf0, 0xf0),
        (0x08, 0x08, 0x08),
        // Nothing but hyp's priority, 0, is above 8.
        (0x00, 0x00, 0x08),
        // A value that keeps no bit: how a driver finds out how many there are.
        (0x04, 0x00, 0x08),
        (0xffff_ff00, 0x00, 0x08),
    ] {
        let written = machine.write(ICC_PMR_EL1, value);
        assert_eq!(
            written,
            Some(vec![Write::PriorityMask(physical)]),
            "{value:#x}"
        );
        assert_eq!(machine.read(ICC_PMR_EL1), Some(seen), "{value:#x}");
    }
    machine.gic.control.set(7 << 8);
    let written = machine.write(ICC_PMR_EL1, 0);
    assert_eq!(written, Some(vec![Write::PriorityMask(1)]), "8 bits");
    assert_eq!(
        machine.write(ICC_PMR_EL1, 0xff),
        Some(vec![Write::PriorityMask(0xff)])
    );
    assert_eq!(machine.read_on(1, ICC_PMR_EL1), Some(0), "another CPU's");
}

#[test]
fn software_generated_interrupts_are_sent_but_for_hyps() {
    let machine = Machine::new();
    for interrupt in 0..16 {
        // To all others, and to CPUs 0 and 3 of a cluster.
        for targets in [1 << 40, 0x0001_0002_0003_0009] {
            let value = interrupt << 24 | targets;
            let sent = if interrupt == 15 {
                vec![]
            } else {
                vec![Write::Send(value)]
            };
            assert_eq!(
                machine.write(ICC_SGI1R_EL1, value),
                Some(sent),
                "{interrupt}"
            );
            assert_eq!(machine.write(ICC_SGI0R_EL1, value), Some(vec![]));
            assert_eq!(machine.write(ICC_ASGI1R_EL1, value), Some(vec![]));
        }
    }
}

#[test]
fn interrupts_are_deactivated_but_for_hyps() {
    let machine = Machine::new();
    for interrupt in [0, 14, 16, 25, 27, 32, 0x10_000f] {
        let written = machine.write(ICC_DIR_EL1, interrupt);
        assert_eq!(written, Some(vec![Write::Deactivate(interrupt)]));
    }
    for interrupt in [15, 26, 0xff00_001a] {
        assert_eq!(machine.write(ICC_DIR_EL1, interrupt), Some(vec![]));
    }
}

#[test]
fn control_and_running_priority_are_the_gics() {
    let machine = Machine::new();
    assert_eq!(machine.read(ICC_CTLR_EL1), Some(4 << 8));
    assert_eq!(
        machine.write(ICC_CTLR_EL1, 2),
        Some(vec![Write::Control(2)])
    );
    assert_eq!(machine.read(ICC_RPR_EL1), Some(0xa0));
}

#[test]
fn debug_registers_have_no_effect() {
    let machine = Machine::new();
    // DBGBVR<n>, DBGBCR<n>, DBGWVR<n>, DBGWCR<n>; OSDLR, MDRAR, DBGCLAIMSET, MDCCSR_EL0, DBGDTR_EL0.
    let pairs = (0..16).flat_map(|n| (4..8).map(move |op2| SystemRegister::new(2, 0, 0, n, op2)));
    let others = [
        (0, 1, 3, 4),
        (0, 1, 0, 0),
        (0, 7, 8, 6),
        (3, 0, 1, 0),
        (3, 0, 4, 0),
    ];
    let others = others.map(|(op1, crn, crm, op2)| SystemRegister::new(2, op1, crn, crm, op2));
    for register in pairs.chain(others) {
        assert_eq!(
            machine.write(register, u64::MAX),
            Some(vec![]),
            "{register:?}"
        );
        assert_eq!(machine.read(register), Some(0), "{register:?}");
    }
    assert_eq!(machine.write(MDSCR_EL1, 0xa000), Some(vec![]));
    assert_eq!(machine.read(MDSCR_EL1), Some(0xa000));
    assert_eq!(machine.read_on(1, MDSCR_EL1), Some(0), "another CPU's");
}

#[test]
fn the_os_lock_is_locked_and_unlocked() {
    let machine = Machine::new();
    assert_eq!(
        machine.read(OSLSR_EL1),
        Some(0b1010),
        "locked after a reset"
    );
    assert_eq!(machine.write(OSLAR_EL1, 0), Some(vec![]));
    assert_eq!(machine.read(OSLSR_EL1), Some(0b1000));
    assert_eq!(machine.read_on(1, OSLSR_EL1), Some(0b1010), "another CPU's");
    assert_eq!(machine.write(OSLAR_EL1, 1), Some(vec![]));
    assert_eq!(machine.read(OSLSR_EL1), Some(0b1010));
}

/// As without hyp: registers that can only be read or only be written, and others that are not emulated.
#[test]
fn everything_else_is_undefined() {
    let machine = Machine::new();
    for register in [
        ICC_DIR_EL1,
        ICC_SGI0R_EL1,
        ICC_SGI1R_EL1,
        ICC_ASGI1R_EL1,
        OSLAR_EL1,
    ] {
        assert_eq!(machine.read(register), None, "{register:?}");
    }
    for register in [ICC_RPR_EL1, OSLSR_EL1] {
        assert_eq!(machine.write(register, 0), None, "{register:?}");
    }
    // ZCR_EL1, SMCR_EL1, TRCVICTLR, PMCR_EL0.
    for (op0, op1, crn, crm, op2) in [
        (3, 0, 1, 2, 0),
        (3, 0, 1, 2, 6),
        (2, 1, 0, 0, 2),
        (3, 3, 9, 12, 0),
    ] {
        let register = SystemRegister::new(op0, op1, crn, crm, op2);
        assert_eq!(machine.read(register), None, "{register:?}");
        assert_eq!(machine.write(register, 0), None, "{register:?}");
    }
}
