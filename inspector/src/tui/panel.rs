//! The panel beside or below a pane: what is known of the thing that the cursor stands on.

use super::grid;
use super::keymap::{self, Action};
use super::panes::{PaneId, below, split};
use super::screen;
use super::state::State;
use super::theme::Theme;
use crate::view::Row;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// A thing and what is known of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Panel {
    /// What it is.
    pub title: String,
    /// In how many words.
    pub note: String,
    /// Labels and values.
    pub rows: Vec<Row>,
}

impl Panel {
    /// A panel.
    pub fn new(title: impl Into<String>, note: impl Into<String>, rows: Vec<Row>) -> Self {
        Self {
            title: title.into(),
            note: note.into(),
            rows,
        }
    }
}

/// How far a panel is scrolled.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Scroll {
    /// Title of the panel that is: another one starts at its top.
    of: String,
    /// Rows above the first that is shown.
    top: usize,
}

/// How many rows of `rows` an area takes.
fn fitting(area: Rect, theme: Theme, rows: &[Row]) -> usize {
    grid::details(&mut Buffer::empty(area), area, theme, rows)
}

impl State {
    /// The panel of the pane that is shown, and where it is.
    fn panel(&self) -> Option<(Panel, Rect)> {
        let capture = self.capture.as_ref()?;
        let body = screen::layout(self).body;
        let area = match self.pane {
            PaneId::Map => self.map.panel_area(capture, body),
            _ => split(body).1,
        };
        let panel = match self.pane {
            PaneId::Map => self.map.panel(capture),
            PaneId::Tables => self.tables.panel(capture),
            PaneId::Runs => self.runs.panel(capture),
            PaneId::Owners => self.owners.panel(capture),
            PaneId::Page => self.page.panel(capture),
            PaneId::Locks => self.locks.panel(capture, self.now),
            PaneId::Cpus => self.cpus.panel(capture),
            PaneId::Vms => self.vms.panel(capture),
            PaneId::Abort => self.abort.panel(capture),
        };
        panel.zip(area)
    }

    /// Scrolls the panel by a row; whether it moved.
    pub(super) fn scroll_panel(&mut self, down: bool) -> bool {
        self.settle_panel();
        let Some((panel, area)) = self.panel() else {
            return false;
        };
        let top = self.scroll.top;
        let rest = panel.rows.get(top..).unwrap_or_default();
        let more = fitting(below(area, 1), self.theme, rest) < rest.len();
        let to = match down {
            true if more => top + 1,
            true => top,
            false => top.saturating_sub(1),
        };
        self.scroll = Scroll {
            of: panel.title,
            top: to,
        };
        to != top
    }

    /// Brings the scrolled panel back to its top where it shows another thing, and to its end where it would end early.
    pub(super) fn settle_panel(&mut self) {
        if self.scroll.top == 0 {
            return;
        }
        let shown = self
            .panel()
            .filter(|(panel, _)| panel.title == self.scroll.of);
        let Some((panel, area)) = shown else {
            self.scroll = Scroll::default();
            return;
        };
        let inside = below(area, 1);
        let mut top = self.scroll.top.min(panel.rows.len());
        while top > 0 && {
            let rest = &panel.rows[top - 1..];
            fitting(inside, self.theme, rest) == rest.len()
        } {
            top -= 1;
        }
        self.scroll.top = top;
    }

    /// Draws the panel; its note says which keys scroll it, if there is more of it than is shown.
    pub(super) fn draw_panel(&self, buf: &mut Buffer) {
        let Some((panel, area)) = self.panel() else {
            return;
        };
        let scrolled = panel.title == self.scroll.of;
        let top = if scrolled { self.scroll.top } else { 0 };
        let rest = panel.rows.get(top..).unwrap_or_default();
        let shown = grid::details(buf, below(area, 1), self.theme, rest);
        let label = |action, glyph, there: bool| {
            there
                .then(|| keymap::label(action).map(|key| format!("{key}{glyph}")))
                .flatten()
        };
        let notes = [
            Some(panel.note).filter(|note| !note.is_empty()),
            label(Action::PanelUp, '▴', top > 0),
            label(Action::PanelDown, '▾', shown < rest.len()),
        ];
        let notes: Vec<_> = notes.into_iter().flatten().collect();
        grid::rule(buf, area, self.theme, &panel.title, &notes.join(" "));
    }
}
