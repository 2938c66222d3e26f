//! Who owns and shares each page of RAM, as `owners` prints it.

use super::sieve::Sieve;
use super::{Focus, below, split};
use crate::model::OwnerRange;
use crate::tui::capture::{Capture, Class};
use crate::tui::details;
use crate::tui::grid;
use crate::tui::keymap::Action;
use crate::tui::list::List;
use crate::tui::panel::Panel;
use crate::tui::theme::Theme;
use crate::view::{owners_table, size_text};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use std::cmp::Ordering;

/// State of the pane.
#[derive(Clone, Default, Debug)]
pub struct Owners {
    /// Filter and order.
    pub sieve: Sieve,
    /// Cursor.
    pub list: List,
    /// Indices in the capture's `owners`.
    rows: Vec<usize>,
}

/// The column that each order goes by.
const ORDERS: [&str; 6] = ["PA", "SIZE", "OWNER", "HOST", "HYP", "RULE"];

impl Owners {
    /// Chooses the rows anew, keeping the cursor on what it stands on.
    pub fn refresh(&mut self, capture: &Capture) {
        let owners = &capture.system.owners;
        let before = self
            .rows
            .get(self.list.cursor)
            .and_then(|at| owners.get(*at));
        let before = before.map(|range| range.pa.start);
        let all = self.sieve.filter.value().trim().is_empty();
        self.rows = (0..owners.len())
            .filter(|&at| {
                let table = (!all).then(|| owners_table(&owners[at..=at]));
                table.is_none_or(|table| {
                    table
                        .rows
                        .iter()
                        .any(|row| self.sieve.admits(row, &[owners[at].pa]))
                })
            })
            .collect();
        let column = ORDERS[self.sieve.order];
        self.rows.sort_by(|a, b| {
            let by_column = compare(column, &owners[*a], &owners[*b]);
            self.sieve.ordering(by_column.then(a.cmp(b)))
        });
        if let Some(at) = before.and_then(|pa| self.find(capture, pa)) {
            self.list.cursor = at;
        }
    }

    fn find(&self, capture: &Capture, pa: u64) -> Option<usize> {
        let owners = &capture.system.owners;
        self.rows
            .iter()
            .position(|at| owners.get(*at).is_some_and(|range| range.pa.contains(pa)))
    }

    /// Puts the cursor on the range that holds a physical address; whether there is one.
    pub fn go(&mut self, capture: &Capture, pa: u64) -> bool {
        let mut found = self.find(capture, pa);
        if found.is_none() && !self.sieve.filter.value().is_empty() {
            self.sieve.filter.reset();
            self.refresh(capture);
            found = self.find(capture, pa);
        }
        found.inspect(|row| self.list.show(*row)).is_some()
    }

    /// Takes the size of the screen.
    pub fn settle(&mut self, body: Rect) {
        let rows = below(split(body).0, 2);
        self.list.settle(self.rows.len(), usize::from(rows.height));
    }

    /// Moves, sorts; whether the action was one of these.
    pub fn act(&mut self, action: Action, capture: &Capture) -> bool {
        if self.sieve.act(action, ORDERS.len()) {
            self.refresh(capture);
            return true;
        }
        let owners = &capture.system.owners;
        let rows = &self.rows;
        let changed = |row: usize| capture.changes.touch(0, owners[rows[row]].pa);
        let problem = |row: usize| problem(capture, &owners[rows[row]]);
        match action {
            Action::NextChange => self.list.seek(true, rows.len(), changed),
            Action::PreviousChange => self.list.seek(false, rows.len(), changed),
            Action::NextProblem => self.list.seek(true, rows.len(), problem),
            Action::PreviousProblem => self.list.seek(false, rows.len(), problem),
            _ => self.list.act(action, self.rows.len()),
        }
    }

    /// Puts the cursor on a line of the screen.
    pub fn press(&mut self, body: Rect, y: u16) -> bool {
        let line = y.checked_sub(below(split(body).0, 2).y).map(usize::from);
        let row = line.and_then(|line| self.list.at_line(line, self.rows.len()));
        row.inspect(|row| self.list.cursor = *row).is_some()
    }

    fn selected<'a>(&self, capture: &'a Capture) -> Option<&'a OwnerRange> {
        capture.system.owners.get(*self.rows.get(self.list.cursor)?)
    }

    /// What the cursor stands on.
    pub fn focus(&self, capture: &Capture) -> Focus {
        let Some(range) = self.selected(capture) else {
            return Focus::default();
        };
        Focus {
            pa: Some(range.pa.start),
            input: None,
            value: format!("{:#x}", range.pa.start),
        }
    }

    /// Draws the pane.
    pub fn draw(&self, capture: &Capture, theme: Theme, body: Rect, buf: &mut Buffer) {
        let main = split(body).0;
        let owners = &capture.system.owners;
        let at = (self.list.cursor + 1).min(self.rows.len());
        let note = format!("{at} of {} ranges", self.rows.len());
        grid::rule(buf, main, theme, "pages of RAM", &note);
        let window = self.list.window(self.rows.len());
        let shown: Vec<_> = window
            .clone()
            .map(|i| owners[self.rows[i]].clone())
            .collect();
        let table = owners_table(&shown);
        let rows = table.rows.into_iter().zip(window).zip(&shown);
        let lines: Vec<_> = rows
            .map(|((row, i), range)| grid::Line {
                row,
                changed: capture.changes.touch(0, range.pa),
                selected: i == self.list.cursor,
            })
            .collect();
        let sorted = Some((ORDERS[self.sieve.order], self.sieve.reverse));
        grid::table(buf, below(main, 1), theme, &table.titles, sorted, &lines);
        if lines.is_empty() {
            grid::note(
                buf,
                below(main, 2),
                theme,
                "no page is like this (Esc in / clears the filter)",
            );
        }
    }

    /// What the panel shows.
    pub fn panel(&self, capture: &Capture) -> Option<Panel> {
        let range = self.selected(capture)?;
        let rows = details::physical(capture, range.pa.start);
        Some(Panel::new(
            range.pa.to_string(),
            size_text(range.pa.size),
            rows,
        ))
    }
}

fn compare(column: &str, a: &OwnerRange, b: &OwnerRange) -> Ordering {
    let text = |state: Option<crate::model::State>| state.map(|state| state.to_string());
    match column {
        "SIZE" => a.pa.size.cmp(&b.pa.size),
        "OWNER" => a.owner.to_string().cmp(&b.owner.to_string()),
        "HOST" => text(a.host).cmp(&text(b.host)),
        "HYP" => text(a.hyp).cmp(&text(b.hyp)),
        "RULE" => a.rule.cmp(&b.rule),
        _ => Ordering::Equal,
    }
}

fn problem(capture: &Capture, range: &OwnerRange) -> bool {
    let space = capture.spaces.first();
    space.is_some_and(|space| {
        space
            .within(range.pa)
            .any(|area| area.class == Class::Problem)
    })
}
