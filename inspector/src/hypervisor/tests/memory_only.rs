//! Targets that have general registers only, as a memory dump.

use super::*;

/// Where `TRANSLATION` is.
const TRANSLATION: u64 = 0x4030_d000;
const SIZE: u64 = 8 * MEMBERS.len() as u64;
const MEMBERS: [(&str, &str); 7] = [
    ("hcr_el2", "HCR_EL2"),
    ("id_aa64mmfr0_el1", "ID_AA64MMFR0_EL1"),
    ("id_aa64mmfr1_el1", "ID_AA64MMFR1_EL1"),
    ("id_aa64mmfr2_el1", "ID_AA64MMFR2_EL1"),
    ("mair_el2", "MAIR_EL2"),
    ("tcr_el2", "TCR_EL2"),
    ("vtcr_el2", "VTCR_EL2"),
];

/// hyp's image with its copy of these registers.
fn with_translation() -> Program {
    let mut program = program();
    let members = (0..).zip(MEMBERS);
    let members = members.map(|(at, (name, _))| (name, at * 8, Type::Number(8)));
    let record = Type::record("Translation", SIZE, members.collect());
    let symbol = ("TRANSLATION".to_owned(), LINEAR + TRANSLATION, SIZE);
    program.symbols.push(symbol);
    program.variables.push(("TRANSLATION".to_owned(), record));
    program
}

/// A machine with 40 bits of physical address, without FEAT_XNX.
fn whole() -> Machine {
    let mut machine = Machine::new();
    for (number, value) in [(0, 2), (1, 0), (2, 0)] {
        let name = format!("ID_AA64MMFR{number}_EL1");
        machine.registers.0.insert(name, value);
    }
    machine
}

/// A machine that has the registers of the whole one in memory, if it is set up, and no others than general ones.
fn machine(is_set_up: bool) -> Machine {
    let mut machine = whole();
    for (at, (_, register)) in (TRANSLATION..).step_by(8).zip(MEMBERS) {
        let value = machine.registers.get(register).unwrap_or(0);
        machine.put(at, &if is_set_up { value } else { 0 }.to_le_bytes());
    }
    let general = |name: &String| !name.contains("_EL");
    machine.registers.0.retain(|name, _| general(name));
    machine
}

#[test]
fn hyp_keeps_the_registers_that_say_how_its_tables_are_read() {
    let whole = whole().capture(&mut images(&with_translation()));
    let mut images = images(&with_translation());
    let system = machine(true).capture(&mut images);
    assert_eq!(system.problems, [""; 0]);
    assert!(system.complete);
    assert_eq!(system.hypervisor, whole.hypervisor);
    assert_eq!(system.regimes, whole.regimes);
    assert_eq!(system.owners, whole.owners);
    assert_eq!(system.locks, whole.locks);
    let cpu = &system.cpus[0];
    assert_eq!((cpu.el, cpu.pc), (whole.cpus[0].el, whole.cpus[0].pc));
    assert_eq!(cpu.registers.get("VTCR_EL2"), None, "it was not read");
    let file = images.symbol_files().join(", ");
    for (what, register) in [
        ("mode", "HCR_EL2.E2H"),
        ("host-s2 geometry", "VTCR_EL2"),
        ("hyp-s1 geometry", "TCR_EL2"),
    ] {
        let fact = system.facts.iter().find(|fact| fact.what == what);
        let source = fact.map(|fact| fact.source.clone());
        assert_eq!(source, Some(format!("{register} in TRANSLATION in {file}")));
    }
}

#[test]
fn without_any_copy_the_geometry_is_unknown() {
    for (program, is_set_up) in [(program(), true), (with_translation(), false)] {
        let system = machine(is_set_up).capture(&mut images(&program));
        assert!(!system.complete && system.regimes.is_empty());
        assert_eq!(system.problems.len(), 2, "{:?}", system.problems);
        assert!(system.problems[0].contains("so its geometry is unknown"));
        assert_eq!(system.locks.len(), 4);
    }
}
