//! Choosing and ordering rows: what Runs and Owners have in common.

use crate::addr::Span;
use crate::tui::keymap::Action;
use crate::view::Row;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::cmp::Ordering;
use tui_input::{Input, InputRequest};

/// A filter and an order.
#[derive(Clone, Default, Debug)]
pub struct Sieve {
    /// Words of which each must be in a row.
    pub filter: Input,
    /// Keys go into the filter.
    pub typing: bool,
    /// Index into the pane's list of orders.
    pub order: usize,
    /// From the last to the first.
    pub reverse: bool,
}

impl Sieve {
    /// Takes an action; whether rows must be chosen anew.
    pub fn act(&mut self, action: Action, orders: usize) -> bool {
        match action {
            Action::Sort => {
                self.order = (self.order + 1) % orders;
                self.reverse = false;
            }
            Action::Reverse => self.reverse = !self.reverse,
            _ => return false,
        }
        true
    }

    /// Takes a key while typing; whether the filter changed.
    pub fn key(&mut self, key: &KeyEvent) -> bool {
        match key.code {
            KeyCode::Enter => {
                self.typing = false;
                false
            }
            KeyCode::Esc => {
                self.typing = false;
                self.filter.reset();
                true
            }
            _ => edit(&mut self.filter, key),
        }
    }

    /// Whether the filter admits a row: each of its words is in a cell, or is an address that one
    /// of the row's ranges holds.
    pub fn admits(&self, row: &Row, spans: &[Span]) -> bool {
        self.filter.value().split_whitespace().all(|word| {
            let address = word
                .strip_prefix("0x")
                .and_then(|hex| u64::from_str_radix(hex, 16).ok());
            row.iter().any(|cell| cell.text.contains(word))
                || address.is_some_and(|a| spans.iter().any(|span| span.contains(a)))
        })
    }

    /// The order of two rows by a comparison of the pane's.
    pub fn ordering(&self, ordering: Ordering) -> Ordering {
        if self.reverse {
            ordering.reverse()
        } else {
            ordering
        }
    }
}

/// Edits one line with a key; whether its text changed.
pub fn edit(input: &mut Input, key: &KeyEvent) -> bool {
    let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
    let request = match key.code {
        KeyCode::Char('u') if ctrl => InputRequest::DeleteLine,
        KeyCode::Char('w') if ctrl => InputRequest::DeletePrevWord,
        KeyCode::Char('a') if ctrl => InputRequest::GoToStart,
        KeyCode::Char('e') if ctrl => InputRequest::GoToEnd,
        KeyCode::Char(c) if !ctrl && !c.is_control() => InputRequest::InsertChar(c),
        KeyCode::Backspace => InputRequest::DeletePrevChar,
        KeyCode::Delete => InputRequest::DeleteNextChar,
        KeyCode::Left => InputRequest::GoToPrevChar,
        KeyCode::Right => InputRequest::GoToNextChar,
        KeyCode::Home => InputRequest::GoToStart,
        KeyCode::End => InputRequest::GoToEnd,
        _ => return false,
    };
    input.handle(request).is_some_and(|change| change.value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{Cell, Role};

    fn type_in(sieve: &mut Sieve, text: &str) {
        for c in text.chars() {
            sieve.key(&KeyEvent::from(KeyCode::Char(c)));
        }
    }

    #[test]
    fn each_word_must_be_in_the_row_or_in_its_ranges() {
        let row: Row = ["host-s2", "0x40000000", "shared-owned"]
            .map(|text| Cell::new(Role::Plain, text))
            .into();
        let spans = [Span::new(0x4000_0000, 0x20_0000)];
        for (filter, admitted) in [
            ("", true),
            ("s2", true),
            ("shared host", true),
            ("shared hyp", false),
            ("0x40001234", true),
            ("0x40200000", false),
            ("0x4", true),
            ("0xzz", false),
        ] {
            let mut sieve = Sieve::default();
            type_in(&mut sieve, filter);
            assert_eq!(sieve.admits(&row, &spans), admitted, "{filter:?}");
        }
    }

    #[test]
    fn escape_clears_and_enter_keeps() {
        let mut sieve = Sieve {
            typing: true,
            ..Sieve::default()
        };
        type_in(&mut sieve, "hyp x");
        assert!(sieve.key(&KeyEvent::new(KeyCode::Char('w'), KeyModifiers::CONTROL)));
        assert_eq!(sieve.filter.value(), "hyp ");
        sieve.key(&KeyEvent::from(KeyCode::Enter));
        assert_eq!((sieve.typing, sieve.filter.value()), (false, "hyp "));
        sieve.key(&KeyEvent::from(KeyCode::Esc));
        assert_eq!(sieve.filter.value(), "");
    }
}
