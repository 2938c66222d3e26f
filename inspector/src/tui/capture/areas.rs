//! Address spaces cut into areas of one class.

use super::{Area, Class};
use crate::addr::Span;
use crate::model::{Entry, EntryKind, JointOwner, Owner, OwnerRange, RegimeCapture, State, System};

/// Whether a physical range is RAM that the hypervisor manages.
pub(super) fn is_ram(system: &System, address: u64) -> bool {
    let after = system.ram.partition_point(|ram| ram.start <= address);
    after
        .checked_sub(1)
        .is_some_and(|i| system.ram[i].contains(address))
}

/// The class of a row of `owners`.
pub(super) fn class_of_owner(range: &OwnerRange) -> Class {
    match range.owner {
        _ if range.rule.is_none() => Class::Problem,
        JointOwner::None | JointOwner::Conflict | JointOwner::Unknown => Class::Problem,
        JointOwner::One(Owner::Guest(_)) => Class::Guest,
        JointOwner::One(_) => match (range.host, range.hyp) {
            (Some(State::SharedOwned), _) => Class::SharedOwned,
            (Some(State::SharedBorrowed), _) => Class::SharedBorrowed,
            (Some(State::Owned), _) => Class::Host,
            _ => Class::Hyp,
        },
    }
}

/// The class of an entry of a regime.
pub(super) fn class_of_entry(system: &System, regime: &str, entry: &Entry) -> Class {
    let host = regime == "host-s2";
    match entry.kind {
        // Linux's hypervisor keeps a fixmap whose slots are valid only while they are used.
        EntryKind::Invalid if regime == "hyp-s1" => return Class::Nothing,
        EntryKind::Reserved | EntryKind::Loop | EntryKind::Unreadable | EntryKind::Invalid => {
            return Class::Problem;
        }
        EntryKind::Annotation => {
            return match entry.owner {
                Some(Owner::Guest(_) | Owner::Poisoned) => Class::Guest,
                Some(Owner::Unknown(_)) | None => Class::Problem,
                Some(_) => Class::Hyp,
            };
        }
        EntryKind::Block | EntryKind::Page => {}
    }
    if entry.leaf.problem.is_some() {
        return Class::Problem;
    }
    match entry.state {
        Some(State::SharedOwned) => Class::SharedOwned,
        Some(State::SharedBorrowed) => Class::SharedBorrowed,
        Some(State::Reserved) => Class::Problem,
        _ if !entry.leaf.oa.is_some_and(|oa| is_ram(system, oa)) => Class::Mmio,
        _ if host => Class::Host,
        _ if regime.starts_with("guest") => Class::Guest,
        _ => Class::Hyp,
    }
}

/// The areas, in order and disjoint, that overlap a range.
pub(super) fn overlapping(areas: &[Area], span: Span) -> impl Iterator<Item = &Area> {
    let from = areas.partition_point(|area| area.span.last().is_none_or(|last| last < span.start));
    areas[from..]
        .iter()
        .take_while(move |area| area.span.overlaps(span))
}

/// Appends `start..end`, or lengthens the last area where it continues. What overlaps the last one is
/// cut off.
fn push(areas: &mut Vec<Area>, start: u64, end: u64, class: Class) {
    let previous = areas.last_mut();
    let after = |area: &Area| area.span.start.saturating_add(area.span.size);
    let start = previous
        .as_deref()
        .map_or(start, |area| start.max(after(area)));
    if start >= end {
        return;
    }
    match previous {
        Some(area) if area.class == class && after(area) == start => {
            area.span.size = end - area.span.start;
        }
        _ => areas.push(Area {
            span: Span::new(start, end - start),
            class,
            changed: false,
        }),
    }
}

/// The areas of a regime's input addresses.
pub(super) fn regime_areas(system: &System, regime: &RegimeCapture) -> Vec<Area> {
    let mut areas = Vec::new();
    // Only the host's stage 2 is filled on demand, and its input addresses are physical.
    let lazy: &[Span] = if regime.name == "host-s2" {
        &system.ram
    } else {
        &[]
    };
    let gap = |areas: &mut Vec<Area>, from: u64, to: u64| {
        for ram in lazy {
            let end = ram.start.saturating_add(ram.size).min(to);
            push(areas, ram.start.max(from), end, Class::Lazy);
        }
    };
    let mut at = 0;
    for entry in &regime.entries {
        gap(&mut areas, at, entry.leaf.ia);
        at = entry.leaf.ia.saturating_add(entry.leaf.size);
        push(
            &mut areas,
            entry.leaf.ia,
            at,
            class_of_entry(system, &regime.name, entry),
        );
    }
    gap(&mut areas, at, u64::MAX);
    areas
}

/// The areas of RAM by joint state.
pub(super) fn physical_areas(system: &System) -> Vec<Area> {
    let host = system
        .regimes
        .iter()
        .find(|regime| regime.name == "host-s2");
    let mapped = host.map_or_else(Vec::new, |regime| regime_areas(system, regime));
    let mut areas = Vec::new();
    for range in &system.owners {
        let end = range.pa.start.saturating_add(range.pa.size);
        let class = class_of_owner(range);
        if class != Class::Host {
            push(&mut areas, range.pa.start, end, class);
            continue;
        }
        // What the host owns is mapped, or will be when it touches it.
        let mut at = range.pa.start;
        for area in overlapping(&mapped, range.pa).filter(|area| area.class == Class::Host) {
            let start = area.span.start.max(at);
            push(&mut areas, at, start, Class::Lazy);
            at = area.span.start.saturating_add(area.span.size).min(end);
            push(&mut areas, start, at, Class::Host);
        }
        push(&mut areas, at, end, Class::Lazy);
    }
    areas
}

/// Cuts areas where changes begin and end and marks what lies in them; what changed where nothing is
/// any more becomes an area of nothing.
pub(super) fn mark(areas: Vec<Area>, changes: &[Span]) -> Vec<Area> {
    if changes.is_empty() {
        return areas;
    }
    let mut out = Vec::new();
    let mut changes = changes.iter().copied().peekable();
    // The part of the current change that is not dealt with yet starts here.
    let mut from = 0;
    let end_of = |span: Span| span.start.saturating_add(span.size);
    let piece = |out: &mut Vec<Area>, start: u64, end: u64, class, changed| {
        if start < end {
            out.push(Area {
                span: Span::new(start, end - start),
                class,
                changed,
            });
        }
    };
    for area in areas {
        let (mut at, end) = (area.span.start, end_of(area.span));
        while let Some(change) = changes.peek().copied() {
            let begin = change.start.max(from);
            if begin >= end {
                break;
            }
            piece(
                &mut out,
                begin,
                end_of(change).min(at),
                Class::Nothing,
                true,
            );
            piece(&mut out, at, begin.min(end), area.class, false);
            let stop = end_of(change).min(end);
            piece(&mut out, begin.max(at), stop, area.class, true);
            at = at.max(stop);
            from = from.max(stop);
            if end_of(change) > end {
                break;
            }
            changes.next();
        }
        piece(&mut out, at, end, area.class, false);
        from = from.max(end);
    }
    for change in changes {
        piece(
            &mut out,
            change.start.max(from),
            end_of(change),
            Class::Nothing,
            true,
        );
    }
    out
}

/// From the first to the last area.
pub(super) fn extent(areas: &[Area]) -> Span {
    match (
        areas.first(),
        areas.last().and_then(|area| area.span.last()),
    ) {
        (Some(first), Some(last)) => Span::new(
            first.span.start,
            (last - first.span.start).saturating_add(1),
        ),
        _ => Span::new(0, 0),
    }
}
