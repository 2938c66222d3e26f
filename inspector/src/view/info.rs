//! What was found, and how.

use super::{Cell, Role, Table, dim, plain};
use crate::model::System;

/// Every fact with its source.
pub fn info_table(system: &System) -> Table {
    let mut table = Table::new(&["WHAT", "VALUE", "SOURCE"]);
    for fact in &system.facts {
        table.rows.push(vec![
            plain(fact.what.as_str()),
            Cell::new(Role::Address, fact.value.as_str()),
            dim(fact.source.as_str()),
        ]);
    }
    table
}

/// Why the capture is not complete: its own problems, then those of single entries.
pub fn problems(system: &System) -> Vec<String> {
    let entries = system.regimes.iter().flat_map(|regime| {
        regime.entries.iter().filter_map(|entry| {
            let problem = entry.leaf.problem.as_ref()?;
            Some(format!(
                "{} {:#x}, level {}, word at {:#x}: {problem}",
                regime.name, entry.leaf.ia, entry.leaf.level, entry.leaf.at
            ))
        })
    });
    system.problems.iter().cloned().chain(entries).collect()
}
