//! Labelled rows about one thing: an entry, a page, an address.

use super::capture::Capture;
use super::grid::label;
use crate::addr::Span;
use crate::arch::{fields, sysreg};
use crate::model::{Cpu, Entry, EntryKind, Owner, RegimeCapture, State};
use crate::view::{
    Cell, PageView, Role, Row, mappings_table, page, page_facts, page_states, size_text,
};

fn row(name: &str, role: Role, value: impl Into<String>) -> Row {
    vec![label(name), Cell::new(role, value)]
}

/// The page at a physical address: what it is, its states, its mappings.
pub(super) fn physical(capture: &Capture, pa: u64) -> Vec<Row> {
    let page = page(&capture.system, pa);
    let mut rows = facts(capture, &page);
    // Where it is and whose stand before what is known besides.
    let besides = rows.split_off(rows.len().min(2));
    rows.extend(states(&page));
    let mappings = mappings_table(&capture.system, &page);
    let mapping = |row: &Row| mapping(&mappings.titles, row);
    rows.extend(mappings.rows.iter().filter_map(mapping));
    rows.extend(besides);
    rows
}

/// A row of the table of mappings as a label and one cell.
fn mapping(titles: &[&str], row: &Row) -> Option<Row> {
    let (regime, cells) = row.split_first()?;
    let said = titles.iter().skip(1).zip(cells);
    let words: Vec<_> = said
        .filter(|(_, cell)| cell.text != "-")
        .map(|(title, cell)| match *title {
            "LEVEL" | "SW" | "WORD" => format!("{}={}", title.to_lowercase(), cell.text),
            _ => cell.text.clone(),
        })
        .collect();
    Some(vec![
        label(regime.text.as_str()),
        Cell::new(Role::Plain, words.join(" ")),
    ])
}

/// What a page is, and the symbols in it.
pub(super) fn facts(capture: &Capture, page: &PageView) -> Vec<Row> {
    let mut rows = page_facts(&capture.system, page).rows;
    for (name, address) in symbols_in(capture, page.pa).into_iter().take(8) {
        rows.push(vec![
            label("symbol"),
            Cell::new(Role::Symbol, name),
            Cell::new(Role::Address, format!("{address:#x}")),
        ]);
    }
    rows
}

/// What each side says of a page, its rule in words.
pub(super) fn states(page: &PageView) -> Vec<Row> {
    let mut rows = page_states(page).rows;
    let rule = page
        .owner
        .as_ref()
        .and_then(|owner| owner.rule)
        .and_then(rule_words);
    let row = rows
        .iter_mut()
        .find(|row| row.first().is_some_and(|cell| cell.text == "rule"));
    if let (Some(words), Some(row)) = (rule, row) {
        row.push(Cell::new(Role::Dim, words));
    }
    rows
}

/// What a row of the table of legal joint states means.
fn rule_words(rule: &str) -> Option<&'static str> {
    Some(match rule {
        "J1" => "the host's alone",
        "J2" => "the host's, lent to hyp",
        "J3" => "hyp's, lent to the host",
        "J4" => "hyp's alone",
        "J5" => "the host's, lent by FF-A",
        "J6" => "the host's, lent to guests",
        "J7" => "a guest's alone",
        "J8" => "a guest's, lent to the host",
        "J9" => "hyp's code, which the host may read",
        "J10" => "the host's again, taken back from a guest",
        _ => return None,
    })
}

/// The symbols whose first byte translates into a physical range, with their addresses.
fn symbols_in(capture: &Capture, pa: Span) -> Vec<(String, u64)> {
    let Some(hyp) = capture
        .system
        .regimes
        .iter()
        .position(|regime| regime.name == "hyp-s1")
    else {
        return Vec::new();
    };
    let Some(start) = capture.input_of(hyp, pa.start) else {
        return Vec::new();
    };
    let within = capture.system.symbols.within(Span::new(start, pa.size));
    within
        .into_iter()
        .map(|(name, address)| (name.to_owned(), address))
        .collect()
}

/// What stands at an input address of a regime.
pub(super) fn input(capture: &Capture, regime: usize, ia: u64) -> Vec<Row> {
    let mut rows = vec![row("input", Role::Address, format!("{ia:#x}"))];
    let Some(captured) = capture.system.regimes.get(regime) else {
        return rows;
    };
    if let Some(symbol) = capture.symbol_at(ia).filter(|_| captured.name == "hyp-s1") {
        rows.push(row("symbol", Role::Symbol, symbol));
    }
    match capture.entry_at(regime, ia) {
        Some(found) => rows.extend(entry(captured, found)),
        None => rows.push(row("entry", Role::Dim, "none: the descriptor is zero")),
    }
    rows
}

/// An entry in words, and its word field by field.
pub(super) fn entry(regime: &RegimeCapture, entry: &Entry) -> Vec<Row> {
    let leaf = &entry.leaf;
    let mut rows = vec![
        row(
            "covers",
            Role::Address,
            Span::new(leaf.ia, leaf.size).to_string(),
        ),
        row(
            "kind",
            if leaf.problem.is_some() {
                Role::Problem
            } else {
                Role::Plain
            },
            format!(
                "{}, level {}, {}",
                entry.kind,
                leaf.level,
                size_text(leaf.size)
            ),
        ),
        row("word", Role::Raw, format!("{:#018x}", leaf.raw)),
        row("at", Role::Address, format!("{:#x}", leaf.at)),
    ];
    if let Some(problem) = &leaf.problem {
        rows.insert(2, row("problem", Role::Problem, problem.as_ref()));
    }
    if let Some(oa) = leaf.oa {
        rows.push(row("output", Role::Address, format!("{oa:#x}")));
    }
    if let Some(a) = leaf.attributes {
        let flag = |set, letter| if set { letter } else { '-' };
        let perms: String = [flag(a.read, 'r'), flag(a.write, 'w'), flag(a.execute, 'x')]
            .iter()
            .collect();
        let el0 = if a.execute == a.execute_el0 {
            ""
        } else {
            ", EL0 differs"
        };
        rows.push(row("access", Role::Plain, format!("{perms}{el0}")));
        rows.push(row(
            "memory",
            Role::Plain,
            format!("{}, {} shareable", a.memory, a.shareability),
        ));
    }
    if let Some(state) = entry.state {
        rows.push(row(
            "state",
            Role::Plain,
            format!("{state} ({})", regime.name),
        ));
    }
    if let Some(owner) = entry.owner_text() {
        rows.push(row("owner", Role::Plain, owner));
    }
    rows.extend(fields(regime, leaf.level, leaf.raw));
    rows
}

/// The colour of an entry: that of who owns or shares what it maps.
pub(super) fn entry_role(entry: &Entry) -> Role {
    let odd = !matches!(
        entry.kind,
        EntryKind::Block | EntryKind::Page | EntryKind::Annotation
    );
    match (entry.state, entry.owner) {
        _ if odd || entry.leaf.problem.is_some() => Role::Problem,
        (Some(State::SharedOwned), _) => Role::SharedOwned,
        (Some(State::SharedBorrowed), _) => Role::SharedBorrowed,
        (Some(State::Reserved), _) | (_, Some(Owner::Poisoned)) => Role::Problem,
        (_, Some(Owner::Host)) => Role::Host,
        (_, Some(Owner::Hyp)) => Role::Hyp,
        (_, Some(Owner::Guest(_))) => Role::Guest,
        _ => Role::Mmio,
    }
}

/// A descriptor field by field: bits, name, value, meaning.
pub(super) fn fields(regime: &RegimeCapture, level: i8, raw: u64) -> Vec<Row> {
    field_rows(&fields::descriptor(&regime.regime, level, raw))
}

/// Fields as rows.
pub(super) fn field_rows(fields: &[fields::Field]) -> Vec<Row> {
    fields
        .iter()
        .map(|field| {
            vec![
                label(format!("{:>5} {}", field.bits(), field.name)),
                Cell::new(Role::Raw, format!("{:#x}", field.value)),
                Cell::new(
                    if field.value == 0 {
                        Role::Dim
                    } else {
                        Role::Plain
                    },
                    field.meaning.as_ref(),
                ),
            ]
        })
        .collect()
}

/// Where a CPU stands: the symbol, or else the address.
pub(super) fn place(cpu: &Cpu) -> Option<String> {
    cpu.symbol
        .clone()
        .or_else(|| cpu.pc.map(|pc| format!("{pc:#x}")))
}

/// The fields of a register of a CPU; none where it has none that are known.
pub(super) fn register(cpu: &Cpu, name: &str, value: u64) -> Vec<fields::Field> {
    // HCR_EL2.E2H decides over the format of others.
    let e2h = cpu
        .registers
        .get("HCR_EL2")
        .is_some_and(|hcr| hcr >> 34 & 1 == 1);
    let mut fields = sysreg::fields(name, value, e2h).unwrap_or_default();
    // What is set says more than what is not.
    fields.sort_by_key(|field| field.value == 0);
    fields
}
