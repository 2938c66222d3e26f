//! Breakpoints and steps against a real QEMU, on a program of two CPUs that count and write down what they counted.

mod hyp;
mod leaving;
mod linux;

use crate::qemu::{PATIENT, Qemu};
use inspector::addr::Span;
use inspector::target::{Breakpoint, RunControl, RunState, Target};
use std::io::Write;
use tempfile::NamedTempFile;

/// Rounds of the loop that a test follows.
const MANY: u64 = 60;
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
    program_from(START)
}

/// A machine whose CPU 0 is to begin at `entry`; only the first instructions let CPU 1 run.
fn program_from(entry: u64) -> (Qemu, NamedTempFile) {
    let mut file = NamedTempFile::new().unwrap();
    for instruction in PROGRAM {
        file.write_all(&instruction.to_le_bytes()).unwrap();
    }
    let path = file.path().display();
    let code = format!("loader,file={path},addr={START:#x},force-raw=on");
    let begin = format!("loader,addr={entry:#x},cpu-num=0");
    let qemu = Qemu::start(&["-S", "-device", &code, "-device", &begin]);
    (qemu, file)
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

/// Each counts its rounds in x0, so none of a CPU's arrivals is missed, and none is seen twice, whoever the stop names.
#[test]
fn each_cpu_stops_each_time_it_comes_to_a_breakpoint() {
    let (qemu, _file) = program();
    let mut gdb = qemu.attach();
    // Two in a row: stepping off the one leads to the other.
    for address in [LOOP, STORE] {
        insert(&mut gdb, Breakpoint::Code(address));
    }
    let mut arrivals = [[0; 2]; 2];
    // It also goes on until both have stopped at once.
    let mut together = 0;
    while together == 0 || arrivals.iter().flatten().any(|count| *count < MANY) {
        next(&mut gdb);
        let at = places(&mut gdb);
        together += usize::from(at.iter().all(|pc| [LOOP, STORE].contains(pc)));
        for (cpu, pc) in at.into_iter().enumerate() {
            let Some(which) = [LOOP, STORE].iter().position(|place| *place == pc) else {
                continue;
            };
            arrivals[cpu][which] += 1;
            let [begun, stored] = arrivals[cpu];
            // The first CPU comes with the number of CPU_ON's result, 0, and adds before it stores.
            assert_eq!(
                counted(&mut gdb, cpu),
                if which == 0 { begun - 1 } else { stored }
            );
        }
    }
}

/// No write happens between two stops but the one that the stop before has told of.
#[test]
fn every_write_is_seen_before_it_is_done() {
    let (qemu, _file) = program();
    let mut gdb = qemu.attach();
    insert(&mut gdb, Breakpoint::Write(Span::new(COUNT, 8)));
    let mut expected = 0;
    let mut writes = [0; 2];
    while writes.iter().any(|count| *count < MANY) {
        let (cpu, reason) = next(&mut gdb);
        assert_eq!(reason, format!("about to write to {COUNT:#x}"));
        assert_eq!(pc(&mut gdb, cpu), STORE);
        assert_eq!(written(&mut gdb), expected, "{writes:?}");
        writes[cpu] += 1;
        assert_eq!(counted(&mut gdb, cpu), writes[cpu]);
        expected = writes[cpu];
        // Whether it is stepped or just goes on.
        if writes.iter().sum::<u64>() % 2 == 0 {
            assert_eq!(run(&mut gdb).step(cpu).unwrap(), STORE + 4);
            assert_eq!(written(&mut gdb), expected);
        }
    }
}

#[test]
fn a_breakpoint_at_a_watched_write_stops_for_each() {
    let (qemu, _file) = program_from(LOOP);
    let mut gdb = qemu.attach();
    insert(&mut gdb, Breakpoint::Code(STORE));
    insert(&mut gdb, Breakpoint::Write(Span::new(COUNT + 4, 2)));
    for round in 1..5 {
        assert_eq!(next(&mut gdb), (0, "signal 5".to_owned()));
        assert_eq!(pc(&mut gdb, 0), STORE);
        let (_, reason) = next(&mut gdb);
        assert_eq!(reason, format!("about to write to {:#x}", COUNT + 4));
        assert_eq!(pc(&mut gdb, 0), STORE);
        assert_eq!(written(&mut gdb), round - 1);
    }
}

#[test]
fn a_cpu_that_waits_stays_where_it_is() {
    let (qemu, _file) = program();
    let mut gdb = qemu.attach();
    // CPU 1 is off until CPU 0 has it started.
    assert_eq!(run(&mut gdb).step(1).unwrap(), pc(&mut gdb, 1));
    assert_eq!(run(&mut gdb).step(0).unwrap(), START + 4);
    assert_eq!(places(&mut gdb), [START + 4, 0]);
    // When it runs, it does not stop behind the step that it never took.
    assert_eq!(run(&mut gdb).step(1).unwrap(), 0);
    insert(&mut gdb, Breakpoint::Code(BRANCH));
    let mut arrivals = [0; 2];
    while arrivals.contains(&0) {
        let (cpu, _) = next(&mut gdb);
        assert_eq!(pc(&mut gdb, cpu), BRANCH);
        arrivals[cpu] += 1;
    }
}

#[test]
fn a_machine_that_is_reset_keeps_what_is_armed() {
    let (mut qemu, _file) = program();
    let mut gdb = qemu.attach();
    insert(&mut gdb, Breakpoint::Code(BRANCH));
    assert_eq!(next(&mut gdb).1, "signal 5");
    qemu.qmp("system_reset");
    next(&mut gdb);
    assert!(places(&mut gdb).contains(&BRANCH));
    run(&mut gdb).remove(Breakpoint::Code(BRANCH)).unwrap();
    insert(&mut gdb, Breakpoint::Code(START));
    run(&mut gdb).resume().unwrap();
    qemu.qmp("system_reset");
    let stop = run(&mut gdb).wait(PATIENT).unwrap();
    assert!(
        matches!(stop, RunState::Stopped { cpu: Some(0), .. }),
        "{stop:?}"
    );
    assert_eq!(pc(&mut gdb, 0), START);
}

#[test]
fn a_machine_that_ends_while_armed_is_told() {
    let (mut qemu, _file) = program();
    let mut gdb = qemu.attach();
    insert(&mut gdb, Breakpoint::Code(COUNT));
    run(&mut gdb).resume().unwrap();
    qemu.qmp("quit");
    assert_eq!(run(&mut gdb).wait(PATIENT).unwrap(), RunState::Exited);
    let error = run(&mut gdb).remove(Breakpoint::Code(COUNT)).unwrap_err();
    assert!(
        error.to_string().contains("the machine has ended"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_is_refused() {
    let (_qemu, _file) = program();
    let mut gdb = _qemu.attach();
    let none = Breakpoint::Write(Span::new(COUNT, 0));
    let refused = run(&mut gdb).insert(none).unwrap().unwrap_err();
    assert_eq!(refused, "the server answered `E22`");
    assert_eq!(run(&mut gdb).breakpoints(), []);
    let error = run(&mut gdb).step(2).unwrap_err().to_string();
    assert!(
        error.contains("stepping CPU 2: it is off, or there is none"),
        "{error}"
    );
    run(&mut gdb).resume().unwrap();
    let place = Breakpoint::Code(COUNT);
    let errors = [
        run(&mut gdb).insert(place).unwrap_err(),
        run(&mut gdb).step(0).unwrap_err(),
    ];
    for error in errors {
        assert!(
            error
                .to_string()
                .contains("the machine runs: stop it first"),
            "{error}"
        );
    }
}
