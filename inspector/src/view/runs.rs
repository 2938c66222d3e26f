//! Table entries of all regimes, neighbours merged into runs.

use super::{
    Cell, Role, Table, address, address_or_dash, dash, entry_owner_cell, size_text, state_cell,
};
use crate::addr::Span;
use crate::arch::walk::Memory;
use crate::model::{Entry, EntryKind, Owner, RegimeCapture, State, System};

/// Consecutive entries of one regime that say the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Index of the regime in [`System::regimes`].
    pub regime: usize,
    /// Index of the first entry in that regime's `entries`.
    pub first: usize,
    /// Number of descriptors.
    pub count: usize,
    /// Bytes of input address that they cover together.
    pub size: u64,
}

impl Run {
    /// The regime the run belongs to.
    pub fn regime(self, system: &System) -> &RegimeCapture {
        &system.regimes[self.regime]
    }

    /// The first descriptor of the run, which speaks for all.
    pub fn entry(self, system: &System) -> &Entry {
        &self.regime(system).entries[self.first]
    }

    /// Input addresses that the run covers.
    pub fn ia(self, system: &System) -> Span {
        Span::new(self.entry(system).leaf.ia, self.size)
    }

    /// Output addresses that the run covers, for leaves.
    pub fn oa(self, system: &System) -> Option<Span> {
        let entry = self.entry(system);
        is_leaf(entry)
            .then_some(entry.leaf.oa)
            .flatten()
            .map(|oa| Span::new(oa, self.size))
    }
}

/// Which entries to show; the default is all of them, merged.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RunFilter {
    /// Only the regime of this name.
    pub regime: Option<String>,
    /// One run for each descriptor.
    pub no_merge: bool,
    /// Only entries that cover an input address in this range.
    pub range: Option<Span>,
    /// Only entries that map, or on the host's side stand for, a physical address in this range.
    pub pa: Option<Span>,
    /// Only entries of this owner.
    pub owner: Option<Owner>,
    /// Only entries in this state.
    pub state: Option<State>,
    /// Only entries of this kind.
    pub kind: Option<EntryKind>,
}

impl RunFilter {
    fn admits(&self, regime: &RegimeCapture, entry: &Entry) -> bool {
        let ia = Span::new(entry.leaf.ia, entry.leaf.size);
        self.range.is_none_or(|range| range.overlaps(ia))
            && self
                .pa
                .is_none_or(|pa| physical(regime, entry).is_some_and(|span| pa.overlaps(span)))
            && self.owner.is_none_or(|owner| entry.owner == Some(owner))
            && self.state.is_none_or(|state| entry.state == Some(state))
            && self.kind.is_none_or(|kind| entry.kind == kind)
    }
}

/// The physical addresses an entry speaks of: what a leaf maps, or, in the host's identity map, the
/// pages that an entry without output address stands for.
pub(super) fn physical(regime: &RegimeCapture, entry: &Entry) -> Option<Span> {
    if is_leaf(entry) {
        return entry.leaf.oa.map(|oa| Span::new(oa, entry.leaf.size));
    }
    (regime.name == "host-s2").then(|| Span::new(entry.leaf.ia, entry.leaf.size))
}

pub(super) fn is_leaf(entry: &Entry) -> bool {
    matches!(entry.kind, EntryKind::Block | EntryKind::Page)
}

/// The entries that the filter admits, in order of regime and input address.
///
/// Neighbours merge when regime, level, kind, attributes, software bits, state and owner are equal
/// and their input addresses (for leaves, their output addresses too; for annotations, the guest's
/// own) continue.
pub fn runs(system: &System, filter: &RunFilter) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (index, regime) in system.regimes.iter().enumerate() {
        if filter
            .regime
            .as_ref()
            .is_some_and(|name| *name != regime.name)
        {
            continue;
        }
        let mut previous: Option<usize> = None;
        for (at, entry) in regime.entries.iter().enumerate() {
            if !filter.admits(regime, entry) {
                continue;
            }
            let continues = !filter.no_merge
                && previous.is_some_and(|p| p + 1 == at && follows(&regime.entries[p], entry));
            match runs.last_mut() {
                Some(run) if continues => {
                    run.count += 1;
                    run.size = run.size.saturating_add(entry.leaf.size);
                }
                _ => runs.push(Run {
                    regime: index,
                    first: at,
                    count: 1,
                    size: entry.leaf.size,
                }),
            }
            previous = Some(at);
        }
    }
    runs
}

/// Whether `next` says the same as `entry` and continues it.
fn follows(entry: &Entry, next: &Entry) -> bool {
    let (a, b) = (&entry.leaf, &next.leaf);
    let output_continues = !is_leaf(entry)
        || matches!((a.oa, b.oa), (Some(from), Some(to)) if from.checked_add(a.size) == Some(to));
    let guest_continues = match (entry.guest_ipa, next.guest_ipa) {
        (Some(from), Some(to)) => from.checked_add(a.size) == Some(to),
        (from, to) => from == to,
    };
    a.ia.checked_add(a.size) == Some(b.ia)
        && output_continues
        && guest_continues
        && a.level == b.level
        && entry.kind == next.kind
        && a.attributes == b.attributes
        && a.sw == b.sw
        && entry.state == next.state
        && entry.owner == next.owner
        && a.problem == b.problem
}

/// Runs as rows, short enough for 80 columns when the regime's name stands above them.
pub fn runs_table(system: &System, runs: &[Run]) -> Table {
    let mut table = Table::new(&[
        "REGIME", "IA", "SIZE", "KIND", "OA", "PERM", "MEM", "STATE", "OWNER",
    ]);
    for run in runs {
        let entry = run.entry(system);
        table.rows.push(vec![
            Cell::new(Role::Plain, run.regime(system).name.as_str()),
            address(entry.leaf.ia),
            Cell::new(Role::Address, size_text(run.size)),
            kind_cell(entry),
            match run.oa(system) {
                Some(oa) if oa.start == entry.leaf.ia => Cell::new(Role::Dim, "= IA"),
                oa => address_or_dash(oa.map(|oa| oa.start)),
            },
            permissions(entry),
            memory(entry),
            state_cell(entry.state),
            entry_owner_cell(entry),
        ]);
    }
    table
}

pub(super) fn kind_cell(entry: &Entry) -> Cell {
    let role = match entry.kind {
        EntryKind::Block | EntryKind::Page | EntryKind::Annotation => Role::Plain,
        EntryKind::Invalid | EntryKind::Reserved | EntryKind::Loop | EntryKind::Unreadable => {
            Role::Problem
        }
    };
    Cell::new(role, entry.kind.to_string())
}

/// `rwx`, and for stage-2 leaves whose execution differs by level `rwx/el1` or `rwx/el0`.
pub(super) fn permissions(entry: &Entry) -> Cell {
    let Some(attributes) = entry.leaf.attributes else {
        return dash();
    };
    let flag = |set, letter| if set { letter } else { '-' };
    let mut text: String = [
        flag(attributes.read, 'r'),
        flag(attributes.write, 'w'),
        flag(attributes.execute || attributes.execute_el0, 'x'),
    ]
    .iter()
    .collect();
    match (attributes.execute, attributes.execute_el0) {
        (true, false) => text.push_str("/el1"),
        (false, true) => text.push_str("/el0"),
        _ => {}
    }
    Cell::new(Role::Plain, text)
}

pub(super) fn memory(entry: &Entry) -> Cell {
    let Some(attributes) = entry.leaf.attributes else {
        return dash();
    };
    let role = match attributes.memory {
        Memory::DeviceNGnRnE | Memory::DeviceNGnRE | Memory::DeviceNGRE | Memory::DeviceGRE => {
            Role::Mmio
        }
        _ => Role::Plain,
    };
    Cell::new(role, attributes.memory.to_string())
}
