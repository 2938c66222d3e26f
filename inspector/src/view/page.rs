//! Everything about one physical page.

use super::runs::{is_leaf, kind_cell, memory, permissions, physical};
use super::{
    Cell, Role, Table, address, dash, dim, entry_owner_cell, joint_owner_cell, plain, state_cell,
};
use crate::addr::Span;
use crate::model::{Entry, Owner, OwnerRange, System};

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
        owner: system.owners.iter().find_map(|range| range.clip(page)),
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

/// What is known of a page apart from states and mappings, as rows of label and value.
pub fn page_facts(system: &System, page: &PageView) -> Table {
    let mut table = Table::new(&["PAGE", ""]);
    let mut row = |label: &str, value: Cell| table.rows.push(vec![dim(label), value]);
    row("pa", Cell::new(Role::Address, page.pa.to_string()));
    match &page.owner {
        Some(owner) => row("owner", joint_owner_cell(owner.owner)),
        None => row("owner", dim("not RAM")),
    }
    let shares = page.owner.as_ref().and_then(|owner| owner.refcount);
    match (&page.pool, shares) {
        (Some((pool, count)), _) => {
            let count = count.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
            row("refcount", plain(format!("{count} ({pool})")));
        }
        (None, Some(count)) => row("refcount", plain(format!("{count} (shares or pins)"))),
        (None, None) => {}
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

/// What each side says of a page, as rows of label and value; none where the page is not RAM.
pub fn page_states(page: &PageView) -> Table {
    let mut table = Table::new(&["", ""]);
    let Some(owner) = &page.owner else {
        return table;
    };
    let mut row = |label: &str, value: Cell| table.rows.push(vec![dim(label), value]);
    row("host", state_cell(owner.host));
    row("hyp", state_cell(owner.hyp));
    for guest in &owner.guests {
        let text = format!("{} at {:#x}", guest.state, guest.ipa);
        row(
            &Owner::Guest(guest.handle).to_string(),
            Cell::new(Role::Guest, text),
        );
    }
    row(
        "rule",
        owner.rule.map_or_else(
            || Cell::new(Role::Problem, "none: not a legal joint state"),
            plain,
        ),
    );
    table
}

/// Where the states of a page come from. Since Linux moved them into the page records, a valid
/// entry does not mean ownership any more, and a page without an entry may be shared.
pub fn states_heading(system: &System) -> &'static str {
    match system.hypervisor.page_state_in {
        Some("vmemmap") => "states, by page records (guests: by descriptors)",
        Some(_) => "states, by the descriptors' software bits",
        None => "states",
    }
}

/// The descriptors that speak of a page, as rows: what the tables themselves hold.
pub fn mappings_table(system: &System, page: &PageView) -> Table {
    let mut table = Table::new(&[
        "REGIME",
        "IA",
        "KIND",
        "LEVEL",
        "PERM",
        "MEM",
        "SW",
        "OWNER TAG",
        "WORD",
    ]);
    for mapping in &page.mappings {
        let entry = mapping.entry(system);
        let tag = if is_leaf(entry) {
            dash()
        } else {
            entry_owner_cell(entry)
        };
        table.rows.push(vec![
            plain(system.regimes[mapping.regime].name.as_str()),
            address(mapping.ia),
            kind_cell(entry),
            plain(entry.leaf.level.to_string()),
            permissions(entry),
            memory(entry),
            if is_leaf(entry) {
                plain(format!("{:#x}", entry.leaf.sw))
            } else {
                dash()
            },
            tag,
            Cell::new(Role::Raw, format!("{:#x}", entry.leaf.raw)),
        ]);
    }
    table
}
