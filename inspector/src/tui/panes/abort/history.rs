//! Every abort that was followed in this session, as rows, and where they were.

use crate::abort::{Cause, Memory, Outcome, Story};
use crate::addr::Span;
use crate::tui::grid;
use crate::tui::list::List;
use crate::tui::panes::below;
use crate::tui::panes::locks::span;
use crate::tui::panes::sieve::Sieve;
use crate::tui::theme::Theme;
use crate::view::{Cell, Role, Row, memory_text, story_row};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How many aborts are remembered.
const MOST: usize = 10_000;
/// Columns beside bars and names of regions.
const NUMBERS: u16 = 31;

/// An abort that was followed to its end.
#[derive(Clone, Debug)]
pub struct Told {
    /// Aborts are counted from 1.
    pub number: u64,
    /// When its end was seen, from the start of the session on.
    pub at: Duration,
    /// What happened.
    pub story: Arc<Story>,
}

/// What was followed, the latest last.
#[derive(Clone, Default, Debug)]
pub struct History {
    told: VecDeque<Told>,
    /// Which rows are shown.
    pub sieve: Sieve,
    /// Cursor.
    pub list: List,
    /// Indices of those that the filter admits.
    rows: Vec<usize>,
    count: u64,
}

/// Aborts of one part of the address space.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Bar {
    place: String,
    aborts: usize,
    mapped: u64,
    refused: usize,
}

impl History {
    /// Takes an abort that ended. The cursor goes with it if it stands on the last.
    pub fn push(&mut self, story: Arc<Story>, at: Duration) {
        let follows = self.list.cursor + 1 >= self.rows.len();
        self.count += 1;
        if self.told.len() == MOST {
            self.told.pop_front();
        }
        self.told.push_back(Told {
            number: self.count,
            at,
            story,
        });
        self.refresh();
        if follows {
            self.list.cursor = self.rows.len().saturating_sub(1);
        }
    }

    /// Chooses the rows anew.
    pub fn refresh(&mut self) {
        let admitted = |told: &Told| {
            let row = row(told);
            self.sieve.admits(&row, &spans(&told.story))
        };
        let rows = self.told.iter().enumerate();
        self.rows = rows
            .filter(|(_, told)| admitted(told))
            .map(|(i, _)| i)
            .collect();
        self.list.cursor = self.list.cursor.min(self.rows.len().saturating_sub(1));
    }

    /// Rows that are shown.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Parts of the address space that aborts were in.
    pub fn places(&self) -> usize {
        self.bars().len()
    }

    /// The one under the cursor.
    pub fn selected(&self) -> Option<&Told> {
        self.told.get(*self.rows.get(self.list.cursor)?)
    }

    /// The last one of a CPU.
    pub fn last_of(&self, cpu: usize) -> Option<&Told> {
        self.told.iter().rev().find(|told| told.story.cpu == cpu)
    }

    /// The CPU of the last one.
    pub fn latest(&self) -> Option<usize> {
        self.told.back().map(|told| told.story.cpu)
    }

    /// Those that are shown, the earliest first.
    pub fn stories(&self) -> Vec<Arc<Story>> {
        let told = self.rows.iter().filter_map(|at| self.told.get(*at));
        told.map(|told| Arc::clone(&told.story)).collect()
    }

    /// Draws the rows.
    pub fn draw(&self, theme: Theme, area: Rect, buf: &mut Buffer) {
        let at = (self.list.cursor + 1).min(self.rows.len());
        let note = match self.sieve.filter.value() {
            "" => format!("{at} of {}", self.rows.len()),
            _ => format!("{at} of {} of {}", self.rows.len(), self.told.len()),
        };
        grid::rule(buf, area, theme, "aborts of this session", &note);
        let shown = self.list.window(self.rows.len());
        let lines: Vec<_> = shown
            .filter_map(|i| {
                Some(grid::Line {
                    row: row(self.told.get(self.rows[i])?),
                    changed: false,
                    selected: i == self.list.cursor,
                })
            })
            .collect();
        let titles = [
            "#",
            "AT",
            "CPU",
            "FROM",
            "IPA, CALL",
            "OUTCOME",
            "SIZE",
            "INSTR",
        ];
        grid::table(buf, below(area, 1), theme, &titles, None, &lines);
        if lines.is_empty() {
            grid::note(buf, below(area, 2), theme, self.nothing());
        }
    }

    /// Why there is nothing to be seen.
    fn nothing(&self) -> &'static str {
        match self.told.is_empty() {
            true => "none yet: press a to run to the next one",
            false => "none is like this (Esc clears the filter)",
        }
    }

    /// Draws how many aborts each part of the address space had, of those that the filter admits.
    pub fn draw_places(&self, cursor: &List, theme: Theme, area: Rect, buf: &mut Buffer) {
        let bars = self.bars();
        grid::rule(
            buf,
            area,
            theme,
            "aborts by region",
            &match bars.len() {
                1 => "1 region".to_owned(),
                count => format!("{count} regions"),
            },
        );
        let most = bars.iter().map(|bar| bar.aborts).max().unwrap_or(1);
        // The bars have what the names leave.
        let longest = bars.iter().map(|bar| grid::width(&bar.place)).max();
        let room = area.width.saturating_sub(NUMBERS + longest.unwrap_or(0));
        let room = usize::from(room.min(area.width / 4).max(4));
        let lines: Vec<_> = cursor
            .window(bars.len())
            .map(|i| {
                let bar = &bars[i];
                let length = (bar.aborts * room).div_ceil(most);
                grid::Line {
                    row: vec![
                        Cell::new(Role::Plain, bar.aborts.to_string()),
                        Cell::new(Role::Address, grid::about(bar.mapped)),
                        Cell::new(Role::Active, bar.refused.to_string()),
                        Cell::new(Role::Host, "█".repeat(length)),
                        Cell::new(Role::Plain, bar.place.as_str()),
                    ],
                    changed: false,
                    selected: i == cursor.cursor,
                }
            })
            .collect();
        let titles = ["ABORTS", "MAPPED", "REFUSED", "", "REGION"];
        grid::table(buf, below(area, 1), theme, &titles, None, &lines);
        if lines.is_empty() {
            grid::note(buf, below(area, 2), theme, self.nothing());
        }
    }

    /// The parts of the address space, those with most aborts first.
    fn bars(&self) -> Vec<Bar> {
        let mut bars: Vec<Bar> = Vec::new();
        for story in self.rows.iter().filter_map(|at| self.told.get(*at)) {
            let place = place(&story.story);
            let at = bars
                .iter()
                .position(|bar| bar.place == place)
                .unwrap_or_else(|| {
                    bars.push(Bar {
                        place,
                        aborts: 0,
                        mapped: 0,
                        refused: 0,
                    });
                    bars.len() - 1
                });
            let bar = &mut bars[at];
            bar.aborts += 1;
            if let Some(mapped) = story.story.mapped() {
                bar.mapped = bar.mapped.saturating_add(mapped.size);
            }
            if matches!(story.story.outcome, Outcome::Refused { .. }) {
                bar.refused += 1;
            }
        }
        bars.sort_by_key(|bar| std::cmp::Reverse(bar.aborts));
        bars
    }
}

/// The part of the address space that an abort was in.
fn place(story: &Story) -> String {
    match &story.cause {
        Cause::Abort(fault) => match &fault.memory {
            Memory::Ram { region } => format!("RAM {region}"),
            Memory::Mmio { gap, owner: None } => format!("no RAM {gap}"),
            other => memory_text(other),
        },
        Cause::Call(call) => call.name.clone().unwrap_or_else(|| "hypercall".to_owned()),
    }
}

fn row(told: &Told) -> Row {
    let counted = [
        Cell::new(Role::Dim, told.number.to_string()),
        Cell::new(Role::Dim, span(told.at)),
    ];
    counted.into_iter().chain(story_row(&told.story)).collect()
}

/// Addresses that a filter may name: that of the fault, and what was mapped for it.
fn spans(story: &Story) -> Vec<Span> {
    let ipa = story.fault().and_then(|fault| fault.ipa);
    let mut spans: Vec<_> = ipa.map(|ipa| Span::new(ipa, 1)).into_iter().collect();
    spans.extend(match &story.outcome {
        Outcome::Mapped { .. } => story.mapped(),
        Outcome::AlreadyMapped { leaf, .. } => *leaf,
        _ => None,
    });
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abort::testing::{gave_up, mapped, refused};

    fn history() -> History {
        let mut history = History::default();
        for (story, at) in [mapped(), refused(), gave_up(), mapped()]
            .into_iter()
            .zip(1..)
        {
            history.push(Arc::new(story), Duration::from_secs(at));
        }
        history
    }

    #[test]
    fn the_cursor_follows_the_last_until_it_is_moved() {
        let mut history = history();
        assert_eq!(history.selected().map(|told| told.number), Some(4));
        history.list.cursor = 1;
        history.push(Arc::new(mapped()), Duration::ZERO);
        assert_eq!(history.selected().map(|told| told.number), Some(2));
    }

    #[test]
    fn a_filter_takes_words_and_addresses() {
        for (filter, numbers) in [
            ("refused", vec![2]),
            ("mapped", vec![1, 4]),
            // In the block of 2 MiB that was mapped.
            ("0x41234000", vec![1, 4]),
            ("0x9000000", vec![3]),
            ("nothing", vec![]),
        ] {
            let mut history = history();
            history.sieve.filter = filter.into();
            history.refresh();
            let told = history.rows.iter().map(|at| history.told[*at].number);
            assert_eq!(told.collect::<Vec<_>>(), numbers, "{filter}");
            assert_eq!(history.stories().len(), numbers.len());
        }
    }

    #[test]
    fn regions_are_counted() {
        let bars = history().bars();
        let numbers: Vec<_> = bars
            .iter()
            .map(|bar| (bar.aborts, bar.mapped, bar.refused))
            .collect();
        assert_eq!(numbers, [(2, 4 << 20, 0), (1, 0, 1), (1, 0, 0)]);
        assert!(bars[0].place.starts_with("RAM 0x40000000"), "{bars:?}");
        assert!(bars[1].place.starts_with("memory of hyp"), "{bars:?}");
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut history = History::default();
        let story = Arc::new(mapped());
        for _ in 0..MOST + 3 {
            history.told.push_back(Told {
                number: 0,
                at: Duration::ZERO,
                story: Arc::clone(&story),
            });
            history.told.truncate(MOST);
        }
        history.count = MOST as u64;
        history.push(story, Duration::ZERO);
        assert_eq!(history.told.len(), MOST);
        assert_eq!(
            history.told.back().map(|told| told.number),
            Some(MOST as u64 + 1)
        );
    }
}
