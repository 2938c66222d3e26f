//! What was found, and how.

use super::{Cell, Role, Table, dim, plain};
use crate::model::{Entry, EntryKind, RegimeCapture, System};

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

/// Why the capture is not complete: its own problems, then those of single entries. Of the tables of a regime that cannot be
/// read the first stands for all.
pub fn problems(system: &System) -> Vec<String> {
    let entries = system.regimes.iter().flat_map(of_entries);
    system.problems.iter().cloned().chain(entries).collect()
}

fn of_entries(regime: &RegimeCapture) -> Vec<String> {
    let unreadable = |entry: &&Entry| entry.kind == EntryKind::Unreadable;
    let others = regime.entries.iter().filter(unreadable).skip(1).count();
    let first = regime.entries.iter().position(|entry| unreadable(&entry));
    let entries = regime.entries.iter().enumerate();
    let told = entries.filter(|(at, entry)| !unreadable(entry) || first == Some(*at));
    let sentences = told.filter_map(|(at, entry)| {
        let problem = entry.leaf.problem.as_ref()?;
        let mut sentence = format!(
            "{} {:#x}, level {}, word at {:#x}: {problem}",
            regime.name, entry.leaf.ia, entry.leaf.level, entry.leaf.at
        );
        if first == Some(at) && others > 0 {
            sentence.push_str(&format!(
                "; {others} more tables of {} cannot be read",
                regime.name
            ));
        }
        Some(sentence)
    });
    sentences.collect()
}
