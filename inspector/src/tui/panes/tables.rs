//! The tree of table pages, and every word of one of them.

mod draw;
mod tree;

pub use draw::draw;

use super::{Focus, below, split};
use crate::model::{Entry, RegimeCapture};
use crate::tui::capture::Capture;
use crate::tui::keymap::Action;
use crate::tui::list::List;
use ratatui::layout::Rect;
use std::collections::BTreeSet;
use tree::{Node, nodes};

/// State of the pane.
#[derive(Clone, Default, Debug)]
pub struct Tables {
    /// Index of the regime.
    pub regime: usize,
    /// Cursor in the tree.
    pub tree: List,
    /// Cursor in the words of the table chosen in the tree.
    pub words: List,
    /// The keys move in the words, not in the tree.
    pub inside: bool,
    /// Tables whose children are not shown, by index.
    closed: BTreeSet<usize>,
    nodes: Vec<Node>,
    slots: Vec<Slot>,
}

/// A line of a table's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slot {
    /// The word at this index.
    Word(usize),
    /// Words `.0..=.1` are zero.
    Zeros(usize, usize),
}

/// Where the parts of the pane are.
struct Areas {
    tree: Rect,
    words: Rect,
}

fn areas(body: Rect) -> Areas {
    let main = split(body).0;
    let width = (main.width * 2 / 5).clamp(26.min(main.width), 44);
    let tree = Rect { width, ..main };
    let words = Rect {
        x: main.x + width,
        width: main.width - width,
        ..main
    };
    let tree = Rect {
        width: width.saturating_sub(1),
        ..tree
    };
    Areas { tree, words }
}

/// Bytes of input address that one word of a table at a level covers, as a power of two.
fn word_shift(regime: &RegimeCapture, level: i8) -> u32 {
    let granule = regime.regime.granule;
    granule.shift() + granule.index_bits() * u32::from((3 - level).clamp(0, 4) as u8)
}

impl Tables {
    fn captured<'a>(&self, capture: &'a Capture) -> Option<&'a RegimeCapture> {
        capture.system.regimes.get(self.regime)
    }

    /// Index of the table chosen in the tree.
    fn table(&self) -> Option<usize> {
        self.nodes.get(self.tree.cursor).map(|node| node.table)
    }

    /// Takes a new capture, keeping the cursor on what it stands on.
    pub fn refresh(&mut self, capture: &Capture) {
        self.regime = self
            .regime
            .min(capture.system.regimes.len().saturating_sub(1));
        let before = self.table();
        let count = self
            .captured(capture)
            .map_or(0, |regime| regime.tables.len());
        self.closed.retain(|table| *table < count);
        self.nodes = self
            .captured(capture)
            .map_or_else(Vec::new, |regime| nodes(&regime.tables, &self.closed));
        if let Some(at) = self
            .nodes
            .iter()
            .position(|node| Some(node.table) == before)
        {
            self.tree.cursor = at;
        }
        self.tree.settle(self.nodes.len(), self.tree.height);
        self.fill(capture);
    }

    /// Makes the lines of the words of the chosen table.
    fn fill(&mut self, capture: &Capture) {
        let at = self.slots.get(self.words.cursor).copied();
        self.slots.clear();
        let table = self.table().zip(self.captured(capture));
        let Some(table) = table.and_then(|(table, regime)| regime.tables.get(table)) else {
            return;
        };
        for (i, word) in table.words.iter().enumerate() {
            match self.slots.last_mut() {
                Some(Slot::Zeros(_, last)) if *word == 0 => *last = i,
                _ if *word == 0 => self.slots.push(Slot::Zeros(i, i)),
                _ => self.slots.push(Slot::Word(i)),
            }
        }
        if let Some(Slot::Word(i)) = at {
            self.select(i);
        }
        self.words.settle(self.slots.len(), self.words.height);
    }

    /// Puts the cursor on a word.
    fn select(&mut self, index: usize) {
        let holds = |slot: &Slot| match *slot {
            Slot::Word(i) => i == index,
            Slot::Zeros(first, last) => (first..=last).contains(&index),
        };
        if let Some(at) = self.slots.iter().position(holds) {
            self.words.show(at);
        }
    }

    /// Shows the word that decides over an input address: the last table on its way.
    pub fn go(&mut self, capture: &Capture, regime: usize, ia: u64) -> bool {
        if regime != self.regime {
            self.regime = regime;
            self.closed.clear();
        }
        let Some(captured) = self.captured(capture) else {
            return false;
        };
        let holds = |table: &crate::arch::walk::Table| {
            let shift = word_shift(captured, table.level);
            let offset = ia.checked_sub(table.ia)?;
            let index = usize::try_from(offset.checked_shr(shift)?).ok()?;
            (index < table.words.len()).then_some(index)
        };
        let found = captured.tables.iter().enumerate();
        let found = found.filter_map(|(i, table)| Some((i, holds(table)?, table.level)));
        let Some((table, index, _)) = found.max_by_key(|(_, _, level)| *level) else {
            return false;
        };
        self.closed.clear();
        self.refresh(capture);
        if let Some(at) = self.nodes.iter().position(|node| node.table == table) {
            self.tree.show(at);
        }
        self.fill(capture);
        self.select(index);
        self.inside = true;
        true
    }

    /// Starts at the root of a regime.
    fn start(&mut self, regime: usize) {
        let list = |list: List| List {
            height: list.height,
            ..List::default()
        };
        *self = Self {
            regime,
            tree: list(self.tree),
            words: list(self.words),
            ..Self::default()
        };
    }

    /// Goes on with the number that its regime has in a new capture, or with the first one.
    pub fn renumber(&mut self, number: impl Fn(usize) -> Option<usize>) {
        match number(self.regime) {
            Some(regime) => self.regime = regime,
            None => self.start(0),
        }
    }

    /// Takes the size of the screen.
    pub fn settle(&mut self, body: Rect) {
        let areas = areas(body);
        let height = |area: Rect, above: u16| usize::from(below(area, above).height);
        self.tree.settle(self.nodes.len(), height(areas.tree, 1));
        self.words.settle(self.slots.len(), height(areas.words, 2));
    }

    /// Moves; whether the action was one that does.
    pub fn act(&mut self, action: Action, capture: &Capture) -> bool {
        match action {
            Action::View => {
                let count = capture.system.regimes.len().max(1);
                self.start((self.regime + 1) % count);
                self.refresh(capture);
                true
            }
            Action::Left if self.inside => {
                self.inside = false;
                true
            }
            Action::Left => self.fold_or_rise(capture),
            Action::Right if self.inside => false,
            Action::Right => {
                let closed = self.table().is_some_and(|table| self.closed.remove(&table));
                self.inside = !closed && !self.slots.is_empty();
                self.refresh(capture);
                true
            }
            _ if self.inside => self.words.act(action, self.slots.len()),
            _ => {
                let moved = self.tree.act(action, self.nodes.len());
                if moved {
                    self.words.cursor = 0;
                    self.slots.clear();
                    self.fill(capture);
                }
                moved
            }
        }
    }

    /// Closes the table under the cursor, or goes to its parent.
    fn fold_or_rise(&mut self, capture: &Capture) -> bool {
        let Some(node) = self.nodes.get(self.tree.cursor).copied() else {
            return false;
        };
        if node.children && self.closed.insert(node.table) {
            self.refresh(capture);
            return true;
        }
        let mut above = self.nodes[..self.tree.cursor].iter();
        let parent = above.rposition(|other| other.depth < node.depth);
        if let Some(at) = parent {
            self.tree.show(at);
            self.fill(capture);
        }
        parent.is_some()
    }

    /// Opens the word under the cursor: a table is entered. Whether there was one to enter.
    pub fn open(&mut self, capture: &Capture) -> bool {
        if !self.inside {
            return self.act(Action::Right, capture);
        }
        let child = self.word(capture).and_then(|word| word.child);
        let Some(at) = child.and_then(|table| self.nodes.iter().position(|n| n.table == table))
        else {
            return false;
        };
        self.tree.show(at);
        self.words.cursor = 0;
        self.slots.clear();
        self.fill(capture);
        true
    }

    /// The word under the cursor with what it leads to.
    fn word<'a>(&self, capture: &'a Capture) -> Option<Word<'a>> {
        let &Slot::Word(index) = self.slots.get(self.words.cursor)? else {
            return None;
        };
        Word::read(capture, self.regime, self.table()?, index)
    }

    /// Puts a cursor where the mouse was pressed.
    pub fn press(&mut self, capture: &Capture, body: Rect, x: u16, y: u16) -> bool {
        let areas = areas(body);
        let tree = below(areas.tree, 1);
        let words = below(areas.words, 2);
        if tree.contains((x, y).into()) {
            let row = self.tree.at_line(usize::from(y - tree.y), self.nodes.len());
            let Some(row) = row else { return false };
            (self.tree.cursor, self.inside) = (row, false);
            self.words.cursor = 0;
            self.slots.clear();
            self.fill(capture);
            return true;
        }
        let line = words
            .contains((x, y).into())
            .then(|| usize::from(y - words.y));
        let row = line.and_then(|line| self.words.at_line(line, self.slots.len()));
        row.inspect(|row| (self.words.cursor, self.inside) = (*row, true))
            .is_some()
    }

    /// What the cursor stands on.
    pub fn focus(&self, capture: &Capture) -> Focus {
        let Some(regime) = self.captured(capture) else {
            return Focus::default();
        };
        let table = self.table().and_then(|table| regime.tables.get(table));
        let Some(table) = table else {
            return Focus::default();
        };
        if !self.inside {
            return Focus {
                pa: Some(table.pa),
                input: Some((self.regime, table.ia)),
                value: format!("{:#x}", table.pa),
            };
        }
        let index = match self.slots.get(self.words.cursor) {
            Some(Slot::Word(i) | Slot::Zeros(i, _)) => *i,
            None => 0,
        };
        let ia = table
            .ia
            .saturating_add((index as u64) << word_shift(regime, table.level));
        let word = table.words.get(index).copied().unwrap_or(0);
        let identity = regime.name == "host-s2";
        Focus {
            pa: capture
                .translate(self.regime, ia)
                .or(identity.then_some(ia)),
            input: Some((self.regime, ia)),
            value: format!("{word:#018x}"),
        }
    }
}

/// A word of a table, read.
struct Word<'a> {
    /// Its index in the table.
    index: usize,
    /// Its value.
    raw: u64,
    /// First input address it covers.
    ia: u64,
    /// Level of its table.
    level: i8,
    /// Physical address of the word itself.
    at: u64,
    /// What it says, unless it leads to a good table.
    entry: Option<&'a Entry>,
    /// The table it leads to, by index.
    child: Option<usize>,
}

impl<'a> Word<'a> {
    fn read(capture: &'a Capture, regime: usize, table: usize, index: usize) -> Option<Self> {
        let captured = capture.system.regimes.get(regime)?;
        let page = captured.tables.get(table)?;
        let shift = word_shift(captured, page.level);
        let ia = page.ia.saturating_add((index as u64).checked_shl(shift)?);
        let at = page.pa.saturating_add(8 * index as u64);
        let entry = capture
            .entry_at(regime, ia)
            .filter(|entry| entry.leaf.at == at);
        let child = captured.tables.iter().position(|other| {
            other.parent == Some(page.pa) && other.ia == ia && other.level == page.level + 1
        });
        Some(Self {
            index,
            raw: *page.words.get(index)?,
            ia,
            level: page.level,
            at,
            entry,
            child: child.filter(|_| entry.is_none()),
        })
    }
}
