//! CPUs, and the registers of one of them decoded.

use super::{Focus, below, split};
use crate::arch::fields::Field;
use crate::arch::{esr, sysreg};
use crate::model::Cpu;
use crate::tui::capture::Capture;
use crate::tui::details;
use crate::tui::grid;
use crate::tui::keymap::Action;
use crate::tui::list::List;
use crate::tui::panel::Panel;
use crate::tui::theme::Theme;
use crate::view::{self, Cell, Role, Row, TRANSLATION_REGISTERS, cpus_table};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// State of the pane.
#[derive(Clone, Default, Debug)]
pub struct Cpus {
    /// The CPU whose registers are shown, by index.
    pub cpu: usize,
    /// Cursor in its registers.
    pub list: List,
    names: Vec<String>,
}

/// The largest number of CPUs that stand in the list at once.
const SHOWN: u16 = 8;

impl Cpus {
    /// Takes a new capture.
    pub fn refresh(&mut self, capture: &Capture) {
        self.cpu = self.cpu.min(capture.system.cpus.len().saturating_sub(1));
        let before = self.names.get(self.list.cursor).cloned();
        self.names = capture
            .system
            .cpus
            .get(self.cpu)
            .map_or_else(Vec::new, order);
        if let Some(at) = self
            .names
            .iter()
            .position(|name| Some(name) == before.as_ref())
        {
            self.list.cursor = at;
        }
    }

    /// The list of CPUs and that of registers.
    fn areas(capture: &Capture, body: Rect) -> (Rect, Rect) {
        let main = split(body).0;
        let cpus = u16::try_from(capture.system.cpus.len())
            .unwrap_or(SHOWN)
            .min(SHOWN);
        let height = (cpus + 2).min(main.height / 2);
        (Rect { height, ..main }, below(main, height))
    }

    /// Takes the size of the screen.
    pub fn settle(&mut self, capture: &Capture, body: Rect) {
        let (_, registers) = Self::areas(capture, body);
        self.list
            .settle(self.names.len(), usize::from(below(registers, 2).height));
    }

    /// Moves; whether the action was one that does.
    pub fn act(&mut self, action: Action, capture: &Capture) -> bool {
        let count = capture.system.cpus.len();
        let cpu = match action {
            Action::Left => self.cpu.saturating_sub(1),
            Action::Right => (self.cpu + 1).min(count.saturating_sub(1)),
            _ => return self.list.act(action, self.names.len()),
        };
        let moved = cpu != self.cpu;
        self.cpu = cpu;
        self.refresh(capture);
        moved
    }

    /// The first CPU in the list.
    fn top(&self, shown: usize) -> usize {
        (self.cpu + 1).saturating_sub(shown)
    }

    /// Puts a cursor where the mouse was pressed.
    pub fn press(&mut self, capture: &Capture, body: Rect, y: u16) -> bool {
        let (cpus, registers) = Self::areas(capture, body);
        let (cpus, registers) = (below(cpus, 2), below(registers, 2));
        if (cpus.top()..cpus.bottom()).contains(&y) {
            let at = self.top(usize::from(cpus.height)) + usize::from(y - cpus.y);
            let known = at < capture.system.cpus.len();
            if known {
                self.cpu = at;
                self.refresh(capture);
            }
            return known;
        }
        let line = y.checked_sub(registers.y).map(usize::from);
        let row = line.and_then(|line| self.list.at_line(line, self.names.len()));
        row.inspect(|row| self.list.cursor = *row).is_some()
    }

    fn selected<'a>(&self, capture: &'a Capture) -> Option<(&'a Cpu, &str, u64)> {
        let cpu = capture.system.cpus.get(self.cpu)?;
        let name = self.names.get(self.list.cursor)?;
        Some((cpu, name, cpu.registers.get(name)?))
    }

    /// What the cursor stands on: the register's value as an address of hyp, or else the PC's.
    pub fn focus(&self, capture: &Capture) -> Focus {
        let Some((_, _, value)) = self.selected(capture) else {
            return Focus::default();
        };
        let (pa, input) = capture.resolve(value);
        Focus {
            pa,
            input,
            value: format!("{value:#x}"),
        }
    }

    /// Draws the pane.
    pub fn draw(&self, capture: &Capture, theme: Theme, body: Rect, buf: &mut Buffer) {
        let (upper, lower) = Self::areas(capture, body);
        let cpus = &capture.system.cpus;
        grid::rule(buf, upper, theme, "CPUs", &cpus.len().to_string());
        let table = cpus_table(&capture.system);
        let shown = usize::from(below(upper, 2).height);
        let rows = table
            .rows
            .into_iter()
            .enumerate()
            .skip(self.top(shown))
            .take(shown);
        let lines: Vec<_> = rows
            .map(|(i, row)| grid::Line {
                row,
                changed: capture.changes.registers.contains(&(i, "pc".to_owned())),
                selected: i == self.cpu,
            })
            .collect();
        grid::table(buf, below(upper, 1), theme, &table.titles, None, &lines);
        let Some(cpu) = cpus.get(self.cpu) else {
            grid::note(buf, below(lower, 1), theme, "no CPU was read");
            return;
        };
        let note = format!("{} registers", self.names.len());
        grid::rule(
            buf,
            lower,
            theme,
            &format!("registers of CPU {}", cpu.number),
            &note,
        );
        let window = self.list.window(self.names.len());
        let lines: Vec<_> = window
            .map(|i| {
                let name = &self.names[i];
                let value = cpu.registers.get(name).unwrap_or(0);
                grid::Line {
                    row: vec![
                        Cell::new(Role::Plain, name.as_str()),
                        Cell::new(Role::Raw, format!("{value:#018x}")),
                        summary(capture, cpu, name, value),
                    ],
                    changed: capture
                        .changes
                        .registers
                        .contains(&(self.cpu, name.clone())),
                    selected: i == self.list.cursor,
                }
            })
            .collect();
        let titles = ["REGISTER", "VALUE", ""];
        grid::table(buf, below(lower, 1), theme, &titles, None, &lines);
    }

    /// What the panel shows: the register, and then where the CPU is.
    pub fn panel(&self, capture: &Capture) -> Option<Panel> {
        let (cpu, name, value) = self.selected(capture)?;
        let mut rows = describe(capture, cpu, name, value);
        rows.extend(place(cpu));
        rows.extend(aborted(capture, cpu));
        rows.extend(calls(cpu));
        Some(Panel::new(name, format!("{value:#018x}"), rows))
    }
}

/// PC and the translation registers first, the general ones after them, then the rest by name.
fn order(cpu: &Cpu) -> Vec<String> {
    let mut names: Vec<String> = cpu.registers.0.keys().cloned().collect();
    let rank = |name: &str| {
        let first = ["pc", "sp", "cpsr"];
        let general = name.strip_prefix('x').and_then(|n| n.parse::<usize>().ok());
        if let Some(at) = first.iter().position(|known| *known == name) {
            (0, at)
        } else if let Some(at) = TRANSLATION_REGISTERS
            .iter()
            .position(|known| *known == name)
        {
            (1, at)
        } else if let Some(n) = general {
            (2, n)
        } else {
            (3, 0)
        }
    };
    names.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    names
}

/// What the value is, on one line.
fn summary(capture: &Capture, cpu: &Cpu, name: &str, value: u64) -> Cell {
    if let Some(symbol) = capture.symbol_at(value) {
        return Cell::new(Role::Symbol, symbol);
    }
    if name == "cpsr" || name == "SPSR_EL2" {
        return Cell::new(Role::Plain, sysreg::pstate(value));
    }
    let told =
        |field: &&Field| field.value != 0 && field.value != value && !field.name.starts_with("RES");
    let fields = details::register(cpu, name, value);
    let texts = fields.iter().filter(told).map(|field| {
        if field.high == field.low {
            field.name.to_owned()
        } else if field.meaning.starts_with("0x") {
            // A piece of an address: where it stands.
            format!("{}={}", field.name, field.meaning)
        } else {
            format!("{}={:#x}", field.name, field.value)
        }
    });
    Cell::new(Role::Dim, texts.collect::<Vec<_>>().join(" "))
}

/// Whose stage 2 is active, and what is loaded.
fn place(cpu: &Cpu) -> Vec<Row> {
    let row = |name: &str, role, value: String| vec![grid::label(name), Cell::new(role, value)];
    let stage2 = cpu.stage2.clone();
    let mut rows: Vec<Row> = stage2
        .into_iter()
        .map(|name| row("stage 2", Role::Plain, name))
        .collect();
    rows.extend(cpu.vcpu.map(|(vm, number)| {
        let text = format!("{number} of VM {vm:#x}");
        row("vCPU", Role::Guest, text)
    }));
    rows
}

/// The lines where the CPU is, and the way back.
fn calls(cpu: &Cpu) -> Vec<Row> {
    let frames = view::frames(cpu);
    let mut rows = Vec::new();
    let mut depth = 0;
    for frame in &frames {
        let here = depth == 0 && !frame.inlined;
        let label = match frame.inlined {
            true => "inlined".to_owned(),
            false => format!("call {depth}"),
        };
        depth += usize::from(!frame.inlined);
        if here && frame.source.is_none() {
            continue;
        }
        let (role, name) = match &frame.symbol {
            Some(symbol) => (Role::Symbol, symbol.clone()),
            None => (Role::Address, format!("{:#x}", frame.pc)),
        };
        let label = if here { "PC" } else { &label };
        let mut row = vec![grid::label(label), Cell::new(role, name)];
        let source = frame.source.as_ref();
        row.extend(source.map(|source| Cell::new(Role::Dim, source.to_string())));
        rows.push(row);
    }
    rows
}

/// The abort that brought the CPU to EL2, or the last one that did.
fn aborted(capture: &Capture, cpu: &Cpu) -> Vec<Row> {
    let Some(abort) = view::abort(&capture.system, cpu) else {
        return Vec::new();
    };
    let row = |name: &str, role, value: String| vec![grid::label(name), Cell::new(role, value)];
    let mut rows = vec![row("abort", Role::Plain, esr::describe(abort.esr))];
    rows.extend(
        abort
            .symbol
            .clone()
            .map(|symbol| row("from", Role::Symbol, symbol)),
    );
    rows.extend(
        abort
            .ipa
            .map(|ipa| row("IPA", Role::Address, format!("{ipa:#x}"))),
    );
    rows.extend(abort.now_text().map(|now| row("now", Role::Plain, now)));
    rows
}

fn describe(capture: &Capture, cpu: &Cpu, name: &str, value: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    if let Some(symbol) = capture.symbol_at(value) {
        rows.push(vec![grid::label("symbol"), Cell::new(Role::Symbol, symbol)]);
    }
    rows.extend(details::field_rows(&details::register(cpu, name, value)));
    if rows.is_empty() {
        rows.push(vec![Cell::new(
            Role::Dim,
            "a plain number: no fields, no symbol",
        )]);
    }
    rows
}
