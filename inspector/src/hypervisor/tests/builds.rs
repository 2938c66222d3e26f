//! Files of hyp of the build that runs, and of others.

use super::machine::{LINEAR, Machine, VAR, images, program};
use super::*;
use crate::image::kernel::made::note;

/// Where hyp's image begins.
const NOTES: u64 = 0x4020_0000;
const RUNNING: [u8; 4] = [0xde, 0xad, 0xbe, 0xef];

fn build(id: &[u8]) -> Program {
    Program {
        notes: Some((LINEAR + NOTES, note(b"GNU\0", 3, id))),
        ..program()
    }
}

/// A machine as QEMU's gdb server shows it.
fn machine() -> Machine {
    let mut machine = Machine::new();
    machine.description = None;
    machine.put(NOTES, &note(b"GNU\0", 3, &RUNNING));
    machine
}

fn build_id(system: &System) -> Option<&str> {
    let mut facts = system.facts.iter();
    let fact = facts.find(|fact| fact.what == "build id")?;
    Some(&fact.value)
}

/// That there is this one problem, behind the file's name.
fn assert_refused(system: &System, sentence: &str) {
    let [problem] = &*system.problems else {
        panic!("{:?}", system.problems);
    };
    let start = problem.find(" is not the hyp").expect("a file's name");
    assert_eq!(&problem[start..], sentence);
    assert!(!system.complete);
}

#[test]
fn the_build_that_runs_is_read_and_its_id_is_a_fact() {
    let mut machine = machine();
    let mut images = images(&build(&RUNNING));
    let system = machine.capture(&mut images);
    assert_eq!(system.problems, Vec::<String>::new());
    assert_eq!(
        (owners_text(&system).as_str(), system.complete),
        (SOUND, true)
    );
    assert_eq!(build_id(&system), Some("deadbeef"));
    // A snapshot remembers it.
    machine.notes = images.notes();
    assert_eq!(machine.capture(&mut Images::default()), system);
}

/// Its names, too, would be those of something else.
#[test]
fn another_build_is_refused_by_both_ids() {
    let mut machine = machine();
    let mut images = images(&build(&[0xde, 0xad, 0xbe, 0xee]));
    // Each time that it is looked.
    for _ in 0..2 {
        let system = machine.capture(&mut images);
        assert_refused(
            &system,
            " is not the hyp that runs: its build id is deadbeee, the running hyp's is deadbeef; give the file of that build",
        );
        assert_eq!(system.hypervisor.kind, HypervisorKind::None);
        assert_eq!((system.symbols.len(), system.cpus.len()), (0, 2));
        assert_eq!(system.cpus[0].symbol, None);
    }
    assert_eq!(images.notes(), None);
    // The machine starts anew with that build.
    machine.put(NOTES, &note(b"GNU\0", 3, &[0xde, 0xad, 0xbe, 0xee]));
    assert!(machine.capture(&mut images).complete);
}

#[test]
fn what_else_there_is_stands_in_for_another_build() {
    let other = || images(&build(b"other"));
    let mut machine = machine();
    let refused =
        " is not the hyp that runs: its build id is 6f74686572, the running hyp's is deadbeef; ";

    // hyp's own channel.
    machine.description = Machine::new().description;
    let system = machine.capture(&mut other());
    assert_refused(
        &system,
        &format!("{refused}what hyp says of itself is used instead"),
    );
    assert_eq!(owners_text(&system), SOUND);
    assert_eq!(build_id(&system), None);

    // A snapshot, and what it remembers of the file that was right.
    machine.description = None;
    let mut right = images(&build(&RUNNING));
    let sound = machine.capture(&mut right);
    let name = right.file_of(VARIABLE).expect("a name").to_owned();
    machine.notes = right.notes();
    let system = machine.capture(&mut other());
    assert_refused(&system, &format!("{refused}{name} is used instead"));
    assert_eq!((system.facts, system.symbols), (sound.facts, sound.symbols));
}

#[test]
fn something_else_where_the_id_would_be_is_another_build() {
    let mut machine = machine();
    machine.put(NOTES, &[0xd5; 20]);
    let system = machine.capture(&mut images(&build(&RUNNING)));
    assert_refused(
        &system,
        " is not the hyp that runs: its build id is deadbeef, there is none at 0x40200000; give the file of that build",
    );
}

#[test]
fn what_cannot_be_compared_is_used() {
    // A file without an id.
    let system = machine().capture(&mut images(&program()));
    assert_eq!((system.complete, build_id(&system)), (true, None));

    // Nothing is loaded yet.
    let mut empty = machine();
    empty.put(NOTES, &[0; 20]);
    empty.put(VAR, &[0; 0x100]);
    let [problem] = &*empty.capture(&mut images(&build(&RUNNING))).problems else {
        panic!("one sentence");
    };
    assert!(
        problem.starts_with("hyp has not started yet: "),
        "{problem}"
    );

    // What was saved of the machine has no room for it.
    let mut program = build(&RUNNING);
    program.segments.push((LINEAR, 0, 0x1000));
    program.notes = Some((LINEAR, note(b"GNU\0", 3, &RUNNING)));
    let system = machine().capture(&mut images(&program));
    assert_eq!(owners_text(&system), SOUND);
    let [problem] = &*system.problems else {
        panic!("{:?}", system.problems);
    };
    assert!(
        problem.contains(" is of the build that runs is not known: "),
        "{problem}"
    );
}
