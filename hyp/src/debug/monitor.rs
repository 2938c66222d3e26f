//! Monitor commands: what hyp can say in words (`monitor help` in gdb).

use super::owners::{Joint, Side, owners};
use super::registers::{Register, System, from_le};
use super::walk::{self, Entry, Kind, Regime};
use super::{Facts, Inferior, PAGE, Pool, Region};
use core::fmt::{self, Write};

/// Carries out one command line and writes its answer. What is wrong with the line is part of the
/// answer.
///
/// # Errors
/// The writer's own.
pub fn run(inferior: &impl Inferior, line: &[u8], out: &mut impl Write) -> fmt::Result {
    let Ok(line) = str::from_utf8(line) else {
        return writeln!(out, "that is not UTF-8; try `monitor help`");
    };
    let mut words = line.split_ascii_whitespace();
    let command = words.next().unwrap_or("help");
    let argument = words.next();
    if words.next().is_some() {
        return writeln!(out, "{command}: too many words; try `monitor help`");
    }
    match (command, argument) {
        ("help", None) => out.write_str(HELP),
        ("s2", range) => match parse_range(range) {
            Ok(range) => write_s2(inferior, range, out),
            Err(reason) => reason.write("s2", out),
        },
        ("owners", range) => match parse_range(range) {
            Ok(range) => write_owners(inferior, range, out),
            Err(reason) => reason.write("owners", out),
        },
        ("page", Some(address)) => match parse_number(address) {
            Ok(pa) => write_page(inferior, page_of(pa).base, out),
            Err(reason) => reason.write("page", out),
        },
        ("page", None) => writeln!(out, "page: which one? `monitor page 0x48000000`"),
        ("locks", None) => write_locks(inferior, out),
        ("cpus", None) => write_cpus(inferior, out),
        ("stats", None) => write_stats(inferior, out),
        ("help" | "locks" | "cpus" | "stats", Some(argument)) => {
            writeln!(out, "{command} takes no argument, not {argument}")
        }
        _ => writeln!(out, "{command}: no such command; try `monitor help`"),
    }
}

const HELP: &str = "\
help             this list
s2 [RANGE]       the host's stage 2, merged into runs
owners [RANGE]   who owns RAM, and what each side says
page ADDR        everything about one physical page
locks            every lock: tickets, holder, waiters
cpus             every CPU: exception level, pc, translation registers
stats            counters
RANGE is A..B or one address; numbers are decimal or 0x…
Files: hyp/description hyp/physmem hyp/tables/host-s2 hyp/tables/hyp-s1 hyp/stats (`remote get FILE TO`)
";

/// What is wrong with an argument.
#[derive(Clone, Copy, Debug)]
enum BadArgument<'a> {
    Number(&'a str),
    Order(&'a str),
}

impl BadArgument<'_> {
    fn write(self, command: &str, out: &mut impl Write) -> fmt::Result {
        match self {
            Self::Number(text) => {
                writeln!(out, "{command}: {text} is no address; write 0x48000000")
            }
            Self::Order(text) => {
                writeln!(
                    out,
                    "{command}: {text} is empty; write 0x48000000..0x48200000"
                )
            }
        }
    }
}

fn parse_number(text: &str) -> Result<u64, BadArgument<'_>> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
    .map_err(|_| BadArgument::Number(text))
}

/// `A..B`, or `A` for the page of that address, or nothing for everything.
fn parse_range(text: Option<&str>) -> Result<Region, BadArgument<'_>> {
    let Some(text) = text else {
        return Ok(Region::ALL);
    };
    let Some((start, end)) = text.split_once("..") else {
        return Ok(page_of(parse_number(text)?));
    };
    let (base, end) = (parse_number(start)?, parse_number(end)?);
    if base >= end {
        return Err(BadArgument::Order(text));
    }
    let size = end - base;
    Ok(Region { base, size })
}

fn page_of(address: u64) -> Region {
    Region {
        base: address & !(PAGE - 1),
        size: PAGE,
    }
}

fn write_s2(inferior: &impl Inferior, range: Region, out: &mut impl Write) -> fmt::Result {
    let mut ia = range.base;
    let end = range.end();
    let mut run: Option<(Entry, u64)> = None;
    while ia < end {
        let entry = walk::lookup(inferior, Regime::HostS2, ia);
        ia = entry.end();
        match &mut run {
            Some((first, last)) if continues(first, *last, &entry) => *last = entry.end(),
            _ => {
                if let Some((first, last)) = run.replace((entry, entry.end())) {
                    write_run(&first, last, out)?;
                }
            }
        }
    }
    match run {
        Some((first, last)) => write_run(&first, last, out),
        None => Ok(()),
    }
}

/// Whether `next` goes on where a run ended and differs from its first entry in nothing but addresses.
fn continues(first: &Entry, end: u64, next: &Entry) -> bool {
    let attributes = |entry: &Entry| match entry.kind {
        Kind::Block | Kind::Page => entry.raw & !walk::ADDRESS,
        _ => entry.raw,
    };
    let offset = next.ia.wrapping_sub(first.ia);
    let output = |entry: &Entry| entry.output(entry.ia);
    next.ia == end
        && (first.kind, first.level) == (next.kind, next.level)
        && attributes(first) == attributes(next)
        && output(next) == output(first).map(|pa| pa.wrapping_add(offset))
}

fn write_run(first: &Entry, end: u64, out: &mut impl Write) -> fmt::Result {
    if matches!(first.kind, Kind::Empty | Kind::OutOfRange) {
        return Ok(());
    }
    let count = (end - first.ia) / first.size;
    write!(
        out,
        "{:#014x}..{end:#014x} level {} ",
        first.ia, first.level
    )?;
    write_entry(first, out)?;
    if count > 1 {
        write!(out, " x{count}")?;
    }
    writeln!(out)
}

/// Kind, rights, state and raw word of an entry of the host's stage 2.
fn write_entry(entry: &Entry, out: &mut impl Write) -> fmt::Result {
    let raw = entry.raw;
    match entry.kind {
        Kind::Empty => out.write_str("empty"),
        Kind::OutOfRange => out.write_str("beyond the input size"),
        // Profile A: the owner's id is in bits 9:2.
        Kind::Invalid => match raw >> 2 & 0xff {
            1 if raw == 4 => write!(out, "annotation owner hyp {raw:#x}"),
            _ => write!(out, "invalid {raw:#x}"),
        },
        Kind::Reserved => write!(out, "RESERVED {raw:#x}"),
        Kind::Loop => write!(
            out,
            "LOOP: the table at {:#x} is above itself",
            raw & walk::ADDRESS
        ),
        Kind::Unreadable => write!(out, "UNREADABLE table at {:#x}", raw & walk::ADDRESS),
        Kind::Block | Kind::Page => {
            // S2AP[0] read, S2AP[1] write, XN[1] not executable.
            let right = |bit: u32, letter| if raw >> bit & 1 == 1 { letter } else { '-' };
            let execute = if raw >> 54 & 1 == 0 { 'x' } else { '-' };
            write!(
                out,
                "{} {}{}{} {} {raw:#x}",
                if entry.kind == Kind::Page {
                    "page"
                } else {
                    "block"
                },
                right(6, 'r'),
                right(7, 'w'),
                execute,
                Side::of(entry, Side::Owned),
            )
        }
    }
}

fn write_owners(inferior: &impl Inferior, range: Region, out: &mut impl Write) -> fmt::Result {
    let mut result = Ok(());
    owners(inferior, range, |joint| {
        result = write_joint(joint, out);
        result.is_ok()
    });
    result
}

fn write_joint(joint: &Joint, out: &mut impl Write) -> fmt::Result {
    writeln!(
        out,
        "{:#014x}..{:#014x} {:8} host {:15} hyp {}",
        joint.pa,
        joint.pa.saturating_add(joint.size),
        joint.owner(),
        joint.host,
        joint.hyp,
    )
}

fn write_page(inferior: &impl Inferior, pa: u64, out: &mut impl Write) -> fmt::Result {
    let facts = inferior.facts();
    writeln!(out, "page {pa:#x}")?;
    if facts.is_ram(pa) {
        write_owners(inferior, page_of(pa), out)?;
    } else {
        writeln!(out, "not RAM")?;
    }
    let entry = walk::lookup(inferior, Regime::HostS2, pa);
    write!(out, "host-s2 level {} ", entry.level)?;
    write_entry(&entry, out)?;
    let va = facts.hyp_va(pa);
    let entry = walk::lookup(inferior, Regime::HypS1, va);
    write!(out, "\nhyp-s1 at {va:#x} level {} ", entry.level)?;
    writeln!(out, "{} {:#x}", Side::of(&entry, Side::NoPage), entry.raw)?;
    for section in facts.sections.iter().filter(|s| s.region.contains(pa)) {
        writeln!(out, "section {}", section.name)?;
    }
    for pool in facts.pools.iter().filter(|p| p.region().contains(pa)) {
        match reference_count(inferior, pool, pa) {
            Some(count) => writeln!(out, "{} page, references {count}", pool.name)?,
            None => writeln!(out, "{} page, its record is unreadable", pool.name)?,
        }
    }
    Ok(())
}

fn reference_count(inferior: &impl Inferior, pool: &Pool<'_>, pa: u64) -> Option<u64> {
    let index = (pa - pool.base) / PAGE;
    let at = pool
        .records
        .checked_add(index.checked_mul(pool.record_size)?)?;
    let mut count = [0; 2];
    (inferior.read_phys(at, &mut count) == 2).then(|| from_le(&count))
}

/// What is said of a CPU whose registers cannot be read.
pub(super) const NOT_STOPPED: &str = "off or running";

/// The address of no CPU in a lock's holder.
const NO_CPU: u64 = 0xffff_ffff;

fn write_locks(inferior: &impl Inferior, out: &mut impl Write) -> fmt::Result {
    let facts = inferior.facts();
    for lock in facts.locks {
        write!(out, "{:9} {:#x} ", lock.name, lock.pa)?;
        // +0 owner, +2 next, +4 holder's CPU, +8 where it was taken.
        let mut word = [0; 16];
        if inferior.read_phys(lock.pa, &mut word) != word.len() {
            writeln!(out, "unreadable")?;
            continue;
        }
        let [owner, next] = [&word[0..2], &word[2..4]].map(from_le);
        let [cpu, taker] = [&word[4..8], &word[8..16]].map(from_le);
        write!(out, "owner {owner} next {next} ")?;
        if owner == next {
            writeln!(out, "free")?;
            continue;
        }
        let waiters = (next.wrapping_sub(owner) & 0xffff) - 1;
        write!(out, "held, waiters {waiters}")?;
        if cpu == NO_CPU {
            // Between taking the ticket and recording who took it.
            writeln!(out, ", holder not recorded yet")?;
        } else {
            write!(out, ", by CPU {cpu} at ")?;
            write_symbol(&facts, taker, out)?;
            writeln!(out)?;
        }
    }
    Ok(())
}

fn write_symbol(facts: &Facts<'_>, va: u64, out: &mut impl Write) -> fmt::Result {
    write!(out, "{va:#x}")?;
    match facts.symbol_at(va) {
        Some(symbol) => write!(out, " {}+{:#x}", symbol.name, va - symbol.address),
        None => Ok(()),
    }
}

fn write_cpus(inferior: &impl Inferior, out: &mut impl Write) -> fmt::Result {
    let facts = inferior.facts();
    for cpu in 0..facts.cpus {
        write!(out, "CPU {cpu} ")?;
        match inferior.register(cpu, Register::Cpsr) {
            // PSTATE bits 3:2 hold the exception level.
            Some(cpsr) => write!(out, "EL{} ", cpsr >> 2 & 3)?,
            None => out.write_str(NOT_STOPPED)?,
        }
        if let Some(pc) = inferior.register(cpu, Register::Pc) {
            out.write_str("pc ")?;
            write_symbol(&facts, pc, out)?;
        }
        for system in [
            System::VTTBR_EL2,
            System::TTBR0_EL2,
            System::HCR_EL2,
            System::ESR_EL2,
            System::ELR_EL2,
        ] {
            if let Some(value) = inferior.register(cpu, Register::System(system)) {
                write!(out, " {system} {value:#x}")?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Writes the counters, one a line.
///
/// # Errors
/// The writer's own.
pub fn write_stats(inferior: &impl Inferior, out: &mut impl Write) -> fmt::Result {
    let mut result = Ok(());
    inferior.stats(&mut |name, value| {
        if result.is_ok() {
            result = writeln!(out, "{name}: {value}");
        }
    });
    result
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, HOST_LOCK, HOST_ROOT, RECORDS};
    use super::*;
    use proptest::prelude::*;
    use std::prelude::rust_2024::*;

    fn ask(fake: &Fake, line: &str) -> String {
        let mut text = String::new();
        run(fake, line.as_bytes(), &mut text).unwrap();
        text
    }

    #[test]
    fn help_names_every_command_and_every_name_in_it_is_one() {
        let fake = Fake::with_tables();
        let commands = ["help", "s2", "owners", "page", "locks", "cpus", "stats"];
        let listed: Vec<_> = HELP
            .lines()
            .map(|line| line.split(' ').next().unwrap())
            .take(commands.len())
            .collect();
        assert_eq!(listed, commands);
        for command in commands {
            assert!(
                !ask(&fake, command).contains("no such command"),
                "{command}"
            );
        }
        assert_eq!(ask(&fake, ""), HELP);
    }

    #[test]
    fn stage_2_is_shown_in_runs() {
        let mut fake = Fake::with_tables();
        fake.words.extend([
            (0x4010_3008, 0x4020_07fd),
            (0x4010_3010, 0x4040_07fd),
            (0x4010_4028, 0x4000_57fd),
            (HOST_ROOT + 24, HOST_ROOT | 3),
            (HOST_ROOT + 32, 0x9000_0003),
        ]);
        assert_eq!(
            ask(&fake, "s2"),
            "\
0x000040000000..0x000040001000 level 3 page rwx owned 0x400007ff
0x000040001000..0x000040002000 level 3 page rwx shared-owned 0x800000400017ff
0x000040002000..0x000040004000 level 3 annotation owner hyp 0x4 x2
0x000040004000..0x000040005000 level 3 page rwx shared-borrowed 0x1000000400047ff
0x000040005000..0x000040006000 level 3 RESERVED 0x400057fd
0x000040200000..0x000040600000 level 2 block rwx owned 0x402007fd x2
0x0000c0000000..0x000100000000 level 1 LOOP: the table at 0x40100000 is above itself
0x000100000000..0x000140000000 level 1 UNREADABLE table at 0x90000000
"
        );
        assert_eq!(
            ask(&fake, "s2 0x40001000..0x40002001"),
            "\
0x000040001000..0x000040002000 level 3 page rwx shared-owned 0x800000400017ff
0x000040002000..0x000040003000 level 3 annotation owner hyp 0x4
"
        );
        assert_eq!(ask(&fake, "s2 0x1000"), "", "nothing is mapped there");
    }

    #[test]
    fn owners_of_a_range() {
        assert_eq!(
            ask(&Fake::with_tables(), "owners 0x40001000..0x40005000"),
            "\
0x000040001000..0x000040002000 host     host shared-owned    hyp shared-borrowed
0x000040002000..0x000040004000 hyp      host no-page         hyp owned
0x000040004000..0x000040005000 hyp      host shared-borrowed hyp shared-owned
"
        );
    }

    #[test]
    fn one_page_is_told_from_every_side() {
        let mut fake = Fake::with_tables();
        assert_eq!(
            ask(&fake, "page 0x40002abc"),
            "\
page 0x40002000
0x000040002000..0x000040003000 hyp      host no-page         hyp owned
host-s2 level 3 annotation owner hyp 0x4
hyp-s1 at 0x4040002000 level 3 owned 0x40000040002743
section text
"
        );
        fake.words.insert(RECORDS, 0x0003_0002_0001);
        let page = ask(&fake, "page 0x40101000");
        assert!(page.ends_with("host-pool page, references 2\n"), "{page}");
        let device = ask(&fake, "page 0x9000000");
        assert!(device.contains("\nnot RAM\n"), "{device}");
    }

    #[test]
    fn locks_in_every_state() {
        let mut fake = Fake::new();
        let mut lock = |owner: u64, next: u64, cpu: u64, taker: u64| {
            fake.words.insert(HOST_LOCK, owner | next << 16 | cpu << 32);
            fake.words.insert(HOST_LOCK + 8, taker);
            ask(&fake, "locks")
        };
        let place = "host      0x40180000";
        assert_eq!(
            lock(7, 7, NO_CPU, 0),
            format!("{place} owner 7 next 7 free\n")
        );
        assert_eq!(
            lock(7, 9, 1, 0x40_4000_2104),
            format!(
                "{place} owner 7 next 9 held, waiters 1, by CPU 1 at 0x4040002104 share_hyp+0x4\n"
            )
        );
        assert_eq!(
            lock(0xffff, 0, NO_CPU, 0),
            format!("{place} owner 65535 next 0 held, waiters 0, holder not recorded yet\n"),
            "tickets wrap"
        );
        assert_eq!(
            lock(1, 2, 0, 0x10),
            format!("{place} owner 1 next 2 held, waiters 0, by CPU 0 at 0x10\n"),
            "no symbol there"
        );
    }

    #[test]
    fn cpus_and_stats() {
        let mut fake = Fake::new();
        fake.set(1, Register::Cpsr, 0x3c9);
        fake.set(1, Register::Pc, 0x40_4000_2100);
        fake.set(1, Register::System(System::VTTBR_EL2), 0x4010_0000);
        assert_eq!(
            ask(&fake, "cpus"),
            "CPU 0 off or running\nCPU 1 EL2 pc 0x4040002100 share_hyp+0x0 VTTBR_EL2 0x40100000\n"
        );
        assert_eq!(ask(&fake, "stats"), "steps: 12\nhost-aborts: 3\n");
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        let fake = Fake::new();
        for (line, answer) in [
            ("sx", "sx: no such command; try `monitor help`\n"),
            ("locks all", "locks takes no argument, not all\n"),
            ("s2 1 2", "s2: too many words; try `monitor help`\n"),
            ("s2 zz", "s2: zz is no address; write 0x48000000\n"),
            (
                "owners 2..1",
                "owners: 2..1 is empty; write 0x48000000..0x48200000\n",
            ),
            ("page", "page: which one? `monitor page 0x48000000`\n"),
            ("page 0x", "page: 0x is no address; write 0x48000000\n"),
            (
                "page 0x1ffffffffffffffff",
                "page: 0x1ffffffffffffffff is no address; write 0x48000000\n",
            ),
        ] {
            assert_eq!(ask(&fake, line), answer);
        }
        let mut text = String::new();
        run(&fake, b"\xff\xfe", &mut text).unwrap();
        assert_eq!(text, "that is not UTF-8; try `monitor help`\n");
    }

    proptest! {
        /// No line makes a command panic.
        #[test]
        fn any_line_is_answered(
            command in "(s2|owners|page|locks|[a-z]{0,4})",
            argument in "( (0x)?[0-9a-f]{0,17}(\\.\\.(0x)?[0-9a-f]{0,17})?| \\PC*)?",
        ) {
            let _ = ask(&Fake::with_tables(), &format!("{command}{argument}"));
        }
    }
}
