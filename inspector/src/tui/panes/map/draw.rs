//! The map on the screen.

use super::Map;
use super::rows::Line;
use crate::addr::Span;
use crate::tui::capture::{Capture, Class, Space};
use crate::tui::details;
use crate::tui::grid;
use crate::tui::panel::Panel;
use crate::tui::panes::{below, split_map};
use crate::tui::theme::Theme;
use crate::view::{Cell, Role, Row, size_text};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// What one cell shows.
struct Look {
    glyph: char,
    ground: Class,
    ink: Class,
    changed: bool,
}

/// Sums up a cell: the ground is what fills most of it, the ink what is most notable in it.
fn look(space: &Space, cell: Span, aborted: bool) -> Look {
    let mut look = Look {
        glyph: ' ',
        ground: Class::Nothing,
        ink: Class::Nothing,
        changed: false,
    };
    let mut bytes = [0_u64; Class::ALL.len()];
    let end = cell.start.saturating_add(cell.size);
    for area in space.within(cell) {
        let to = area.span.start.saturating_add(area.span.size).min(end);
        bytes[area.class as usize] += to - area.span.start.max(cell.start);
        look.ink = look.ink.max(area.class);
        look.changed |= area.changed;
    }
    let largest = bytes.iter().max().copied().unwrap_or(0);
    if largest > 0
        && let Some(class) = Class::ALL
            .iter()
            .find(|class| bytes[**class as usize] == largest)
    {
        look.ground = *class;
    }
    look.glyph = match look.ink {
        Class::Problem => look.ink.glyph(),
        _ if aborted => Class::ABORTED,
        _ if look.changed => Class::CHANGED,
        ink => ink.glyph(),
    };
    look
}

/// Draws the pane.
pub fn draw(map: &Map, capture: &Capture, theme: Theme, body: Rect, buf: &mut Buffer) {
    let (main, side) = split_map(body);
    let Some(space) = map.space(capture) else {
        return;
    };
    let cell = size_text(1 << map.shift());
    let row = size_text(u64::from(map.cells.width).max(1) << map.shift());
    let names: Vec<_> = capture
        .spaces
        .iter()
        .map(|space| space.name.as_str())
        .collect();
    let others = format!("{} of {}", map.space + 1, names.len());
    let title = format!("{} ({others})", space.name);
    grid::rule(
        buf,
        main,
        theme,
        &title,
        &format!("{cell} a cell, {row} a row"),
    );
    ruler(map, theme, below(main, 1), buf);
    let rows = map.rows(space);
    let lines = rows.lines_from(map.top, map.cursor);
    for (y, line) in (map.cells.top()..map.cells.bottom()).zip(lines) {
        match line {
            Line::Row(start) => draw_row(map, capture, theme, start, y, buf),
            Line::Fold(span, class) => {
                let label = format!(
                    "{:>#1$x} ",
                    span.start,
                    usize::from(map.cells.x - main.x) - 1
                );
                grid::text(buf, main, main.x, y, &label, theme.dim());
                let glyph = if class == Class::Nothing {
                    '·'
                } else {
                    class.glyph()
                };
                let text = format!(
                    "{glyph}{glyph}{glyph} {}, {}",
                    grid::about(span.size),
                    class.name()
                );
                grid::text(buf, main, map.cells.x, y, &text, theme.class(class));
            }
        }
    }
    if space.areas.is_empty() {
        grid::note(buf, below(main, 2), theme, "nothing is mapped here");
    }
    if let Some(area) = side.and_then(|side| legend_area(space, side)) {
        draw_legend(map, capture, space, theme, area, buf);
    }
}

/// Offsets of every sixteenth cell from the start of its row.
fn ruler(map: &Map, theme: Theme, area: Rect, buf: &mut Buffer) {
    for cell in (0..map.cells.width).step_by(16) {
        let label = format!("+{:#x}", u64::from(cell) << map.shift());
        if grid::width(&label) < 16 {
            grid::text(buf, area, map.cells.x + cell, area.y, &label, theme.dim());
        }
    }
}

fn draw_row(map: &Map, capture: &Capture, theme: Theme, start: u64, y: u16, buf: &mut Buffer) {
    let Some(space) = map.space(capture) else {
        return;
    };
    let here = map.cell(map.cursor).start;
    let last = start.saturating_add(u64::from(map.cells.width.max(1) - 1) << map.shift());
    let style = if (start..=last).contains(&here) {
        theme.title()
    } else {
        theme.dim()
    };
    let gutter = usize::from(super::gutter(space));
    let label = format!("{start:>#0$x}", gutter - 1);
    let x = map.cells.x.saturating_sub(gutter as u16);
    buf.set_stringn(x, y, label, gutter, style);
    for i in 0..map.cells.width {
        let Some(address) = start.checked_add(u64::from(i) << map.shift()) else {
            break;
        };
        let cell = map.cell(address);
        let look = look(space, cell, capture.last_abort.touches(map.space, cell));
        let mut style = theme.map_cell(look.ground, look.ink);
        if look.changed {
            style = style.patch(theme.changed());
        }
        if address == here {
            style = style.patch(theme.cursor());
        }
        if let Some(cell) = buf.cell_mut((map.cells.x + i, y)) {
            cell.set_char(look.glyph).set_style(style);
        }
    }
}

/// The classes that a space has, with their sizes.
fn legend(space: &Space) -> Vec<(Class, u64)> {
    let totals = space.totals().into_iter();
    totals
        .filter(|(class, _)| *class != Class::Nothing)
        .collect()
}

/// The lower part of the side, where it is high enough for a legend.
fn legend_area(space: &Space, side: Rect) -> Option<Rect> {
    let height = legend(space).len() as u16 + 3;
    (side.height >= 16).then(|| below(side, side.height.saturating_sub(height)))
}

impl Map {
    /// Where the panel is: beside the cells, above the legend.
    pub fn panel_area(&self, capture: &Capture, body: Rect) -> Option<Rect> {
        let side = split_map(body).1?;
        let legend = legend_area(self.space(capture)?, side);
        Some(Rect {
            height: side.height - legend.map_or(0, |legend| legend.height),
            ..side
        })
    }

    /// What the panel shows.
    pub fn panel(&self, capture: &Capture) -> Option<Panel> {
        let space = self.space(capture)?;
        let cell = self.cell(self.cursor);
        let title = format!("{} at {cell}", space.name);
        let rows = here(self, capture, space);
        Some(Panel::new(title, size_text(cell.size), rows))
    }
}

fn draw_legend(
    map: &Map,
    capture: &Capture,
    space: &Space,
    theme: Theme,
    area: Rect,
    buf: &mut Buffer,
) {
    grid::rule(buf, area, theme, "legend", "");
    let legend = legend(space);
    for (y, (class, bytes)) in (area.y + 1..).zip(&legend) {
        let style = theme.map_cell(*class, *class);
        let glyph = format!(" {} ", class.glyph());
        let x = grid::text(buf, area, area.x + 1, y, &glyph, style);
        let x = grid::text(buf, area, x + 1, y, class.name(), theme.class(*class));
        let total = grid::about(*bytes);
        let at = area
            .right()
            .saturating_sub(grid::width(&total) + 1)
            .max(x + 1);
        grid::text(buf, area, at, y, &total, theme.dim());
    }
    let y = area.y + 1 + legend.len() as u16;
    let aborted = capture.last_abort.touches(map.space, space.extent);
    let (mark, words) = match aborted {
        true => (Class::ABORTED, "changed by the last abort"),
        false => (Class::CHANGED, "changed since the last capture"),
    };
    let x = grid::text(buf, area, area.x + 2, y, &mark.to_string(), theme.changed());
    grid::text(buf, area, x + 2, y, words, theme.dim());
}

/// Rows that say what is in the cell of the cursor.
fn here(map: &Map, capture: &Capture, space: &Space) -> Vec<Row> {
    let cell = map.cell(map.cursor);
    let mut rows = Vec::new();
    let inside: Vec<_> = space.within(cell).take(9).collect();
    if inside.len() > 1 && map.cursor == cell.start {
        for area in inside.iter().take(8) {
            let mark = if area.changed { "*" } else { " " };
            rows.push(vec![
                grid::label(format!("{mark} {}", area.span)),
                Cell::new(Role::Dim, size_text(area.span.size)),
                Cell::new(Role::Plain, area.class.name()),
            ]);
        }
        if inside.len() > 8 {
            rows.push(vec![grid::label("  and more: zoom in with +")]);
        }
        return rows;
    }
    match map.space.checked_sub(1) {
        None => details::physical(capture, map.cursor),
        Some(regime) => details::input(capture, regime, map.cursor),
    }
}
