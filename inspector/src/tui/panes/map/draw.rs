//! The map on the screen.

use super::Map;
use super::rows::Line;
use crate::addr::Span;
use crate::tui::capture::{Capture, Class, Space};
use crate::tui::details;
use crate::tui::grid;
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
fn look(space: &Space, cell: Span) -> Look {
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
    look.glyph = if look.changed && look.ink != Class::Problem {
        Class::CHANGED
    } else {
        look.ink.glyph()
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
            Line::Row(start) => draw_row(map, space, theme, start, y, buf),
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
    if let Some(side) = side {
        draw_side(map, capture, space, theme, side, buf);
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

fn draw_row(map: &Map, space: &Space, theme: Theme, start: u64, y: u16, buf: &mut Buffer) {
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
        let look = look(space, map.cell(address));
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

/// What is under the cursor, and the legend.
fn draw_side(
    map: &Map,
    capture: &Capture,
    space: &Space,
    theme: Theme,
    side: Rect,
    buf: &mut Buffer,
) {
    let cell = map.cell(map.cursor);
    let title = format!("{} at {cell}", space.name);
    grid::rule(buf, side, theme, &title, &size_text(cell.size));
    let inside = below(side, 1);
    let totals = space.totals();
    let mut legend: Vec<_> = totals
        .iter()
        .map(|(class, bytes)| (*class, Some(*bytes)))
        .collect();
    legend.retain(|(class, _)| *class != Class::Nothing);
    let wide = side.height < 16;
    let legend_height = if wide { 0 } else { legend.len() as u16 + 3 };
    let rows = here(map, capture, space);
    let upper = Rect {
        height: inside.height.saturating_sub(legend_height),
        ..inside
    };
    grid::details(buf, upper, theme, &rows);
    if wide {
        return;
    }
    let lower = below(inside, upper.height);
    grid::rule(buf, lower, theme, "legend", "");
    for (y, (class, bytes)) in (lower.y + 1..).zip(&legend) {
        let x = grid::text(
            buf,
            lower,
            lower.x + 1,
            y,
            " ",
            theme.map_cell(*class, *class),
        );
        let glyph = class.glyph().to_string();
        let x = grid::text(buf, lower, x, y, &glyph, theme.map_cell(*class, *class));
        let x = grid::text(buf, lower, x, y, " ", theme.map_cell(*class, *class));
        let x = grid::text(buf, lower, x + 1, y, class.name(), theme.class(*class));
        if let Some(bytes) = bytes {
            let total = grid::about(*bytes);
            let at = lower
                .right()
                .saturating_sub(grid::width(&total) + 1)
                .max(x + 1);
            grid::text(buf, lower, at, y, &total, theme.dim());
        }
    }
    let y = lower.y + 1 + legend.len() as u16;
    let x = grid::text(buf, lower, lower.x + 2, y, "*", theme.changed());
    grid::text(
        buf,
        lower,
        x + 2,
        y,
        "changed since the last capture",
        theme.dim(),
    );
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
