mod builds;
mod damage;
mod machine;
mod memory_only;
mod parked;

use super::*;
use crate::image::tests::elf_file::{Program, Type};
use crate::model::{EntryKind, Frame, JointOwner, Owner, State};
use crate::target::Registers;
use machine::*;

/// `owners` in one line each.
fn owners_text(system: &System) -> String {
    system
        .owners
        .iter()
        .map(|range| {
            let state =
                |state: Option<State>| state.map_or("?".to_owned(), |state| state.to_string());
            format!(
                "{:#x} {:#x} {} {} {} {}\n",
                range.pa.start,
                range.pa.size,
                range.owner,
                state(range.host),
                state(range.hyp),
                range.rule.unwrap_or("-")
            )
        })
        .collect()
}

#[test]
fn a_panic_is_told_by_the_calls() {
    for (names, expected) in [
        (&[][..], None),
        (&[None, Some("panic+0x34c"), Some("die+0x290")], Some(1)),
        (
            &[Some("smp_send_stop+0x130"), Some("vpanic+0x1fc")],
            Some(1),
        ),
        (&[Some("panic")], Some(1)),
        (&[Some("__kvm_nvhe_hyp_panic"), None], Some(1)),
        (
            &[
                Some("hyp_image::panic::stop+0xc"),
                Some("hyp_image::panic::end+0x1d4"),
            ],
            Some(1),
        ),
        // The others.
        (&[Some("panic_smp_self_stop+0x8"), None], None),
        (
            &[
                Some("hyp_image::panic::stop+0xc"),
                Some("hyp_image::panic::stop_if_asked"),
            ],
            None,
        ),
    ] {
        let frame = |name: &Option<&str>| Frame::returning(0, name.map(str::to_owned));
        let mut cpus = [0, 1].map(|number| Cpu::new(number, Registers::default()));
        cpus[1].calls = names.iter().map(frame).collect();
        assert_eq!(panicked(&cpus), expected, "{names:?}");
    }
    let mut cpu = Cpu::new(3, Registers::default());
    cpu.symbol = Some("hyp_panic".to_owned());
    assert_eq!(panicked(&[cpu]), Some(3));
}

const SOUND: &str = "\
0x40000000 0x1000 host owned no-page J1
0x40001000 0x1000 host shared-owned shared-borrowed J2
0x40002000 0x1000 hyp shared-borrowed shared-owned J3
0x40003000 0x30d000 host owned no-page J1
0x40310000 0x10000 hyp no-page owned J4
0x40320000 0xce0000 host owned no-page J1
";

#[test]
fn a_sound_machine_is_complete() {
    let system = Machine::new().capture(&mut Images::default());
    assert_eq!(system.problems, [""; 0]);
    assert!(system.complete);
    assert_eq!(owners_text(&system), SOUND);
    assert_eq!(system.hypervisor.mode, Some("nvhe"));
    assert_eq!(system.cpus[1].symbol.as_deref(), Some("share"));
    assert_eq!(system.sections[0].name, "host-rodata");
    assert_eq!(
        system.pools[0]
            .refcounts
            .as_ref()
            .map(|all| (all.len(), all[0])),
        Some((16, 4))
    );
    let device = &system.regimes[0].entries[0];
    assert_eq!(
        (device.leaf.ia, device.state, device.owner),
        (0x0900_0000, None, None)
    );
}

/// A device page that hyp keeps from the host: a row like its other pages, and nothing to the owners of RAM.
#[test]
fn a_device_of_hyps_own_is_an_annotation_outside_ram() {
    let mut machine = Machine::new();
    machine.map(HOST_ROOT, 0x0a00_3000, 4);
    machine.map(HYP_ROOT, LINEAR + 0x0a00_3000, 0x0040_0000_0a00_3747);
    let system = machine.capture(&mut Images::default());
    assert_eq!(system.problems, [""; 0]);
    assert!(system.complete);
    let row = |regime: usize, ia| {
        let mut entries = system.regimes[regime].entries.iter();
        let entry = entries.find(|entry| entry.leaf.ia == ia);
        entry.map(|entry| (entry.kind, entry.state, entry.owner))
    };
    assert_eq!(
        row(0, 0x0a00_3000),
        Some((EntryKind::Annotation, Some(State::NoPage), Some(Owner::Hyp)))
    );
    assert_eq!(
        row(1, LINEAR + 0x0a00_3000),
        Some((EntryKind::Page, None, None))
    );
    assert_eq!(owners_text(&system), SOUND);
}

#[test]
fn locks_say_who_holds_them() {
    let system = Machine::new().capture(&mut Images::default());
    let host = &system.locks[0];
    assert_eq!(host.tickets, Some(Tickets { owner: 5, next: 7 }));
    let holder = host.holder.as_ref().expect("it is held");
    assert_eq!(
        (holder.cpu, holder.symbol.as_deref()),
        (1, Some("share+0x10"))
    );
    assert_eq!(
        system.locks[1].holder, None,
        "free locks have no holder, whatever their words say"
    );
}

#[test]
fn facts_name_their_sources() {
    let mut images = images(&program());
    let system = Machine::new().capture(&mut images);
    let source = |what: &str| {
        let fact = system.facts.iter().find(|fact| fact.what == what);
        fact.map(|fact| (fact.value.as_str(), fact.source.clone()))
    };
    let symbols = images.symbol_files().join(", ");
    assert_eq!(source("symbols"), Some(("2", symbols.clone())));
    assert_eq!(
        source("hypervisor"),
        Some(("hyp 0.1.0", format!("HYP in {symbols}")))
    );
    assert_eq!(
        source("CPUs"),
        Some(("2", "the target's threads".to_owned()))
    );
    assert_eq!(
        source("mode"),
        Some(("nvhe", "HCR_EL2.E2H of CPU 0".to_owned()))
    );
}

/// Only hyp's image has one; another program's `CONSOLE` is something else.
#[test]
fn the_lock_of_the_uart_is_listed_where_the_image_has_one() {
    let console = LINEAR + VAR + 0xc0;
    let with = |size| {
        let mut program = program();
        program.symbols.push(("CONSOLE".to_owned(), console, size));
        let lock = Type::record(
            "Lock",
            size,
            vec![
                ("tickets", 0, Type::Number(4)),
                ("taker", 8, Type::Number(8)),
            ],
        );
        program.variables.push(("CONSOLE".to_owned(), lock));
        program
    };
    let mut machine = Machine::new();
    machine.put(VAR + 0xc0, &[8, 0, 9, 0, 0, 0, 0, 0]);
    let mut images_with = images(&with(16));
    let system = machine.capture(&mut images_with);
    let names: Vec<_> = system.locks.iter().map(|lock| lock.name.as_str()).collect();
    assert_eq!(names, ["host", "hyp", "host-pool", "hyp-pool", "console"]);
    let lock = &system.locks[4];
    assert_eq!((lock.symbol.as_str(), lock.pa), ("CONSOLE", VAR + 0xc0));
    assert_eq!(lock.tickets, Some(Tickets { owner: 8, next: 9 }));

    // A snapshot remembers it.
    machine.notes = images_with.notes();
    assert_eq!(machine.capture(&mut Images::default()), system);
    machine.notes = None;

    let mut other = Program {
        segments: vec![(0x4100_0000, 0x4100_0000, 0x1000)],
        symbols: vec![("CONSOLE".to_owned(), 0x4100_0000, 16)],
        variables: Vec::new(),
        ..Program::default()
    };
    for (program, first) in [(program(), &mut other), (with(24), &mut Program::default())] {
        let files = [&*first, &program].map(|program| {
            let file = tempfile::NamedTempFile::new().expect("a temporary file");
            std::fs::write(file.path(), program.elf()).expect("a temporary file");
            file
        });
        let paths = files.each_ref().map(|file| file.path().to_owned());
        let mut images = Images::open(&paths).expect("sound files");
        let system = machine.capture(&mut images);
        assert_eq!(system.locks.len(), 4);
        assert_eq!(system.problems, Vec::<String>::new());
    }
}

/// Everything but where the facts came from.
fn without_sources(mut system: System) -> System {
    for fact in &mut system.facts {
        fact.source.clear();
    }
    system
}

#[test]
fn symbols_and_self_description_say_the_same() {
    let described = Machine::new().capture(&mut Images::default());
    let mut images = images(&program());
    let mut machine = Machine::new();
    let by_symbols = machine.capture(&mut images);
    assert_eq!(
        without_sources(by_symbols.clone()),
        without_sources(described)
    );

    // A snapshot carries the notes instead of the file.
    machine.description = None;
    machine.notes = images.notes();
    assert_eq!(machine.capture(&mut Images::default()), by_symbols);
    // Beside one of the files, it loses none of the others' symbols.
    let mut host = program();
    host.symbols.push(("host_main".to_owned(), 0x4100_0000, 64));
    let mut both = self::images(&host);
    machine.notes = None;
    machine.capture(&mut both);
    machine.notes = both.notes();
    let again = machine.capture(&mut self::images(&program()));
    assert_eq!(again.symbols, Symbols::new(both.symbols()));
}

#[test]
fn a_missing_member_is_named_and_the_rest_is_read() {
    let mut program = program();
    if let Some((_, Type::Record(hyp))) = program.variables.first_mut() {
        hyp.members
            .retain(|(name, _, _)| name != "sections" && name != "release");
    }
    let mut images = images(&program);
    let system = Machine::new().capture(&mut images);
    assert!(!system.complete);
    assert_eq!(owners_text(&system), SOUND);
    let missing = |member: &str| {
        let wanted = format!("no member `{member}` in `Hyp`");
        system
            .problems
            .iter()
            .any(|problem| problem.contains(&wanted))
    };
    assert!(
        missing("sections") && missing("release"),
        "{:?}",
        system.problems
    );
    assert_eq!(system.hypervisor.release, None);
}

#[test]
fn a_machine_without_hypervisor_still_has_cpus() {
    let mut machine = Machine::new();
    machine.description = None;
    let system = machine.capture(&mut Images::default());
    assert_eq!(
        (system.complete, system.hypervisor.kind, system.cpus.len()),
        (false, HypervisorKind::None, 2)
    );
    assert_eq!(
        system.problems,
        [
            "no hypervisor found: the target describes none, no symbol `HYP` in any file: none was given (--image FILE gives one), and there is no Linux kernel in RAM"
        ]
    );
}

#[test]
fn a_start_that_did_not_begin_is_said() {
    let mut machine = Machine::new();
    machine.put(VAR, &[0; 0x100]);
    let system = machine.capture(&mut images(&program()));
    assert_eq!(
        system.problems,
        [
            "hyp has not started yet: `HYP` at 0x40300000 is all zero; let the machine run, or give the image that it runs"
        ]
    );
    assert_eq!(system.cpus.len(), 2);
}

/// The file is of another build, or of another machine: its `HYP` would be read as anything.
#[test]
fn a_file_of_something_else_is_one_sentence() {
    for (at, bytes) in [(0, 0xa5_u64), (0x08, 0x1234)] {
        let mut machine = Machine::new();
        machine.put(VAR + at, &bytes.to_le_bytes());
        let system = machine.capture(&mut images(&program()));
        let [problem] = &*system.problems else {
            panic!("{at:#x}: {:?}", system.problems);
        };
        let sentence = "is not what runs here: 0x40300000 holds something else; give the file of the build that runs, or none";
        assert!(problem.ends_with(sentence), "{at:#x}: {problem}");
        assert_eq!((system.complete, system.cpus.len()), (false, 2));
    }
}

#[test]
fn a_start_that_is_not_finished_is_said() {
    let mut machine = Machine::new();
    machine.put(VAR + 1, &[0]);
    machine.put(VAR + 0x60, &0_u64.to_le_bytes());
    let system = machine.capture(&mut images(&program()));
    assert_eq!(
        system.problems,
        [
            "hyp has not finished its start, so tables and owners are not final: let the machine run",
            "host-s2: hyp has no root table yet"
        ]
    );
    assert_eq!(system.regimes.len(), 1);
    assert_eq!(system.locks.len(), 4);
}
