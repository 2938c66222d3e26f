//! What is known of an abort, as labelled rows.

use super::history::Told;
use crate::abort::trap::{HOST_STAGE2, fault};
use crate::abort::{Cause, Fault, Outcome, Place, Story, Walk, Word, Write};
use crate::arch::disassembly::disassemble;
use crate::arch::regime::Regime;
use crate::arch::{esr, fields, sysreg};
use crate::model::{Cpu, Tickets};
use crate::tui::capture::Capture;
use crate::tui::details::{self, field_rows};
use crate::tui::grid;
use crate::tui::panel::Panel;
use crate::tui::worker::{Until, Written};
use crate::view::{
    Cell, Role, Row, branch_text, call_text, changes_table, choice_text, end_name,
    fault_walk_table, memory_text, outcome_role, outcome_text, road_table, trap_table,
};

fn row(name: &str, cells: impl IntoIterator<Item = Cell>) -> Row {
    let label = [grid::label(name)];
    label.into_iter().chain(cells).collect()
}

fn raw(value: u64) -> Cell {
    Cell::new(Role::Raw, format!("{value:#x}"))
}

fn plain(text: impl Into<String>) -> Cell {
    Cell::new(Role::Plain, text)
}

/// The abort of a CPU: the one that it handles, of which more is known where it is followed, or the last one that it
/// took.
pub(super) fn cpu(capture: &Capture, cpu: &Cpu, story: Option<&Story>) -> Panel {
    let system = &capture.system;
    let under_host = cpu.stage2.as_deref() == Some(HOST_STAGE2);
    let fault = fault(system, &cpu.registers).filter(|_| under_host);
    let call = story.and_then(|story| match &story.cause {
        Cause::Call(call) => Some(call),
        Cause::Abort(_) => None,
    });
    let title = match (&fault, cpu.el) {
        _ if call.is_some() => format!("hypercall of CPU {}", cpu.number),
        (Some(_), Some(2)) => format!("abort of CPU {}", cpu.number),
        (Some(_), _) => format!("last abort of CPU {}", cpu.number),
        (None, _) => format!("registers of CPU {}", cpu.number),
    };
    let mut rows = registers(capture, cpu, fault.as_ref());
    if let Some(fault) = &fault {
        rows.extend(about(fault));
    }
    rows.extend(call.map(|call| row("call", [plain(call_text(call))])));
    let before = story.and_then(Story::fault).and_then(last);
    rows.extend(
        before
            .filter(|_| fault.as_ref().and_then(last) != before)
            .map(was),
    );
    Panel::new(title, "", rows)
}

/// The registers that tell of an exception, decoded.
fn registers(capture: &Capture, cpu: &Cpu, fault: Option<&Fault>) -> Vec<Row> {
    let get = |name: &str| cpu.registers.get(name);
    let mut rows = Vec::new();
    let mut push = |name: &str, meaning: &dyn Fn(u64) -> Option<String>| {
        if let Some(value) = get(name) {
            rows.push(row(
                name,
                [raw(value)].into_iter().chain(meaning(value).map(plain)),
            ));
        }
    };
    push("ESR_EL2", &|esr| Some(esr::describe(esr)));
    push("FAR_EL2", &|_| None);
    let ipa = fault.and_then(|fault| fault.ipa);
    push("HPFAR_EL2", &|_| ipa.map(|ipa| format!("→ IPA {ipa:#x}")));
    push("VTTBR_EL2", &|_| cpu.stage2.clone());
    push("ELR_EL2", &|pc| capture.symbol_at(pc));
    push("SPSR_EL2", &|pstate| Some(sysreg::pstate(pstate)));
    let code = capture.code.get(cpu.number);
    let interrupted = code.and_then(|code| code.interrupted).zip(get("ELR_EL2"));
    rows.extend(interrupted.map(|(word, pc)| {
        let instruction = disassemble(word, pc, false, |target| capture.symbol_at(target));
        row("instruction", [plain(instruction.to_string())])
    }));
    rows
}

/// What is at the address, the way to it, and what may be mapped there.
fn about(fault: &Fault) -> Vec<Row> {
    let mut rows = vec![row("IPA is", [plain(memory_text(&fault.memory))])];
    if let Some(walk) = &fault.walk {
        rows.extend(steps(walk));
    }
    rows.extend(
        fault
            .choice
            .as_ref()
            .map(|choice| row("choice", [plain(choice_text(choice))])),
    );
    if let Some(walk) = &fault.walk {
        rows.extend(last_word(walk));
    }
    rows
}

/// The words on the way, the one in question marked.
fn steps(walk: &Walk) -> Vec<Row> {
    let table = fault_walk_table(walk);
    let last = table.rows.len().saturating_sub(1);
    let rows = table.rows.into_iter().enumerate();
    rows.map(|(i, cells)| {
        let level = cells.first().map_or("", |cell| cell.text.as_str());
        let (role, mark) = match i == last {
            true => (Role::Active, "▸ "),
            false => (Role::Dim, ""),
        };
        let label = Cell::new(role, format!("{mark}level {level}"));
        [label]
            .into_iter()
            .chain(
                cells
                    .into_iter()
                    .skip(1)
                    .filter(|cell| !cell.text.is_empty()),
            )
            .collect()
    })
    .collect()
}

/// The last word of a walk: its level, itself, and what the walk ended in.
fn last(fault: &Fault) -> Option<(i8, u64, &'static str)> {
    let walk = fault.walk.as_ref()?;
    let step = walk.translation.steps.last()?;
    let word = step.descriptor.as_ref()?;
    Some((step.level, word.raw, end_name(&walk.translation.end)))
}

/// The word that the walk ended at when the abort was taken.
fn was((level, word, end): (i8, u64, &str)) -> Row {
    row(&format!("level {level} was"), [raw(word), plain(end)])
}

/// An abort that was followed to its end.
pub(super) fn told(told: &Told) -> Panel {
    let story = &told.story;
    let mut rows = vec![row(
        "outcome",
        [Cell::new(outcome_role(&story.outcome), outcome_text(story))],
    )];
    if let Outcome::Refused {
        branch: Some(branch),
        ..
    } = &story.outcome
    {
        rows.push(row("refused by", [plain(branch_text(branch))]));
    }
    let Some(fault) = story.fault() else {
        rows.extend(trap_table(story).rows);
        rows.extend(became(story));
        return Panel::new(
            format!("hypercall {} of CPU {}", told.number, story.cpu),
            "",
            rows,
        );
    };
    rows.push(row(
        "ESR_EL2",
        [raw(story.esr), plain(esr::describe(story.esr))],
    ));
    rows.push(row("FAR_EL2", [raw(fault.far)]));
    let ipa = fault.ipa.map(|ipa| plain(format!("→ IPA {ipa:#x}")));
    rows.push(row("HPFAR_EL2", [raw(fault.hpfar)].into_iter().chain(ipa)));
    rows.push(row(
        "ELR_EL2",
        [place(&story.host), plain(format!("EL{}", story.from))],
    ));
    rows.extend(about(fault));
    let instructions = story
        .instructions
        .map(|count| format!("{count} instructions"));
    rows.extend(instructions.map(|text| row("EL2", [plain(text)])));
    rows.extend(became(story));
    Panel::new(
        format!("abort {} of CPU {}", told.number, story.cpu),
        story.outcome.name(),
        rows,
    )
}

/// What changed, and how it was followed.
fn became(story: &Story) -> Vec<Row> {
    let mut rows = Vec::new();
    let decode = story.fault().and_then(|fault| fault.walk.as_ref());
    for write in &story.writes {
        let decode = decode.filter(|walk| walk.regime == write.regime);
        rows.extend(wrote(write, decode.map(|walk| &walk.decode)));
    }
    let changes = changes_table(story).rows.into_iter();
    rows.extend(changes.map(|cells| {
        let mut cells = cells.into_iter();
        let (what, at) = (cells.next(), cells.next());
        let sides: Vec<_> = cells.map(|cell| cell.text).collect();
        let label = what.map_or_else(String::new, |cell| cell.text);
        row(&label, at.into_iter().chain([plain(sides.join(" → "))]))
    }));
    rows.extend(
        story
            .after
            .as_ref()
            .map(|after| row("goes on", [place(after)])),
    );
    let road = road_table(&story.road).rows.into_iter();
    rows.extend(road.map(|cells| {
        cells
            .into_iter()
            .filter(|cell| !cell.text.is_empty())
            .collect()
    }));
    let problems = story.problems.iter();
    rows.extend(problems.map(|text| row("problem", [Cell::new(Role::Problem, text.as_str())])));
    rows
}

fn place(place: &Place) -> Cell {
    match &place.symbol {
        Some(symbol) => Cell::new(Role::Symbol, symbol.as_str()),
        None => Cell::new(Role::Address, format!("{:#x}", place.pc)),
    }
}

/// A word that was written, and its fields that differ.
fn wrote(write: &Write, decode: Option<&Regime>) -> Vec<Row> {
    let word = |side: &Option<Word>| side.as_ref().map(|word| word.descriptor.raw);
    let (old, new) = (word(&write.old), word(&write.new));
    let text = |word: Option<u64>| word.map_or_else(|| "-".to_owned(), |word| format!("{word:#x}"));
    let label = Cell::new(Role::Active, format!("▸ wrote level {}", write.level));
    let cells = [
        label,
        Cell::new(Role::Address, format!("{:#x}", write.at)),
        plain(format!("{} {:#x}", write.regime, write.ia)),
        Cell::new(Role::Raw, format!("{} → {}", text(old), text(new))),
    ];
    let mut rows = vec![cells.into()];
    if let (Some(decode), Some(new)) = (decode, new) {
        let old = old.unwrap_or(0);
        let fields = fields::descriptor(decode, write.level, new);
        let before = |field: &fields::Field| (old & field.mask()) >> field.low;
        rows.extend(
            fields
                .iter()
                .filter(|field| before(field) != field.value)
                .map(|field| {
                    let values = format!("{:#x} → {:#x}", before(field), field.value);
                    let name = format!("{:>5} {}", field.bits(), field.name);
                    row(
                        &name,
                        [Cell::new(Role::Raw, values), plain(field.meaning.as_ref())],
                    )
                }),
        );
    }
    rows
}

/// The fields of the word that the walk ended at.
fn last_word(walk: &Walk) -> Vec<Row> {
    let step = walk.translation.steps.last();
    let word = step.and_then(|step| Some((step.level, step.descriptor.as_ref()?.raw)));
    match word {
        Some((level, raw)) if raw != 0 => field_rows(&fields::descriptor(&walk.decode, level, raw)),
        _ => Vec::new(),
    }
}

/// Who wrote what was watched.
pub(super) fn written(capture: &Capture, written: &Written) -> Panel {
    let Written {
        watch,
        cpu,
        pc,
        old,
        new,
    } = written;
    let place = capture.symbol_at(*pc).unwrap_or_else(|| format!("{pc:#x}"));
    let side = |word: u64| {
        let is_lock = matches!(watch.until, Until::Taken | Until::Contended);
        let tickets = is_lock.then(|| Tickets::of_word(word as u32));
        let tickets =
            tickets.map(|tickets| plain(format!("owner/next {}/{}", tickets.owner, tickets.next)));
        [raw(word)].into_iter().chain(tickets)
    };
    let mut rows = vec![
        row("written", [plain(watch.what.as_str())]),
        row("by", [Cell::new(Role::Active, format!("CPU {cpu}"))]),
        row("at", [Cell::new(Role::Symbol, place), raw(*pc)]),
        row("old", side(*old)),
        row("new", side(*new)),
    ];
    let system = &capture.system;
    let held = system
        .locks
        .iter()
        .filter(|lock| lock.tickets.is_some_and(Tickets::held));
    let locks = held.map(|lock| {
        let holder = match &lock.holder {
            Some(holder) if holder.cpu == *cpu as u64 => "held by this CPU".to_owned(),
            Some(holder) => format!("held by CPU {}", holder.cpu),
            None => "held".to_owned(),
        };
        row(
            "lock",
            [plain(lock.name.as_str()), Cell::new(Role::Active, holder)],
        )
    });
    let locks: Vec<_> = locks.collect();
    match locks.is_empty() {
        true => rows.push(row("lock", [Cell::new(Role::Problem, "none is held")])),
        false => rows.extend(locks),
    }
    let writer = system.cpus.get(*cpu);
    let calls = writer.into_iter().flat_map(|cpu| &cpu.calls);
    rows.extend(calls.zip(1..).map(|(frame, depth): (_, usize)| {
        let place = frame
            .symbol
            .clone()
            .unwrap_or_else(|| format!("{:#x}", frame.pc));
        row(&format!("call {depth}"), [Cell::new(Role::Symbol, place)])
    }));
    let place = writer.and_then(details::place);
    rows.extend(place.map(|place| row("now at", [Cell::new(Role::Symbol, place)])));
    Panel::new(format!("{} was written", watch.what), "", rows)
}
