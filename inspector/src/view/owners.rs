//! Who owns which physical pages.

use super::{Cell, Role, Table, address, dash, joint_owner_cell, plain, size_text, state_cell};
use crate::addr::Span;
use crate::model::{JointOwner, OwnerRange, System};

/// Which ranges to show; the default is all of RAM.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct OwnerFilter {
    /// Only pages in this range; ranges that reach out of it are cut.
    pub pa: Option<Span>,
    /// Only pages of this owner.
    pub owner: Option<JointOwner>,
}

/// The ranges of RAM that the filter admits, in order of address.
pub fn owners(system: &System, filter: &OwnerFilter) -> Vec<OwnerRange> {
    system
        .owners
        .iter()
        .filter(|range| filter.owner.is_none_or(|owner| range.owner == owner))
        .filter_map(|range| match filter.pa {
            None => Some(range.clone()),
            Some(pa) => clip(range, pa),
        })
        .collect()
}

/// The part of a range that lies in `pa`, cut at page boundaries by the caller's choice of `pa`.
pub(super) fn clip(range: &OwnerRange, pa: Span) -> Option<OwnerRange> {
    if !range.pa.overlaps(pa) {
        return None;
    }
    let start = range.pa.start.max(pa.start);
    let last = range.pa.last()?.min(pa.last()?);
    let mut clipped = range.clone();
    clipped.pa = Span::new(start, (last - start).saturating_add(1));
    for guest in &mut clipped.guests {
        guest.ipa = guest.ipa.wrapping_add(start - range.pa.start);
    }
    Some(clipped)
}

/// Ranges of pages as rows.
pub fn owners_table(ranges: &[OwnerRange]) -> Table {
    let mut table = Table::new(&[
        "PA", "SIZE", "OWNER", "HOST", "HYP", "GUESTS", "COUNT", "RULE",
    ]);
    for range in ranges {
        let guests = range
            .guests
            .iter()
            .map(|guest| format!("{:#x}@{:#x} {}", guest.handle, guest.ipa, guest.state))
            .collect::<Vec<_>>();
        table.rows.push(vec![
            address(range.pa.start),
            Cell::new(Role::Address, size_text(range.pa.size)),
            joint_owner_cell(range.owner),
            state_cell(range.host),
            state_cell(range.hyp),
            if guests.is_empty() {
                dash()
            } else {
                Cell::new(Role::Guest, guests.join(", "))
            },
            range
                .refcount
                .map_or_else(dash, |count| plain(count.to_string())),
            range
                .rule
                .map_or_else(|| Cell::new(Role::Problem, "none"), plain),
        ]);
    }
    table
}
