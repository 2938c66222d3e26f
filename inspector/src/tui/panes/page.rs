//! One physical page: its owner, its state on each side, and every entry of every regime that maps it.

use super::{Focus, below, split};
use crate::tui::capture::Capture;
use crate::tui::details;
use crate::tui::grid;
use crate::tui::keymap::Action;
use crate::tui::list::List;
use crate::tui::theme::Theme;
use crate::view::{self, Mapping, PageView, Row, Run, runs_table};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// State of the pane.
#[derive(Clone, Default, Debug)]
pub struct Page {
    /// An address in the page.
    pub pa: u64,
    /// The pane was given a page to show.
    pub chosen: bool,
    /// Cursor over the mappings.
    pub list: List,
    view: Option<PageView>,
}

impl Page {
    /// Shows the page that holds a physical address.
    pub fn go(&mut self, capture: &Capture, pa: u64) {
        (self.pa, self.chosen) = (pa, true);
        self.list = List::default();
        self.refresh(capture);
    }

    /// Looks the page up anew.
    pub fn refresh(&mut self, capture: &Capture) {
        if !self.chosen {
            // The first page of RAM, until another is asked for.
            self.pa = capture.system.ram.first().map_or(0, |ram| ram.start);
        }
        self.view = Some(view::page(&capture.system, self.pa));
    }

    fn mappings(&self) -> &[Mapping] {
        self.view.as_ref().map_or(&[], |view| &view.mappings)
    }

    /// Takes the size of the screen.
    pub fn settle(&mut self) {
        let count = self.mappings().len();
        self.list.settle(count, count.max(1));
    }

    /// Moves; whether the action was one that does.
    pub fn act(&mut self, action: Action, capture: &Capture) -> bool {
        let Some(span) = self.view.as_ref().map(|view| view.pa) else {
            return false;
        };
        let to = match action {
            Action::Left => span.start.saturating_sub(span.size),
            Action::Right => span.start.checked_add(span.size).unwrap_or(span.start),
            _ => return self.list.act(action, self.mappings().len()),
        };
        self.go(capture, to);
        true
    }

    /// What the cursor stands on.
    pub fn focus(&self) -> Focus {
        let mapping = self.mappings().get(self.list.cursor);
        Focus {
            pa: self.view.as_ref().map(|view| view.pa.start),
            input: mapping.map(|mapping| (mapping.regime, mapping.ia)),
            value: format!("{:#x}", self.pa),
        }
    }

    /// Puts the cursor on a mapping.
    pub fn press(&mut self, capture: &Capture, body: Rect, y: u16) -> bool {
        let first = self.mappings_area(capture, body).y + 2;
        let row = y.checked_sub(first).map(usize::from);
        let row = row.filter(|row| *row < self.mappings().len());
        row.inspect(|row| self.list.cursor = *row).is_some()
    }

    /// What is known of the page itself; its mappings have a table of their own.
    fn facts(&self, capture: &Capture) -> Vec<Row> {
        let regimes = &capture.system.regimes;
        let mut rows = details::physical(capture, self.pa);
        rows.retain(|row| {
            let label = row.first().map(|cell| cell.text.as_str());
            !regimes
                .iter()
                .any(|regime| Some(regime.name.as_str()) == label)
        });
        rows
    }

    fn mappings_area(&self, capture: &Capture, body: Rect) -> Rect {
        let main = split(body).0;
        let facts = self.facts(capture).len() as u16 + 2;
        below(main, facts.min(main.height.saturating_sub(4)))
    }

    /// Draws the pane.
    pub fn draw(&self, capture: &Capture, theme: Theme, body: Rect, buf: &mut Buffer) {
        let (main, side) = split(body);
        let Some(view) = &self.view else {
            return;
        };
        let system = &capture.system;
        let changed = if capture.changes.touch(0, view.pa) {
            "changed"
        } else {
            ""
        };
        grid::rule(
            buf,
            main,
            theme,
            &format!("page {:#x}", view.pa.start),
            changed,
        );
        let lower = self.mappings_area(capture, body);
        let upper = Rect {
            y: main.y + 1,
            height: lower.y.saturating_sub(main.y + 1),
            ..main
        };
        grid::details(buf, upper, theme, &self.facts(capture));
        let count = view.mappings.len();
        let note = if count == 1 {
            "1 entry".to_owned()
        } else {
            format!("{count} entries")
        };
        grid::rule(buf, lower, theme, "in the tables", &note);
        let runs: Vec<_> = view
            .mappings
            .iter()
            .map(|mapping| one(capture, *mapping))
            .collect();
        let mut table = runs_table(system, &runs);
        // The page's own input address, not that of the block it lies in.
        let column = table.titles.iter().position(|title| *title == "IA");
        for (row, mapping) in table.rows.iter_mut().zip(&view.mappings) {
            if let Some(cell) = column.and_then(|column| row.get_mut(column)) {
                cell.text = format!("{:#x}", mapping.ia);
            }
        }
        let lines: Vec<_> = table
            .rows
            .into_iter()
            .zip(&runs)
            .enumerate()
            .map(|(i, (row, run))| grid::Line {
                row,
                changed: capture.changes.touch(run.regime + 1, run.ia(system)),
                selected: i == self.list.cursor,
            })
            .collect();
        grid::table(buf, below(lower, 1), theme, &table.titles, None, &lines);
        if lines.is_empty() {
            grid::note(
                buf,
                below(lower, 2),
                theme,
                "no regime maps or marks this page",
            );
        }
        if let (Some(side), Some(mapping)) = (side, view.mappings.get(self.list.cursor)) {
            let regime = &system.regimes[mapping.regime];
            grid::rule(
                buf,
                side,
                theme,
                &regime.name,
                &format!("{:#x}", mapping.ia),
            );
            let rows = details::entry(regime, mapping.entry(system));
            grid::details(buf, below(side, 1), theme, &rows);
        }
    }
}

/// The entry of a mapping as a run of its own.
fn one(capture: &Capture, mapping: Mapping) -> Run {
    Run {
        regime: mapping.regime,
        first: mapping.entry,
        count: 1,
        size: mapping.entry(&capture.system).leaf.size,
    }
}
