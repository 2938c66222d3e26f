//! The tables on the screen.

use super::{Slot, Tables, Word, areas, word_shift};
use crate::addr::Span;
use crate::model::RegimeCapture;
use crate::tui::capture::Capture;
use crate::tui::details;
use crate::tui::grid;
use crate::tui::panel::Panel;
use crate::tui::panes::below;
use crate::tui::theme::Theme;
use crate::view::{Cell, Role, Row, size_text};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

const TITLES: [&str; 4] = ["#", "IA", "WORD", "WHAT"];
/// Draws the pane.
pub fn draw(tables: &Tables, capture: &Capture, theme: Theme, body: Rect, buf: &mut Buffer) {
    let areas = areas(body);
    let Some(regime) = tables.captured(capture) else {
        grid::note(buf, body, theme, "no translation regime was found");
        return;
    };
    draw_tree(tables, regime, theme, areas.tree, buf);
    draw_words(tables, capture, regime, theme, areas.words, buf);
}

impl Tables {
    /// What the panel shows.
    pub fn panel(&self, capture: &Capture) -> Option<Panel> {
        let regime = self.captured(capture)?;
        let word = self.word(capture).filter(|_| self.inside);
        let Some(word) = word else {
            let title = format!("{} tables", regime.name);
            let note = regime.tables.len().to_string();
            return Some(Panel::new(title, note, about(self, capture, regime)));
        };
        let title = format!("word {} at {:#x}", word.index, word.at);
        let span = Span::new(word.ia, 1 << word_shift(regime, word.level));
        let rows = describe(&word, regime, span);
        Some(Panel::new(title, size_text(span.size), rows))
    }
}

fn draw_tree(tables: &Tables, regime: &RegimeCapture, theme: Theme, area: Rect, buf: &mut Buffer) {
    let note = format!("{} tables", regime.tables.len());
    grid::rule(buf, area, theme, &regime.name, &note);
    let rows = below(area, 1);
    let window = tables.tree.window(tables.nodes.len());
    for (y, i) in (rows.top()..rows.bottom()).zip(window) {
        let node = tables.nodes[i];
        let table = &regime.tables[node.table];
        let mark = match (node.children, node.open) {
            (true, true) => "▾",
            (true, false) => "▸",
            (false, _) => "·",
        };
        let indent = " ".repeat(usize::from(node.depth).min(8) * 2);
        let x = grid::text(
            buf,
            rows,
            rows.x + 1,
            y,
            &format!("{indent}{mark} "),
            theme.dim(),
        );
        let x = grid::text(
            buf,
            rows,
            x,
            y,
            &format!("L{} ", table.level),
            theme.title(),
        );
        let x = grid::text(
            buf,
            rows,
            x,
            y,
            &format!("{:#x}", table.pa),
            theme.role(Role::Address),
        );
        grid::text(
            buf,
            rows,
            x + 1,
            y,
            &format!("{:#x}", table.ia),
            theme.dim(),
        );
        if i == tables.tree.cursor {
            let line = Rect {
                y,
                height: 1,
                ..rows
            }
            .intersection(buf.area);
            let style = if tables.inside {
                theme.selected_elsewhere()
            } else {
                theme.selected()
            };
            buf.set_style(line, style);
            if !tables.inside {
                grid::text(buf, rows, rows.x, y, "›", theme.title());
            }
        }
    }
}

fn draw_words(
    tables: &Tables,
    capture: &Capture,
    regime: &RegimeCapture,
    theme: Theme,
    area: Rect,
    buf: &mut Buffer,
) {
    let Some((at, table)) = tables
        .table()
        .and_then(|at| Some((at, regime.tables.get(at)?)))
    else {
        return;
    };
    let used = table.words.iter().filter(|word| **word != 0).count();
    let title = format!("table {:#x}", table.pa);
    let note = format!(
        "level {}, {used} of {} used",
        table.level,
        table.words.len()
    );
    grid::rule(buf, area, theme, &title, &note);
    let window = tables.words.window(tables.slots.len());
    let lines: Vec<_> = window
        .filter_map(|i| {
            let (row, changed) = match tables.slots[i] {
                Slot::Zeros(first, last) => (zeros(first, last), false),
                Slot::Word(index) => {
                    let word = Word::read(capture, tables.regime, at, index)?;
                    let span = Span::new(word.ia, 1 << word_shift(regime, word.level));
                    let changed =
                        word.child.is_none() && capture.changes.touch(tables.regime + 1, span);
                    let mut row = row(&word, regime);
                    if capture.last_abort.words.contains(&word.at)
                        && let Some(what) = row.last_mut()
                    {
                        what.text.push_str("  ◆ last abort");
                    }
                    (row, changed)
                }
            };
            let selected = tables.inside && i == tables.words.cursor;
            Some(grid::Line {
                row,
                changed,
                selected,
            })
        })
        .collect();
    grid::table(buf, below(area, 1), theme, &TITLES, None, &lines);
}

fn zeros(first: usize, last: usize) -> Row {
    let text = if first == last {
        first.to_string()
    } else {
        format!("{first}…{last}")
    };
    [text, String::new(), "zero".into(), String::new()]
        .map(|text| Cell::new(Role::Dim, text))
        .into()
}

fn row(word: &Word<'_>, regime: &RegimeCapture) -> Row {
    vec![
        Cell::new(Role::Dim, word.index.to_string()),
        Cell::new(Role::Address, format!("{:#x}", word.ia)),
        Cell::new(Role::Raw, format!("{:#018x}", word.raw)),
        what(word, regime),
    ]
}

/// A word in a few words.
fn what(word: &Word<'_>, regime: &RegimeCapture) -> Cell {
    let Some(entry) = word.entry else {
        let text = match word.child {
            Some(child) => format!("table → {:#x}", regime.tables[child].pa),
            None => "not read".to_owned(),
        };
        return Cell::new(Role::Symbol, text);
    };
    // In an identity map the input address says it.
    let oa = entry
        .leaf
        .attributes
        .and(entry.leaf.oa)
        .filter(|oa| *oa != word.ia);
    let mut text = entry.kind.to_string();
    if let Some(oa) = oa {
        text.push_str(&format!(" → {oa:#x}"));
    }
    if let Some(state) = entry.state {
        text.push_str(&format!(" {state}"));
    }
    if let Some(owner) = entry.owner_text() {
        text.push_str(&format!(" {owner}"));
    }
    Cell::new(details::entry_role(entry), text)
}

/// Everything a word says, field by field.
fn describe(word: &Word<'_>, regime: &RegimeCapture, span: Span) -> Vec<Row> {
    if let Some(entry) = word.entry {
        return details::entry(regime, entry);
    }
    let mut rows = vec![
        vec![
            grid::label("covers"),
            Cell::new(Role::Address, span.to_string()),
        ],
        vec![
            grid::label("word"),
            Cell::new(Role::Raw, format!("{:#018x}", word.raw)),
        ],
    ];
    rows.extend(details::fields(regime, word.level, word.raw));
    rows
}

/// What a regime is, and the table under the cursor.
fn about(tables: &Tables, capture: &Capture, regime: &RegimeCapture) -> Vec<Row> {
    let r = &regime.regime;
    let row = |name: &str, value: String| vec![grid::label(name), Cell::new(Role::Plain, value)];
    let mut rows = vec![
        row(
            "root",
            format!("{:#x}, {}", r.root, grid::count(r.root_pages, "page")),
        ),
        row(
            "start",
            format!(
                "level {}, granule {}",
                r.start_level,
                size_text(r.granule.bytes())
            ),
        ),
        row(
            "size",
            format!("{} bits in, {} bits out", r.ia_bits, r.oa_bits),
        ),
    ];
    if let Some(table) = tables.table().and_then(|at| regime.tables.get(at)) {
        let parent = table
            .parent
            .map_or("none, a root".to_owned(), |pa| format!("{pa:#x}"));
        rows.push(row(
            "table",
            format!("{:#x}, level {}", table.pa, table.level),
        ));
        rows.push(row("parent", parent));
        let pool = details::physical(capture, table.pa);
        rows.extend(pool.into_iter().filter(|row| {
            row.first()
                .is_some_and(|cell| matches!(cell.text.as_str(), "refcount" | "owner" | "section"))
        }));
    }
    rows
}
