//! The rows of a map: which of them hold something, and where the others are folded.

use crate::addr::Span;
use crate::tui::capture::Space;

/// Rows of `1 << shift` bytes over a space.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    space: &'a Space,
    shift: u32,
}

/// A line of the map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Line {
    /// A row of cells from this address on.
    Row(u64),
    /// Rows in which there is nothing.
    Fold(Span),
}

impl Line {
    /// First address of a row of cells.
    pub(super) fn row(self) -> Option<u64> {
        match self {
            Self::Row(start) => Some(start),
            Self::Fold(_) => None,
        }
    }
}

impl<'a> Rows<'a> {
    /// Rows of `1 << shift` bytes.
    pub(super) fn new(space: &'a Space, shift: u32) -> Self {
        Self {
            space,
            shift: shift.min(63),
        }
    }

    fn start(self, address: u64) -> u64 {
        address >> self.shift << self.shift
    }

    fn last(self, row: u64) -> u64 {
        row | ((1 << self.shift) - 1)
    }

    /// The first row after `row` that holds something.
    fn after(self, row: u64) -> Option<u64> {
        let next = self.last(row).checked_add(1)?;
        let from = self
            .space
            .areas
            .partition_point(|area| area.span.last().is_none_or(|last| last < next));
        let area = self.space.areas.get(from)?;
        Some(self.start(area.span.start.max(next)))
    }

    /// The last row before `row` that holds something.
    fn before(self, row: u64) -> Option<u64> {
        let end = row.checked_sub(1)?;
        let after = self
            .space
            .areas
            .partition_point(|area| area.span.start <= end);
        let area = self.space.areas.get(after.checked_sub(1)?)?;
        Some(self.start(area.span.last()?.min(end)))
    }

    /// The same place `by` rows further, over those in which there is something.
    pub(super) fn step(self, address: u64, by: i32) -> u64 {
        let offset = address - self.start(address);
        let mut row = self.start(address);
        for _ in 0..by.unsigned_abs() {
            let next = if by < 0 {
                self.before(row)
            } else {
                self.after(row)
            };
            match next {
                Some(next) => row = next,
                None => break,
            }
        }
        row + offset
    }

    /// The lines from the row of `top` on. The row of the cursor is there even with nothing in it.
    pub(super) fn lines_from(self, top: u64, cursor: u64) -> impl Iterator<Item = Line> {
        let cursor = self.start(cursor);
        let mut next = Some(Line::Row(self.start(top)));
        std::iter::from_fn(move || {
            let line = next?;
            let last = match line {
                Line::Row(row) => Some(self.last(row)),
                Line::Fold(span) => span.last(),
            };
            next = last.and_then(|last| {
                let row = self.after(last);
                let row = match row {
                    _ if cursor > last => Some(row.map_or(cursor, |row| row.min(cursor))),
                    row => row,
                }?;
                let adjacent = last.checked_add(1)?;
                Some(if row == adjacent {
                    Line::Row(row)
                } else {
                    Line::Fold(Span::new(adjacent, row - adjacent))
                })
            });
            Some(line)
        })
    }

    /// The top row at which the row of the cursor is on a screen of `height` lines, as close to
    /// `top` as can be.
    pub(super) fn scroll(self, top: u64, cursor: u64, height: u16) -> u64 {
        let cursor = self.start(cursor);
        let top = self.start(top);
        if cursor <= top {
            return cursor;
        }
        let visible = self
            .lines_from(top, cursor)
            .take(usize::from(height))
            .any(|line| line == Line::Row(cursor));
        if visible {
            return top;
        }
        // Back from the cursor, a fold where rows are not neighbours, until the screen is full.
        let mut row = cursor;
        let mut lines = 1;
        while let Some(previous) = self.before(row) {
            lines += if self.last(previous).checked_add(1) == Some(row) {
                1
            } else {
                2
            };
            if lines > height {
                break;
            }
            row = previous;
        }
        row
    }

    /// How many lines the whole space takes.
    pub(super) fn lines(self) -> u64 {
        let mut lines = 0;
        let mut previous: Option<u64> = None;
        for area in &self.space.areas {
            let Some(last) = area.span.last() else {
                continue;
            };
            let (first, last) = (area.span.start >> self.shift, last >> self.shift);
            let from = match previous {
                Some(row) if row >= first => row + 1,
                Some(row) => {
                    lines += u64::from(row + 1 < first);
                    first
                }
                None => first,
            };
            lines += (last + 1).saturating_sub(from);
            previous = Some(last.max(previous.unwrap_or(0)));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::capture::{Area, Class};

    fn space(spans: &[(u64, u64)]) -> Space {
        let areas: Vec<_> = spans
            .iter()
            .map(|&(start, size)| Area {
                span: Span::new(start, size),
                class: Class::Host,
                changed: false,
            })
            .collect();
        Space {
            name: "s".into(),
            extent: Span::new(0, u64::MAX),
            areas,
        }
    }

    fn lines(space: &Space, top: u64, cursor: u64) -> Vec<Line> {
        Rows::new(space, 8)
            .lines_from(top, cursor)
            .take(20)
            .collect()
    }

    #[test]
    fn rows_with_nothing_fold() {
        let space = space(&[(0x100, 0x180), (0x1000, 8), (0x1008, 8)]);
        let expected = [
            Line::Row(0x100),
            Line::Row(0x200),
            Line::Fold(Span::new(0x300, 0xd00)),
            Line::Row(0x1000),
        ];
        assert_eq!(lines(&space, 0x100, 0x100), expected);
        assert_eq!(Rows::new(&space, 8).lines(), 4);
    }

    #[test]
    fn the_row_of_the_cursor_is_always_there() {
        let space = space(&[(0x100, 0x100), (0x1000, 0x100)]);
        assert_eq!(
            lines(&space, 0x100, 0x512),
            [
                Line::Row(0x100),
                Line::Fold(Span::new(0x200, 0x300)),
                Line::Row(0x500),
                Line::Fold(Span::new(0x600, 0xa00)),
                Line::Row(0x1000),
            ]
        );
        assert_eq!(
            lines(&space, 0x1000, 0x5000).last(),
            Some(&Line::Row(0x5000))
        );
    }

    #[test]
    fn steps_go_over_folds_and_stop_at_the_ends() {
        let space = space(&[(0x100, 0x180), (0x1000, 8)]);
        let rows = Rows::new(&space, 8);
        assert_eq!(rows.step(0x120, 1), 0x220);
        assert_eq!(rows.step(0x120, 2), 0x1020);
        assert_eq!(rows.step(0x120, 9), 0x1020);
        assert_eq!(rows.step(0x1020, -1), 0x220);
        assert_eq!(rows.step(0x1020, -9), 0x120);
    }

    #[test]
    fn the_cursor_scrolls_into_view() {
        let space = space(&[(0x100, 0x1000), (0x8000, 0x100)]);
        let rows = Rows::new(&space, 8);
        assert_eq!(rows.scroll(0x100, 0x300, 5), 0x100);
        assert_eq!(rows.scroll(0x500, 0x300, 5), 0x300);
        assert_eq!(rows.scroll(0x100, 0x900, 5), 0x500);
        // The last row with the fold above it.
        assert_eq!(rows.scroll(0x100, 0x8000, 5), 0xe00);
    }

    #[test]
    fn the_top_of_the_address_space_is_no_trap() {
        let space = space(&[(0, 0x100), (u64::MAX - 0xff, 0x100)]);
        let rows = Rows::new(&space, 8);
        assert_eq!(rows.step(0, 5), u64::MAX - 0xff);
        assert_eq!(rows.lines(), 3);
        assert_eq!(Rows::new(&space, 80).lines_from(0, u64::MAX).count(), 2);
    }
}
