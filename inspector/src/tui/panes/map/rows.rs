//! The rows of a map: which of them hold something, and where the others are folded.

use crate::addr::Span;
use crate::tui::capture::{Area, Class, Space};

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
    /// Rows in which there is nothing but this class.
    Fold(Span, Class),
}

impl Line {
    /// First address of a row of cells.
    pub(super) fn row(self) -> Option<u64> {
        match self {
            Self::Row(start) => Some(start),
            Self::Fold(..) => None,
        }
    }

    fn last(self, rows: Rows<'_>) -> Option<u64> {
        match self {
            Self::Row(row) => Some(rows.last(row)),
            Self::Fold(span, _) => span.last(),
        }
    }
}

/// Whether rows full of this area are folded: devices are mapped by the gigabyte.
fn folds(area: &Area) -> bool {
    area.class == Class::Mmio && !area.changed
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

    /// Whether one area that folds fills a row.
    fn folded(self, row: u64, area: &Area) -> bool {
        folds(area) && area.span.covers(Span::new(row, 1 << self.shift))
    }

    /// The first row after `row` that is shown.
    fn after(self, row: u64) -> Option<u64> {
        let mut next = self.last(row).checked_add(1)?;
        let from = self
            .space
            .areas
            .partition_point(|area| area.span.last().is_none_or(|last| last < next));
        for area in &self.space.areas[from..] {
            let row = self.start(area.span.start.max(next));
            if !self.folded(row, area) {
                return Some(row);
            }
            // Go on behind its last full row; what is left of it there may share a row.
            let last = area.span.last()?;
            let end = self.start(last);
            if self.last(end) != last {
                return Some(end);
            }
            next = last.checked_add(1)?;
        }
        None
    }

    /// The last row before `row` that is shown.
    fn before(self, row: u64) -> Option<u64> {
        let mut end = row.checked_sub(1)?;
        let after = self
            .space
            .areas
            .partition_point(|area| area.span.start <= end);
        for area in self.space.areas[..after].iter().rev() {
            let row = self.start(area.span.last()?.min(end));
            if !self.folded(row, area) {
                return Some(row);
            }
            let first = self.start(area.span.start);
            if first != area.span.start {
                return Some(first);
            }
            end = first.checked_sub(1)?;
        }
        None
    }

    /// What rows that are not shown hold from an address on, up to `end`: one class.
    fn fold(self, start: u64, end: u64) -> Line {
        let areas = &self.space.areas;
        let from = areas.partition_point(|area| area.span.last().is_none_or(|last| last < start));
        let (class, last) = match areas.get(from) {
            Some(area) if area.span.start <= start => (area.class, area.span.last().unwrap_or(end)),
            Some(area) => (Class::Nothing, area.span.start - 1),
            None => (Class::Nothing, end),
        };
        Line::Fold(Span::new(start, last.min(end) - start + 1), class)
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

    /// The lines from the row of `top` on. The row of the cursor is there whatever it holds.
    pub(super) fn lines_from(self, top: u64, cursor: u64) -> impl Iterator<Item = Line> {
        let cursor = self.start(cursor);
        std::iter::successors(Some(Line::Row(self.start(top))), move |line| {
            let last = line.last(self)?;
            let next = self.after(self.start(last));
            let next = match next {
                _ if cursor > last => Some(next.map_or(cursor, |row| row.min(cursor))),
                next => next,
            };
            let adjacent = last.checked_add(1)?;
            match next {
                Some(row) if row == adjacent => Some(Line::Row(row)),
                Some(row) => Some(self.fold(adjacent, row - 1)),
                // What folds at the very end.
                None => {
                    let end = self.space.areas.last()?.span.last()?;
                    (end > last).then(|| self.fold(adjacent, self.last(end)))
                }
            }
        })
    }

    /// The top row at which the row of the cursor is on a screen of `height` lines, as close to
    /// `top` as can be.
    pub(super) fn scroll(self, top: u64, cursor: u64, height: u16) -> u64 {
        let cursor = self.start(cursor);
        let top = self.start(top);
        let visible = |top: u64| {
            let lines = self.lines_from(top, cursor).take(usize::from(height));
            cursor <= top || lines.into_iter().any(|line| line == Line::Row(cursor))
        };
        if cursor <= top {
            return cursor;
        }
        if visible(top) {
            return top;
        }
        // Back from the cursor until it would leave the screen.
        let mut row = cursor;
        for _ in 1..height {
            match self.before(row).filter(|previous| visible(*previous)) {
                Some(previous) => row = previous,
                None => break,
            }
        }
        row
    }

    /// Whether all the lines fit on a screen of `height` lines.
    pub(super) fn fit(self, height: u16) -> bool {
        let start = self.space.extent.start;
        self.lines_from(start, start)
            .nth(usize::from(height))
            .is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(spans: &[(u64, u64)]) -> Space {
        let spans: Vec<_> = spans
            .iter()
            .map(|&(at, size)| (at, size, Class::Host))
            .collect();
        classed(&spans)
    }

    fn classed(spans: &[(u64, u64, Class)]) -> Space {
        let area = |&(start, size, class): &(u64, u64, Class)| Area {
            span: Span::new(start, size),
            class,
            changed: false,
        };
        let areas: Vec<_> = spans.iter().map(area).collect();
        Space {
            name: "s".into(),
            extent: Span::new(areas[0].span.start, u64::MAX),
            areas,
        }
    }

    #[test]
    fn rows_full_of_devices_fold_and_those_they_share_do_not() {
        let space = classed(&[
            (0x100, 0x680, Class::Mmio),
            (0x780, 0x80, Class::Host),
            (0x800, 0x400, Class::Mmio),
            (0xc00, 0x10, Class::Mmio),
        ]);
        let rows = Rows::new(&space, 8);
        let mmio = |start, size| Line::Fold(Span::new(start, size), Class::Mmio);
        assert_eq!(
            lines(&space, 0x100, 0x100),
            [
                Line::Row(0x100),
                mmio(0x200, 0x500),
                Line::Row(0x700),
                mmio(0x800, 0x400),
                Line::Row(0xc00),
            ]
        );
        assert_eq!((rows.step(0x100, 1), rows.step(0xc00, -1)), (0x700, 0x700));
        // The cursor's row is shown even in the middle of it.
        assert!(lines(&space, 0x100, 0x440).contains(&Line::Row(0x400)));
        // At the end a fold closes the map.
        let end = classed(&[(0, 0x100, Class::Host), (0x100, 0x800, Class::Mmio)]);
        assert_eq!(lines(&end, 0, 0), [Line::Row(0), mmio(0x100, 0x800)]);
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
            Line::Fold(Span::new(0x300, 0xd00), Class::Nothing),
            Line::Row(0x1000),
        ];
        assert_eq!(lines(&space, 0x100, 0x100), expected);
        assert!(Rows::new(&space, 8).fit(4) && !Rows::new(&space, 8).fit(3));
    }

    #[test]
    fn the_row_of_the_cursor_is_always_there() {
        let space = space(&[(0x100, 0x100), (0x1000, 0x100)]);
        assert_eq!(
            lines(&space, 0x100, 0x512),
            [
                Line::Row(0x100),
                Line::Fold(Span::new(0x200, 0x300), Class::Nothing),
                Line::Row(0x500),
                Line::Fold(Span::new(0x600, 0xa00), Class::Nothing),
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
        assert!(rows.fit(3) && !rows.fit(2));
        assert_eq!(Rows::new(&space, 80).lines_from(0, u64::MAX).count(), 2);
    }
}
