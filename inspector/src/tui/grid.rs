//! Drawing: columns of cells, lines of text, rules with titles. Only what is on the screen is drawn.

use super::theme::Theme;
use crate::view::{Cell, Role, Row, size_text};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::UnicodeWidthStr;

/// A column of a table on the screen.
#[derive(Clone, Copy)]
struct Column {
    /// Width it has at least, so that columns stand still while rows pass by.
    width: u16,
    /// Numbers stand to the right.
    right: bool,
    /// The column with the highest number goes first where there is no room for all; 0 stays.
    drop: u8,
}

/// How the columns of the views' tables, and of our own, stand; the widths are those of 40-bit
/// addresses.
fn column(title: &str) -> Column {
    let (width, right, drop) = match title {
        "REGIME" => (7, false, 1),
        "IA" | "PC" | "AGE" => (12, false, 0),
        "OA" => (10, false, 2),
        "PA" => (10, false, 1),
        "SIZE" | "VMID" | "VCPUS" | "OWNED" | "SHARED" | "BORROWED" | "POISONED" | "INSTR" => {
            (5, true, 0)
        }
        "KIND" => (10, false, 0),
        "PERM" | "HELD" => (4, false, 0),
        "LEVEL" => (5, true, 4),
        "SW" => (3, false, 0),
        "STAGE2" => (7, false, 2),
        "VCPU" => (8, false, 1),
        "VM" => (6, false, 0),
        "MEM" => (9, false, 5),
        "STATE" | "HOST" | "HYP" => (15, false, 0),
        "OWNER" => (5, false, 0),
        "RULE" => (4, false, 1),
        "COUNT" => (5, true, 2),
        "GUESTS" => (6, false, 3),
        "LOCK" | "OWNER TAG" => (9, false, 0),
        "NEXT" => (5, true, 6),
        "HOW" => (8, false, 4),
        "CPU" => (3, true, 0),
        "WAITERS" | "ABORTS" | "MAPPED" | "REFUSED" => (7, true, 0),
        "TAKEN AT" | "SYMBOL" => (20, false, 0),
        "VTTBR_EL2" | "ESR_EL2" => (10, false, 3),
        "#" => (5, true, 1),
        "WORD" | "VALUE" => (18, false, 0),
        "REGISTER" => (14, false, 0),
        _ => (8, false, 0),
    };
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

/// A text that is not wider than `room`, its middle left out if it must be: both ends of
/// `symbol+0x40` matter.
pub(super) fn shorten(text: &str, room: u16) -> String {
    let (length, room) = (text.chars().count(), usize::from(room));
    if length <= room {
        return text.to_owned();
    }
    let tail = room.saturating_sub(1) / 3;
    let head = room.saturating_sub(tail + 1);
    let mut short: String = text.chars().take(head).collect();
    short.push('…');
    short.extend(text.chars().skip(length - tail));
    short
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
    sorted: Option<(&str, bool)>,
    lines: &[Line],
) {
    let mut columns: Vec<Column> = titles.iter().map(|title| column(title)).collect();
    for (i, column) in columns.iter_mut().enumerate() {
        // Of a lock the owner is a ticket.
        column.right |= !lines.is_empty() && lines.iter().all(|line| is_number(line.row.get(i)));
    }
    let arrow = |title: &str| {
        sorted
            .filter(|(column, _)| *column == title)
            .map(|(_, down)| down)
    };
    let mut widths = Vec::new();
    for (i, title) in titles.iter().enumerate() {
        let longest = lines.iter().filter_map(|line| line.row.get(i));
        let longest = longest.map(|cell| width(&cell.text)).max().unwrap_or(0);
        // The last column may be cut off; the others stand aside only for its minimum.
        let longest = if i + 1 == columns.len() { 0 } else { longest };
        let title = width(title) + if arrow(title).is_some() { 2 } else { 0 };
        widths.push(columns[i].width.max(title).max(longest));
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
        let mut title = titles[i].to_owned();
        if let Some(down) = arrow(titles[i]) {
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

/// Whether a cell is a decimal number.
fn is_number(cell: Option<&Cell>) -> bool {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    cell.is_some_and(|cell| is_digits(&cell.text))
}

/// A rule with a title on its left and a note on its right.
pub(super) fn rule(buf: &mut Buffer, area: Rect, theme: Theme, title: &str, note: &str) {
    if area.is_empty() {
        return;
    }
    let line = |buf: &mut Buffer, from: u16, to: u16| {
        let line = "─".repeat(usize::from(to.saturating_sub(from)));
        text(buf, area, from, area.y, &line, theme.dim());
    };
    line(buf, area.x, area.x + 1);
    let title = shorten(title, area.width.saturating_sub(3));
    let x = text(buf, area, area.x + 2, area.y, &title, theme.title()) + 1;
    let at = area.right().saturating_sub(width(note) + 2);
    if note.is_empty() || at <= x + 1 {
        line(buf, x, area.right());
    } else {
        line(buf, x, at - 1);
        text(buf, area, at, area.y, note, theme.dim());
        line(buf, area.right() - 1, area.right());
    }
}

/// Width of a column of labelled rows, where there is room for more than one.
const DETAILS: u16 = 40;

/// Draws labelled rows in as many columns as there is room for. Answers how many rows that was.
pub(super) fn details(buf: &mut Buffer, area: Rect, theme: Theme, rows: &[Row]) -> usize {
    let columns = (area.width / DETAILS.max(widest(rows))).max(1);
    let width = area.width / columns;
    let mut rest = rows;
    for i in 0..columns {
        let column = Rect {
            x: area.x + i * width,
            width: width - 1,
            ..area
        };
        // Not more than an even share, unless the screen is full.
        let left = usize::from(columns - i);
        let share = rest.len().div_ceil(left).max(rows.len().min(8));
        let taken = details_column(buf, column, theme, &rest[..share.min(rest.len())]);
        rest = &rest[taken..];
    }
    rows.len() - rest.len()
}

/// Width of the labels and of the longest word beside them.
fn widest(rows: &[Row]) -> u16 {
    let words = |row: &Row| {
        let values = row.iter().skip(1).flat_map(|cell| cell.text.split(' '));
        values.map(width).max().unwrap_or(0)
    };
    let word = rows.iter().map(words).max().unwrap_or(0);
    labels(rows).saturating_add(word).saturating_add(4)
}

/// Width of the labels.
fn labels(rows: &[Row]) -> u16 {
    let label = rows.iter().filter(|row| row.len() > 1);
    let label = label.filter_map(|row| row.first());
    label.map(|cell| width(&cell.text)).max().unwrap_or(0)
}

/// Draws labelled rows, their values in one column; values that are too long go on below. Answers
/// how many rows there was room for.
fn details_column(buf: &mut Buffer, area: Rect, theme: Theme, rows: &[Row]) -> usize {
    let label = labels(rows).min(area.width / 2);
    let mut y = area.y;
    for (i, row) in rows.iter().enumerate() {
        if y >= area.bottom() {
            return i;
        }
        let (left, rest) = match row.split_first() {
            Some((_, rest)) if !rest.is_empty() => (area.x + label + 3, rest),
            _ => (area.x + 1, row.as_slice()),
        };
        let words = words(rest, left, area.right());
        // A row whose end there is no room for goes on in the next column, or on the next screen.
        let end = words.last().map_or(0, |word| word.y);
        if i > 0 && y.saturating_add(end) >= area.bottom() {
            return i;
        }
        if let (Some(first), true) = (row.first(), row.len() > 1) {
            let style = theme.role(first.role);
            text(buf, area, area.x + 1, y, &first.text, style);
        }
        for word in words {
            let (style, y) = (theme.role(word.role), y.saturating_add(word.y));
            text(buf, area, word.x, y, &word.text, style);
        }
        y = y.saturating_add(end + 1);
    }
    rows.len()
}

/// A word of a value, and where it stands, its line counted from the value's first.
struct Word {
    text: String,
    role: Role,
    x: u16,
    y: u16,
}

/// The words of a value that begins at `left`; what does not fit before `right` goes on below.
fn words(cells: &[Cell], left: u16, right: u16) -> Vec<Word> {
    let room = right.saturating_sub(left);
    let (mut x, mut y) = (left, 0_u16);
    let mut words = Vec::new();
    for cell in cells {
        for text in cell.text.split(' ').flat_map(|word| pieces(word, room)) {
            if x > left && x.saturating_add(width(&text)) > right {
                (x, y) = (left, y.saturating_add(1));
            }
            let next = x.saturating_add(width(&text)).saturating_add(1);
            let role = cell.role;
            words.push(Word { text, role, x, y });
            x = next;
        }
    }
    words
}

/// So many of them.
pub(super) fn count(number: impl Into<u64>, what: &str) -> String {
    match number.into() {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}

/// A size in bytes to four digits or so, where the exact one would be long.
pub(super) fn about(bytes: u64) -> String {
    let exact = size_text(bytes);
    if exact.len() < 6 {
        return exact;
    }
    let unit = bytes.ilog2() / 10;
    let value = bytes as f64 / 2_f64.powi(10 * unit as i32);
    format!(
        "{value:.1}{}",
        ["", "K", "M", "G", "T", "P", "E"][unit as usize]
    )
}

/// A line of help where there is nothing to show.
pub(super) fn note(buf: &mut Buffer, area: Rect, theme: Theme, what: &str) {
    text(buf, area, area.x + 1, area.y, what, theme.dim());
}

/// A word, in pieces if it is longer than a line.
fn pieces(word: &str, room: u16) -> Vec<String> {
    if width(word) <= room {
        return vec![word.to_owned()];
    }
    let letters: Vec<char> = word.chars().collect();
    let pieces = letters.chunks(usize::from(room.max(1)));
    pieces.map(|piece| piece.iter().collect()).collect()
}

/// A sentence in lines that are not wider than `room`.
pub(super) fn wrap(what: &str, room: u16) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let words = what.split_whitespace();
    for word in words.flat_map(|word| pieces(word, room)) {
        let word = word.as_str();
        match lines.last_mut() {
            Some(line) if width(line) + 1 + width(word) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A sentence in the middle of an area.
pub(super) fn centred(buf: &mut Buffer, area: Rect, theme: Theme, what: &str) {
    let lines = wrap(what, area.width.saturating_sub(4));
    let count = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    let top = area.y + area.height.saturating_sub(count) / 2;
    for (y, line) in (top..area.bottom()).zip(&lines) {
        let x = area.x + area.width.saturating_sub(width(line)) / 2;
        text(buf, area, x, y, line, theme.dim());
    }
}

/// A dim label.
pub(super) fn label(text: impl Into<String>) -> Cell {
    Cell::new(Role::Dim, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_sizes_are_rounded_and_short_ones_are_exact() {
        for (bytes, text) in [
            (0, "0 B"),
            (4096, "4K"),
            (0x20_1000, "2052K"),
            (495_224 << 10, "483.6M"),
            (260_992 << 20, "254.9G"),
            (u64::MAX, "16.0E"),
        ] {
            assert_eq!(about(bytes), text);
        }
    }

    #[test]
    fn values_that_are_too_long_go_on_below() {
        let mut buf = Buffer::empty(Rect::new(0, 0, 20, 4));
        let row =
            |label: &str, value: &str| vec![self::label(label), Cell::new(Role::Plain, value)];
        let rows = [row("a", "one two three four"), row("b", "x")];
        let theme = Theme {
            depth: crate::tui::theme::Depth::Mono,
            light: false,
        };
        details(&mut buf, Rect::new(0, 0, 20, 4), theme, &rows);
        let line = |y| (0..20).map(|x| buf[(x, y)].symbol()).collect::<String>();
        assert_eq!(line(0).trim_end(), " a  one two three");
        assert_eq!(line(1).trim_end(), "    four");
        assert_eq!(line(2).trim_end(), " b  x");

        // There is no room for the end of the second.
        let rows = [row("a", "x"), row("b", "one two three four")];
        let shown = details(&mut buf, Rect::new(0, 0, 20, 2), theme, &rows);
        assert_eq!(shown, 1);

        // A name without a space is longer than a line.
        let rows = [row("a", "at <impl_of_Hyp>::walk+0x21c here")];
        buf.reset();
        details(&mut buf, Rect::new(0, 0, 20, 4), theme, &rows);
        let line = |y| (0..20).map(|x| buf[(x, y)].symbol()).collect::<String>();
        assert_eq!(line(1).trim_end(), "    <impl_of_Hyp>::");
        assert_eq!(line(2).trim_end(), "    walk+0x21c here");
    }

    #[test]
    fn a_column_of_numbers_stands_to_the_right_whatever_its_title() {
        let line = |owner: &str| Line {
            row: vec![Cell::new(Role::Plain, owner)],
            changed: false,
            selected: false,
        };
        let theme = Theme {
            depth: crate::tui::theme::Depth::Mono,
            light: false,
        };
        for (owner, drawn) in [("7", "     7"), ("hyp", " hyp"), ("0x7", " 0x7")] {
            let area = Rect::new(0, 0, 10, 2);
            let mut buf = Buffer::empty(area);
            table(&mut buf, area, theme, &["OWNER"], None, &[line(owner)]);
            let text: String = (0..10).map(|x| buf[(x, 1)].symbol()).collect();
            assert_eq!(text.trim_end(), drawn);
        }
    }
}
