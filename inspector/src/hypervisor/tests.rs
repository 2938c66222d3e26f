mod memory_only;
mod parked;

use super::*;
use crate::image::tests::elf_file::{Program, Type};
use crate::model::{EntryKind, JointOwner, Owner, State};
use crate::target::testing::from_pages;
use crate::target::{ReadError, Registers};
use std::collections::BTreeMap;

const RAM: Span = Span {
    start: 0x4000_0000,
    size: 0x100_0000,
};
/// VA − PA of EL2's linear range.
const LINEAR: u64 = 0x40_0000_0000;
const VAR: u64 = 0x4030_0000;
const RECORDS: u64 = 0x4030_8000;
const REGIONS: u64 = 0x4030_9000;
const SECTIONS: u64 = 0x4030_a000;
const RELEASE: u64 = 0x4030_b000;
const HOST_ROOT: u64 = 0x4031_0000;
const HYP_ROOT: u64 = 0x4031_2000;
const POOL: u64 = HOST_ROOT;
const POOL_PAGES: u64 = 16;

/// A machine as small as can be: two CPUs, both regimes, and `HYP`.
#[derive(Clone)]
struct Machine {
    pages: BTreeMap<u64, Vec<u8>>,
    next_table: u64,
    registers: Registers,
    description: Option<String>,
    notes: Option<String>,
}

impl Machine {
    /// hyp keeps its pool, borrows 0x40001000, and lends 0x40002000; it has a stack outside the
    /// linear range; the host touched 0x40000000 and a device.
    fn new() -> Self {
        let registers = [
            ("HCR_EL2", 0x8000_0001),
            ("VTCR_EL2", 0x8002_3558),
            ("VTTBR_EL2", HOST_ROOT),
            ("TCR_EL2", 0x8082_3519),
            ("TTBR0_EL2", HYP_ROOT | 1),
            ("MAIR_EL2", 0x04ff),
            ("cpsr", 0x3c9),
            ("pc", LINEAR + 0x4020_0040),
        ];
        let mut machine = Self {
            pages: BTreeMap::new(),
            next_table: HYP_ROOT + 0x1000,
            registers: Registers(
                registers
                    .map(|(name, value)| (name.to_owned(), value))
                    .into(),
            ),
            description: Some(description()),
            notes: None,
        };
        for (ia, word) in [
            (0x0900_0000, 0x0040_0000_0900_07ff),
            (0x4000_0000, 0x4000_07ff),
            (0x4000_1000, 0x0080_0000_4000_17ff),
            (0x4000_2000, 0x0100_0000_4000_27ff),
        ] {
            machine.map(HOST_ROOT, ia, word);
        }
        for (va, word) in [
            (LINEAR + 0x4000_1000, 0x0140_0000_4000_1743),
            (LINEAR + 0x4000_2000, 0x00c0_0000_4000_27c3),
            // A stack of hyp: private, does not count.
            (0x10_0000_0000, 0x0040_0000_4000_5743),
        ] {
            machine.map(HYP_ROOT, va, word);
        }
        for page in 0..POOL_PAGES {
            let pa = POOL + page * 0x1000;
            machine.map(HOST_ROOT, pa, 4);
            machine.map(HYP_ROOT, LINEAR + pa, 0x0040_0000_0000_0743 | pa);
        }
        machine.write_variable();
        machine
    }

    /// `HYP` as [`program`] lays it out, and what its slices point to.
    fn write_variable(&mut self) {
        self.put(VAR, &[b'A', 1]);
        self.put(VAR + 8, &0xffff_ffc0_0000_0000_u64.to_le_bytes());
        for (at, pa, count) in [
            (0x10, REGIONS, 1_u64),
            (0x20, SECTIONS, 1),
            (0x30, RELEASE, 5),
            (0x50, RECORDS, POOL_PAGES),
        ] {
            self.put(VAR + at, &(LINEAR + pa).to_le_bytes());
            self.put(VAR + at + 8, &count.to_le_bytes());
        }
        self.put(VAR + 0x40, &POOL.to_le_bytes());
        self.put(VAR + 0x48, &POOL_PAGES.to_le_bytes());
        self.put(VAR + 0x60, &HOST_ROOT.to_le_bytes());
        self.put(VAR + 0x68, &HYP_ROOT.to_le_bytes());
        // Ticket 5 is served, 6 waits; CPU 1 took it at share+0x10.
        self.put(VAR + 0x80, &[5, 0, 7, 0, 1, 0, 0, 0]);
        self.put(VAR + 0x88, &(LINEAR + 0x4020_0050).to_le_bytes());
        self.put(VAR + 0x94, &[0xff; 4]);
        self.put(REGIONS, &RAM.start.to_le_bytes());
        self.put(REGIONS + 8, &RAM.size.to_le_bytes());
        self.put(SECTIONS, &[6]);
        self.put(SECTIONS + 8, &0x4000_2000_u64.to_le_bytes());
        self.put(SECTIONS + 16, &0x1000_u64.to_le_bytes());
        self.put(RELEASE, b"0.1.0");
        self.put(RECORDS, &[4, 0]);
    }

    fn map(&mut self, root: u64, ia: u64, word: u64) {
        let mut table = root + (ia >> 39) * 0x1000;
        for shift in [30, 21] {
            let at = table + (ia >> shift & 0x1ff) * 8;
            if self.word(at) == 0 {
                self.put(at, &(self.next_table | 3).to_le_bytes());
                self.next_table += 0x1000;
            }
            table = self.word(at) & 0x0000_ffff_ffff_f000;
        }
        self.put(table + (ia >> 12 & 0x1ff) * 8, &word.to_le_bytes());
    }

    fn word(&self, pa: u64) -> u64 {
        let page = self.pages.get(&(pa & !0xfff));
        let bytes = page.and_then(|page| page[(pa & 0xfff) as usize..].first_chunk());
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    fn put(&mut self, pa: u64, bytes: &[u8]) {
        let page = self
            .pages
            .entry(pa & !0xfff)
            .or_insert_with(|| vec![0; 4096]);
        let start = (pa & 0xfff) as usize;
        page[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn capture(&mut self, images: &mut Images) -> System {
        capture(self, images).expect("the link holds")
    }
}

impl Target for Machine {
    fn name(&self) -> &str {
        "machine"
    }

    fn cpu_count(&mut self) -> Result<usize, TargetError> {
        Ok(2)
    }

    fn registers(&mut self, _: usize) -> Result<Registers, TargetError> {
        Ok(self.registers.clone())
    }

    fn ram(&mut self) -> Result<Option<Vec<Span>>, TargetError> {
        Ok(Some(vec![RAM]))
    }

    fn read_phys(
        &mut self,
        requests: &[Span],
    ) -> Result<Vec<Result<Vec<u8>, ReadError>>, TargetError> {
        let read = |span: &Span| {
            if !RAM.covers(*span) {
                return Err(ReadError::Unbacked(*span));
            }
            Ok(from_pages(&self.pages, *span))
        };
        Ok(requests.iter().map(read).collect())
    }

    fn description(&mut self) -> Result<Option<String>, TargetError> {
        Ok(self.description.clone())
    }

    fn saved_symbols(&mut self) -> Result<Option<String>, TargetError> {
        Ok(self.notes.clone())
    }
}

fn description() -> String {
    let lock = |name: &str, path: &str, pa: u64| {
        format!(r#"{{"name":"{name}","symbol":"{path}","pa":"{pa:#x}"}}"#)
    };
    let pool = |name: &str| {
        format!(
            r#"{{"name":"{name}","base":"{POOL:#x}","pages":{POOL_PAGES},"records":"{RECORDS:#x}","record_size":2}}"#
        )
    };
    format!(
        r#"{{"format":"hyp.description/1","release":"0.1.0","layout":{{"profile":"A"}},"granule":4096,
        "physvirt_offset":"0xffffffc000000000","later":"is ignored",
        "regimes":[{{"name":"host-s2","root":"{HOST_ROOT:#x}","vtcr":"0x80023558"}},
                   {{"name":"hyp-s1","root":"{HYP_ROOT:#x}","tcr":"0x80823519","mair":"0x4ff"}}],
        "ram":[{{"base":"0x40000000","size":16777216}}],
        "sections":[{{"name":"host-rodata","base":"0x40002000","size":4096}}],
        "locks":[{},{},{},{}],"pools":[{},{}],
        "symbols":[{{"name":"HYP","address":"0x4040300000","size":256}},
                   {{"name":"share","address":"0x4040200040","size":64}}]}}"#,
        lock("host", "HYP.host.lock", VAR + 0x80),
        lock("hyp", "HYP.hyp.lock", VAR + 0x90),
        lock("host-pool", "HYP.host.pool.lock", VAR + 0xa0),
        lock("hyp-pool", "HYP.hyp.pool.lock", VAR + 0xb0),
        pool("host-pool"),
        pool("hyp-pool"),
    )
}

fn program() -> Program {
    let word = || Type::Number(8);
    let range = || {
        Type::record(
            "PageRange",
            16,
            vec![
                ("base", 0, Type::record("Pa", 8, vec![("__0", 0, word())])),
                ("size", 8, word()),
            ],
        )
    };
    let kinds = [
        "Text",
        "Rodata",
        "Data",
        "Bss",
        "Stacks",
        "Pools",
        "HostRodata",
    ];
    let kinds = kinds.map(str::to_owned).into_iter().zip(0..).collect();
    let section = Type::record(
        "Section",
        24,
        vec![("kind", 0, Type::Enum(kinds)), ("range", 8, range())],
    );
    let record = Type::record("PageRecord", 2, vec![("refcount", 0, Type::Number(2))]);
    let lock = || {
        Type::record(
            "TicketLock",
            16,
            vec![
                ("tickets", 0, Type::Number(4)),
                ("holder", 4, Type::Number(4)),
                ("taker", 8, word()),
            ],
        )
    };
    // Both sides share one pool here, and overlap so that one layout serves both.
    let side = |root: u64, at: u64| {
        let pool = Type::record(
            "Pool",
            0x100,
            vec![
                ("base", 0x40, word()),
                ("pages", 0x48, word()),
                ("records", 0x50, Type::slice(record.clone())),
                ("lock", at + 0x20, lock()),
            ],
        );
        let table = Type::record(
            "PageTable",
            0x100,
            vec![("root", root, word()), ("ia_bits", 0, Type::Number(1))],
        );
        Type::record(
            "Component",
            0x100,
            vec![("pgt", 0, table), ("pool", 0, pool), ("lock", at, lock())],
        )
    };
    let hyp = Type::record(
        "Hyp",
        0x100,
        vec![
            ("profile", 0, Type::Enum(vec![("A".to_owned(), 0x41)])),
            ("finalised", 1, Type::Number(1)),
            ("physvirt_offset", 8, word()),
            ("regions", 0x10, Type::slice(range())),
            ("sections", 0x20, Type::slice(section)),
            ("release", 0x30, Type::slice(Type::Number(1))),
            ("host", 0, side(0x60, 0x80)),
            ("hyp", 0, side(0x68, 0x90)),
        ],
    );
    Program {
        segments: vec![(LINEAR + 0x4020_0000, 0x4020_0000, 0x20_0000)],
        symbols: vec![
            ("share".to_owned(), LINEAR + 0x4020_0040, 64),
            ("HYP".to_owned(), LINEAR + VAR, 0x100),
        ],
        variables: vec![("HYP".to_owned(), hyp)],
        ..Program::default()
    }
}

fn images(program: &Program) -> Images {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), program.elf()).expect("a temporary file");
    Images::open(&[file.path().to_owned()]).expect("a sound file")
}

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

/// Damage to one word of a level-3 table: the row says so, and all other rows are as before.
#[test]
fn damage_is_marked_and_the_rest_is_shown() {
    let sound = Machine::new().capture(&mut Images::default());
    let slot = 0x4080_0000;
    let mut probe = Machine::new();
    probe.map(HOST_ROOT, slot, 1);
    let table = |ia: u64| {
        let first = probe.word(HOST_ROOT + (ia >> 30) * 8) & 0x0000_ffff_ffff_f000;
        first + (ia >> 21 & 0x1ff) * 8
    };
    for (word, kind) in [
        (table(slot) & !0xfff | 3, EntryKind::Loop),
        (0x7_0000_0003, EntryKind::Unreadable),
        (0x4080_0000 | 1 << 50 | 0x7fd, EntryKind::Block),
    ] {
        let mut machine = Machine::new();
        machine.put(table(slot), &u64::to_le_bytes(word));
        let system = machine.capture(&mut Images::default());
        let marked: Vec<_> = system.regimes[0]
            .entries
            .iter()
            .filter(|entry| entry.leaf.ia == slot)
            .collect();
        assert_eq!(
            marked.iter().map(|entry| entry.kind).collect::<Vec<_>>(),
            [kind],
            "{word:#x}"
        );
        assert_eq!(system.complete, kind == EntryKind::Block, "{word:#x}");
        let others: Vec<_> = system.regimes[0]
            .entries
            .iter()
            .filter(|entry| entry.leaf.ia != slot)
            .cloned()
            .collect();
        assert_eq!(others, sound.regimes[0].entries);
    }
    let mut machine = Machine::new();
    machine.map(HOST_ROOT, 0x4000_3000, 1);
    let system = machine.capture(&mut Images::default());
    assert_eq!(system.regimes[0].entries[4].kind, EntryKind::Reserved);
    assert!(!system.complete);
}

/// What stands in no row of the table of legal states has no rule.
#[test]
fn illegal_joint_states_have_no_rule() {
    let pa = 0x4000_3000;
    let host = |word: u64| (HOST_ROOT, pa, word);
    let hyp = |word: u64| (HYP_ROOT, LINEAR + pa, word);
    for (words, expected) in [
        // Both claim it.
        (
            vec![host(0x4000_37ff), hyp(0x0040_0000_4000_3743)],
            "conflict owned owned -",
        ),
        (vec![hyp(0x0040_0000_4000_3743)], "conflict owned owned -"),
        (
            vec![host(0x0080_0000_4000_37ff), hyp(0x00c0_0000_4000_3743)],
            "conflict shared-owned shared-owned -",
        ),
        // Neither does.
        (vec![host(4)], "none no-page no-page -"),
        (vec![host(8)], "none no-page no-page -"),
        (vec![host(1)], "none no-page no-page -"),
        (
            vec![host(0x0100_0000_4000_37ff), hyp(0x0140_0000_4000_3743)],
            "none shared-borrowed shared-borrowed -",
        ),
        // The annotation is another's.
        (
            vec![host(8), hyp(0x0040_0000_4000_3743)],
            "hyp no-page owned -",
        ),
        // Lent to nobody.
        (
            vec![host(0x0080_0000_4000_37ff)],
            "host shared-owned no-page -",
        ),
        (vec![host(0x0180_0000_4000_37ff)], "none reserved no-page -"),
        // hyp's leaf in the linear range maps another page.
        (vec![hyp(0x0040_0000_4000_4743)], "host owned no-page J1"),
    ] {
        let mut machine = Machine::new();
        for (root, ia, word) in words {
            machine.map(root, ia, word);
        }
        let system = machine.capture(&mut Images::default());
        let text = owners_text(&system);
        let line = text
            .lines()
            .find(|line| line.starts_with("0x40003000 "))
            .unwrap_or(&text);
        // The page may have merged with the rest of the host's.
        let states = line.splitn(3, ' ').nth(2);
        assert_eq!(states, Some(expected));
    }
}

#[test]
fn an_unreadable_table_makes_its_pages_unknown() {
    let mut machine = Machine::new();
    machine.put(HOST_ROOT + 8, &0x7_0000_0003_u64.to_le_bytes());
    let system = machine.capture(&mut Images::default());
    let unknown = system
        .owners
        .iter()
        .all(|range| range.owner == JointOwner::Unknown);
    assert!(unknown && !system.owners.is_empty());
    assert!(system.owners.iter().all(|range| range.rule.is_none()));
}

#[test]
fn descriptions_that_are_not_ours_are_refused() {
    for (text, message) in [
        ("", "EOF while parsing"),
        ("[]", "invalid"),
        (
            &description().replace("description/1", "description/2")[..],
            "its format is `hyp.description/2`",
        ),
        (
            &description().replace("0x40000000", "everywhere")[..],
            "`everywhere` is not an address",
        ),
    ] {
        let mut machine = Machine::new();
        machine.description = Some(text.to_owned());
        let system = machine.capture(&mut Images::default());
        assert_eq!(system.hypervisor.kind, HypervisorKind::None);
        assert!(
            system.problems[0].contains(message),
            "{:?}",
            system.problems
        );
    }
}

/// A description is the machine's word, and machines lie.
#[test]
fn absurd_sizes_end_in_a_sentence() {
    let mut machine = Machine::new();
    machine.description =
        Some(description().replace("\"pages\":16", "\"pages\":18446744073709551615"));
    let system = machine.capture(&mut Images::default());
    assert!(
        system
            .problems
            .iter()
            .any(|problem| problem.contains("too many to be true"))
    );
    let whole =
        r#"[{"base":"0x0","size":18446744073709551615},{"base":"0x40000000","size":16777216}]"#;
    machine.description =
        Some(description().replace(r#"[{"base":"0x40000000","size":16777216}]"#, whole));
    let system = machine.capture(&mut Images::default());
    assert_eq!(system.ram.len(), 1);
    let covered: u128 = system
        .owners
        .iter()
        .map(|range| u128::from(range.pa.size))
        .sum();
    assert_eq!(covered, u128::from(u64::MAX));

    let mut machine = Machine::new();
    machine.put(VAR + 0x18, &u64::MAX.to_le_bytes());
    let system = machine.capture(&mut images(&program()));
    assert!(
        system
            .problems
            .iter()
            .any(|problem| problem.contains("`HYP.regions` has 18446744073709551615 elements"))
    );
    assert_eq!(system.hypervisor.kind, HypervisorKind::Hyp);
}
