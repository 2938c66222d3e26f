//! CPUs that hyp's own debugger has parked, looked at through another's eyes.

use super::*;
use crate::target::{Recorder, Registers, snapshot};

/// Where `PARKED` is.
const PARKED: u64 = 0x4030_c000;
/// Bytes of its elements.
const SIZE: u64 = 0x180;
/// Offsets in an element.
const SP: u64 = 0x100;
const PC: u64 = 0x108;
const PSTATE: u64 = 0x110;
/// `vttbr_el2`, `ttbr1_el2`, `id_aa64mmfr1_el1`, `ttbr0_el1`.
const SYSTEM: [u64; 4] = [0x120, 0x128, 0x130, 0x138];

fn record() -> Type {
    let word = || Type::Number(8);
    Type::record(
        "Parked",
        SIZE,
        vec![
            (
                "parked",
                0,
                Type::record("AtomicU32", 4, vec![("v", 0, Type::Number(4))]),
            ),
            ("x", 8, Type::Array(Box::new(word()), 31)),
            ("sp", SP, word()),
            ("pc", PC, word()),
            ("pstate", PSTATE, word()),
            ("vttbr_el2", SYSTEM[0], word()),
            ("ttbr1_el2", SYSTEM[1], word()),
            ("id_aa64mmfr1_el1", SYSTEM[2], word()),
            ("ttbr0_el1", SYSTEM[3], word()),
            ("later", 0x140, word()),
        ],
    )
}

/// hyp with a debugger: `count` elements of a type.
fn program_with(element: Type, count: u64) -> Program {
    let mut program = program();
    program
        .symbols
        .push(("PARKED".to_owned(), LINEAR + PARKED, SIZE * count));
    let all = Type::Array(Box::new(element), count);
    program.variables.push(("PARKED".to_owned(), all));
    program
}

/// A machine on which CPU 1 was in `share` at EL2, and CPU 0 does what its registers say.
fn machine(vh: u64) -> Machine {
    let mut machine = Machine::new();
    let element = PARKED + SIZE;
    machine.put(element, &[1, 0, 0, 0]);
    for n in 0..31 {
        machine.put(element + 8 + n * 8, &(0x100 + n).to_le_bytes());
    }
    for (at, value) in [
        (SP, LINEAR + 0x4000_0ff0),
        (PC, LINEAR + 0x4020_0044),
        (PSTATE, 0x3c5),
        (SYSTEM[0], HOST_ROOT | 1 << 48),
        (SYSTEM[1], 0),
        (SYSTEM[2], vh << 8),
        (SYSTEM[3], 0x4100_0000),
    ] {
        machine.put(element + at, &value.to_le_bytes());
    }
    machine
}

#[test]
fn a_parked_cpu_shows_what_it_was_doing() {
    let mut images = images(&program_with(record(), 4));
    let system = machine(1).capture(&mut images);
    assert_eq!(system.problems, [""; 0]);
    assert_eq!(
        system.cpus[0].registers,
        Machine::new().registers,
        "CPU 0 is not parked"
    );
    let cpu = &system.cpus[1];
    assert_eq!(
        (cpu.number, cpu.el, cpu.pc, cpu.symbol.as_deref()),
        (1, Some(1), Some(LINEAR + 0x4020_0044), Some("share+0x4"))
    );
    let general = (0..31).map(|n| (format!("x{n}"), 0x100 + n));
    let others = [
        ("sp", LINEAR + 0x4000_0ff0),
        ("pc", LINEAR + 0x4020_0044),
        ("cpsr", 0x3c5),
        ("VTTBR_EL2", HOST_ROOT | 1 << 48),
        ("TTBR1_EL2", 0),
        ("ID_AA64MMFR1_EL1", 0x100),
        ("TTBR0_EL1", 0x4100_0000),
    ];
    let others = others.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(
        cpu.registers,
        Registers(general.chain(others).collect()),
        "these and no others"
    );
    let fact = system.facts.iter().find(|fact| fact.what == "parked");
    let fact = fact.expect("it is said");
    assert_eq!(
        fact.value,
        "CPU 1: shown are the registers that hyp's debugger saved"
    );
    assert_eq!(
        fact.source,
        format!("PARKED in {}", images.symbol_files().join(", "))
    );
}

#[test]
fn without_vhe_there_is_no_ttbr1_el2() {
    let system = machine(0).capture(&mut images(&program_with(record(), 4)));
    let registers = &system.cpus[1].registers;
    assert_eq!(registers.get("TTBR1_EL2"), None);
    assert_eq!(registers.get("TTBR0_EL1"), Some(0x4100_0000));
}

#[test]
fn a_machine_that_was_not_stopped_by_its_debugger_is_as_it_says() {
    let plain = Machine::new().capture(&mut images(&program()));
    for program in [program(), program_with(record(), 4)] {
        let system = Machine::new().capture(&mut images(&program));
        assert_eq!(system.cpus, plain.cpus);
        assert!(system.facts.iter().all(|fact| fact.what != "parked"));
    }
    // Without the image nobody knows where `PARKED` is.
    let described = machine(1).capture(&mut Images::default());
    assert_eq!(described.cpus, plain.cpus);
}

/// Members come and go, and machines have more CPUs than `PARKED` has elements.
#[test]
fn a_register_without_member_is_left_out() {
    let only = vec![
        ("parked", 0, Type::Number(4)),
        ("pc", PC, Type::Number(8)),
        ("ttbr1_el2", SYSTEM[1], Type::Number(8)),
    ];
    let few = program_with(Type::record("Parked", SIZE, only), 2);
    let system = machine(1).capture(&mut images(&few));
    assert_eq!(system.problems, [""; 0]);
    let cpu = &system.cpus[1];
    let pc = LINEAR + 0x4020_0044;
    assert_eq!(cpu.registers, Registers([("pc".to_owned(), pc)].into()));
    assert_eq!((cpu.el, cpu.pc), (None, Some(pc)));

    let one = program_with(record(), 1);
    let mut machine = machine(1);
    assert_eq!(
        machine.capture(&mut images(&one)).cpus[1].registers,
        machine.registers
    );
}

#[test]
fn what_is_no_array_of_parked_cpus_is_said() {
    let flagless = Type::record("Parked", SIZE, vec![("pc", PC, Type::Number(8))]);
    let mut absurd = program_with(record(), 4);
    absurd.variables[1].1 = Type::Array(Box::new(record()), 1 << 40);
    let mut outside = program_with(record(), 4);
    outside.symbols[2].1 = 0x1000;
    for (program, said) in [
        (program_with(flagless, 4), "no member `parked`"),
        (program_with(Type::Number(8), 4), "no member `parked`"),
        (absurd, "too many to be true"),
        (outside, "PARKED at 0x1000 lies in no segment of its file"),
    ] {
        let mut machine = machine(1);
        let system = machine.capture(&mut images(&program));
        assert!(!system.complete);
        let [problem] = &system.problems[..] else {
            panic!("{:?}", system.problems);
        };
        assert!(problem.contains(said), "{problem}");
        assert_eq!(system.cpus[1].registers, machine.registers);
    }
}

#[test]
fn a_snapshot_knows_who_was_parked() {
    let mut live = machine(1);
    live.description = None;
    let mut images = images(&program_with(record(), 4));
    let mut recorder = Recorder::new(&mut live);
    let system = capture(&mut recorder, &mut images).expect("the link holds");
    let mut contents = recorder.finish().expect("the link holds");
    contents.symbols = images.notes();

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("snapshot");
    snapshot::write(&path, &contents).expect("room for a file");
    let name = path.to_str().expect("a plain path");
    let mut saved = snapshot::Snapshot::open(name).expect("a sound file");
    let again = capture(&mut saved, &mut Images::default()).expect("a file");
    assert_eq!(again, system);
    assert_eq!(again.cpus[1].symbol.as_deref(), Some("share+0x4"));
}
