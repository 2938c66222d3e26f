//! The entries of all regimes, merged into runs, as `list` prints them.

use super::sieve::Sieve;
use super::{Focus, below, split};
use crate::tui::capture::{Capture, Class};
use crate::tui::details;
use crate::tui::grid;
use crate::tui::keymap::Action;
use crate::tui::list::List;
use crate::tui::panel::Panel;
use crate::tui::theme::Theme;
use crate::view::{self, Run, RunFilter, runs_table};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use std::cmp::Ordering;

/// State of the pane.
#[derive(Clone, Default, Debug)]
pub struct Runs {
    /// Filter and order.
    pub sieve: Sieve,
    /// Index of the only regime shown; `None` for all.
    pub regime: Option<usize>,
    /// Cursor.
    pub list: List,
    rows: Vec<Run>,
}

/// The column that each order goes by; the first is the order of the tables themselves.
const ORDERS: [&str; 6] = ["IA", "SIZE", "KIND", "OA", "STATE", "OWNER"];

impl Runs {
    /// Chooses the rows anew, keeping the cursor on what it stands on.
    pub fn refresh(&mut self, capture: &Capture) {
        let system = &capture.system;
        let before = self.rows.get(self.list.cursor).copied();
        let name = self.regime.and_then(|regime| system.regimes.get(regime));
        let filter = RunFilter {
            regime: name.map(|regime| regime.name.clone()),
            ..RunFilter::default()
        };
        let mut rows = view::runs(system, &filter);
        if !self.sieve.filter.value().trim().is_empty() {
            rows.retain(|run| {
                let table = runs_table(system, &[*run]);
                let spans = [Some(run.ia(system)), run.oa(system)];
                let spans: Vec<_> = spans.into_iter().flatten().collect();
                table.rows.iter().any(|row| self.sieve.admits(row, &spans))
            });
        }
        let column = ORDERS[self.sieve.order];
        rows.sort_by(|a, b| self.sieve.ordering(compare(capture, column, *a, *b)));
        self.rows = rows;
        // Entries' indices shift between captures, so by place, or what comes after it.
        let at = before.and_then(|run| {
            let regime = system.regimes.get(run.regime)?;
            let ia = regime.entries.get(run.first)?.leaf.ia;
            self.find(capture, run.regime, ia)
        });
        if let Some(at) = at {
            self.list.cursor = at;
        }
    }

    fn find(&self, capture: &Capture, regime: usize, ia: u64) -> Option<usize> {
        self.rows
            .iter()
            .position(|run| run.regime == regime && run.ia(&capture.system).contains(ia))
    }

    /// Puts the cursor on the run that holds an input address; whether there is one.
    pub fn go(&mut self, capture: &Capture, regime: usize, ia: u64) -> bool {
        let mut found = self.find(capture, regime, ia);
        if found.is_none() && (self.regime.is_some() || !self.sieve.filter.value().is_empty()) {
            self.regime = None;
            self.sieve.filter.reset();
            self.refresh(capture);
            found = self.find(capture, regime, ia);
        }
        if let Some(at) = found {
            self.list.show(at);
        }
        found.is_some()
    }

    /// Shows one regime, from its beginning.
    pub fn show(&mut self, capture: &Capture, regime: usize) {
        self.regime = Some(regime);
        self.sieve.filter.reset();
        self.list.cursor = 0;
        self.rows.clear();
        self.refresh(capture);
    }

    /// Goes on with the numbers that regimes have in a new capture; without the one that was shown alone, with all.
    pub fn renumber(&mut self, number: impl Fn(usize) -> Option<usize>) {
        self.regime = self.regime.and_then(&number);
        if let Some(run) = self.rows.get_mut(self.list.cursor) {
            match number(run.regime) {
                Some(regime) => run.regime = regime,
                None => self.rows.clear(),
            }
        }
    }

    /// Takes the size of the screen.
    pub fn settle(&mut self, body: Rect) {
        let rows = below(split(body).0, 2);
        self.list.settle(self.rows.len(), usize::from(rows.height));
    }

    /// Moves, sorts, filters; whether the action was one of these.
    pub fn act(&mut self, action: Action, capture: &Capture) -> bool {
        if self.sieve.act(action, ORDERS.len()) {
            self.refresh(capture);
            return true;
        }
        let rows = &self.rows;
        let changed = |row: usize| changed(capture, rows[row]);
        let problem = |row: usize| problem(capture, rows[row]);
        match action {
            Action::View => {
                let count = capture.system.regimes.len();
                self.regime = match self.regime {
                    None if count > 0 => Some(0),
                    Some(at) if at + 1 < count => Some(at + 1),
                    _ => None,
                };
                self.refresh(capture);
                true
            }
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

    /// What the cursor stands on.
    pub fn focus(&self, capture: &Capture) -> Focus {
        let Some(run) = self.rows.get(self.list.cursor) else {
            return Focus::default();
        };
        let system = &capture.system;
        let ia = run.ia(system).start;
        let identity = run.regime(system).name == "host-s2";
        let oa = run.oa(system).map(|span| span.start);
        Focus {
            pa: oa.or(identity.then_some(ia)),
            input: Some((run.regime, ia)),
            value: format!("{ia:#x}"),
        }
    }

    /// Draws the pane.
    pub fn draw(&self, capture: &Capture, theme: Theme, body: Rect, buf: &mut Buffer) {
        let main = split(body).0;
        let system = &capture.system;
        let regime = self.regime.and_then(|at| system.regimes.get(at));
        let title = regime.map_or("all regimes", |regime| regime.name.as_str());
        grid::rule(buf, main, theme, title, &self.note(capture));
        let window = self.list.window(self.rows.len());
        let visible = &self.rows[window.clone()];
        let table = runs_table(system, visible);
        let lines: Vec<_> = table
            .rows
            .into_iter()
            .zip(window)
            .map(|(row, i)| grid::Line {
                row,
                changed: changed(capture, self.rows[i]),
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
                "no entry is like this (Esc in / clears the filter)",
            );
        }
    }

    /// What the panel shows.
    pub fn panel(&self, capture: &Capture) -> Option<Panel> {
        let system = &capture.system;
        let run = self.rows.get(self.list.cursor)?;
        let rows = details::entry(run.regime(system), run.entry(system));
        let note = format!("first of {}", run.count);
        Some(Panel::new(run.ia(system).to_string(), note, rows))
    }

    fn note(&self, capture: &Capture) -> String {
        let entries: usize = capture.system.regimes.iter().map(|r| r.entries.len()).sum();
        let at = (self.list.cursor + 1).min(self.rows.len());
        format!("{at} of {} runs, {entries} entries", self.rows.len())
    }
}

fn compare(capture: &Capture, column: &str, a: Run, b: Run) -> Ordering {
    let system = &capture.system;
    let (x, y) = (a.entry(system), b.entry(system));
    match column {
        "SIZE" => a.size.cmp(&b.size),
        "KIND" => x.kind.to_string().cmp(&y.kind.to_string()),
        "OA" => a.oa(system).cmp(&b.oa(system)),
        "STATE" => text(x.state).cmp(&text(y.state)),
        "OWNER" => text(x.owner).cmp(&text(y.owner)),
        _ => Ordering::Equal,
    }
    .then((a.regime, a.first).cmp(&(b.regime, b.first)))
}

fn text(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
}

fn changed(capture: &Capture, run: Run) -> bool {
    capture
        .changes
        .touch(run.regime + 1, run.ia(&capture.system))
}

fn problem(capture: &Capture, run: Run) -> bool {
    let ia = run.ia(&capture.system);
    let space = capture.spaces.get(run.regime + 1);
    space.is_some_and(|space| space.within(ia).any(|area| area.class == Class::Problem))
}
