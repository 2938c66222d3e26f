//! The whole screen: header, tabs, the pane, the status line and the keys.

use super::grid;
use super::keymap::{Group, KEYMAP, footer};
use super::panes::locks::span;
use super::panes::{self, PaneId};
use super::state::{Link, PromptKind, RATES, State, seconds};
use super::theme::Theme;
use crate::model::HypervisorKind;
use crate::target::RunState;
use crate::tui::details;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use std::time::Duration;

/// The smallest screen that everything fits on.
const SMALLEST: (u16, u16) = (76, 16);

/// Where the parts are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    header: Rect,
    cpus: Rect,
    /// A line in red: the link is lost, or what is wrong with the machine.
    banner: Rect,
    /// The names of the panes.
    pub(super) tabs: Rect,
    /// The pane.
    pub(super) body: Rect,
    status: Rect,
    keys: Rect,
}

impl Layout {
    /// Where the help screen is: from the tabs to the status line.
    pub(super) fn help(&self) -> Rect {
        Rect {
            y: self.tabs.y,
            height: self.keys.y.saturating_sub(self.tabs.y),
            ..self.tabs
        }
    }
}

/// Lays the screen out.
pub(super) fn layout(state: &State) -> Layout {
    let area = state.area;
    let line = |y: u16| {
        Rect {
            y: area.y + y,
            height: 1,
            ..area
        }
        .intersection(area)
    };
    let faults = state
        .capture
        .as_ref()
        .is_some_and(|capture| !capture.faults.is_empty());
    let banner = u16::from(faults || state.link != Link::Up);
    let top = 3 + banner;
    let bottom = area.height.saturating_sub(2);
    Layout {
        header: line(0),
        cpus: line(1),
        banner: Rect {
            height: banner.min(area.height),
            ..line(2)
        }
        .intersection(area),
        tabs: line(2 + banner),
        body: Rect {
            y: area.y + top.min(area.height),
            height: bottom.saturating_sub(top),
            ..area
        },
        status: line(bottom),
        keys: line(bottom + 1),
    }
}

/// Draws everything.
pub(super) fn draw(state: &State, frame: &mut Frame<'_>) {
    let cursor = draw_on(state, frame.buffer_mut());
    if let Some(position) = cursor {
        frame.set_cursor_position(position);
    }
}

/// Draws everything; answers where the terminal's own cursor belongs while something is typed.
fn draw_on(state: &State, buf: &mut Buffer) -> Option<Position> {
    let theme = state.theme;
    if buf.area.width < SMALLEST.0 || buf.area.height < SMALLEST.1 {
        let (width, height) = SMALLEST;
        let text = format!("{}×{} is too small", buf.area.width, buf.area.height);
        grid::text(buf, buf.area, 0, 0, &text, theme.problem());
        let text = format!("{width}×{height} are needed");
        grid::text(buf, buf.area, 0, 1, &text, theme.dim());
        return None;
    }
    let layout = layout(state);
    draw_header(state, layout.header, buf);
    draw_cpus(state, layout.cpus, buf);
    draw_banner(state, layout.banner, buf);
    draw_keys(state, layout.keys, buf);
    if let Some(scroll) = state.help {
        draw_help(theme, scroll, layout.help(), buf);
        return None;
    }
    draw_tabs(state, layout.tabs, buf);
    draw_pane(state, layout.body, buf);
    draw_status(state, layout, buf)
}

/// Pieces of a line, each in its style, two columns apart.
fn pieces(buf: &mut Buffer, area: Rect, pieces: &[(String, Style)]) {
    let mut x = area.x + 1;
    for (text, style) in pieces.iter().filter(|(text, _)| !text.is_empty()) {
        if x + grid::width(text) > area.right() {
            break;
        }
        x = grid::text(buf, area, x, area.y, text, *style) + 2;
    }
}

fn draw_header(state: &State, area: Rect, buf: &mut Buffer) {
    let theme = state.theme;
    buf.set_style(area, theme.bar());
    let run = match (&state.link, &state.run) {
        (Link::Lost { .. }, _) => ("✗ link lost".to_owned(), theme.problem()),
        (_, Some(RunState::Running)) => ("▶ running".to_owned(), theme.active()),
        (_, Some(RunState::Exited)) => ("✗ exited".to_owned(), theme.problem()),
        (_, Some(RunState::Stopped { cpu, reason })) => {
            let cpu = cpu.map_or_else(String::new, |cpu| format!(" on CPU {cpu}"));
            (format!("■ stopped{cpu}: {reason}"), theme.title())
        }
        (_, None) if state.live => ("■ stopped".to_owned(), theme.title()),
        (_, None) => ("□ file".to_owned(), theme.dim()),
    };
    let hypervisor = state.capture.as_ref().map_or_else(String::new, |capture| {
        let found = &capture.system.hypervisor;
        let kind = match found.kind {
            HypervisorKind::Hyp => "hyp",
            HypervisorKind::Pkvm => "pKVM",
            HypervisorKind::None => "no hypervisor",
        };
        [Some(kind), found.release.as_deref(), found.mode]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" ")
    });
    let age = state.now.saturating_sub(state.captured_at);
    let capture = match (&state.capture, state.working) {
        (_, Some(what)) => format!("{what}…"),
        (Some(capture), None) => format!("capture {}, {} ago", capture.number, span(age)),
        (None, None) => String::new(),
    };
    let frozen = match (state.frozen, &state.newer) {
        (true, Some(newer)) => format!("FROZEN (there is {})", newer.number),
        (true, None) => "FROZEN".to_owned(),
        (false, _) => String::new(),
    };
    let rate = match RATES[state.rate] {
        _ if !state.live || state.frozen => String::new(),
        Some(rate) => format!("every {}", seconds(rate)),
        None => "on demand".to_owned(),
    };
    pieces(
        buf,
        area,
        &[
            ("inspector".to_owned(), theme.title()),
            (state.target.clone(), Style::new()),
            run,
            (frozen, theme.active()),
            (capture, Style::new()),
            (rate, theme.dim()),
            (hypervisor, theme.dim()),
        ],
    );
}

/// Every CPU in a column of its own: number, exception level, where it stands.
fn draw_cpus(state: &State, area: Rect, buf: &mut Buffer) {
    let theme = state.theme;
    let cpus = state
        .capture
        .as_ref()
        .map_or(&[][..], |capture| &capture.system.cpus);
    let room = area.width.saturating_sub(1);
    let columns = u16::try_from(cpus.len())
        .unwrap_or(u16::MAX)
        .clamp(1, (room / 18).max(1));
    let share = (room / columns).min(40);
    for (i, cpu) in (0..columns).zip(cpus) {
        let column = Rect {
            x: area.x + 1 + i * share,
            width: share - 1,
            ..area
        };
        let more = cpus.len() - usize::from(i);
        if i + 1 == columns && more > 1 {
            grid::text(
                buf,
                column,
                column.x,
                column.y,
                &format!("+{more} more"),
                theme.dim(),
            );
            break;
        }
        let level = cpu
            .el
            .map_or_else(|| "EL?".to_owned(), |el| format!("EL{el}"));
        let el2 = cpu.el.is_some_and(|el| el >= 2);
        let style = if el2 { theme.active() } else { theme.dim() };
        let number = format!("{} ", cpu.number);
        let x = grid::text(buf, column, column.x, column.y, &number, theme.dim());
        let x = grid::text(buf, column, x, column.y, &level, style) + 1;
        let place = details::place(cpu).unwrap_or_else(|| "?".into());
        let place = grid::shorten(&place, column.right().saturating_sub(x));
        grid::text(buf, column, x, column.y, &place, Style::new());
    }
}

fn draw_banner(state: &State, area: Rect, buf: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let theme = state.theme;
    let text = match (&state.link, &state.capture) {
        (Link::Lost { reason, since }, _) => {
            let time = span(state.now.saturating_sub(*since));
            format!(" ✗ link lost {time} ago, trying every second · {reason}")
        }
        (Link::Up, Some(capture)) => match capture.faults.as_slice() {
            [] => return,
            [one] => format!(" ! {one} "),
            [first, rest @ ..] => format!(" ! {} problems: {first}; {} ", rest.len() + 1, rest[0]),
        },
        (Link::Up, None) => return,
    };
    buf.set_style(area, theme.banner());
    grid::text(buf, area, area.x, area.y, &text, theme.banner());
}

fn tab(pane: PaneId, number: usize) -> String {
    format!(" {number} {} ", pane.title())
}

/// The pane whose tab is at a column.
pub(super) fn tab_at(x: u16) -> Option<PaneId> {
    let mut at = 0;
    PaneId::ALL.into_iter().zip(1..).find_map(|(pane, number)| {
        at += grid::width(&tab(pane, number));
        (x < at).then_some(pane)
    })
}

fn draw_tabs(state: &State, area: Rect, buf: &mut Buffer) {
    let mut x = area.x;
    for (pane, number) in PaneId::ALL.into_iter().zip(1..) {
        let style = if pane == state.pane {
            state.theme.tab()
        } else {
            state.theme.dim()
        };
        x = grid::text(buf, area, x, area.y, &tab(pane, number), style);
    }
}

fn draw_pane(state: &State, body: Rect, buf: &mut Buffer) {
    let theme = state.theme;
    let Some(capture) = &state.capture else {
        let text = state
            .working
            .map_or("waiting for the machine", |_| "reading the machine…");
        grid::note(buf, body, theme, text);
        return;
    };
    match state.pane {
        PaneId::Map => panes::map::draw(&state.map, capture, theme, body, buf),
        PaneId::Tables => panes::tables::draw(&state.tables, capture, theme, body, buf),
        PaneId::Runs => state.runs.draw(capture, theme, body, buf),
        PaneId::Owners => state.owners.draw(capture, theme, body, buf),
        PaneId::Page => state.page.draw(capture, theme, body, buf),
        PaneId::Locks => state.locks.draw(capture, state.now, theme, body, buf),
        PaneId::Cpus => state.cpus.draw(capture, theme, body, buf),
        PaneId::Vms => state.vms.draw(capture, theme, body, buf),
        PaneId::Abort => state.abort.draw(capture, theme, body, buf),
    }
    state.draw_panel(buf);
}

/// The status line: a question, a filter, a message, or what the cursor stands on.
fn draw_status(state: &State, layout: Layout, buf: &mut Buffer) -> Option<Position> {
    let theme = state.theme;
    let area = layout.status;
    let typed = |buf: &mut Buffer, label: &str, input: &tui_input::Input, typing: bool| {
        let x = grid::text(buf, area, area.x + 1, area.y, label, theme.title());
        let room = area.right().saturating_sub(x + 1);
        let scroll = input.visual_scroll(usize::from(room));
        let visible: String = input.value().chars().skip(scroll).collect();
        grid::text(buf, area, x, area.y, &visible, Style::new());
        let cursor = u16::try_from(input.visual_cursor() - scroll.min(input.visual_cursor()));
        typing.then(|| Position::new((x + cursor.unwrap_or(0)).min(area.right() - 1), area.y))
    };
    if let Some(prompt) = &state.prompt {
        let label = match prompt.kind {
            PromptKind::Goto => "go to (0x…, host-s2:0x…, symbol): ",
            PromptKind::Save => "save a snapshot to: ",
            PromptKind::Export => "save these aborts as JSON to: ",
            PromptKind::Break => "break at (0x…, symbol): ",
            PromptKind::Until => "run until: ",
            PromptKind::Wanted => "follow only (empty: every abort): ",
        };
        draw_matches(state, layout.body, buf);
        return typed(buf, label, &prompt.input, true);
    }
    let sieve = match state.pane {
        PaneId::Runs => Some(&state.runs.sieve),
        PaneId::Owners => Some(&state.owners.sieve),
        PaneId::Abort => Some(&state.abort.history.sieve),
        _ => None,
    };
    if let Some(sieve) = sieve.filter(|sieve| sieve.typing) {
        return typed(buf, "filter: ", &sieve.filter, true);
    }
    if let Some(message) = &state.message {
        let style = if message.problem {
            theme.problem()
        } else {
            theme.active()
        };
        grid::text(buf, area, area.x + 1, area.y, &message.text, style);
        return None;
    }
    if let Some(sieve) = sieve.filter(|sieve| !sieve.filter.value().is_empty()) {
        return typed(buf, "filter: ", &sieve.filter, false);
    }
    grid::text(buf, area, area.x + 1, area.y, &status(state), theme.dim());
    None
}

/// What the cursor stands on, in the address spaces that have it.
fn status(state: &State) -> String {
    let Some(capture) = &state.capture else {
        return String::new();
    };
    let focus = state.focus();
    let input = focus.input.and_then(|(regime, ia)| {
        Some(format!(
            "{} {ia:#x}",
            capture.system.regimes.get(regime)?.name
        ))
    });
    let pa = focus.pa.map(|pa| format!("pa {pa:#x}"));
    let owner = focus.pa.and_then(|pa| capture.owner_at(pa));
    let owner = owner.map(|range| format!("owner {}", range.owner));
    let symbol = focus.input.and_then(|(_, ia)| capture.symbol_at(ia));
    [input, pa, owner, symbol]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("   ")
}

/// The symbols offered for what is being typed, above the status line.
fn draw_matches(state: &State, body: Rect, buf: &mut Buffer) {
    let Some(prompt) = state
        .prompt
        .as_ref()
        .filter(|prompt| !prompt.matches.is_empty())
    else {
        return;
    };
    let count = u16::try_from(prompt.matches.len())
        .unwrap_or(0)
        .min(body.height);
    let area = Rect {
        y: body.bottom() - count,
        height: count,
        ..body
    };
    for (i, (y, name)) in (area.top()..area.bottom()).zip(&prompt.matches).enumerate() {
        let line = Rect {
            y,
            height: 1,
            ..area
        };
        buf.set_style(line, Style::reset());
        grid::text(
            buf,
            line,
            line.x,
            y,
            &" ".repeat(usize::from(line.width)),
            state.theme.bar(),
        );
        let style = if prompt.chosen == Some(i) {
            state.theme.selected()
        } else {
            state.theme.bar()
        };
        grid::text(buf, line, line.x + 1, y, name, style);
    }
}

fn draw_keys(state: &State, area: Rect, buf: &mut Buffer) {
    let theme = state.theme;
    buf.set_style(area, theme.bar());
    // Help and the way out stand at the right, whatever else there is room for.
    let keys: Vec<_> = footer(state.pane).collect();
    let (most, last) = keys.split_at(keys.len().saturating_sub(2));
    let item = |(key, short): &(String, &str)| grid::width(key) + grid::width(short) + 3;
    let reserve: u16 = last.iter().map(item).sum();
    let put = |buf: &mut Buffer, x: u16, (key, short): &(String, &str)| {
        let x = grid::text(buf, area, x, area.y, key, theme.title());
        grid::text(buf, area, x + 1, area.y, short, theme.dim()) + 2
    };
    let mut x = area.x + 1;
    for key in most {
        if x + item(key) + reserve > area.right() {
            break;
        }
        x = put(buf, x, key);
    }
    let mut x = area.right().saturating_sub(reserve);
    for key in last {
        x = put(buf, x, key);
    }
}

/// The lines of the help screen: headings and keys.
fn help() -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for group in Group::ALL {
        lines.push((group.title().to_owned(), String::new()));
        for binding in KEYMAP.iter().filter(|binding| binding.group == group) {
            let keys: Vec<_> = binding.keys.iter().map(|key| key.label()).collect();
            let panes: Vec<_> = binding.panes.iter().map(|pane| pane.title()).collect();
            let all = binding.panes.is_empty() || panes.len() == PaneId::ALL.len();
            let panes = if all {
                String::new()
            } else {
                format!(" [{}]", panes.join(", "))
            };
            lines.push((keys.join(" "), format!("{}{panes}", binding.help)));
        }
        lines.push((String::new(), String::new()));
    }
    lines.pop();
    lines
}

/// How far the help screen can be scrolled.
pub(super) fn help_lines(area: Rect) -> u16 {
    let lines = u16::try_from(help().len()).unwrap_or(u16::MAX);
    lines.saturating_sub(area.height.saturating_sub(1))
}

/// The help screen takes the place of tabs and pane; the header and the keys stay.
fn draw_help(theme: Theme, scroll: u16, area: Rect, buf: &mut Buffer) {
    let lines = help();
    grid::rule(buf, area, theme, "Keys", "↑ ↓ scroll, any other key closes");
    let inside = panes::below(area, 1);
    let scroll = usize::from(scroll.min(help_lines(area)));
    let rows = inside.top()..inside.bottom();
    for (y, (keys, text)) in rows.zip(lines.iter().skip(scroll)) {
        if text.is_empty() {
            grid::text(buf, inside, inside.x + 1, y, keys, theme.active());
        } else {
            grid::text(buf, inside, inside.x + 3, y, keys, theme.title());
            grid::text(buf, inside, inside.x + 20, y, text, Style::new());
        }
    }
}

/// How long until the screen changes by itself: the age of the capture counts seconds.
pub(super) fn until_next_second(now: Duration) -> Duration {
    Duration::from_secs(now.as_secs() + 1) - now
}
