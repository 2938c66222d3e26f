//! Everything about one physical page.

use super::owners::clip;
use super::runs::{is_leaf, physical};
use super::{Cell, Role, Table, dim, joint_owner_cell, plain, state_cell};
use crate::addr::Span;
use crate::model::{Entry, OwnerRange, System};

/// What is known of one physical page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageView {
    /// The page: the address asked for, rounded down, and the granule.
    pub pa: Span,
    /// Its joint state, or `None` when it is not RAM.
    pub owner: Option<OwnerRange>,
    /// Every entry that maps it, and the host's entry for it if that is not zero.
    pub mappings: Vec<Mapping>,
    /// Pool that hands it out, and its reference count where that could be read.
    pub pool: Option<(String, Option<u16>)>,
    /// The translation table that it is.
    pub table: Option<TablePage>,
    /// Indices in [`System::locks`] of the locks that lie in it.
    pub locks: Vec<usize>,
    /// The part of the hypervisor's memory that it belongs to.
    pub section: Option<String>,
}

/// An entry that speaks of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Index in [`System::regimes`].
    pub regime: usize,
    /// Index in that regime's `entries`.
    pub entry: usize,
    /// Input address of this very page.
    pub ia: u64,
}

impl Mapping {
    /// The entry itself.
    pub fn entry(self, system: &System) -> &Entry {
        &system.regimes[self.regime].entries[self.entry]
    }
}

/// A page that is a translation table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TablePage {
    /// Index in [`System::regimes`].
    pub regime: usize,
    /// Its level: −1…3.
    pub level: i8,
    /// First input address it resolves.
    pub ia: u64,
    /// Physical address of the table that points to it; `None` for a root.
    pub parent: Option<u64>,
    /// Descriptors that are not zero.
    pub used: usize,
}

/// Looks up the page that holds physical address `pa`.
pub fn page(system: &System, pa: u64) -> PageView {
    let granule = system
        .regimes
        .first()
        .map_or(4096, |regime| regime.regime.granule.bytes());
    let page = Span::new(pa & !(granule - 1), granule);
    PageView {
        pa: page,
        owner: system.owners.iter().find_map(|range| clip(range, page)),
        mappings: mappings(system, page),
        pool: system.pools.iter().find_map(|pool| {
            pool.pages.contains(page.start).then(|| {
                let index = ((page.start - pool.pages.start) / granule) as usize;
                let count = pool.refcounts.as_ref().and_then(|all| all.get(index));
                (pool.name.clone(), count.copied())
            })
        }),
        table: table(system, page),
        locks: (0..system.locks.len())
            .filter(|at| page.contains(system.locks[*at].pa))
            .collect(),
        section: system
            .sections
            .iter()
            .find(|section| section.pa.contains(page.start))
            .map(|section| section.name.clone()),
    }
}

fn mappings(system: &System, page: Span) -> Vec<Mapping> {
    let mut found = Vec::new();
    for (index, regime) in system.regimes.iter().enumerate() {
        for (at, entry) in regime.entries.iter().enumerate() {
            let Some(span) = physical(regime, entry) else {
                continue;
            };
            if span.overlaps(page) {
                let offset = page.start.saturating_sub(span.start);
                found.push(Mapping {
                    regime: index,
                    entry: at,
                    ia: entry.leaf.ia.wrapping_add(offset),
                });
            }
        }
    }
    found
}

fn table(system: &System, page: Span) -> Option<TablePage> {
    system
        .regimes
        .iter()
        .enumerate()
        .find_map(|(index, regime)| {
            let table = regime.tables.iter().find(|table| table.pa == page.start)?;
            Some(TablePage {
                regime: index,
                level: table.level,
                ia: table.ia,
                parent: table.parent,
                used: table.words.iter().filter(|word| **word != 0).count(),
            })
        })
}

/// What is known of a page, as rows of label and value.
pub fn page_table(system: &System, page: &PageView) -> Table {
    let mut table = Table::new(&["PAGE", ""]);
    let mut row = |label: &str, value: Cell| table.rows.push(vec![dim(label), value]);
    row("pa", Cell::new(Role::Address, page.pa.to_string()));
    match &page.owner {
        Some(owner) => {
            row("owner", joint_owner_cell(owner.owner));
            row("host", state_cell(owner.host));
            row("hyp", state_cell(owner.hyp));
            for guest in &owner.guests {
                row(
                    "guest",
                    Cell::new(
                        Role::Guest,
                        format!("{:#x} at {:#x}: {}", guest.handle, guest.ipa, guest.state),
                    ),
                );
            }
            row(
                "rule",
                owner.rule.map_or_else(
                    || Cell::new(Role::Problem, "none: not a legal joint state"),
                    plain,
                ),
            );
        }
        None => row("owner", dim("not RAM")),
    }
    for mapping in &page.mappings {
        let entry = mapping.entry(system);
        row(
            &system.regimes[mapping.regime].name,
            mapping_cell(*mapping, entry),
        );
    }
    if let Some((pool, count)) = &page.pool {
        let count = count.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
        row("refcount", plain(format!("{count} ({pool})")));
    }
    if let Some(found) = page.table {
        let parent = found
            .parent
            .map_or_else(|| "root".to_owned(), |pa| format!("from {pa:#x}"));
        row(
            "table",
            plain(format!(
                "{} level {}, for {:#x}, {parent}, {} used",
                system.regimes[found.regime].name, found.level, found.ia, found.used
            )),
        );
    }
    for lock in &page.locks {
        let lock = &system.locks[*lock];
        row("lock", plain(format!("{} at {:#x}", lock.name, lock.pa)));
    }
    if let Some(section) = &page.section {
        row("section", plain(section.as_str()));
    }
    table
}

fn mapping_cell(mapping: Mapping, entry: &Entry) -> Cell {
    let mut text = format!(
        "{:#x} {} level {}",
        mapping.ia, entry.kind, entry.leaf.level
    );
    if let (true, Some(attributes)) = (is_leaf(entry), entry.leaf.attributes) {
        let flag = |set, letter| if set { letter } else { '-' };
        text.push(' ');
        text.push(flag(attributes.read, 'r'));
        text.push(flag(attributes.write, 'w'));
        text.push(flag(attributes.execute, 'x'));
        text.push_str(&format!(" {}", attributes.memory));
    }
    if let Some(state) = entry.state {
        text.push_str(&format!(" {state}"));
    }
    if let Some(owner) = entry.owner {
        text.push_str(&format!(" {owner}"));
    }
    text.push_str(&format!(" raw {:#x}", entry.leaf.raw));
    let role = if entry.leaf.problem.is_some() {
        Role::Problem
    } else {
        Role::Plain
    };
    Cell::new(role, text)
}
