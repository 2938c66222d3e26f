//! Every table of a regime, level by level.

use super::{Entry, Kind, Reader, Table, answer, words};
use crate::addr::Span;
use crate::arch::desc::{self, Limits, Shape};
use crate::arch::regime::Regime;
use crate::target::ReadError;
use std::collections::HashMap;

/// How many bytes of tables one walk reads at most: enough for 64 GiB in 4 KiB pages.
pub const MAX_TABLE_BYTES: u64 = 128 << 20;

/// Everything a regime's tables hold.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Walk {
    /// Table pages in the order they were found: level by level, by input address.
    pub tables: Vec<Table>,
    /// Descriptors that are not zero and lead to no good table, in order of input address.
    pub entries: Vec<Entry>,
    /// What stands in no entry: doubtful registers, the limit reached.
    pub problems: Vec<String>,
}

/// Reads and decodes all tables of a regime. Each level is one batch of reads; each table is read
/// once, and at most [`MAX_TABLE_BYTES`] in all, so that the walk ends whatever the tables hold.
///
/// # Errors
/// The reader's own. What is wrong with one table is an entry that says so.
pub fn walk_all<E>(regime: &Regime, reader: &mut Reader<'_, E>) -> Result<Walk, E> {
    walk_within(regime, MAX_TABLE_BYTES, reader)
}

/// Walks several regimes as [`walk_all`] does, side by side: their tables of one depth are one batch of reads.
///
/// # Errors
/// The reader's own.
pub fn walk_together<E>(regimes: &[&Regime], reader: &mut Reader<'_, E>) -> Result<Vec<Walk>, E> {
    let walkers = regimes.iter();
    let walkers = walkers.map(|regime| Walker::new(regime, MAX_TABLE_BYTES));
    run(walkers.collect(), reader)
}

pub(super) fn walk_within<E>(
    regime: &Regime,
    max_bytes: u64,
    reader: &mut Reader<'_, E>,
) -> Result<Walk, E> {
    let walks = run(vec![Walker::new(regime, max_bytes)], reader)?;
    Ok(walks.into_iter().next().unwrap_or_default())
}

fn run<E>(mut walkers: Vec<Walker<'_>>, reader: &mut Reader<'_, E>) -> Result<Vec<Walk>, E> {
    loop {
        let links = walkers.iter().flat_map(|walker| &walker.batch);
        let spans: Vec<Span> = links.map(|link| link.span).collect();
        if spans.is_empty() {
            break;
        }
        let mut answers = reader(&spans)?.into_iter();
        for walker in &mut walkers {
            walker.take(&mut answers);
        }
    }
    Ok(walkers.into_iter().map(Walker::finish).collect())
}

/// A table that is to be read.
struct Link {
    /// Index in `Walker::known`.
    known: usize,
    span: Span,
    limits: Limits,
    /// The descriptor that points here; `None` for a root.
    from: Option<Word>,
}

/// A table that was met.
struct Known {
    pa: u64,
    level: i8,
    ia: u64,
    /// Index of the table that points here.
    parent: Option<usize>,
}

/// A descriptor and where it stands.
#[derive(Clone, Copy)]
struct Word {
    raw: u64,
    at: u64,
    ia: u64,
    level: i8,
}

impl Word {
    fn entry(self, size: u64, kind: Kind) -> Entry {
        Entry {
            ia: self.ia,
            size,
            level: self.level,
            kind,
            raw: self.raw,
            at: self.at,
            oa: None,
            attributes: None,
            sw: (self.raw >> 55 & 0xf) as u8,
            problem: None,
        }
    }
}

struct Walker<'r> {
    regime: &'r Regime,
    /// The most bytes of tables that are read.
    max_bytes: u64,
    /// The tables to be read next.
    batch: Vec<Link>,
    /// Bytes of tables that may still be read.
    room: u64,
    known: Vec<Known>,
    by_pa: HashMap<u64, usize>,
    /// Tables not read for want of room.
    refused: u64,
    walk: Walk,
}

impl<'r> Walker<'r> {
    fn new(regime: &'r Regime, max_bytes: u64) -> Self {
        let mut walker = Self {
            regime,
            max_bytes,
            batch: Vec::new(),
            room: max_bytes,
            known: Vec::new(),
            by_pa: HashMap::new(),
            refused: 0,
            walk: Walk::default(),
        };
        walker.walk.problems.extend(regime.problem.clone());
        walker.batch = walker.roots();
        walker
    }

    /// Takes in the tables of the batch; what they point to is the next.
    fn take(&mut self, answers: &mut impl Iterator<Item = Result<Vec<u8>, ReadError>>) {
        let mut next = Vec::new();
        for link in std::mem::take(&mut self.batch) {
            match answer(answers.next(), link.span) {
                Ok(bytes) => self.table(&link, words(&bytes), &mut next),
                Err(error) => self.unreadable(&link, &error.to_string()),
            }
        }
        self.batch = next;
    }

    fn finish(mut self) -> Walk {
        if self.refused > 0 {
            self.walk.problems.push(format!(
                "{} tables were not read: one walk reads at most {:#x} bytes of tables",
                self.refused, self.max_bytes
            ));
        }
        // Each level is in order already; a stable sort merges such runs.
        self.walk.entries.sort_by_key(|entry| entry.ia);
        self.walk
    }

    /// The root tables; there is always room for these.
    fn roots(&mut self) -> Vec<Link> {
        let regime = self.regime;
        let whole = regime.root_span();
        let one = whole.size.min(regime.granule.bytes());
        let covers = (one / 8) << regime.granule.level_shift(regime.start_level);
        self.room = self.room.saturating_sub(whole.size);
        (0..regime.root_pages)
            .map(|page| Link {
                known: self.meet(
                    regime.root + page * one,
                    regime.start_level,
                    page * covers,
                    None,
                ),
                span: Span::new(regime.root + page * one, one),
                limits: Limits::default(),
                from: None,
            })
            .collect()
    }

    fn meet(&mut self, pa: u64, level: i8, ia: u64, parent: Option<usize>) -> usize {
        let index = self.known.len();
        self.by_pa.insert(pa, index);
        self.known.push(Known {
            pa,
            level,
            ia,
            parent,
        });
        index
    }

    /// Takes in one table that was read.
    fn table(&mut self, link: &Link, words: Vec<u64>, next: &mut Vec<Link>) {
        let Known {
            pa,
            level,
            ia,
            parent,
        } = self.known[link.known];
        let size = self.regime.entry_size(level);
        for (index, &raw) in (0u64..).zip(&words) {
            if raw == 0 {
                continue;
            }
            let word = Word {
                raw,
                at: pa + index * 8,
                ia: ia + index * size,
                level,
            };
            let decoded = desc::decode_below(self.regime, link.limits, level, raw);
            let kind = match decoded.shape {
                Shape::Table => {
                    self.follow(link, word, decoded, next);
                    continue;
                }
                Shape::Invalid => Kind::Invalid,
                Shape::Reserved => Kind::Reserved,
                Shape::Block => Kind::Block,
                Shape::Page => Kind::Page,
            };
            self.walk.entries.push(Entry {
                oa: decoded.oa,
                attributes: decoded.attributes,
                problem: decoded.fault.map(|fault| fault.to_string().into()),
                ..word.entry(size, kind)
            });
        }
        self.walk.tables.push(Table {
            pa,
            level,
            ia,
            parent: parent.map(|index| self.known[index].pa),
            words,
        });
    }

    /// Puts the table that `word` points to on the list, unless it was met before.
    fn follow(&mut self, link: &Link, word: Word, decoded: desc::Descriptor, next: &mut Vec<Link>) {
        let Some(pa) = decoded.oa else { return };
        let size = self.regime.entry_size(word.level);
        let mut entry = |kind, problem: String| {
            self.walk.entries.push(Entry {
                oa: Some(pa),
                problem: Some(problem.into()),
                ..word.entry(size, kind)
            });
        };
        if let Some(&earlier) = self.by_pa.get(&pa) {
            let Known { level, ia, .. } = self.known[earlier];
            entry(
                Kind::Loop,
                if is_ancestor(&self.known, link.known, earlier) {
                    format!("points back to table {pa:#x}, its own ancestor at level {level}")
                } else {
                    format!(
                        "points to table {pa:#x}, which stands at level {level} for {ia:#x} already"
                    )
                },
            );
            return;
        }
        let bytes = self.regime.granule.bytes();
        if self.room < bytes {
            self.refused += 1;
            entry(
                Kind::Unreadable,
                format!("table {pa:#x} was not read: this walk has read its limit of tables"),
            );
            return;
        }
        if let Some(fault) = decoded.fault {
            self.walk.problems.push(format!(
                "table descriptor {:#x} at {:#x} (level {}, {:#x}): {fault}",
                word.raw, word.at, word.level, word.ia
            ));
        }
        self.room -= bytes;
        next.push(Link {
            known: self.meet(pa, word.level + 1, word.ia, Some(link.known)),
            span: Span::new(pa, bytes),
            limits: link.limits.below(self.regime, word.raw),
            from: Some(word),
        });
    }

    /// Makes the entry of a table that could not be read.
    fn unreadable(&mut self, link: &Link, reason: &str) {
        let Known { pa, level, ia, .. } = self.known[link.known];
        let (word, size) = match link.from {
            Some(word) => (word, self.regime.entry_size(word.level)),
            None => (
                Word {
                    raw: 0,
                    at: pa,
                    ia,
                    level,
                },
                (link.span.size / 8) << self.regime.granule.level_shift(level),
            ),
        };
        self.walk.entries.push(Entry {
            oa: Some(pa),
            problem: Some(format!("table {pa:#x} cannot be read: {reason}").into()),
            ..word.entry(size, Kind::Unreadable)
        });
    }
}

/// Whether `table` is `from` or above it.
fn is_ancestor(known: &[Known], from: usize, table: usize) -> bool {
    let mut at = Some(from);
    while let Some(index) = at {
        if index == table {
            return true;
        }
        at = known[index].parent;
    }
    false
}
