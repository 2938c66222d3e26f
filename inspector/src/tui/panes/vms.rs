//! VMs: what the hypervisor knows of them, and the way to their tables.

use super::{Focus, below, split};
use crate::model::{HypervisorKind, System, Vm};
use crate::tui::capture::Capture;
use crate::tui::grid;
use crate::tui::keymap::Action;
use crate::tui::list::List;
use crate::tui::panel::Panel;
use crate::tui::theme::Theme;
use crate::view::{vm_table, vms_table};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// State of the pane.
#[derive(Clone, Default, Debug)]
pub struct Vms {
    /// Cursor.
    pub list: List,
    handles: Vec<u64>,
}

impl Vms {
    /// Takes a new capture, keeping the cursor on its VM.
    pub fn refresh(&mut self, capture: &Capture) {
        let before = self.handles.get(self.list.cursor).copied();
        self.handles = capture.system.vms.iter().map(|vm| vm.handle).collect();
        let at = self
            .handles
            .iter()
            .position(|handle| Some(*handle) == before);
        self.list.cursor = at.unwrap_or(self.list.cursor);
    }

    /// Takes the size of the screen.
    pub fn settle(&mut self, body: Rect) {
        let rows = below(split(body).0, 2);
        self.list
            .settle(self.handles.len(), usize::from(rows.height));
    }

    /// Moves; whether the action was one that does.
    pub fn act(&mut self, action: Action) -> bool {
        self.list.act(action, self.handles.len())
    }

    /// Puts the cursor on a line of the screen.
    pub fn press(&mut self, body: Rect, y: u16) -> bool {
        let line = y.checked_sub(below(split(body).0, 2).y).map(usize::from);
        let row = line.and_then(|line| self.list.at_line(line, self.handles.len()));
        row.inspect(|row| self.list.cursor = *row).is_some()
    }

    fn selected<'a>(&self, capture: &'a Capture) -> Option<&'a Vm> {
        capture.system.vms.get(self.list.cursor)
    }

    /// Index of the regime of the VM under the cursor, if it was captured.
    pub fn regime(&self, capture: &Capture) -> Option<usize> {
        let name = self.selected(capture)?.regime_name();
        let mut regimes = capture.system.regimes.iter();
        regimes.position(|regime| regime.name == name)
    }

    /// What the cursor stands on: the hypervisor's object, and where the VM's memory begins.
    pub fn focus(&self, capture: &Capture) -> Focus {
        let Some(vm) = self.selected(capture) else {
            return Focus::default();
        };
        let input = self.regime(capture).map(|regime| {
            let first = capture.system.regimes[regime].entries.first();
            (regime, first.map_or(0, |entry| entry.leaf.ia))
        });
        Focus {
            pa: vm.pa,
            input,
            value: format!("{:#x}", vm.handle),
        }
    }

    /// Draws the pane.
    pub fn draw(&self, capture: &Capture, theme: Theme, body: Rect, buf: &mut Buffer) {
        let system = &capture.system;
        if system.vms.is_empty() {
            grid::rule(buf, body, theme, "VMs", "");
            grid::centred(buf, below(body, 1), theme, why_none(system));
            return;
        }
        let main = split(body).0;
        grid::rule(buf, main, theme, "VMs", &system.vms.len().to_string());
        let table = vms_table(system);
        let window = self.list.window(system.vms.len());
        let rows = table.rows.into_iter().enumerate();
        let lines: Vec<_> = rows
            .skip(window.start)
            .take(window.len())
            .map(|(i, row)| grid::Line {
                row,
                changed: capture.changes.vms.contains(&system.vms[i].handle),
                selected: i == self.list.cursor,
            })
            .collect();
        grid::table(buf, below(main, 1), theme, &table.titles, None, &lines);
    }

    /// What the panel shows.
    pub fn panel(&self, capture: &Capture) -> Option<Panel> {
        let vm = self.selected(capture)?;
        let title = format!("VM {:#x}", vm.handle);
        let note = grid::count(vm.vcpus.len() as u64, "vCPU");
        Some(Panel::new(title, note, vm_table(&capture.system, vm).rows))
    }
}

fn why_none(system: &System) -> &str {
    match (&system.no_vms, system.hypervisor.kind) {
        (Some(why), _) => why,
        (None, HypervisorKind::None) => "no hypervisor was found, so there are no VMs of it",
        (None, _) => "the hypervisor has no VM now",
    }
}
