//! Queries over a capture, and their answers as rows of cells with roles: one definition for text
//! and for the terminal.
//!
//! | question | answer | as rows |
//! |---|---|---|
//! | what do the tables say | [`runs()`] | [`runs_table`] |
//! | who owns what | [`owners()`] | [`owners_table`] |
//! | everything about one page | [`page()`] | [`page_facts`], [`page_states`], [`mappings_table`] |
//! | where does an address lead | [`walk()`] | [`walk_table`] |
//! | locks, what was found | [`model::System`](crate::model::System) itself | [`locks_table`], [`info_table`] |
//! | CPUs | the same | [`cpus_table`], [`calls_table`], [`registers_table`] |
//! | what brought a CPU to EL2 | [`abort()`] | [`aborts_table`] |
//! | VMs | the same | [`vms_table`], [`vcpus_table`], [`vm_table`] |

mod aborts;
mod cpus;
mod info;
mod locks;
mod owners;
mod page;
mod runs;
mod story;
mod vms;
mod walk;

pub use aborts::{Abort, abort, aborts_table};
pub use cpus::{TRANSLATION_REGISTERS, calls_table, cpus_table, frames, registers_table};
pub use info::{info_table, problems};
pub use locks::{inferred_table, locks_table};
pub use owners::{OwnerFilter, owners, owners_table};
pub use page::{
    Mapping, PageView, TablePage, mappings_table, page, page_facts, page_states, states_heading,
};
pub use runs::{Run, RunFilter, runs, runs_table};
pub use story::{
    branch_text, call_text, changes_table, choice_table, choice_text, fault_walk_table,
    memory_text, outcome_role, outcome_text, road_table, steps_table, story_heading, story_row,
    story_tables, trap_table, writes_table,
};
pub use vms::{vcpus_table, vm_table, vms_table};
pub use walk::{WalkView, end_name, shape_name, walk, walk_table};

pub use crate::addr::size_text;

use crate::model::{Entry, JointOwner, Owner, State};

/// What a cell means; a theme turns it into colour and a glyph, plain text ignores it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Ordinary text.
    Plain,
    /// A label or something of little weight.
    Dim,
    /// An address or a size.
    Address,
    /// A raw word.
    Raw,
    /// A symbol's name.
    Symbol,
    /// Owned by the host.
    Host,
    /// Owned by the hypervisor.
    Hyp,
    /// Owned by a guest.
    Guest,
    /// Shared, seen from its owner.
    SharedOwned,
    /// Shared, seen from its borrower.
    SharedBorrowed,
    /// Not RAM.
    Mmio,
    /// A lock that is held, a CPU at EL2: something going on.
    Active,
    /// Something wrong.
    Problem,
}

/// A piece of text with a meaning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cell {
    /// The text, without control characters.
    pub text: String,
    /// Its meaning.
    pub role: Role,
}

impl Cell {
    /// A cell.
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            role,
        }
    }
}

/// A row of a table: one cell a column.
pub type Row = Vec<Cell>;

/// A table for text or for a pane.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Table {
    /// Column titles.
    pub titles: Vec<&'static str>,
    /// Rows, each as long as `titles`.
    pub rows: Vec<Row>,
}

impl Table {
    fn new(titles: &[&'static str]) -> Self {
        Self {
            titles: titles.to_vec(),
            rows: Vec::new(),
        }
    }
}

fn address(value: u64) -> Cell {
    Cell::new(Role::Address, format!("{value:#x}"))
}

fn address_or_dash(value: Option<u64>) -> Cell {
    value.map_or_else(dash, address)
}

fn dash() -> Cell {
    Cell::new(Role::Dim, "-")
}

fn plain(text: impl Into<String>) -> Cell {
    Cell::new(Role::Plain, text)
}

fn dim(text: impl Into<String>) -> Cell {
    Cell::new(Role::Dim, text)
}

fn state_cell(state: Option<State>) -> Cell {
    let Some(state) = state else { return dash() };
    let role = match state {
        State::Owned | State::Mixed => Role::Plain,
        State::SharedOwned => Role::SharedOwned,
        State::SharedBorrowed => Role::SharedBorrowed,
        State::NoPage => Role::Dim,
        State::Reserved => Role::Problem,
    };
    Cell::new(role, state.to_string())
}

fn owner_cell(owner: Option<Owner>) -> Cell {
    let Some(owner) = owner else { return dash() };
    let role = match owner {
        Owner::Host => Role::Host,
        Owner::Hyp => Role::Hyp,
        Owner::Guest(_) => Role::Guest,
        Owner::Ffa => Role::Plain,
        Owner::Locked => Role::Active,
        Owner::Poisoned | Owner::Unknown(_) => Role::Problem,
    };
    Cell::new(role, owner.to_string())
}

/// Who owns what an entry maps or annotates, and where a guest sees it.
fn entry_owner_cell(entry: &Entry) -> Cell {
    let cell = owner_cell(entry.owner);
    let text = entry.owner_text();
    text.map_or(cell.clone(), |text| Cell { text, ..cell })
}

fn joint_owner_cell(owner: JointOwner) -> Cell {
    match owner {
        JointOwner::One(owner) => owner_cell(Some(owner)),
        JointOwner::None | JointOwner::Conflict | JointOwner::Unknown => {
            Cell::new(Role::Problem, owner.to_string())
        }
    }
}

#[cfg(test)]
mod tests;
