//! Instructions on the screen.

use super::Abort;
use crate::arch::disassembly::disassemble;
use crate::model::Cpu;
use crate::tui::capture::Capture;
use crate::tui::code::Code;
use crate::tui::details;
use crate::tui::grid;
use crate::tui::panes::below;
use crate::tui::source::Listing;
use crate::tui::theme::Theme;
use crate::view::Role;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// From so many columns on the words stand beside the instructions.
const WITH_WORDS: u16 = 64;

/// From so many lines on the source stands above the instructions.
const WITH_SOURCE: u16 = 9;

/// So many columns of a function's name are worth more than a file's folders.
const PLACE: u16 = 36;

/// So many columns of the name of a function that was inlined.
const NAME: u16 = 24;

/// A line of code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Line {
    /// Where a function begins.
    Label(u64),
    Instruction(u64),
}

/// All lines of a piece of code.
fn lines(capture: &Capture, code: &Code) -> Vec<Line> {
    let addresses = (0..code.words.len() as u64).map(|at| code.start.wrapping_add(at * 4));
    let with_label = |pc: u64| {
        let name = capture.symbol_at(pc);
        let label = name.is_some_and(|name| !name.contains("+0x"));
        label
            .then_some(Line::Label(pc))
            .into_iter()
            .chain([Line::Instruction(pc)])
    };
    addresses.flat_map(with_label).collect()
}

impl Abort {
    pub(super) fn draw_code(&self, capture: &Capture, theme: Theme, area: Rect, buf: &mut Buffer) {
        let Some(cpu) = self.cpu(capture) else {
            grid::rule(buf, area, theme, "code", "");
            grid::note(buf, below(area, 1), theme, "no CPU was read");
            return;
        };
        let level = cpu.el.map_or_else(String::new, |el| format!(" · EL{el}"));
        let place = details::place(cpu).unwrap_or_else(|| "?".to_owned());
        let armed = if self.armed { "armed, " } else { "" };
        let note = format!(
            "{armed}{} of {} CPUs",
            self.cpu + 1,
            capture.system.cpus.len()
        );
        // Names and paths are long; the line, and how many CPUs there are, are not to be pushed out by them.
        let start = format!("CPU {}{level} · ", cpu.number);
        let others = grid::width(&start) + grid::width(&note) + 8;
        let room = area.width.saturating_sub(others);
        let source = cpu.source.as_ref().map_or_else(String::new, |source| {
            let whole = format!(" · {source}");
            let folders = source
                .file
                .rfind('/')
                .filter(|_| grid::width(&whole) + PLACE > room);
            let file = folders.map_or(source.file.as_str(), |at| &source.file[at + 1..]);
            format!(" · {file}:{}", source.line)
        });
        let place = grid::shorten(&place, room.saturating_sub(grid::width(&source)));
        let title = format!("{start}{place}{source}");
        grid::rule(buf, area, theme, &title, &note);
        let mut inside = below(area, 1);
        let listing = capture.source.get(self.cpu).and_then(Option::as_ref);
        if let (Some(listing), Some(source)) = (listing, &cpu.source)
            && inside.height >= WITH_SOURCE
        {
            let upper = inside.height / 2;
            let area = Rect {
                height: upper,
                ..inside
            };
            draw_source(listing, source.line, theme, area, buf);
            inside = below(inside, upper);
            let title = format!("instructions{}", inlined(cpu));
            let title = grid::shorten(&title, inside.width.saturating_sub(4));
            grid::rule(buf, inside, theme, &title, "");
            inside = below(inside, 1);
        }
        let code = capture.code.get(self.cpu).filter(|code| code.is_code());
        match (code, cpu.pc) {
            (Some(code), Some(pc)) => self.draw_lines(capture, cpu, code, pc, theme, inside, buf),
            _ => draw_calls(cpu, theme, inside, buf),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what is drawn, and where")]
    fn draw_lines(
        &self,
        capture: &Capture,
        cpu: &Cpu,
        code: &Code,
        pc: u64,
        theme: Theme,
        area: Rect,
        buf: &mut Buffer,
    ) {
        let lines = lines(capture, code);
        let at = lines.iter().position(|line| *line == Line::Instruction(pc));
        let first = at.unwrap_or(0).saturating_sub(usize::from(area.height) / 3);
        let e2h = cpu.el == Some(2)
            && cpu
                .registers
                .get("HCR_EL2")
                .is_some_and(|hcr| hcr >> 34 & 1 == 1);
        for (y, line) in (area.top()..area.bottom()).zip(&lines[first..]) {
            let address = match *line {
                Line::Label(address) => {
                    let name = capture.symbol_at(address).unwrap_or_default();
                    grid::text(
                        buf,
                        area,
                        area.x + 1,
                        y,
                        &format!("{name}:"),
                        theme.role(Role::Symbol),
                    );
                    continue;
                }
                Line::Instruction(address) => address,
            };
            let x = grid::text(
                buf,
                area,
                area.x + 3,
                y,
                &format!("{address:#x}"),
                theme.dim(),
            ) + 2;
            let Some(word) = code.word_at(address) else {
                grid::text(buf, area, x, y, "not mapped, or unreadable", theme.dim());
                continue;
            };
            let x = match area.width >= WITH_WORDS {
                true => {
                    grid::text(
                        buf,
                        area,
                        x,
                        y,
                        &format!("{word:08x}"),
                        theme.role(Role::Raw),
                    ) + 2
                }
                false => x,
            };
            let instruction = disassemble(word, address, e2h, |target| capture.symbol_at(target));
            grid::text(
                buf,
                area,
                x,
                y,
                &instruction.to_string(),
                theme.role(Role::Plain),
            );
            if address == pc {
                let row = Rect {
                    y,
                    height: 1,
                    ..area
                };
                buf.set_style(row.intersection(buf.area), theme.selected());
                grid::text(buf, area, area.x + 1, y, "▶", theme.active());
            }
            if self.breakpoints.contains(&address) {
                grid::text(buf, area, area.x, y, "●", theme.problem());
            }
        }
    }
}

/// The source around a line, which is marked.
fn draw_source(listing: &Listing, line: u32, theme: Theme, area: Rect, buf: &mut Buffer) {
    let at = line.saturating_sub(listing.first) as usize;
    let first = at.saturating_sub(usize::from(area.height) / 2);
    let lines = listing.lines.iter().enumerate().skip(first);
    for (y, (i, text)) in (area.top()..area.bottom()).zip(lines) {
        let number = format!("{:>5}", listing.first as usize + i);
        let x = grid::text(buf, area, area.x + 3, y, &number, theme.dim()) + 2;
        grid::text(buf, area, x, y, text, theme.role(Role::Plain));
        if i == at {
            let row = Rect {
                y,
                height: 1,
                ..area
            };
            buf.set_style(row.intersection(buf.area), theme.selected());
            grid::text(buf, area, area.x + 1, y, "▶", theme.active());
        }
    }
}

/// The functions that were inlined where a CPU is, innermost first, each with the line in it.
fn inlined(cpu: &Cpu) -> String {
    let frames = cpu.inlines.iter().map(|frame| {
        let name = frame.symbol.as_deref().unwrap_or("?");
        let source = frame.source.as_ref().map_or_else(String::new, |source| {
            let file = source.file.rsplit('/').next().unwrap_or_default();
            format!(" {file}:{}", source.line)
        });
        // The innermost one's line is not to be pushed out by its path.
        format!(" · inlined {}{source}", grid::shorten(name, NAME))
    });
    frames.collect()
}

/// Where there is no code to be seen: the functions that the CPU is in.
fn draw_calls(cpu: &Cpu, theme: Theme, area: Rect, buf: &mut Buffer) {
    grid::note(
        buf,
        area,
        theme,
        "memory holds no instructions here, or they cannot be read",
    );
    let frames = cpu.calls.iter().map(|frame| match &frame.symbol {
        Some(symbol) => symbol.clone(),
        None => format!("{:#x}", frame.pc),
    });
    let calls = details::place(cpu).into_iter().chain(frames);
    let area = below(area, 2);
    for ((y, place), depth) in (area.top()..area.bottom()).zip(calls).zip(0..) {
        let (mark, style) = match depth {
            0 => ("▶ ", theme.active()),
            _ => ("  called from ", theme.dim()),
        };
        let x = grid::text(buf, area, area.x + 1, y, mark, style);
        grid::text(buf, area, x, y, &place, theme.role(Role::Symbol));
    }
}
