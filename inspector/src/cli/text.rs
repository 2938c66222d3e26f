//! Tables as aligned text.

use crate::view::Table;
use std::io::{self, Write};
use unicode_width::UnicodeWidthStr;

/// The width that columns are kept within when they can be.
const WIDTH: usize = 80;

/// Writes a table: titles, then rows. Columns of numbers are aligned to the right.
pub(super) fn write_table(table: &Table, out: &mut dyn Write) -> io::Result<()> {
    let widths: Vec<usize> = (0..table.titles.len())
        .map(|column| {
            let cells = table.rows.iter().map(|row| row[column].text.width());
            cells
                .chain([table.titles[column].width()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let right: Vec<bool> = (0..widths.len())
        .map(|column| is_number(table, column))
        .collect();
    let wide = widths.iter().sum::<usize>() + 2 * widths.len() > WIDTH + 2;
    let gap = if wide { " " } else { "  " };

    let line = |out: &mut dyn Write, cells: &[&str]| {
        let mut text = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let space = " ".repeat(widths[column] - cell.width());
            let (left, after) = if right[column] {
                (&*space, "")
            } else {
                ("", &*space)
            };
            text.push_str(if column == 0 { "" } else { gap });
            text.push_str(left);
            text.push_str(cell);
            text.push_str(after);
        }
        writeln!(out, "{}", text.trim_end())
    };
    if table.titles.iter().any(|title| !title.is_empty()) {
        line(out, &table.titles)?;
    }
    for row in &table.rows {
        let cells: Vec<&str> = row.iter().map(|cell| cell.text.as_str()).collect();
        line(out, &cells)?;
    }
    Ok(())
}

/// Whether a column holds decimal numbers and sizes, and nothing else.
fn is_number(table: &Table, column: usize) -> bool {
    let digit =
        |text: &str| text.starts_with(|c: char| c.is_ascii_digit()) && !text.starts_with("0x");
    let cells = || table.rows.iter().map(|row| row[column].text.as_str());
    cells().any(digit) && cells().all(|text| text == "-" || digit(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{Cell, Role};

    fn text(titles: &[&'static str], rows: &[&[&str]]) -> String {
        let rows = rows
            .iter()
            .map(|row| {
                row.iter()
                    .map(|text| Cell::new(Role::Plain, *text))
                    .collect()
            })
            .collect();
        let table = Table {
            titles: titles.to_vec(),
            rows,
        };
        let mut out = Vec::new();
        write_table(&table, &mut out).expect("memory takes everything");
        String::from_utf8(out).expect("text is UTF-8")
    }

    #[test]
    fn columns_are_aligned_numbers_to_the_right() {
        let text = text(
            &["PA", "SIZE", "OWNER"],
            &[&["0x1000", "4K", "host"], &["0x20000", "1028K", "-"]],
        );
        assert_eq!(
            text,
            "PA        SIZE  OWNER\n0x1000      4K  host\n0x20000  1028K  -\n"
        );
    }

    #[test]
    fn wide_tables_have_narrow_gaps() {
        let long = "x".repeat(40);
        let text = text(&["A", "B"], &[&[&long, &long]]);
        assert_eq!(text.lines().nth(1).map(str::len), Some(81));
    }
}
