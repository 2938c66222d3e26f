//! The machine as a debugger finds it.

mod invariants;

use super::*;
use crate::debug::Breakpoint;
use crate::debug::owners::{Owner, Side, owners};
use crate::debug::registers::{Register, System};
use crate::debug::walk::{self, Kind, Regime};
use crate::debug::{Inferior, Refused, WatchKind, monitor};
use crate::init::SectionKind;
use crate::stats::Event;

fn ask(machine: &Machine, line: &str) -> String {
    let mut text = String::new();
    monitor::run(machine, line.as_bytes(), &mut text).unwrap();
    text
}

/// Everything that monitor commands and registers say.
fn everything(machine: &Machine) -> String {
    let mut text: String = ["s2", "owners", "locks", "cpus", "stats"]
        .iter()
        .map(|line| ask(machine, line))
        .collect();
    for cpu in 0..machine.facts().cpus {
        for register in Register::all() {
            text.push_str(&format!("{:x?}\n", machine.register(cpu, register)));
        }
    }
    text
}

impl Machine {
    fn read_word(&self, pa: u64) -> u64 {
        self.shared.ram.lock().read_u64(pa).unwrap()
    }
}

fn lock_word(machine: &Machine, pa: u64) -> [u8; 16] {
    let mut word = [0; 16];
    assert_eq!(machine.read_phys(pa, &mut word), 16);
    word
}

#[test]
fn every_start_and_every_run_is_the_same() {
    let [mut one, mut other] = [4, 4].map(|cpus| Machine::start(cpus).unwrap());
    assert_eq!(everything(&one), everything(&other));
    one.run_steps(700);
    other.run_steps(300);
    assert_ne!(everything(&one), everything(&other));
    other.run_steps(400);
    assert_eq!(
        everything(&one),
        everything(&other),
        "how a run is cut does not matter"
    );
}

#[test]
fn the_start_state_shows_one_of_everything() {
    let machine = Machine::start(4).unwrap();
    let mut seen = Vec::new();
    owners(&machine, Region::ALL, |joint| {
        seen.push((joint.owner(), joint.host, joint.hyp));
        true
    });
    use Side::{NoPage, Owned, SharedBorrowed, SharedOwned};
    let legal = [
        (Owner::Host, Owned, NoPage),
        (Owner::Host, SharedOwned, SharedBorrowed),
        (Owner::Hyp, NoPage, Owned),
        (Owner::Hyp, SharedBorrowed, SharedOwned),
    ];
    for row in legal {
        assert!(seen.contains(&row), "{row:?} is missing");
    }
    assert!(seen.iter().all(|row| legal.contains(row)), "{seen:?}");

    let s2 = ask(&machine, "s2");
    for kind in [
        "level 1 block rw- owned", // devices
        "level 2 block rwx owned",
        "level 3 page rwx owned",
        "level 3 page rwx shared-owned",
        "level 3 page rwx shared-borrowed",
        "level 3 annotation owner hyp",
    ] {
        assert!(s2.contains(kind), "no {kind} in\n{s2}");
    }
}

#[test]
fn the_start_state_has_one_contended_lock_whose_holder_is_known() {
    let machine = Machine::start(4).unwrap();
    let contended: Vec<_> = ask(&machine, "locks")
        .lines()
        .filter(|line| line.contains("held") && !line.contains("waiters 0"))
        .map(str::to_owned)
        .collect();
    assert_eq!(contended.len(), 1, "{contended:?}");
    assert!(contended[0].contains("by CPU"), "{contended:?}");
    let word = lock_word(&machine, layout::HYP);
    let holder = usize::from(word[4]);
    let cpsr = machine.register(holder, Register::Cpsr).unwrap();
    assert_eq!(cpsr >> 2 & 3, 2, "the holder is at EL2");
    let cpus = ask(&machine, "cpus");
    assert!(cpus.contains(" lock+0x"), "a CPU waits for it:\n{cpus}");
}

#[test]
fn one_cpu_starts_too_and_a_wrong_number_is_refused() {
    for cpus in [1, 2, layout::MAX_CPUS] {
        let machine = Machine::start(cpus).unwrap();
        assert_eq!(ask(&machine, "cpus").lines().count(), cpus);
    }
    for cpus in [0, layout::MAX_CPUS + 1] {
        let error = Machine::start(cpus).unwrap_err();
        assert_eq!(error, StartError::Cpus(cpus));
        assert_eq!(
            error.to_string(),
            format!("a simulated machine has 1 to 8 CPUs, not {cpus}")
        );
    }
}

#[test]
fn every_page_of_a_section_is_mapped_as_its_kind_says() {
    let machine = Machine::start(2).unwrap();
    for (kind, region) in layout::SECTIONS {
        for pa in (region.base..region.end()).step_by(4096) {
            let host = walk::lookup(&machine, Regime::HostS2, pa);
            let hyp = walk::lookup(&machine, Regime::HypS1, pa + layout::LINEAR_OFFSET);
            assert_eq!(hyp.output(pa), Some(pa), "{kind:?} {pa:#x}");
            match kind {
                SectionKind::HostRodata | SectionKind::HostBss => {
                    assert_eq!(host.raw, 0x0100_0000_0000_07ff | pa);
                    assert_eq!(hyp.raw, 0x00c0_0000_0000_07c3 | pa);
                }
                _ => assert_eq!((host.kind, host.raw), (Kind::Invalid, 4), "{pa:#x}"),
            }
        }
    }
}

#[test]
fn hyps_static_in_ram_is_what_the_registers_and_tables_say() {
    let machine = Machine::start(4).unwrap();
    let member = |path: &str| {
        let member = layout::MEMBERS.iter().find(|m| m.path == path).unwrap();
        let mut bytes = [0; 16];
        let size = member.kind.size() as usize;
        machine.read_phys(member.pa(), &mut bytes[..size]);
        [&bytes[..8], &bytes[8..]].map(|half| u64::from_le_bytes(half.try_into().unwrap()))
    };
    let register = |system| machine.register(0, Register::System(system)).unwrap();
    assert_eq!(member("HYP.host.pgt.root")[0], register(System::VTTBR_EL2));
    assert_eq!(member("HYP.hyp.pgt.root")[0], register(System::TTBR0_EL2));
    assert_eq!(member("HYP.physvirt_offset")[0], layout::PHYSVIRT_OFFSET);
    assert_eq!(member("HYP.profile")[0], u64::from(b'A'));
    assert_eq!(member("HYP.finalised")[0], 1);
    assert_eq!(member("HYP.cpus")[0], 4);
    for (pool, path) in machine.facts().pools.iter().zip(["host", "hyp"]) {
        assert_eq!(member(&format!("HYP.{path}.pool.base"))[0], pool.base);
        assert_eq!(member(&format!("HYP.{path}.pool.pages"))[0], pool.pages);
        let records = member(&format!("HYP.{path}.pool.records"));
        let va = machine.facts().hyp_va(pool.records);
        assert_eq!(records, [va, pool.pages]);
    }
    let [regions, count] = member("HYP.regions");
    let mut range = [0; 16];
    machine.read_phys(regions - layout::LINEAR_OFFSET, &mut range);
    assert_eq!(count, 1);
    assert_eq!(range[..8], layout::RAM.base.to_le_bytes());
    assert_eq!(range[8..], layout::RAM.size.to_le_bytes());
    let [release, size] = member("HYP.release");
    let mut text = vec![0; size as usize];
    machine.read_phys(release - layout::LINEAR_OFFSET, &mut text);
    assert_eq!(text, env!("CARGO_PKG_VERSION").as_bytes());
    let [sections, count] = member("HYP.sections");
    assert_eq!(count, layout::SECTIONS.len() as u64);
    let mut last = [0; 24];
    let at = sections + (count - 1) * layout::SECTION_SIZE - layout::LINEAR_OFFSET;
    machine.read_phys(at, &mut last);
    assert_eq!(last[0], SectionKind::HostBss as u8);
    assert_eq!(last[8..16], layout::HOST_BSS.base.to_le_bytes());
}

#[test]
fn reference_counts_are_those_of_the_tables() {
    let machine = Machine::start(4).unwrap();
    // The host's level-3 table of hyp's memory: itself, and every entry that is not zero.
    let level_2 = machine.read_word(machine.facts().host_s2.root + 8) & walk::ADDRESS;
    let level_3 = machine.read_word(level_2 + 8) & walk::ADDRESS;
    let used = (0..512)
        .filter(|i| machine.read_word(level_3 + i * 8) != 0)
        .count();
    assert!(used > 200);
    let page = ask(&machine, &format!("page {level_3:#x}"));
    assert!(
        page.ends_with(&format!("host-pool page, references {}\n", used + 1)),
        "{page}"
    );
}

#[test]
fn it_goes_on_for_ever_with_something_to_watch() {
    let mut machine = Machine::start(4).unwrap();
    let stat = |machine: &Machine, wanted: &str| {
        let mut found = None;
        machine.stats(&mut |name, value| {
            if name == wanted {
                found = Some(value);
            }
        });
        found.unwrap()
    };
    let names = [
        "steps",
        "TLB invalidations",
        "aborts mapped",
        "aborts refused",
        "shares",
        "shares repeated",
        "shares refused",
        "unknown hypercalls",
    ];
    let mut before = names.map(|name| stat(&machine, name));
    for _ in 0..3 {
        assert_eq!(machine.run_steps(8000), None, "nothing stops it");
        let after = names.map(|name| stat(&machine, name));
        for ((name, before), after) in names.iter().zip(before).zip(after) {
            assert!(after > before, "{name} stays at {after}");
        }
        before = after;
    }
}

#[test]
fn breakpoints_steps_and_held_back_cpus() {
    let mut machine = Machine::start(4).unwrap();
    let entry = layout::Function::PkvmHostShareHyp.address();
    machine.insert(Breakpoint::Software { va: entry }).unwrap();
    let Some(Stop::Breakpoint { cpu }) = machine.run_steps(10_000) else {
        std::panic!("no share in 10000 steps");
    };
    assert_eq!(machine.register(cpu, Register::Pc), Some(entry));
    assert!(machine.remove(Breakpoint::Software { va: entry }));
    assert!(!machine.remove(Breakpoint::Software { va: entry }));

    machine.resume(Resume {
        run: 1 << 1,
        step: Some(1),
    });
    let others = |machine: &Machine| {
        [0, 2, 3].map(|cpu| {
            Register::all()
                .map(|r| machine.register(cpu, r))
                .collect::<Vec<_>>()
        })
    };
    let (pc, before) = (machine.register(1, Register::Pc), others(&machine));
    assert_eq!(machine.run_steps(100), Some(Stop::Step { cpu: 1 }));
    assert_ne!(machine.register(1, Register::Pc), pc);
    assert_eq!(others(&machine), before, "only CPU 1 moved");

    machine.resume(Resume { run: 0, step: None });
    let before = everything(&machine);
    assert_eq!(machine.run_steps(100), None);
    assert_eq!(everything(&machine), before, "nobody was to run");
}

#[test]
fn cpus_stop_before_writes_that_are_watched() {
    let mut machine = Machine::start(4).unwrap();
    let watch = |va, kind| Breakpoint::Watch { va, size: 8, kind };
    // The host's data, each CPU's first page; a word of the host's tables; the host's lock.
    let root = machine.facts().host_s2.root;
    let level_2 = machine.read_word(root + 8) & walk::ADDRESS;
    let slot = level_2 + layout::LINEAR_OFFSET + 0x98;
    let lock = layout::HYP + layout::LINEAR_OFFSET;
    assert_eq!(
        machine.insert(watch(slot, WatchKind::Read)),
        Err(Refused::Full)
    );
    for (va, function) in [
        (slot, "set_leaf"),
        (0x4600_0000, "host_touch"),
        (lock, "host_stage2_idmap"),
    ] {
        let pa = va & !layout::LINEAR_OFFSET;
        let watched = watch(va, WatchKind::Write);
        let read = |machine: &Machine| {
            let mut word = [0; 8];
            machine.read_phys(pa, &mut word);
            word
        };
        let before = read(&machine);
        machine.insert(watched).unwrap();
        let stop = loop {
            match machine.run_steps(100_000) {
                Some(Stop::Watch { cpu, va: at, .. }) => {
                    assert_eq!(at, va);
                    let pc = machine.register(cpu, Register::Pc).unwrap();
                    let name = machine.facts().symbol_at(pc).unwrap().name;
                    if name == function {
                        break cpu;
                    }
                }
                other => std::panic!("{other:?}"),
            }
        };
        assert!(machine.remove(watched) && !machine.remove(watched));
        if function != "host_stage2_idmap" {
            assert_eq!(read(&machine), before, "{function}");
        }
        let stands = read(&machine);
        machine.resume(Resume {
            run: u64::MAX,
            step: Some(stop),
        });
        assert_eq!(machine.run_steps(1), Some(Stop::Step { cpu: stop }));
        assert_ne!(read(&machine), stands, "{function}");
        machine.resume(ALL_CPUS);
    }
    machine.insert(watch(slot, WatchKind::Write)).unwrap();
    assert_eq!(machine.let_go(), 1);
}

/// Nobody foresees it: the CPU stops behind the write.
#[test]
fn a_lock_that_is_released_is_seen() {
    let mut machine = Machine::start(4).unwrap();
    let lock = layout::HYP + layout::LINEAR_OFFSET;
    machine
        .insert(Breakpoint::Watch {
            va: lock,
            size: 4,
            kind: WatchKind::Write,
        })
        .unwrap();
    let owner = |machine: &Machine| lock_word(machine, layout::HYP)[0];
    for _ in 0..100 {
        let before = owner(&machine);
        let stop = machine.run_steps(10_000);
        assert!(matches!(stop, Some(Stop::Watch { .. })), "{stop:?}");
        let releases = owner(&machine).wrapping_sub(before);
        assert!(releases <= 1, "{releases} at one stop");
    }
    assert_ne!(owner(&machine), 0, "nobody has released it");
}

#[test]
fn exceptions_leave_their_syndrome() {
    let mut machine = Machine::start(4).unwrap();
    machine
        .insert(Breakpoint::Software {
            va: layout::Function::HandleHostMemAbort.address(),
        })
        .unwrap();
    let Some(Stop::Breakpoint { cpu }) = machine.run_steps(10_000) else {
        std::panic!("no abort in 10000 steps");
    };
    let register = |system| machine.register(cpu, Register::System(system)).unwrap();
    let esr = register(System::ESR_EL2);
    assert_eq!(esr >> 26, 0x24, "data abort from a lower level");
    assert_eq!(esr & 0x3c, 0x04, "translation fault");
    let ipa = register(System::HPFAR_EL2) << 8 | register(System::FAR_EL2) & 0xfff;
    assert_eq!(ipa, register(System::FAR_EL2), "the host's MMU is off");
    let entry = walk::lookup(&machine, Regime::HostS2, ipa);
    assert_eq!(entry.output(ipa), None);
    assert_eq!(u64::from(entry.level), esr & 3);
    assert_eq!(register(System::SPSR_EL2) >> 2 & 3, 1);
    let elr = register(System::ELR_EL2);
    assert_eq!(
        machine.facts().symbol_at(elr).map(|s| s.name),
        Some("host_touch")
    );
}

#[test]
fn virtual_addresses_are_those_of_the_cpus_regime() {
    let machine = Machine::start(4).unwrap();
    let at = |level: u64| {
        (0..4).find(|&cpu| machine.register(cpu, Register::Cpsr).unwrap() >> 2 & 3 == level)
    };
    let (host, hyp) = (at(1).unwrap(), at(2).unwrap());
    let va = layout::HYP + layout::LINEAR_OFFSET;
    assert_eq!(machine.translate(hyp, va), Some(layout::HYP));
    assert_eq!(machine.translate(host, va), None, "no RAM there");
    assert_eq!(machine.translate(host, layout::HYP), None, "not the host's");
    assert_eq!(machine.translate(host, 0x4700_0008), Some(0x4700_0008));
    assert_eq!(machine.translate(hyp, 0x4700_0008), None);
    assert_eq!(machine.translate(9, va), None);
}

#[test]
fn what_the_simulation_computes_cannot_be_written() {
    let mut machine = Machine::start(2).unwrap();
    let set = |machine: &mut Machine, cpu| machine.set_register(cpu, Register::X(0), 1);
    assert_eq!(set(&mut machine, 0), Err(Refused::ReadOnly));
    assert_eq!(set(&mut machine, 2), Err(Refused::Missing));
    for (pa, answer) in [
        (layout::HYP, Err(Refused::ReadOnly)),
        (layout::HYP - 4, Err(Refused::ReadOnly)),
        (layout::HYP + layout::HYP_SIZE, Ok(())),
        (layout::RAM.base, Ok(())),
        (layout::RAM.end() - 7, Err(Refused::Unmapped)),
        (0x0900_0000, Err(Refused::Unmapped)),
        (u64::MAX - 3, Err(Refused::Unmapped)),
    ] {
        assert_eq!(machine.write_phys(pa, &[0xaa; 8]), answer, "{pa:#x}");
    }
    assert_eq!(machine.read_phys(0x0900_0000, &mut [0; 8]), 0);
}

#[test]
fn dropping_a_machine_ends_its_threads() {
    let mut machine = Machine::start(4).unwrap();
    let shared = Arc::downgrade(&machine.shared);
    // CPUs are everywhere: at EL1, waiting for locks, holding them in the middle of the library.
    machine.run_steps(321);
    drop(machine);
    assert!(shared.upgrade().is_none(), "a thread still has it");
}

/// Overwrites an entry of a machine's host stage 2 and returns what the monitor says there.
fn damage(machine: &mut Machine, slot: u64, word: u64) -> String {
    machine.write_phys(slot, &word.to_le_bytes()).unwrap();
    ask(machine, "s2")
}

#[test]
fn damaged_tables_are_shown_and_do_not_stop_the_machine() {
    let mut machine = Machine::start(4).unwrap();
    let root = machine.facts().host_s2.root;
    // Entries 4 to 6 cover addresses behind RAM, which the host never touches.
    let self_reference = damage(&mut machine, root + 5 * 8, root | 3);
    assert!(self_reference.contains("LOOP"), "{self_reference}");
    let unbacked = damage(&mut machine, root + 6 * 8, 0x9000_0003);
    assert!(
        unbacked.contains("UNREADABLE table at 0x90000000"),
        "{unbacked}"
    );
    // The last page of hyp's pools is the host's business no more than they are.
    let level_2 = machine.read_word(root + 8) & walk::ADDRESS;
    let level_3 = machine.read_word(level_2 + 8) & walk::ADDRESS;
    let reserved = damage(&mut machine, level_3 + 0x11f * 8, 0x4031_f7fd);
    assert!(reserved.contains("RESERVED 0x4031f7fd"), "{reserved}");
    assert_eq!(machine.run_steps(4000), None);
    let after = ask(&machine, "s2");
    for mark in ["LOOP", "UNREADABLE", "RESERVED"] {
        assert!(after.contains(mark), "{mark} is gone:\n{after}");
    }
    assert!(after.contains("shared-borrowed"), "other rows still print");
}

/// How often it has happened.
fn count(machine: &Machine, name: &str) -> u64 {
    let stats = machine.shared.stats.lock();
    let found = stats.iter().find(|(event, _)| *event == name);
    found.unwrap_or_else(|| std::panic!("{name}: {stats:?}")).1
}

#[test]
fn cpus_that_race_for_a_page_map_it_once() {
    let mut machine = Machine::start_scene(4, Scene::Race).unwrap();
    assert_eq!(machine.run_steps(500), None);
    let mapped = count(&machine, Event::AbortMapped.name());
    let late = count(&machine, Event::AbortAlreadyMapped.name());
    let rounds = machine.shared.met.load(Ordering::Relaxed) / 4;
    assert!(rounds > 2 && late > 2, "{rounds} rounds, {late} late");
    // The round that they are in may not have been mapped yet.
    assert!(
        (rounds - 1..=rounds).contains(&mapped),
        "{mapped} of {rounds}"
    );
}

#[test]
fn code_is_mapped_where_it_is_the_hosts_and_refused_where_it_is_hyps() {
    let mut machine = Machine::start_scene(2, Scene::Fetch).unwrap();
    machine
        .insert(Breakpoint::Software {
            va: layout::Function::HandleHostMemAbort.address(),
        })
        .unwrap();
    let (mut own, mut hyps) = (0, 0);
    for _ in 0..8 {
        let Some(Stop::Breakpoint { cpu }) = machine.run_steps(10_000) else {
            std::panic!("no abort in 10000 steps");
        };
        let register = |system| machine.register(cpu, Register::System(system)).unwrap();
        assert_eq!(register(System::ESR_EL2) >> 26, 0x20);
        // What is to be executed is what the exception returns to.
        let (far, elr) = (register(System::FAR_EL2), register(System::ELR_EL2));
        assert_eq!(far, elr);
        match far == layout::SECTIONS[0].1.base {
            true => hyps += 1,
            false => own += 1,
        }
    }
    assert_eq!((own, hyps), (4, 4));
    assert_eq!(count(&machine, Event::AbortAlreadyMapped.name()), 0);
}

#[test]
fn a_panic_of_hyp_stops_the_machine_in_hyp_panic() {
    let mut machine = Machine::start(4).unwrap();
    let root = machine.facts().host_s2.root;
    // All of RAM behind a table that is not there: the next abort or share reads it.
    damage(&mut machine, root + 8, 0x9000_0003);
    let Some(Stop::Panic { cpu }) = machine.run_steps(10_000) else {
        std::panic!("nobody noticed in 10000 steps");
    };
    let pc = machine.register(cpu, Register::Pc).unwrap();
    assert_eq!(
        machine.facts().symbol_at(pc).map(|s| s.name),
        Some("hyp_panic")
    );
    let dead = Register::all()
        .map(|r| machine.register(cpu, r))
        .collect::<Vec<_>>();
    machine.run_steps(500);
    let later = Register::all()
        .map(|r| machine.register(cpu, r))
        .collect::<Vec<_>>();
    assert_eq!(dead, later, "it does not run again");
}
