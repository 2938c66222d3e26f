//! Host aborts that are refused, and what the host then sees.

mod common;

use common::{DATA, FREE, Machine, read_fault};
use hyp::abort::{Injection, Outcome, Trap};
use hyp::addr::Pa;
use hyp::errno::Errno;
use hyp::stats::Event;

#[test]
fn a_page_of_hyp_is_refused_and_stays_as_it_is() {
    let machine = Machine::start();
    let before = machine.contents();
    let trap = read_fault(DATA + 0x10);

    assert_eq!(
        machine.hyp.host_stage2_idmap(machine.cpu(), Pa::new(DATA)),
        Err(Errno::Perm)
    );
    let outcome = machine.touch(DATA + 0x10);

    let injection = Injection {
        esr_el1: 0x25 << 26 | 1 << 25 | 0x10,
        far_el1: trap.far,
        elr_el1: trap.elr,
        spsr_el1: trap.spsr,
        vector: 0x200,
        spsr_el2: 0x6000_03c5,
    };
    assert_eq!(outcome, Outcome::Inject(injection));
    assert_eq!(machine.host(DATA), (0x4, 3));
    assert_eq!(machine.contents(), before);
    assert_eq!(machine.hyp.stats().get(Event::AbortRefused), 1);
}

#[test]
fn an_address_beyond_the_ipa_space_is_refused() {
    let machine = Machine::start();
    let before = machine.contents();
    for address in [0x100_0000_0000, 0xf_ffff_ffff_f000] {
        assert!(
            matches!(machine.touch(address), Outcome::Inject(_)),
            "{address:#x}"
        );
    }
    assert_eq!(machine.contents(), before);
}

/// Every fault of the DFSC table that is no translation fault is the host's own problem.
#[test]
fn only_translation_faults_are_mapped() {
    for fsc in 0..0x40 {
        let machine = Machine::start();
        let trap = Trap {
            esr: 0x24 << 26 | 1 << 25 | fsc,
            ..read_fault(FREE)
        };
        let outcome = machine.hyp.handle_trap(machine.cpu(), &trap, &mut [0; 31]);
        let translation = matches!(fsc, 0x04..=0x07 | 0x2b);
        assert_eq!(outcome == Outcome::Resume, translation, "DFSC {fsc:#x}");
        assert_eq!(machine.host(FREE).0 != 0, translation, "DFSC {fsc:#x}");
    }
}

/// Where the host was decides about the vector and the class; what it did about the syndrome.
#[test]
fn an_injected_abort_looks_as_if_taken_at_el1() {
    let machine = Machine::start();
    let refused = |esr: u64, spsr: u64, sctlr_el1: u64| {
        let trap = Trap {
            esr,
            spsr,
            sctlr_el1,
            ..read_fault(DATA)
        };
        match machine.hyp.handle_trap(machine.cpu(), &trap, &mut [0; 31]) {
            Outcome::Inject(injection) => (injection.esr_el1, injection.vector, injection.spsr_el2),
            other => panic!("{other:?}"),
        }
    };
    let il = 1 << 25;
    let dabt = |class: u64, iss: u64| class << 26 | il | iss;
    let span = 1 << 23;
    let cases = [
        (
            "EL1h read",
            dabt(0x24, 0x07),
            0x3c5,
            span,
            (dabt(0x25, 0x10), 0x200, 0x3c5),
        ),
        (
            "EL1t write",
            dabt(0x24, 0x47),
            0x004,
            span,
            (dabt(0x25, 0x50), 0x000, 0x3c5),
        ),
        (
            "EL0 write",
            dabt(0x24, 0x47),
            0x000,
            span,
            (dabt(0x24, 0x50), 0x400, 0x3c5),
        ),
        (
            "EL0 AArch32",
            dabt(0x24, 0x07),
            0x1d0,
            span,
            (dabt(0x24, 0x10), 0x600, 0x3c5),
        ),
        (
            "cache maintenance",
            dabt(0x24, 0x147),
            0x3c5,
            span,
            (dabt(0x25, 0x150), 0x200, 0x3c5),
        ),
        (
            "EL1h fetch",
            dabt(0x20, 0x07),
            0x3c5,
            span,
            (dabt(0x21, 0x10), 0x200, 0x3c5),
        ),
        (
            "EL0 fetch",
            dabt(0x20, 0x07),
            0x000,
            span,
            (dabt(0x20, 0x10), 0x400, 0x3c5),
        ),
        (
            "its own table walk",
            dabt(0x24, 0x87),
            0x3c5,
            span,
            (dabt(0x25, 0x10), 0x200, 0x3c5),
        ),
        (
            "a valid ISS.ISV",
            dabt(0x24, 0xffff_ff07 & 0x1ff_fc00 | 0x07),
            0x5,
            span,
            (dabt(0x25, 0x10), 0x200, 0x3c5),
        ),
        (
            "flags kept",
            dabt(0x24, 0x07),
            0xf1c0_0005,
            span,
            (dabt(0x25, 0x10), 0x200, 0xf140_03c5),
        ),
        (
            "PAN set",
            dabt(0x24, 0x07),
            0x5,
            0,
            (dabt(0x25, 0x10), 0x200, 0x0040_03c5),
        ),
        (
            "SSBS set",
            dabt(0x24, 0x07),
            0x5,
            span | 1 << 44,
            (dabt(0x25, 0x10), 0x200, 0x13c5),
        ),
        (
            "single step and IL cleared",
            dabt(0x24, 0x07),
            0x0030_0005,
            span,
            (dabt(0x25, 0x10), 0x200, 0x3c5),
        ),
    ];
    for (name, esr, spsr, sctlr_el1, expected) in cases {
        assert_eq!(refused(esr, spsr, sctlr_el1), expected, "{name}");
    }
}

#[test]
fn other_exceptions_are_left_to_the_platform() {
    let machine = Machine::start();
    let before = machine.contents();
    for class in (0..0x40).filter(|class| ![0x16, 0x20, 0x24].contains(class)) {
        let trap = Trap {
            esr: class << 26,
            ..read_fault(FREE)
        };
        let mut x = [0xc600_0010; 31];
        assert_eq!(
            machine.hyp.handle_trap(machine.cpu(), &trap, &mut x),
            Outcome::Unhandled,
            "EC {class:#x}"
        );
        assert_eq!(x, [0xc600_0010; 31]);
    }
    assert_eq!(machine.contents(), before);
}
