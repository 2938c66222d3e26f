//! Locks.

use super::{Cell, Role, Table, address, dash, dim, plain};
use crate::model::{HolderSource, System, Tickets};

/// Every lock as a row.
pub fn locks_table(system: &System) -> Table {
    let mut table = Table::new(&[
        "LOCK", "PA", "OWNER", "NEXT", "HELD", "WAITERS", "CPU", "HOW", "TAKEN AT",
    ]);
    for lock in &system.locks {
        let ticket = |value: Option<u16>| value.map_or_else(dash, |v| plain(v.to_string()));
        let held = match lock.tickets {
            None => Cell::new(Role::Problem, "unreadable"),
            Some(tickets) if tickets.held() => Cell::new(Role::Active, "held"),
            Some(_) => dim("free"),
        };
        let waiters = lock.tickets.map(Tickets::waiters);
        let holder = lock.holder.as_ref();
        table.rows.push(vec![
            plain(lock.name.as_str()),
            address(lock.pa),
            ticket(lock.tickets.map(|t| t.owner)),
            ticket(lock.tickets.map(|t| t.next)),
            held,
            match waiters {
                Some(count @ 1..) => Cell::new(Role::Active, count.to_string()),
                other => ticket(other),
            },
            holder.map_or_else(dash, |h| plain(h.cpu.to_string())),
            holder.map_or_else(dash, |h| {
                plain(match h.how {
                    HolderSource::Recorded => "recorded",
                    HolderSource::Inferred => "inferred",
                })
            }),
            holder.map_or_else(dash, |h| match (&h.symbol, h.pc) {
                (Some(symbol), _) => Cell::new(Role::Symbol, symbol.as_str()),
                (None, Some(pc)) => address(pc),
                (None, None) => dash(),
            }),
        ]);
    }
    table
}

/// What each inferred holder follows from; `None` where every holder is recorded.
pub fn inferred_table(system: &System) -> Option<Table> {
    let mut table = Table::new(&["LOCK", "CPU", "BECAUSE"]);
    for lock in &system.locks {
        let holder = lock.holder.as_ref();
        if let Some((holder, by)) = holder.and_then(|holder| Some((holder, holder.by.as_ref()?))) {
            table.rows.push(vec![
                plain(lock.name.as_str()),
                plain(holder.cpu.to_string()),
                plain(by.as_str()),
            ]);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}
