//! An address space as cells: so many bytes a cell, a power of two of cells a row.
//!
//! Rows in which there is nothing are folded into one line, so that a few mappings in a space of
//! 2^40 bytes stand close together and still at their true addresses.

mod draw;
mod rows;

pub use draw::draw;

use super::{Focus, below, split_map};
use crate::addr::Span;
use crate::tui::capture::{Area, Capture, Class, Space};
use crate::tui::keymap::Action;
use ratatui::layout::Rect;
use rows::Rows;

/// Bytes a cell at the closest, as a power of two: the smallest granule.
const CLOSEST: u32 = 12;
/// Bytes a cell at the farthest: a space of 2^52 bytes in one row of 64.
const FARTHEST: u32 = 46;

/// State of the pane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Map {
    /// Index in [`Capture::spaces`].
    pub space: usize,
    /// The address under the cursor: the first of its cell, unless a closer one was asked for.
    pub cursor: u64,
    /// The first address of the first row on the screen.
    pub top: u64,
    /// Bytes a cell, as a power of two; `None` before the first capture came.
    pub shift: Option<u32>,
    /// Where the cells are on the screen.
    cells: Rect,
    /// Where a drag of the mouse began.
    drag: Option<u16>,
}

impl Default for Map {
    fn default() -> Self {
        Self {
            space: 0,
            cursor: 0,
            top: 0,
            shift: None,
            cells: Rect::ZERO,
            drag: None,
        }
    }
}

/// Where the cursor starts: at the first RAM.
fn start(space: &Space) -> u64 {
    let ram = space.areas.iter().find(|area| area.class != Class::Mmio);
    ram.map_or(space.extent.start, |area| area.span.start)
}

/// Columns for the addresses at the left.
fn gutter(space: &Space) -> u16 {
    let digits = space
        .extent
        .last()
        .unwrap_or(0)
        .checked_ilog2()
        .unwrap_or(0)
        / 4
        + 1;
    digits as u16 + 4
}

/// The part of the pane where cells are: below the rule and the ruler, right of the addresses.
/// Its width is the number of cells a row.
fn cells_in(body: Rect, gutter: u16) -> Rect {
    let main = below(split_map(body).0, 2);
    let room = main.width.saturating_sub(gutter).min(256);
    let cells = if room == 0 { 0 } else { 1 << room.ilog2() };
    Rect {
        x: main.x + gutter.min(main.width),
        width: cells,
        ..main
    }
}

impl Map {
    fn shift(&self) -> u32 {
        self.shift.unwrap_or(CLOSEST)
    }

    fn rows<'a>(&self, space: &'a Space) -> Rows<'a> {
        Rows::new(
            space,
            self.shift() + u32::from(self.cells.width.max(1)).ilog2(),
        )
    }

    /// The range of the cell that holds an address.
    pub fn cell(&self, address: u64) -> Span {
        let size = 1_u64 << self.shift();
        Span::new(address & !(size - 1), size)
    }

    /// The space that is shown.
    pub fn space<'a>(&self, capture: &'a Capture) -> Option<&'a Space> {
        capture.spaces.get(self.space)
    }

    /// Takes the size of the screen and, the first time, chooses the zoom.
    pub fn settle(&mut self, capture: &Capture, body: Rect) {
        self.space = self.space.min(capture.spaces.len().saturating_sub(1));
        let Some(space) = self.space(capture) else {
            return;
        };
        self.cells = cells_in(body, gutter(space));
        if self.shift.is_none() && !self.cells.is_empty() && !space.areas.is_empty() {
            self.fit(space);
        }
        let rows = self.rows(space);
        self.top = rows.scroll(self.top, self.cursor, self.cells.height);
    }

    /// Chooses the closest zoom at which everything is on the screen.
    fn fit(&mut self, space: &Space) {
        let fits = |shift: &u32| self.shift_rows(space, *shift).fit(self.cells.height);
        self.shift = Some((CLOSEST..FARTHEST).find(fits).unwrap_or(FARTHEST));
        if !space.extent.contains(self.cursor) {
            self.cursor = start(space);
        }
        self.top = space.extent.start;
    }

    fn shift_rows<'a>(&self, space: &'a Space, shift: u32) -> Rows<'a> {
        Rows::new(space, shift + u32::from(self.cells.width.max(1)).ilog2())
    }

    /// Shows an address of a space.
    pub fn go(&mut self, space: usize, address: u64) {
        if self.space != space {
            self.space = space;
            self.shift = None;
        }
        self.cursor = address;
    }

    /// Goes on with the number that its regime has in a new capture, or with physical memory.
    pub fn renumber(&mut self, number: impl Fn(usize) -> Option<usize>) {
        let Some(regime) = self.space.checked_sub(1) else {
            return;
        };
        match number(regime) {
            Some(regime) => self.space = regime + 1,
            None => (self.space, self.shift) = (0, None),
        }
    }

    /// Moves, zooms; whether the action was one of these.
    pub fn act(&mut self, action: Action, capture: &Capture) -> bool {
        let Some(space) = self.space(capture) else {
            return false;
        };
        let rows = self.rows(space);
        let cell = 1_u64 << self.shift();
        let here = self.cell(self.cursor).start;
        let height = self.cells.height.max(2) - 1;
        match action {
            Action::Left => self.cursor = here.saturating_sub(cell),
            Action::Right => {
                self.cursor = here.checked_add(cell).unwrap_or(here);
            }
            Action::Up => self.cursor = rows.step(self.cursor, -1),
            Action::Down => self.cursor = rows.step(self.cursor, 1),
            Action::PageUp => self.cursor = rows.step(self.cursor, -i32::from(height)),
            Action::PageDown => self.cursor = rows.step(self.cursor, i32::from(height)),
            Action::First => self.cursor = space.extent.start,
            Action::Last => self.cursor = space.extent.last().unwrap_or(space.extent.start),
            Action::ZoomIn => self.zoom(-1),
            Action::ZoomOut => self.zoom(1),
            Action::Fit => self.fit(space),
            Action::View => {
                let next = (self.space + 1) % capture.spaces.len();
                let cursor = start(&capture.spaces[next]);
                self.go(next, cursor);
            }
            Action::NextChange => return self.seek(space, true, |area| area.changed),
            Action::PreviousChange => return self.seek(space, false, |area| area.changed),
            Action::NextProblem => {
                return self.seek(space, true, |area| area.class == Class::Problem);
            }
            Action::PreviousProblem => {
                return self.seek(space, false, |area| area.class == Class::Problem);
            }
            _ => return false,
        }
        true
    }

    fn zoom(&mut self, by: i32) {
        let shift = self.shift().saturating_add_signed(by);
        self.shift = Some(shift.clamp(CLOSEST, FARTHEST));
    }

    /// To the next or previous area that is wanted, beyond the cell of the cursor.
    fn seek(&mut self, space: &Space, forward: bool, wanted: impl Fn(&Area) -> bool) -> bool {
        let here = self.cell(self.cursor);
        let found = if forward {
            let beyond = |area: &&Area| here.last().is_some_and(|last| area.span.start > last);
            space.areas.iter().find(|area| beyond(area) && wanted(area))
        } else {
            let before = |area: &&Area| area.span.start < here.start;
            space
                .areas
                .iter()
                .rev()
                .find(|area| before(area) && wanted(area))
        };
        if let Some(area) = found {
            self.cursor = area.span.start;
        }
        found.is_some()
    }

    /// The address of a place on the screen.
    fn at(&self, capture: &Capture, x: u16, y: u16) -> Option<u64> {
        if !self.cells.contains((x, y).into()) {
            return None;
        }
        let rows = self.rows(self.space(capture)?);
        let line = rows
            .lines_from(self.top, self.cursor)
            .nth(usize::from(y - self.cells.y))?;
        let row = line.row()?;
        row.checked_add(u64::from(x - self.cells.x) << self.shift())
    }

    /// Puts the cursor where the mouse was pressed.
    pub fn press(&mut self, capture: &Capture, x: u16, y: u16) -> bool {
        self.drag = Some(y);
        let Some(address) = self.at(capture, x, y) else {
            return false;
        };
        self.cursor = address;
        true
    }

    /// Pans with the mouse.
    pub fn drag(&mut self, capture: &Capture, y: u16) -> bool {
        let (Some(from), Some(space)) = (self.drag.replace(y), self.space(capture)) else {
            return false;
        };
        let by = i32::from(from) - i32::from(y);
        let rows = self.rows(space);
        self.top = rows.step(self.top, by);
        self.cursor = rows.step(self.cursor, by);
        by != 0
    }

    /// Zooms at the place where the mouse is.
    pub fn wheel(&mut self, capture: &Capture, x: u16, y: u16, by: i32) -> bool {
        let Some(address) = self.at(capture, x, y) else {
            return false;
        };
        let before = self.shift;
        self.cursor = address;
        self.zoom(by);
        before != self.shift
    }

    /// What the cursor stands on.
    pub fn focus(&self, capture: &Capture) -> Focus {
        let address = self.cursor;
        let (pa, input) = match self.space.checked_sub(1) {
            None => (Some(address), None),
            Some(regime) => {
                let host = capture
                    .regime_of(self.space)
                    .is_some_and(|r| r.name == "host-s2");
                let pa = capture.translate(regime, address);
                (pa.or(host.then_some(address)), Some((regime, address)))
            }
        };
        Focus {
            pa,
            input,
            value: format!("{address:#x}"),
        }
    }
}
