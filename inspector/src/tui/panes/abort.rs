//! Host aborts: the CPU that handles one, how far it has come, its code, what the hardware said, the walk of the faulting
//! address; those of this session; breakpoints.

mod code;
mod facts;
mod history;
mod stages;

use super::{Focus, below, split};
use crate::abort::trap::HOST_STAGE2;
use crate::abort::{Outcome, Story};
use crate::model::Cpu;
use crate::tui::capture::Capture;
use crate::tui::grid;
use crate::tui::keymap::{self, Action};
use crate::tui::list::List;
use crate::tui::panel::Panel;
use crate::tui::state::Followed;
use crate::tui::theme::Theme;
use crate::tui::worker::Written;
use crate::view::{self, Cell, Role};
use history::{History, Told};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stages::{Idle, Way};
use std::sync::Arc;

/// What the pane shows; where there is room, the code stands above any other.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum View {
    /// The code around the chosen CPU's program counter.
    #[default]
    Code,
    /// The aborts that were followed in this session.
    History,
    /// How many each region had.
    Regions,
    /// The user's breakpoints.
    Breakpoints,
}

impl View {
    fn next(self) -> Self {
        match self {
            Self::Code => Self::History,
            Self::History => Self::Regions,
            Self::Regions => Self::Breakpoints,
            Self::Breakpoints => Self::Code,
        }
    }
}

/// From so many lines on there is room for the code and a list below it.
const TALL: u16 = 28;
/// From so many columns on the stages stand in a column beside the code.
const WIDE: u16 = 100;
/// Elsewhere they are a line, with one for what was done last.
const LINES: u16 = 2;
/// Width of that column.
const STAGES: u16 = 38;

/// State of the pane.
#[derive(Clone, Default, Debug)]
pub struct Abort {
    /// The CPU that is shown and stepped, by index.
    pub cpu: usize,
    /// What is shown.
    pub view: View,
    /// Cursor in the list of breakpoints, or of regions.
    pub list: List,
    /// The aborts that were followed.
    pub history: History,
    /// Aborts are followed from their entry on.
    pub armed: bool,
    /// Which of them.
    pub followed: Followed,
    /// Those that are not at their end.
    pub under_way: Vec<Arc<Story>>,
    /// Addresses of the user's breakpoints.
    pub breakpoints: Vec<u64>,
    /// The write that the machine was stopped for.
    pub written: Option<Written>,
}

/// Where the parts of the pane are.
struct Areas {
    /// The stages, in a column or in a line.
    stages: Rect,
    code: Option<Rect>,
    list: Option<Rect>,
}

impl Abort {
    fn areas(&self, body: Rect) -> Areas {
        let main = split(body).0;
        let tall = main.height >= TALL;
        let upper = if tall {
            main.height * 3 / 5
        } else {
            main.height
        };
        let upper = Rect {
            height: upper,
            ..main
        };
        let (stages, rest) = match main.width >= WIDE {
            true => columns(upper, STAGES),
            false => (
                Rect {
                    height: LINES.min(upper.height),
                    ..upper
                },
                below(upper, LINES),
            ),
        };
        let is_code = self.view == View::Code;
        Areas {
            stages,
            code: (tall || is_code).then_some(rest),
            list: match tall {
                true => Some(below(main, upper.height)),
                false => (!is_code).then_some(rest),
            },
        }
    }

    /// How many rows the list has.
    fn rows(&self) -> usize {
        match self.view {
            View::Code | View::History => self.history.len(),
            View::Regions => self.history.places(),
            View::Breakpoints => self.breakpoints.len(),
        }
    }

    /// The cursor of the list.
    fn cursor(&mut self) -> &mut List {
        match self.view {
            View::Code | View::History => &mut self.history.list,
            View::Regions | View::Breakpoints => &mut self.list,
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
        let rows = self.rows();
        self.cursor().settle(rows, usize::from(height));
    }

    /// Moves; whether the action was one that does.
    pub fn act(&mut self, action: Action, capture: &Capture) -> bool {
        let last = capture.system.cpus.len().saturating_sub(1);
        match action {
            Action::Left => self.choose(self.cpu.saturating_sub(1)),
            Action::Right => self.choose((self.cpu + 1).min(last)),
            Action::View => {
                self.view = self.view.next();
                self.list = List::default();
                true
            }
            _ => {
                let rows = self.rows();
                self.cursor().act(action, rows)
            }
        }
    }

    /// Shows another CPU; whether it is one.
    pub fn choose(&mut self, cpu: usize) -> bool {
        std::mem::replace(&mut self.cpu, cpu) != cpu
    }

    /// The breakpoint under the cursor, where breakpoints are shown.
    pub fn breakpoint(&self) -> Option<u64> {
        let shown = self.view == View::Breakpoints;
        let breakpoints = Some(&self.breakpoints).filter(|_| shown)?;
        breakpoints.get(self.list.cursor).copied()
    }

    /// Puts the cursor on a line of the screen.
    pub fn press(&mut self, body: Rect, y: u16) -> bool {
        let Some(list) = self.areas(body).list else {
            return false;
        };
        let line = y.checked_sub(below(list, 2).y).map(usize::from);
        let rows = self.rows();
        let cursor = self.cursor();
        let row = line.and_then(|line| cursor.at_line(line, rows));
        row.inspect(|row| cursor.cursor = *row).is_some()
    }

    fn cpu<'a>(&self, capture: &'a Capture) -> Option<&'a Cpu> {
        capture.system.cpus.get(self.cpu)
    }

    /// What the pane is about: the address that the CPU faulted at, or else its program counter.
    pub fn focus(&self, capture: &Capture) -> Focus {
        let Some(cpu) = self.cpu(capture) else {
            return Focus::default();
        };
        let ipa = match self.told() {
            Some(told) => told.story.fault().and_then(|fault| fault.ipa),
            None => view::abort(&capture.system, cpu).and_then(|abort| abort.ipa),
        };
        let host = capture
            .system
            .regimes
            .iter()
            .position(|regime| regime.name == HOST_STAGE2);
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

    /// The abort that is chosen in the history, where that is shown.
    fn told(&self) -> Option<&Told> {
        let shown = self.view == View::History;
        self.history.selected().filter(|_| shown)
    }

    /// The last abort of the CPU, if it was followed and its registers still tell of it, or it panicked there.
    fn ended(&self, capture: &Capture) -> Option<&Told> {
        let registers = &self.cpu(capture)?.registers;
        let told = self.history.last_of(self.cpu)?;
        let fault = told.story.fault()?;
        let same = registers.get("ESR_EL2") == Some(told.story.esr)
            && registers.get("HPFAR_EL2") == Some(fault.hpfar)
            && registers.get("FAR_EL2") == Some(fault.far);
        // A panic may be an exception of EL2's own, of which the registers tell then.
        let exit = told.story.road.exit.as_ref().map(|exit| exit.pc);
        let is_panic = matches!(told.story.outcome, Outcome::Panic { .. });
        let stands = is_panic && exit.is_some() && registers.get("pc") == exit;
        (same || stands).then_some(told)
    }

    /// The abort that the CPU is in, if it is followed.
    fn current(&self) -> Option<&Arc<Story>> {
        self.under_way.iter().find(|story| story.cpu == self.cpu)
    }

    /// What is said where there is no abort whose stages could be shown.
    fn idle(&self) -> Idle {
        let followed = self.followed.to_string();
        Idle {
            why: match self.armed {
                false => "no abort followed",
                true => "armed; this CPU is in no abort",
            },
            only: (!followed.is_empty()).then(|| format!("only {followed}")),
        }
    }

    /// The abort whose stages are shown.
    fn way(&self, capture: &Capture) -> Option<Way<'_>> {
        let way = |story, ended| Way { story, ended };
        if let Some(told) = self.told() {
            return Some(way(&told.story, true));
        }
        let current = self.current().map(|story| way(story, false));
        current.or_else(|| self.ended(capture).map(|told| way(&told.story, true)))
    }

    /// Draws the pane.
    pub fn draw(&self, capture: &Capture, theme: Theme, body: Rect, buf: &mut Buffer) {
        let areas = self.areas(body);
        let way = self.way(capture);
        let idle = self.idle();
        match areas.stages.height {
            0..=LINES => stages::draw_line(way, &idle, theme, areas.stages, buf),
            _ => stages::draw_column(way, &idle, theme, areas.stages, buf),
        }
        if let Some(area) = areas.code {
            self.draw_code(capture, theme, area, buf);
        }
        let Some(area) = areas.list else {
            return;
        };
        match self.view {
            View::Code | View::History => self.history.draw(theme, area, buf),
            View::Regions => self.history.draw_places(&self.list, theme, area, buf),
            View::Breakpoints => self.draw_breakpoints(capture, theme, area, buf),
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
        if let Some(told) = self.told() {
            return Some(facts::told(told));
        }
        Some(match (self.current(), self.ended(capture)) {
            (None, Some(told)) => facts::told(told),
            (current, _) => facts::cpu(capture, cpu, current.map(Arc::as_ref)),
        })
    }
}

/// A column at the left, and the rest.
fn columns(area: Rect, width: u16) -> (Rect, Rect) {
    let left = Rect {
        width: width.min(area.width),
        ..area
    };
    let right = Rect {
        x: left.right() + 1,
        width: area.width.saturating_sub(left.width + 1),
        ..area
    };
    (left, right)
}
