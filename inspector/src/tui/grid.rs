//! Drawing: columns of cells, lines of text, rules with titles. Only what is on the screen is drawn.

use super::theme::Theme;
use crate::view::{Cell, Role, Row};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::UnicodeWidthStr;

/// A column of a table on the screen.
#[derive(Clone, Copy)]
pub(super) struct Column {
    /// Width it has at least, so that columns stand still while rows pass by.
    pub(super) width: u16,
    /// Numbers stand to the right.
    pub(super) right: bool,
    /// The column with the highest number goes first where there is no room for all; 0 stays.
    pub(super) drop: u8,
}

/// A column of `width`.
pub(super) const fn column(width: u16, right: bool, drop: u8) -> Column {
    Column { width, right, drop }
}

/// Writes text from `x` on, cut off at the right end of `area`; answers where it ended.
pub(super) fn text(buf: &mut Buffer, area: Rect, x: u16, y: u16, text: &str, style: Style) -> u16 {
    let area = area.intersection(buf.area);
    if y < area.top() || y >= area.bottom() || x < area.left() || x >= area.right() {
        return x;
    }
    buf.set_stringn(x, y, text, usize::from(area.right() - x), style)
        .0
}

/// Width of a text on the screen.
pub(super) fn width(text: &str) -> u16 {
    u16::try_from(text.width()).unwrap_or(u16::MAX)
}

/// A row of the table with its marks.
pub(super) struct Line {
    /// Cells, one a column.
    pub(super) row: Row,
    /// It differs from the capture before.
    pub(super) changed: bool,
    /// The cursor stands on it.
    pub(super) selected: bool,
}

/// Draws titles and rows. The first line of `area` is for the titles; `sorted` names the column
/// that orders the rows and whether downwards.
pub(super) fn table(
    buf: &mut Buffer,
    area: Rect,
    theme: Theme,
    titles: &[&str],
    columns: &[Column],
    sorted: Option<(usize, bool)>,
    lines: &[Line],
) {
    let mut widths: Vec<u16> = columns.iter().map(|column| column.width).collect();
    for (i, w) in widths.iter_mut().enumerate() {
        let title = titles.get(i).map_or(0, |title| width(title));
        let sorted = u16::from(sorted.is_some_and(|(column, _)| column == i)) * 2;
        let longest = lines.iter().filter_map(|line| line.row.get(i));
        let longest = longest.map(|cell| width(&cell.text)).max().unwrap_or(0);
        *w = (*w).max(title + sorted).max(longest);
    }
    // The marks take one column on the left.
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let total = |shown: &[usize]| shown.iter().map(|i| u32::from(widths[*i]) + 2).sum::<u32>();
    while total(&shown) > u32::from(area.width) + 1 {
        let Some(at) = (0..shown.len())
            .filter(|at| columns[shown[*at]].drop > 0)
            .max_by_key(|at| columns[shown[*at]].drop)
        else {
            break;
        };
        shown.remove(at);
    }
    let mut x = area.x.saturating_add(1);
    for i in shown {
        let (w, right) = (widths[i], columns[i].right);
        let mut title = titles.get(i).copied().unwrap_or_default().to_owned();
        if let Some((_, down)) = sorted.filter(|(column, _)| *column == i) {
            title.push_str(if down { " ▼" } else { " ▲" });
        }
        let mut put = |y: u16, what: &str, style: Style| {
            let pad = if right {
                w.saturating_sub(width(what))
            } else {
                0
            };
            text(buf, area, x.saturating_add(pad), y, what, style);
        };
        put(area.y, &title, theme.dim());
        for (y, line) in (area.y + 1..area.bottom()).zip(lines) {
            if let Some(cell) = line.row.get(i) {
                put(y, &cell.text, theme.role(cell.role));
            }
        }
        x = x.saturating_add(w + 2);
        if x >= area.right() {
            break;
        }
    }
    for (y, line) in (area.y + 1..area.bottom()).zip(lines) {
        let row = Rect {
            y,
            height: 1,
            ..area
        };
        if line.changed {
            text(buf, area, area.x, y, "*", theme.active());
        }
        if line.selected {
            buf.set_style(row.intersection(buf.area), theme.selected());
            if !line.changed {
                text(buf, area, area.x, y, "›", theme.title());
            }
        }
    }
}

/// A rule with a title on its left and a note on its right.
pub(super) fn rule(buf: &mut Buffer, area: Rect, theme: Theme, title: &str, note: &str) {
    if area.is_empty() {
        return;
    }
    let line = "─".repeat(usize::from(area.width));
    text(buf, area, area.x, area.y, &line, theme.dim());
    let x = text(
        buf,
        area,
        area.x + 1,
        area.y,
        &format!(" {title} "),
        theme.title(),
    );
    let note_width = width(note) + 2;
    let at = area.right().saturating_sub(note_width + 1);
    if !note.is_empty() && at > x {
        text(buf, area, at, area.y, &format!(" {note} "), theme.dim());
    }
}

/// Draws labelled rows, one a line, their values in one column.
pub(super) fn details(buf: &mut Buffer, area: Rect, theme: Theme, rows: &[Row]) {
    let label = rows.iter().filter(|row| row.len() > 1);
    let label = label
        .filter_map(|row| row.first())
        .map(|cell| width(&cell.text));
    let label = label.max().unwrap_or(0).min(area.width / 2);
    for (y, row) in (area.y..area.bottom()).zip(rows) {
        let (x, rest) = match row.split_first() {
            Some((first, rest)) if !rest.is_empty() => {
                text(
                    buf,
                    area,
                    area.x + 1,
                    y,
                    &first.text,
                    theme.role(first.role),
                );
                (area.x + label + 3, rest)
            }
            _ => (area.x + 1, row.as_slice()),
        };
        let mut x = x;
        for cell in rest {
            x = text(buf, area, x, y, &cell.text, theme.role(cell.role)) + 1;
        }
    }
}

/// A line of help where there is nothing to show.
pub(super) fn note(buf: &mut Buffer, area: Rect, theme: Theme, what: &str) {
    text(buf, area, area.x + 1, area.y, what, theme.dim());
}

/// A dim label.
pub(super) fn label(text: impl Into<String>) -> Cell {
    Cell::new(Role::Dim, text)
}
