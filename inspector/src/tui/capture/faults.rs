//! What is wrong with the machine, for the line in red.

use super::Class;
use super::areas::{class_of_entry, class_of_owner};
use crate::model::{Lock, State, System, Tickets};

/// One sentence for each kind of fault: the capture's own problems, the first odd entry of each
/// regime, the first page in no legal joint state.
pub(super) fn faults(system: &System) -> Vec<String> {
    let mut faults = system.problems.clone();
    for regime in &system.regimes {
        let odd = regime
            .entries
            .iter()
            .filter(|entry| class_of_entry(system, &regime.name, entry) == Class::Problem);
        faults.extend(first_and_more(odd, |entry| {
            let kind = || entry.kind.to_string();
            let what = entry
                .leaf
                .problem
                .as_deref()
                .map_or_else(kind, str::to_owned);
            format!("{} at {:#x}: {what}", regime.name, entry.leaf.ia)
        }));
    }
    let odd = system
        .owners
        .iter()
        .filter(|range| class_of_owner(range) == Class::Problem);
    let side = |state: Option<State>| state.map_or("unknown".to_owned(), |s| s.to_string());
    faults.extend(first_and_more(odd, |range| {
        let (host, hyp) = (side(range.host), side(range.hyp));
        format!(
            "page {:#x}: owner {}, host {host}, hyp {hyp}{}",
            range.pa.start,
            range.owner,
            passing(system)
        )
    }));
    faults
}

/// Why two sides of a page may disagree for a moment: a CPU that holds a lock may be half through a change.
fn passing(system: &System) -> String {
    // The locks that guard who owns what.
    let held = |lock: &&Lock| {
        matches!(lock.name.as_str(), "host" | "hyp") && lock.tickets.is_some_and(Tickets::held)
    };
    match system.locks.iter().find(held) {
        None => String::new(),
        Some(lock) => match &lock.holder {
            Some(holder) => format!(" (may pass: CPU {} holds lock {})", holder.cpu, lock.name),
            None => format!(" (may pass: lock {} is held)", lock.name),
        },
    }
}

/// A sentence about the first of several, and how many more there are.
fn first_and_more<T>(
    mut all: impl Iterator<Item = T>,
    sentence: impl Fn(T) -> String,
) -> Option<String> {
    let first = sentence(all.next()?);
    Some(match all.count() {
        0 => first,
        more => format!("{first} (and {more} more)"),
    })
}
