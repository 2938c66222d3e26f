//! Breakpoints and steps against a real QEMU, on a program of two CPUs that count and write down what they counted.

use crate::qemu::{PATIENT, Qemu};
use inspector::addr::Span;
use inspector::target::{Breakpoint, RunControl, RunState, Target};
use std::io::Write;
use tempfile::NamedTempFile;

const START: u64 = 0x4010_0000;
/// The loop's first instruction; then it adds to x0, writes it to [`COUNT`], does nothing, and branches back.
const LOOP: u64 = START + 0x18;
const STORE: u64 = LOOP + 8;
const BRANCH: u64 = LOOP + 16;
const COUNT: u64 = START + 0x100;
const PROGRAM: [u32; 11] = [
    0xd280_0060, // mov x0, #3: PSCI's CPU_ON is 0xc4000003
    0xf2b8_8000, // movk x0, #0xc400, lsl #16
    0xd280_0021, // mov x1, #1
    0x1000_0062, // adr x2, LOOP
    0xd280_0003, // mov x3, #0
    0xd400_0003, // smc #0
    0x1000_0741, // adr x1, COUNT
    0x9100_0400, // add x0, x0, #1
    0xf900_0020, // str x0, [x1]
    0xd503_201f, // nop
    0x17ff_fffc, // b LOOP
];

/// A machine that stands before the program's first instruction.
fn program() -> (Qemu, NamedTempFile) {
    let mut file = NamedTempFile::new().unwrap();
    for instruction in PROGRAM {
        file.write_all(&instruction.to_le_bytes()).unwrap();
    }
    let path = file.path().display();
    let loader = format!("loader,file={path},addr={START:#x},force-raw=on,cpu-num=0");
    (Qemu::start(&["-S", "-device", &loader]), file)
}

fn pc(target: &mut dyn Target, cpu: usize) -> u64 {
    target.registers(cpu).unwrap().get("pc").unwrap()
}

fn counted(target: &mut dyn Target, cpu: usize) -> u64 {
    target.registers(cpu).unwrap().get("x0").unwrap()
}

fn written(target: &mut dyn Target) -> u64 {
    let bytes = target.read_phys(&[Span::new(COUNT, 8)]).unwrap().remove(0);
    u64::from_le_bytes(bytes.unwrap().try_into().unwrap())
}

fn run(target: &mut dyn Target) -> &mut dyn RunControl {
    target.run_control().unwrap()
}

/// Runs to the next stop.
fn next(target: &mut dyn Target) -> (usize, String) {
    run(target).resume().unwrap();
    match run(target).wait(PATIENT).unwrap() {
        RunState::Stopped {
            cpu: Some(cpu),
            reason,
        } => (cpu, reason),
        other => panic!("{other:?}"),
    }
}

fn insert(target: &mut dyn Target, breakpoint: Breakpoint) {
    run(target).insert(breakpoint).unwrap().unwrap();
}

fn places(target: &mut dyn Target) -> [u64; 2] {
    [0, 1].map(|cpu| pc(target, cpu))
}

#[test]
fn a_cpu_steps_while_the_other_stands() {
    let (qemu, _file) = program();
    let mut gdb = qemu.attach();
    insert(&mut gdb, Breakpoint::Code(LOOP));
    while places(&mut gdb) != [LOOP, LOOP] {
        next(&mut gdb);
    }
    let mut expected = [LOOP, LOOP];
    // Off the breakpoint, round the loop, and off it again; the other one in between.
    for cpu in [0, 1, 1, 0, 0, 0, 0, 0, 1] {
        expected[cpu] = match expected[cpu] {
            BRANCH => LOOP,
            other => other + 4,
        };
        assert_eq!(run(&mut gdb).step(cpu).unwrap(), expected[cpu]);
        assert_eq!(places(&mut gdb), expected);
    }
    let counts = [0, 1].map(|cpu| counted(&mut gdb, cpu));
    let (cpu, _) = next(&mut gdb);
    assert_eq!(pc(&mut gdb, cpu), LOOP);
    assert!(counted(&mut gdb, cpu) <= counts[cpu] + 1);
}

#[test]
fn a_write_is_seen_before_it_is_done() {
    let (qemu, _file) = program();
    let mut gdb = qemu.attach();
    insert(&mut gdb, Breakpoint::Write(Span::new(COUNT, 8)));
    let (cpu, reason) = next(&mut gdb);
    assert_eq!(reason, format!("about to write to {COUNT:#x}"));
    assert_eq!(pc(&mut gdb, cpu), STORE);
    assert_eq!(written(&mut gdb), 0);
    assert_eq!(run(&mut gdb).step(cpu).unwrap(), STORE + 4);
    assert_eq!(written(&mut gdb), counted(&mut gdb, cpu));
}
