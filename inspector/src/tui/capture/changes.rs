//! What differs between two captures.

use crate::addr::Span;
use crate::model::{Entry, JointOwner, OwnerRange, State, System};
use std::collections::BTreeSet;

/// What differs from the capture before.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Changes {
    /// Ranges by address space, in the order of [`Capture::spaces`](super::Capture::spaces); disjoint and in order.
    pub spaces: Vec<Vec<Span>>,
    /// Locks by index.
    pub locks: BTreeSet<usize>,
    /// VMs by handle.
    pub vms: BTreeSet<u64>,
    /// Registers by CPU's index.
    pub registers: BTreeSet<(usize, String)>,
}

impl Changes {
    /// Whether part of a range of a space changed.
    pub fn touch(&self, space: usize, span: Span) -> bool {
        let Some(spans) = self.spaces.get(space) else {
            return false;
        };
        let from = spans.partition_point(|s| s.last().is_none_or(|last| last < span.start));
        spans.get(from).is_some_and(|s| s.overlaps(span))
    }

    pub(super) fn between(old: &System, new: &System) -> Self {
        let physical = difference(
            new.owners.iter().map(|range| (range.pa, joint(range))),
            old.owners.iter().map(|range| (range.pa, joint(range))),
        );
        let regimes = new.regimes.iter().map(|regime| {
            let before = old.regimes.iter().find(|before| before.name == regime.name);
            let before = before.map_or(&[][..], |before| &before.entries);
            difference(regime.entries.iter().map(keyed), before.iter().map(keyed))
        });
        let locks = (0..new.locks.len())
            .filter(|&i| old.locks.get(i) != Some(&new.locks[i]))
            .collect();
        let changed = new.vms.iter().filter(|vm| !old.vms.contains(vm));
        let vms = changed.map(|vm| vm.handle).collect();
        let mut registers = BTreeSet::new();
        for (i, cpu) in new.cpus.iter().enumerate() {
            let before = old.cpus.get(i).map(|before| &before.registers);
            for (name, value) in &cpu.registers.0 {
                if before.and_then(|before| before.get(name)) != Some(*value) {
                    registers.insert((i, name.clone()));
                }
            }
        }
        Self {
            spaces: std::iter::once(physical).chain(regimes).collect(),
            locks,
            vms,
            registers,
        }
    }
}

fn keyed(entry: &Entry) -> (Span, u64) {
    (Span::new(entry.leaf.ia, entry.leaf.size), entry.leaf.raw)
}

/// What a row says of its pages; guests by handle and state, since their addresses run on with the pages.
type Joint = (
    JointOwner,
    Option<State>,
    Option<State>,
    Option<u64>,
    Vec<(u64, State)>,
);

fn joint(range: &OwnerRange) -> Joint {
    let guests = range.guests.iter();
    let guests = guests.map(|guest| (guest.handle, guest.state)).collect();
    (range.owner, range.host, range.hyp, range.refcount, guests)
}

/// Where two lists of ranges with values differ. Both are in order and disjoint, and so is the answer.
pub(super) fn difference<V: PartialEq>(
    new: impl Iterator<Item = (Span, V)>,
    old: impl Iterator<Item = (Span, V)>,
) -> Vec<Span> {
    let (mut new, mut old) = (new.peekable(), old.peekable());
    let mut changed: Vec<Span> = Vec::new();
    let mut at = 0_u64;
    loop {
        // The value of each side at `at`, and the next address where either may change.
        while new
            .next_if(|(span, _)| span.last().is_none_or(|last| last < at))
            .is_some()
        {}
        while old
            .next_if(|(span, _)| span.last().is_none_or(|last| last < at))
            .is_some()
        {}
        let (a, b) = (new.peek(), old.peek());
        if a.is_none() && b.is_none() {
            return changed;
        }
        let here = |side: Option<&(Span, V)>| side.is_some_and(|(span, _)| span.start <= at);
        // The last address up to which nothing changes sides.
        let last = |side: Option<&(Span, V)>| match side {
            Some((span, _)) if span.start > at => Some(span.start - 1),
            Some((span, _)) => span.last(),
            None => None,
        };
        let end = match (last(a), last(b)) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => return changed,
        };
        let same = match (here(a), here(b)) {
            (true, true) => a.map(|(_, v)| v) == b.map(|(_, v)| v),
            (x, y) => x == y,
        };
        if !same {
            let size = (end - at).saturating_add(1);
            match changed.last_mut() {
                Some(span) if span.last() == at.checked_sub(1) => {
                    *span = Span::new(span.start, span.size.saturating_add(size));
                }
                _ => changed.push(Span::new(at, size)),
            }
        }
        match end.checked_add(1) {
            Some(next) => at = next,
            None => return changed,
        }
    }
}
