//! Host aborts: the CPU that handles one, its code, what the hardware said, the walk of the faulting address; and
//! breakpoints.

mod code;
mod facts;

use super::{Focus, below, split};
use crate::model::Cpu;
use crate::tui::capture::Capture;
use crate::tui::grid;
use crate::tui::keymap::{self, Action};
use crate::tui::list::List;
use crate::tui::panel::Panel;
use crate::tui::theme::Theme;
use crate::tui::worker::Written;
use crate::view::{self, Cell, Role};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// What the pane shows; where there is room, the code stands above any other.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum View {
    /// The code around the chosen CPU's program counter.
    #[default]
    Code,
    /// The user's breakpoints.
    Breakpoints,
}

/// From so many lines on there is room for the code and a list below it.
const TALL: u16 = 28;

/// State of the pane.
#[derive(Clone, Default, Debug)]
pub struct Abort {
    /// The CPU that is shown and stepped, by index.
    pub cpu: usize,
    /// What is shown.
    pub view: View,
    /// Cursor in the list.
    pub list: List,
    /// Addresses of the user's breakpoints.
    pub breakpoints: Vec<u64>,
    /// The write that the machine was stopped for.
    pub written: Option<Written>,
}

/// Where the parts of the pane are.
struct Areas {
    code: Option<Rect>,
    list: Option<Rect>,
}

impl Abort {
    fn areas(&self, body: Rect) -> Areas {
        let main = split(body).0;
        if main.height >= TALL {
            let upper = main.height * 3 / 5;
            return Areas {
                code: Some(Rect {
                    height: upper,
                    ..main
                }),
                list: Some(below(main, upper)),
            };
        }
        let is_code = self.view == View::Code;
        Areas {
            code: is_code.then_some(main),
            list: (!is_code).then_some(main),
        }
    }

    /// Takes a new capture: shows the CPU that stopped the machine.
    pub fn refresh(&mut self, capture: &Capture) {
        self.cpu = self.cpu.min(capture.system.cpus.len().saturating_sub(1));
    }

    /// Takes the size of the screen.
    pub fn settle(&mut self, body: Rect) {
        let height = self
            .areas(body)
            .list
            .map_or(0, |list| below(list, 2).height);
        self.list
            .settle(self.breakpoints.len(), usize::from(height));
    }

    /// Moves; whether the action was one that does.
    pub fn act(&mut self, action: Action, capture: &Capture) -> bool {
        let last = capture.system.cpus.len().saturating_sub(1);
        match action {
            Action::Left => self.choose(self.cpu.saturating_sub(1)),
            Action::Right => self.choose((self.cpu + 1).min(last)),
            Action::View => {
                self.view = match self.view {
                    View::Code => View::Breakpoints,
                    View::Breakpoints => View::Code,
                };
                true
            }
            _ => self.list.act(action, self.breakpoints.len()),
        }
    }

    /// Shows another CPU; whether it is one.
    pub fn choose(&mut self, cpu: usize) -> bool {
        std::mem::replace(&mut self.cpu, cpu) != cpu
    }

    /// The breakpoint under the cursor.
    pub fn breakpoint(&self) -> Option<u64> {
        self.breakpoints.get(self.list.cursor).copied()
    }

    /// Puts the cursor on a line of the screen.
    pub fn press(&mut self, body: Rect, y: u16) -> bool {
        let Some(list) = self.areas(body).list else {
            return false;
        };
        let line = y.checked_sub(below(list, 2).y).map(usize::from);
        let row = line.and_then(|line| self.list.at_line(line, self.breakpoints.len()));
        row.inspect(|row| self.list.cursor = *row).is_some()
    }

    fn cpu<'a>(&self, capture: &'a Capture) -> Option<&'a Cpu> {
        capture.system.cpus.get(self.cpu)
    }

    /// What the pane is about: the address that the CPU faulted at, or else its program counter.
    pub fn focus(&self, capture: &Capture) -> Focus {
        let Some(cpu) = self.cpu(capture) else {
            return Focus::default();
        };
        let ipa = view::abort(&capture.system, cpu).and_then(|abort| abort.ipa);
        let host = capture
            .system
            .regimes
            .iter()
            .position(|regime| regime.name == "host-s2");
        if let Some((host, ipa)) = host.zip(ipa) {
            let in_ram = capture.owner_at(ipa).is_some();
            return Focus {
                pa: in_ram.then_some(ipa),
                input: Some((host, ipa)),
                value: format!("{ipa:#x}"),
            };
        }
        let pc = cpu.pc.unwrap_or(0);
        let (pa, input) = capture.resolve(pc);
        Focus {
            pa,
            input,
            value: format!("{pc:#x}"),
        }
    }

    /// Draws the pane.
    pub fn draw(&self, capture: &Capture, theme: Theme, body: Rect, buf: &mut Buffer) {
        let areas = self.areas(body);
        if let Some(area) = areas.code {
            self.draw_code(capture, theme, area, buf);
        }
        if let Some(area) = areas.list {
            self.draw_breakpoints(capture, theme, area, buf);
        }
    }

    fn draw_breakpoints(&self, capture: &Capture, theme: Theme, area: Rect, buf: &mut Buffer) {
        let count = self.breakpoints.len();
        grid::rule(buf, area, theme, "breakpoints", &count.to_string());
        let lines: Vec<_> = self
            .list
            .window(count)
            .map(|i| {
                let pc = self.breakpoints[i];
                let symbol = capture.symbol_at(pc).unwrap_or_else(|| "-".to_owned());
                grid::Line {
                    row: vec![
                        Cell::new(Role::Address, format!("{pc:#x}")),
                        Cell::new(Role::Symbol, symbol),
                    ],
                    changed: false,
                    selected: i == self.list.cursor,
                }
            })
            .collect();
        grid::table(buf, below(area, 1), theme, &["PC", "SYMBOL"], None, &lines);
        if lines.is_empty() {
            let key = keymap::label(Action::Break).unwrap_or_default();
            let text = format!("none: {key} sets one at an address or a symbol");
            grid::note(buf, below(area, 2), theme, &text);
        }
    }

    /// What the panel shows: what the hardware said of the CPU's abort, and the way of its address.
    pub fn panel(&self, capture: &Capture) -> Option<Panel> {
        let cpu = self.cpu(capture)?;
        if let Some(written) = &self.written {
            return Some(facts::written(capture, written));
        }
        Some(facts::cpu(capture, cpu))
    }
}
