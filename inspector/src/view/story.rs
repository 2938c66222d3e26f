//! The story of a host trap: one table for each question.

use super::walk::{end_name, shape_name, step_row};
use super::{
    Cell, Role, Row, Table, address, address_or_dash, dash, dim, owner_cell, plain, size_text,
    state_cell,
};
use crate::abort::choice::{Candidate, Choice, Verdict};
use crate::abort::{
    Branch, Call, Cause, Comparison, Injected, Memory, Outcome, Place, Road, Story, Walk, Word,
    Write,
};
use crate::addr::Span;
use crate::arch::desc::{Attributes, Shape};
use crate::arch::esr;
use crate::model::{Owner, OwnerRange, Tickets};

/// Bytes of one page, of which most kernels have the smallest.
const ONE_PAGE: u64 = 4096;

/// The story in one line: `CPU 1 at host_touch: data abort …, IPA 0x42003000: mapped 2M at 0x42000000`.
pub fn story_heading(story: &Story) -> String {
    let what = match &story.cause {
        Cause::Abort(fault) => match fault.ipa {
            Some(ipa) => format!("{}, IPA {ipa:#x}", esr::describe(story.esr)),
            None => esr::describe(story.esr),
        },
        Cause::Call(call) => call_text(call),
    };
    let at = place_text(&story.host);
    format!("CPU {} at {at}: {what}: {}", story.cpu, outcome_text(story))
}

/// All tables of a story, each under its heading, those without rows left out.
pub fn story_tables(story: &Story) -> Vec<(String, Table)> {
    let titled = |title: &str, table| (title.to_owned(), table);
    let mut tables = vec![(story_heading(story), trap_table(story))];
    if let Cause::Abort(fault) = &story.cause {
        if let Some(walk) = &fault.walk {
            let end = end_name(&walk.translation.end);
            let heading = format!(
                "walk of {:#x} in {} before: {end}",
                walk.translation.ia, walk.regime
            );
            tables.push((heading, fault_walk_table(walk)));
        }
        if let Some(choice) = &fault.choice {
            tables.push((choice_text(choice), choice_table(choice)));
        }
    }
    tables.push(titled("steps", steps_table(story)));
    tables.push(titled(writes_heading(story), writes_table(&story.writes)));
    tables.push(titled("what else changed", changes_table(story)));
    tables.push(titled("how it was followed", road_table(&story.road)));
    tables.retain(|(_, table)| !table.rows.is_empty());
    tables
}

/// The outcome in one clause.
pub fn outcome_text(story: &Story) -> String {
    match &story.outcome {
        Outcome::Mapped { leaf, .. } => match story.mapped() {
            Some(mapped) if mapped != *leaf => format!(
                "mapped, {} in leaves of {}",
                span_text(mapped),
                size_text(leaf.size)
            ),
            _ => format!("mapped, {}", span_text(*leaf)),
        },
        Outcome::AlreadyMapped { leaf, by } => {
            let by = by.map_or_else(|| "another CPU".to_owned(), |cpu| format!("CPU {cpu}"));
            let leaf = leaf.map_or_else(String::new, |leaf| format!(", {}", span_text(leaf)));
            format!("already mapped by {by}{leaf}")
        }
        Outcome::Refused { exception, .. } => format!("refused, {}", injected_text(exception)),
        Outcome::Emulated => "emulated, the host goes on behind the instruction".to_owned(),
        Outcome::Returned => match &story.cause {
            Cause::Call(Call {
                status: Some(status),
                result: Some(result),
                ..
            }) => format!("returned {} in x0, {result} in x1", *status as i64),
            _ => "returned".to_owned(),
        },
        Outcome::Panic { at } => format!("the hypervisor panicked at {}", place_text(at)),
        Outcome::GaveUp { branch } => match branch {
            Some(branch) => format!("gave up, by {}", branch_text(branch)),
            None => "gave up: back at the same instruction with nothing changed".to_owned(),
        },
        Outcome::Left { to } => format!("left for {}", place_text(to)),
    }
}

fn injected_text(exception: &Injected) -> String {
    let mut text = match exception.what() {
        Some(what) => format!("the host takes: {what}"),
        None => "the host takes an exception".to_owned(),
    };
    if let Some(vector) = exception.vector {
        text.push_str(&format!(", at VBAR_EL1 + {vector:#x}"));
    }
    text
}

/// The branch that decided, its function and its line of source.
pub fn branch_text(branch: &Branch) -> String {
    let mut text = match &branch.instruction {
        Some(instruction) => format!("`{instruction}` at {}", place_text(&branch.at)),
        None => format!("the branch at {}", place_text(&branch.at)),
    };
    if !branch.taken {
        text.push_str(", not taken");
    }
    // The function's own code is named already.
    let symbol = branch.at.symbol.as_deref().unwrap_or_default();
    let inlined = branch.function.as_deref();
    let inlined = inlined.filter(|name| symbol.split('+').next() != Some(name));
    let parts = [inlined, branch.source.as_deref()];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if !parts.is_empty() {
        text.push_str(&format!(" ({})", parts.join(", ")));
    }
    text
}

/// A hypercall as one would write it: `name(0x1, …)`.
pub fn call_text(call: &Call) -> String {
    let name = call
        .name
        .clone()
        .unwrap_or_else(|| format!("hypercall {}", call.id));
    let arguments: Vec<String> = call
        .arguments
        .iter()
        .map(|word| format!("{word:#x}"))
        .collect();
    format!("{name}({})", arguments.join(", "))
}

/// `name (0x…)`, or the address alone.
fn place_text(place: &Place) -> String {
    match &place.symbol {
        Some(symbol) => symbol.clone(),
        None => format!("{:#x}", place.pc),
    }
}

fn place_cell(place: Option<&Place>) -> Cell {
    match place {
        Some(Place {
            symbol: Some(symbol),
            ..
        }) => Cell::new(Role::Symbol, symbol.as_str()),
        Some(place) => address(place.pc),
        None => dash(),
    }
}

fn span_text(span: Span) -> String {
    format!("{} at {:#x}", size_text(span.size), span.start)
}

/// What the hardware said, and what is at the address.
pub fn trap_table(story: &Story) -> Table {
    let mut table = Table::new(&["", "", ""]);
    let mut row = |name: &str, value: Cell, meaning: String| {
        table.rows.push(vec![dim(name), value, plain(meaning)]);
    };
    let hex = |value: u64| Cell::new(Role::Raw, format!("{value:#x}"));
    row("ESR_EL2", hex(story.esr), esr::describe(story.esr));
    let host = format!("{}, EL{}", place_text(&story.host), story.from);
    row("ELR_EL2", address(story.host.pc), host);
    match &story.cause {
        Cause::Abort(fault) => {
            let far = match esr::is_on_walk(story.esr) {
                true => "virtual address, whose walk reads the IPA",
                false => "virtual address",
            };
            row("FAR_EL2", address(fault.far), far.to_owned());
            row(
                "HPFAR_EL2",
                hex(fault.hpfar),
                "page of the IPA, in bits 43:4".to_owned(),
            );
            row(
                "IPA",
                address_or_dash(fault.ipa),
                memory_text(&fault.memory),
            );
            if let Some(page) = &fault.page {
                row("page", address(page.pa.start), owner_text(page));
            }
        }
        Cause::Call(call) => {
            row("x0", hex(call.id), call_text(call));
            for page in &call.pages {
                let text = |side: &Option<OwnerRange>| {
                    side.as_ref()
                        .map_or_else(|| "not RAM".to_owned(), owner_text)
                };
                let change = format!("{} → {}", text(&page.before), text(&page.after));
                let same = page.before == page.after;
                let text = if same { text(&page.after) } else { change };
                match page.pa.size {
                    0..=ONE_PAGE => row("page", address(page.pa.start), text),
                    size => {
                        let text = format!("{}: {text}", size_text(size));
                        row("pages", address(page.pa.start), text);
                    }
                }
            }
        }
    }
    if let Outcome::Refused {
        branch: Some(branch),
        ..
    } = &story.outcome
    {
        row("refused", address(branch.at.pc), branch_text(branch));
    }
    if let Some(instructions) = story.instructions {
        row(
            "EL2",
            plain(instructions.to_string()),
            instructions_text(story),
        );
    }
    table
}

/// From where instructions are counted, if that is not the vector.
fn instructions_text(story: &Story) -> String {
    let vector = story.steps.first().and_then(|step| step.place.as_ref());
    match &story.road.entry {
        Some(entry) if vector != Some(entry) => {
            format!("instructions, from {} on", place_text(entry))
        }
        _ => "instructions".to_owned(),
    }
}

/// What an address is, in words.
pub fn memory_text(memory: &Memory) -> String {
    match memory {
        Memory::Ram { region } => format!("RAM, in the region {region}"),
        Memory::Taken { owner, section, .. } => match section {
            Some(section) => format!("memory of {owner}: its {section}"),
            None => format!("memory of {owner}"),
        },
        Memory::Mmio { gap, owner } => match owner {
            Some(owner) => format!("no RAM, in the gap {gap}: a device of {owner}"),
            None => format!("no RAM, in the gap {gap}: a device, or nothing"),
        },
        Memory::Beyond => "beyond what the host's stage 2 translates".to_owned(),
        Memory::Unknown => "HPFAR_EL2 is not valid for this fault".to_owned(),
    }
}

/// A joint state in words: `host: host owned, hyp no-page`.
fn owner_text(range: &OwnerRange) -> String {
    let side = |name: &str, state: Option<crate::model::State>| {
        state.map(|state| format!("{name} {state}"))
    };
    let mut sides: Vec<String> = [side("host", range.host), side("hyp", range.hyp)]
        .into_iter()
        .flatten()
        .collect();
    let guests = range.guests.iter();
    sides.extend(guests.map(|guest| format!("guest {:#x} {}", guest.handle, guest.state)));
    format!("owner {}: {}", range.owner, sides.join(", "))
}

/// The words on the way, one a row.
pub fn fault_walk_table(walk: &Walk) -> Table {
    let mut table = Table::new(&["LEVEL", "AT", "WORD", "INDEX", "KIND", "TO"]);
    table.rows = walk.translation.steps.iter().map(step_row).collect();
    if let (Some(row), Some(entry)) = (table.rows.last_mut(), &walk.entry)
        && let (Some(owner), Some(cell)) = (entry.owner_text(), row.last_mut())
    {
        // What stands there while an entry is changed is no owner.
        let state = entry.state.filter(|_| entry.owner != Some(Owner::Locked));
        let state = state
            .map(|state| format!("{state} of "))
            .unwrap_or_default();
        cell.text = format!("{} {state}{owner}", cell.text)
            .trim_start()
            .to_owned();
    }
    table
}

/// The range that is chosen and what bounds it, in one line.
pub fn choice_text(choice: &Choice) -> String {
    let hole = format!(
        "hole of {} at level {}",
        size_text(choice.hole.size),
        choice.hole_level
    );
    let text = match choice.range() {
        Some(range) => format!(
            "range: {}, in the {hole}, in {}",
            span_text(range),
            choice.region
        ),
        None => format!("range: none fits the {hole} and {}", choice.region),
    };
    match choice.seen.filter(|seen| Some(*seen) != choice.range()) {
        Some(seen) => format!("{text}; seen: {}", span_text(seen)),
        None => text,
    }
}

/// Every level that was considered.
pub fn choice_table(choice: &Choice) -> Table {
    let mut table = Table::new(&["LEVEL", "RANGE", "SIZE", ""]);
    table.rows = choice.candidates.iter().map(candidate_row).collect();
    if let Some(seen) = choice.seen {
        let agrees = Some(seen) == choice.range();
        let (role, text) = match agrees {
            true => (Role::Plain, "seen"),
            false => (Role::Problem, "seen: not what the rule gives"),
        };
        table.rows.push(vec![
            dash(),
            address(seen.start),
            Cell::new(Role::Address, size_text(seen.size)),
            Cell::new(role, text),
        ]);
    }
    table
}

fn candidate_row(candidate: &Candidate) -> Row {
    let verdict = match candidate.verdict {
        Verdict::Taken => Cell::new(Role::Active, "the largest that fits"),
        Verdict::NoLeaf => dim("no blocks at this level"),
        Verdict::LeavesRegion => dim("leaves the region"),
    };
    vec![
        plain(candidate.level.to_string()),
        address(candidate.range.start),
        Cell::new(Role::Address, size_text(candidate.range.size)),
        verdict,
    ]
}

/// What was done, in order.
pub fn steps_table(story: &Story) -> Table {
    let mut table = Table::new(&["STAGE", "AT", "WHAT"]);
    for step in &story.steps {
        table.rows.push(vec![
            plain(step.stage.to_string()),
            place_cell(step.place.as_ref()),
            plain(step.text.as_str()),
        ]);
    }
    table
}

fn writes_heading(story: &Story) -> &'static str {
    match story.road.writes {
        Comparison::UnderLock => "words written, by what changed under the lock",
        Comparison::EntryToEnd => "words written, by what changed from the entry to the end",
    }
}

/// Every word that changed, and what it means now.
pub fn writes_table(writes: &[Write]) -> Table {
    let mut table = Table::new(&[
        "REGIME", "LEVEL", "IA", "AT", "OLD", "NEW", "MEANS", "OWNER", "STATE",
    ]);
    for write in writes {
        let raw = |word: &Option<Word>| match word {
            Some(word) => Cell::new(Role::Raw, format!("{:#x}", word.descriptor.raw)),
            None => dash(),
        };
        let new = write.new.as_ref();
        table.rows.push(vec![
            plain(write.regime.as_str()),
            plain(write.level.to_string()),
            address(write.ia),
            address(write.at),
            raw(&write.old),
            raw(&write.new),
            new.map_or_else(dash, |word| word_cell(word, write.size)),
            owner_cell(new.and_then(|word| word.owner)),
            state_cell(new.and_then(|word| word.state)),
        ]);
    }
    table
}

/// `2M block rwx normal-wb`, `table`, `hole`.
fn word_cell(word: &Word, size: u64) -> Cell {
    let descriptor = &word.descriptor;
    match (descriptor.shape, descriptor.attributes) {
        (Shape::Block | Shape::Page, Some(attributes)) => {
            let shape = shape_name(descriptor.shape);
            plain(format!(
                "{} {shape} {}",
                size_text(size),
                attributes_text(&attributes)
            ))
        }
        (Shape::Invalid, _) if descriptor.raw == 0 => dim("hole"),
        (Shape::Invalid, _) if word.owner.is_some() => plain("annotation"),
        (Shape::Reserved, _) => Cell::new(Role::Problem, "reserved"),
        (shape, _) => plain(shape_name(shape)),
    }
}

fn attributes_text(attributes: &Attributes) -> String {
    let flag = |set, letter| if set { letter } else { '-' };
    let execute = attributes.execute || attributes.execute_el0;
    let (r, w, x) = (
        flag(attributes.read, 'r'),
        flag(attributes.write, 'w'),
        flag(execute, 'x'),
    );
    format!("{r}{w}{x} {}", attributes.memory)
}

/// Joint states, table pages, reference counts and locks that changed.
pub fn changes_table(story: &Story) -> Table {
    let changes = &story.changes;
    let mut table = Table::new(&["WHAT", "WHERE", "BEFORE", "AFTER"]);
    for change in &changes.owners {
        let side = |side: &Option<OwnerRange>| {
            side.as_ref()
                .map_or_else(dash, |range| plain(owner_text(range)))
        };
        let size = size_text(change.pa.size);
        table.rows.push(vec![
            plain(format!("state of {size}")),
            address(change.pa.start),
            side(&change.before),
            side(&change.after),
        ]);
    }
    let pages = [
        (&changes.tables_linked, "-", "a table"),
        (&changes.tables_freed, "a table", "-"),
    ];
    for (pages, before, after) in pages {
        let row = |pa: &u64| {
            vec![
                plain("table page"),
                address(*pa),
                plain(before),
                plain(after),
            ]
        };
        table.rows.extend(pages.iter().map(row));
    }
    for count in &changes.counts {
        table.rows.push(vec![
            plain(format!("count, {}", count.pool)),
            address(count.pa),
            plain(count.before.to_string()),
            plain(count.after.to_string()),
        ]);
    }
    let tickets = |tickets: Tickets| plain(format!("{}/{}", tickets.owner, tickets.next));
    for lock in &changes.locks {
        table.rows.push(vec![
            plain("lock, owner/next"),
            plain(lock.name.as_str()),
            tickets(lock.before),
            tickets(lock.after),
        ]);
    }
    table
}

/// How the story was followed.
pub fn road_table(road: &Road) -> Table {
    let mut table = Table::new(&["", "", ""]);
    let mut row = |name: &str, place: Cell, text: &str| {
        table.rows.push(vec![dim(name), place, plain(text)]);
    };
    row("entry", place_cell(road.entry.as_ref()), "");
    for function in &road.functions {
        row("stop", place_cell(Some(function)), "");
    }
    row(
        "end",
        place_cell(road.exit.as_ref()),
        if road.stepped {
            "stepped, the other CPUs standing"
        } else {
            ""
        },
    );
    let mut reasons: Vec<&str> = road
        .missing
        .iter()
        .map(|stop| stop.reason.as_str())
        .collect();
    reasons.dedup();
    for reason in reasons {
        let stops = road.missing.iter().filter(|stop| stop.reason == reason);
        let names: Vec<&str> = stops.map(|stop| stop.function.as_str()).collect();
        row("no stops", dim(reason), &names.join(", "));
    }
    table
}

/// How notable an outcome is.
pub fn outcome_role(outcome: &Outcome) -> Role {
    match outcome {
        Outcome::Mapped { .. } | Outcome::Emulated | Outcome::Returned => Role::Plain,
        Outcome::AlreadyMapped { .. } => Role::Dim,
        Outcome::Refused { .. } | Outcome::Left { .. } => Role::Active,
        Outcome::Panic { .. } | Outcome::GaveUp { .. } => Role::Problem,
    }
}

fn call_outcome(story: &Story, call: &Call) -> Cell {
    let name = story.outcome.name();
    match (&story.outcome, call.result) {
        (Outcome::Returned, Some(result)) if result < 0 => {
            Cell::new(Role::Active, format!("{name} {result}"))
        }
        (Outcome::Returned, Some(result)) => plain(format!("{name} {result}")),
        (outcome, _) => Cell::new(outcome_role(outcome), name),
    }
}

/// A story as a row of a history: CPU, from where, address or hypercall, outcome, size, instructions.
pub fn story_row(story: &Story) -> Row {
    // A hypercall has a name in place of an address, and what it answered.
    let (at, outcome) = match &story.cause {
        Cause::Abort(fault) => (
            address_or_dash(fault.ipa),
            Cell::new(outcome_role(&story.outcome), story.outcome.name()),
        ),
        Cause::Call(call) => {
            let name = call.name.clone().unwrap_or_else(|| call.id.to_string());
            (plain(name), call_outcome(story, call))
        }
    };
    let size = match &story.outcome {
        Outcome::Mapped { .. } => story.mapped().map(|mapped| mapped.size),
        Outcome::AlreadyMapped { leaf, .. } => leaf.map(|leaf| leaf.size),
        _ => None,
    };
    vec![
        plain(story.cpu.to_string()),
        place_cell(Some(&story.host)),
        at,
        outcome,
        size.map_or_else(dash, |size| Cell::new(Role::Address, size_text(size))),
        story
            .instructions
            .map_or_else(dash, |count| plain(count.to_string())),
    ]
}

#[cfg(test)]
mod tests;
