//! A capture with what the panes need beside it: address spaces cut into areas of one class, and
//! what changed since the capture before.

mod areas;
mod changes;
mod faults;
#[cfg(test)]
mod tests;

pub use changes::Changes;

use super::code::Code;
use super::source::Listing;
use crate::abort::trap::HOST_STAGE2;
use crate::abort::{Story, Word};
use crate::addr::Span;
use crate::arch::desc::Shape;
use crate::model::{Entry, OwnerRange, RegimeCapture, System};
use areas::{extent, is_ram, mark, overlapping, physical_areas, regime_areas};
use faults::faults;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What a place in an address space is, in one word and one glyph.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Neither RAM nor mapped.
    Nothing,
    /// RAM that stage 2 has not mapped yet: the host's by default.
    Lazy,
    /// Owned by the host, exclusively.
    Host,
    /// Mapped, and not RAM.
    Mmio,
    /// Owned by the hypervisor, exclusively.
    Hyp,
    /// A guest's.
    Guest,
    /// Lent by the side whose space this is; in physical memory, by the host.
    SharedOwned,
    /// Borrowed by the side whose space this is; in physical memory, by the host.
    SharedBorrowed,
    /// Two owners, none, or a descriptor that may not be.
    Problem,
}

impl Class {
    /// All, from the least to the most notable.
    pub const ALL: [Self; 9] = [
        Self::Nothing,
        Self::Lazy,
        Self::Host,
        Self::Mmio,
        Self::Hyp,
        Self::Guest,
        Self::SharedOwned,
        Self::SharedBorrowed,
        Self::Problem,
    ];

    /// Glyph of what changed since the last capture, whatever its class.
    pub const CHANGED: char = '*';

    /// Glyph of what the last abort changed, whatever its class.
    pub const ABORTED: char = '◆';

    /// Its glyph.
    pub fn glyph(self) -> char {
        match self {
            Self::Nothing => ' ',
            Self::Lazy => '.',
            Self::Host => '-',
            Self::Mmio => '~',
            Self::Hyp => '#',
            Self::Guest => 'g',
            Self::SharedOwned => '>',
            Self::SharedBorrowed => '<',
            Self::Problem => '!',
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Lazy => "host, not mapped yet",
            Self::Host => "host, owned",
            Self::Mmio => "mapped, not RAM",
            Self::Hyp => "hyp, owned",
            Self::Guest => "guest",
            Self::SharedOwned => "shared-owned",
            Self::SharedBorrowed => "shared-borrowed",
            Self::Problem => "problem",
        }
    }
}

/// A range of one class, all of it changed or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Area {
    /// Where.
    pub span: Span,
    /// What.
    pub class: Class,
    /// It differs from the capture before.
    pub changed: bool,
}

/// An address space: physical memory, or the input addresses of a regime.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Space {
    /// `physical`, or the regime's name.
    pub name: String,
    /// From the first to the last address of interest.
    pub extent: Span,
    /// Disjoint, in order; what lies between is [`Class::Nothing`].
    pub areas: Vec<Area>,
}

impl Space {
    /// The areas that overlap a range, in order.
    pub fn within(&self, span: Span) -> impl Iterator<Item = &Area> {
        overlapping(&self.areas, span)
    }

    /// Bytes of each class.
    pub fn totals(&self) -> BTreeMap<Class, u64> {
        let mut totals = BTreeMap::new();
        for area in &self.areas {
            let total: &mut u64 = totals.entry(area.class).or_default();
            *total = total.saturating_add(area.span.size);
        }
        totals
    }
}

/// One capture, ready to be shown.
#[derive(Clone, PartialEq, Debug)]
pub struct Capture {
    /// What was captured.
    pub system: Arc<System>,
    /// Captures are counted from 1.
    pub number: u64,
    /// How long the machine stood still for it.
    pub took: Duration,
    /// Physical memory first, then the regimes in their order.
    pub spaces: Vec<Space>,
    /// What changed.
    pub changes: Changes,
    /// What is wrong with the machine, one sentence each.
    pub faults: Vec<String>,
    /// The code around each CPU's program counter, where it was read.
    pub code: Vec<Code>,
    /// The source around it, where the file is at hand.
    pub source: Vec<Option<Listing>>,
    /// What the last abort that was followed changed.
    pub last_abort: Aborted,
}

/// What an abort changed.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Aborted {
    /// Ranges by address space, in the order of [`Capture::spaces`].
    pub spaces: Vec<Vec<Span>>,
    /// Addresses of words of tables.
    pub words: BTreeSet<u64>,
}

impl Aborted {
    /// Whether it changed part of a range of a space.
    pub fn touches(&self, space: usize, span: Span) -> bool {
        let spans = self.spaces.get(space).map_or(&[][..], Vec::as_slice);
        spans.iter().any(|changed| changed.overlaps(span))
    }
}

impl Capture {
    /// Prepares a capture; `before` is the one it is compared with.
    pub fn new(system: Arc<System>, before: Option<&Self>, number: u64, took: Duration) -> Self {
        let changes = before.map_or_else(Changes::default, |before| {
            Changes::between(&before.system, &system)
        });
        let areas = std::iter::once(("physical".to_owned(), physical_areas(&system))).chain(
            system
                .regimes
                .iter()
                .map(|regime| (regime.name.clone(), regime_areas(&system, regime))),
        );
        let spaces = areas
            .enumerate()
            .map(|(i, (name, areas))| {
                let changed = changes.spaces.get(i).map_or(&[][..], Vec::as_slice);
                let areas = mark(areas, changed);
                Space {
                    name,
                    extent: extent(&areas),
                    areas,
                }
            })
            .collect();
        let faults = faults(&system);
        Self {
            system,
            number,
            took,
            spaces,
            changes,
            faults,
            code: Vec::new(),
            source: Vec::new(),
            last_abort: Aborted::default(),
        }
    }

    /// Marks what an abort changed.
    pub fn mark_abort(&mut self, story: Option<&Story>) {
        let Some(story) = story else {
            return;
        };
        let mut spaces = vec![Vec::new(); self.spaces.len()];
        for write in &story.writes {
            // What a table is for, its own words say.
            let is_table = |word: &Option<Word>| {
                word.as_ref()
                    .is_some_and(|word| word.descriptor.shape == Shape::Table)
            };
            let space = self
                .spaces
                .iter()
                .position(|space| space.name == write.regime);
            if let Some(space) = space.filter(|_| !is_table(&write.new)) {
                let span = Span::new(write.ia, write.size);
                spaces[space].push(span);
                // The host's input addresses are physical.
                if write.regime == HOST_STAGE2 {
                    spaces[0].push(span);
                }
            }
        }
        if let Some(physical) = spaces.first_mut() {
            physical.extend(story.changes.owners.iter().map(|change| change.pa));
        }
        let words = story.writes.iter().map(|write| write.at).collect();
        self.last_abort = Aborted { spaces, words };
    }

    /// Index of the regime that a space shows; `None` for physical memory.
    pub fn regime_of(&self, space: usize) -> Option<&RegimeCapture> {
        self.system.regimes.get(space.checked_sub(1)?)
    }

    /// The entry that covers an input address.
    pub fn entry_at(&self, regime: usize, ia: u64) -> Option<&Entry> {
        let entries = &self.system.regimes.get(regime)?.entries;
        let after = entries.partition_point(|entry| entry.leaf.ia <= ia);
        let entry = entries.get(after.checked_sub(1)?)?;
        Span::new(entry.leaf.ia, entry.leaf.size)
            .contains(ia)
            .then_some(entry)
    }

    /// The row of `owners` that covers a physical address.
    pub fn owner_at(&self, pa: u64) -> Option<&OwnerRange> {
        let after = self
            .system
            .owners
            .partition_point(|range| range.pa.start <= pa);
        let range = self.system.owners.get(after.checked_sub(1)?)?;
        range.pa.contains(pa).then_some(range)
    }

    /// The physical address that an input address translates to.
    pub fn translate(&self, regime: usize, ia: u64) -> Option<u64> {
        let entry = self.entry_at(regime, ia)?;
        entry.leaf.attributes?;
        entry.leaf.oa?.checked_add(ia - entry.leaf.ia)
    }

    /// The physical and the input address that an address may stand for: one of hyp's, if it maps it,
    /// or else one of physical memory.
    pub fn resolve(&self, address: u64) -> (Option<u64>, Option<(usize, u64)>) {
        let hyp = self
            .system
            .regimes
            .iter()
            .position(|regime| regime.name == "hyp-s1");
        let translated = hyp.and_then(|hyp| Some((hyp, self.translate(hyp, address)?)));
        match translated {
            Some((hyp, pa)) => (Some(pa), Some((hyp, address))),
            None => (is_ram(&self.system, address).then_some(address), None),
        }
    }

    /// The symbol that holds an address, and the offset into it.
    pub fn symbol_at(&self, address: u64) -> Option<String> {
        self.system.symbols.name_of(address)
    }

    /// The first input address of a regime that translates to a physical address.
    pub fn input_of(&self, regime: usize, pa: u64) -> Option<u64> {
        // Identity maps answer at once.
        if self.translate(regime, pa) == Some(pa) {
            return Some(pa);
        }
        self.system
            .regimes
            .get(regime)?
            .entries
            .iter()
            .find_map(|entry| {
                entry.leaf.attributes?;
                let span = Span::new(entry.leaf.oa?, entry.leaf.size);
                span.contains(pa)
                    .then(|| entry.leaf.ia.saturating_add(pa - span.start))
            })
    }
}
