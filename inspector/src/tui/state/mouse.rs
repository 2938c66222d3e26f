//! The mouse: tabs, rows, cells, the wheel.

use super::{Effect, State};
use crate::tui::keymap::Action;
use crate::tui::panes::PaneId;
use crate::tui::screen;
use ratatui::crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Position;

/// Rows a turn of the wheel.
const WHEEL: usize = 3;

impl State {
    /// Takes an event of the mouse; whether it changed anything.
    pub(super) fn mouse_event(&mut self, event: &MouseEvent, effects: &mut Vec<Effect>) -> bool {
        let at = Position::new(event.column, event.row);
        if self.help.take().is_some() {
            return true;
        }
        let layout = screen::layout(self);
        if let MouseEventKind::Down(MouseButton::Left) = event.kind
            && layout.tabs.contains(at)
        {
            let tab = screen::tab_at(at.x - layout.tabs.x);
            if let Some(pane) = tab {
                self.act(Action::Show(pane), effects);
            }
            return tab.is_some();
        }
        let Some(capture) = self.capture.clone() else {
            return false;
        };
        let body = layout.body;
        match event.kind {
            MouseEventKind::Down(MouseButton::Left) if body.contains(at) => {
                let before = self.focus();
                let hit = match self.pane {
                    PaneId::Map => self.map.press(&capture, at.x, at.y),
                    PaneId::Tables => self.tables.press(&capture, body, at.x, at.y),
                    PaneId::Runs => self.runs.press(body, at.y),
                    PaneId::Owners => self.owners.press(body, at.y),
                    PaneId::Page => self.page.press(&capture, body, at.y),
                    PaneId::Locks => self.locks.press(&capture, body, at.y),
                    PaneId::Cpus => self.cpus.press(&capture, body, at.y),
                    PaneId::Vms => self.vms.press(body, at.y),
                    PaneId::Abort => self.abort.press(body, at.y),
                };
                // A press on what is chosen already opens it.
                if hit
                    && before == self.focus()
                    && !matches!(self.pane, PaneId::Cpus | PaneId::Abort)
                {
                    self.act(Action::Open, effects);
                }
                hit
            }
            MouseEventKind::Drag(MouseButton::Left) if self.pane == PaneId::Map => {
                self.map.drag(&capture, at.y)
            }
            MouseEventKind::ScrollUp if self.pane == PaneId::Map => {
                self.map.wheel(&capture, at.x, at.y, -1)
            }
            MouseEventKind::ScrollDown if self.pane == PaneId::Map => {
                self.map.wheel(&capture, at.x, at.y, 1)
            }
            MouseEventKind::ScrollUp => {
                (0..WHEEL).for_each(|_| self.act(Action::Up, effects));
                true
            }
            MouseEventKind::ScrollDown => {
                (0..WHEEL).for_each(|_| self.act(Action::Down, effects));
                true
            }
            _ => false,
        }
    }
}
