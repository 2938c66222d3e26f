//! What changed between two looks at a machine: words of tables, joint states, reference counts, locks.

use super::{Changes, CountChange, LockChange, OwnerChange, Word, Write};
use crate::addr::Span;
use crate::arch::desc::{self, Shape};
use crate::arch::regime::Regime;
use crate::arch::walk::Table;
use crate::model::{Entry, Lock, OwnerRange, Pool, RegimeCapture, System};
use std::collections::{BTreeMap, BTreeSet};

/// The tables of one regime before and after, and what their words mean.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    /// The regime's name.
    pub name: &'a str,
    /// How the words are decoded.
    pub regime: &'a Regime,
    /// The tables before.
    pub before: &'a [Table],
    /// The tables after.
    pub after: &'a [Table],
    /// Captures that say what words mean, the one before and the one after.
    pub meaning: [Option<&'a RegimeCapture>; 2],
}

/// Words and table pages that changed.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Written {
    /// Words, in order of level and then of input address.
    pub writes: Vec<Write>,
    /// Table pages that were linked.
    pub linked: Vec<u64>,
    /// Table pages that are linked no more.
    pub freed: Vec<u64>,
}

/// The words of one regime's tables that changed. In pages that were not linked before, those that are not zero; in
/// pages that are linked no more, those that were not.
pub fn written(tables: &Tables<'_>) -> Written {
    let by_pa = |tables: &'_ [Table]| -> BTreeMap<u64, usize> {
        let numbered = tables.iter().enumerate();
        numbered.map(|(at, table)| (table.pa, at)).collect()
    };
    let (before, after) = (by_pa(tables.before), by_pa(tables.after));
    let mut found = Written::default();
    let pages: BTreeSet<u64> = before.keys().chain(after.keys()).copied().collect();
    for pa in pages {
        let old = before.get(&pa).map(|at| &tables.before[*at]);
        let new = after.get(&pa).map(|at| &tables.after[*at]);
        match (old, new) {
            // The same page may have been freed and linked elsewhere.
            (Some(old), Some(new)) if (old.level, old.ia) == (new.level, new.ia) => {
                compare(tables, old, new, &mut found.writes);
            }
            _ => {
                if let Some(old) = old {
                    found.freed.push(pa);
                    whole(tables, old, false, &mut found.writes);
                }
                if let Some(new) = new {
                    found.linked.push(pa);
                    whole(tables, new, true, &mut found.writes);
                }
            }
        }
    }
    found
        .writes
        .sort_by_key(|write| (write.level, write.ia, write.at));
    found
}

fn compare(tables: &Tables<'_>, old: &Table, new: &Table, writes: &mut Vec<Write>) {
    let pairs = old.words.iter().zip(&new.words).enumerate();
    for (index, (before, after)) in pairs.filter(|(_, (before, after))| before != after) {
        let mut write = empty(tables, new, index);
        write.old = Some(word(tables, 0, &write, *before));
        write.new = Some(word(tables, 1, &write, *after));
        writes.push(write);
    }
}

/// The words of a page that is in one of the two looks only.
fn whole(tables: &Tables<'_>, page: &Table, after: bool, writes: &mut Vec<Write>) {
    let words = page.words.iter().enumerate();
    for (index, raw) in words.filter(|(_, raw)| **raw != 0) {
        let mut write = empty(tables, page, index);
        let word = word(tables, usize::from(after), &write, *raw);
        *(if after {
            &mut write.new
        } else {
            &mut write.old
        }) = Some(word);
        writes.push(write);
    }
}

fn empty(tables: &Tables<'_>, table: &Table, index: usize) -> Write {
    let size = tables.regime.entry_size(table.level);
    let index = index as u64;
    Write {
        regime: tables.name.to_owned(),
        at: table.pa.wrapping_add(index * 8),
        level: table.level,
        ia: table.ia.wrapping_add(index.wrapping_mul(size)),
        size,
        old: None,
        new: None,
    }
}

/// A word with what the hypervisor means by it, where one of the captures has it.
fn word(tables: &Tables<'_>, look: usize, write: &Write, raw: u64) -> Word {
    let descriptor = desc::decode(tables.regime, write.level, raw);
    let same = |entry: &&Entry| entry.leaf.at == write.at && entry.leaf.raw == raw;
    let entry = tables.meaning[look].and_then(|capture| capture.entry_of(write.ia));
    let entry = entry
        .filter(same)
        .filter(|_| descriptor.shape != Shape::Table);
    Word {
        descriptor,
        state: entry.and_then(|entry| entry.state),
        owner: entry.and_then(|entry| entry.owner),
    }
}

/// What changed besides words, from one capture to the other. `own`, where it is known, is the pages of tables and of
/// memory that one CPU changed: what others did meanwhile is then left out.
pub fn changes(before: &System, after: &System, own: Option<&Own>) -> Changes {
    let mut owners = owners(&before.owners, &after.owners);
    let mut counts = counts(&before.pools, &after.pools);
    if let Some(own) = own {
        owners.retain(|change| own.memory.iter().any(|span| span.overlaps(change.pa)));
        counts.retain(|change| own.tables.contains(&change.pa));
    }
    Changes {
        owners,
        counts,
        locks: locks(&before.locks, &after.locks),
        ..Changes::default()
    }
}

/// The pages that one CPU's writes are about.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Own {
    /// Table pages that were written, linked or freed.
    pub tables: BTreeSet<u64>,
    /// Memory that the words cover.
    pub memory: Vec<Span>,
}

/// Ranges whose joint state differs. Where only one of two captures knows a page, the other side is `None`.
fn owners(before: &[OwnerRange], after: &[OwnerRange]) -> Vec<OwnerChange> {
    let mut owners = sides(before, after, Span::new(0, u64::MAX));
    owners.retain(|change| change.before != change.after);
    owners
}

/// The joint states of all of `within`, before and after, whether they differ or not.
pub(super) fn sides(before: &[OwnerRange], after: &[OwnerRange], within: Span) -> Vec<OwnerChange> {
    let end = within.start.saturating_add(within.size);
    let edges = |ranges: &[OwnerRange]| -> Vec<u64> {
        let ends =
            |range: &OwnerRange| [range.pa.start, range.pa.start.saturating_add(range.pa.size)];
        ranges.iter().flat_map(ends).collect()
    };
    let mut edges = [edges(before), edges(after), vec![within.start, end]].concat();
    edges.retain(|edge| (within.start..=end).contains(edge));
    edges.sort_unstable();
    edges.dedup();
    let mut changes: Vec<OwnerChange> = Vec::new();
    for pair in edges.windows(2) {
        let span = Span::new(pair[0], pair[1] - pair[0]);
        let (old, new) = (clipped(before, span), clipped(after, span));
        match changes.last_mut() {
            Some(last) if continues(last, span, old.as_ref(), new.as_ref()) => {
                last.pa.size += span.size;
                let sides = [&mut last.before, &mut last.after];
                for side in sides.into_iter().flatten() {
                    side.pa = last.pa;
                }
            }
            _ => changes.push(OwnerChange {
                pa: span,
                before: old,
                after: new,
            }),
        }
    }
    changes
}

/// What a capture says of `span`, which none of its ranges' edges divides.
fn clipped(ranges: &[OwnerRange], span: Span) -> Option<OwnerRange> {
    let after = ranges.partition_point(|range| range.pa.start <= span.start);
    let range = ranges[..after]
        .last()
        .filter(|range| range.pa.covers(span))?;
    range.clip(span)
}

/// Whether `span` says the same as the change before it, from where that ends on.
fn continues(
    last: &OwnerChange,
    span: Span,
    old: Option<&OwnerRange>,
    new: Option<&OwnerRange>,
) -> bool {
    let same = |a: Option<&OwnerRange>, b: Option<&OwnerRange>| match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            let moved = |side: &crate::model::GuestSide| {
                let ipa = side.ipa.wrapping_add(span.start - last.pa.start);
                (side.handle, ipa, side.state)
            };
            let guests = b
                .guests
                .iter()
                .map(|side| (side.handle, side.ipa, side.state));
            (a.owner, a.host, a.hyp, a.refcount) == (b.owner, b.host, b.hyp, b.refcount)
                && a.guests.iter().map(moved).eq(guests)
        }
        _ => false,
    };
    last.pa.start.saturating_add(last.pa.size) == span.start
        && same(last.before.as_ref(), old)
        && same(last.after.as_ref(), new)
}

fn counts(before: &[Pool], after: &[Pool]) -> Vec<CountChange> {
    let mut changes = Vec::new();
    for new in after {
        let old = before
            .iter()
            .find(|pool| (&pool.name, pool.pages) == (&new.name, new.pages));
        let counts = old.and_then(|old| old.refcounts.as_ref());
        let (Some(old), Some(counts)) = (counts, &new.refcounts) else {
            continue;
        };
        let pages = old.len().max(1) as u64;
        let page = new.pages.size / pages;
        let pairs = old.iter().zip(counts).enumerate();
        for (index, (before, after)) in pairs.filter(|(_, (before, after))| before != after) {
            changes.push(CountChange {
                pool: new.name.clone(),
                pa: new.pages.start + index as u64 * page,
                before: *before,
                after: *after,
            });
        }
    }
    changes
}

fn locks(before: &[Lock], after: &[Lock]) -> Vec<LockChange> {
    let pairs = before.iter().filter_map(|old| {
        let new = after.iter().find(|new| new.pa == old.pa)?;
        let (before, after) = (old.tickets?, new.tickets?);
        (before != after).then(|| LockChange {
            name: new.name.clone(),
            before,
            after,
        })
    });
    pairs.collect()
}

#[cfg(test)]
mod tests;
