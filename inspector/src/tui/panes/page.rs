//! One physical page: its owner, its state on each side, and every entry of every regime that maps it.

use super::{Focus, below, split};
use crate::addr::Span;
use crate::tui::capture::Capture;
use crate::tui::details;
use crate::tui::grid;
use crate::tui::keymap::Action;
use crate::tui::list::List;
use crate::tui::panel::Panel;
use crate::tui::theme::Theme;
use crate::view::{self, Mapping, PageView, mappings_table, states_heading};
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
    pub fn settle(&mut self, capture: &Capture, body: Rect) {
        let area = self.areas(capture, body).map(|[.., mappings]| mappings);
        let rows = area.map_or(0, |area| below(area, 2).height);
        self.list.settle(self.mappings().len(), usize::from(rows));
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
        let area = self.areas(capture, body).map(|[.., mappings]| mappings);
        let line = area.and_then(|area| y.checked_sub(below(area, 2).y));
        let row = line.and_then(|line| self.list.at_line(usize::from(line), self.mappings().len()));
        row.inspect(|row| self.list.cursor = *row).is_some()
    }

    /// What the page is, what its sides say of it, and its mappings, from top to bottom.
    fn areas(&self, capture: &Capture, body: Rect) -> Option<[Rect; 3]> {
        let view = self.view.as_ref()?;
        let main = split(body).0;
        // The mappings keep a rule, titles and two rows.
        let room = main.height.saturating_sub(4);
        let lines = |rows: usize| u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(1);
        let facts = lines(details::facts(capture, view).len()).min(room);
        let states = details::states(view).len();
        let states = if states == 0 { 0 } else { lines(states) };
        let states = states.min(room - facts);
        let part = |y: u16, height: u16| Rect {
            y: main.y + y,
            height,
            ..main
        };
        Some([
            part(0, facts),
            part(facts, states),
            below(main, facts + states),
        ])
    }

    /// Draws the pane.
    pub fn draw(&self, capture: &Capture, theme: Theme, body: Rect, buf: &mut Buffer) {
        let (Some(view), Some([facts, states, mappings])) = (&self.view, self.areas(capture, body))
        else {
            return;
        };
        let system = &capture.system;
        let changed = if capture.changes.touch(0, view.pa) {
            "changed"
        } else {
            ""
        };
        let title = format!("page {:#x}", view.pa.start);
        grid::rule(buf, facts, theme, &title, changed);
        grid::details(buf, below(facts, 1), theme, &details::facts(capture, view));
        grid::rule(buf, states, theme, states_heading(system), "");
        grid::details(buf, below(states, 1), theme, &details::states(view));
        self.draw_mappings(capture, view, theme, mappings, buf);
    }

    /// What the panel shows.
    pub fn panel(&self, capture: &Capture) -> Option<Panel> {
        let mapping = self.mappings().get(self.list.cursor)?;
        let regime = &capture.system.regimes[mapping.regime];
        let rows = details::entry(regime, mapping.entry(&capture.system));
        let note = format!("{:#x}", mapping.ia);
        Some(Panel::new(regime.name.as_str(), note, rows))
    }

    fn draw_mappings(
        &self,
        capture: &Capture,
        view: &PageView,
        theme: Theme,
        area: Rect,
        buf: &mut Buffer,
    ) {
        let count = view.mappings.len();
        let note = if count == 1 {
            "1 entry".to_owned()
        } else {
            format!("{count} entries")
        };
        grid::rule(buf, area, theme, "in the tables", &note);
        let table = mappings_table(&capture.system, view);
        let rows = table.rows.into_iter().zip(&view.mappings).enumerate();
        let window = self.list.window(count);
        let lines: Vec<_> = rows
            .skip(window.start)
            .take(window.len())
            .map(|(i, (row, mapping))| {
                let leaf = &mapping.entry(&capture.system).leaf;
                let span = Span::new(leaf.ia, leaf.size);
                grid::Line {
                    row,
                    changed: capture.changes.touch(mapping.regime + 1, span),
                    selected: i == self.list.cursor,
                }
            })
            .collect();
        grid::table(buf, below(area, 1), theme, &table.titles, None, &lines);
        if lines.is_empty() {
            let note = "no regime maps or marks this page";
            grid::note(buf, below(area, 2), theme, note);
        }
    }
}
