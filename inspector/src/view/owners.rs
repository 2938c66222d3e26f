//! Who owns which physical pages.

use super::{Cell, Role, Table, address, dash, joint_owner_cell, plain, size_text, state_cell};
use crate::addr::Span;
use crate::model::{GuestSide, JointOwner, OwnerRange, System};

/// Which ranges to show; the default is all of RAM.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct OwnerFilter {
    /// Only pages that this range touches; longer ranges are cut.
    pub pa: Option<Span>,
    /// Only pages of this owner.
    pub owner: Option<JointOwner>,
}

/// The ranges of RAM that the filter admits, in order of address.
pub fn owners(system: &System, filter: &OwnerFilter) -> Vec<OwnerRange> {
    // Whole pages: half a page has no owner of its own.
    let page = |pa: Span| {
        let start = pa.start & !0xfff;
        let size = (pa.last()? | 0xfff) - start;
        Some(Span::new(start, size.saturating_add(1)))
    };
    let pa = filter.pa.map(page);
    system
        .owners
        .iter()
        .filter(|range| filter.owner.is_none_or(|owner| range.owner == owner))
        .filter_map(|range| match pa {
            None => Some(range.clone()),
            Some(pa) => range.clip(pa?),
        })
        .collect()
}

/// Ranges of pages as rows; guests and counts have columns where there are any.
pub fn owners_table(ranges: &[OwnerRange]) -> Table {
    let guests = ranges.iter().any(|range| !range.guests.is_empty());
    let counts = ranges.iter().any(|range| range.refcount.is_some());
    let mut table = Table::new(&["PA", "SIZE", "OWNER", "RULE", "HOST", "HYP"]);
    table.titles.extend(guests.then_some("GUESTS"));
    table.titles.extend(counts.then_some("COUNT"));
    for range in ranges {
        let mut row = vec![
            address(range.pa.start),
            Cell::new(Role::Address, size_text(range.pa.size)),
            joint_owner_cell(range.owner),
            range
                .rule
                .map_or_else(|| Cell::new(Role::Problem, "none"), plain),
            state_cell(range.host),
            state_cell(range.hyp),
        ];
        if guests {
            row.push(guests_cell(range));
        }
        if counts {
            let count = range.refcount.map(|count| plain(count.to_string()));
            row.push(count.unwrap_or_else(dash));
        }
        table.rows.push(row);
    }
    table
}

fn guests_cell(range: &OwnerRange) -> Cell {
    if range.guests.is_empty() {
        return dash();
    }
    let side =
        |guest: &GuestSide| format!("{:#x} at {:#x} {}", guest.handle, guest.ipa, guest.state);
    let sides: Vec<_> = range.guests.iter().map(side).collect();
    Cell::new(Role::Guest, sides.join(", "))
}
