//! A list with a cursor, of which only a window is on the screen.

use super::keymap::Action;

/// Position in a list.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct List {
    /// The row that the cursor stands on.
    pub cursor: usize,
    /// The first row on the screen.
    pub top: usize,
    /// Rows on the screen.
    pub height: usize,
}

impl List {
    /// Moves as an action says; whether it was one that moves.
    pub fn act(&mut self, action: Action, len: usize) -> bool {
        let page = self.height.max(2) - 1;
        self.cursor = match action {
            Action::Up => self.cursor.saturating_sub(1),
            Action::Down => self.cursor.saturating_add(1),
            Action::PageUp => self.cursor.saturating_sub(page),
            Action::PageDown => self.cursor.saturating_add(page),
            Action::First => 0,
            Action::Last => usize::MAX,
            _ => return false,
        };
        self.settle(len, self.height);
        true
    }

    /// Brings cursor and window back into the list, and the cursor into the window.
    pub fn settle(&mut self, len: usize, height: usize) {
        self.height = height;
        self.cursor = self.cursor.min(len.saturating_sub(1));
        let lowest = self.cursor.saturating_sub(height.saturating_sub(1));
        self.top = self
            .top
            .clamp(lowest, self.cursor)
            .min(len.saturating_sub(height).max(lowest));
    }

    /// Puts the cursor on a row and that row into the middle of the window, unless it is in it.
    pub fn show(&mut self, row: usize) {
        if row < self.top || row >= self.top + self.height {
            self.top = row.saturating_sub(self.height / 2);
        }
        self.cursor = row;
    }

    /// The rows on the screen.
    pub fn window(&self, len: usize) -> std::ops::Range<usize> {
        self.top.min(len)..(self.top + self.height).min(len)
    }

    /// The row at a line of the window.
    pub fn at_line(&self, line: usize, len: usize) -> Option<usize> {
        let row = self.top + line;
        (line < self.height && row < len).then_some(row)
    }

    /// Puts the cursor on the nearest wanted row of `len` before or behind it; whether there is one.
    pub fn seek(&mut self, forward: bool, len: usize, wanted: impl Fn(usize) -> bool) -> bool {
        let found = if forward {
            (self.cursor + 1..len).find(|row| wanted(*row))
        } else {
            (0..self.cursor.min(len)).rev().find(|row| wanted(*row))
        };
        found.inspect(|row| self.show(*row)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn seeks_the_nearest_wanted_row_and_never_the_one_under_the_cursor() {
        let mut list = List {
            cursor: 3,
            top: 0,
            height: 10,
        };
        let wanted = |row: usize| [0, 2, 3, 7].contains(&row);
        for (forward, found, row) in [
            (true, true, 7),
            (true, false, 7),
            (false, true, 3),
            (false, true, 2),
            (false, true, 0),
            (false, false, 0),
        ] {
            assert_eq!(list.seek(forward, 10, wanted), found);
            assert_eq!(list.cursor, row);
        }
    }

    #[test]
    fn moves_within_bounds() {
        let mut list = List::default();
        list.settle(100, 10);
        for (action, cursor, top) in [
            (Action::Up, 0, 0),
            (Action::Down, 1, 0),
            (Action::PageDown, 10, 1),
            (Action::Last, 99, 90),
            (Action::Down, 99, 90),
            (Action::PageUp, 90, 90),
            (Action::Up, 89, 89),
            (Action::First, 0, 0),
        ] {
            assert!(list.act(action, 100));
            assert_eq!((list.cursor, list.top), (cursor, top), "{action:?}");
        }
        assert!(!list.act(Action::Open, 100));
    }

    proptest! {
        #[test]
        fn the_cursor_is_in_the_window_and_the_window_is_full(
            cursor in 0..2000_usize, top in 0..2000_usize, len in 0..1000_usize, height in 0..100_usize,
        ) {
            let mut list = List { cursor, top, height };
            list.settle(len, height);
            prop_assert!(len == 0 || list.cursor < len);
            let window = list.window(len);
            if height > 0 && len > 0 {
                prop_assert!(window.contains(&list.cursor));
                prop_assert_eq!(window.len(), height.min(len));
            }
        }
    }
}
